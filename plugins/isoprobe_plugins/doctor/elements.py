"""Put layers together to what a network calls: a layer with its norms, or a block."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoprobe_plugins.doctor.parts import Part

_SHORTCUT = re.compile(
    r"(shortcut|downsample|skip|identity|proj|res_conv|residual_conv|match|adapt|conv_res)",
    re.IGNORECASE,
)
_INSIDE = re.compile(r"(^|[._])(conv|fc|lin|linear|layer)_?\d+$", re.IGNORECASE)
_RESIDUAL = re.compile(r"res", re.IGNORECASE)
_MAPS = frozenset({"linear", "conv"})


@dataclass(frozen=True)
class Element:
    """A step of a network that has weights.

    Attributes:
        layers: the layer that maps and what follows it (norms, slopes); of a block all its parts.
        shortcut: parts beside a block's own.
        block: whether it may be a block with a sum at its end.
        named: its name says that it is one.
    """

    layers: tuple[Part, ...]
    shortcut: tuple[Part, ...] = ()
    block: bool = False
    named: bool = False

    @property
    def first(self) -> Part:
        """The layer that takes what comes in."""
        return next((p for p in self.layers if not p.is_norm and p.kind != "prelu"), self.layers[0])

    @property
    def last(self) -> Part:
        """The layer that gives what goes out."""
        every = [p for p in self.layers if not p.is_norm and p.kind != "prelu"]
        return every[-1] if every else self.layers[-1]

    @property
    def group(self) -> str:
        """The first word of its name."""
        return self.layers[0].group

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part in it."""
        return (*self.layers, *self.shortcut)


def elements_of(parts: Sequence[Part]) -> list[Element]:
    """Join layers to elements.

    Args:
        parts: in order; none of them free.

    Returns:
        Elements in the same order.
    """
    blocks = _blocks(parts)
    found: list[Element] = []
    done: set[str] = set()
    for part in parts:
        if part.place in done:
            continue
        block = next((b for b in blocks if part in b.parts), None)
        if block is not None:
            found.append(block)
            done |= {p.place for p in block.parts}
        elif (part.is_norm or part.kind == "prelu") and found and _follows(found[-1], part):
            found[-1] = Element(
                (*found[-1].layers, part), found[-1].shortcut, found[-1].block, found[-1].named
            )
        else:
            found.append(Element((part,)))
    return found


def _follows(element: Element, part: Part) -> bool:
    """Say whether a norm has the width of the layer before it."""
    if element.block or element.last.is_norm:
        return element.block and part.shape[0] in element.last.shape[:2]
    if part.kind == "prelu" and part.shape == (1,):
        return True
    last = element.last
    widths = last.shape[:2] if last.kind == "conv" else last.shape[:1]
    return part.shape[-1:] != () and part.shape[0] in widths


def _blocks(parts: Sequence[Part]) -> list[Element]:
    """Containers with two layers or more that could end in a sum with what came in."""
    inside: dict[str, list[Part]] = {}
    for part in parts:
        words = part.place.split(".")
        for depth in range(1, len(words)):
            inside.setdefault(".".join(words[:depth]), []).append(part)
    found: list[Element] = []
    for place in sorted(inside, key=lambda p: -p.count(".")):
        members = inside[place]
        if any(m in b.parts for b in found for m in members):
            continue
        element = _block(place, members)
        if element is not None:
            found.append(element)
    return found


def _block(place: str, members: Sequence[Part]) -> Element | None:
    rests = {m.place: m.place[len(place) + 1 :] for m in members}
    shortcut = tuple(m for m in members if _SHORTCUT.search(rests[m.place].partition(".")[0]))
    own = tuple(m for m in members if m not in shortcut)
    maps = [m for m in own if m.kind in _MAPS]
    if not 2 <= len(maps) <= 4 or len({m.kind for m in maps}) > 1 or any(
        m.kind not in _MAPS and not m.is_norm and m.kind != "prelu" for m in own
    ):  # fmt: skip
        return None
    linked = all(a.gives == b.takes for a, b in itertools.pairwise(maps))
    if not linked or (not shortcut and maps[0].takes != maps[-1].gives):
        return None
    words = place.split(".")
    numbered = all(_INSIDE.search(rests[m.place].split(".")[0]) for m in maps)
    named = any(_RESIDUAL.search(word) for word in words) or bool(shortcut)
    nested = words[-1].isdecimal() and any("." in rests[m.place] for m in maps)
    # the whole encoder is a container as well: a block stands inside one, or is named for it
    top = len(words) == 1 and not named and not numbered
    if top or not (named or numbered or nested):
        return None
    if maps[0].kind == "conv" and any(m.shape[2:] and m.shape[-1] % 2 == 0 for m in maps):
        return None
    return Element(own, shortcut, block=True, named=named)
