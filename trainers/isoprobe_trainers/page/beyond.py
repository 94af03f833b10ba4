"""Write what norms leave open: is a model isometric by eigenvalues, and at a distance?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe_trainers.common.records import Record, records
from isoprobe_trainers.common.tables import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def table() -> str:
    """A row for each model whose record says more than its norms."""
    rows = [_row(record) for record in records().values() if "isometric" in record.values]
    header = [
        "model",
        "seeds",
        "used",
        "eigenvalues",
        "1 - E[sigma^2]",
        "distance in y over d, median",
    ]
    header += ["95 %", "straight y-lines longer by", "correlation with d: y, z, chord"]
    return render(header, rows)


def _row(record: Record) -> list[str]:
    seeds = record.values["isometric"]
    return [
        record.model,
        str(len(seeds)),
        ", ".join(sorted({str(len(seed["eigenvalues"])) for seed in seeds})),
        _ends([seed["eigenvalues"] for seed in seeds]),
        _ends([seed["expected"] for seed in seeds]),
        *(_distances(seeds) if all(seed["pairs"] for seed in seeds) else ["-"] * 4),
    ]


def _distances(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    distance = np.array([seed["distance"] for seed in seeds])
    excess = np.array([seed["excess"] for seed in seeds])
    correlation = np.array([seed["correlation"] for seed in seeds]).mean(axis=0)
    return [
        ", ".join(f"{value:.3f}" for value in distance[:, 0]),
        f"{distance[:, 1].min():.3f} to {distance[:, 2].max():.3f}",
        f"{excess.mean():.2%}",
        ", ".join(f"{value:.2f}" for value in correlation),
    ]


def _ends(seeds: Sequence[Sequence[float]]) -> str:
    """Largest and smallest, each averaged over seeds."""
    largest, smallest = (np.mean([end(seed) for seed in seeds]) for end in (max, min))
    return f"{largest:.3f} to {smallest:.3f}"
