"""Write Figures 4 to 6 and 28 from records: norms and residuals of the latents, and courses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe_trainers.common.records import Record, of
from isoprobe_trainers.common.tables import render
from isoprobe_trainers.images.experiments import DIGITS, FACES, USED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

#: mean norm of the used latents as the paper prints it, by objective
PAPER_FACES = {"plain": "1.83", "decomposed": "0.92"}


def used(record: Record) -> NDArray[np.bool_]:
    """Latents with E[sigma^-2] above the paper's threshold, in that order."""
    inverse = np.asarray(record.values["inverse_variance"])
    active: NDArray[np.bool_] = np.asarray(record.values["active"], dtype=bool)
    return active & (inverse > USED)


def digits() -> str:
    """Both models of Figure 28: groups of latents, and every used one."""
    records = of(DIGITS)
    groups = [row for record in records for row in _groups(record)]
    header = ["model", "schedule", "rate", "latents", "number", "E[sigma^-2]", "norm"]
    header += ["norm + sigma^2 - 1: mean", "SD", "range"]
    whole = [
        [
            _name(r),
            f"{r.values['beta']:.4f}",
            f"{r.values['beta_recovered']:.4f}",
            f"{r.values['rate']:.1f}",
            f"{r.values['cosine']:.3f}",
            _ends(r.values.get("eigenvalues")),
        ]
        for r in records
    ]
    names = ["model", "beta", "recovered by stationarity", "rate, nats", "mean abs. cosine"]
    recovered = render([*names, "eigenvalues, mean by rank: ends"], whole)
    return f"{render(header, groups)}\n\n{recovered}"


def faces() -> str:
    """CelebA models side by side, the course of each, and their walks."""
    records = of(FACES)
    rows = []
    for record in records:
        mask = used(record)
        norm, residual = (np.asarray(record.values[k])[mask] for k in ("norm", "residual"))
        printed = PAPER_FACES[record.model.split()[-1]]
        rank = record.values.get("walks_rank")
        rows.append(
            [
                record.model,
                record.schedule,
                str(record.batch),
                f"{record.rate:g}",
                str(mask.sum()),
                f"{norm.mean():.3f} ({norm.std():.3f})",
                printed,
                f"{residual.mean():+.3f} ({residual.std():.3f})",
                f"{record.values['beta_recovered'] / record.values['beta']:.3f}",
                "-" if rank is None else f"{rank:.3f}",
            ]
        )
    header = ["model", "schedule", "batch", "rate", "used latents", "norm (SD over latents)"]
    header += ["norm in the paper", "norm + sigma^2 - 1", "beta recovered / beta", "walks: rank"]
    return "\n\n".join([render(header, rows), *(_course(r) for r in records)])


def _course(record: Record) -> str:
    course: Sequence[dict[str, float]] = record.values["course"]
    lines = [
        [
            f"{point['step']:,}",
            str(point["used"]),
            _number(point["norm"], ".3f"),
            _number(point["residual"], "+.3f"),
            _number(point["beta_ratio"], ".3f"),
            f"{point['rate']:.1f}",
        ]
        for point in course
    ]
    header = [f"{record.model}: iterations", "used latents", "norm", "norm + sigma^2 - 1"]
    return render([*header, "beta recovered / beta", "rate, nats"], lines)


def _groups(record: Record) -> Iterable[list[str]]:
    mask = used(record)
    active = np.asarray(record.values["active"], dtype=bool)
    inverse, norm, residual = (
        np.asarray(record.values[name]) for name in ("inverse_variance", "norm", "residual")
    )
    named = {f"E[sigma^-2] > {USED:g}": mask, "active, below": active & ~mask, "idle": ~active}
    for name, rows in named.items():
        if rows.any():
            yield [
                _name(record),
                record.schedule,
                _rate(record),
                name,
                str(rows.sum()),
                f"{inverse[rows].min():.3g} to {inverse[rows].max():.3g}",
                f"{norm[rows].mean():.3f} ({norm[rows].std():.3f})",
                f"{residual[rows].mean():+.3f}",
                f"{residual[rows].std():.3f}",
                f"{residual[rows].min():+.3f} to {residual[rows].max():+.3f}",
            ]


def _name(record: Record) -> str:
    return f"{record.model}, {_rate(record)}"


def _rate(record: Record) -> str:
    if not record.decay:
        return f"{record.rate:g}"
    return f"{record.rate:g}, to 0 over the last {record.decay:.0%}"


def _ends(values: Sequence[float] | None) -> str:
    return "-" if values is None else f"{max(values):.2f} to {min(values):.2f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
