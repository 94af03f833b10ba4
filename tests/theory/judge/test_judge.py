"""The judge: three answers by size, rules that read what they name, sentences that follow."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from isoprobe.theory.judge import (
    CODES,
    RULES,
    Answer,
    Evidence,
    Level,
    Measured,
    OtherMetric,
    TriedReading,
    judge,
    used_latents,
    weigh,
)
from isoprobe.theory.tolerances import TOLERANCES
from tests.theory.judge.evidence import N, latents, others, sound


def codes(evidence: Evidence) -> list[str]:
    return [finding.code for finding in judge(evidence).findings]


def test_sound_is_sound() -> None:
    verdict = judge(sound())
    assert verdict.level is Level.SOUND
    assert verdict.findings == ()
    assert all(c.answer is Answer.HOLDS for c in verdict.conditions)


@pytest.mark.parametrize(("size", "error"), [(0.0, 0.05), (0.19, 0.0), (0.3, 0.01), (0.25, 0.06)])
def test_size_decides_and_not_significance(size: float, error: float) -> None:
    answer = weigh("residual", Measured.of(size, error), 63, samples=500).answer
    width, tolerance = 2 * error, TOLERANCES["residual"].value
    expected = (
        Answer.FAILS
        if size - width > tolerance
        else Answer.HOLDS
        if size + width <= tolerance
        else Answer.CANNOT_TELL
    )
    assert answer is expected


def test_what_cannot_be_told_says_how_many_rows_would() -> None:
    condition = weigh("residual", Measured.of(0.1, 0.1), 63, samples=100)
    assert condition.answer is Answer.CANNOT_TELL
    again = Measured.of(0.1, 0.1 * (100 / condition.needed) ** 0.5)
    assert weigh("residual", again, 63, samples=condition.needed).answer is Answer.HOLDS


def test_few_rows_are_undecided_and_accuse_nobody() -> None:
    wide = sound(
        samples=20, residual=latents(0.15, 0.2), gain=latents(0.1, 0.1), second=latents(1.3, 0.4)
    )
    verdict = judge(wide)
    assert verdict.level is Level.UNDECIDED
    assert "20 rows cannot tell" in verdict.meaning


DEFECTS = {
    "beta": {"declared": 2.0},
    "metric": {"declared": 2.0, "metrics": others(sse=1.0, l1=1.97, gaussian=2.0)},
    "data": {"distortion": Measured.of(60.0, 0.5), "second": latents(2.5)},
    "reconstruction": {"distortion": Measured.of(60.0, 0.5)},
    "decoder": {"gain": latents(0.4)},
    "prior": {"second": latents(4.0)},
    "prior elsewhere": {
        "second": latents(9.0),
        "centre": latents(3.0),
        "round_trip": 0.3 * np.eye(N),
        "code_fit": np.ones(N),
    },
    "encoder-mismatched": {"residual": Measured.of([0.01, 0.02, -0.9], 0.005)},
    "disagreement": {"residual": Measured.of([0.5, -0.6, 0.9], 0.005)},
    "fixed-scale": {"residual": Measured.of([0.5, -0.6, 0.9], 0.005), "fixed_scale": True},
    "collapsed": {"used": np.zeros(N, dtype=bool), "rate": np.zeros(N)},
    "own-samples": {"round_trip": 0.3 * np.eye(N), "second": latents(2.5)},
    "rotated": {"mixing": Measured.of(0.5 * (1 - np.eye(N)), 0.01)},
    "turned": {"turn": Measured.of(0.5 * np.tri(N, k=-1) - 0.5 * np.tri(N, k=-1).T, 0.01)},
    "scale-head": {
        "residual": Measured.of([0.5, -0.6, 0.9], 0.005),
        "trials": (
            TriedReading("as read", 10.0, 0.6, 0.5, 3.0),
            TriedReading("the scale head is a log variance", 10.0, 0.03, 0.03, 1.0),
        ),
    },
}


@pytest.mark.parametrize("code", DEFECTS)
def test_each_defect_is_named(code: str) -> None:
    verdict = judge(sound(**DEFECTS[code]))
    assert verdict.level is Level.NOT_SOUND
    named = {"turned": "rotated", "prior elsewhere": "prior"}.get(code, code)
    assert [f.code for f in verdict.findings] == [named]
    assert all(f.evidence and f.advice and f.code in CODES for f in verdict.findings)


def test_a_zeroed_column_is_dead_and_labelled() -> None:
    trip, answer = np.diag([0.95, 0.9, 0.0]), np.array([0.95, 0.9, 0.0])
    verdict = judge(
        sound(
            round_trip=trip,
            answer=Measured.of(answer, 0.005),
            residual=Measured.of([0.0, 0.0, -0.8], 0.005),
        )
    )
    assert [f.code for f in verdict.findings] == ["decoder-dead"]
    assert verdict.labels == ("active", "active", "decoder-dead")


def test_isometry_is_said_of_eigenvalues_alone() -> None:
    assert "like PCA's variances" in judge(sound()).meaning
    mixed = judge(sound(eigenvalues=Measured.of([2.5, 0.9, 0.1], 0.005))).meaning
    assert "like PCA's variances" not in mixed
    assert "2.50 to 0.10" in mixed


def test_two_norms_that_differ_are_both_said() -> None:
    """The table shows norms by the derivative at mu, the judge those by stationarity."""
    assert "derivative at mu" not in judge(sound(beta_pullback=Measured.of(1.01, 0.005))).meaning
    assert "derivative at mu" not in judge(sound(beta_pullback=Measured.of(0.85, 0.1))).meaning
    bent = judge(sound(beta_pullback=Measured.of(0.85, 0.005)))
    assert bent.level is Level.SOUND
    assert "by the decoder's derivative at mu norms are 15% (+-1%) below that" in bent.meaning


def test_structure_silences_beta() -> None:
    assert codes(sound(declared=10.0, distortion=Measured.of(60.0, 0.5))) == ["reconstruction"]


def test_the_nearest_metric_is_named_and_none_of_the_same_family() -> None:
    metrics = others(sse=1.0, gaussian=2.0, l1=1.8, bce=1.98, mse=1.5)
    (finding,) = judge(sound(declared=2.0, metrics=metrics)).findings
    assert "--metric bce or --metric l1" in finding.advice
    assert "gaussian" not in finding.advice
    assert "mse" not in finding.advice
    assert "either beta is off" in finding.advice


def test_beta_metric_and_head_are_named_together_where_all_explain() -> None:
    trials = (
        TriedReading("as read", 10.0, 0.05, 0.06, 1.1),
        TriedReading("the scale head is a log variance", 10.0, 0.04, 0.06, 2.2),
    )
    evidence = sound(declared=2.0, metrics=others(sse=1.0, l1=2.0), trials=trials)
    (finding,) = judge(evidence).findings
    assert finding.causes == ("metric", "beta", "scale-head")
    assert "2, and no worse a fit" in finding.evidence
    (worse,) = judge(replace(evidence, trials=(trials[0], replace(trials[1], moment=0.2)))).findings
    assert "scale-head" not in worse.causes


def test_data_are_doubted_where_something_else_is_half_off() -> None:
    (calm,) = judge(sound(declared=2.0)).findings
    (doubted,) = judge(sound(declared=2.0, gain=latents(0.08))).findings
    assert "data" not in calm.causes
    assert "data" in doubted.causes
    assert "off by +8%" in doubted.evidence


def test_a_prior_with_holes_is_no_defect() -> None:
    holes = sound(round_trip=0.3 * np.eye(N), code_fit=np.ones(N))
    assert judge(holes).level is Level.SOUND
    strangers = replace(holes, code_fit=np.full(N, 0.3))
    assert codes(strangers) == ["own-samples"]
    assert codes(replace(holes, code_fit=np.full(N, np.nan))) == ["own-samples"]


def test_a_metric_that_its_reconstructions_beat_is_named() -> None:
    metrics = {"sse": OtherMetric(1.0, 1.5), "l1": OtherMetric(1.02, 0.5)}
    bad = sound(distortion=Measured.of(60.0, 0.5), metrics=metrics)
    (finding,) = judge(bad).findings
    assert finding.causes[0] == "metric"
    assert "l1 0.5" in finding.evidence
    bad_under_all = replace(bad, metrics={"l1": OtherMetric(1.02, 1.1)})
    assert "metric" not in judge(bad_under_all).findings[0].causes


def test_all_hold_where_each_does_and_one_fails_among_many() -> None:
    """Looking for a failure among ten needs wider intervals than ten that hold by themselves."""
    ten = Measured.of(np.full(10, 0.15), 0.024)  # 2 s.e. to 0.198, 2.9 s.e. to 0.22
    assert weigh("residual", ten, 63, samples=2000).answer is Answer.HOLDS
    above = Measured.of(np.r_[np.zeros(9), 0.26], 0.024)  # 2.9 s.e. to 0.19, 2 s.e. to 0.21
    assert weigh("residual", above, 63, samples=2000).answer is Answer.CANNOT_TELL
    assert weigh("residual", above.at(np.array([9])), 63, samples=2000).answer is Answer.FAILS


def test_weak_latents_are_not_judged_by_gain() -> None:
    variance = np.array([0.05, 0.1, 0.6])
    weak = sound(
        variance=variance,
        answer=Measured.of(1 - variance, 0.005),
        round_trip=np.diag(1 - variance),
        expected_trip=1 - variance,
        gain=Measured.of([0.01, 0.01, 0.2], [0.005, 0.005, 0.01]),
    )
    assert judge(weak).level is Level.SOUND
    assert codes(replace(weak, gain=Measured.of([0.01, 0.2, 0.01], 0.01))) == ["decoder"]


def test_own_samples_are_no_evidence_on_data() -> None:
    verdict = judge(sound(own_draws=True, second=latents(3.0), centre=latents(2.0)))
    assert verdict.level is Level.SOUND


def test_spatial_latents_are_not_judged_by_moments() -> None:
    spatial = sound(spatial=True, second=latents(1.9), mixing=None)
    assert judge(spatial).level is Level.SOUND


def test_idle_latents_stay_out() -> None:
    used = np.array([True, True, False])
    idle = sound(
        used=used,
        residual=Measured.of([0.0, 0.0, -0.5], 0.005),
        gain=Measured.of([0, 0, 9.0], [0.005, 0.005, 0.1]),
    )
    idle = replace(idle, rate=np.array([2, 2, 0.01]), rate_most=np.array([6, 6, 0.3]))
    verdict = judge(idle)
    assert verdict.level is Level.SOUND
    assert verdict.labels[2] == "collapsed"
    assert not verdict.remarks
    rare = judge(replace(idle, rate_most=np.array([6, 6, 9.0])))
    assert (rare.level, rare.labels[2]) == (Level.SOUND, "rare")
    assert [remark.code for remark in rare.remarks] == ["rare"]


def test_used_is_what_moves_or_what_the_decoder_answers_to() -> None:
    spread = Measured.of([0.5, 0.0, 0.0, 0.012], [0.01, 0.0, 0.0, 0.01])
    answer = Measured.of([0.9, 0.0, 0.3, 0.0], 0.01)
    assert used_latents(spread, answer).tolist() == [True, False, True, False]


def test_a_bent_decoder_is_a_remark_and_no_defect() -> None:
    verdict = judge(sound(beta_pullback=Measured.of(1.6, 0.01)))
    assert verdict.level is Level.SOUND
    assert [remark.code for remark in verdict.remarks] == ["curved"]


class Watched:
    """Evidence that notes which keys are read."""

    def __init__(self, evidence: Evidence, read: set[str]) -> None:
        self.__dict__.update(_evidence=evidence, _read=read)

    def __getattr__(self, name: str) -> object:
        if name in {field.name for field in fields(Evidence)}:
            self.__dict__["_read"].add(name)
        return getattr(self.__dict__["_evidence"], name)


COMMON = {"samples", "used", "spatial", "own_draws", "prior", "width", "capacity", "free_bits"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_names_the_evidence_it_reads(rule) -> None:
    read: set[str] = set()
    for changes in [{}, *(defect for code, defect in DEFECTS.items() if code != "collapsed")]:
        rule.apply(Watched(sound(**changes), read))
    assert read - COMMON <= set(rule.keys)
    assert set(rule.keys) <= {field.name for field in fields(Evidence)}


def test_every_tolerance_says_what_it_was_set_on() -> None:
    assert all(t.value > 0 and t.words and t.source for t in TOLERANCES.values())


#: written out, so that no tolerance moves unseen
AGREED = {
    "reconstruction": 1.0,
    "loss": 1.05,
    "residual": 0.2,
    "second": 0.4,
    "centre": 0.6,
    "gain": 0.1,
    "mixing": 0.2,
    "turn": 0.2,
    "beta": 0.12,
    "own_samples": 0.65,
    "own_samples_high": 1.4,
    "reading": 0.5,
    "reading_ratio": 0.4,
    "strong": 0.3,
    "strong_gain": 0.5,
    "other_metric": 0.9,
    "idle_rate": 0.3,
    "rare_rate": 1.0,
    "order": 0.6,
    "dead": 0.05,
    "odd_variance": 0.0001,
    "isometric": 0.15,
    "curved": 1.3,
}


def test_no_tolerance_moves_unseen() -> None:
    assert {name: tolerance.value for name, tolerance in TOLERANCES.items()} == AGREED
