"""Parse ONNX files and tell what their graphs take, give and hold; loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.extras import need
from isoprobe_plugins.adapters.onnx.inlining import inlined
from isoprobe_plugins.adapters.weights.torch_files import first_line

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

MODEL_LIMIT = 2 << 30


def parsed(source: Source) -> Any:
    """Parse an ONNX file, functions written out.

    Args:
        source: the file.

    Returns:
        The model.

    Raises:
        CheckpointError: when it is none, or damaged.
    """
    onnx = need("onnx", "onnx", "an ONNX file")
    if source.kind is not FileKind.ONNX or source.size > MODEL_LIMIT:
        raise CheckpointError(f"{source.path} is {source.description}, not an ONNX model")
    try:
        return inlined(onnx.load_model_from_string(source.path.read_bytes()), source)
    except CheckpointError:
        raise
    except Exception as error:  # protocol buffers fail in their own ways
        raise CheckpointError(f"{source.path} is damaged: {first_line(error)}") from error


def ends_of(source: Source) -> dict[str, list[str]]:
    """Describe a graph's inputs and outputs, as in ``x: b x 6``.

    Args:
        source: the file.

    Returns:
        ``inputs`` and ``outputs``.
    """
    graph = parsed(source).graph
    weights = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    return {"inputs": [_end(i) for i in inputs], "outputs": [_end(o) for o in graph.output]}


def _end(value: Any) -> str:
    import onnx

    kind = value.type.tensor_type
    dims = " x ".join(str(d.dim_value or d.dim_param or "?") for d in kind.shape.dim)
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    return f"{value.name}: {dims}" + ("" if name == "float" else f" of {name}")


def weights_of(source: Source) -> dict[str, tuple[int, ...]]:
    """Return shapes of a graph's weights, by name.

    Args:
        source: the file.
    """
    return {t.name: tuple(t.dims) for t in parsed(source).graph.initializer}
