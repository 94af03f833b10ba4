"""Write text tables: aligned in a terminal, and Markdown as they stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isoprobe_trainers.common.paper import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from isoprobe_trainers.toy.measure import Measurement

Cells = "Sequence[str]"


def render(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    table.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True))} |" for row in table
    )


def compare(place: str, by_seed: Callable[[str], Sequence[Sequence[float]]], slack: float) -> str:
    """Return ours beside the paper's, row by row, from models that differ in their seed alone.

    Args:
        place: table or figure of the paper.
        by_seed: from a quantity to its values by latent, for each model of one condition.
        slack: factor on the tolerances; 2 for the quick schedule.

    Returns:
        The table.
    """
    rows = []
    for row in rows_of(place):
        columns = list(zip(*by_seed(row.quantity), strict=True))
        ours = [sum(column) / len(column) for column in columns]
        ranges = [max(column) - min(column) for column in columns]
        verdict = row.reproduced(ours, slack)
        rows.append(
            [
                row.row,
                numbers(row.values),
                numbers(ours),
                numbers(ranges) if len(columns[0]) > 1 else "-",
                numbers(row.deviations(ours)),
                numbers([_percent(o, p) for o, p in zip(ours, row.values, strict=True)]),
                {True: "yes", False: "NO", None: "-"}[verdict],
            ]
        )
    header = [place, "paper", "ours", "range over seeds", "diff / paper's SD", "diff %", "within"]
    return render(header, rows)


def beyond(models: Sequence[Measurement], variances: Sequence[float]) -> str:
    """Return what the paper leaves out: residuals, exact and rough variances, beta recovered.

    Args:
        models: of one condition.
        variances: true variance of s_1, s_2, ...

    Returns:
        The table, averaged over the models.
    """
    latents = range(len(models[0].norm_mean))
    rows = []
    for j in latents:
        true = variances[j] if j < len(variances) else math.nan
        exact, rough = (_mean(getattr(m, q)[j] for m in models) for q in ("exact", "rough"))
        rows.append(
            [
                f"z_{j + 1}",
                f"{_mean(m.norm_mean[j] for m in models):.4f}",
                f"{_mean(m.residual[j] for m in models):+.4f}",
                _number(true),
                f"{exact:.4f} ({_signed(_percent(exact, true))})",
                f"{rough:.4f} ({_signed(_percent(rough, true))})",
            ]
        )
    header = ["latent", "norm", "norm + sigma^2 - 1", "Var(s)", "Var(y) exact", "Var(y) rough"]
    beta = _mean(m.beta_recovered for m in models)
    ratio = _mean(m.loss_ratio for m in models)
    coding = _mean(m.coding_loss for m in models)
    return (
        f"{render(header, rows)}\n\nbeta recovered by stationarity {beta:.5f} (trained with "
        f"{models[0].member.beta:g}); coding loss {coding:.5f}, transform / coding {ratio:.4f}"
    )


def _mean(values: Iterable[float]) -> float:
    collected = [float(v) for v in values]
    return sum(collected) / len(collected)


def _percent(ours: float, paper: float) -> float:
    return 100 * (ours - paper) / paper if paper else math.nan


def _signed(percent: float) -> str:
    return "-" if math.isnan(percent) else f"{percent:+.1f} %"


def numbers(values: Iterable[float]) -> str:
    """Return values with three decimals, or four digits from 10 on, apart by spaces."""
    return " ".join(_number(v) for v in values)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
