"""Watch new rows against a reference: whether they are still of its kind, and what moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from isoprobe.data.groups import grouping
from isoprobe.errors import OptionError, ResultError
from isoprobe.progress import bar
from isoprobe.run.decisions import flat_names
from isoprobe.run.scoring import open_scoring
from isoprobe.statistics.moments import Moments
from isoprobe.theory.drift import ks_p_value, ks_statistic, mean_shift, normal_p_value

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Dataset
    from isoprobe.run.scoring import Scoring

#: fewer rows than this are no block: means of so few are not near a normal distribution
LEAST_ROWS = 30
#: what moved, at most so many in a block
_NAMED = 10
REFIT_MODEL = "refit the model: it reconstructs these rows worse than those of the reference"
REFIT_REFERENCE = "refit the reference: rows moved, within what the model describes"


@dataclass(frozen=True)
class Moved:
    """A mean that is no longer that of the reference.

    Attributes:
        kind: ``input``, ``distortion`` (of an input), ``latent`` (its mean) or ``rate`` (its KL).
        name: of the input or latent.
        before: mean over the reference rows.
        now: mean over the new rows.
        shift: their difference in standard errors.
        p_value: of that shift alone.
    """

    kind: str
    name: str
    before: float
    now: float
    shift: float
    p_value: float


@dataclass(frozen=True)
class Block:
    """What is found of one block of rows.

    Attributes:
        start: its first row among those scored.
        rows: how many.
        first: time of its first row; None without a time column.
        last: time of its last row.
        distance: of Kolmogorov and Smirnov between its scores and the reference's.
        p_value: of that distance.
        p_values: quantiles 0.05, 0.25, 0.5, 0.75, 0.95 of its rows' p-values, which lie at those
            levels where nothing drifts.
        moved: means that moved at the level of the whole, the furthest first.
        alarm: whether anything did.
        advice: what to do; empty without an alarm.
    """

    start: int
    rows: int
    first: str | None
    last: str | None
    distance: float
    p_value: float
    p_values: tuple[float, ...]
    moved: tuple[Moved, ...]
    alarm: bool
    advice: str


@dataclass(frozen=True)
class Drift:
    """What is found of all blocks.

    Attributes:
        level: chance at most of an alarm anywhere if nothing drifted.
        comparisons: how many share that level.
        blocks: in the order of the rows.
        notes: what a reader should know.
    """

    level: float
    comparisons: int
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]

    @property
    def alarm(self) -> bool:
        """Whether anything moved anywhere."""
        return any(block.alarm for block in self.blocks)

    def document(self) -> dict[str, Any]:
        """Everything as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(asdict(self) | {"alarm": self.alarm})
        return plain

    def lines(self) -> Iterator[str]:
        """Yield what was found as text for people."""
        yield (
            f"{'drift' if self.alarm else 'no drift'} at level {self.level:g} over "
            f"{len(self.blocks)} block{'s' if len(self.blocks) > 1 else ''} and "
            f"{self.comparisons:,} comparisons"
        )
        for block in self.blocks:
            when = "" if block.first is None else f" ({block.first} to {block.last})"
            yield (
                f"rows {block.start} to {block.start + block.rows - 1}{when}: "
                f"{'ALARM' if block.alarm else 'quiet'}; median p-value {block.p_values[2]:.3g}, "
                f"scores differ by {block.distance:.3f} (p {block.p_value:.2g})"
            )
            for moved in block.moved[:5]:
                yield (
                    f"    {moved.kind} {moved.name}: {moved.before:.4g} to {moved.now:.4g}, "
                    f"{moved.shift:+.1f} standard errors"
                )
            if block.advice:
                yield f"    {block.advice}"


def drift(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray,
    reference: str | Path,
    *,
    block: int | None = None,
    time: str | None = None,
    level: float = 0.01,
    progress: bool = False,
    **settings: Any,
) -> Drift:
    """Compare new rows with a reference, block by block.

    Args:
        model: the reference's model, in memory or as the path of a checkpoint.
        data: the new rows, in the order in which they came.
        reference: result file of ``analyze`` with the analysis ``anomaly``.
        block: rows a block; None for one block of all.
        time: column that goes along and says when a row came.
        level: chance at most of an alarm if nothing drifted.
        progress: show a bar on stderr.
        **settings: as for :func:`isoprobe.score`.

    Returns:
        What was found.

    Raises:
        OptionError: for a block of too few rows, a level outside (0, 1), or rows out of order.
        ResultError: when the reference is too old to say what is usual.
    """
    if not 0 < level < 1:
        raise OptionError(f"--level lies between 0 and 1; found {level:g}.")
    if block is not None and block < LEAST_ROWS:
        raise OptionError(f"--block needs at least {LEAST_ROWS} rows; found {block}")
    with open_scoring(model, data, reference, **settings) as scoring:
        if "mean_mean" not in scoring.reference.usual:
            raise ResultError(
                f"{reference} was made before results said what is usual; make it again with "
                "'isoprobe analyze MODEL --analysis anomaly --out F.h5'"
            )
        watch = _Watch(scoring, time)
        ranges = _ranges(scoring.rows, block)
        comparisons = len(ranges) * (1 + sum(len(names) for names in watch.names.values()))
        with bar(scoring.rows, 0, "comparing", shown=progress) as advance:
            found = tuple(watch.block(rows, level / comparisons, advance) for rows in ranges)
        return Drift(level, comparisons, found, tuple(scoring.notes))


def _ranges(rows: int, block: int | None) -> list[range]:
    """Blocks of at least so many rows: what is left over goes with the last one."""
    if block is None or rows < 2 * block:
        found = [range(rows)]
    else:
        starts = range(0, rows - block + 1, block)
        found = [range(a, a + block) for a in starts[:-1]] + [range(starts[-1], rows)]
    if len(found[0]) < LEAST_ROWS:
        raise OptionError(f"drift needs at least {LEAST_ROWS} rows; found {rows}")
    return found


#: kind, and under which name of the reference its usual values stand
_KINDS = {"input": "input", "distortion": "distortion", "latent": "mean", "rate": "kl"}


class _Watch:
    """A reference's means, and blocks of new rows against them."""

    def __init__(self, scoring: Scoring, time: str | None) -> None:
        self.scoring, self.time, self._last = scoring, time, None
        self.usual = scoring.reference.usual
        inputs = flat_names(scoring.data.dataset, scoring.vae.input_shape)
        latents = [str(place) for place in range(scoring.vae.latent_size)]
        self.names = {
            kind: inputs if kind in {"input", "distortion"} else latents
            for kind, name in _KINDS.items()
            if f"{name}_mean" in self.usual
        }

    def block(self, rows: range, level: float, advance: Callable[[int], object]) -> Block:
        """Compare a block's rows with the reference, each comparison at a level."""
        scoring = self.scoring
        seen = {kind: Moments((len(names),)) for kind, names in self.names.items()}
        kept: dict[str, list[np.ndarray]] = {"score": [], "p_value": [], "distortion": []}
        times: list[np.ndarray] = []
        for start in range(rows.start, rows.stop, scoring.batch):
            stop = min(start + scoring.batch, rows.stop)
            told, x, _ = scoring.data.rows(start, stop, scoring.vae)
            found = scoring.scores.watched(x, by_input="distortion" in seen, told=told)
            for kind, moments in seen.items():
                moments.update(found[kind])
            for name, values in kept.items():
                values.append(found[name if name != "distortion" else "whole"])
            advance(stop - start)
            if self.time is not None:
                along = scoring.data.carried(start, stop)
                times.append(grouping(along, self.time, scoring.data.name))
        first, last = self._when(times)
        score = np.concatenate(kept["score"])
        pool = scoring.reference.pool.scores
        distance = ks_statistic(score, pool)
        p_value = ks_p_value(distance, len(score), len(pool))
        moved = [m for kind in seen for m in self._moved(kind, seen[kind], len(pool), level)]
        moved.sort(key=lambda one: -abs(one.shift))
        alarm = bool(moved) or p_value <= level
        quantiles = np.quantile(np.concatenate(kept["p_value"]), [0.05, 0.25, 0.5, 0.75, 0.95])
        return Block(
            rows.start,
            len(rows),
            first,
            last,
            distance,
            p_value,
            tuple(quantiles.tolist()),
            tuple(moved[:_NAMED]),
            alarm,
            self._advice(np.concatenate(kept["distortion"]), len(pool)) if alarm else "",
        )

    def _moved(self, kind: str, seen: Moments, old: int, level: float) -> Iterator[Moved]:
        name = _KINDS[kind]
        before, deviation = self.usual[f"{name}_mean"].ravel(), self.usual[f"{name}_sd"].ravel()
        shift = mean_shift(seen.mean, seen.sd, seen.count, before, deviation, old)
        p_values = normal_p_value(shift)
        for place in np.flatnonzero(p_values <= level).tolist():
            most = math.copysign(min(abs(float(shift[place])), 1e9), float(shift[place]))
            yield Moved(
                kind,
                self.names[kind][place],
                float(before[place]),
                float(seen.mean[place]),
                most,
                float(p_values[place]),
            )

    def _advice(self, distortion: np.ndarray, old: int) -> str:
        """Whether the model still describes the rows: by the distortion as a whole."""
        mean, sd = self.usual["whole_mean"], self.usual["whole_sd"]
        shift = mean_shift(
            np.array([distortion.mean()]),
            np.array([distortion.std(ddof=1)]),
            len(distortion),
            mean.reshape(1),
            sd.reshape(1),
            old,
        )
        risen = shift[0] > 0 and normal_p_value(shift)[0] <= 0.01
        return REFIT_MODEL if risen else REFIT_REFERENCE

    def _when(self, times: Sequence[np.ndarray]) -> tuple[str | None, str | None]:
        """Say when a block begins and ends.

        Returns:
            Times of its first and last row.

        Raises:
            OptionError: when a row came before the one above it.
        """
        if not times:
            return None, None
        every = np.concatenate(times)
        numbers = _as_numbers(every)
        whole = numbers if self._last is None else np.concatenate([[self._last], numbers])
        if (whole[1:] < whole[:-1]).any():
            raise OptionError(
                f"rows of {self.scoring.data.name} are not in the order of '{self.time}'; sort "
                "them by it first"
            )
        self._last = whole[-1]
        return str(every[0]), str(every[-1])


def _as_numbers(times: np.ndarray) -> np.ndarray:
    try:
        found: np.ndarray = times.astype(float)
    except ValueError:
        return times  # text such as 2024-05-01 sorts as it stands
    return found
