"""Find where one ONNX graph of a whole VAE parts into encoder and decoder, and cut it there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoprobe.errors import OptionError

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

_MEAN = re.compile(r"(^|[._/])(z_?)?(mu|mean|loc)\d*($|[._/:])", re.IGNORECASE)
_SCALE = re.compile(r"(log_?(var|std|sigma)|sigma|std|scale|variance)", re.IGNORECASE)
#: operators that scale or shift noise on its way to a draw
_ELEMENTWISE = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Neg", "Sub"})
_JOINS = frozenset({"Add", "Mul", "Sub"})
_FLOATS = frozenset({1, 10, 11, 16})  # float32, float16, float64, bfloat16
_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


@dataclass(frozen=True)
class Cut:
    """Where a graph is cut.

    Attributes:
        mean: tensor of the posterior's mean.
        scale: of its scale.
        latent: at which the decoder begins.
        recon: of the reconstruction.
        data: input that the posterior is of.
        condition: input that the decoder takes beside the latent, if any.
        noise: inputs that neither posterior nor decoder take: the draw of the latent, also where
            it is scaled by a constant.
    """

    mean: str
    scale: str
    latent: str
    recon: str
    data: str
    condition: str | None = None
    noise: tuple[str, ...] = ()


def find_cut(graph: Any, told: Mapping[str, str], source: Source) -> Cut | None:
    """Find where a graph of a whole VAE is to be cut.

    Args:
        graph: of the parsed model.
        told: names that the user gives, by the fields of :class:`Cut`.
        source: its file.

    Returns:
        The cut; None for a graph that is no whole VAE as far as its outputs' names tell.

    Raises:
        OptionError: for a tensor that is not in the graph, or does not part input and output.
    """
    known = _known(graph)
    for option, name in told.items():
        if name not in known:
            raise OptionError(
                f"option '{option}' of adapter 'onnx': {source.path} has no tensor '{name}'; it "
                f"gives {', '.join(o.name for o in graph.output)}"
            )
    outputs = [o.name for o in graph.output]
    scale = told.get("scale") or next((n for n in outputs if _SCALE.search(n)), None)
    mean = told.get("mean") or next((n for n in outputs if n != scale and _MEAN.search(n)), None)
    if mean is None or scale is None:
        return None
    output = told.get("recon") or next((n for n in outputs if n not in {mean, scale}), None)
    if output is None:
        return None
    makers = _makers(graph)
    inputs = set(_inputs(graph))
    wanted = told.get("latent")
    tried = [wanted] if wanted else [mean, *_after(graph, mean)]
    for latent in tried:
        reached = {n for n in _above(makers, output, latent) if n in inputs}
        seen = {n for end in (mean, scale) for n in _above(makers, end, "") if n in inputs}
        data = seen - reached
        drawn = any(
            makers[n].op_type in _RANDOM for n in _above(makers, output, latent) if n in makers
        )
        drawn = drawn or any(_is_noise(graph, n, latent, mean) for n in reached - seen)
        parts = len(data) == 1 and len(reached) <= 1 and not drawn
        if latent != output and parts and _uses(makers, output, latent):
            idle = inputs - seen - reached
            order = [n for n in _inputs(graph) if n in idle]
            (of,) = data
            told_by = next(iter(reached), None)
            return Cut(mean, scale, latent, output, of, told_by, tuple(order))
    if wanted:
        raise OptionError(
            f"option 'latent' of adapter 'onnx': '{wanted}' does not part {source.path}'s input "
            f"from '{output}'"
        )
    return None


def halves(model: Any, cut: Cut, source: Source) -> tuple[Any, Any]:
    """Cut a model in two.

    Args:
        model: parsed ONNX model.
        cut: where.
        source: its file.

    Returns:
        Models of encoder and decoder.
    """
    told = () if cut.condition is None else (cut.condition,)
    return (
        _part(model, (cut.data, *told), (cut.mean, cut.scale)),
        _part(model, (cut.latent, *told), (cut.recon,)),
    )


def without_noise(model: Any, kept: int) -> tuple[Any, tuple[str, ...]]:
    """Leave out what the first outputs of a graph do not take, such as the noise of a draw.

    Args:
        model: parsed ONNX model.
        kept: how many outputs count.

    Returns:
        The model, as it was where all inputs are taken, and the inputs left out.
    """
    inputs, makers = _inputs(model.graph), _makers(model.graph)
    ends = [o.name for o in model.graph.output][:kept]
    taken = {n for end in ends for n in _above(makers, end, "")}
    idle = tuple(n for n in inputs if n not in taken)
    if not idle or len(idle) == len(inputs):
        return model, ()
    return _part(model, [n for n in inputs if n in taken], ends), idle


def _part(model: Any, firsts: Sequence[str], outputs: Sequence[str]) -> Any:
    """A model of the nodes between tensors and others; a second input only where it is taken."""
    import onnx

    makers = _makers(model.graph)
    first, *told = firsts
    needed = {n for output in outputs for n in _above(makers, output, first)}
    told = [name for name in told if name in needed]
    nodes = [n for n in model.graph.node if needed.intersection(n.output)]
    taken = {name for node in nodes for name in node.input}
    weights = [t for t in model.graph.initializer if t.name in taken]
    shapes = _shapes(model)
    types = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}

    def value(name: str) -> Any:
        kind = types.get(name, onnx.TensorProto.FLOAT)
        return onnx.helper.make_tensor_value_info(name, kind, shapes.get(name))

    taken_in, given = [value(n) for n in (first, *told)], [value(o) for o in outputs]
    graph = onnx.helper.make_graph(nodes, model.graph.name, taken_in, given, weights)
    part = onnx.helper.make_model(graph, opset_imports=list(model.opset_import))
    part.ir_version = model.ir_version
    return part


def _shapes(model: Any) -> dict[str, list[int | str]]:
    """Shapes of tensors as far as they are known, a word for what is not."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    found: dict[str, list[int | str]] = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            found[value.name] = [d.dim_value or f"d{k}" for k, d in enumerate(kind.shape.dim)]
    return found


def _inputs(graph: Any) -> list[str]:
    weights = {t.name for t in graph.initializer}
    return [i.name for i in graph.input if i.name not in weights]


def _known(graph: Any) -> set[str]:
    return {*_inputs(graph), *(name for node in graph.node for name in node.output)}


def _makers(graph: Any) -> dict[str, Any]:
    return {name: node for node in graph.node for name in node.output}


def _above(makers: Mapping[str, Any], name: str, stop: str) -> set[str]:
    """Tensors that one is made of, without going beyond another."""
    found: set[str] = set()
    open_names = [name]
    while open_names:
        each = open_names.pop()
        if each in found or each == stop:
            continue
        found.add(each)
        if each in makers:
            open_names += list(makers[each].input)
    return found


def _is_noise(graph: Any, name: str, latent: str, mean: str) -> bool:
    """Whether an input is but scaled and added to a latent of its own shape, as a draw's noise."""
    shapes = {
        v.name: (v.type.tensor_type.elem_type, [d.dim_value for d in v.type.tensor_type.shape.dim])
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    kind, shape = shapes[name]
    # a size that is not told may be any; one number a row, where that is all that is told, is none
    wanted = shapes.get(mean, (0, []))[1] or [0 if size == 1 else size for size in shape]
    fits = len(shape) == len(wanted) > 1 and all(
        one == other or not one or (not other and one > 1)
        for one, other in zip(shape[1:], wanted[1:], strict=True)
    )
    if kind not in _FLOATS or not fits:
        return False
    latents, noisy, joined = {latent, *_after(graph, latent)}, {name}, False
    for node in graph.node:
        if not noisy.intersection(node.input):
            continue
        if latents.intersection(node.input):
            joined = True
            if node.op_type not in _JOINS:
                return False
        elif node.op_type in _ELEMENTWISE:
            noisy |= set(node.output)
        else:
            return False
    return joined


def _uses(makers: Mapping[str, Any], name: str, other: str) -> bool:
    above = _above(makers, name, other)
    return any(other in makers[n].input for n in above if n in makers)


def _after(graph: Any, mean: str) -> Iterator[str]:
    """Tensors that follow from the mean, in the graph's order."""
    reached = {mean}
    for node in graph.node:
        if reached.intersection(node.input):
            reached |= set(node.output)
            yield from node.output
