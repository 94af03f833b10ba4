"""The rule on sigma: fixed, exchanged, odd, dead, or each latent with a beta of its own."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.theory.judge import Answer, Evidence, Finding, Measured
from isoprobe.theory.judge.responses import _disorder, responses
from tests.theory.judge.evidence import exact, sound, which


def found(e: Evidence) -> Finding:
    (condition,), (finding,) = responses(e)
    assert (condition.name, condition.answer) == ("residual", Answer.FAILS)
    return finding


@pytest.mark.parametrize("beta", [None, Measured.of(0.0), Measured.of(-0.5), Measured.of(np.nan)])
def test_without_a_positive_beta_the_decoder_does_not_answer(beta: Measured | None) -> None:
    conditions, (finding,) = responses(
        sound(beta=beta, used=which(1, 2), answer=exact(0.9, 0.01, -0.02))
    )
    assert not conditions
    assert finding.code == "decoder-dead"
    assert finding.causes == ("decoder-dead", "mismatch", "data")
    assert finding.evidence == (
        "noise in the used latents does not raise the distortion (stationary answer 0.01, -0.02): "
        "the decoder does not use them, or decodes something else"
    )
    assert finding.latents == (1, 2)
    assert responses(sound(beta=Measured.of(0.5)))[1] == []


def test_what_holds_or_is_in_doubt_accuses_nobody() -> None:
    (condition,), findings = responses(sound(residual=exact(0.19, -0.19, 0)))
    assert (condition.answer, condition.size, findings) == (Answer.HOLDS, 0.19, [])
    (condition,), findings = responses(sound(residual=Measured.of([0.3, 0, 0], 0.1)))
    assert (condition.answer, findings) == (Answer.CANNOT_TELL, [])
    (condition,), findings = responses(sound(residual=exact(0, 0, 9), used=which(0, 1)))
    assert condition.answer is Answer.HOLDS


FOUR = (0.05, 0.1, 0.2, 0.3)


def test_up_to_half_of_the_latents_are_odd_ones() -> None:
    one = found(sound(FOUR, residual=exact(0, 0, 0, -0.5)))
    assert (one.code, one.causes) == ("encoder-mismatched", ("mismatch", "sigma", "own-beta"))
    assert one.latents == (3,)
    assert one.evidence == (
        "norm + sigma^2 - 1 is off in 1 of 4 used latents, by -0.5 (+-0) in latent 3: either sigma "
        "of latents 3 (sigma^2 0.3) does not fit the decoder, or these latents were trained with a "
        "weight of their own; the others agree on beta"
    )
    assert one.advice.startswith("compare the scale head of these latents with the original")
    assert found(sound(FOUR, residual=exact(0, 0, 0.4, -0.5))).latents == (2, 3)
    three = found(sound(FOUR, residual=exact(0, 0.3, 0.4, -0.5)))
    assert (three.code, three.latents) == ("disagreement", ())
    # latents that are idle are no part of the half
    two = found(sound(FOUR, residual=exact(0, 0.3, 0.4, 0), used=which(0, 1, 2, n=4)))
    assert two.code == "disagreement"


def test_the_width_is_named_for_the_prior() -> None:
    odd = found(sound(FOUR, residual=exact(0, 0, 0, -0.5), prior="a mixture"))
    assert "of latents 3 (P 0.3)" in odd.evidence


def fixed(*variance: float, **changes: object) -> str:
    settings = {"residual": exact(0, 0, 0, -0.5), "fixed_scale": True, **changes}
    return found(sound(variance, **settings)).code


def test_a_fixed_scale_is_one_number_or_fits_most_latents_badly() -> None:
    assert fixed(0.1, 0.1, 0.1, 0.1) == "fixed-scale"
    assert fixed(0.1, 0.1, 0.1, 0.1, fixed_scale=False) == "encoder-mismatched"
    # one in a thousand apart is one number
    assert fixed(0.5, 0.5, 0.5, 0.49951) == "fixed-scale"
    assert fixed(0.5, 0.5, 0.5, 0.49949) == "encoder-mismatched"
    # which is that of the used latents
    used = which(0, 1, 3, n=4)
    assert fixed(0.1, 0.1, 0.9, 0.1, used=used) == "fixed-scale"
    assert fixed(*FOUR, residual=exact(0, 0.3, 0.4, -0.5)) == "fixed-scale"
    assert fixed(*FOUR, residual=exact(0, 0, 0.4, -0.5)) == "encoder-mismatched"


def test_a_fixed_scale_is_said() -> None:
    finding = found(sound((0.1, 0.1, 0.1), residual=exact(0, 0, -0.5), fixed_scale=True))
    assert finding.causes == ("fixed-scale", "objective")
    assert finding.evidence == (
        "sigma is the same for every row and does not fit the decoder (norm + sigma^2 - 1 is off "
        "in 1 of 3 used latents, by -0.5 (+-0) in latent 2): it was fixed in training, or its head "
        "was lost"
    )


#: sigma^2 that the decoder calls for, by which a shuffled head is told
TRUE = np.array([0.01, 0.1, 0.4])


def answered(given: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """The norm at other variances than those of the optimum: sigma^2 (1 - t) / t."""
    return beta * given * (1 - TRUE) / TRUE


@pytest.mark.parametrize("beta", [1.0, 0.2, 5.0])
def test_a_shuffled_head_is_in_disorder_by_what_sorting_takes_away(beta: float) -> None:
    for given in (TRUE, TRUE[[1, 2, 0]], TRUE[[1, 0, 2]]):
        in_order, reordered = _disorder(given, answered(given, beta))
        assert in_order == pytest.approx(np.abs(np.log(TRUE / given)).mean(), abs=1e-12)
        assert reordered == pytest.approx(0, abs=1e-12)


def test_disorder_in_odds_worked_out_by_hand() -> None:
    """Odds called for 1, 3, 4 where 1/4, 1, 3 are in hand: a factor 1/3 is the middle one."""
    given = np.array([0.2, 0.75, 0.5])
    in_order, reordered = _disorder(given, given / [1.0, 3.0, 4.0])
    called = np.array([1 / 4, 1 / 2, 4 / 7])  # odds 1/3, 1, 4/3
    assert in_order == pytest.approx(np.abs(np.log(called / given)).mean(), abs=1e-12)
    ranked = np.log(called / np.sort(given))
    assert reordered == pytest.approx(np.abs(ranked).mean(), abs=1e-12)


@pytest.mark.parametrize("wide", [1.0, 1.5])
def test_a_variance_without_odds_stands_at_the_end(wide: float) -> None:
    given = np.array([0.1, 0.01, wide])
    in_order, reordered = _disorder(given, np.array([0.9, 0.99, 1e-9]))
    assert in_order == reordered == pytest.approx(np.log(wide) / 3, abs=1e-6)


def shuffled(given: np.ndarray, answer: np.ndarray, **changes: object) -> Evidence:
    n = len(given)
    settings = {"residual": exact(*[0.5] * n), **changes}
    return sound(tuple(given), answer=exact(*answer), **settings)


def test_an_exchanged_head_is_named() -> None:
    given = TRUE[[1, 2, 0]]
    finding = found(shuffled(given, answered(given)))
    assert (finding.code, finding.causes) == ("encoder-mismatched", ("mismatch", "permuted"))
    assert finding.latents == (0, 1, 2)
    assert finding.evidence == (
        "norm + sigma^2 - 1 is off in 3 of 3 used latents, by +0.5 (+-0) in latent 0, but the same "
        "deviations in another order fit: scale heads are exchanged between latents"
    )
    assert "compare their order with the training code" in finding.advice
    some = found(shuffled(given, answered(given), residual=exact(0, 0, 0.5)))
    assert (some.causes, some.latents) == (("mismatch", "permuted"), (2,))


def exchanged(given: np.ndarray, answer: np.ndarray, **changes: object) -> bool:
    return "permuted" in found(shuffled(given, answer, **changes)).causes


def test_an_exchange_needs_three_latents_that_answer() -> None:
    given = TRUE[[1, 2, 0]]
    answer = answered(given)
    assert exchanged(given, answer)
    assert not exchanged(given, answer, used=which(0, 1))
    assert not exchanged(given, answer * [1, 1, 0])
    assert not exchanged(given, answer * [1, 1, -1])
    # two of four exchange theirs; the fourth is idle, and answers nothing
    four = np.append(given, 0.9)
    assert exchanged(four, np.append(answer, 0.0), used=which(0, 1, 2, n=4))
    assert not exchanged(four, np.append(answer, 0.0))


def test_an_exchange_is_beyond_its_tolerance() -> None:
    """Two of three that are a factor r apart and exchanged are off by 2/3 log r on average."""
    for ratio, told in ((np.exp(0.91), True), (np.exp(0.89), False)):
        true = np.array([0.1 / ratio, 0.1, 0.1 * np.sqrt(ratio)])
        given = true[[1, 0, 2]]
        assert exchanged(given, given * (1 - true) / true) is told


@pytest.mark.parametrize(("share", "told"), [(0.49, True), (0.51, False)])
def test_an_exchange_takes_two_thirds_of_the_disorder_away(share: float, told: bool) -> None:
    """Three in a circle, L apart, whose ends are called for s nearer to the middle.

    In order they are off by (L - s) + L + (2 L - s) over 3, sorted by 2 s over 3: s = L / 2 is a
    third.
    """
    true, apart = np.array([1e-6, 1e-4, 1e-2]), np.log(100)
    given, called = true[[1, 2, 0]], true * np.exp(share * apart * np.array([1, 0, -1]))
    answer = given * (1 - called) / called
    in_order, reordered = _disorder(given, answer)
    assert in_order == pytest.approx((4 - 2 * share) * apart / 3, rel=0.01)
    assert reordered == pytest.approx(2 * share * apart / 3, rel=0.01)
    assert exchanged(given, answer) is told


def dead(variance: float = 0.2, answer: float = 0.0, **changes: object) -> Finding:
    settings = {
        "residual": exact(0, 0, 0, -0.5),
        "answer": exact(0.9, 0.9, 0.9, answer),
        **changes,
    }
    return found(sound((0.05, 0.1, 0.15, variance), **settings))


def test_a_latent_that_answers_a_twentieth_of_what_is_called_for_is_dead() -> None:
    finding = dead()
    assert (finding.code, finding.causes) == ("decoder-dead", ("decoder-dead", "mismatch"))
    assert finding.latents == (3,)
    assert finding.evidence == (
        "noise in latents 3 does not raise the distortion (norm 0 where 0.8 is called for)"
    )
    assert "compare the decoder's first layer with the original" in finding.advice
    assert dead(answer=0.0399).code == "decoder-dead"  # 0.05 (1 - 0.2) = 0.04
    assert dead(answer=0.0401).code == "encoder-mismatched"


def test_where_sigma_is_next_to_nothing_sigma_is_at_fault() -> None:
    assert dead(variance=1.01e-4).code == "decoder-dead"
    assert dead(variance=0.99e-4).code == "encoder-mismatched"


def test_dead_are_all_that_are_odd_and_no_others() -> None:
    two = (0.05, 0.1, 0.15, 0.2), exact(0, 0, -0.5, -0.5)
    one = found(sound(two[0], residual=two[1], answer=exact(0.9, 0.9, 0.9, 0.0)))
    assert one.code == "encoder-mismatched"
    both = found(sound(two[0], residual=two[1], answer=exact(0.9, 0.9, 0.0, 0.0)))
    assert (both.code, both.latents) == ("decoder-dead", (2, 3))
    # one that fits and answers nothing is not among them
    idle = found(
        sound(
            (0.05, 0.1, 0.15, 0.99),
            residual=exact(0, 0, -0.5, 0.0),
            answer=exact(0.9, 0.9, 0.0, 0.0),
        )
    )
    assert (idle.code, idle.latents) == ("decoder-dead", (2,))


def disagreeing(**changes: object) -> Finding:
    settings = {"residual": exact(0.5, -0.6, 0.9), "beta_each": exact(0.5, 1.0, 4.0), **changes}
    return found(sound(**settings))


def test_latents_that_disagree_about_beta() -> None:
    finding = disagreeing()
    assert finding.code == "disagreement"
    assert finding.causes == ("objective", "training", "metric", "data")
    assert finding.evidence == (
        "the latents disagree about beta (0.5 to 4): norm + sigma^2 - 1 is off in 3 of 3 used "
        "latents, by +0.9 (+-0) in latent 2"
    )
    either = "either the objective was no beta-VAE of metric sse"
    rest = " (capacity, free bits, total correlation, another loss), or training had not reached"
    assert finding.advice == (f"{either}{rest} an optimum, or the inputs are not the training's")
    assert disagreeing(own_draws=True).advice == f"{either}{rest} an optimum"
    known = disagreeing(objective="decomposed loss")
    assert known.advice.startswith(f"{either} (decomposed loss){rest}")
    assert "(0.5 to 1)" in disagreeing(used=which(0, 1)).evidence


@pytest.mark.parametrize("term", ["capacity", "free_bits"])
def test_an_objective_that_holds_rates_makes_them_disagree(term: str) -> None:
    finding = disagreeing(objective="free bits", **{term: 0.5})
    assert (finding.code, finding.causes) == ("disagreement", ("objective",))
    assert finding.evidence == disagreeing().evidence
    assert finding.advice.startswith("the objective is free bits, and it weighs the KL of single")
