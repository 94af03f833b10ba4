"""Match the latents of one model with those of another, by common samples.

Numbers of latents mean nothing between trainings, and neither do signs. Two latents are the same
when their isometric coordinates rise and fall together over the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoprobe.results.reader import Result

#: absolute correlation from which two latents count as the same
SAME = 0.5
_ROWS = 8192


@dataclass(frozen=True)
class Matching:
    """Latents of a reference and of another model, as pairs.

    Attributes:
        column: the per-sample column compared: ``y``, or ``mean`` where there is no ``y``.
        reference: active latents of the reference, most important first, ``(R,)``.
        other: active latents of the other model, most important first, ``(O,)``.
        correlations: of every pair, ``(R, O)``.
        pairs: places in ``reference`` and ``other``, in the order of ``reference``.
        explained: share of each reference latent's variance that a linear map of all of the
            other's latents gives, ``(R,)``: near 1 where it is rotated rather than lost.
    """

    column: str
    reference: np.ndarray
    other: np.ndarray
    correlations: np.ndarray
    pairs: tuple[tuple[int, int], ...]
    explained: np.ndarray

    def unmatched_reference(self) -> np.ndarray:
        """Return the reference's active latents without a counterpart."""
        return np.delete(self.reference, [i for i, _ in self.pairs])

    def unmatched_other(self) -> np.ndarray:
        """Return the other model's active latents without a counterpart."""
        return np.delete(self.other, [j for _, j in self.pairs])


def match(reference: Result, other: Result) -> Matching:
    """Match the active latents of two models by their samples.

    Where one has more samples than the other, as many as are enough for each, those of the shorter
    run are the first ones of the longer.

    Args:
        reference: the model to compare with.
        other: the model to compare; it has seen the same data.

    Returns:
        The matching.

    Raises:
        ResultError: if neither has seen the samples of the other.
    """
    differs = reference.attrs.get("data_fingerprint") != other.attrs.get("data_fingerprint")
    name = "data_fingerprint" if differs else "samples"
    for result in (reference, other):
        if "samples" not in result and not differs:
            raise ResultError(f"{result.path.name} was made with --no-rows: it has no samples")
    if differs or not _begin_alike(reference, other):
        raise ResultError(
            f"{reference.path.name} and {other.path.name} differ in {name}: latents can be"
            " matched on common samples only. Analyze both with the same --data and --samples"
        )
    count = min(reference.sizes["sample"], other.sizes["sample"])
    both = (reference["samples"], other["samples"])
    column = "y" if all("y" in columns for columns in both) else "mean"
    ours, theirs = active_by_importance(reference), active_by_importance(other)
    moments = _moments(_rows(reference, column, ours, count), _rows(other, column, theirs, count))
    correlations, explained = _agreement(moments, len(ours))
    pairs = strongest_pairs(np.abs(correlations), SAME)
    return Matching(column, ours, theirs, correlations, pairs, explained)


def active_by_importance(result: Result) -> np.ndarray:
    """Return the numbers of the active latents, most important first."""
    active = result["overview"]["active"].values
    if "importance" in result:
        order = result["importance"]["order"].values
    else:
        order = np.argsort(-result["overview"]["kl_mean"].values, kind="stable")
    chosen: np.ndarray = order[active[order]]
    return chosen


def strongest_pairs(strength: np.ndarray, least: float) -> tuple[tuple[int, int], ...]:
    """Pair rows with columns, the strongest pair first, each once.

    Args:
        strength: of every pair, ``(R, O)``.
        least: pairs below are left out.

    Returns:
        Row and column of each pair, by row.
    """
    pairs: list[tuple[int, int]] = []
    rows, columns = set(range(strength.shape[0])), set(range(strength.shape[1]))
    for flat in np.argsort(-strength, axis=None, kind="stable"):
        row, column = divmod(int(flat), strength.shape[1])
        if strength[row, column] < least:
            break
        if row in rows and column in columns:
            pairs.append((row, column))
            rows.remove(row)
            columns.remove(column)
    return tuple(sorted(pairs))


def _begin_alike(reference: Result, other: Result) -> bool:
    """Whether the samples of one are those of the other, or its first ones."""
    if reference.attrs.get("samples") == other.attrs.get("samples"):
        return True
    both = (reference, other)
    if not all("row" in result["samples"] for result in both):
        return False
    count = min(result.sizes["sample"] for result in both)
    ours, theirs = (result.samples(0, count, ["row"])["row"] for result in both)
    return bool(np.array_equal(ours, theirs))


def _rows(result: Result, column: str, latents: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, _ROWS):
        stop = min(start + _ROWS, count)
        yield result.samples(start, stop, [column])[column][:, latents].astype(float)


def _moments(ours: Iterator[np.ndarray], theirs: Iterator[np.ndarray]) -> np.ndarray:
    """Return the covariance of both models' columns side by side, in one pass."""
    count, mean, products = 0, np.zeros(0), np.zeros((0, 0))
    for mine, other in zip(ours, theirs, strict=True):
        rows = np.hstack([mine, other])
        own = rows.mean(axis=0)
        if not count:
            mean, products = np.zeros(len(own)), np.zeros((len(own), len(own)))
        # Chan, Golub and LeVeque's merge: no cancellation, whatever the means
        shift, total = own - mean, count + len(rows)
        products += (rows - own).T @ (rows - own)
        products += np.outer(shift, shift) * (count * len(rows) / total)
        mean, count = mean + shift * (len(rows) / total), total
    return products / max(count, 1)


def _agreement(covariance: np.ndarray, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Return correlations across the split, and what the right side explains of the left."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    correlation = covariance / np.outer(scale, scale)
    cross, right = correlation[:split, split:], correlation[split:, split:]
    explained = np.einsum("ij,jk,ik->i", cross, np.linalg.pinv(right, hermitian=True), cross)
    return cross, explained.clip(0, 1)
