"""Every sentence of the judge, with and without each of its parts."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.theory.judge import Answer, Evidence, Level, Measured
from isoprobe.theory.judge.answers import Condition
from isoprobe.theory.judge.words import (
    listed,
    moment_words,
    numbers,
    residual_size,
    residual_words,
    round_trip_words,
    summed_up,
)
from tests.theory.judge.evidence import latents, sound, which


def test_lists() -> None:
    assert numbers(which(0, 2)) == "0, 2"
    assert numbers(which()) == ""
    assert listed(np.array([1.0, 0.123])) == "1, 0.12"
    assert listed(np.arange(6.0)) == "0, 1, 2, 3, 4, 5"
    assert listed(np.arange(7.0)) == "0, 1, 2, 3, 4, 5, ..."


def test_the_worst_latent_of_a_mask_is_named() -> None:
    e = sound(residual=Measured.of([0.9, -0.5, 0.25], [0.1, 0.02, 0.03]))
    assert residual_words(e, which(1, 2)) == (
        "norm + sigma^2 - 1 is off in 2 of 3 used latents, by -0.5 (+-0.04) in latent 1"
    )
    by_prior = sound(residual=e.residual, prior="a mixture", used=which(0, 2))
    assert residual_words(by_prior, which(2)) == (
        "norm + P - 1 is off in 1 of 2 used latents, by +0.25 (+-0.06) in latent 2"
    )


def test_moments_name_the_latent_that_is_worst_in_each() -> None:
    e = sound(
        (0.05, 0.1, 0.2, 0.3),
        used=which(1, 2, 3, n=4),
        second=Measured.of([9.0, 1.5, 0.25, 1.0], [0.1, 0.02, 0.03, 0.04]),
        centre=Measured.of([9.0, 0.5, 0.25, -0.75], 0.01),
    )
    assert moment_words(e) == (
        "E[mu^2 + sigma^2] is 0.25 to 1.50 (1 at an optimum; latent 2: +-0.06), "
        "E[mu] up to 0.75 from 0 (latent 3)"
    )
    one = sound(second=latents(1.5, 0.01), centre=latents(-0.5), prior="a mixture")
    assert moment_words(one) == (
        "E[z s] is 1.50 to 1.50 (1 at an optimum; latent 0: +-0.02), "
        "E[s] up to 0.50 from 0 (latent 0)"
    )


def slopes(rows: object) -> Evidence:
    matrix = np.array(rows, dtype=float)
    n = len(matrix)
    return sound((0.05,) * n, round_trip=matrix, expected_trip=np.full(n, 0.5))


STRANGE = (
    "the encoder does not know the decoder's own samples (slopes of mu on z are {} of what they "
    "should be)"
)


@pytest.mark.parametrize(
    ("matrix", "spread", "moved"),
    [
        # each where another was: three in a circle, negative slopes as well as positive ones
        ([[0.1, 0.9, 0], [0, 0.2, -0.9], [0.9, 0, 0.3]], "0.20 to 0.60", 3),
        ([[0.1, 0.9, 0], [0.9, 0.2, 0], [0, 0, 0.4]], "0.20 to 0.80", 2),
        # in their own places, or two in one place: nothing is permuted
        ([[0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3]], "0.20 to 0.60", 0),
        ([[0.1, 0.9, 0], [0, 0.2, -0.9], [0, 0.9, 0.3]], "0.20 to 0.60", 0),
        ([[0.1]], "0.20 to 0.20", 0),
        # a slope is clear beyond three times the middle one
        ([[0.3, 0.91, 0.3], [0.3, 0.3, 0.91], [0.91, 0.3, 0.3]], "0.60 to 0.60", 3),
        ([[0.3, 0.89, 0.3], [0.3, 0.3, 0.91], [0.91, 0.3, 0.3]], "0.60 to 0.60", 0),
    ],
)
def test_own_samples_are_permuted_where_all_come_back_elsewhere(
    matrix: object, spread: str, moved: int
) -> None:
    e = slopes(matrix)
    said = STRANGE.format(spread)
    if moved:
        said += f", and {moved} latents come back as others: they are permuted"
    assert round_trip_words(e, e.strong()) == said


def test_weak_latents_are_no_part_of_the_permutation() -> None:
    e = slopes([[0.1, 0.9, 0], [0, 0.2, -0.9], [0.9, 0, 0.3]])
    assert round_trip_words(e, which(0, 1)) == STRANGE.format("0.20 to 0.40")


def test_how_far_sigma_fits_is_said_of_the_worst_used_latent() -> None:
    e = sound(used=which(1, 2), residual=Measured.of([9.0, 0.04, -0.12], [0.5, 0.05, 0.015]))
    assert residual_size(e) == (
        "norm + sigma^2 = 1, the norm by stationarity, holds to within 12% (+-3%)"
    )
    assert residual_size(sound(prior="a mixture", residual=latents(0.03, 0.02))) == (
        "norm + P = 1, the norm by stationarity, holds to within 3% (+-4%)"
    )
    unknown = Measured.of([0.1, np.nan, 0.1], 0.01)
    assert residual_size(sound(residual=unknown)) == "no beta can be read off sigma"
    assert residual_size(sound(residual=unknown, used=which(0, 2))).endswith("10% (+-2%)")


FITS = "norm + sigma^2 = 1, the norm by stationarity, holds to within 1% (+-1%) in each"


def open_condition(name: str, needed: int, answer: Answer = Answer.CANNOT_TELL) -> Condition:
    return Condition(name, answer, 0.1, 0.2, 0.2, needed)


def test_a_sound_model_is_summed_up_with_its_sizes() -> None:
    assert summed_up(sound(eigenvalues=None), Level.SOUND, []) == (
        f"3 of 3 latents are used; {FITS}."
    )


def test_no_latent_and_a_defect_need_no_sizes() -> None:
    none = sound(used=which())
    assert summed_up(none, Level.NOT_SOUND, []) == "None of 3 latents is used."
    assert summed_up(sound(used=which(0, 1)), Level.NOT_SOUND, []) == (
        "2 of 3 latents are used. What was found comes before any reading of importance or density."
    )


@pytest.mark.parametrize(
    ("needed", "rows"),
    [
        (1, "about 1 rows"),
        (9, "about 9 rows"),
        (10, "about 10 rows"),
        (11, "about 20 rows"),
        (99, "about 100 rows"),
        (100, "about 100 rows"),
        (101, "about 200 rows"),
        (4321, "about 5,000 rows"),
        (10**8 - 1, "about 100,000,000 rows"),
        (10**8, "many more rows"),
        (10**9, "many more rows"),
    ],
)
def test_what_is_undecided_says_which_and_how_many_rows_would(needed: int, rows: str) -> None:
    conditions = [
        open_condition("residual", needed),
        open_condition("gain", needed // 2),
        open_condition("centre", 0, Answer.HOLDS),
    ]
    assert summed_up(sound(samples=1234), Level.UNDECIDED, conditions) == (
        f"3 of 3 latents are used; {FITS}. 1,234 rows cannot tell about norm + sigma^2 = 1, "
        f"the decoder's gain: {rows} would."
    )


def bend(beta: Measured | None, pullback: Measured | None) -> str:
    e = sound(beta=beta, beta_pullback=pullback, eigenvalues=None)
    text = summed_up(e, Level.SOUND, [])
    return text.removeprefix(f"3 of 3 latents are used; {FITS}").removesuffix(".")


BENT = "; by the decoder's derivative at mu norms are {} that, as the decoder bends within sigma"


@pytest.mark.parametrize(
    ("pullback", "said"),
    [
        (1.5, "25% (+-5%) below"),
        (2.5, "25% (+-5%) above"),
        (2.12, "6% (+-5%) above"),  # 2 sqrt(0.03^2 + 0.04^2) / 2 = 5 %
        (2.09, ""),
        (1.91, ""),
        (1.88, "6% (+-5%) below"),
    ],
)
def test_a_bend_is_said_beyond_its_error(pullback: float, said: str) -> None:
    found = bend(Measured.of(2.0, 0.03), Measured.of(pullback, 0.04))
    assert found == (BENT.format(said) if said else "")


def test_a_bend_is_said_beyond_a_fiftieth() -> None:
    assert bend(Measured.of(2.0), Measured.of(2.038)) == ""
    assert bend(Measured.of(2.0), Measured.of(2.042)) == BENT.format("2% (+-0%) above")
    assert bend(Measured.of(2.0), Measured.of(1.958)) == BENT.format("2% (+-0%) below")
    assert bend(None, Measured.of(2.0)) == ""
    assert bend(Measured.of(2.0), None) == ""


def eigen(**changes: object) -> str:
    return summed_up(sound(**changes), Level.SOUND, []).partition(f"{FITS}.")[2]


def test_eigenvalues_are_those_of_an_isometric_embedding_to_within_a_size() -> None:
    expected = np.array([0.95, 0.9, 0.4])
    near = Measured.of(expected + np.array([0.0, 0.03, -0.149]))
    assert eigen(eigenvalues=near, isometric=expected) == (
        " Eigenvalues of the scaled pullback are those of an isometric embedding to within 15%: "
        "importance reads like PCA's variances."
    )
    far = Measured.of(expected + np.array([0.0, 0.03, -0.151]))
    assert eigen(eigenvalues=far, isometric=expected) == (
        " Eigenvalues of the scaled pullback run from 0.95 to 0.25, of an isometric embedding "
        "from 0.95 to 0.40: importances are those of single latents, whose directions mix."
    )
    # ranks beyond the used latents say nothing
    two = eigen(eigenvalues=far, isometric=expected, used=which(0, 2))
    assert "to within 3%" in two
    assert eigen(eigenvalues=None, isometric=expected) == ""
    assert eigen(eigenvalues=near, isometric=None) == ""
