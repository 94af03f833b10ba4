"""The rules of the verdict at their thresholds: just inside, and just outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from isoprobe.theory.diagnosis import Evidence, diagnose

BETA = 0.5
VARIANCE = np.array([0.1, 0.2, 0.4, 1.0])
ROOM = 1 - VARIANCE  # weights 0.9, 0.8, 0.6 of the three latents in use
ACTIVE = np.array([True, True, True, False])


def no_table() -> Mapping[str, float]:
    raise AssertionError("betas under other metrics were asked for, and nothing needs them")


SOUND = Evidence(
    active=ACTIVE,
    mixed=np.array([False, True, False, False]),
    rate=np.array([2.0, 1.0, 0.5, 0.001]),
    variance=VARIANCE,
    stationary=BETA * ROOM,
    stationary_se=np.full(4, 1e-6),
    scaled=BETA * ROOM,
    second_moment=np.ones(4),
    beta=BETA,
    declared=BETA,
    metric="sse",
    table=no_table,
)
UNSURE = replace(SOUND, stationary_se=np.ones(4))  # no latent can be told to be off


def codes(evidence: Evidence) -> list[str]:
    return [finding.code for finding in diagnose(evidence).findings]


def with_third(value: float, base: Evidence = SOUND, **changes: object) -> Evidence:
    """The same, the third latent answering with so many times what its sigma calls for."""
    answer = base.stationary * np.array([1, 1, value, 1])
    return replace(base, **{"stationary": answer, "scaled": answer, **changes})


def test_a_sound_model() -> None:
    found = diagnose(SOUND)
    assert found.sound
    assert found.labels == ("active", "mixed", "active", "collapsed")


def test_collapse_is_a_rate_below_a_tenth_of_a_nat() -> None:
    share = np.array([0.5, 0.3, 0.2, 0.0])
    assert codes(replace(SOUND, rate=0.0999 * share)) == ["collapsed"]
    assert codes(replace(SOUND, rate=0.1001 * share)) == []
    assert codes(replace(SOUND, active=np.zeros(4, bool))) == ["collapsed"]
    assert diagnose(replace(SOUND, rate=0 * share)).labels == ("collapsed",) * 4


def test_a_dead_latent_answers_less_than_a_fiftieth() -> None:
    assert diagnose(with_third(0.0199)).labels[2] == "decoder-dead"
    assert diagnose(with_third(0.0201)).labels[2] == "encoder-mismatched"
    assert "decoder-dead" in codes(with_third(0.0199))
    evidence = diagnose(with_third(0.0199)).findings[0].evidence
    assert "latents 2 " in evidence
    assert "0.4" in evidence


def test_other_data_can_silence_stationarity_alone() -> None:
    assert diagnose(with_third(0.0, scaled=SOUND.scaled)).labels[2] == "encoder-mismatched"
    assert diagnose(with_third(0.0, scaled=None)).labels[2] == "decoder-dead"


def test_a_latent_that_is_hardly_used_is_not_dead() -> None:
    for variance, label in ((0.89, "decoder-dead"), (0.91, "active")):
        changed = np.array([0.1, 0.2, variance, 1.0])
        room = BETA * (1 - changed) * np.array([1, 1, 0, 1])
        found = diagnose(replace(SOUND, variance=changed, stationary=room, scaled=room))
        assert found.labels[2] == label


def test_one_latent_off_by_more_than_its_error_and_the_tolerance() -> None:
    off = 0.301 / 0.6
    for value in (1 + off, 1 - off):
        assert diagnose(with_third(value)).labels[2] == "encoder-mismatched"
        assert codes(with_third(value)) == ["encoder-mismatched"]
    assert diagnose(with_third(1 + 0.299 / 0.6)).labels[2] == "active"
    error = np.full(4, 0.001 * BETA)
    assert diagnose(with_third(1 + off, stationary_se=error)).labels[2] == "active"


def test_many_latents_off_are_no_matter_of_single_ones() -> None:
    answer = BETA * ROOM * np.array([1, 2.0, 0.2, 1])
    found = diagnose(replace(SOUND, stationary=answer, scaled=answer))
    assert found.labels == ("active", "mixed", "active", "collapsed")
    assert [f.code for f in found.findings] == ["undertrained"]


@pytest.mark.parametrize(("second", "single"), [(1.315, True), (1.323, False)])
def test_a_single_latent_stands_out_from_others_that_agree(second: float, single: bool) -> None:
    answer = BETA * ROOM * np.array([1, second, 0.4, 1])  # the others differ by 0.15 on average
    found = diagnose(replace(SOUND, stationary=answer, scaled=answer))
    assert (found.labels[2] == "encoder-mismatched") is single


def test_latents_that_disagree_were_not_trained_to_the_end() -> None:
    wide = 0.2 * 2.3 / 0.6  # weighted by 1 - sigma^2, a fifth on average
    assert codes(with_third(1 + 0.99 * wide, UNSURE)) == []
    assert codes(with_third(1 + 1.01 * wide, UNSURE, scaled=SOUND.scaled)) == ["undertrained"]
    finding = diagnose(with_third(1 + 1.01 * wide, UNSURE)).findings[0]
    assert "20%" in finding.evidence


def test_data_that_do_not_fill_the_prior() -> None:
    for off, expected in ((1.251, ["data"]), (1.249, []), (0.749, ["data"]), (0.751, [])):
        moments = np.array([off, off, off, 9.0])  # a collapsed latent is not judged
        assert codes(replace(SOUND, second_moment=moments)) == expected
    assert "0.26" in diagnose(replace(SOUND, second_moment=np.full(4, 1.26))).findings[0].evidence


@pytest.mark.parametrize("factor", [1 / 1.201, 1 / 0.799])
def test_a_declared_beta_that_does_not_hold(factor: float) -> None:
    declared = BETA * factor
    wrong = replace(SOUND, declared=declared)
    assert codes(replace(wrong, table=dict)) == ["beta"]
    assert codes(replace(wrong, table=lambda: {"sse": declared})) == ["beta"]  # not another one
    near, far = {"mse": 1.199 * declared}, {"mse": 1.201 * declared}
    assert codes(replace(wrong, table=lambda: near)) == ["metric"]
    assert codes(replace(wrong, table=lambda: far)) == ["beta"]
    both = {"l1": declared, "mse": declared}
    assert "use --metric l1" in diagnose(replace(wrong, table=lambda: both)).findings[0].advice


@pytest.mark.parametrize("declared", [BETA / 1.199, BETA / 0.801, None])
def test_a_declared_beta_that_holds_asks_for_no_other_metric(declared: float | None) -> None:
    assert codes(replace(SOUND, declared=declared)) == []


def bent(by: float) -> np.ndarray:
    """Answers by the pullback whose residuals are +by, -by and 0, their pooled beta unchanged."""
    return BETA * (ROOM + by * np.array([1, -1, 0, 0]))


def test_a_decoder_that_bends_within_one_sigma() -> None:
    over, under = bent(0.3 * 1.51), bent(0.3 * 1.49)
    assert codes(replace(SOUND, scaled=over)) == ["curved"]
    assert codes(replace(SOUND, scaled=under)) == []
    rough = with_third(1 + 0.151 * 3 / 0.6, UNSURE, scaled=over)  # stationarity does not hold
    assert "curved" not in codes(rough)
    held = with_third(1 + 0.149 * 3 / 0.6, UNSURE, scaled=over)
    assert "curved" in codes(held)


def test_a_scale_head_read_in_another_way() -> None:
    def read(ours: float, other: float) -> list[str]:
        scaled = BETA * (ROOM + ours)
        reading = (BETA * (ROOM + other), VARIANCE)
        return codes(replace(SOUND, scaled=scaled, readings={"read otherwise": reading}))

    assert read(0.31, 0.10) == ["scale-head"]
    assert "scale-head" not in read(0.31, 0.104)  # less than a third of ours
    assert "scale-head" not in read(0.299, 0.0)
    assert read(0.6, 0.149) == ["scale-head"]
    assert "scale-head" not in read(0.6, 0.151)


def test_the_best_fitting_beta_judges_a_scale_head_where_none_is_declared() -> None:
    wrong, right = bent(0.6), 3 * BETA * ROOM
    found = replace(SOUND, scaled=wrong, declared=None, readings={"as variance": (right, VARIANCE)})
    assert codes(found) == ["scale-head"]
    assert codes(replace(found, declared=BETA)) == ["curved"]


def test_a_decoder_that_calls_for_the_deviations_in_another_order() -> None:
    def called(order: list[float]) -> Evidence:
        wanted = np.array([*order, 1.0])
        answer = BETA * VARIANCE * (1 / wanted - 1)
        return replace(SOUND, scaled=answer, stationary=answer)

    permuted = diagnose(called([0.4, 0.1, 0.2]))
    assert permuted.findings[0].code == "encoder-mismatched"
    assert "undertrained" not in [f.code for f in permuted.findings]
    swapped = diagnose(called([0.2, 0.1, 0.4]))  # too near to the order given
    assert "undertrained" in [f.code for f in swapped.findings]


def test_a_decoder_that_does_not_answer_at_all() -> None:
    answer = BETA * ROOM * np.array([-1, -1, 0.5, 1])
    found = diagnose(replace(SOUND, stationary=answer))
    assert [f.code for f in found.findings] == ["decoder-dead"]
    assert found.labels == ("decoder-dead", "decoder-dead", "encoder-mismatched", "collapsed")
