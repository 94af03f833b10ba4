"""How well scores tell anomalies from the rest, and where to draw the line; numpy alone.

A row is flagged when its score lies strictly above a threshold, so rows tied with it are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isoprobe.theory.stated import stated

#: a share of rows that misses a whole number by this much is rounding
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Detection:
    """What a threshold finds.

    Attributes:
        precision: share of the flagged rows that are anomalies; 0 when none is flagged.
        recall: share of the anomalies that are flagged.
        f1: harmonic mean of the two, 0 when both are.
        flagged: number of rows above the threshold.
        ties: number of rows that lie at the threshold, which are not flagged.
    """

    precision: float
    recall: float
    f1: float
    flagged: int
    ties: int


@stated("Anomaly score")
def upper_threshold(ordered: np.ndarray, share: float) -> float:
    """Return the least of the scores with at most a share of them above it.

    Args:
        ordered: scores in ascending order, ``(N,)``, at least one.
        share: between 0 and 1, both excluded.

    Returns:
        One of the scores: an empirical quantile at level 1 - share, not interpolated.
    """
    above = math.floor(share * len(ordered) + _ROUNDING)
    return float(ordered[len(ordered) - 1 - above])


@stated("Anomaly score")
def conformal_p_values(scores: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Return the share of reference scores, the row itself counted, that reach each score.

    For a new row exchangeable with the reference rows, P(p <= alpha) <= alpha for every alpha,
    whatever the distribution (Vovk, Gammerman and Shafer 2005).

    Args:
        scores: of new rows, ``(B,)``.
        ordered: scores of reference rows the model was not trained on, ascending, ``(N,)``.

    Returns:
        ``(1 + #{reference >= score}) / (N + 1)``, ``(B,)``.
    """
    reached = len(ordered) - np.searchsorted(ordered, scores, side="left")
    p_values: np.ndarray = (1 + reached) / (len(ordered) + 1)
    return p_values


@stated("Anomaly score")
def detect(scores: np.ndarray, anomalous: np.ndarray, threshold: float) -> Detection:
    """Compare what lies above a threshold with what is an anomaly.

    Args:
        scores: ``(N,)``.
        anomalous: ``(N,)`` bool, at least one of them true.
        threshold: rows above it are flagged.

    Returns:
        Precision, recall and F1, with the rows flagged and tied.
    """
    flagged = scores > threshold
    hits = int((flagged & anomalous).sum())
    count, anomalies = int(flagged.sum()), int(anomalous.sum())
    return Detection(
        precision=hits / count if count else 0.0,
        recall=hits / anomalies,
        f1=2 * hits / (count + anomalies),
        flagged=count,
        ties=int((scores == threshold).sum()),
    )


@stated("Anomaly score")
def auroc(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """Probability that an anomaly scores above a normal row, a tie counting half.

    Args:
        scores: ``(N,)``.
        anomalous: ``(N,)`` bool, with both kinds in it.

    Returns:
        Area under the ROC curve, by the Mann-Whitney statistic.
    """
    normal = np.sort(scores[~anomalous])
    below = np.searchsorted(normal, scores[anomalous], side="left")
    reached = np.searchsorted(normal, scores[anomalous], side="right")
    return float((below + reached).mean() / (2 * len(normal)))


@stated("Anomaly score")
def average_precision(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """Precision averaged over the steps of recall, rows of equal score taken in together.

    Args:
        scores: ``(N,)``.
        anomalous: ``(N,)`` bool, at least one of them true.

    Returns:
        Sum over distinct scores, from the highest down, of precision times the gain in recall.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits = np.cumsum(anomalous[order])[last_of_ties]
    precision = hits / (last_of_ties + 1)
    return float((precision * np.diff(hits, prepend=0)).sum() / hits[-1])
