"""Translate an ONNX file to torch, or else hand it to onnxruntime."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.checkpoints.source import FileKind
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.extras import need
from isoprobe_plugins.adapters.onnx.graph import OnnxGraph
from isoprobe_plugins.adapters.onnx.inlining import inlined
from isoprobe_plugins.adapters.onnx.operators import MAX_ELEMENTS, UntranslatedError
from isoprobe_plugins.adapters.onnx.runtime import RuntimeGraph
from isoprobe_plugins.adapters.programs.bounded import Bounded
from isoprobe_plugins.adapters.weights.torch_files import first_line

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

MODEL_LIMIT = 2 << 30


def read_onnx(source: Source) -> OnnxGraph | RuntimeGraph:
    """Read an ONNX file as a torch module, or else to be run by onnxruntime.

    Args:
        source: the file.

    Returns:
        The module, or the graph as a black box, whose ``why`` says what has no translation.

    Raises:
        CheckpointError: when it is damaged, or neither can be.
    """
    onnx = need("onnx", "onnx", "an ONNX file")
    if source.kind is not FileKind.ONNX or source.size > MODEL_LIMIT:
        raise CheckpointError(f"{source.path} is {source.description}, not an ONNX model")
    try:
        model = inlined(onnx.load_model_from_string(source.path.read_bytes()), source)
        return _translated(model, source)
    except CheckpointError:
        raise
    except UntranslatedError as error:
        return _run_as_it_stands(model, source, str(error))
    except Exception as error:  # protocol buffers and numpy fail in their own ways
        raise CheckpointError(f"{source.path} is damaged: {first_line(error)}") from error


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
    if graph.input_shape is not None and math.prod(graph.input_shape) <= MAX_ELEMENTS:
        with torch.no_grad(), contextlib.suppress(RuntimeError):  # calling it says why it fails
            Bounded(graph, source)(torch.zeros(1, *graph.input_shape))
    return graph
