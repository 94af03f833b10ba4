"""Read diffusers' autoencoders with a posterior: folders, pipelines and single files."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.native import compare_state
from isoprobe.checkpoints.source import FileKind
from isoprobe.contracts import VAE, Adapter, Facts, Posterior
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.declared.adapter import beside
from isoprobe_plugins.adapters.diffusers.names import config_from_shapes, prefix_of, renamed
from isoprobe_plugins.adapters.extras import need
from isoprobe_plugins.adapters.weights.names import tensor_names, why_quantised
from isoprobe_plugins.adapters.weights.state import read_state

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.weights.state import State

_ENDINGS = ("safetensors", "bin")

_KL = "AutoencoderKL"
#: what a shard's name has before its ending
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")
#: relatives, and why there is nothing to analyse
_RELATIVES = {
    "AutoencoderTiny": "is deterministic: it has no posterior",
    "AutoencoderDC": "is deterministic: it has no posterior",
    "AsymmetricAutoencoderKL": "decodes with a mask beside the latents",
    "VQModel": "is vector-quantised: its latents are entries of a codebook",
    "ConsistencyDecoderVAE": "decodes by running a diffusion, not by a function of z",
}


@dataclass(frozen=True)
class DiffusersOptions:
    """Options of ``diffusers``.

    Attributes:
        size: side of the square images to analyse, length of sounds; the training size when left
            out, where the configuration says it.
        frames: of videos.
        groups: of the group norms, where a single file is read, which does not say.
        variant: which weights of a folder with several, such as ``fp16``.
    """

    size: int | None = None
    frames: int = 1
    groups: int = 32
    variant: str | None = None


class Diffusers(Adapter):
    """Reads configuration and weights; the attention is the plain one, which can be derived."""

    name = "diffusers"
    summary = "autoencoders of diffusers: folders, pipelines, single files; --option size=PIXELS"

    def matches(self, source: Source) -> bool:
        """Return True for a diffusers model folder, or weights with an AutoencoderKL's names."""
        if source.is_folder:
            return source.kind is FileKind.DIFFUSERS or _of_pipeline(source) is not None
        names = tensor_names(source)
        return prefix_of(names) is not None and not beside(source).is_file()

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Build the autoencoder and fill it.

        Args:
            source: the folder, or a file that holds such an autoencoder.
            options: fields of :class:`DiffusersOptions`.

        Returns:
            The model, with spatial latents flattened.
        """
        settings = construct(DiffusersOptions, options, f"adapter '{self.name}'")
        part = _of_pipeline(source)
        if part is not None:
            vae = self.load(part, options)
            return replace(vae, name=source.path.resolve().name).with_facts(
                assumptions=(
                    f"the pipeline's autoencoder, {part.path.name}/",
                    *vae.facts.assumptions,
                )
            )
        config, state, weights = _read(source, settings)
        module = _load_module(config, state.tensors, weights)
        if config["_class_name"] != _KL:
            return _other(module, config, state, source, settings, self.name)
        input_shape, latent_shape = _shapes(config, settings.size)
        return VAE(
            decode=_decoder(module, latent_shape),
            encode=_encoder(module),
            input_shape=input_shape,
            latent_shape=latent_shape,
            module=module,
            facts=_facts(config, state.notes),
            name=source.path.resolve().name if source.is_folder else source.path.stem,
            adapter=self.name,
            sha256=(source if len(_files(source, settings)) > 1 else weights).sha256(),
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the configuration; of a single file, what loading reads it off."""
        if not source.is_folder:
            return {"architecture": "AutoencoderKL", "config": "read off the weights' shapes"}
        part = _of_pipeline(source)
        if part is not None:
            return {"autoencoder": part.path.name, **self.describe(part)}
        config = _config(source)
        facts = _facts(config, ())
        return {
            "architecture": config["_class_name"],
            "config": {k: v for k, v in config.items() if not k.startswith("_")},
            "input_range": facts.input_range,
            "scale_head": facts.scale_head,
            "assumptions": list(facts.assumptions),
        }


def _of_pipeline(source: Source) -> Source | None:
    """Return the folder of a pipeline's autoencoder."""
    if not source.is_folder or not source.has("model_index.json", "vae"):
        return None
    part = source.child("vae")
    return part if part.is_folder and part.kind is FileKind.DIFFUSERS else None


def _config(source: Source) -> dict[str, Any]:
    """Return the configuration of an autoencoder.

    Raises:
        CheckpointError: for a class without a posterior, named with the reason.
    """
    config: dict[str, Any] = source.json("config.json")
    name = str(config.get("_class_name"))
    reason = _RELATIVES.get(name)
    if reason is None and not (name.startswith("Autoencoder") and name.isidentifier()):
        reason = "is no autoencoder"
    if reason is not None:
        raise CheckpointError(f"{source.path} holds diffusers' {name}, which {reason}")
    return config


def _files(source: Source, settings: DiffusersOptions) -> list[Source]:
    """Return the files of a folder's weights, several where they come in shards.

    Raises:
        CheckpointError: for a folder without weights, or with several sets of them.
    """
    if not source.is_folder:
        return [source]
    stem = "diffusion_pytorch_model"
    for ending in _ENDINGS:
        held = [n for n in source.names() if n.startswith(stem) and n.endswith(f".{ending}")]
        sets = sorted({_SHARD.sub("", n)[len(stem) : -len(ending) - 1].strip(".") for n in held})
        if not sets:
            continue
        wanted = settings.variant if settings.variant is not None else ""
        if settings.variant is None and "" not in sets and len(sets) == 1:
            (wanted,) = sets
        chosen = [
            n for n in held
            if _SHARD.sub("", n)[len(stem) : -len(ending) - 1].strip(".") == wanted
        ]  # fmt: skip
        if not chosen:
            raise CheckpointError(
                f"{source.path} has weights of variant {' and '.join(s or 'none' for s in sets)}; "
                "choose one with --option variant=NAME"
            )
        whole = [n for n in chosen if not _SHARD.search(n)]
        return [source.child(n) for n in whole or chosen]
    raise CheckpointError(f"{source.path} has no weights; expected {stem}.safetensors")


def _read(source: Source, settings: DiffusersOptions) -> tuple[dict[str, Any], State, Source]:
    """Return configuration and weights under today's names, and the file of the weights.

    Raises:
        CheckpointError: for a file that holds no such autoencoder.
    """
    if source.is_folder:
        config, files = _config(source), _files(source, settings)
        states = [read_state(file, prefix="") for file in files]
        tensors = {name: tensor for state in states for name, tensor in state.tensors.items()}
        notes = states[0].notes
        if len(files) > 1:
            notes = (*notes, f"weights put together from {len(files)} files")
        if config["_class_name"] == _KL:  # older files of it have other names
            tensors = renamed(tensors)
        return config, replace(states[0], tensors=tensors, notes=notes), files[0]
    names = read_state(source, prefix="").tensors
    prefix, reason = prefix_of(names), why_quantised(names)
    if prefix is not None and reason is not None:
        raise CheckpointError(f"{source.path} is {reason}")
    if prefix is None:
        raise CheckpointError(f"{source.path} is {source.description}, with no AutoencoderKL in it")
    state = read_state(source, prefix=prefix)
    tensors = renamed(state.tensors)
    config = config_from_shapes(tensors, settings.groups, str(source.path))
    notes = (
        *state.notes,
        f"sizes read off the weights' shapes; group norms of {settings.groups} groups "
        "(--option groups=N)",
    )
    return config, replace(state, tensors=tensors, notes=notes), source


def _load_module(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], weights: Source
) -> nn.Module:
    """Build without memory, compare with the file, and only then fill."""
    import torch

    diffusers = need("diffusers", "diffusers", "an AutoencoderKL")
    kind = getattr(diffusers, config["_class_name"], None)
    if kind is None or not hasattr(kind, "encode") or not hasattr(kind, "from_config"):
        raise CheckpointError(
            f"{weights.path}: diffusers {diffusers.__version__} has no {config['_class_name']}"
        )
    try:
        with torch.device("meta"):
            module: nn.Module = kind.from_config(dict(config))
    except Exception as error:  # the configuration decides what the library trips over
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CheckpointError(f"{weights.path}: diffusers cannot build it: {first[0]}") from error
    compare_state(module, tensors, str(weights.path))
    module.load_state_dict(dict(tensors), assign=True)
    _settle_strides(module)
    return module.eval()


def _settle_strides(module: nn.Module) -> None:
    """Copy what enters a GroupNorm: its forward derivative fails on the attention's strides."""
    import torch

    def settle(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, *rest = arguments
        return (first.clone(memory_format=torch.contiguous_format), *rest)

    for part in module.modules():
        if isinstance(part, torch.nn.GroupNorm):
            part.register_forward_pre_hook(settle)


def _other(
    module: nn.Module,
    config: Mapping[str, Any],
    state: State,
    source: Source,
    settings: DiffusersOptions,
    adapter: str,
) -> VAE:
    """Read a class whose shapes are told by trying it: of images, videos or sounds.

    Returns:
        The model.

    Raises:
        CheckpointError: for one that gives no posterior, or no row of the shape it takes.
    """
    import torch

    name = config["_class_name"]
    shape = _taken(config, state.tensors, settings)
    try:
        with torch.no_grad():
            given = module.encode(torch.zeros(1, *shape))  # type: ignore[operator]
            mean = given.latent_dist.mean
            latent_shape = tuple(mean.shape[1:])
            back = _decoder(module, latent_shape, **_told_frames(module, shape))(mean.flatten(1))
    except Exception as error:  # what a class trips over is its own
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(
            f"{source.path}: {name} takes no row of shape {shape} (--option size=N, --option "
            f"frames=N): {what}"
        ) from error
    if tuple(back.shape[1:]) != shape:
        raise CheckpointError(
            f"{source.path}: {name} gives {tuple(back.shape[1:])} for {shape}; choose another "
            "--option size=N or --option frames=N"
        )
    return VAE(
        decode=_decoder(module, latent_shape, **_told_frames(module, shape)),
        encode=_encoder(module),
        input_shape=shape,
        latent_shape=latent_shape,
        module=module,
        facts=_facts(config, state.notes),
        name=source.path.resolve().name,
        adapter=adapter,
        sha256=source.sha256(),
    )


def _taken(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], settings: DiffusersOptions
) -> tuple[int, ...]:
    """Shape of one input, by how many axes the encoder's convolutions have."""
    axes = max((t.ndim for n, t in tensors.items() if n.startswith("encoder")), default=4) - 2
    channels = int(config.get("in_channels") or config.get("audio_channels") or 3)
    if axes == 1:
        hop = math.prod(config.get("downsampling_ratios", [1]))
        return (channels, settings.size if settings.size is not None else 4 * hop)
    told = config.get("sample_size") or config.get("sample_height")
    side = settings.size if settings.size is not None else told if isinstance(told, int) else 64
    return (channels, side, side) if axes == 2 else (channels, settings.frames, side, side)


def _told_frames(module: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """What a decoder of single frames asks for."""
    taken = inspect.signature(module.decode).parameters  # type: ignore[arg-type]
    return {"num_frames": 1} if "num_frames" in taken and len(shape) == 3 else {}


def _shapes(config: Mapping[str, Any], size: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    down = 2 ** (len(config["block_out_channels"]) - 1)
    side = size if size is not None else config.get("sample_size", 256)
    if not isinstance(side, int) or side < down or side % down:
        raise OptionError(f"option 'size' must be a multiple of {down}; found {side}")
    channels, latents = config.get("in_channels", 3), config.get("latent_channels", 4)
    return (channels, side, side), (latents, side // down, side // down)


def _encoder(module: Any) -> Callable[[Tensor], Posterior]:
    def encode(x: Tensor) -> Posterior:
        latent = module.encode(x).latent_dist
        return Posterior(latent.mean.flatten(1), latent.std.flatten(1))

    return encode


def _decoder(module: Any, latent_shape: tuple[int, ...], **told: int) -> Callable[[Tensor], Tensor]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def decode(z: Tensor) -> Tensor:
        # of the attention kernels only this one has a forward derivative
        with sdpa_kernel(SDPBackend.MATH):
            x_hat: Tensor = module.decode(z.reshape(*z.shape[:-1], *latent_shape), **told).sample
        return x_hat

    return decode


def _facts(config: Mapping[str, Any], notes: tuple[str, ...]) -> Facts:
    left = [
        f"{name} {config[name]}" for name in ("scaling_factor", "shift_factor") if config.get(name)
    ]
    pipeline = (f"{' and '.join(left)} left to pipelines, as encode and decode do",) if left else ()
    return Facts(
        input_range=(-1.0, 1.0),
        scale_head="softplus-std"
        if config["_class_name"] == "AutoencoderOobleck"
        else "logvar-clamped",
        beta_source="unknown: trained with perceptual and adversarial terms beside the KL",
        assumptions=(*pipeline, *notes),
    )


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Diffusers]
