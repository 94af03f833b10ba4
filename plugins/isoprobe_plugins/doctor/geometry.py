"""Find strides, paddings, pooling and resizing, as far as shapes leave them open."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isoprobe_plugins.doctor.elements import Element

Shape = tuple[int, ...]

#: kernel -> (stride, padding) of convolutions, the customary first
_DOWN = {
    1: [(1, 0), (2, 0)],
    2: [(2, 0), (1, 0)],
    3: [(2, 1), (1, 1), (2, 0), (1, 0)],
    4: [(2, 1), (2, 0), (1, 0), (4, 0), (1, 1), (2, 2)],
    5: [(2, 2), (1, 2), (2, 1), (2, 0), (1, 0)],
    6: [(2, 2), (2, 0), (1, 0)],
    7: [(2, 3), (1, 3), (4, 3), (1, 0)],
}
#: kernel -> (stride, padding, output padding) of transposed ones
_UP = {
    1: [(1, 0, 0), (2, 0, 1)],
    2: [(2, 0, 0), (1, 0, 0)],
    3: [(2, 1, 1), (1, 1, 0), (2, 1, 0), (2, 0, 0), (2, 0, 1), (1, 0, 0)],
    4: [(2, 1, 0), (2, 0, 0), (1, 0, 0), (4, 0, 0), (2, 1, 1), (1, 1, 0), (2, 2, 0)],
    5: [(2, 2, 1), (1, 2, 0), (2, 2, 0), (2, 0, 0), (2, 0, 1), (1, 0, 0), (2, 1, 0), (2, 1, 1)],
    6: [(2, 2, 0), (2, 0, 0), (1, 0, 0)],
    7: [(2, 3, 1), (1, 3, 0), (1, 0, 0)],
}
_MEAN = 3.0  # what it costs that an image is reached by a mean over all of it
_ODD = 2.5  # how much odder than the most customary a geometry may be
_KEPT = 4  # ways to one shape
_BEAM = 300


@dataclass(frozen=True)
class Placed:
    """An element with what its shapes did not tell.

    Attributes:
        element: the element.
        before: steps before it: flattening, reshaping, upsampling.
        fields: stride, padding and the like of its layers, by place.
        after: steps after its activation: pooling.
        transposed: its convolution is a transposed one.
    """

    element: Element
    before: tuple[Any, ...] = ()
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    after: tuple[Any, ...] = ()
    transposed: bool = False


@dataclass(frozen=True)
class _State:
    cost: float
    shape: Shape
    placed: tuple[Placed, ...]
    used: tuple[tuple[Any, Any], ...] = ()  # kernel -> the options its layers had last


def ways(
    elements: Sequence[Element], shape: Shape, goal: Shape, *, up: bool, nhwc: bool, count: int = 6
) -> list[tuple[Placed, ...]]:
    """Find geometries under which elements lead from one shape to another.

    Args:
        elements: in the order of the network.
        shape: of what comes in, without the batch.
        goal: of what has to come out; one number may be reached by flattening.
        up: the elements are a decoder's.
        nhwc: images are flattened with channels last.
        count: how many to give at most.

    Returns:
        Elements with their geometry, the most customary first.
    """
    sides = goal[1:] if up else shape[1:]
    states = [_State(0.0, shape, ())]
    for element in elements:
        grown = [new for state in states for new in _placed(state, element, up, nhwc, sides)]
        states = _pruned(grown)
    done = [s for s in states if _reaches(s.shape, goal)]
    exact = math.prod(goal)

    def cost(state: _State) -> float:
        return state.cost + (_MEAN if math.prod(state.shape) != exact else 0.0)

    done.sort(key=cost)
    return [s.placed for s in done[:count] if cost(s) <= cost(done[0]) + _ODD]


def _reaches(shape: Shape, goal: Shape) -> bool:
    if shape == goal or math.prod(shape) == math.prod(goal):
        return True
    return len(goal) == 1 and len(shape) > 1 and shape[0] == goal[0]  # by a global mean


def _pruned(states: list[_State]) -> list[_State]:
    states.sort(key=lambda s: s.cost)
    counted: dict[tuple[Shape, Any], int] = {}
    kept = []
    for state in states:
        key = (state.shape, state.used[-1:] if state.used else ())
        if counted.get(key, 0) < _KEPT:
            counted[key] = counted.get(key, 0) + 1
            kept.append(state)
    return kept[:_BEAM]


def _placed(
    state: _State, element: Element, up: bool, nhwc: bool, sides: Shape
) -> Iterator[_State]:
    first = element.first
    if first.kind in {"batch_norm", "norm"}:
        yield _next(state, Placed(element), state.shape, 0.0)
    elif first.kind == "linear":
        yield from _dense(state, element, nhwc)
    elif first.kind == "conv":
        for before, shape in _image(state.shape, first, up, nhwc, sides, element.block):
            options = _block_options if element.block else _conv_options
            for placed, out, cost, told in options(element, shape, up, before):
                price = cost + _change(state, told)
                yield _next(state, placed, out, price, told)


def _next(
    state: _State, placed: Placed, shape: Shape, cost: float, told: tuple[Any, Any] | None = None
) -> _State:
    used = state.used
    if told is not None:
        used = (*(u for u in used if u[0] != told[0]), told)
    return _State(state.cost + cost, shape, (*state.placed, placed), used)


def _change(state: _State, told: tuple[Any, Any]) -> float:
    """What it costs that a layer is not like the last one of its kernel."""
    before = dict(state.used).get(told[0])
    return 0.0 if before in {None, told[1]} else 1.0


def _dense(state: _State, element: Element, nhwc: bool) -> Iterator[_State]:
    wanted, shape = element.first.takes, state.shape
    out = (element.last.gives,)
    if len(shape) == 1 and shape[0] == wanted:
        yield _next(state, Placed(element), out, 0.0)
    elif len(shape) > 1 and math.prod(shape) == wanted:
        yield _next(state, Placed(element, flattening(shape, nhwc)), out, 0.0)
    elif len(shape) > 1 and shape[0] == wanted:
        yield _next(state, Placed(element, ({"global_pool": "average"},)), out, 0.5)


def flattening(shape: Shape, nhwc: bool) -> tuple[Any, ...]:
    """Steps that make an image a vector."""
    if not nhwc:
        return ("flatten",)
    return ({"permute": [*range(1, len(shape)), 0]}, "flatten")


def _image(
    shape: Shape, layer: Any, up: bool, nhwc: bool, sides: Shape, block: bool
) -> Iterator[tuple[tuple[Any, ...], Shape]]:
    """Steps that make what comes in an image for a convolution, and its shape."""
    axes = len(layer.shape) - 2
    if len(shape) > 1:
        if len(shape) == axes + 1:
            yield (), shape
        return
    ins = (layer.shape[1],) if block or not up else dict.fromkeys(layer.shape[:2])
    for channels in ins:
        if shape[0] % channels:
            continue
        pixels = shape[0] // channels
        for side in _sides_of(pixels, axes, sides):
            folded = (channels, *side)
            if nhwc:
                steps: tuple[Any, ...] = (
                    {"reshape": [*side, channels]}, {"permute": [axes, *range(axes)]},
                )  # fmt: skip
            else:
                steps = ({"reshape": list(folded)},)
            yield steps, folded


def _sides_of(pixels: int, axes: int, sides: Shape) -> Iterator[Shape]:
    even = round(pixels ** (1 / axes))
    found = []
    if even**axes == pixels:
        found.append((even,) * axes)
    if len(sides) == axes:
        for power in range(8):
            scaled = tuple(max(s >> power, 1) for s in sides)
            if math.prod(scaled) == pixels and scaled not in found:
                found.append(scaled)
    yield from found


def _conv_options(
    element: Element, shape: Shape, up: bool, before: tuple[Any, ...]
) -> Iterator[tuple[Placed, Shape, float, tuple[Any, Any]]]:
    layer = element.first
    kernel = layer.shape[2:]
    k = kernel[-1]
    if layer.shape[1] == shape[0]:  # an ordinary one
        yield from _ordinary(element, shape, up, before)
    if up and layer.shape[0] == shape[0]:
        for rank, (stride, padding, extra) in enumerate(
            _UP.get(k, [(1, k // 2, 0), (2, k // 2, 0)])
        ):
            sides = tuple(
                (s - 1) * stride - 2 * padding + n + extra
                for s, n in zip(shape[1:], kernel, strict=True)
            )
            if min(sides) < 1 or any(n != k for n in kernel):
                continue
            fields = {layer.place: {
                "stride": stride, "padding": padding, "output_padding": extra,
            }}  # fmt: skip
            placed = Placed(element, before, fields, transposed=True)
            told = (("up", k), (stride, padding, extra))
            # a layer of as many inputs as outputs is more often the one its neighbours are
            both = 0.4 if layer.shape[0] == layer.shape[1] and stride == 1 else 0.0
            yield placed, (layer.shape[1], *sides), 0.2 * rank + both, told


def _ordinary(
    element: Element, shape: Shape, up: bool, before: tuple[Any, ...]
) -> Iterator[tuple[Placed, Shape, float, tuple[Any, Any]]]:
    layer = element.first
    kernel = layer.shape[2:]
    k = kernel[-1]
    if up:
        options = [(1, tuple(n // 2 for n in kernel)), (1, (0,) * len(kernel))]
        if any(n % 2 == 0 for n in kernel):
            options = [(1, (0,) * len(kernel))]
    else:
        every = _DOWN.get(k, [(1, k // 2), (2, k // 2), (1, 0), (2, 0), (k, 0)])
        options = [(s, tuple((n // 2 if p == k // 2 else p) for n in kernel)) for s, p in every]
    for rank, (stride, padding) in enumerate(options):
        for scale in (1, 2) if stride == 1 else (1,):
            sides = shape[1:]
            steps = before
            after: tuple[Any, ...] = ()
            if up and scale > 1:
                sides = tuple(s * scale for s in sides)
                steps = (*before, {"upsample": scale})
            sides = tuple(
                (s + 2 * p - n) // stride + 1
                for s, p, n in zip(sides, padding, kernel, strict=True)
            )
            if min(sides) < 1:
                continue
            if not up and scale > 1:
                if min(sides) < scale:
                    continue
                sides = tuple(s // scale for s in sides)
                after = ({"pool": "max", "kernel": scale},)
            fields = {layer.place: {"stride": stride, "padding": _plain(padding)}}
            placed = Placed(element, steps, fields, after)
            cost = 0.2 * rank + (0.6 if scale > 1 and not up else 0.0)
            yield (
                placed,
                (layer.shape[0], *sides),
                cost,
                (("conv", up, k), (stride, padding, scale)),
            )


def _plain(padding: tuple[int, ...]) -> Any:
    return padding[0] if len(set(padding)) == 1 else list(padding)


def _block_options(
    element: Element, shape: Shape, up: bool, before: tuple[Any, ...]
) -> Iterator[tuple[Placed, Shape, float, tuple[Any, Any]]]:
    """A block keeps its image, halves it with its first layer, or is given a larger one."""
    maps = [p for p in element.layers if p.kind == "conv"]
    if shape[0] != maps[0].shape[1] or not element.last.gives:
        return
    for way in ("same", "half", "pool") if not up else ("same", "double"):
        fields: dict[str, dict[str, Any]] = {}
        for index, part in enumerate(maps):
            stride = 2 if way == "half" and index == 0 else 1
            fields[part.place] = {"stride": stride, "padding": part.shape[-1] // 2}
        for part in element.shortcut:
            if part.kind == "conv":
                stride = 2 if way == "half" else 1
                fields[part.place] = {"stride": stride, "padding": part.shape[-1] // 2}
        sides, steps = shape[1:], before
        after: tuple[Any, ...] = ()
        if way == "half":
            if not element.shortcut:
                continue
            sides = tuple((s + 1) // 2 for s in sides)
        elif way == "pool":
            sides, after = tuple(s // 2 for s in sides), ({"pool": "max", "kernel": 2},)
        elif way == "double":
            sides, steps = tuple(s * 2 for s in sides), (*before, {"upsample": 2})
        if min(sides) < 1:
            continue
        cost = {"same": 0.0, "half": 0.0, "pool": 0.6, "double": 0.3}[way]
        placed = Placed(element, steps, fields, after)
        yield placed, (element.last.gives, *sides), cost, (("block", up), way)
