"""Translate an ONNX file to torch, or else hand it to onnxruntime."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.checkpoints.source import FileKind
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.objects.two_files import sources_of
from isoprobe_plugins.adapters.onnx.cutting import find_cut, halves, without_noise
from isoprobe_plugins.adapters.onnx.graph import OnnxGraph
from isoprobe_plugins.adapters.onnx.operators import MAX_ELEMENTS, UntranslatedError
from isoprobe_plugins.adapters.onnx.parsing import parsed
from isoprobe_plugins.adapters.onnx.runtime import RuntimeGraph
from isoprobe_plugins.adapters.programs.bounded import Bounded
from isoprobe_plugins.adapters.weights.torch_files import first_line

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.onnx.options import OnnxOptions

Graph = OnnxGraph | RuntimeGraph


def graphs_of(
    source: Source, settings: OnnxOptions
) -> tuple[tuple[Source | None, Graph | None], tuple[Source, Graph], tuple[str, ...]]:
    """Read encoder and decoder, from two files or by cutting the graph of one.

    Args:
        source: the file or folder.
        settings: options in force.

    Returns:
        File and graph of the encoder, None where there is none; of the decoder; and where a graph
        was cut, in words.

    Raises:
        CheckpointError: for a graph that is neither of a pair nor a whole VAE.
    """
    told = settings.cut()
    if not source.is_folder and settings.decoder is None:
        model = parsed(source)
        cut = find_cut(model.graph, told, source)
        if cut is not None:
            encoder, decoder = (readable(part, source) for part in halves(model, cut, source))
            note = f"one graph, cut at '{cut.latent}': posterior '{cut.mean}' and '{cut.scale}'"
            return (source, encoder), (source, decoder), (note, *_idle(cut.noise))
        ends = [o.name for o in model.graph.output]
        if told or len(ends) > 2:
            raise CheckpointError(
                f"{source.path} gives {', '.join(ends)}, and it is not clear where it is to be cut "
                "into encoder and decoder: name its tensors with --option mean=NAME --option "
                "scale=NAME --option latent=NAME --option recon=NAME"
            )
    first, second = sources_of(source, settings, FileKind.ONNX)
    if first is None:
        return (None, None), (second, read_onnx(second)), ()
    model, noise = without_noise(parsed(first), 2)
    return (first, readable(model, first)), (second, read_onnx(second)), _idle(noise)


def _idle(noise: tuple[str, ...]) -> tuple[str, ...]:
    named = " and ".join(f"'{name}'" for name in noise)
    return (f"input {named} left out: the posterior does not depend on it",) if noise else ()


def read_onnx(source: Source) -> Graph:
    """Read an ONNX file as a torch module, or else to be run by onnxruntime.

    Args:
        source: the file.

    Returns:
        The module, or the graph as a black box, whose ``why`` says what has no translation.

    Raises:
        CheckpointError: when it is damaged, or neither can be.
    """
    return readable(parsed(source), source)


def readable(model: Any, source: Source) -> Graph:
    """Translate a model to torch, or hand it to onnxruntime.

    Args:
        model: parsed.
        source: its file.

    Returns:
        The module, or the graph as a black box.

    Raises:
        CheckpointError: when neither can be.
    """
    _refuse_bytes(model, source)
    try:
        return _translated(model, source)
    except CheckpointError:
        raise
    except UntranslatedError as error:
        return _run_as_it_stands(model, source, str(error))
    except Exception as error:  # protocol buffers and numpy fail in their own ways
        raise CheckpointError(f"{source.path} is damaged: {first_line(error)}") from error


def _refuse_bytes(model: Any, source: Source) -> None:
    """Refuse a graph that rounds its output: it has no derivative."""
    import onnx

    for value in model.graph.output:
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        if "int" in kind:
            maker = next((n for n in model.graph.node if value.name in n.output), None)
            before = "" if maker is None or not maker.input else f" '{maker.input[0]}' before it"
            raise CheckpointError(
                f"{source.path} gives '{value.name}' as {kind}, which has no derivative; export "
                f"the tensor{before} instead"
            )


def _run_as_it_stands(model: Any, source: Source, why: str) -> RuntimeGraph:
    try:
        return RuntimeGraph(model, source, why=why)
    except CheckpointError:
        raise
    except Exception as error:  # protocol buffers and numpy fail in their own ways
        raise CheckpointError(f"{source.path} is damaged: {first_line(error)}") from error


def _translated(model: Any, source: Source) -> OnnxGraph:
    """Translate a graph, and try it where its input's shape is known."""
    graph = OnnxGraph(model, source)
    single = len(graph.inputs) == 1 and graph.input_shape is not None
    if single and graph.input_shape is not None and math.prod(graph.input_shape) <= MAX_ELEMENTS:
        with torch.no_grad(), contextlib.suppress(RuntimeError):  # calling it says why it fails
            Bounded(graph, source)(torch.zeros(1, *graph.input_shape))
    return graph
