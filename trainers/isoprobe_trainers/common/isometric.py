"""Measure whether a trained model is isometric by eigenvalues, and between samples far apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import isoprobe
from isoprobe_trainers.common.records import rounded

if TYPE_CHECKING:
    from pathlib import Path

    from isoprobe.results.reader import Result

#: samples whose eigenvalues are averaged, and pairs between which distances are taken
SAMPLES, PAIRS = 1000, 60


def isometric(
    checkpoint: Path, samples: int = SAMPLES, *, pairs: int = PAIRS, data: object = None
) -> dict[str, Any]:
    """Look past the norms of a model: at mixtures of its latents, and at distances.

    Args:
        checkpoint: native checkpoint.
        samples: at most this many.
        pairs: between which shortest paths are sought; none for 0.
        data: what to analyse; None for the checkpoint's own training data.

    Returns:
        What a record's ``isometric`` holds for a seed: ``eigenvalues`` of (2/beta) S^(1/2) J'GJ
        S^(1/2) over the used latents, mean by rank; ``expected``, 1 - E[sigma^2], which they are
        where the embedding is isometric; ``distance``, the median of |dy| / d over pairs with
        its 95 % interval; ``excess``, how much longer straight lines in y are than shortest paths;
        ``correlation`` of y, z and chord with d; ``pairs`` and ``samples``.
    """
    analyses = ["isometry", "conditions", *([f"geometry:pairs={pairs}"] if pairs else [])]
    with isoprobe.analyze(checkpoint, data=data, analyses=analyses, samples=samples) as result:
        return {**_rank(result), **(_distances(result) if pairs else {}), "pairs": pairs}


def _rank(result: Result) -> dict[str, Any]:
    conditions = result["conditions"]
    used = int(np.isfinite(result["isometry"]["beta_recovered"].values).sum())
    return {
        "eigenvalues": rounded(conditions["eigenvalue"].values[:used].tolist()),
        "expected": rounded(conditions["eigenvalue_expected"].values[:used].tolist()),
        "samples": int(result.sizes["sample"]),
    }


def _distances(result: Result) -> dict[str, Any]:
    geometry = result["geometry"]
    ends = [float(geometry[f"global_isometry{end}"].values) for end in ("", "_low", "_high")]
    names = ("y", "z", "chord")
    return {
        "distance": rounded(ends),
        "excess": rounded([float(geometry["excess_y"].values)])[0],
        "correlation": rounded([float(geometry[f"correlation_{name}"].values) for name in names]),
    }
