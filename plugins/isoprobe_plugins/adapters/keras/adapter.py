"""Load Keras files whose encoder and decoder are made of built-in layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.native import vae_from_networks
from isoprobe.checkpoints.source import FileKind
from isoprobe.contracts import VAE, Adapter, Facts
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.keras.arrays import (
    ArchiveArrays,
    LegacyArrays,
    is_legacy,
    legacy_config,
)
from isoprobe_plugins.adapters.keras.graph import GRAPHS, layers_of
from isoprobe_plugins.adapters.objects.options import read_shape
from isoprobe_plugins.adapters.objects.two_files import PairOptions, is_pair, sources_of

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe.contracts import Networks
    from isoprobe_plugins.adapters.keras.translate import Part

_KINDS = (FileKind.KERAS, FileKind.HDF5)


@dataclass(frozen=True)
class KerasOptions:
    """Options of ``keras``.

    Attributes:
        head: form of the scale; told by the layer's name when left out.
        metric: metric spec of the training loss, which is code and so not in the file.
        beta: KL weight in the units of that metric; the file's own ``beta`` when left out.
        decoder: file of the decoder, where the checkpoint is the encoder alone; or ``self`` to
            read the checkpoint as a decoder without an encoder.
        input_shape: of one input, such as ``30x8``, where the file leaves lengths free.
    """

    head: str | None = None
    metric: str | None = None
    beta: float | None = None
    decoder: str | None = None
    input_shape: str | None = None


class Keras(Adapter):
    """Reads the configuration's JSON and the arrays; custom code and Lambda layers are refused."""

    name = "keras"
    summary = "Keras files (.keras, .h5) of built-in layers: one model, a pair, or a folder of two"

    def matches(self, source: Source) -> bool:
        """Return True for a Keras archive, an HDF5 model, or a folder of encoder and decoder."""
        if source.kind is FileKind.HDF5:
            return is_legacy(source)
        return source.kind is FileKind.KERAS or any(is_pair(source, kind) for kind in _KINDS)

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Translate encoder and decoder.

        Args:
            source: the archive, the HDF5 file, the encoder's file, or a folder of both.
            options: fields of :class:`KerasOptions`.

        Returns:
            The model; inputs keep Keras' channels-last shape.

        Raises:
            CheckpointError: for custom layers, and arrays that do not fit the configuration.
        """
        from isoprobe_plugins.adapters.keras.translate import translate, translate_decoder

        settings = construct(KerasOptions, options, f"adapter '{self.name}'")
        text = settings.input_shape
        given = None if text is None else read_shape(text, "input_shape")
        try:
            encoder, decoder, own_beta = _parts(source, settings.decoder)
            if encoder is None:
                return self._alone(translate_decoder(decoder, str(source.path)), settings, source)
            networks, form, note = translate(
                encoder, decoder, settings.head, str(source.path), given
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"{source.path}: its configuration does not fit its weights ({error!r})"
            ) from error
        return vae_from_networks(
            networks,
            _facts(own_beta, settings, form, note, networks),
            name=source.path.stem,
            adapter=self.name,
            sha256=source.sha256(),
        )

    def _alone(self, networks: Networks, settings: KerasOptions, source: Source) -> VAE:
        """Return the model of a decoder without an encoder."""
        facts = _facts(None, settings, "", "the file is a decoder, so nothing else", networks)
        vae = vae_from_networks(
            networks,
            replace(facts, scale_head=None),
            name=source.path.stem,
            adapter=self.name,
            sha256=source.sha256(),
        )
        told = vae.conditional
        known = None if told is None else replace(told, encode=None)
        return replace(vae, encode=None, conditional=known)

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return classes and layers."""
        if source.is_folder:
            return {"architecture": "a pair of Keras files"}
        whole = _whole(source)
        models = {"model": whole}
        try:
            inside = _inside(whole, source)
        except CheckpointError:
            inside = {}  # one function, whose other half is another file
        models = {name: model for name, (model, _) in inside.items()} or models
        parts = {
            name: [f"{layer.name}: {layer.kind}" for layer in layers_of(model)]
            for name, model in models.items()
        }
        beta = whole["config"].get("beta")
        ends = {"inputs": _ends(models, "input_layers"), "outputs": _ends(models, "output_layers")}
        return {"architecture": f"Keras {whole.get('class_name')}", **parts, **ends, "beta": beta}

    def tensors(self, source: Source) -> Mapping[str, tuple[int, ...]]:
        """Return shapes of the arrays in a file."""
        if source.is_folder:
            return {}
        arrays = _arrays(source)
        found = arrays.file.walk(arrays.file.file)
        return {name: tuple(array.shape) for name, array in found if array.shape}


def _ends(models: Mapping[str, Any], which: str) -> list[str]:
    """Names of the layers at the ends of graphs, with shapes where the configuration has them."""
    found = []
    for model in models.values():
        config = model["config"]
        shapes = {
            layer["config"].get("name"): layer["config"].get("batch_shape")
            or layer["config"].get("batch_input_shape")
            for layer in config.get("layers", [])
        }
        for end in config.get(which, []):
            name = end[0] if isinstance(end, list) else end
            if isinstance(name, list):
                name = name[0]
            dims = shapes.get(name)
            told = "" if not dims else ": " + " x ".join("?" if d is None else str(d) for d in dims)
            found.append(f"{name}{told}")
    return found


def _whole(source: Source) -> dict[str, Any]:
    """Return class and configuration of the model in a file.

    Raises:
        CheckpointError: when there are none.
    """
    archive = source.kind is FileKind.KERAS
    whole = source.json("config.json") if archive else legacy_config(source)
    if not isinstance(whole, dict) or not isinstance(whole.get("config"), dict):
        raise CheckpointError(f"{source.path} is {source.description} without a Keras model in it")
    return whole


def _inside(
    whole: Mapping[str, Any], source: Source
) -> dict[str, tuple[dict[str, Any], tuple[str, ...]]]:
    """Return encoder and decoder inside one model, with the groups that lead to their arrays.

    Raises:
        CheckpointError: when it has no such parts.
    """
    config = whole["config"]
    wanted = ("encoder", "decoder")
    if set(wanted) <= set(config):
        return {name: (config[name], (name,)) for name in wanted}
    nested: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {}
    if whole.get("class_name") in GRAPHS:
        for layer in layers_of(whole):
            if layer.kind in GRAPHS and layer.name in wanted:
                model = {"class_name": layer.kind, "config": dict(layer.config)}
                archive = source.kind is FileKind.KERAS
                prefix = ("layers", layer.stored) if archive else (layer.name,)
                nested[layer.name] = (model, prefix)
    if set(nested) != set(wanted):
        raise CheckpointError(
            f"{source.path} is a Keras {whole.get('class_name', 'file')} whose configuration has "
            "no encoder and decoder; save them as parts of one model, name the decoder's file "
            "with --option decoder=FILE, read a decoder alone with --option decoder=self, or build "
            "it with --adapter factory"
        )
    return nested


def _parts(source: Source, decoder: str | None) -> tuple[Part | None, Part, Any]:
    """Return encoder (None for a decoder alone), decoder, and what the file says of beta."""
    from isoprobe_plugins.adapters.keras.translate import Part

    if decoder == "self":
        return None, Part(_whole(source), _arrays(source)), None
    if not source.is_folder and decoder is None:
        whole = _whole(source)
        arrays = _arrays(source)
        inside = _inside(whole, source)
        first, second = (
            Part(model, arrays, prefix) for model, prefix in (inside["encoder"], inside["decoder"])
        )
        return first, second, whole["config"].get("beta")
    first, second = (Part(_whole(file), _arrays(file)) for file in _files(source, decoder))
    return first, second, None


def _files(source: Source, decoder: str | None) -> tuple[Source, Source]:
    """Return the files of a pair."""
    kind = source.kind
    if source.is_folder:
        kind = next((k for k in _KINDS if is_pair(source, k)), FileKind.KERAS)
    encoder, decoding = sources_of(source, PairOptions(decoder=decoder), kind)
    if encoder is None:
        raise CheckpointError(
            f"{source.path} is a decoder; read it alone with --option decoder=self, or give both"
        )
    return encoder, decoding


def _arrays(source: Source) -> Any:

    return (ArchiveArrays if source.kind is FileKind.KERAS else LegacyArrays)(source)


def _facts(stored: Any, settings: KerasOptions, form: str, note: str, networks: Networks) -> Facts:
    plain = isinstance(stored, int | float) and not isinstance(stored, bool)
    own = float(stored) if plain else None
    beta = settings.beta if settings.beta is not None else own
    if beta is not None and not beta > 0:
        raise OptionError(f"beta must be positive, found {beta}")
    source = "--option beta" if settings.beta is not None else "the file's 'beta'"
    return Facts(
        output_range=(0.0, 1.0) if hasattr(networks.decoder, "logits") else None,
        metric=settings.metric,
        beta=beta,
        beta_source=None if beta is None else source,
        scale_head=form,
        assumptions=tuple(filter(None, (note, "the loss is code and not in the file"))),
    )


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Keras]
