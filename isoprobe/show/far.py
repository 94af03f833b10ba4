"""Compare models by distances between the same pairs of samples.

Coordinates are no property of data: two trainings choose others. Distances along the decoded
surface are, so they should agree where coordinates need not (Syrota et al. 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.show.shown import said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isoprobe.results.reader import Result

#: what is compared, with its name for people
KINDS = {"geodesic": "shortest path d", "distance_y": "|dy|", "distance_z": "|dz|"}
#: correlations of fewer pairs say nothing
_FEWEST = 3


@dataclass(frozen=True)
class Distances:
    """How distances of the same pairs agree between models.

    Attributes:
        models: names, K of them.
        pairs: number of pairs.
        correlations: matrix ``(K, K)`` of each of :data:`KINDS`; None where it is undefined.
        says: what it means, or why there is nothing to compare.
    """

    models: tuple[str, ...]
    pairs: int
    correlations: dict[str, tuple[tuple[float | None, ...], ...]]
    says: str


def compare_distances(results: Sequence[Result], names: Sequence[str]) -> Distances | None:
    """Correlate distances between models that have measured the same pairs.

    Args:
        results: compared.
        names: of their models.

    Returns:
        The correlations; None where fewer than two results have the analysis ``geometry``.
    """
    holding = [
        (result, name)
        for result, name in zip(results, names, strict=True)
        if "geometry" in result and "pair_rows" in result["geometry"]
    ]
    if len(holding) < 2:
        return None
    models = tuple(name for _, name in holding)
    first = holding[0][0]
    pairs = first["geometry"]["pair_rows"].values
    for other, name in holding[1:]:
        seen = first.attrs.get("data_fingerprint") == other.attrs.get("data_fingerprint")
        if not seen or not np.array_equal(other["geometry"]["pair_rows"].values, pairs):
            return Distances(models, 0, {}, _refusal(models[0], name))
    if len(pairs) < _FEWEST:
        return Distances(models, len(pairs), {}, f"{len(pairs)} pairs are too few to correlate.")
    found = {
        kind: _correlations([result["geometry"][kind].values for result, _ in holding])
        for kind in KINDS
    }
    return Distances(models, len(pairs), found, _meaning(found))


def distance_rows(distances: Distances, kind: str) -> list[list[str]]:
    """Return the matrix of one kind of distance in words, with a heading row and column."""
    heading = [KINDS[kind], *distances.models]
    return [
        heading,
        *(
            [name, *(said(value, ".2f") for value in row)]
            for name, row in zip(distances.models, distances.correlations[kind], strict=True)
        ),
    ]


def _correlations(columns: list[np.ndarray]) -> tuple[tuple[float | None, ...], ...]:
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.corrcoef(np.stack(columns))
    return tuple(
        tuple(float(value) if np.isfinite(value) else None for value in row) for row in matrix
    )


def _meaning(found: dict[str, tuple[tuple[float | None, ...], ...]]) -> str:
    least = {kind: min(_off_diagonal(matrix), default=None) for kind, matrix in found.items()}
    words = ", ".join(
        f"{name} {said(least[kind], '.2f')}"
        for kind, name in KINDS.items()
        if least[kind] is not None
    )
    return f"Least correlation between two models: {words}." if words else "Nothing varies."


def _off_diagonal(matrix: tuple[tuple[float | None, ...], ...]) -> Iterator[float]:
    for i, row in enumerate(matrix):
        yield from (value for value in row[:i] if value is not None)


def _refusal(first: str, other: str) -> str:
    return (
        f"{first} and {other} have measured other pairs: distances are compared on the same ones. "
        "Analyze both with the same --data, --samples, --seed and geometry:pairs."
    )
