"""The rules on the decoder's columns: gains, and latents turned against its axes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from isoprobe.theory import tolerances
from isoprobe.theory.judge import Answer, Finding, Measured, TriedReading
from isoprobe.theory.judge.axes import axes, gains
from isoprobe.theory.tolerances import Tolerance
from tests.theory.judge.evidence import exact, latents, others, sound, which

OFF = "the decoder's response is off by +40% (+-2%) in latent 1, beyond tolerance in 2 of 3 latents"
READ = "either the decoder is read in another way (an activation, batch norm, a layer, a column)"
DATA = ", or the inputs differ from the training's (noise, scale, a part of them)"
HELD = "; held-out rows of a model that knows its training rows by heart read the same"
GAIN = Measured.of([0.02, 0.4, -0.3], [0.1, 0.01, 0.02])


def found(**changes: object) -> Finding:
    (condition,), (finding,) = gains(sound(**{"gain": GAIN, **changes}))
    assert (condition.name, condition.answer) == ("gain", Answer.FAILS)
    return finding


def test_gains_that_hold_or_are_in_doubt_accuse_nobody() -> None:
    (condition,), findings = gains(sound(gain=exact(0.099, -0.099, 0.01)))
    assert (condition.answer, condition.size, findings) == (Answer.HOLDS, 0.099, [])
    (condition,), findings = gains(sound(gain=Measured.of([0.12, 0, 0], 0.02)))
    assert (condition.answer, findings) == (Answer.CANNOT_TELL, [])
    assert gains(sound(gain=exact(0.101, 0, 0)))[1]


@pytest.mark.parametrize(
    ("variance", "expected", "judged"),
    [(0.49, 1.0, True), (0.51, 1.0, False), (0.05, 0.31, True), (0.05, 0.29, False)],
)
def test_gains_are_judged_of_strong_latents(variance: float, expected: float, judged: bool) -> None:
    e = sound(
        (variance,),
        gain=exact(0.5),
        round_trip=np.ones((1, 1)),
        expected_trip=np.array([expected]),
    )
    conditions, findings = gains(e)
    assert (len(conditions), len(findings)) == ((1, 1) if judged else (0, 0))


def test_the_decoder_is_read_in_another_way_or_the_inputs_differ() -> None:
    finding = found()
    assert (finding.code, finding.causes) == ("decoder", ("decoder", "data"))
    assert (finding.evidence, finding.latents) == (OFF, (1, 2))
    assert finding.advice == READ + DATA + HELD
    drawn = found(own_draws=True)
    assert (drawn.causes, drawn.advice) == (("decoder",), READ + HELD)


def test_the_worst_gain_is_told_of_those_that_fail() -> None:
    unsure = Measured.of([0.9, 0.3, -0.4], [0.6, 0.01, 0.01])
    finding = found(gain=unsure, declared=None)
    assert "off by -40% (+-2%) in latent 2, beyond tolerance in 2 of 3" in finding.evidence
    weak = found(gain=GAIN, variance=np.array([0.6, 0.1, 0.2]))
    assert "in latent 1, beyond tolerance in 2 of 2 latents" in weak.evidence


def test_another_metric_or_beta_is_named_where_one_shows() -> None:
    # another metric shows the declared beta: it is named, whatever ours shows
    near = found(metrics=others(sse=1.0, l1=1.05, bce=1.0), declared=1.0)
    assert near.causes == ("decoder", "data", "metric", "beta")
    assert near.evidence == OFF
    assert near.advice == f"{READ}, or the metric is bce or l1{DATA}{HELD}"
    # ours is off, and none explains it
    off = found(declared=2.0)
    assert off.causes == ("decoder", "data", "metric", "beta")
    assert off.evidence == f"{OFF}; beta 2 is declared, 1 shown under sse"
    assert off.advice == f"{READ}, or the metric is not sse{DATA}{HELD}"
    both = found(declared=2.0, metrics=others(l1=2.0))
    assert both.evidence == off.evidence
    assert both.advice == f"{READ}, or the metric is l1{DATA}{HELD}"


def test_a_reading_is_named_where_the_beta_is_off_and_it_shows_the_declared_one() -> None:
    trials = (
        TriedReading("as read", 10.0, 0.05, 0.06, 1.0),
        TriedReading("a log variance", 10.0, 0.04, 0.06, 2.0),
    )
    finding = found(declared=2.0, trials=trials)
    assert finding.causes == ("decoder", "data", "metric", "beta", "scale-head")
    assert finding.evidence == (
        f"{OFF}; beta 2 is declared, 1 shown under sse, 2 if a log variance, which fits no worse"
    )
    assert finding.advice == (
        f"{READ}, or the metric is not sse, or the posterior head is misread (--option head=..., "
        f"or the adapter's){DATA}{HELD}"
    )
    # a beta that is not off needs no other reading
    fits = (trials[0], TriedReading("a log variance", 10.0, 0.04, 0.06, 1.01))
    assert found(trials=fits).causes == ("decoder", "data")


def pair(size: float, i: int = 0, j: int = 1, n: int = 3, se: float = 0.0) -> Measured:
    values = np.zeros((n, n))
    values[i, j] = size
    return Measured.of(values, se)


def test_columns_that_mix_are_said_before_gains() -> None:
    assert found(mixing=pair(0.5)).code == "rotated"
    assert found(mixing=pair(0.19)).code == "decoder"


@pytest.mark.parametrize("name", ["mixing", "turn"])
@pytest.mark.parametrize("sign", [1, -1])
def test_pairs_are_turned_beyond_their_tolerance(name: str, sign: int) -> None:
    (condition,), (finding,) = axes(sound(**{name: pair(sign * 0.201)}))
    assert (condition.name, condition.answer, condition.size) == (name, Answer.FAILS, 0.201)
    assert finding.code == "rotated"
    assert axes(sound(**{name: pair(sign * 0.199)})) == ([], [])
    assert axes(sound(**{name: pair(sign * 0.3, se=0.1)})) == ([], [])  # doubt is no condition


def test_what_was_not_measured_is_not_judged() -> None:
    assert axes(sound(mixing=None, turn=None)) == ([], [])
    assert axes(sound(mixing=pair(0.5), turn=None))[1]
    assert axes(sound(mixing=None, turn=pair(0.5)))[1]


@pytest.mark.parametrize("name", ["mixing", "turn"])
def test_pairs_are_of_two_strong_latents(name: str) -> None:
    assert axes(sound((0.05, 0.8, 0.2), **{name: pair(0.5)})) == ([], [])
    assert axes(sound((0.05, 0.8, 0.2), **{name: pair(0.5, 0, 2)}))[1]
    assert axes(sound(used=which(0, 2), **{name: pair(0.5)})) == ([], [])
    assert axes(sound(**{name: pair(0.5, 1, 1)})) == ([], [])  # a latent with itself is no pair
    assert axes(sound((0.1,), **{name: pair(0.5, 0, 0, n=1)})) == ([], [])


def test_planes_are_asked_once_and_columns_from_both_sides() -> None:
    """Three planes of three latents, six shares of columns: as many intervals are corrected for."""
    e = sound(mixing=pair(0.5, se=0.05), turn=None)
    (columns,), _ = axes(e)
    width = stats.t.ppf(1 - 0.025 / 6, 63) * 0.05
    assert columns.error == pytest.approx(width, rel=1e-3)
    (planes,), _ = axes(sound(mixing=None, turn=pair(0.5, se=0.05)))
    assert planes.error == pytest.approx(stats.t.ppf(1 - 0.025 / 3, 63) * 0.05, rel=1e-3)


def test_the_worse_is_told_in_units_of_its_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    both = sound(mixing=pair(0.5), turn=pair(0.6))
    (condition,), _ = axes(both)
    assert condition.name == "turn"
    monkeypatch.setitem(tolerances.TOLERANCES, "turn", Tolerance(0.4, "the latents' planes", ""))
    (condition,), _ = axes(both)
    assert condition.name == "mixing"
    # one that holds is not told, however large
    (condition,), _ = axes(sound(mixing=pair(0.21), turn=pair(0.39)))
    assert condition.name == "mixing"


def test_turned_latents_are_said_with_their_size() -> None:
    _, (finding,) = axes(sound(turn=pair(0.5, se=0.02)))
    assert finding.causes == ("rotated", "mismatch")
    assert finding.evidence == (
        "turning latents into each other would lower the loss (the latents' planes are off by 0.5 "
        "+-0.05, as a share of a column): the latents are turned against the decoder's axes, so "
        "importances read off single latents mix"
    )
    assert finding.advice.startswith("read the eigenvalues of the conditions")


def test_turned_latents_under_a_beta_that_is_off() -> None:
    mixed = pair(0.5, se=0.02)
    _, (finding,) = axes(sound(mixing=mixed, declared=2.0))
    assert (finding.code, finding.causes) == (
        "rotated",
        ("rotated", "mismatch", "metric", "beta"),
    )
    assert finding.evidence == (
        "turning latents into each other would lower the loss under sse (the decoder's columns are "
        "off by 0.5 +-0.05, as a share of a column), and beta 2 is declared, 1 shown under sse"
    )
    turned = ", or beta is in other units, and the latents are turned against the decoder's axes"
    assert finding.advice == f"either the metric is not sse{turned}"
    _, (named,) = axes(sound(mixing=mixed, declared=2.0, metrics=others(l1=2.0, bce=1.9)))
    assert named.advice == f"either the metric is l1 or bce{turned}"


def test_turned_latents_of_inputs_that_are_half_off() -> None:
    for off in ({"second": exact(1.3, 1, 1)}, {"centre": exact(0.4, 0, 0)}):
        _, (finding,) = axes(sound(mixing=pair(0.5, se=0.02), **off))
        assert (finding.code, finding.causes) == ("data", ("data", "rotated", "mismatch"))
        assert finding.evidence.startswith("E[mu^2 + sigma^2] is ")
        assert finding.evidence.endswith(
            ", and up to 0.5 (+-0.05) of a decoder column belongs to another latent"
        )
    _, (finding,) = axes(sound(mixing=pair(0.5), gain=latents(0.09)))
    assert finding.code == "rotated"
