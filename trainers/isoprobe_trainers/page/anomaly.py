"""Write Tables 3 and 6 from records: figures, distance from the paper, tests on pairs, courses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from isoprobe_trainers.anomaly.experiments import EXPERIMENT
from isoprobe_trainers.anomaly.quality import cited_rows
from isoprobe_trainers.common.records import Record, column, of
from isoprobe_trainers.common.tables import render
from isoprobe_trainers.page.paired import paired

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from isoprobe_trainers.anomaly.quality import CitedRow

DATA = {
    "kddcup99": "KDDCup99",
    "thyroid": "Thyroid",
    "arrhythmia": "Arrhythmia",
    "kddcup-rev": "KDDCup-rev",
}
#: splits the paper averages over
PAPER_SEEDS = 20
_FIGURES = ("precision", "recall", "f1")
_BESIDE = ("auroc", "average_precision")
_VAE = "VAE"


def tables() -> str:
    """Every data set: ours and the published rows, then the VAE against the others by pairs."""
    return "\n\n".join([_verdict(), *(_section(data, title) for data, title in DATA.items())])


def _verdict() -> str:
    """Where the VAE reaches the paper's mean F1, by two measures of near."""
    by_error: list[str] = []
    by_deviation: list[str] = []
    far: list[str] = []
    for data, title in DATA.items():
        for record in (r for r in of(EXPERIMENT, data) if r.model.startswith(_VAE)):
            apart = distance(record)
            if apart is None:
                continue
            name = title + record.model.removeprefix(_VAE).replace(", ", " at ", 1)
            kind = by_error if apart[1] >= -1 else by_deviation if apart[0] >= -1 else far
            kind.append(name)
    return (
        f"The VAE's mean F1 is above the paper's or within a standard error of it on: "
        f"{', '.join(by_error) or 'none'}; lower by more, but within one standard deviation, on: "
        f"{', '.join(by_deviation) or 'none'}; further below on: {', '.join(far) or 'none'}."
    )


def distance(record: Record) -> tuple[float, float] | None:
    """How far a mean F1 lies from the paper's for the same method.

    Args:
        record: of a method on a data set.

    Returns:
        The difference over the paper's standard deviation, and over the standard error of the
        difference; None where the paper has no such row or prints no deviation.
    """
    method = record.model.partition(",")[0]
    cited = [r for r in cited_rows() if (r.data, r.method) == (record.data, method)]
    if not cited or cited[0].f1[1] is None:
        return None
    mean, deviation = cited[0].f1[0], cited[0].f1[1]
    ours = column(record, "f1")
    difference = float(np.mean(ours)) - mean
    error = math.hypot(deviation / math.sqrt(PAPER_SEEDS), _sd(ours) / math.sqrt(len(ours)))
    return difference / deviation, difference / error


def _section(data: str, title: str) -> str:
    ours = sorted(of(EXPERIMENT, data), key=lambda r: (r.model != _VAE, r.model))
    cited = [_cited(row) for row in cited_rows() if row.data == data]
    header = [title, "precision", "recall", "F1", "AUROC", "average precision", "seeds"]
    header += ["schedule", "F1 - paper: in SD", "in SE"]
    rows = [*(_ours(record) for record in ours), *cited]
    parts = [f"### {title}", render(header, rows), _pairs(ours), _course(ours)]
    return "\n\n".join(part for part in parts if part)


def _ours(record: Record) -> list[str]:
    means = [_mean_and_sd(column(record, name)) for name in (*_FIGURES, *_BESIDE)]
    apart = distance(record)
    far = ["-", "-"] if apart is None else [f"{value:+.1f}" for value in apart]
    return [record.model, *means, str(len(record.seeds)), record.schedule, *far]


def _cited(row: CitedRow) -> list[str]:
    figures = []
    for name in _FIGURES:
        mean, deviation = getattr(row, name)
        figures.append(f"{mean:.4f}" + ("" if deviation is None else f" ({deviation:.4f})"))
    return [f"{row.method} (cited)", *figures, "-", "-", str(PAPER_SEEDS), "-", "-", "-"]


def _pairs(ours: Sequence[Record]) -> str:
    rows = []
    for own in (r for r in ours if r.model.startswith(_VAE)):
        for other in (r for r in ours if not r.model.startswith(_VAE)):
            common = sorted(set(own.seeds) & set(other.seeds))
            first, second = (
                [column(r, "f1")[r.seeds.index(seed)] for seed in common] for r in (own, other)
            )
            test = paired(first, second)
            cells = [f"{test.mean:+.4f} ({test.error:.4f})", f"{test.p_value:.2g}"]
            rows.append([f"{own.model} - {other.model}", str(test.count), *cells])
    header = ["difference of F1 on the same splits", "pairs", "mean (standard error)", "p"]
    return render(header, rows)


def _course(ours: Sequence[Record]) -> str:
    """The rule's own quantity at each tenth, and F1 there where it was measured."""
    rows: list[list[str]] = []
    for record in (r for r in ours if "held_out" in r.values):
        held = np.mean(record.values["held_out"], axis=0)
        rows.append([f"{record.model}: held-out objective", *_padded(f"{v:.1f}" for v in held)])
        if "tenths_f1" in record.values:
            found = np.mean(record.values["tenths_f1"], axis=0)
            count = len(record.values["tenths_f1"])
            name = f"{record.model}: mean F1 of {count} seeds"
            rows.append([name, *_padded(f"{v:.3f}" for v in found)])
    return render(["at each tenth of the schedule", *map(str, range(1, 11))], rows) if rows else ""


def _padded(cells: Iterable[str]) -> list[str]:
    found = list(cells)
    return [*found, *["-"] * (10 - len(found))]


def _mean_and_sd(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f} ({_sd(values):.4f})"


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))
