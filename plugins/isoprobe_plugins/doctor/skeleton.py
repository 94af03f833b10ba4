"""Find the ways through a network that fit its tensors and the shape of a row."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from isoprobe_plugins.doctor.beyond import (
    NOTHING,
    Beyond,
    Rows,
    conditions_of,
    likelihood_of,
    prior_of,
)
from isoprobe_plugins.doctor.geometry import Placed, ways
from isoprobe_plugins.doctor.parts import Part, parts_of
from isoprobe_plugins.doctor.paths import Split, splits
from isoprobe_plugins.doctor.plan import Plan, size_after
from isoprobe_plugins.doctor.sequences import SequencePlan, sequence_plans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

Shape = tuple[int, ...]
#: ways to cut the layers that are followed
_CUTS = 4


def shapes_of(row: Shape, part: Part | None) -> list[Shape]:
    """Return the shapes that a row may be given to a first layer in.

    Args:
        row: shape of a stored row.
        part: the first layer.
    """
    size = math.prod(row)
    if part is None or part.kind != "conv":
        return [(size,)]
    axes = len(part.shape) - 2
    found: list[Shape] = []
    for channels in dict.fromkeys(part.shape[:2]):
        if len(row) == axes + 1 and row[0] == channels:
            found.append(row)
        if len(row) == axes + 1 and row[-1] == channels:
            found.append((channels, *row[:-1]))
        if len(row) == axes and channels == 1:
            found.append((1, *row))
        if len(row) == 1 and size % channels == 0:
            side = round((size // channels) ** (1 / axes))
            if side**axes * channels == size:
                found.append((channels, *(side,) * axes))
    return list(dict.fromkeys(found))


def plans_for(
    tensors: Mapping[str, Tensor], rows: Rows
) -> tuple[list[Plan | SequencePlan], list[Split]]:
    """Find the ways through a network that take a row to latents and back.

    Args:
        tensors: by name.
        rows: what stored rows are like.

    Returns:
        Plans, the most likely first, and the cuts of the layers that were followed.
    """
    parts, row = parts_of(tensors), rows.shape
    sizes = sorted(
        {math.prod(row), *(row if len(row) > 1 else ()), *((1,) if len(row) > 1 else ())}
    )
    if len(row) == 1:
        sizes += [c for c in (1, 3) if math.isqrt(row[0] // c) ** 2 * c == row[0]]
    cuts = splits(parts, sizes)
    found: list[Plan | SequencePlan] = [*sequence_plans(parts, row)]
    for split in cuts[:_CUTS]:
        found += _plans(split, rows)
    return [_with_prior(plan, tensors, math.prod(row)) for plan in found], cuts


def _with_prior(
    plan: Plan | SequencePlan, tensors: Mapping[str, Tensor], size: int
) -> Plan | SequencePlan:
    found = prior_of(plan.split, tensors, size)
    split = _without(plan.split, found)
    if isinstance(plan, SequencePlan):
        return replace(plan, split=split, beyond=found)
    return replace(plan, split=split, beyond=replace(plan.beyond, prior=found.prior))


def _without(split: Split, beyond: Beyond) -> Split:
    """The same way, without parts that turned out to belong to the model."""
    places = {part.place for part in beyond.parts}
    return replace(split, rest=tuple(p for p in split.rest if p.place not in places))


def _plans(split: Split, rows: Rows) -> list[Plan]:
    first = split.encoder[0].first if split.encoder else split.heads[0]
    nhwc = any(
        p.told.get("transposed") and p.kind == "conv" for e in split.encoder for p in e.parts
    )
    found = []
    head = split.heads[0]
    likelihood = likelihood_of(split, rows) if split.decoder else None
    told = [NOTHING]
    if split.added_in or split.added_out:
        told = conditions_of(split, rows)
    for shape in shapes_of(rows.shape, first):
        if head.kind == "conv":
            found += _convolved(split, shape, nhwc)
            continue
        wide = (shape[0] + split.added_in, *shape[1:])
        ins = ways(split.encoder, wide, (head.takes,), up=False, nhwc=nhwc)
        latents = (split.latent_size + split.added_out,)
        goal: Shape = shape
        if likelihood is not None and likelihood.levels:
            goal = (math.prod(shape) * likelihood.levels,)
        outs = ways(split.decoder, latents, goal, up=True, nhwc=nhwc)
        if not ins or not outs:
            continue
        for condition in told:
            beyond = _both(condition, likelihood)
            plan = Plan(_without(split, beyond), shape, tuple(ins), tuple(outs), (), nhwc, beyond)
            found.append(plan)
    return found


def _both(condition: Beyond, likelihood: Beyond | None) -> Beyond:
    """A condition and a likelihood; counts have one of their own."""
    if likelihood is None:
        return condition
    if not condition.condition:
        return likelihood
    return replace(
        condition, likelihood=likelihood.likelihood, heads=likelihood.heads,
        tensors=likelihood.tensors, levels=likelihood.levels,
        parts=(*condition.parts, *likelihood.parts),
    )  # fmt: skip


def _convolved(split: Split, shape: Shape, nhwc: bool) -> list[Plan]:
    """Plans whose latent is an image."""
    head = split.heads[0]
    found = []
    axes = len(shape) - 1
    for power in range(6):
        sides = tuple(s >> power for s in shape[1:])
        if min(sides, default=0) < 1:
            break
        ins = ways(split.encoder, shape, (head.takes, *sides), up=False, nhwc=nhwc)
        ins = [w for w in ins if _ends(w, shape, sides)]
        grid = _head_grid(head, sides)
        if not ins or grid is None:
            continue
        outs = ways(split.decoder, (split.latent_size, *grid), shape, up=True, nhwc=nhwc)
        if outs:
            found.append(Plan(split, shape, tuple(ins), tuple(outs), grid, nhwc))
    return found[: 2 * axes]


def _head_grid(head: Part, sides: Shape) -> Shape | None:
    """Sides after a convolution that keeps them."""
    return sides if all(k % 2 for k in head.shape[2:]) else None


def _ends(way: Sequence[Placed], shape: Shape, sides: Shape) -> bool:
    last = way[-1].element.last.gives if way else shape[0]
    return size_after(way, shape) == last * math.prod(sides)
