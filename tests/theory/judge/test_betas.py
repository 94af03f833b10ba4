"""The rule on a declared beta: what may explain it, each with and without its evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from isoprobe.theory.judge import AS_READ, Answer, Measured, OtherMetric, TriedReading, judge
from isoprobe.theory.judge.betas import (
    beta_off,
    declared_beta,
    of_other_families,
    other_metrics,
    worst_moment,
)
from tests.theory.judge.evidence import exact, latents, others, sound, which


@pytest.mark.parametrize(
    "changes",
    [
        {"declared": None},
        {"beta": None},
        {"beta": Measured.of(0.0)},
        {"beta": Measured.of(-0.5)},
        {"beta": Measured.of(np.nan)},
    ],
)
def test_without_a_positive_beta_on_both_sides_nothing_is_said(changes: dict) -> None:
    e = sound(**{"declared": 2.0, **changes})
    assert declared_beta(e) == ([], [])
    assert beta_off(e) == ""


@pytest.mark.parametrize("sign", [1, -1])
def test_the_log_ratio_is_what_is_weighed(sign: int) -> None:
    e = sound(declared=0.25 * math.exp(sign * 0.1), beta=Measured.of(0.25, 0.001))
    (condition,), findings = declared_beta(e)
    assert (condition.name, condition.answer) == ("beta", Answer.HOLDS)
    assert condition.size == pytest.approx(0.1, rel=1e-12)
    # its error is the relative one
    assert condition.error == pytest.approx(1.998 * 0.001 / 0.25, rel=1e-3)
    assert not findings
    e = sound(declared=0.25 * math.exp(sign * 0.121), beta=Measured.of(0.25))
    assert len(declared_beta(e)[1]) == 1
    doubt = sound(declared=0.25 * math.exp(sign * 0.121), beta=Measured.of(0.25, 0.001))
    (condition,), findings = declared_beta(doubt)
    assert (condition.answer, findings) == (Answer.CANNOT_TELL, [])


SHOWN = "beta 2 is declared; under sse the weights show 0.5 (+-0.02), 0.25 times as much"
OFF = (
    "either beta is off by 0.25 or in other units (a mean for a sum, a factor 0.5; --beta auto "
    "takes what is shown)"
)
END = ": the weights cannot tell these apart"
HEAD = ", or the posterior head is misread (--option head=..., or the adapter's)"
DATA = ", or the inputs differ from the training's (noise, scale, a part of them)"
ELSE = (
    ", or the metric is none of those tried, or the objective weighs the KL term in another way "
    "(capacity, free bits)"
)
TRIALS = (
    TriedReading("as read", 10.0, 0.05, 0.06, 0.55),
    TriedReading("a log variance", 10.0, 0.04, 0.06, 2.2),
)


def found(**changes: object):
    (condition,), (finding,) = declared_beta(
        sound(**{"declared": 2.0, "beta": Measured.of(0.5, 0.01), **changes})
    )
    assert condition.answer is Answer.FAILS
    return finding


def test_beta_alone() -> None:
    finding = found()
    assert (finding.code, finding.causes) == ("beta", ("beta", "metric", "objective"))
    assert finding.evidence == SHOWN
    assert finding.advice == OFF + ELSE + END
    assert finding.latents == ()


def test_a_metric_that_explains_it() -> None:
    finding = found(metrics=others(sse=0.5, l1=1.9, bce=2.0))
    assert (finding.code, finding.causes) == ("metric", ("metric", "beta"))
    assert finding.evidence == f"{SHOWN}; under other metrics they show: bce 2, l1 1.9"
    assert finding.advice == (
        f"{OFF}, or the metric is bce or l1 (--metric bce or --metric l1){END}"
    )


def test_a_reading_that_explains_it() -> None:
    finding = found(trials=TRIALS)
    assert (finding.code, finding.causes) == ("scale-head", ("beta", "scale-head"))
    assert finding.evidence == f"{SHOWN}; 2, and no worse a fit, if a log variance"
    assert finding.advice == OFF + HEAD + END


def test_metric_and_reading_that_both_explain_it() -> None:
    finding = found(trials=TRIALS, metrics=others(l1=2.0))
    assert (finding.code, finding.causes) == ("metric", ("metric", "beta", "scale-head"))
    assert finding.evidence == (
        f"{SHOWN}; under other metrics they show: l1 2; 2, and no worse a fit, if a log variance"
    )
    assert finding.advice == f"{OFF}, or the metric is l1 (--metric l1){HEAD}{END}"


def test_inputs_that_are_half_off_are_doubted_too() -> None:
    """Moments are told before gains, gains of strong latents alone."""
    finding = found(
        gain=Measured.of([0.06, -0.08, 0.9], 0.005), variance=np.array([0.05, 0.1, 0.8])
    )
    assert finding.causes == ("beta", "metric", "objective", "data")
    assert finding.evidence == (f"{SHOWN}; the decoder's response is off by -8% (+-1%) in latent 1")
    assert finding.advice == OFF + ELSE + DATA + END
    both = found(gain=latents(0.08), second=exact(1.3, 1, 1), centre=exact(0, 0, 0))
    assert both.evidence == (
        f"{SHOWN}; E[mu^2 + sigma^2] is 1.00 to 1.30 (1 at an optimum; latent 0: +-0), "
        "E[mu] up to 0.00 from 0 (latent 0)"
    )
    assert found(centre=exact(0, 0.4, 0)).causes[-1] == "data"
    assert found(own_draws=True, gain=latents(0.08)).causes[-1] == "objective"


def test_beta_is_off_in_words_from_a_half_on() -> None:
    assert beta_off(sound(declared=2.0, beta=Measured.of(0.5))) == (
        "beta 2 is declared, 0.5 shown under sse"
    )
    for ratio, said in ((1.51, True), (1.49, False), (1 / 1.51, True), (1 / 1.49, False)):
        assert bool(beta_off(sound(declared=0.3, beta=Measured.of(0.3 * ratio)))) is said


def test_metrics_of_one_family_are_one_metric() -> None:
    tried = others(sse=1.0, gaussian=2.0, l1=3.0, mse=4.0)
    assert of_other_families(sound(metrics=tried)) == ["l1", "mse"]
    # a metric without a family is like itself alone
    assert of_other_families(sound(metrics=tried, metric="l1")) == ["sse", "gaussian", "mse"]
    assert of_other_families(sound(metrics=tried, metric="mse")) == ["sse", "gaussian", "l1"]


def test_other_metrics_show_the_declared_beta_to_within_its_tolerance_nearest_first() -> None:
    near, far = 0.3 * math.exp(0.119), 0.3 * math.exp(0.121)
    tried = {
        "sse": OtherMetric(0.3),
        "bce": OtherMetric(near),
        "l1": OtherMetric(0.3 / math.exp(0.1)),
        "a": OtherMetric(far),
        "b": OtherMetric(0.3**2 / far),
        "none": OtherMetric(0.0),
        "less": OtherMetric(-0.3),
        "unknown": OtherMetric(np.nan),
    }
    assert other_metrics(sound(declared=0.3, metrics=tried)) == ["l1", "bce"]
    assert other_metrics(sound(declared=None, metrics=tried)) == []


def test_the_gain_that_is_told_is_of_a_used_latent() -> None:
    finding = found(gain=Measured.of([0.9, 0.06, 0.07], 0.0), used=which(1, 2))
    assert finding.evidence.endswith("off by +7% (+-0%) in latent 2")


@pytest.mark.parametrize("declared", [None, 1.0, 1.1, 1.4, 2.0])
@pytest.mark.parametrize("wide", [False, True])
def test_readings_that_their_moments_rule_out_change_no_verdict(
    declared: float | None, wide: bool
) -> None:
    """Whatever else is wrong: a reading beyond the bound is as good as none."""
    rng = np.random.default_rng(0)
    dropped = told = 0
    for k in range(300):
        near = 10 ** rng.uniform([-3, -1], [0, 0.3], (7, 2))
        betas = np.array([1.0, *(declared or 1.0) * np.exp(rng.normal(0, 0.1, 6))])
        decoded = rng.uniform(9.8, 10.7, 7)
        trials = [
            TriedReading(name, *row)
            for name, *row in zip(
                [AS_READ, *"abcdef"], decoded, near[:, 0], near[:, 1], betas, strict=True
            )
        ][k % 8 == 0 :]
        evidence = sound(
            declared=declared,
            beta=Measured.of(1.0, 0.5 if wide else 0.01),
            **({}, {"residual": latents(0.6)}, {"gain": latents(0.4)})[k % 3],
        )
        ours = next((t for t in trials if t.name == AS_READ), None)
        most = worst_moment(evidence, ours)
        kept = [t for t in trials if t.name == AS_READ or not t.moment > most]
        verdict = judge(replace(evidence, trials=tuple(trials)))
        assert verdict == judge(replace(evidence, trials=tuple(kept)))
        dropped += len(trials) - len(kept)
        told += "scale-head" in {c for finding in verdict.findings for c in finding.causes}
    assert dropped > 100
    assert told > 10 or declared in {None, 1.0}
