"""Find how z may reach a recurrent decoder, told by the widths of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isoprobe_plugins.doctor.beyond import NOTHING, Beyond
from isoprobe_plugins.doctor.paths import Split, head_candidates, role
from isoprobe_plugins.doctor.plan import Choices, Shape, fields_beyond, left_open
from isoprobe_plugins.doctor.words import word

if TYPE_CHECKING:
    from isoprobe_plugins.doctor.parts import Part

#: what may follow the layer that turns z into a first state
_FIRST = ("tanh", None, "relu")
#: ways in which z reaches a decoder, by the choice's word
FEEDS: Mapping[str, Mapping[str, Any]] = {
    "repeat": {"feed": "repeat"},
    "beside": {"feed": "beside"},
    "beside, z first": {"feed": "beside", "z_first": True},
    "state": {"feed": "state"},
    "own": {"feed": "own"},
}
_CUTS = 3


@dataclass(frozen=True)
class SequencePlan:
    """A way through recurrent layers whose open places are to be chosen.

    Attributes:
        split: head and what is left out.
        input_shape: steps and width of a row.
        reads: the encoder's recurrent layer.
        before: a layer from z to what reaches the decoder, if there is one.
        writes: the decoder's recurrent layer.
        after: the layer from a state to a step.
        beyond: a prior other than N(0, I).
    """

    split: Split
    input_shape: Shape
    reads: Part
    before: Part | None
    writes: Part
    after: Part
    beyond: Beyond = NOTHING

    def options(self) -> dict[str, tuple[Any, ...]]:
        """Return what each choice may be, the most usual first."""
        found: dict[str, tuple[Any, ...]] = {"recurrent": self._feeds()}
        if self.before is not None:
            found["first"] = _FIRST
        if self.reads.kind == "lstm":
            found["last"] = ("last", "cell")
        return {**found, **left_open(self.beyond)}

    def _feeds(self) -> tuple[str, ...]:
        n = self.split.latent_size if self.before is None else self.before.gives
        hidden, takes = self.writes.shape
        width = self.input_shape[1]
        return tuple(
            name for name, told in FEEDS.items()
            if (takes == {"repeat": n, "beside": n + width}.get(told["feed"], width))
            and (told["feed"] not in {"state", "own"} or n == hidden)
        )  # fmt: skip

    def layouts(self) -> tuple[str, ...]:
        """Return where mean and scale may stand."""
        return ("separate",) if self.split.named else ("separate", "exchanged")

    def start(self) -> Choices:
        """Return the most usual choices."""
        usual = {name: values[0] for name, values in self.options().items()}
        return replace(Choices(), layout=self.layouts()[0], **usual)

    def told(self, choices: Choices) -> list[str]:
        """Return what is chosen, in words."""
        first = [] if self.before is None else [f"{word(choices.first)} after {self.before.place}"]
        ways = {"repeat": "z at every step", "state": "z its first state, inputs zero",
                "own": "z its first state, its own output at every step"}  # fmt: skip
        how = ways.get(choices.recurrent, "z beside its own output at every step")
        return [f"encoder {self.reads.kind}", f"decoder {self.writes.kind}, {how}", *first]

    def fields(self, choices: Choices) -> dict[str, Any]:
        """Return the declaration that choices make.

        Args:
            choices: what is chosen.

        Returns:
            Fields of a declaration.
        """
        steps, width = self.input_shape
        mean, scale = (part.place for part in self.split.heads)
        if choices.layout == "exchanged":
            mean, scale = scale, mean
        give = choices.last if choices.last == "cell" else "last"
        feed = FEEDS[choices.recurrent]
        written: dict[str, Any] = {
            self.writes.kind: self.writes.place, **feed, "steps": steps,
            "out": [{"linear": self.after.place}],
        }  # fmt: skip
        if feed["feed"] != "repeat":
            written["width"] = width
        before: list[Any] = []
        if self.before is not None:
            act = [] if choices.first is None else [choices.first]
            before = [{"linear": self.before.place}, *act]
        return {
            "input_shape": [steps, width],
            "latent_size": self.split.latent_size,
            "encoder": [{self.reads.kind: self.reads.place, "give": give}],
            "head": {"form": choices.form, "mean": mean, "scale": scale},
            "decoder": [*before, written],
            "output": choices.output,
            **fields_beyond(self.beyond, choices),
        }


def sequence_plans(parts: Sequence[Part], row: Shape) -> list[SequencePlan]:
    """Find the ways from a sequence through recurrent layers to latents and back.

    Args:
        parts: layers in order.
        row: shape of a stored row, ``(steps, width)``.

    Returns:
        Plans, the most likely first; none for rows or layers of another kind.
    """
    again = [p for p in parts if p.is_recurrent]
    if len(row) != 2 or len(again) < 2:
        return []
    found = []
    for _, heads in head_candidates([p for p in parts if p.kind != "free"])[:_CUTS]:
        if len(heads) == 2 and heads[0].kind == "linear":
            found += _with(parts, heads, again, row)
    return found


def _with(
    parts: Sequence[Part], heads: tuple[Part, ...], again: Sequence[Part], row: Shape
) -> list[SequencePlan]:
    n = heads[0].gives
    readers = [
        p for p in again if p.shape == (heads[0].takes, row[1]) and role(p) != "d"
    ]  # fmt: skip
    if not readers:
        return []
    reads = readers[0]
    maps = [p for p in parts if p.kind == "linear" and p not in heads]
    found = []
    for writes in again:
        if writes is reads:
            continue
        outs = [p for p in maps if p.shape == (row[1], writes.shape[0])]
        froms = [None, *(p for p in maps if p.takes == n and p not in outs)]
        for after in outs[:1]:
            for before in froms:
                used = {p.place for p in (reads, before, writes, after, *heads) if p is not None}
                rest = tuple(p for p in parts if p.place not in used)
                split = Split((), heads, (), n, rest, named=True)
                plan = SequencePlan(split, row, reads, before, writes, after)
                if plan._feeds():
                    found.append(plan)
    return sorted(found, key=lambda plan: len(plan.split.rest))
