"""Another reading of the head: when it fits, when it shows the declared beta, how it is said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isoprobe.theory.judge import Evidence, Measured, TriedReading, fitting_reading
from isoprobe.theory.judge.readings import declaring_reading, head, misread
from tests.theory.judge.evidence import exact, latents, sound, which


def trial(
    name: str = "log", misfit: float = 0.1, distortion: float = 10.0, beta: float = 1.0
) -> TriedReading:
    return TriedReading(name, distortion, misfit, 0.0, beta)


def fitting(*trials: TriedReading, **changes: object) -> str | None:
    found = fitting_reading(sound(trials=trials, **changes))
    return None if found is None else found.name


OURS = trial("as read", 1.0)


def test_the_reading_in_hand_is_no_other() -> None:
    assert fitting() is None
    assert fitting(trial("as read", 0.1)) is None
    assert fitting(OURS, trial()) == "log"
    assert fitting(trial(), OURS) == "log"
    assert fitting(trial()) == "log"


@pytest.mark.parametrize(("misfit", "fits"), [(0.5, True), (0.51, False)])
def test_what_fits_is_within_its_tolerance(misfit: float, fits: bool) -> None:
    assert fitting(trial("as read", 9.0), trial("log", misfit)) == ("log" if fits else None)
    assert fitting(trial("log", misfit)) == ("log" if fits else None)


@pytest.mark.parametrize(("misfit", "fits"), [(0.399, True), (0.401, False)])
def test_what_fits_is_clearly_better_than_what_is_in_hand(misfit: float, fits: bool) -> None:
    assert fitting(OURS, trial("log", misfit)) == ("log" if fits else None)
    half = trial("as read", 0.5)
    assert fitting(half, trial("log", misfit / 2)) == ("log" if fits else None)


@pytest.mark.parametrize(
    ("distortion", "baseline", "ours", "fits"),
    [
        (39.1, 40.0, 40.0, True),  # 0.98 times the mean input's is 39.2
        (39.3, 40.0, 40.0, False),
        (39.3, None, 40.0, True),
        (10.4, 40.0, 10.0, True),  # 1.05 times that of the reading in hand is 10.5
        (10.6, 40.0, 10.0, False),
        (10.6, 40.0, None, True),
    ],
)
def test_what_fits_reconstructs(
    distortion: float, baseline: float | None, ours: float | None, fits: bool
) -> None:
    trials = [trial(distortion=distortion)]
    if ours is not None:
        trials.append(trial("as read", 1.0, ours))
    assert fitting(*trials, baseline=baseline) == ("log" if fits else None)


def test_the_best_fits_and_shows_the_declared_beta() -> None:
    a, b = trial("a", 0.2, beta=1.0), trial("b", 0.1, beta=1.2)
    assert fitting(a, b, declared=None) == "b"
    assert fitting(b, a, declared=None) == "b"
    # log 1.2 = 0.18 is more than what a fits worse
    assert fitting(a, b, declared=1.0) == "a"
    assert fitting(b, a, declared=1.0) == "a"
    assert fitting(a, b, declared=1.2) == "b"
    assert fitting(a, trial("b", 0.1, beta=1.05), declared=1.0) == "b"
    assert fitting(a, trial("b", 0.1, beta=0.8), declared=1.0) == "a"  # log 0.8 = -0.22
    assert fitting(a, trial("twin", 0.2)) == "a"  # the first of equals


def declaring(*trials: TriedReading, **changes: object) -> tuple[str, float] | None:
    settings = {"declared": 2.0, "beta": Measured.of(0.5, 0.01), **changes}
    found = declaring_reading(sound(trials=trials, **settings))
    return None if found is None else (found[0].name, found[1])


def test_without_a_reading_in_hand_or_betas_none_is_declared() -> None:
    good = trial(beta=4.0)
    assert declaring(OURS, good) == ("log", 2.0)
    assert declaring(good) is None
    assert declaring() is None
    assert declaring(OURS, good, declared=None) is None
    assert declaring(OURS, good, beta=None) is None
    assert declaring(OURS) is None


@pytest.mark.parametrize(
    ("changes", "declares"),
    [
        ({"beta": 4 * math.exp(0.119)}, True),
        ({"beta": 4 * math.exp(0.121)}, False),
        ({"beta": 4 / math.exp(0.119)}, True),
        ({"beta": 4 / math.exp(0.121)}, False),
        ({"misfit": 0.999}, True),
        ({"misfit": 1.0}, False),  # fits better, not as well
        ({"distortion": 10.5}, True),
        ({"distortion": 10.6}, False),
        ({"name": "as read"}, False),
    ],
)
def test_a_declaring_reading_fits_no_worse_and_shows_the_beta(
    changes: dict, declares: bool
) -> None:
    assert (declaring(OURS, trial(**{"beta": 4.0, **changes})) is not None) is declares


def test_betas_of_readings_are_taken_relative_to_the_one_in_hand() -> None:
    ours = trial("as read", 1.0, beta=0.25)  # on its few rows it shows half of what all rows do
    name, beta = declaring(ours, trial(beta=1.0)) or ("", 0.0)
    assert (name, beta) == ("log", 2.0)
    assert declaring(ours, trial(beta=2.0)) is None


def test_the_nearest_declares() -> None:
    near, far = trial("near", beta=4.1), trial("far", 0.01, beta=4.3)
    assert (declaring(OURS, near, far) or ("",))[0] == "near"
    assert (declaring(OURS, far, near) or ("",))[0] == "near"
    below = trial("below", 0.01, beta=3.7)
    assert (declaring(OURS, below, near) or ("",))[0] == "near"


LOG = trial("the head is a log variance", 0.06, beta=1.1)
DECLARE = "the posterior head is misread: declare its form (--option head=..., or the adapter's)"


def test_a_misread_head_is_said_with_its_figures() -> None:
    finding = misread(sound(declared=None), LOG, ["one", "two"])
    assert (finding.code, finding.causes) == ("scale-head", ("scale-head",))
    assert finding.evidence == (
        "one; two; it fits if the head is a log variance (misfit 0.06; beta 1.1)"
    )
    assert finding.advice == DECLARE


def test_a_misread_head_without_reasons_and_beside_what_is_known() -> None:
    finding = misread(sound(declared=2.0, trials=(LOG, OURS)), LOG, [])
    assert finding.evidence == (
        "the posterior as read fits neither decoder nor prior; it fits if the head is a log "
        "variance (misfit 0.06 for 1; beta 1.1, 2 declared)"
    )
    fixed = misread(sound(declared=None, fixed_scale=True), LOG, [])
    assert fixed.causes == ("scale-head", "fixed-scale")
    assert fixed.evidence == (
        "the posterior as read fits neither decoder nor prior, and sigma is the same for every "
        "row; it fits if the head is a log variance (misfit 0.06; beta 1.1)"
    )
    assert fixed.advice == f"either {DECLARE}; or sigma was fixed in training"


def said(**changes: object) -> str | None:
    """What is said to fail, where another reading is named for it."""
    settings = {"trials": (OURS, LOG), "declared": None, **changes}
    conditions, findings = head(sound(**settings))
    assert not conditions
    return findings[0].evidence.partition("; it fits if")[0] if findings else None


SIGMA = "norm + sigma^2 - 1 is off in 1 of 2 used latents, by +0.5 (+-0) in latent 2"
MOMENTS = (
    "E[mu^2 + sigma^2] is 1.00 to 1.50 (1 at an optimum; latent 2: +-0), E[mu] up to 0.00 from 0 "
    "(latent 1)"
)
CENTRE = (
    "E[mu^2 + sigma^2] is 1.00 to 1.00 (1 at an optimum; latent 1: +-0), E[mu] up to 0.70 from 0 "
    "(latent 2)"
)


def test_a_reading_is_named_where_what_rests_on_the_head_fails() -> None:
    two = {"used": which(1, 2), "second": exact(9, 1, 1), "centre": exact(9, 0, 0)}
    sigma, second, centre = exact(9, 0, 0.5), exact(9, 1, 1.5), exact(9, 0, 0.7)
    assert said(**two) is None
    assert said(**{**two, "residual": sigma}) == SIGMA
    assert said(**{**two, "second": second}) == MOMENTS
    assert said(**{**two, "centre": centre}) == CENTRE
    # one reason is enough
    assert said(**{**two, "residual": sigma, "second": second}) == SIGMA
    assert said(**{**two, "residual": sigma, "second": second}, trials=(OURS,)) is None


def test_moments_of_maps_and_own_draws_are_no_reason() -> None:
    for where in ("spatial", "own_draws"):
        off = {where: True, "second": latents(3.0), "centre": latents(2.0)}
        assert said(**off) is None
        assert said(**off, residual=exact(0, 0, 0.5)) is not None


def test_doubt_is_no_reason() -> None:
    def wide(name: str, value: float) -> Evidence:
        return sound(trials=(OURS, LOG), **{name: Measured.of(np.full(3, value), 0.3)})

    for name, value in (("residual", 0.5), ("second", 1.9), ("centre", 1.0)):
        assert head(wide(name, value)) == ([], [])
