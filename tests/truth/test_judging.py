from __future__ import annotations

import pytest

import isoprobe
from benchmarks.truth import cases, run
from benchmarks.truth.judging import LEVELS, NAMED, causes, judged, outcome
from benchmarks.truth.run import Work, chosen_cases, judge, subsample


def case(name: str):
    return next(c for c in cases.cases() if c.name == name)


@pytest.mark.parametrize(
    ("level", "named", "harmless", "wanted"),
    [
        ("sound", set(), False, "sound"),
        ("sound", set(), True, "named"),
        ("accused", {"data", "head"}, False, "named"),
        ("accused", {"beta"}, False, "other"),
        ("undecided", set(), False, "undecided"),
        ("undecided", {"data"}, False, "named"),
        ("refused", {"data"}, False, "named"),
        ("refused", set(), False, "other"),
    ],
)
def test_outcomes_of_a_fault_in_the_data(level, named, harmless, wanted) -> None:
    assert outcome(level, frozenset(named), frozenset({"data"}), harmless=harmless) == wanted


def test_findings_name_causes_and_unknown_ones_are_read_by_their_words() -> None:
    assert causes(["beta"], "") == NAMED["beta"]
    assert causes(["beta", "scale-head"], "") == {"beta", "head"}
    assert "rotation" in causes(["something new"], "the latents are rotated")
    assert causes([], "metric 'bce' needs values in [0, 1]; row 0 has [0, 255].") == {"data"}


def test_a_closed_form_model_is_not_accused_and_a_wrong_beta_is_named() -> None:
    s = cases.ready(case("linear-sse-1 on train"))
    vae, more = cases.declared(s)
    with isoprobe.analyze(vae, s.rows[:2000], samples=None, **more) as result:
        level, names, _ = judged(result)
    assert level in LEVELS
    assert (level, names) == ("sound", [])
    wrong = cases.Case(
        "wrong beta", "linear-sse-1", "declared beta", causes=frozenset({"beta"}),
        deformation=next(d for d in cases.DEFORMATIONS if d.name == "beta x 10.0"),
    )  # fmt: skip
    (found,) = judge(Work(wrong, (2000,)))
    assert found.outcome == "named"


def test_models_as_they_are_are_judged_on_several_subsamples() -> None:
    found = judge(Work(case("linear-sse-1 on test"), (20, 200)))
    assert [(r.n, r.draw) for r in found] == [
        (n, draw) for n in (20, 200) for draw in range(run.DRAWS[n])
    ]


def test_subsamples_are_fixed_distinct_and_whole_where_rows_are_few() -> None:
    c = case("linear-sse-1 on test")
    first = subsample(c, 1000, 20, 0)
    assert (first == subsample(c, 1000, 20, 0)).all()
    assert len(set(first)) == 20
    assert (first != subsample(c, 1000, 20, 1)).any()
    assert len(subsample(c, 15, 20, 0)) == 15


def test_an_error_is_a_refusal_and_a_missing_file_leaves_the_case_out(
    monkeypatch, tmp_path
) -> None:
    # a fault that bce refuses outright
    refusing = next(
        c for c in cases.cases()
        if c.deformation and c.deformation.name == "0..255 for 0..1" and "digits" in c.model
    ) if any(
        c.deformation and c.deformation.name == "0..255 for 0..1" and "digits-bce" in c.model
        for c in cases.cases()
    ) else cases.Case(
        "bytes", "digits-bce-1", "data", causes=frozenset({"data"}),
        deformation=next(d for d in cases.DEFORMATIONS if d.name == "0..255 for 0..1"),
    )  # fmt: skip
    (found,) = judge(Work(refusing, (20,)))
    assert (found.level, found.outcome) == ("refused", "named")
    monkeypatch.setenv("ISOPROBE_SHARED", str(tmp_path))
    cases.data.rows.cache_clear()
    try:
        assert "is missing" in judge(Work(case("thyroid-sse-0.5 on train"), (20,)))
    finally:
        cases.data.rows.cache_clear()


def test_halves_share_no_case_and_together_are_all() -> None:
    first, second, both = (
        {c.name for c in chosen_cases(half)} for half in ("first", "second", "both")
    )
    assert not first & second
    assert first | second == both
    assert len(chosen_cases("first", quick=True)) < len(first) / 5


def test_the_second_half_is_refused_with_local_changes(monkeypatch) -> None:
    monkeypatch.setattr(run, "_git", lambda *words: " M isoprobe/x.py")
    with pytest.raises(SystemExit, match="commit these changes first"):
        run.commit()
