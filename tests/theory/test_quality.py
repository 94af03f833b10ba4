"""Quality figures against scikit-learn, ties included, and thresholds by their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from isoprobe.theory.detection import (
    auroc,
    average_precision,
    conformal_p_values,
    detect,
    upper_threshold,
)
from tests.oracles import false_alarms


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and marks of both kinds."""
    size = draw(st.integers(2, 60))
    levels = draw(st.integers(1, 8))
    scores = draw(st.lists(st.integers(0, levels), min_size=size, max_size=size))
    marks = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    marks[0], marks[1] = True, False
    return np.array(scores, dtype=float) / 3 - 1, np.array(marks)


@given(scored())
def test_auroc_is_that_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, marks = case
    assert auroc(scores, marks) == pytest.approx(sklearn.roc_auc_score(marks, scores), abs=1e-12)


@given(scored())
def test_average_precision_is_that_of_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, marks = case
    expected = sklearn.average_precision_score(marks, scores)
    assert average_precision(scores, marks) == pytest.approx(expected, abs=1e-12)


@given(scored(), st.integers(0, 8))
def test_detection_is_that_of_scikit_learn(case: tuple[np.ndarray, np.ndarray], level: int) -> None:
    scores, marks = case
    threshold = level / 3 - 1
    found = detect(scores, marks, threshold)
    precision, recall, f1, _ = sklearn.precision_recall_fscore_support(
        marks, scores > threshold, average="binary", zero_division=0
    )
    assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1))
    assert found.flagged == sum(score > threshold for score in scores)
    assert found.ties == sum(score == threshold for score in scores)


@given(scored(), st.floats(0.01, 0.99))
def test_threshold_is_the_least_with_at_most_the_share_above(
    case: tuple[np.ndarray, np.ndarray], share: float
) -> None:
    ordered = np.sort(case[0])
    threshold = upper_threshold(ordered, share)
    good = [s for s in ordered if (ordered > s).sum() <= share * len(ordered) + 1e-9]
    assert threshold == min(good)


def test_a_share_of_whole_rows_flags_just_those() -> None:
    """0.7 * 10 and 0.29 * 100 are not whole in binary; the rows meant are."""
    for rows, share in ((10, 0.7), (100, 0.29), (1000, 0.001), (10, 0.05)):
        ordered = np.arange(float(rows))
        expected = int(round(share * rows, 6))
        assert (ordered > upper_threshold(ordered, share)).sum() == expected


@given(scored(), scored())
def test_p_values_count_the_reference_scores_that_reach(
    new: tuple[np.ndarray, np.ndarray], old: tuple[np.ndarray, np.ndarray]
) -> None:
    found = conformal_p_values(new[0], np.sort(old[0]))
    expected = [(1 + sum(old[0] >= score)) / (len(old[0]) + 1) for score in new[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("tied", [False, True], ids=["continuous", "tied"])
def test_false_alarms_over_random_splits(alpha: float, tied: bool) -> None:
    """At most alpha + 2 standard errors over 200 random splits of rows into reference and new."""
    generator = np.random.default_rng(0)
    scores = generator.gamma(2.0, size=1000)
    scores = np.round(scores, 1) if tied else scores
    rate, error = false_alarms(scores, alpha, generator)
    assert rate <= alpha + 2 * error
    if not tied:  # and they are not needlessly rare
        assert rate >= alpha - 1 / 501 - 2 * error


def test_hand_made_scores() -> None:
    scores = np.array([1.0, 2.0, 2.0, 3.0])
    marks = np.array([False, True, False, True])
    # pairs: 2 > 1, 2 = 2 (half), 3 > 1, 3 > 2
    assert auroc(scores, marks) == 3.5 / 4
    # recall 1/2 at precision 1/1, then recall 2/2 at precision 2/3
    assert average_precision(scores, marks) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    found = detect(scores, marks, 2.0)
    assert (found.precision, found.recall, found.flagged, found.ties) == (1.0, 0.5, 1, 2)
    assert detect(scores, marks, 9.0).precision == 0.0
