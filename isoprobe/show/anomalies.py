"""Tell in a summary how well the scores find anomalies, the untrained model beside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

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


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a document of :func:`document` as lines of text for people."""
    for rule, share, threshold, alarms in zip(
        found["rules"], found["share"], found["threshold"], found["false_alarms"], strict=True
    ):
        pool = "reference rows" if rule == "quantile" else "rows"
        yield f"  at most {share:.3g} of the {pool} lie above {threshold:.5g} (by {rule})"
        if alarms is not None:
            yield f"    a new normal row does with a chance of at most {alarms:.3g}"
    if found["trained"] is not None:
        yield f"  {'':28s}    F1  precision  recall  AUROC  average precision"
    for name in ("trained", "untrained"):
        quality = found[name]
        for i, rule in enumerate(found["rules"] if quality is not None else ()):
            yield (
                f"  {f'{name}, by {rule}':28s} {quality['f1'][i]:5.3f}"
                f"  {quality['precision'][i]:9.3f}  {quality['recall'][i]:6.3f}"
                f"  {quality['auroc']:5.3f}  {quality['average_precision']:17.3f}"
            )
    if found["trained"] is not None:
        ties = max(found["trained"]["ties"])
        yield f"  prevalence {found['prevalence']:.3g}; up to {ties} rows tied at a threshold"
    for name, row in (found["by_score"] or {}).items():
        if None in row.values():
            continue  # one anomaly alone has no spread
        yield (
            f"  score {name:14s}  AUROC {row['auroc']:.3f} +- {row['auroc_se']:.3f}  average "
            f"precision {row['average_precision']:.3f} +- {row['average_precision_se']:.3f}"
        )
    if found["notes"]:
        yield f"  {found['notes']}"


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
