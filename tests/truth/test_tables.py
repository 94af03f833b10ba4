from __future__ import annotations

import math

import pytest

from benchmarks.truth.run import MARK, append_log, log_line
from benchmarks.truth.tables import Run, Z, bars, confusion, share, wilson


def made(group: str, outcome: str, *, n: int = 2000, half: int = 2) -> Run:
    return Run(
        case=f"{outcome} {group}",
        model="m",
        group=group,
        half=half,
        part="train",
        n=n,
        draw=0,
        level="sound",
        findings=(),
        causes=(),
        right=(),
        outcome=outcome,
        text="",
        seconds=0.1,
    )


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (1, 40), (21, 41), (300, 300), (999, 1000)])
def test_wilson_ends_are_the_shares_that_the_score_test_just_keeps(hits: int, trials: int) -> None:
    for end in wilson(hits, trials):
        distance = (hits / trials - end) ** 2
        assert distance == pytest.approx(Z**2 * end * (1 - end) / trials, abs=1e-12)


def test_wilson_holds_the_share_and_narrows_as_trials_grow() -> None:
    widths = []
    for trials in (10, 100, 1000):
        low, high = wilson(trials // 2, trials)
        assert low < 0.5 < high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] == pytest.approx(2 * Z * math.sqrt(0.25 / 1000), rel=0.01)


def test_the_matrix_counts_each_run_once_and_keeps_snapshots_apart() -> None:
    runs = [
        *[made("sound", "sound")] * 3,
        made("sound", "accused"),
        *[made("data", "named")] * 2,
        made("data", "other"),
        made("random", "sound"),
        made("training", "sound"),
    ]
    text = "\n".join(confusion(runs))
    rows = {line.split("  ")[0]: line for line in text.splitlines() if line}
    assert share(3, 4) in rows["sound"]
    assert rows["all"].split()[2] == "4"
    assert share(2, 4) in rows["all"]
    assert share(2, 3) in rows["data"]
    assert rows["training"].split()[2] == "1"


def test_bars_hold_and_fail_by_their_shares() -> None:
    good = [made("sound", "sound", n=n) for n in (20, 200, 2000) for _ in range(60)]
    good += [made("data", "named")] * 40
    assert all(line.endswith("holds") for line in bars(good))
    bad = [*good, *[made("sound", "accused", n=200)] * 2, *[made("data", "sound")] * 2]
    failing = [line for line in bars(bad) if line.endswith("FAILS")]
    assert [line.split(",")[0] for line in failing] == [
        "models as they are not accused",
        "faults not called sound",
    ]


def test_snapshots_are_in_no_bar() -> None:
    assert list(bars([made("training", "sound")] * 5)) == []


def test_a_run_is_logged_above_the_mark(tmp_path) -> None:
    page = tmp_path / "trust.md"
    page.write_text(f"| head |\n{MARK}\nend\n")
    runs = [made("sound", "sound"), made("data", "named"), made("data", "other")]
    line = log_line(runs, "abc123", "2026-01-02")
    append_log(line, page)
    assert page.read_text() == f"| head |\n{line}\n{MARK}\nend\n"
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["2026-01-02", "abc123", "3", "-", "-", "100.0", "0.0", "50.0", "0.0", "50.0"]


def test_a_log_without_its_mark_is_refused(tmp_path) -> None:
    page = tmp_path / "trust.md"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no line"):
        append_log("| row |", page)
