"""Find where one ONNX graph of a whole VAE parts into encoder and decoder, and cut it there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoprobe.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

_MEAN = re.compile(r"(^|[._/])(z_?)?(mu|mean|loc)\d*($|[._/:])", re.IGNORECASE)
_SCALE = re.compile(r"(log_?(var|std|sigma)|sigma|std|scale|variance)", re.IGNORECASE)
_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


@dataclass(frozen=True)
class Cut:
    """Where a graph is cut.

    Attributes:
        mean: tensor of the posterior's mean.
        scale: of its scale.
        latent: at which the decoder begins.
        recon: of the reconstruction.
    """

    mean: str
    scale: str
    latent: str
    recon: str


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
        drawn = any(
            makers[n].op_type in _RANDOM for n in _above(makers, output, latent) if n in makers
        )
        if latent != output and not reached and not drawn and _uses(makers, output, latent):
            return Cut(mean, scale, latent, output)
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
    (first,) = _only(_inputs(model.graph), source)
    encoder = _part(model, first, (cut.mean, cut.scale))
    return encoder, _part(model, cut.latent, (cut.recon,))


def _only(names: Sequence[str], source: Source) -> Sequence[str]:
    if len(names) != 1:
        raise CheckpointError(f"{source.path} takes {len(names)} inputs; expected one")
    return names


def _part(model: Any, first: str, outputs: Sequence[str]) -> Any:
    """A model of the nodes between a tensor and others."""
    import onnx

    makers = _makers(model.graph)
    needed = {n for output in outputs for n in _above(makers, output, first)}
    nodes = [n for n in model.graph.node if needed.intersection(n.output)]
    taken = {name for node in nodes for name in node.input}
    weights = [t for t in model.graph.initializer if t.name in taken]
    shapes = _shapes(model)
    float_type = onnx.TensorProto.FLOAT

    def value(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, float_type, shapes.get(name))

    graph = onnx.helper.make_graph(
        nodes, model.graph.name, [value(first)], [value(o) for o in outputs], weights
    )
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
