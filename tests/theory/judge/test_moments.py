"""The rule on moments: whose prior the codes fill, and when another one is named."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.theory.judge import Answer, Measured
from isoprobe.theory.judge.moments import moments
from tests.theory.judge.evidence import exact, latents, sound, which


def code(**changes: object) -> str | None:
    _, findings = moments(sound(**changes))
    return findings[0].code if findings else None


def test_moments_are_not_judged_of_maps_and_own_draws() -> None:
    off = {"second": latents(3.0), "centre": latents(2.0)}
    assert moments(sound(spatial=True, **off)) == ([], [])
    assert moments(sound(own_draws=True, **off)) == ([], [])


def test_each_moment_is_a_condition_of_used_latents() -> None:
    second = Measured.of([1.375, 0.75, 9.0], 0.001)
    conditions, findings = moments(sound(second=second, used=which(0, 1)))
    assert [(c.name, c.answer) for c in conditions] == [
        ("second", Answer.HOLDS),
        ("centre", Answer.HOLDS),
    ]
    assert [c.size for c in conditions] == [0.375, 0.02]
    assert not findings


def test_either_moment_is_enough_and_doubt_is_not() -> None:
    assert code(second=exact(1.41, 1, 1)) == "data"
    assert code(second=exact(0.59, 1, 1)) == "data"
    assert code(second=exact(1.39, 0.61, 1)) is None
    assert code(centre=exact(0.61, 0, 0)) == "data"
    assert code(centre=exact(0.59, -0.59, 0)) is None
    assert code(second=Measured.of([1.5, 1, 1], 0.2)) is None


FIT = "norm + sigma^2 = 1, the norm by stationarity, holds to within 1% (+-1%)"
WHERE = (
    "E[mu^2 + sigma^2] is 1.00 to 2.00 (1 at an optimum; latent 0: +-0), E[mu] up to 0.02 from 0 "
    "(latent 0)"
)
GIVE = "give the training's data with its preprocessing (set, part, crop, scale, noise); if "


def test_latents_that_are_off_each_in_its_way_are_other_data() -> None:
    _, (finding,) = moments(sound(second=exact(2, 1, 1)))
    assert (finding.code, finding.causes) == ("data", ("data", "prior", "training"))
    assert finding.evidence == (
        f"{WHERE}, while {FIT}: these inputs do not fill the prior as the training's did"
    )
    assert finding.advice.startswith(f"{GIVE}these are they, the prior was not N(0, 1)")


def test_a_prior_of_the_models_own_is_named() -> None:
    # alike in all, and yet no N(m, s) is told from moments of another prior's scores
    _, (finding,) = moments(sound(second=exact(2, 2, 2), prior="a mixture of 3"))
    assert (finding.code, finding.causes) == ("data", ("data", "prior", "training"))
    assert "E[z s] is 2.00 to 2.00" in finding.evidence
    assert finding.evidence.endswith("do not fill the prior, a mixture of 3, as the training's did")
    assert "the prior is read in another form than it was trained in" in finding.advice


def test_another_normal_prior_is_named_with_its_numbers() -> None:
    _, (finding,) = moments(sound(second=exact(4, 4, 4), centre=exact(1.5, 1.5, 1.5)))
    assert (finding.code, finding.causes) == ("prior", ("prior", "data"))
    assert finding.evidence == (
        "E[mu^2 + sigma^2] is 4.00 to 4.00 (1 at an optimum; latent 0: +-0), E[mu] up to 1.50 from "
        f"0 (latent 0), alike in all used latents, while {FIT}: the codes fill N(1.5, 1.8) rather "
        "than N(0, 1)"
    )
    assert finding.advice.startswith("either the model was trained with another prior")


def widths(*variance: float, centre: float = 0.7) -> str | None:
    """Centres of both signs, which fail and are not alike, beside variances."""
    at = centre * np.array([1, -1] * len(variance))[: len(variance)]
    return code(
        variance=np.full(len(variance), 0.1),
        second=exact(*(np.array(variance) + at**2)),
        centre=exact(*at),
    )


@pytest.mark.parametrize(
    ("variance", "expected"),
    [
        ((1.31, 1.31), "prior"),  # all wider by more than 0.3
        ((1.29, 1.29), "data"),
        ((0.69, 0.69), "prior"),
        ((0.71, 0.71), "data"),
        ((2 - 0.24, 2 + 0.24), "prior"),  # whose spread is a quarter of that
        ((2 - 0.26, 2 + 0.26), "data"),
        ((0.5 - 0.12, 0.5 + 0.12), "prior"),
        ((0.5 - 0.13, 0.5 + 0.13), "data"),
        ((2.0,), "data"),  # one latent is alike with nobody
        ((2.0, 2.0, 2.0), "prior"),
    ],
)
def test_widths_that_are_alike_are_another_prior(
    variance: tuple[float, ...], expected: str
) -> None:
    assert widths(*variance) == expected


def centres(*centre: float) -> str | None:
    """Variances about 1 that are not alike, beside centres."""
    at = np.array(centre)
    variance = np.resize([0.5, 1.5], len(at))
    return code(
        variance=np.full(len(at), 0.1), second=exact(*(variance + at**2)), centre=exact(*at)
    )


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        ((0.8, 0.8), "prior"),
        ((-0.8, -0.8), "prior"),
        ((0.8 * 0.76, 0.8 * 1.24), "prior"),  # whose spread is a quarter of their mean
        ((0.8 * 0.74, 0.8 * 1.26), "data"),
        ((-0.8 * 0.76, -0.8 * 1.24), "prior"),
        ((-0.8 * 0.74, -0.8 * 1.26), "data"),
        ((0.7, 0.7, 0.7, -0.7), "data"),  # 0.35 on average
        ((0.7,) * 18 + (-0.7,) * 2, "prior"),  # 0.56
        ((0.7,) * 17 + (-0.7,) * 3, "data"),  # 0.49
    ],
)
def test_centres_that_are_alike_are_another_prior(centre: tuple[float, ...], expected: str) -> None:
    assert centres(*centre) == expected


def test_idle_latents_are_not_asked_for_their_likeness() -> None:
    assert code(second=exact(4, 4, 1), used=which(0, 1)) == "prior"
    assert code(second=exact(4, 4, 1)) == "data"
    assert code(centre=exact(2, 2, 0), second=exact(5, 5, 1), used=which(0, 1)) == "prior"
