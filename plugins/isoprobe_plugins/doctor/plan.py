"""Write a network's declaration, with the choices left open that weights do not tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isoprobe_plugins.doctor.beyond import NOTHING, Beyond, prior_forms
from isoprobe_plugins.doctor.geometry import Placed, flattening
from isoprobe_plugins.doctor.words import word

if TYPE_CHECKING:
    from isoprobe_plugins.doctor.elements import Element
    from isoprobe_plugins.doctor.parts import Part
    from isoprobe_plugins.doctor.paths import Split

Shape = tuple[int, ...]

#: an activation after a layer: none where None
Act = Any
#: hidden activations that are tried, the most usual first
ACTIVATIONS: tuple[Act, ...] = (
    "relu", {"leaky_relu": 0.01}, {"leaky_relu": 0.2}, "elu", "tanh", "silu", "gelu", "selu",
    "softplus", "sigmoid", "mish", "hardswish",
)  # fmt: skip
SAME = "same"
#: how a container of several layers may be wired, the most usual first
BLOCKS = ("sum-act", "sum", "before", "chain", "chain-bare")
#: values of the choices that a user may tell by a word
SPOKEN: dict[str, tuple[Act, ...]] = {
    "layout": ("separate", "exchanged", "halves", "swapped", "interleaved"),
    "output": ("sigmoid", "linear", "tanh"),
    "encoder": ACTIVATIONS,
    "decoder": ACTIVATIONS,
    "first": (SAME, None, *ACTIVATIONS),
    "last": (SAME, None, *ACTIVATIONS),
    "order": ("norm", "act"),
    "blocks": BLOCKS,
    "pool": ("max", "average"),
    "upsample": ("nearest", "bilinear"),
    "joined": ("after", "before"),
    "levels": ("last", "first"),
    "clamp": (None, 10, 6, 5, 4, 3, 2),
}
#: what a choice is called among options, where that is not its name
OPTION = {"form": "head", "resize": "upsample"}


@dataclass(frozen=True)
class Choices:
    """What a reading chooses where the weights leave it open.

    Attributes:
        encoder: the encoder's hidden activation.
        decoder: the decoder's.
        first: the activation after the decoder's first layer: ``same`` as the others, or one.
        last: the same after the encoder's last layer.
        order: ``norm`` or ``act``: which follows a layer first.
        blocks: one of :data:`BLOCKS`.
        way_in: which of the encoder's geometries.
        way_out: which of the decoder's.
        pool: ``max`` or ``average``.
        resize: how images are made larger: ``nearest`` or ``bilinear``.
        groups: of norms over groups of channels; 0 for a norm over the last axis.
        layout: where mean and scale stand.
        form: what the scale is.
        output: what squeezes the output.
        recurrent: how a recurrent decoder is fed.
        prior: what a prior's scales are, or what squeezes its pseudo-inputs.
        joined: whether a condition stands ``after`` x and z or ``before`` them.
        levels: whether the logits of a value stand side by side (``last``) or in blocks.
        clamp: bound of a log variance on both sides, if there is one.
    """

    encoder: Act = "relu"
    decoder: Act = "relu"
    first: Act = SAME
    last: Act = SAME
    order: str = "norm"
    blocks: str = "sum-act"
    way_in: int = 0
    way_out: int = 0
    pool: str = "max"
    resize: str = "nearest"
    groups: int = 0
    layout: str = "separate"
    form: str = "logvar"
    output: str = "linear"
    recurrent: str = ""
    prior: str = ""
    joined: str = "after"
    levels: str = "last"
    clamp: int | None = None

    def key(self) -> str:
        """Return what tells these choices from others."""
        return repr(self)


@dataclass(frozen=True)
class Plan:
    """A way through a network whose open places are to be chosen.

    Attributes:
        split: the way.
        input_shape: of one input as the network takes it.
        ways_in: geometries of the encoder.
        ways_out: geometries of the decoder.
        grid: sides of the latent's image where the head is a convolution.
        nhwc: images are flattened with channels last.
        beyond: prior, condition and likelihood, where there are others than the usual.
    """

    split: Split
    input_shape: Shape
    ways_in: tuple[tuple[Placed, ...], ...]
    ways_out: tuple[tuple[Placed, ...], ...]
    grid: Shape = ()
    nhwc: bool = False
    beyond: Beyond = NOTHING

    @property
    def latent_size(self) -> int:
        """Number of latents."""
        return self.split.latent_size * math.prod(self.grid)

    def options(self) -> dict[str, tuple[Any, ...]]:
        """Return what each choice may be, the most usual first."""
        every = (*self.ways_in, *self.ways_out)
        placed = [p for way in every for p in way]
        found: dict[str, tuple[Any, ...]] = {
            "encoder": ACTIVATIONS,
            "decoder": ACTIVATIONS,
            "way_in": tuple(range(len(self.ways_in))),
            "way_out": tuple(range(len(self.ways_out))),
        }
        if len(self.ways_out[0]) > 1:
            found["first"] = (SAME, None, "relu", {"leaky_relu": 0.2}, {"leaky_relu": 0.01}, "tanh")
        if self.ways_in[0]:
            found["last"] = (SAME, None)
        if any(part.is_norm for p in placed for part in p.element.layers[1:]):
            found["order"] = ("norm", "act")
        if any(p.element.block for p in placed):
            found["blocks"] = BLOCKS
        if any("pool" in step for p in placed for step in p.after if isinstance(step, Mapping)):
            found["pool"] = ("max", "average")
        if any(
            "upsample" in step for p in placed for step in p.before if isinstance(step, Mapping)
        ):
            found["resize"] = ("nearest", "bilinear")
        widths = {p.shape[0] for q in placed for p in q.element.parts if p.kind == "norm"}
        if widths and any(p.element.last.kind == "conv" for p in placed):
            common = math.gcd(*widths)
            found["groups"] = tuple(g for g in (32, 8, 16, 4, 1, 2, common) if common % g == 0)
        return {**found, **left_open(self.beyond)}

    def layouts(self) -> tuple[str, ...]:
        """Return where mean and scale may stand."""
        if len(self.split.heads) == 2:
            return ("separate",) if self.split.named else ("separate", "exchanged")
        return ("halves", "swapped", "interleaved")

    def start(self) -> Choices:
        """Return the most usual choices."""
        usual = {name: values[0] for name, values in self.options().items()}
        return replace(Choices(), layout=self.layouts()[0], **usual)

    def told(self, choices: Choices) -> list[str]:
        """Return the activations that are chosen, in words."""
        acts = [f"encoder {word(choices.encoder)}", f"decoder {word(choices.decoder)}"]
        if choices.first != SAME and "first" in self.options():
            acts.append(f"{word(choices.first)} after its first layer")
        return acts

    # ------------------------------------------------------------------ the declaration

    def fields(self, choices: Choices) -> dict[str, Any]:
        """Return the declaration that choices make.

        Args:
            choices: what is chosen.

        Returns:
            Fields of a declaration.
        """
        encoder = self._encoder(choices)
        decoder = self._decoder(choices)
        head: dict[str, Any] = {"form": choices.form}
        places = [_step(part) for part in self.split.heads]
        if len(places) == 2:
            if choices.layout == "exchanged":
                places = places[::-1]
            head |= {"mean": _brief(places[0]), "scale": _brief(places[1])}
        else:
            encoder = [*encoder, places[0]]
            head = {"layout": choices.layout, **head}
        return {
            "input_shape": list(self.input_shape),
            "latent_size": self.latent_size,
            "encoder": encoder,
            "head": head,
            "decoder": decoder,
            "output": choices.output,
            **fields_beyond(self.beyond, choices),
        }

    def _encoder(self, choices: Choices) -> list[Any]:
        way = self.ways_in[choices.way_in]
        steps: list[Any] = ["log1p"] if self.beyond.counts else []
        steps += _joined(self.beyond.told_in, choices)
        shape_open = len(self.input_shape) > 1
        for index, placed in enumerate(way):
            last = index == len(way) - 1
            act = choices.encoder if not last or choices.last == SAME else choices.last
            steps += self._unit(placed, choices, act, choices.encoder)
            shape_open = _is_image(placed.element, shape_open)
        if self.split.heads[0].kind != "conv" and shape_open:
            wanted = self.split.heads[0].takes
            steps += self._to_vector(way, wanted)
        return steps

    def _to_vector(self, way: Sequence[Placed], wanted: int) -> list[Any]:
        last = way[-1].element.last if way else None
        channels = 0
        if last is not None and last.kind == "conv":
            channels = last.gives
        if last is not None and channels == wanted and not self._flat_is(way, wanted):
            return [{"global_pool": "average"}]
        shape = (channels, *(1,) * (len(self.input_shape) - 1))
        return list(flattening(shape, self.nhwc))

    def _flat_is(self, way: Sequence[Placed], wanted: int) -> bool:
        return size_after(way, self.input_shape) == wanted

    def _decoder(self, choices: Choices) -> list[Any]:
        way = self.ways_out[choices.way_out]
        steps: list[Any] = _joined(self.beyond.told_out, choices)
        if self.grid:
            steps.append({"reshape": [self.split.latent_size, *self.grid]})
        if self.beyond.heads:  # stand in the place of the last layer
            way = way[:-1]
        for index, placed in enumerate(way):
            act = choices.decoder
            if index == 0 and choices.first != SAME:
                act = choices.first
            if index == len(way) - 1 and not self.beyond.heads:
                act = None  # the output has a squeezing of its own, or none
            steps += self._unit(placed, choices, act, choices.decoder)
        if self.beyond.heads:
            return steps
        if self.beyond.levels:
            return [*steps, *self._levels(choices)]
        last = way[-1].element.last
        images = last.kind == "conv"
        if not images and len(self.input_shape) > 1:
            if self.nhwc:
                c, *sides = self.input_shape
                steps += [{"reshape": [*sides, c]}, {"permute": [len(sides), *range(len(sides))]}]
            else:
                steps.append({"reshape": list(self.input_shape)})
        elif images and len(self.input_shape) == 1:
            steps.append("flatten")
        return steps

    def _levels(self, choices: Choices) -> list[Any]:
        """Steps that put what the decoder gives for each value first."""
        count, shape = self.beyond.levels, self.input_shape
        if choices.levels == "first":
            return [{"reshape": [count, *shape]}]
        axes = len(shape)
        return [{"reshape": [*shape, count]}, {"permute": [axes, *range(axes)]}]

    def _unit(self, placed: Placed, choices: Choices, act: Act, inner: Act) -> list[Any]:
        before = [self._resized(step, choices) for step in placed.before]
        after = [_pooled(step, choices) for step in placed.after]
        element = placed.element
        if element.block:
            return [*before, *self._block(placed, choices, act, inner), *after]
        first, *rest = element.layers
        steps = [_step(first, placed, choices)]
        norms = [_step(p, placed, choices) for p in rest if p.is_norm]
        slopes = [{"prelu": p.place} for p in rest if p.kind == "prelu"]
        acts = slopes or ([] if act is None else [act])
        if _bare(element):
            acts = slopes
        steps += [*acts, *norms] if choices.order == "act" else [*norms, *acts]
        return [*before, *steps, *after]

    def _resized(self, step: Any, choices: Choices) -> Any:
        if choices.resize == "bilinear" and isinstance(step, Mapping) and "upsample" in step:
            return {"upsample": step["upsample"], "mode": "bilinear"}
        return step

    def _block(self, placed: Placed, choices: Choices, act: Act, inner: Act) -> list[Any]:
        element = placed.element
        units: list[list[Any]] = []
        lead: list[Any] = []
        for part in element.layers:
            step = _step(part, placed, choices)
            if part.is_norm and choices.blocks == "before":
                lead.append(step)
            elif part.is_norm or part.kind == "prelu":
                (units[-1] if units else lead).append(step)
            else:
                units.append([*lead, step])
                lead = []
        between = [] if inner is None else [inner]
        if choices.blocks == "before":
            body: list[Any] = []
            for unit in units:
                *norms, layer = unit
                body += [*norms, *between, layer]
        else:
            body = units[0]
            for unit in units[1:]:
                body = [*body, *between, *unit]
        end = [] if act is None else [act]
        if choices.blocks in {"chain", "chain-bare"}:
            return [*body, *(end if choices.blocks == "chain" else [])]
        block: dict[str, Any] = {"residual": body}
        if element.shortcut:
            block["shortcut"] = [_step(p, placed, choices) for p in element.shortcut]
        return [block, *(end if choices.blocks == "sum-act" else [])]


def left_open(beyond: Beyond) -> dict[str, tuple[Any, ...]]:
    """Return what prior, condition and likelihood leave open, the most usual first.

    Args:
        beyond: the three.
    """
    found: dict[str, tuple[Any, ...]] = {}
    if beyond.prior:
        found["prior"] = prior_forms(beyond.prior)
    if beyond.told_in or beyond.told_out:
        found["joined"] = ("after", "before")
    if beyond.levels:
        blocks = beyond.likelihood != "categorical"
        found["levels"] = ("first", "last") if blocks else ("last", "first")
    if beyond.heads and not beyond.counts:
        found["clamp"] = SPOKEN["clamp"]
    return found


def fields_beyond(beyond: Beyond, choices: Choices) -> dict[str, Any]:
    """Return the fields of a declaration that say prior, condition and likelihood.

    Args:
        beyond: the three.
        choices: what is chosen.
    """
    found: dict[str, Any] = {}
    if beyond.condition:
        found["condition"] = dict(beyond.condition)
    if beyond.likelihood:
        chains = [[_step(part)] for part in beyond.heads]
        if beyond.counts:
            chains[0].append("log_share")
        elif chains and choices.clamp is not None:
            chains[1].append({"clamp": [-choices.clamp, choices.clamp]})
        chains[1:1] = [[{"constant": name}] for name in beyond.tensors]
        found["likelihood"] = {"metric": beyond.likelihood, "parameters": chains}
    if beyond.prior:
        key = "squeeze" if beyond.prior["kind"] == "vamp" else "form"
        found["prior"] = {**beyond.prior, key: choices.prior}
    return found


def _joined(step: Mapping[str, Any] | None, choices: Choices) -> list[Any]:
    """The step that joins a condition, if there is one."""
    if step is None:
        return []
    return [{**step, "first": True} if choices.joined == "before" else dict(step)]


def _bare(element: Element) -> bool:
    """Whether the element is a norm alone, which no activation follows by custom."""
    return element.layers[0].is_norm and len(element.layers) == 1


def _is_image(element: Element, before: bool) -> bool:
    last = element.last
    return before if last.is_norm else last.kind == "conv"


def size_after(way: Sequence[Placed], shape: Shape) -> int:
    """Return the number of values after a way of convolutions.

    Args:
        way: elements with their geometry.
        shape: of what comes in.
    """
    for placed in way:
        element = placed.element
        if element.last.kind != "conv":
            return element.last.gives
        sides = list(shape[1:])
        for part in element.layers if element.block else (element.first,):
            if part.kind != "conv":
                continue
            told = placed.fields.get(part.place, {})
            padding = told.get("padding", 0)
            pads = padding if isinstance(padding, list) else [padding] * len(sides)
            sides = [
                (s + 2 * p - k) // told.get("stride", 1) + 1
                for s, p, k in zip(sides, pads, part.shape[2:], strict=True)
            ]
        for step in placed.after:
            if isinstance(step, Mapping) and "pool" in step:
                sides = [s // step["kernel"] for s in sides]
        shape = (element.last.gives, *sides)
    return math.prod(shape)


def _pooled(step: Any, choices: Choices) -> Any:
    if isinstance(step, Mapping) and "pool" in step:
        return {**step, "pool": choices.pool}
    return step


def _step(part: Part, placed: Placed | None = None, choices: Choices | None = None) -> Any:
    """The brief step of a part."""
    kind = part.kind
    more: dict[str, Any] = dict(part.told)
    name: str = kind
    if kind == "conv" and placed is not None:
        if placed.transposed:
            name = "conv_transpose"
        more |= placed.fields.get(part.place, {})
        if more.get("output_padding") == 0:
            more.pop("output_padding")
    if kind == "norm":
        groups = 0 if choices is None else choices.groups
        name = "group_norm" if groups else "layer_norm"
        if groups:
            more["groups"] = groups
    return {name: part.place, **more}


def _brief(step: Any) -> Any:
    """A head of one dense layer goes by its name alone."""
    return step["linear"] if set(step) == {"linear"} else [step]
