"""Tell in a summary how well the scores find anomalies, the untrained model beside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.show.terminal import paragraph, table

if TYPE_CHECKING:
    from isoprobe.show.shown import Shelf

GROUP = "anomaly"
_BY_RULE = ("threshold", "precision", "recall", "f1", "flagged", "ties")
_OVERALL = ("auroc", "average_precision")


def document(group: Shelf) -> dict[str, Any]:
    """Put the analysis ``anomaly`` into plain values.

    Args:
        group: its named arrays.

    Returns:
        Reference rows, thresholds by rule, and where rows were labelled ``trained`` quality and
        the ``untrained`` network's; ``None`` for what there is not.
    """
    rules = [str(rule) for rule in group["rule"].values]
    return {
        "reference_rows": len(group["reference"].values),
        "rules": rules,
        "share": group["share"].values.tolist(),
        "false_alarms": _false_alarms(group),
        "threshold": group["threshold"].values.tolist(),
        "prevalence": float(group["prevalence"].values) if "prevalence" in group else None,
        "trained": _quality(group, ""),
        "untrained": _quality(group, "untrained_"),
        "by_score": _by_score(group),
        "notes": str(group["notes"].values) if "notes" in group else None,
    }


def lines(found: Mapping[str, Any], width: int = 80) -> Iterator[str]:
    """Yield a document of :func:`document` as lines of text for people.

    Args:
        found: the document.
        width: columns of the terminal.

    Yields:
        A line or, filled, a few.
    """
    for rule, share, threshold, alarms in zip(
        found["rules"], found["share"], found["threshold"], found["false_alarms"], strict=True
    ):
        pool = "reference rows" if rule == "quantile" else "rows"
        said = f"at most {share:.3g} of the {pool} lie above {threshold:.5g} (by {rule})"
        yield paragraph(said, width, "  ", "    ")
        if alarms is not None:
            said = f"a new normal row does with a chance of at most {alarms:.3g}"
            yield paragraph(said, width, "    ", "      ")
    if found["trained"] is not None:
        yield from table(_qualities(found), width, indent="  ")
        ties = max(found["trained"]["ties"])
        said = f"prevalence {found['prevalence']:.3g}; up to {ties} rows tied at a threshold"
        yield paragraph(said, width, "  ", "    ")
    # one anomaly alone has no deviation
    by_score = {n: row for n, row in (found["by_score"] or {}).items() if None not in row.values()}
    if by_score:
        rows = [["score", "AUROC", "average precision"]] + [
            [name, *(f"{row[of]:.3f} +- {row[f'{of}_se']:.3f}" for of in _OVERALL)]
            for name, row in by_score.items()
        ]
        yield from table(rows, width, indent="  ")
    if found["notes"]:
        yield paragraph(found["notes"], width, "  ", "  ")


def _qualities(found: Mapping[str, Any]) -> list[list[str]]:
    """A row for each rule of the trained network, and of the untrained one where there is."""
    rows = [["", "F1", "precision", "recall", "AUROC", "avg. precision"]]
    for name in ("trained", "untrained"):
        of = found[name]
        for i, rule in enumerate(found["rules"] if of is not None else ()):
            figures = (*(of[key][i] for key in ("f1", "precision", "recall")),
                       *(of[key] for key in _OVERALL))  # fmt: skip
            rows.append([f"{name}, by {rule}", *(f"{figure:.3f}" for figure in figures)])
    return rows


def _false_alarms(group: Shelf) -> list[float | None]:
    """Rates by rule; None where none is known, as in results of former versions."""
    if "false_alarms" not in group:
        return [None] * len(group["rule"].values)
    rates = group["false_alarms"].values.tolist()
    return [None if math.isnan(rate) else rate for rate in rates]


def _quality(group: Shelf, prefix: str) -> dict[str, Any] | None:
    if f"{prefix}auroc" not in group:
        return None
    by_rule = {name: group[f"{prefix}{name}"].values.tolist() for name in _BY_RULE}
    return by_rule | {name: float(group[f"{prefix}{name}"].values) for name in _OVERALL}


def _by_score(group: Shelf) -> dict[str, dict[str, float | None]] | None:
    """Quality of each score by its name, with standard errors."""
    if "by_score" not in group:
        return None
    figures = ("auroc", "auroc_se", "average_precision", "average_precision_se")
    columns = {name: group[f"by_score_{name}"].values.tolist() for name in figures}
    return {
        str(score): {
            name: None if math.isnan(values[place]) else values[place]
            for name, values in columns.items()
        }
        for place, score in enumerate(group["by_score"].values)
    }
