"""The rule on structure: which of data, encoder and decoder is at fault, beside what is known."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.theory.judge import Answer, Evidence, Finding, Measured, OtherMetric, TriedReading
from isoprobe.theory.judge.structure import reconstruction
from tests.theory.judge.evidence import exact, latents, sound, which

TEN = (0.05,) * 10
BAD = {"distortion": Measured.of(50.0, 0.5)}
WORSE = (
    "reconstructions are no better than the mean input (distortion 1.25 (+-0.025) times that of "
    "the mean)"
)
COSTLY = (
    "rate and distortion together cost 1.25 (+-0.025) times what the mean input costs without any "
    "code"
)
#: in ten latents: four fail their moments, more than a third
STRANGE = {"second": exact(*[1.9, 0.4, 2.0, 3.0], *[1.0] * 6), "centre": exact(*[0.0] * 10)}
MOMENTS = (
    "E[mu^2 + sigma^2] is 0.40 to 3.00 (1 at an optimum; latent 3: +-0), E[mu] up to 0.00 from 0 "
    "(latent 0)"
)


def trip(*fits: float) -> dict[str, object]:
    """Own samples that come back so many times as strong as they should."""
    return {"round_trip": np.diag(fits), "expected_trip": np.ones(len(fits))}


def found(e: Evidence) -> Finding | None:
    _, findings = reconstruction(e)
    assert len(findings) <= 1
    return findings[0] if findings else None


def code(e: Evidence) -> str | None:
    finding = found(e)
    return None if finding is None else finding.code


def answers(e: Evidence) -> list[tuple[str, Answer, float]]:
    return [(c.name, c.answer, c.size) for c in reconstruction(e)[0]]


def test_a_sound_model_has_one_condition() -> None:
    assert answers(sound()) == [("reconstruction", Answer.HOLDS, 0.25)]
    assert found(sound()) is None


@pytest.mark.parametrize(
    "changes", [{"baseline": None}, {"baseline": 0.0}, {"baseline": -1.0}, {"own_draws": True}]
)
def test_without_a_mean_input_nothing_is_compared(changes: dict) -> None:
    assert reconstruction(sound(**BAD, **changes)) == ([], [])


def test_any_positive_mean_input_will_do() -> None:
    e = sound(baseline=0.5, distortion=exact(0.1), loss=exact(0.2))
    assert answers(e) == [("reconstruction", Answer.HOLDS, 0.2)]


def test_distortions_and_their_errors_are_shares_of_the_mean_inputs() -> None:
    assert answers(sound(distortion=exact(40.0))) == [("reconstruction", Answer.HOLDS, 1.0)]
    assert code(sound(distortion=exact(40.1))) == "reconstruction"
    assert answers(sound(distortion=Measured.of(40.1, 0.1)))[0][1] is Answer.CANNOT_TELL
    assert answers(sound(distortion=Measured.of(39.9, 0.1)))[0][1] is Answer.CANNOT_TELL
    (condition,), _ = reconstruction(sound(**BAD))
    assert condition.error == pytest.approx(1.998 * 0.5 / 40, rel=1e-3)


def test_the_loss_is_a_condition_where_it_fails_and_the_reconstruction_does_not() -> None:
    assert code(sound(loss=exact(41.9))) is None  # 1.05 times the mean's is 42
    assert answers(sound(loss=exact(41.9))) == [("reconstruction", Answer.HOLDS, 0.25)]
    costly = sound(loss=Measured.of(50.0, 0.5))
    assert answers(costly) == [
        ("reconstruction", Answer.HOLDS, 0.25),
        ("loss", Answer.FAILS, 1.25),
    ]
    finding = found(costly)
    assert finding is not None
    assert finding.code == "reconstruction"
    assert finding.evidence.startswith(COSTLY)
    assert code(sound(loss=exact(42.1))) == "reconstruction"
    assert code(sound(loss=Measured.of(42.1, 0.2))) is None
    assert code(sound(loss=Measured.of([]))) is None
    both = sound(**BAD, loss=exact(90.0))
    assert [c.name for c in reconstruction(both)[0]] == ["reconstruction"]
    assert code(sound(**BAD, loss=Measured.of([]))) == "reconstruction"


FILL = "the inputs fill the prior"
KNOWS = "the encoder knows the decoder's own samples"
EITHER = (
    "either the inputs are not the training's (another set, range, normalisation), or the "
    "decoder's last layers are read in another way (output activation, bias, scale)"
)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, f", though {FILL} and {KNOWS}"),
        ({"round_trip": None}, f", though {FILL}"),  # a prior of its own draws no samples here
        ({"spatial": True}, ""),  # of maps neither is judged
        ({"variance": np.full(10, 0.9)}, f", though {FILL}"),  # weak latents come back as they like
        (
            trip(*[0.5] * 10) | {"code_fit": np.ones(10)},
            f", though {FILL} and the encoder knows what the decoder makes of the inputs' own "
            "codes",
        ),
        ({"round_trip": None, **STRANGE}, f", and {MOMENTS}"),
        ({"variance": np.full(10, 0.9), **STRANGE}, f", and {MOMENTS}"),
    ],
)
def test_bad_reconstructions_are_said_beside_what_is_known(changes: dict, known: str) -> None:
    finding = found(sound(**{"variance": TEN, **BAD, **changes}))
    assert finding is not None
    assert (finding.code, finding.causes) == ("reconstruction", ("data", "decoder", "mismatch"))
    assert finding.evidence == WORSE + known
    assert (finding.advice, finding.latents) == (EITHER, ())


def better(**ratios: float) -> dict[str, object]:
    """Metrics under which the distortion is so many times the mean input's, none near in beta."""
    return {"metrics": {spec: OtherMetric(9.0, ratio) for spec, ratio in ratios.items()}}


def test_metrics_that_reconstructions_beat_are_named() -> None:
    e = sound(TEN, **BAD, **better(sse=0.1, gaussian=0.1, l1=0.89, bce=0.5, mse=0.91))
    finding = found(e)
    assert finding is not None
    assert finding.causes == ("metric", "data", "decoder", "mismatch")
    assert finding.evidence == (
        f"{WORSE}, though {FILL} and {KNOWS}; under other metrics they are better than the mean "
        "(l1 0.89, bce 0.5 times)"
    )
    assert finding.advice == (
        f"either the metric is l1 or bce, or {EITHER.removeprefix('either ')}"
    )


def test_of_metrics_that_are_beaten_the_one_of_the_declared_beta_is_named() -> None:
    metrics = {"l1": OtherMetric(9.0, 0.5), "bce": OtherMetric(1.05, 0.6)}
    finding = found(sound(**BAD, metrics=metrics))
    assert finding is not None
    assert finding.advice.startswith("either the metric is bce, or the inputs")
    # one of the declared beta that is not beaten is none
    metrics = {"l1": OtherMetric(9.0, 0.5), "bce": OtherMetric(1.0, 0.95)}
    finding = found(sound(**BAD, metrics=metrics))
    assert finding is not None
    assert finding.advice.startswith("either the metric is l1, or the inputs")


def test_metrics_are_no_excuse_for_a_loss() -> None:
    e = sound(**better(l1=0.1), loss=Measured.of(50.0, 0.5))
    finding = found(e)
    assert finding is not None
    assert finding.causes == ("data", "decoder", "mismatch")
    at = found(sound(**better(l1=0.1), distortion=exact(40.0), loss=exact(50.0)))
    assert at is not None
    assert "metric" not in at.causes


def test_inputs_that_are_strange_to_a_pair_that_knows_itself_are_other_data() -> None:
    finding = found(sound(TEN, **BAD, **STRANGE, **trip(*[1.0] * 7, *[0.5] * 3)))
    assert finding is not None
    assert (finding.code, finding.causes) == ("data", ("data",))
    assert finding.evidence == (
        f"{WORSE}, and {MOMENTS}; yet the encoder knows the decoder's own samples (7 of 10 latents "
        "come back): encoder and decoder belong together and are read alike"
    )
    assert finding.advice.startswith("the inputs are not what the model was trained on")
    # more than 0.3 that do not come back are strangers
    strangers = sound(TEN, **BAD, **STRANGE, **trip(*[1.0] * 6, *[0.5] * 4))
    assert code(strangers) == "own-samples"
    costly = found(sound(TEN, **STRANGE, loss=Measured.of(50.0, 0.5)))
    assert costly is not None
    assert costly.evidence.startswith(f"{COSTLY}, and {MOMENTS}")


@pytest.mark.parametrize(
    ("second", "centre", "strange"),
    [
        ([2, 1, 1], [0, 0, 0], False),  # a third, and no more
        ([2, 1, 1], [0, 1, 0], True),
        ([2, 1, 1], [1, 0, 0], False),
        ([2, 2, 1], [0, 0, 0], True),
        ([1, 1, 1], [0, 1, -1], True),
        ([1.39, 0.61, 1.39], [0.59, -0.59, 0.59], False),
    ],
)
def test_inputs_are_strange_where_more_than_a_third_fail_their_moments(
    second: list[float], centre: list[float], strange: bool
) -> None:
    off = {"second": exact(*second), "centre": exact(*centre)}
    assert code(sound(**BAD, **off)) == ("data" if strange else "reconstruction")
    assert code(sound(**BAD, **off, spatial=True)) == "reconstruction"


def test_idle_latents_do_not_make_inputs_strange() -> None:
    off = {"second": exact(2, 2, 1), "centre": exact(1, 1, 0)}
    assert code(sound(**BAD, **off)) == "data"
    assert code(sound(**BAD, **off, used=which(2))) == "reconstruction"


@pytest.mark.parametrize(
    ("fit", "broken"),
    [(0.651, False), (0.649, True), (1.399, False), (1.401, True), (-1.0, True)],
)
def test_latents_are_broken_outside_of_their_range(fit: float, broken: bool) -> None:
    e = sound(TEN, **trip(*[1.0] * 9, fit))
    assert code(e) == ("encoder-mismatched" if broken else None)
    assert code(sound(TEN, **trip(*[1.0] * 9, fit), spatial=True)) is None
    assert code(sound((*TEN[:9], 0.9), **trip(*[1.0] * 9, fit))) is None
    assert code(sound(TEN, **trip(*[1.0] * 9, fit), used=which(*range(9), n=10))) is None


@pytest.mark.parametrize(
    ("codes", "known"),
    [
        ((1.0, 1.0), True),
        ((0.651, 1.399), True),
        ((0.649, 1.0), False),
        ((1.0, 1.401), False),
        ((np.nan, 1.0), False),
    ],
)
def test_the_prior_has_holes_where_codes_of_inputs_come_back(
    codes: tuple[float, float], known: bool
) -> None:
    fit = np.array([0.0, *codes])  # where own samples come back, codes are not asked
    e = sound(**trip(1.0, 0.5, 0.5), code_fit=fit)
    assert code(e) == (None if known else "own-samples")


def test_another_prior_is_where_the_codes_are_and_the_draws_are_not() -> None:
    off = {"second": latents(9.0, 0.0), "centre": latents(3.0, 0.0)}
    e = sound(**trip(1.0, 0.3, 0.4), code_fit=np.array([0.0, 0.9, 1.2]), **off)
    conditions, (finding,) = reconstruction(e)
    assert [c.name for c in conditions] == ["reconstruction"]
    assert (finding.code, finding.causes, finding.latents) == ("prior", ("prior",), (1, 2))
    assert finding.evidence == (
        "E[mu^2 + sigma^2] is 9.00 to 9.00 (1 at an optimum; latent 0: +-0), E[mu] up to 3.00 from "
        "0 (latent 0); the encoder knows what the decoder makes of the inputs' own codes (slopes "
        "of mu on z are 0.90 to 1.20 of what they should be), and not of draws of N(0, 1) (0.30 to "
        "0.40)"
    )
    # nothing is broken: codes that come back say nothing
    assert code(sound(code_fit=np.ones(3), **off)) is None


def shares(count: int, n: int = 10, **changes: object) -> Evidence:
    """So many of n strong latents broken."""
    return sound((0.05,) * n, **trip(*[0.5] * count, *[1.0] * (n - count)), **changes)


def test_up_to_half_of_the_latents_are_a_few() -> None:
    assert code(shares(0)) is None
    assert code(shares(1)) == "encoder-mismatched"
    assert code(shares(5)) == "encoder-mismatched"
    assert code(shares(6)) == "own-samples"
    assert code(shares(9)) == "own-samples"
    assert code(shares(1, n=1)) == "own-samples"
    # of strong ones
    weak = shares(3, n=10)
    changed = np.array([0.05] * 5 + [0.9] * 5)
    assert code(sound(changed, round_trip=weak.round_trip, expected_trip=np.ones(10))) == (
        "own-samples"
    )


def test_strange_inputs_make_strangers_of_a_few() -> None:
    assert code(shares(1, **STRANGE)) == "own-samples"
    assert code(shares(1, **STRANGE, **BAD)) == "data"


SLOPES = (
    "the encoder does not know the decoder's own samples (slopes of mu on z are 0.50 to 1.00 of "
    "what they should be)"
)


@pytest.mark.parametrize(
    ("changes", "causes", "blame"),
    [
        (
            {},
            ("mismatch", "decoder", "permuted"),
            "the inputs are as familiar to the encoder as the training's (its moments hold)",
        ),
        (STRANGE, ("encoder", "mismatch", "data"), "the encoder is read in another way"),
        (
            {"own_draws": True, **STRANGE},
            ("encoder", "decoder", "mismatch"),
            "one of them is read in another way",
        ),
    ],
)
def test_strangers_are_blamed_by_what_is_known_of_the_inputs(
    changes: dict, causes: tuple[str, ...], blame: str
) -> None:
    finding = found(shares(6, **changes))
    assert finding is not None
    assert finding.causes == causes
    assert finding.evidence.startswith(f"{SLOPES}: {blame}")
    assert finding.latents == tuple(range(6))
    if "own_draws" not in changes:
        bad = found(shares(6, **changes, **BAD))
        assert bad is not None
        assert bad.evidence.startswith(f"{WORSE}; {SLOPES}: {blame}")


def test_a_few_latents_that_come_back_otherwise() -> None:
    finding = found(shares(2))
    assert finding is not None
    assert (finding.code, finding.latents) == ("encoder-mismatched", (0, 1))
    assert finding.causes == ("mismatch", "scaled", "permuted", "sign", "decoder")
    come = (
        "of the decoder's own samples, latents {} come back {} times as strong as they should, all "
        "others as they should: {}"
    )
    scaled = (
        "the decoder answers to latents 0, 1 2, 2 times as the encoder expects, or they are "
        "exchanged"
    )
    assert finding.evidence == come.format("0, 1", "0.5, 0.5", scaled)
    bad = found(shares(2, **BAD))
    assert bad is not None
    assert bad.evidence == f"{WORSE}; {finding.evidence}"
    flipped = found(sound(TEN, **trip(*[1.0] * 7, -0.5, 0.5, -1.5)))
    assert flipped is not None
    assert flipped.evidence == come.format(
        "7, 8, 9",
        "-0.5, 0.5, -1.5",
        "the sign of latents 7, 9 is reversed between encoder and decoder",
    )


def test_a_few_latents_that_nothing_answers_to_are_dead() -> None:
    answer = np.full(10, 0.95)
    answer[[1, 9]] = 0.0  # the last comes back: it is not broken
    finding = found(shares(2, answer=exact(*answer)))
    assert finding is not None
    assert (finding.code, finding.causes) == ("decoder-dead", ("decoder-dead", "mismatch"))
    assert finding.latents == (1,)
    assert finding.evidence == (
        "the decoder does not answer to latents 1 (norm 0), though the encoder fills them "
        "(sigma^2 0.05)"
    )
    bad = found(shares(2, answer=exact(*answer), **BAD))
    assert bad is not None
    assert bad.evidence == f"{WORSE}; {finding.evidence}"


@pytest.mark.parametrize(("answer", "dead"), [(0.0399, True), (0.0401, False)])
def test_dead_is_a_twentieth_of_what_is_called_for(answer: float, dead: bool) -> None:
    e = sound(
        (0.2, *TEN[1:]), answer=exact(answer, *[0.95] * 9), **trip(0.5, *[1.0] * 9)
    )  # 0.05 (1 - 0.2) = 0.04
    assert code(e) == ("decoder-dead" if dead else "encoder-mismatched")


TRIALS = {
    "trials": (
        TriedReading("as read", 50.0, 0.6, 0.5, 3.0),
        TriedReading("a log variance", 10.0, 0.03, 0.03, 1.0),
    )
}


def test_another_reading_comes_first_where_more_than_a_few_are_off() -> None:
    assert code(shares(3, **TRIALS)) == "encoder-mismatched"
    assert code(shares(4, **TRIALS)) == "scale-head"
    assert code(shares(1, **TRIALS, **STRANGE)) == "scale-head"
    finding = found(shares(1, **TRIALS, **BAD))
    assert finding is not None
    assert finding.code == "scale-head"
    assert finding.evidence.startswith(f"{WORSE}; it fits if a log variance")
    no = {"trials": TRIALS["trials"][:1]}
    assert code(shares(4, **no)) == "encoder-mismatched"
    assert code(shares(0, **no, **BAD)) == "reconstruction"
