"""One condition is answered by a size, an interval of Student's t, and a tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from isoprobe.theory.judge import CODES, LABELS, Answer, Measured, weigh
from isoprobe.theory.judge.answers import failing

#: the tolerance of "residual", from which all figures here are worked out
TOLERANCE = 0.2
DEGREES = 63
PLAIN = float(stats.t.ppf(0.975, DEGREES))


def bonferroni(count: int) -> float:
    return float(stats.t.ppf(1 - 0.025 / count, DEGREES))


def weighed(value: object, se: object = 0.0, samples: int = 100):
    return weigh("residual", Measured.of(value, se), DEGREES, samples=samples)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_size_at_its_tolerance_holds_and_the_next_number_fails(sign: int) -> None:
    at = weighed(sign * TOLERANCE)
    assert (at.answer, at.size, at.error, at.needed) == (Answer.HOLDS, TOLERANCE, 0.0, 0)
    assert (at.name, at.tolerance) == ("residual", TOLERANCE)
    beyond = weighed(sign * math.nextafter(TOLERANCE, 1))
    assert (beyond.answer, beyond.needed) == (Answer.FAILS, 0)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_widths_are_quantiles_of_students_t(count: int) -> None:
    """That one fails is corrected for their number; that all hold is not."""
    holds = weighed(np.zeros(count), 0.01)
    assert holds.answer is Answer.HOLDS
    assert holds.error == pytest.approx(0.01 * PLAIN, rel=1e-3)
    fails = weighed(np.r_[1.0, np.zeros(count - 1)], 0.01)
    assert fails.answer is Answer.FAILS
    assert fails.error == pytest.approx(0.01 * bonferroni(count), rel=1e-3)


def test_fewer_degrees_are_wider() -> None:
    condition = weigh("residual", Measured.of(0.0, 0.01), 9, samples=10)
    assert condition.error == pytest.approx(0.01 * stats.t.ppf(0.975, 9), rel=1e-3)


def test_the_surest_failure_and_the_widest_doubt_are_shown() -> None:
    assert weighed([0.5, -0.4], [0.1, 0.01]).size == 0.4  # 0.5 - 0.23 < 0.4 - 0.023
    assert weighed([0.1, -0.15], [0.02, 0.0001]).size == 0.15
    doubt = weighed([0.19, 0.1], [0.01, 0.1])
    assert (doubt.answer, doubt.size) == (Answer.CANNOT_TELL, 0.1)


@pytest.mark.parametrize(
    ("size", "se", "gap"),
    [
        (0.1, 0.1, 0.1),
        (-0.1, 0.1, 0.1),
        (0.3, 0.1, 0.1),
        (0.15, 0.03, 0.05),
        (0.2, 0.01, 0.01),  # a twentieth of the tolerance is the least gap that is asked for
        (0.199, 0.01, 0.01),
        (0.18, 0.0101, 0.02),
    ],
)
@pytest.mark.parametrize("samples", [100, 700])
def test_rows_needed_shrink_the_interval_to_the_gap(
    size: float, se: float, gap: float, samples: int
) -> None:
    condition = weighed(size, se, samples)
    assert condition.answer is Answer.CANNOT_TELL
    assert condition.needed == math.ceil(samples * (PLAIN * se / gap) ** 2)
    assert condition.error == pytest.approx(PLAIN * se, rel=1e-3)


@pytest.mark.parametrize("se", [1e6, np.inf, np.nan])
def test_no_more_than_a_billion_rows_are_asked_for(se: float) -> None:
    condition = weighed(0.1, se)
    assert (condition.answer, condition.needed) == (Answer.CANNOT_TELL, 1_000_000_000)


def test_those_that_fail_are_marked_each_corrected_for_their_number() -> None:
    se = 0.06 / (0.5 * (PLAIN + bonferroni(3)))  # 0.26 fails by itself and not among three
    three = Measured.of([0.26, -0.5, 0.5], [se, se, 0.2])
    assert failing("residual", three, DEGREES).tolist() == [False, True, False]
    assert failing("residual", three.at(np.array([0])), DEGREES).tolist() == [True]
    assert failing("residual", Measured.of([0.2, -0.2001]), DEGREES).tolist() == [False, True]


def test_labels_of_single_latents_are_findings_or_states() -> None:
    assert set(LABELS) - set(CODES) == {"active", "mixed"}
