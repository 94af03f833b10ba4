"""Say what is made of the readings: one that data bears out and what it took, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isoprobe.data.fitting import plane, with_plane
from isoprobe.errors import CheckpointError
from isoprobe_plugins.doctor import refusals
from isoprobe_plugins.doctor.beyond import Rows
from isoprobe_plugins.doctor.plan import OPTION, SPOKEN
from isoprobe_plugins.doctor.readings import FLOOR, STEEP, Reading, beats, diagnose, oddness
from isoprobe_plugins.doctor.skeleton import plans_for
from isoprobe_plugins.doctor.words import word
from isoprobe_plugins.heads import HEADS

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Metric
    from isoprobe_plugins.adapters.weights.state import State
    from isoprobe_plugins.doctor.trying import Tried

#: readings whose KL and missed variance differ by a smaller share give a reader the same numbers
SAME = 0.01
#: sides to which images are made larger
SIDES = (16, 32, 36, 48, 64, 128, 224, 256)
#: how much steeper another metric has to be for the loss to be told
LOSS = 1.5


@dataclass(frozen=True)
class Verdict:
    """What data made of a set of weights.

    Attributes:
        readings: every reading, the chosen one first.
        doubt: why the first is not to be trusted; empty where it is.
        notes: what was taken as given, a sentence each.
        metric: of the loss, where it is told; None where the data does not tell it.
        unsure: why the first, though it may be right, is not taken without being declared; empty
            where it is clearly apart from all others that give other numbers.
        ask: choices of the first that settle what is not told apart, where words do.
        losses: metrics that may be the loss', where it is not told.
    """

    readings: tuple[Reading, ...]
    doubt: str
    notes: tuple[str, ...]
    metric: str | None
    unsure: str = ""
    ask: Mapping[str, Any] = field(default_factory=dict)
    losses: tuple[str, ...] = ()

    @property
    def chosen(self) -> Reading:
        """The reading."""
        return self.readings[0]


def judged(
    state: State,
    x: Tensor,
    metric: Metric | None = None,
    told: Mapping[str, Any] | None = None,
    labels: Tensor | None = None,
    advance: Callable[[int], object] = int,
) -> Verdict:
    """Read a set of weights by trying it on data.

    Args:
        state: the weights.
        x: rows as stored, bytes and scale mapped, ``(B, ...)``.
        metric: the loss', where the user names it.
        told: choices that the user tells.
        labels: of the rows, ``(B,)``, where the data has any.
        advance: told of every reading that is tried.

    Returns:
        The verdict.

    Raises:
        CheckpointError: for what is no VAE, or has no way from a row to latents and back.
    """
    reason = refusals.why_no_vae(state.tensors)
    if reason is not None:
        raise CheckpointError(reason)
    odd = [n for n, t in state.tensors.items() if not bool(t.isfinite().all())]
    if odd:
        raise CheckpointError(
            f"a weight '{odd[0]}' with numbers that are not finite: training may have diverged, or "
            "the file is damaged"
        )
    x = x.to(_dtype(state))
    x, rows, plans, cuts = _ways(state, x, labels)
    if not plans:
        raise CheckpointError(
            refusals.recurrent(state.tensors)
            or _other_size(state, rows.shape) or _no_way(state, cuts, rows)
        )  # fmt: skip
    prior = refusals.other_prior(plans[0].split, state.tensors)
    if prior is not None:
        raise CheckpointError(
            f"a VAE with {prior}: its KL is not that to N(0, I). Build it with its prior's log "
            "density by --adapter factory --option target=FILE.py:FUNCTION"
        )
    readings = diagnose(plans, state.tensors, x, metric, told, labels, advance)
    chosen = readings[0]
    rivals = [r for r in readings[1:] if r.fields != chosen.fields and not beats(chosen, r)]
    apart = rivals_of(chosen, rivals)
    # what is both rarer and fits worse is told of, and no reason to ask
    strong = [r for r in rivals if r.tried.slope <= chosen.tried.slope or _usual(r, chosen)]
    unsure, ask = rivals_of(chosen, strong), _asked(chosen, strong)
    said = _confirmed_by(chosen)
    short = "" if said.keys() <= dict(told or {}).keys() else _short(chosen)
    if short:
        ask = {**said, **ask} if ask or not unsure else {}
    metric_found = _metric(readings, state, metric, sure=not short)
    notes = [*_said(chosen), *([f"{apart}: the usual reading is taken"] if apart else [])]
    return Verdict(
        readings=tuple(readings),
        doubt=_doubt(chosen, state, tuple(x.shape[1:])),
        notes=tuple(notes),
        metric=metric_found,
        unsure=short or unsure,
        ask=ask,
        losses=() if metric or metric_found else _losses(readings),
    )


def _ways(state: State, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Rows, Any, Any]:
    """Plans for rows; bytes count something where the weights' shapes say so."""
    rows, counted = Rows.of(x, labels), (255 * x).round()
    if rows.whole is None and bool(((255 * x - counted).abs() < 1e-4).all()):
        bytes_as_counts = Rows.of(counted, labels)
        plans, cuts = plans_for(state.tensors, bytes_as_counts)
        if plans and plans[0].beyond.likelihood:
            return counted, bytes_as_counts, plans, cuts
    return x, rows, *plans_for(state.tensors, rows)


def _dtype(state: State) -> Any:
    import torch

    kinds = {t.dtype for t in state.tensors.values() if t.is_floating_point()}
    return torch.float64 if torch.float64 in kinds else torch.float32


def _other_size(state: State, row: tuple[int, ...], beside: str = "not") -> str | None:
    """Name a larger size of images that the layers lead through there and back."""
    have = plane(row)
    if have is None:
        return None
    for side in SIDES:
        shape = with_plane(row, (side, side))
        if side > max(have) and plans_for(state.tensors, Rows(shape))[0]:
            return (
                f"weights whose layers take images of {side}x{side}, {beside} "
                f"{have[0]}x{have[1]}: add --pad {side} if they were padded with zeros in "
                f"training, or --resize {side}"
            )
    return None


def _no_way(state: State, cuts: Sequence[Any], rows: Rows) -> str:
    shown = "x".join(map(str, rows.shape))
    if not cuts:
        return refusals.without_scale(state.tensors) or (
            f"weights whose layers lead from no row of {shown} to a mean and a scale and back: is "
            "the data of the right shape (--resize, --pad)?"
        )
    cut = cuts[0]
    head = " and ".join(p.place for p in cut.heads)
    idle = any(part.kind in {"linear", "conv"} for part in cut.rest)
    if cut.added_out and cut.added_in in {0, cut.added_out} and not idle:
        return (
            f"a conditional VAE: its first layer takes {cut.added_in} values beyond the data's and "
            f"its decoder {cut.added_out} beyond {cut.latent_size} latents, a condition"
            + ("" if rows.classes else ", and the data holds no labels that say it: name them, as "
               "in --data FILE.npz:x,y")
        )  # fmt: skip
    return (
        f"weights whose head is {head}, {cut.latent_size} latents; no strides and paddings of its "
        f"layers take rows of {shown} there and back: is the data of the right shape (--resize, "
        "--pad)?"
    )


def _doubt(chosen: Reading, state: State, row: tuple[int, ...]) -> str:
    tried = chosen.tried
    if tried.at_mean < FLOOR and tried.slope > STEEP / 3:
        why = f"the best reading explains {tried.at_mean:.1%} of the data's variance"
    elif tried.slope > STEEP:
        why = (
            f"the loss of the best reading is far from still (slope {tried.slope:.2f} of what rows "
            "give alone; below 0.3 for what was trained)"
        )
    else:
        return ""
    more = refusals.recurrent(state.tensors) or _other_size(state, row, "as well as")
    return why if more is None else f"{why}; it holds {more}"


def _said(chosen: Reading) -> list[str]:
    choices, split = chosen.choices, chosen.plan.split
    acts = chosen.plan.told(choices)
    head = " and ".join(p.place for p in split.heads)
    form = HEADS[choices.form][0]
    order = "" if len(split.heads) == 2 and choices.layout == "separate" else f", {choices.layout}"
    tried = chosen.tried
    notes = [
        f"layers told by trying readings on the data: {', '.join(acts)}, output {choices.output}; "
        f"head {head}{order}, the scale {form}; explains {tried.at_mean:.1%} at the mean, slope "
        f"{tried.slope:.2f}"
    ]
    rest = [p.place for p in split.rest]
    if rest:
        more = f" and {len(rest) - 4} more" if len(rest) > 4 else ""
        notes.append(f"left out, on no way from input to output: {', '.join(rest[:4])}{more}")
    return notes


def rivals_of(chosen: Reading, rivals: Sequence[Reading]) -> str:
    """Say what is not told apart, where it would change the numbers.

    Args:
        chosen: the reading.
        rivals: those that it does not beat by more than the error.

    Returns:
        A sentence; empty where there is nothing.
    """
    other = [r for r in rivals if not _alike(chosen.tried, r.tried)]
    if not other:
        return ""
    changes = []
    for rival in {repr(r.fields): r for r in other}.values():
        names = [
            f"{name} {_value(getattr(rival.choices, name))}"
            for name in vars(rival.choices) if getattr(rival.choices, name)
            != getattr(chosen.choices, name)
        ]  # fmt: skip
        tried = rival.tried
        changes.append(
            f"{', '.join(names) or 'another way'} (KL {tried.kl:.3g}, slope {tried.slope:.2f})"
        )
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    kl, slope = chosen.tried.kl, chosen.tried.slope
    return (
        f"the reading (KL {kl:.3g}, slope {slope:.2f}) is not told apart from "
        f"{'; '.join(changes[:3])}{more}"
    )


def _usual(one: Reading, other: Reading) -> bool:
    return oddness(one) < oddness(other)


def _asked(chosen: Reading, rivals: Sequence[Reading]) -> dict[str, Any]:
    """Choices in which a reading differs from its rivals; none where words do not tell them."""
    names = {
        name
        for rival in rivals
        if not _alike(chosen.tried, rival.tried)
        for name in vars(rival.choices)
        if getattr(rival.choices, name) != getattr(chosen.choices, name)
    }
    if any(r.plan != chosen.plan for r in rivals) or not names <= {*SPOKEN, *OPTION, "groups"}:
        return {}
    return {name: getattr(chosen.choices, name) for name in sorted(names)}


def _confirmed_by(chosen: Reading) -> dict[str, Any]:
    """Choices by which somebody who has the code can say that the reading is right."""
    open_ones = [n for n in ("encoder", "decoder", "first") if n in chosen.plan.options()]
    return {name: getattr(chosen.choices, name) for name in (*open_ones, "form", "output")}


def _losses(readings: Sequence[Reading]) -> tuple[str, ...]:
    """Metrics under which the chosen reading was tried, the least steep first."""
    same = [r for r in readings if r.choices == readings[0].choices]
    return tuple(dict.fromkeys(r.metric for r in sorted(same, key=lambda r: r.tried.slope)))


def _alike(one: Tried, other: Tried) -> bool:
    """Whether two readings give a reader the same numbers."""
    pairs = ((one.kl, other.kl), (1 - one.explained, 1 - other.explained))
    return all(abs(a - b) <= SAME * abs(a) for a, b in pairs)


def _short(chosen: Reading) -> str:
    """Why a reading that no other rivals is not clear enough by itself."""
    tried = chosen.tried
    if tried.slope > STEEP / 2:
        return (
            "its layers are not told for certain: under the best reading the loss still falls "
            f"(slope {tried.slope:.2f}, above 0.3)"
        )
    if tried.at_mean < FLOOR:
        return f"the best reading explains {tried.at_mean:.1%} of the data's variance"
    return ""


def _value(value: Any) -> str:
    return str(value) if isinstance(value, int) else word(value)


# --------------------------------------------------------------------------- the loss


def _metric(
    readings: Sequence[Reading], state: State, asked: Metric | None, *, sure: bool
) -> str | None:
    """The loss' metric: as asked; or as the file says; or where every other is far steeper."""
    chosen = readings[0]
    if asked is not None:
        return None
    same = {r.metric: r.tried for r in readings if r.choices == chosen.choices}
    spoken = told_metric(state.extras)
    if spoken in same and same[spoken].slope <= LOSS * chosen.tried.slope:
        return spoken
    others = [t.slope for name, t in same.items() if name != chosen.metric]
    if chosen.metric != "sse" and others and min(others) > LOSS * chosen.tried.slope:
        return chosen.metric
    if not others and len(same) == 1 and chosen.choices.output == "linear":
        return chosen.metric if sure or chosen.tried.slope < STEEP / 2 else None
    return None


def told_metric(extras: Mapping[str, Any], depth: int = 3) -> str | None:
    """Return the metric that a training loop's settings speak of.

    Args:
        extras: what a file held beside its tensors.
        depth: how deep settings may lie.
    """
    for key, value in extras.items():
        if isinstance(value, Mapping) and depth:
            found = told_metric({str(k): v for k, v in value.items()}, depth - 1)
            if found is not None:
                return found
        if (isinstance(value, str) and "loss" in key.lower()) or key.lower() in {
            "rec_dist",
            "recon",
        }:
            text = str(value).lower()
            if any(word in text for word in ("bce", "bernoulli", "binary")):
                return "bce"
            if any(word in text for word in ("mse", "sse", "l2", "gauss", "squared")):
                return "sse"
    return None
