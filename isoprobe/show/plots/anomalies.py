"""Draw anomaly scores: their histogram, the threshold, and what it buys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import ResultError
from isoprobe.show.plots.style import BLUE, GREY, INK, RED, legend_above, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoprobe.results.reader import Result


def score_histogram(
    scores: np.ndarray,
    ax: Axes,
    *,
    labels: np.ndarray | None = None,
    threshold: float | None = None,
    x_label: str = r"anomaly score $L_x$",
) -> None:
    """Draw the histogram of the scores, normals and anomalies apart where labels tell.

    Args:
        scores: one a sample, ``(N,)``; the higher the odder.
        ax: to draw on.
        labels: True for anomalies, ``(N,)``.
        threshold: scores above are flagged.
        x_label: of the horizontal axis.
    """
    scores = np.asarray(scores, dtype=float)
    finite = np.isfinite(scores)
    low, high = np.quantile(scores[finite], [0, 1]) if finite.any() else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    logarithmic = bool(low > 0 and high / low > 50)
    spaced = np.geomspace if logarithmic else np.linspace
    edges: list[float] = spaced(low, high, 61).tolist()
    if labels is None:
        ax.hist(scores[finite], edges, color=BLUE, alpha=0.85)
    else:
        odd = np.asarray(labels, dtype=bool)
        ax.hist(scores[finite & ~odd], edges, color=BLUE, alpha=0.85, label="normal")
        ax.hist(
            scores[finite & odd],
            edges,
            histtype="step",
            hatch="////",
            color=RED,
            lw=1.2,
            label="anomalous",
        )
    if threshold is not None:
        ax.axvline(threshold, color=INK, ls="--", lw=1, label="threshold")
    if logarithmic:
        ax.set_xscale("log")
    if finite.any():
        ax.set_yscale("log")
    ax.set_xlabel(x_label)
    ax.set_ylabel("samples")
    legend_above(ax)


def anomaly_scores(result: Result, ax: Axes) -> None:
    """Draw the scores of a result with its threshold (Section 5.3).

    Args:
        result: with ``anomaly``.
        ax: to draw on.
    """
    scores, labels = _scored(result)
    label = r"anomaly score $L_x$" + unit("metric", str(result.attrs.get("metric")))
    threshold = float(result["anomaly"]["threshold"].values[-1])
    score_histogram(scores, ax, labels=labels, threshold=threshold, x_label=label)


def anomaly_roc(result: Result, ax: Axes) -> None:
    """Draw the ROC curve of a result whose rows are labelled (see :func:`roc`).

    Args:
        result: with ``anomaly`` on labelled data.
        ax: to draw on.
    """
    roc(*_labelled(result), ax)


def anomaly_precision_recall(result: Result, ax: Axes) -> None:
    """Draw precision and recall of a result whose rows are labelled.

    Args:
        result: with ``anomaly`` on labelled data.
        ax: to draw on.
    """
    precision_recall(*_labelled(result), ax)


def roc(scores: np.ndarray, labels: np.ndarray, ax: Axes) -> None:
    """Draw the share of anomalies found against the share of normals flagged.

    Args:
        scores: one a sample, ``(N,)``; the higher the odder.
        labels: True for anomalies, ``(N,)``.
        ax: to draw on.
    """
    found, false, _ = _counts(scores, labels)
    rate_found, rate_false = found / max(found[-1], 1), false / max(false[-1], 1)
    # by trapezoids, whose function has another name before numpy 2
    area = float(np.diff(rate_false) @ (rate_found[1:] + rate_found[:-1])) / 2
    ax.plot(rate_false, rate_found, color=BLUE, label=f"area {area:.3f}")
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="chance 0.5")
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate")
    ax.set_aspect("equal")
    legend_above(ax)


def precision_recall(scores: np.ndarray, labels: np.ndarray, ax: Axes) -> None:
    """Draw precision against recall, with the prevalence that chance would reach.

    Args:
        scores: one a sample, ``(N,)``; the higher the odder.
        labels: True for anomalies, ``(N,)``.
        ax: to draw on.
    """
    found, false, _ = _counts(scores, labels)
    recall = found / max(found[-1], 1)
    precision = found[1:] / (found[1:] + false[1:])
    average = float((np.diff(recall) * precision).sum())
    prevalence = float(np.mean(labels))
    ax.step(recall[1:], precision, where="pre", color=BLUE, label=f"average {average:.3f}")
    ax.axhline(prevalence, color=GREY, ls="--", lw=1, label=f"prevalence {prevalence:.3f}")
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.05)
    ax.set_xlabel("recall")
    ax.set_ylabel("precision")
    legend_above(ax)


def _scored(result: Result) -> tuple[np.ndarray, np.ndarray | None]:
    """Return scores, and marks of anomalies where there are some."""
    marked = "auroc" in result["anomaly"]
    rows = result.samples(names=["score", *(["anomalous"] if marked else [])])
    return rows["score"], rows["anomalous"].astype(bool) if marked else None


def _labelled(result: Result) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = _scored(result)
    if labels is None:
        raise ResultError(f"{result.path} has no labels that tell anomalies from normal rows")
    return scores, labels


def _counts(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true and false positives at every distinct threshold, from none flagged to all."""
    scores, odd = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    order = np.argsort(-scores, kind="stable")
    # samples of equal score are flagged together
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.concatenate([[0], np.cumsum(odd[order])[last]])
    false = np.concatenate([[0], np.cumsum(~odd[order])[last]])
    return found, false, scores[order][last]
