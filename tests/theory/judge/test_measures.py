"""What the evidence shows at once: who is used, strong, off, and by how much."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.theory.judge import Evidence, Measured, TriedReading, used_latents
from tests.theory.judge.evidence import exact, latents, sound, which


def test_a_measure_without_an_error_is_exact() -> None:
    assert Measured.of(2.0).value.tolist() == [2.0]
    assert Measured.of(2.0).se.tolist() == [0.0]
    pair = Measured.of([1, 2, 3], [0.1, 0.2, 0.3]).at(which(0, 2))
    assert (pair.value.tolist(), pair.se.tolist()) == ([1, 3], [0.1, 0.3])


def test_misfit_is_both_conditions_together() -> None:
    assert TriedReading("", 1.0, 0.25, 0.5, 1.0).misfit == 0.75


@pytest.mark.parametrize(
    ("samples", "degrees"), [(1, 1), (2, 1), (3, 2), (10, 9), (63, 62), (64, 63), (65, 63)]
)
def test_degrees_are_those_of_the_blocks(samples: int, degrees: int) -> None:
    assert sound(samples=samples).degrees() == degrees


def test_the_width_is_named_for_the_prior() -> None:
    assert sound().width == "sigma^2"
    assert sound(prior="a mixture").width == "P"


def test_deviations_are_of_used_latents_from_what_should_be() -> None:
    e = sound(used=which(0, 1), second=exact(1.25, 0.5, 9.0), centre=exact(0.25, -0.5, 9.0))
    assert e.deviation("second").value.tolist() == [0.25, -0.5]
    assert e.deviation("centre").value.tolist() == [0.25, -0.5]


def test_slopes_are_compared_with_no_less_than_a_twentieth() -> None:
    e = sound(round_trip=np.diag([0.5, 0.03, 0.02]), expected_trip=np.array([0.25, 0.06, 0.01]))
    np.testing.assert_allclose(e.fit(), [2.0, 0.5, 0.4], rtol=1e-12)


@pytest.mark.parametrize(
    ("variance", "expected", "strong"),
    [
        (0.69, 1.0, True),
        (0.71, 1.0, False),
        (0.05, 0.31, True),
        (0.05, 0.29, False),
    ],
)
def test_strong_is_where_posterior_and_own_samples_leave_room(
    variance: float, expected: float, strong: bool
) -> None:
    e = sound((variance,), round_trip=np.ones((1, 1)), expected_trip=np.array([expected]))
    assert e.strong().tolist() == [strong]
    assert Evidence.strong(sound((variance,), used=which(n=1))).tolist() == [False]
    alone = sound((variance,), round_trip=None, expected_trip=np.array([0.0]))
    assert alone.strong().tolist() == [variance < 0.7]


HALVES = {"second": (1.0, 0.2), "centre": (0.0, 0.3), "gain": (0.0, 0.05), "residual": (0.0, 0.1)}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("sign", [1, -1])
def test_uneasy_is_beyond_half_of_the_tolerance_by_two_errors(name: str, sign: int) -> None:
    right, half = HALVES[name]

    def uneasy(size: float, se: float = 0.0, **changes: object) -> bool:
        off = Measured.of([right, right, right + sign * size * half], se * half)
        return sound(**{name: off}, **changes).uneasy("centre", name)

    assert uneasy(1.05)
    assert not uneasy(0.95)
    assert uneasy(1.25, 0.1)
    assert not uneasy(1.25, 0.15)
    assert not uneasy(1.05, own_draws=True)
    assert not uneasy(1.05, spatial=True)
    assert not uneasy(1.05, used=which(0, 1))
    weak = {"variance": np.array([0.05, 0.1, 0.8])}  # gains of weak latents are not judged
    assert uneasy(1.05, **weak) is (name != "gain")


def test_nothing_is_uneasy_in_a_sound_model() -> None:
    assert not sound().uneasy("second", "centre", "gain", "residual")
    assert not sound(gain=latents(0.09)).uneasy("second", "centre")


@pytest.mark.parametrize(
    ("value", "se", "used"),
    [
        (0.0101, 0.0, True),
        (0.01, 0.0, False),
        (0.02, 0.0033, True),  # three errors below it is 0.0101
        (0.02, 0.0034, False),
    ],
)
def test_used_is_beyond_a_hundredth_by_three_errors(value: float, se: float, used: bool) -> None:
    still = Measured.of(0.0, 0.0)
    assert used_latents(Measured.of(value, se), still).tolist() == [used]
    assert used_latents(still, Measured.of(value, se)).tolist() == [used]


def test_means_that_differ_plainly_need_no_error() -> None:
    still = Measured.of([0.0, 0.0])
    wide = Measured.of([0.0501, 0.0499], 1.0)
    assert used_latents(wide, still).tolist() == [True, False]
    assert used_latents(still, wide).tolist() == [False, False]
    assert used_latents(wide, still, least=0.02).tolist() == [False, False]
    assert used_latents(Measured.of(0.03, 0.011), Measured.of(0.0), beyond=1.5).all()
