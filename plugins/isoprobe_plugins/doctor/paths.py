"""Find where the posterior's head sits, and the ways to it from the input and back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoprobe_plugins.doctor.elements import Element, elements_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isoprobe_plugins.doctor.parts import Part

_MEAN = re.compile(r"(^|[._]|\d|[a-z])(mu|mean|loc|means|average|fc21|m)\d*([._]|$)", re.IGNORECASE)
_SCALE = re.compile(
    r"(log_?var|logv|log_?sigma|log_?std|sigma|std|stddev|scale|var(iance)?|lv|fc22|logsd)\w*?(_?"
    r"(layer|encoder|head))?\d*([._]|$)",
    re.IGNORECASE,
)
_ENCODES = re.compile(r"(enc|infer|recogn|img_to|to_hidden|^q(_|$)|^down)", re.IGNORECASE)
_DECODES = re.compile(
    r"(dec|^gen|recon|^p_|^px|deconv|^up\d*$|latent_to|to_img|to_im$|z_to|from_latent|latent2|"
    r"^final|^out)",
    re.IGNORECASE,
)
#: ways through the layers that are followed at most
_STEPS = 4000
#: most latents that a step back from a wide layer may have beyond them, as a condition
_BESIDE = 128


@dataclass(frozen=True)
class Split:
    """A way to cut the layers into encoder, head and decoder.

    Attributes:
        encoder: elements below the head.
        heads: two layers of n outputs, or one of 2n.
        decoder: elements above.
        latent_size: n, channels where the head is a convolution.
        rest: parts that stand on no way.
        added_in: inputs that the first layer has beyond the data's.
        added_out: inputs that the decoder has beyond the latents.
        named: both heads say what they are.
    """

    encoder: tuple[Element, ...]
    heads: tuple[Part, ...]
    decoder: tuple[Element, ...]
    latent_size: int
    rest: tuple[Part, ...]
    added_in: int = 0
    added_out: int = 0
    named: bool = False


def role(part: Part) -> str:
    """Say on which side a part's name puts it: ``e``, ``d`` or nothing."""
    for word in part.place.split("."):
        if _DECODES.search(word):
            return "d"
        if _ENCODES.search(word):
            return "e"
    return ""


def says_mean(part: Part) -> bool:
    """Say whether a name speaks of a mean."""
    return bool(_MEAN.search(part.place))


def says_scale(part: Part) -> bool:
    """Say whether a name speaks of a scale."""
    return bool(_SCALE.search(part.place))


def head_candidates(parts: Sequence[Part]) -> list[tuple[int, tuple[Part, ...]]]:
    """List what could be the posterior's head, the most likely first.

    Args:
        parts: in order.

    Returns:
        A likelihood and two layers of n outputs, or one of 2n.
    """
    maps = [p for p in parts if p.kind in {"linear", "conv"} and role(p) != "d"]
    takers = [_takes_from_latent(p) for p in parts if p.kind != "free"]
    taken = {n for each in takers for n in each}
    found: list[tuple[int, int, tuple[Part, ...]]] = []
    for i, first in enumerate(maps):
        for second in maps[i + 1 :]:
            if first.kind == second.kind and first.shape == second.shape:
                likely = _pair(first, second, parts, taken)
                if likely > 0:
                    found.append((likely, -i, (first, second)))
    for i, head in enumerate(maps):
        n, odd = divmod(head.gives, 2)
        if not odd and n in {t for p in parts if p is not head and role(p) != "e"
                             for t in _takes_from_latent(p)}:  # fmt: skip
            likely = 1 + 2 * (role(head) == "e" or says_mean(head)) + (head.gives < head.takes)
            found.append((likely, i, (head,)))
    ordered = sorted(found, key=lambda item: (-item[0], -item[1]))
    return [(likely, heads) for likely, _, heads in ordered[:8]]


def _takes_from_latent(part: Part) -> set[int]:
    if part.kind == "conv":
        return set(part.shape[:2])
    if part.is_recurrent:
        return {part.shape[1]}
    return {part.shape[1]} if part.kind == "linear" else set()


def _pair(first: Part, second: Part, parts: Sequence[Part], taken: set[int]) -> int:
    n, width = first.gives, first.takes
    reached = n in taken or any(n < t <= n + _BESIDE for t in taken)
    if not reached:
        return 0
    named = 4 * (says_mean(first) or says_mean(second)) + 4 * (
        says_scale(first) or says_scale(second)
    )
    near = abs(parts.index(first) - parts.index(second)) <= 2
    sibling = first.place.rpartition(".")[0] == second.place.rpartition(".")[0]
    narrow = 2 * (n < width)
    if not named and not (near and n < width):
        return 0
    return named + 2 * near + sibling + narrow


def splits(parts: Sequence[Part], sizes: Sequence[int]) -> list[Split]:
    """Find the ways through a network.

    Args:
        parts: its layers in order.
        sizes: what a first layer may take: values of a row, or channels of an image.

    Returns:
        Ways to cut the layers, the most likely first.
    """
    whole = [p for p in parts if p.kind != "free"]
    found: list[tuple[float, int, Split]] = []
    for likely, heads in head_candidates(whole):
        for split in _with_heads(whole, heads, sizes):
            weight = (
                likely
                - 3.0 * len(split.rest) / max(len(whole), 1)
                - 2.0 * (split.added_in > 0 or split.added_out > 0)
            )
            found.append((weight, len(found), split))
    found.sort(key=lambda item: (-item[0], item[1]))
    free = tuple(p for p in parts if p.kind == "free")
    return [
        Split(s.encoder, s.heads, s.decoder, s.latent_size, (*s.rest, *free), s.added_in,
              s.added_out, s.named)
        for _, _, s in found
    ]  # fmt: skip


def _with_heads(
    parts: Sequence[Part], heads: tuple[Part, ...], sizes: Sequence[int]
) -> Iterator[Split]:
    n = heads[0].gives if len(heads) == 2 else heads[0].gives // 2
    if len(heads) == 2 and says_scale(heads[0]) and not says_scale(heads[1]):
        heads = (heads[1], heads[0])
    spot = min(parts.index(h) for h in heads)
    below, above = _sides(parts, heads, spot)
    named_only = [p for p in above if role(p) == "d"]
    wanted = heads[0].takes
    added = sorted({0, *(p.takes - s for p in below for s in sizes if 0 < p.takes - s <= _BESIDE)})
    for more in added:
        starts = {s + more for s in sizes}
        encoder = _way(below, starts, heads[0], wanted)
        if encoder is not None:
            break
    else:
        return
    used = {p.place for e in encoder for p in e.parts}
    left = [p for p in above if p.place not in used]
    beyond = sorted(
        {0, *(t - n for p in left for t in _takes_from_latent(p) if 0 < t - n <= _BESIDE)}
    )
    for extra in beyond:
        convolved = heads[0].kind == "conv"
        spoken = [p for p in left if p in named_only]
        decoders = _decoders(spoken, left, n + extra, sizes, convolved=convolved)
        for decoder in decoders:
            on_way = {*used, *(h.place for h in heads), *_places(decoder)}
            rest = tuple(p for p in parts if p.place not in on_way)
            named = len(heads) == 2 and says_mean(heads[0]) and says_scale(heads[1])
            yield Split(tuple(encoder), heads, tuple(decoder), n, rest, more, extra, named)
        if decoders:
            return


def _decoders(
    spoken: Sequence[Part],
    left: Sequence[Part],
    width: int,
    sizes: Sequence[int],
    *,
    convolved: bool,
) -> list[list[Element]]:
    """Ways back: over layers named as a decoder's, and over others between these as well."""
    named = _back(spoken, width, sizes, convolved) if spoken else None
    whole = _back(left, width, sizes, convolved)
    if named is None or whole is None:
        return [way for way in (named, whole) if way]
    between = whole[0].first in spoken and whole[-1].last in spoken
    return [named, whole] if between and _places(whole) != _places(named) else [named]


def _places(way: Sequence[Element]) -> list[str]:
    return [part.place for element in way for part in element.parts]


def _sides(
    parts: Sequence[Part], heads: tuple[Part, ...], spot: int
) -> tuple[list[Part], list[Part]]:
    """Parts that may lie below the head and above it, by name, else by order."""
    below: list[Part] = []
    above: list[Part] = []
    for index, part in enumerate(parts):
        if part in heads:
            continue
        side = role(part)
        if side == "e" or (not side and index < spot):
            below.append(part)
        if side == "d" or (not side and index > spot):
            above.append(part)
        if (
            not side
            and index > spot
            and part.group in {h.group for h in heads}
            and "." in part.place
        ):
            below.append(part)
    return below, above


def _fits(element: Element, width: int, kind: str) -> bool:
    """Say whether an element can take what comes: a vector's width, or an image's channels."""
    first = element.first
    if first.kind in {"batch_norm", "norm"}:
        return first.shape[0] == width
    if first.kind == "conv":
        ins = set(first.shape[:2]) if not element.block else {first.takes}
        return width in ins if kind == "image" else any(width % i == 0 for i in ins)
    if first.kind == "linear":
        return first.takes == width or (kind == "image" and first.takes % width == 0)
    if first.is_recurrent:
        return first.shape[1] == width
    return first.kind == "attention" and first.takes == width


def _outs(element: Element, width: int, kind: str) -> list[tuple[int, str]]:
    last = element.last
    if last.is_norm:
        return [(width, kind)]
    if last.kind == "conv":
        if element.block:
            return [(last.gives, "image")]
        ways = []
        if last.shape[1] == width or kind != "image":
            ways.append((last.shape[0], "image"))
        if last.shape[0] == width or (kind != "image" and width % last.shape[0] == 0):
            ways.append((last.shape[1], "image"))
        return list(dict.fromkeys(ways))
    return [(last.gives, "vector")]


def _way(parts: Sequence[Part], starts: set[int], head: Part, wanted: int) -> list[Element] | None:
    """The longest way from an input to what the head takes, in the file's order if it leads."""

    def at_goal(width: int, kind: str) -> bool:
        if head.kind == "conv":
            return kind == "image" and width == wanted
        return width == wanted or (kind == "image" and wanted % width == 0)

    elements = elements_of(parts)
    best: list[Element] | None = None
    for start in sorted(starts):
        for kind in ("vector", "image"):
            for way in _walk(elements, start, kind, at_goal):
                if kind == "image" and way and way[0].first.kind == "linear":
                    continue  # a row that is flattened first starts as a vector
                if best is None or _worth(way) > _worth(best):
                    best = way
    return best


def _back(
    parts: Sequence[Part], width: int, sizes: Sequence[int], convolved: bool
) -> list[Element] | None:
    """The longest way from a latent to the output."""
    outs, whole = set(sizes), max(sizes)

    def at_goal(wide: int, kind: str) -> bool:
        return wide in outs if kind == "image" else wide % whole == 0

    best: list[Element] | None = None
    for way in _walk(elements_of(parts), width, "image" if convolved else "vector", at_goal):
        if way and (best is None or _worth(way) > _worth(best)):
            best = way
    return best


def _worth(way: Sequence[Element]) -> int:
    return sum(math.prod(p.shape) for e in way for p in e.parts)


def _walk(
    elements: Sequence[Element], width: int, kind: str, at_goal: object
) -> Iterator[list[Element]]:
    """Yield ways through elements, the next in order tried first."""
    budget = [_STEPS]

    def step(way: list[int], width: int, kind: str) -> Iterator[list[Element]]:
        budget[0] -= 1
        if budget[0] < 0:
            return
        rest = [i for i in range(len(elements)) if i not in way]
        fitting = [i for i in rest if _fits(elements[i], width, kind)]
        after = way[-1] + 1 if way else 0
        fitting.sort(key=lambda i: (i != after, i))
        # inside a container the order of its numbers holds
        allowed = [i for i in fitting if not _earlier_left(elements, i, rest)]
        for i in allowed[:3]:
            for out, now in _outs(elements[i], width, kind):
                yield from step([*way, i], out, now)
        if (way or kind == "vector") and at_goal(width, kind):  # type: ignore[operator]
            yield [elements[i] for i in way]

    yield from step([], width, kind)


def _earlier_left(elements: Sequence[Element], index: int, rest: Sequence[int]) -> bool:
    """Say whether an earlier element of the same container has not been used yet."""
    place = elements[index].first.place.rpartition(".")[0]
    if not place:
        return False
    return any(j < index and elements[j].first.place.rpartition(".")[0] == place for j in rest)
