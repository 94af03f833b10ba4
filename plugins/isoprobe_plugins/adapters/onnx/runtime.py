"""Run ONNX graphs by onnxruntime, where an operator has no translation to torch.

The graph is checked first: weights stay in the model's folder, no operator holds a graph of its
own (a loop may run for ever), and no shape that can be told beforehand is out of proportion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.errors import CheckpointError
from isoprobe.files.meter import Meter
from isoprobe_plugins.adapters.extras import need
from isoprobe_plugins.adapters.onnx.graph import external_bytes, static_shape
from isoprobe_plugins.adapters.onnx.operators import OPERATORS
from isoprobe_plugins.adapters.programs.allowed import refuse
from isoprobe_plugins.adapters.weights.torch_files import first_line

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.onnx.conditions import SecondInput


#: operators that onnxruntime may run, beside those with a translation
_RUNNABLE = """
    Acos Acosh And ArgMax ArgMin Asin Asinh Atan Atanh BitShift Ceil Celu Constant Cos Cosh
    CumSum DepthToSpace Einsum Equal Floor GRU GatherElements GatherND GlobalMaxPool Greater
    GreaterOrEqual HardSwish Hardmax IsInf IsNaN LRN LSTM Less LessOrEqual LogSoftmax
    LpNormalization LpPool Max Mean Min Mish Mod Not OneHot Or Pad RMSNormalization RNN
    RandomNormalLike RandomUniformLike Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMin ReduceProd ReduceSumSquare Resize Round ScatterElements ScatterND Shrink
    Sign Sin Sinh Size Softsign SpaceToDepth Sum Tan ThresholdedRelu Tile TopK Trilu Upsample
    Where Xor
"""
RUNNABLE = frozenset(OPERATORS) | frozenset(_RUNNABLE.split())
#: those that make a tensor of a size that their inputs' values decide
SIZED = frozenset(
    {"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"}
)


class RuntimeGraph:
    """A graph of one input, run as it stands.

    Args:
        model: parsed ONNX model.
        source: its file.
        why: it is not translated.

    Raises:
        CheckpointError: for a graph that is not safe to run, or that onnxruntime refuses.
    """

    def __init__(self, model: Any, source: Source, why: str) -> None:
        self.why = why
        _gather_weights(model, source)
        _refuse_nested(model, source)
        _refuse_unlisted(model, source)
        _refuse_huge(model, source)
        names = {tensor.name for tensor in model.graph.initializer}
        inputs = [i.name for i in model.graph.input if i.name not in names]
        if len(inputs) != 1:
            raise CheckpointError(
                f"{source.path} takes {len(inputs)} inputs, and {why}; expected one"
            )
        self.inputs = inputs
        self.condition: SecondInput | None = None
        self.input_shape = static_shape(model.graph, inputs[0])
        self.outputs = [output.name for output in model.graph.output]
        self.session = _session(model, source, why)

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the graph in its own precision, float32."""
        feed = {self.inputs[0]: x.detach().cpu().float().numpy()}
        found = tuple(torch.from_numpy(a).to(x) for a in self.session.run(None, feed))
        return found[0] if len(found) == 1 else found


def _session(model: Any, source: Source, why: str) -> Any:
    runtime = need("onnxruntime", "onnx", f"{source.path}, in which {why},")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        data = model.SerializeToString()
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has errors of its own for every stage
        raise CheckpointError(
            f"{source.path}: {why}, and onnxruntime does not run it: {first_line(error)}"
        ) from error


def _gather_weights(model: Any, source: Source) -> None:
    """Put external weights, checked, into the model, so that the runtime reads no file."""
    import onnx

    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            data = external_bytes(tensor, source, math.prod(tensor.dims) * size)
            tensor.raw_data = data
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]


def _nodes(model: Any) -> Iterator[Any]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _refuse_nested(model: Any, source: Source) -> None:
    for node in _nodes(model):
        if any(a.HasField("g") or len(a.graphs) for a in node.attribute):
            raise CheckpointError(
                f"{source.path}: operator {node.op_type} holds a graph of its own, which is not run"
            )
    if len(model.graph.sparse_initializer):
        raise CheckpointError(f"{source.path}: sparse weights are not read")


def _refuse_unlisted(model: Any, source: Source) -> None:
    """Refuse operators that networks do not need."""
    for node in _nodes(model):
        if node.domain not in {"", "ai.onnx"} or node.op_type not in RUNNABLE:
            refuse(source, f"{node.domain}.{node.op_type}".removeprefix("."))


def _refuse_huge(model: Any, source: Source) -> None:
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # inference has errors of its own
        raise CheckpointError(f"{source.path} is damaged: {first_line(error)}") from error
    meter = Meter(source.path, source.size)
    known = set()
    for value in [*inferred.value_info, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        shape = [d.dim_value for d in dims if d.dim_value > 0]
        meter.check(4 * math.prod(shape), f"{value.name!r} of shape {shape}")
        if len(shape) == len(dims):
            known.add(value.name)
    for node in model.graph.node:
        if node.op_type in SIZED and not known.issuperset(node.output):
            refuse(source, node.op_type, "makes a tensor of a size that is not known beforehand")
