"""Run an ONNX graph as a torch module: operators translated, weights as buffers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.onnx.conditions import second_input
from isoprobe_plugins.adapters.onnx.operators import OPERATORS, UntranslatedError

if TYPE_CHECKING:
    from collections.abc import Sequence


class OnnxGraph(nn.Module):
    """Runs a graph of one input, or of two, the second what is told of each row.

    Args:
        model: parsed ONNX model.
        source: its file, beside which external weights may lie.

    Raises:
        UntranslatedError: for an operator without a translation.
        CheckpointError: for weights outside the folder.
    """

    def __init__(self, model: Any, source: Source) -> None:
        super().__init__()
        graph = model.graph
        self.where = str(source.path)
        self.buffers_by_name: dict[str, str] = {}
        for index, tensor in enumerate(graph.initializer):
            self.register_buffer(f"tensor_{index}", _tensor(tensor, source))
            self.buffers_by_name[tensor.name] = f"tensor_{index}"
        inputs = [i.name for i in graph.input if i.name not in self.buffers_by_name]
        if len(inputs) not in {1, 2}:
            raise CheckpointError(
                f"{source.path} takes {len(inputs)} inputs; expected one, and perhaps a condition"
            )
        self.inputs = inputs
        self.condition = second_input(graph, source)
        self.outputs = [output.name for output in graph.output]
        self.input_shape = static_shape(graph, inputs[0])
        self.nodes = [self._node(node, source) for node in graph.node]

    def _node(self, node: Any, source: Source) -> tuple[Any, list[str], list[str], dict[str, Any]]:
        attributes = {a.name: _attribute(a, source) for a in node.attribute}
        if node.op_type == "Constant":
            value = attributes.get("value", next(iter(attributes.values()), None))
            name = f"constant_{len(self.buffers_by_name)}"
            self.register_buffer(name, torch.as_tensor(value))
            self.buffers_by_name[node.output[0]] = name
            return (lambda x, _: x[0]), [node.output[0]], [node.output[0]], {}
        operator = OPERATORS.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        if operator is None:
            raise UntranslatedError(f"operator {node.op_type} has no translation")
        return operator, list(node.input), list(node.output), attributes

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the graph."""
        values: dict[str, Any] = {"": None, **dict(zip(self.inputs, given, strict=True))}
        values |= {name: getattr(self, buffer) for name, buffer in self.buffers_by_name.items()}
        for operator, inputs, outputs, attributes in self.nodes:
            result = operator([values[name] for name in inputs], attributes)
            results: Sequence[Any] = result if isinstance(result, tuple) else (result,)
            values |= dict(zip(outputs, results, strict=False))
        found = tuple(values[name] for name in self.outputs)
        return found[0] if len(found) == 1 else found


def _attribute(attribute: Any, source: Source) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _tensor(value, source)
    if isinstance(value, onnx.GraphProto):
        raise CheckpointError(f"{source.path}: a graph inside an operator is not translated")
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if isinstance(value, list | tuple) or hasattr(value, "append") else value


def _tensor(tensor: Any, source: Source) -> Tensor:
    """Read a tensor, its bytes from the file or from one beside it."""
    import numpy as np
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        data = external_bytes(tensor, source, math.prod(tensor.dims) * dtype.itemsize)
        array = np.frombuffer(data, dtype).reshape(tuple(tensor.dims))
    else:
        array = onnx.numpy_helper.to_array(tensor)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array))


def external_bytes(tensor: Any, source: Source, length: int) -> bytes:
    """Read external bytes from a file in the model's own folder.

    Args:
        tensor: whose bytes they are.
        source: the model's file.
        length: how many.

    Returns:
        The bytes.

    Raises:
        CheckpointError: when they do not lie in such a file.
    """
    fields = {entry.key: entry.value for entry in tensor.external_data}
    name = fields.get("location", "")
    file = Source(source.path.parent).child(name)
    offset = int(fields.get("offset", 0))
    if file.path.is_symlink() or offset < 0 or offset + length > file.size:
        raise CheckpointError(f"{source.path}: its weights do not lie in {name!r} beside it")
    with file.path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def static_shape(graph: Any, name: str) -> tuple[int, ...] | None:
    """Return the input's shape without the batch, where the file says."""
    entry = next(i for i in graph.input if i.name == name)
    dims = [d.dim_value for d in entry.type.tensor_type.shape.dim][1:]
    return tuple(dims) if dims and all(d > 0 for d in dims) else None
