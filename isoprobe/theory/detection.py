"""Tell how well scores find anomalies, and where to draw the line; numpy alone.

A row is flagged when its score lies strictly above a threshold, so rows tied with it are not. Equal
rows may differ by rounding, since sums are taken in another order in another batch: scores that
lie within :func:`tie_tolerance` of each other are tied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from isoprobe.theory.stated import stated

#: a share of rows that misses a whole number by this much is rounding
_ROUNDING = 1e-9
#: share of a score's parts in absolute values by which rounding may move it
TIE = 1e-6


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
def tie_tolerance(
    distortion: np.ndarray, rate: np.ndarray, transform: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return what scores of equal rows may differ by through rounding.

    Args:
        distortion: part of each score, ``(B,)``.
        rate: beta KL_j, ``(B, n)``.
        transform: part of the decomposed loss, ``(B,)``; 0 without.

    Returns:
        :data:`TIE` of the parts' sum in absolute values, ``(B,)``.
    """
    size: np.ndarray = np.abs(distortion) + np.abs(transform) + np.abs(rate).sum(axis=1)
    return TIE * size


@stated("Anomaly score")
def false_alarm_rate(count: int, share: float) -> float:
    """Chance at most that a new normal row lies above :func:`upper_threshold` of reference rows.

    Args:
        count: reference rows n.
        share: as given for the threshold.

    Returns:
        (floor(share n) + 1) / (n + 1), which a row exchangeable with the reference reaches.
    """
    return (math.floor(share * count + _ROUNDING) + 1) / (count + 1)


@stated("Anomaly score")
def conformal_p_values(
    scores: np.ndarray, ordered: np.ndarray, tolerance: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return the share of reference scores, the row itself counted, that reach each score.

    For a new row exchangeable with the reference rows, P(p <= alpha) <= alpha for every alpha,
    whatever the distribution (Vovk, Gammerman and Shafer 2005).

    Args:
        scores: of new rows, ``(B,)``.
        ordered: scores of reference rows the model was not trained on, ascending, ``(N,)``.
        tolerance: of each new row; reference rows tied with it count as reaching it.

    Returns:
        ``(1 + #{reference >= score - tolerance}) / (N + 1)``, ``(B,)``.
    """
    reached = len(ordered) - np.searchsorted(ordered, scores - tolerance, side="left")
    p_values: np.ndarray = (1 + reached) / (len(ordered) + 1)
    return p_values


@stated("Anomaly score")
def detect(
    scores: np.ndarray,
    anomalous: np.ndarray,
    threshold: float,
    tolerance: np.ndarray | float = 0.0,
) -> Detection:
    """Compare what lies above a threshold with what is an anomaly.

    Args:
        scores: ``(N,)``.
        anomalous: ``(N,)`` bool, at least one of them true.
        threshold: rows above it are flagged.
        tolerance: of each row; nearer to the threshold than that it is tied, and not flagged.

    Returns:
        Precision, recall and F1, with the rows flagged and tied.
    """
    flagged = scores > threshold + tolerance
    hits = int((flagged & anomalous).sum())
    count, anomalies = int(flagged.sum()), int(anomalous.sum())
    return Detection(
        precision=hits / count if count else 0.0,
        recall=hits / anomalies,
        f1=2 * hits / (count + anomalies),
        flagged=count,
        ties=int((np.abs(scores - threshold) <= tolerance).sum()),
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
