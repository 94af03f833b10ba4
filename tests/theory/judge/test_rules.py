"""The judgement as a whole: labels, order, levels, and remarks on what is no defect."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.theory.judge import RULES, Finding, Level, Measured, judge
from tests.theory.judge.evidence import exact, sound, which


def test_each_latent_has_one_label() -> None:
    five = sound(
        (0.1, 0.1, 0.1, 1.0, 1.0),
        used=which(0, 1, 2, n=5),
        mixed=which(1, 3, 4, n=5),
        rate=np.array([2, 2, 2, 0.25, 0.25]),
        rate_most=np.array([9, 9, 9, 1.26, 1.24]),
    )
    assert judge(five).labels == ("active", "mixed", "active", "rare", "collapsed")


@pytest.mark.parametrize("name", ["mixed", "held"])
def test_states_are_of_as_many_latents(name: str) -> None:
    with pytest.raises(ValueError, match="argument 2 is"):
        judge(sound(**{name: which(n=1)}))


def test_rare_is_a_nat_above_the_mean_in_an_idle_latent() -> None:
    def label(most: float, **changes: object) -> str:
        e = sound(
            used=which(0, 1),
            rate=np.array([2, 2, 0.25]),
            rate_most=np.array([9, 9, most]),
            **changes,
        )
        return judge(e).labels[2]

    assert label(1.2501) == "rare"
    assert label(1.25) == "collapsed"
    # those that free bits hold are neither
    assert label(9.0, held=which(2)) == "active"
    assert label(9.0, held=which()) == "rare"
    assert label(0.3, held=which()) == "collapsed"


def test_findings_label_their_latents() -> None:
    odd = judge(sound((0.05, 0.1, 0.2, 0.3), residual=exact(0, 0, 0, -0.5)))
    assert odd.labels == ("active", "active", "active", "encoder-mismatched")
    # a finding that is no state of a latent leaves its label
    decoder = judge(sound(gain=exact(0, 0, 0.5)))
    assert [(f.code, f.latents) for f in decoder.findings] == [("decoder", (2,))]
    assert decoder.labels == ("active", "active", "active")


def test_the_first_rule_that_finds_something_is_the_last_that_is_asked() -> None:
    off = {
        "declared beta": {"declared": 2.0},
        "axes": {"turn": Measured.of(np.triu(np.full((3, 3), 0.5), 1))},
        "gains": {"gain": exact(0.5, 0, 0)},
        "responses": {"residual": exact(0.5, 0, 0)},
        "moments": {"second": exact(2, 1, 1)},
    }
    codes = {
        "declared beta": (
            "beta",
            ["reconstruction", "second", "centre", "residual", "gain", "beta"],
        ),
        "axes": ("rotated", ["reconstruction", "second", "centre", "residual", "gain", "turn"]),
        "gains": ("rotated", ["reconstruction", "second", "centre", "residual", "gain"]),
        "responses": ("encoder-mismatched", ["reconstruction", "second", "centre", "residual"]),
        "moments": ("data", ["reconstruction", "second", "centre"]),
    }
    changes: dict[str, object] = {}
    for rule, change in off.items():
        changes |= change
        verdict = judge(sound(**changes))
        code, conditions = codes[rule]
        assert [f.code for f in verdict.findings] == [code]
        assert [c.name for c in verdict.conditions] == conditions
    assert [rule.name for rule in RULES] == ["structure", "head", *reversed(off)]


def test_the_level_is_the_worst_that_is_said() -> None:
    assert judge(sound()).level is Level.SOUND
    doubt = {"gain": Measured.of([0.12, 0, 0], 0.02)}
    undecided = judge(sound(**doubt))
    assert (undecided.level, undecided.findings) == (Level.UNDECIDED, ())
    assert "cannot tell about the decoder's gain" in undecided.meaning
    assert judge(sound(**doubt, declared=9.0)).level is Level.NOT_SOUND
    assert "What was found comes before" in judge(sound(declared=9.0)).meaning


def collapsed(**changes: object) -> Finding:
    verdict = judge(sound(used=which(), **changes))
    assert (verdict.level, verdict.conditions, verdict.remarks) == (Level.NOT_SOUND, (), ())
    assert verdict.meaning == "None of 3 latents is used."
    (finding,) = verdict.findings
    assert finding.code == "collapsed"
    return finding


CHECK = (
    "check the preprocessing and the reading of the scale head ('isoprobe doctor MODEL --data "
    "SPEC' tries readings); if those are right, beta was too large for the data's variance (above "
    "2 Var(y)), or training fell into collapse"
)


def test_a_collapsed_model_is_on_the_prior_or_rests_off_it() -> None:
    on = collapsed(rate=np.array([0.1, 0.1, 0.0999]))
    assert on.causes == ("collapsed", "scale-head", "data")
    assert on.evidence == (
        "the rate is 0.3 nats over 3 latents, and no latent's mean moves: the encoder gives the "
        "same answer whatever it sees"
    )
    assert on.advice == CHECK
    off = collapsed(rate=np.array([0.1, 0.1, 0.1001]), variance=np.array([0.5, 0.6, 0.7]))
    assert off.causes == ("collapsed", "scale-head", "data", "objective", "idle")
    assert off.evidence == f"{on.evidence}, yet not the prior (sigma^2 0.5, 0.6, 0.7)"
    assert off.advice == f"{CHECK}, held off the prior by a capacity or free-bits term"


def remarks(**changes: object) -> list[Finding]:
    verdict = judge(sound(**changes))
    assert verdict.level is Level.SOUND
    return list(verdict.remarks)


def test_a_sound_model_needs_no_remark_and_a_defect_silences_all() -> None:
    assert remarks() == []
    assert remarks(beta_pullback=None) == []
    assert judge(sound(declared=9.0, capacity=5.0, objective="held")).remarks == ()


@pytest.mark.parametrize(
    ("pullback", "said"),
    [(0.26 * 1.31, "1.31"), (0.26 * 1.29, ""), (0.26 / 1.29, ""), (0.26 / 1.31, "0.76")],
)
def test_a_bend_is_remarked_on_from_a_ratio_on(pullback: float, said: str) -> None:
    found = remarks(
        beta=Measured.of(0.26, 0.001), declared=None, beta_pullback=Measured.of(pullback, 0.001)
    )
    if not said:
        assert found == []
        return
    (remark,) = found
    assert (remark.code, remark.causes) == ("curved", ("curved",))
    assert remark.evidence.startswith(f"beta by the pullback is {said} times beta by stationarity")
    assert remark.advice.startswith("trust the stationary figures")


def test_single_rows_that_use_an_idle_latent_are_remarked_on() -> None:
    e: dict[str, object] = {
        "used": which(1),
        "rate": np.array([0.02, 2, 0.03]),
        "rate_most": np.array([4.0, 9, 3.0]),
    }
    (remark,) = remarks(**e)
    assert (remark.code, remark.causes, remark.latents) == ("rare", ("rare",), (0, 2))
    assert remark.evidence == (
        "latents 0, 2 count as idle, and yet single rows use them (up to 4, 3 nats in a row, 0.02, "
        "0.03 on average)"
    )


def test_a_capacity_is_remarked_on_with_its_rate_and_beta() -> None:
    (remark,) = remarks(
        capacity=6.0, free_bits=0.5, objective="a capacity loss", rate=np.array([1.0, 2.0, 3.25])
    )
    assert (remark.code, remark.causes, remark.latents) == ("constraint", ("objective",), ())
    assert remark.evidence == (
        "the objective is a capacity loss: E KL is 6.25 nats, and beta 1 is the weight of the KL "
        "that balances the distortion there"
    )
    assert remark.advice.startswith("read beta as the slope of distortion against rate")


@pytest.mark.parametrize("held", [None, which()])
def test_free_bits_are_remarked_on_with_beta(held: np.ndarray | None) -> None:
    (remark,) = remarks(free_bits=0.5, objective="free bits", held=held)
    assert (remark.code, remark.causes, remark.latents) == ("constraint", ("objective",), ())
    assert remark.evidence == "the objective is free bits: beta 1 is that of latents above it"
    assert remark.advice.startswith("norms and importances of latents at the floor")


def test_free_bits_name_the_latents_that_rest_at_the_floor() -> None:
    (remark,) = remarks(free_bits=0.5, objective="free bits", used=which(1), held=which(0, 2))
    assert remark.latents == (0, 2)
    assert remark.evidence == (
        "the objective is free bits: beta 1 is that of latents above it; latents 0, 2 rest there "
        "and are not judged"
    )


def test_held_latents_are_active_whatever_they_do() -> None:
    verdict = judge(sound(free_bits=0.5, used=which(1), mixed=which(1), held=which(0)))
    assert verdict.labels == ("active", "mixed", "rare")
