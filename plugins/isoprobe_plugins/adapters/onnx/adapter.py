"""Load pairs of ONNX files: translated to torch, or else run as black boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.objects.two_files import OfPairs
from isoprobe_plugins.adapters.onnx.options import OnnxOptions
from isoprobe_plugins.adapters.onnx.parsing import ends_of, weights_of

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe.contracts import VAE, Adapter
    from isoprobe_plugins.adapters.onnx.runtime import RuntimeGraph


class Onnx(OfPairs):
    """Reads two graphs; an encoder that gives only a mean is left out, and said."""

    name = "onnx"
    summary = "ONNX files: encoder and decoder, each its own file, or both in one graph"
    kind = FileKind.ONNX

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Translate both graphs.

        Args:
            source: the encoder's file, or the folder.
            options: fields of :class:`~isoprobe_plugins.adapters.onnx.options.OnnxOptions`.

        Returns:
            The model.
        """
        from dataclasses import replace

        from isoprobe_plugins.adapters.objects.pairs import EncoderFirst, Pair
        from isoprobe_plugins.adapters.objects.wrapping import (
            conditional_from_object,
            vae_from_object,
        )
        from isoprobe_plugins.adapters.onnx.conditions import AtCondition, condition_of
        from isoprobe_plugins.adapters.onnx.reading import graphs_of
        from isoprobe_plugins.adapters.onnx.runtime import RuntimeGraph
        from isoprobe_plugins.adapters.programs.bounded import Bounded

        settings = construct(OnnxOptions, options, f"adapter '{self.name}'")
        (encoder, encode), (decoder, decode), cut = graphs_of(source, settings)
        notes = (*cut, *(_said(g) for g in (encode, decode) if isinstance(g, RuntimeGraph)))
        if settings.latent_shape is None and decode.input_shape is not None:
            settings = replace(settings, latent_shape="x".join(map(str, decode.input_shape)))
        label = str(source.path)
        if encode is not None and len(encode.outputs) == 1 and settings.layout is None:
            pair = Pair(None, _derivable(decode, decoder))
            vae = vae_from_object(pair, settings, label, source, adapter=self.name)
            return vae.with_facts(
                assumptions=(
                    *notes,
                    "the encoder gives a mean and no deviation: norms, rates and densities are "
                    "missing, only the decoder is analysed (--option layout=halves if both are in "
                    "one output)",
                )
            )
        if encode is not None and settings.input_shape is None and encode.input_shape is not None:
            settings = replace(settings, input_shape="x".join(map(str, encode.input_shape)))
        first = None
        if encoder is not None:
            first = EncoderFirst(
                encode if isinstance(encode, RuntimeGraph) else Bounded(encode, encoder)
            )
        pair = Pair(first, _derivable(decode, decoder))
        told = condition_of([g for g in (encode, decode) if g is not None], source)
        if told is not None:
            notes = (*notes, *told.assumed)
            vae = conditional_from_object(
                lambda c: AtCondition(pair, told, c, encode), told.classes, told.words, settings,
                label, source, adapter=self.name,
            )  # fmt: skip
        else:
            vae = vae_from_object(pair, settings, label, source, adapter=self.name)
        return vae.with_facts(assumptions=(*notes, *vae.facts.assumptions))

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return inputs and outputs with their shapes, of each graph."""
        if not source.is_folder:
            return {"architecture": "ONNX graph", **ends_of(source)}
        files = [n for n in source.names() if n.endswith(".onnx")]
        return {"architecture": "a pair of ONNX graphs"} | {
            name.removesuffix(".onnx"): ends_of(source.child(name)) for name in files
        }

    def tensors(self, source: Source) -> Mapping[str, tuple[int, ...]]:
        """Return shapes of the graph's weights."""
        return {} if source.is_folder else weights_of(source)


def _said(graph: RuntimeGraph) -> str:
    return f"{graph.why}: run by onnxruntime as a black box, derivatives by central differences"


def _derivable(graph: Any, source: Source) -> Any:
    """Return a decoder that has derivatives, exact or by differences."""
    from isoprobe.derivatives.blackbox import BlackBox
    from isoprobe_plugins.adapters.onnx.runtime import RuntimeGraph
    from isoprobe_plugins.adapters.programs.bounded import Bounded

    return BlackBox(graph) if isinstance(graph, RuntimeGraph) else Bounded(graph, source)


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Onnx]
