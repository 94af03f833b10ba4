"""A plan adds up what was measured, and is of the job that would be done."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from isoprobe.cli import main
from isoprobe.run.merging import run_shards
from isoprobe.run.plan import TASK, Plan, plan_analysis, plan_scores
from isoprobe.run.settings import RunSettings, ScoreSettings
from isoprobe.run.sweep import PATIENCE
from tests.kills import model_and_data

#: ten shards of 100 samples, 1 s a sample
PLAN = Plan(
    ranges=[range(k, k + 100) for k in range(0, 1000, 100)],
    measured=200,
    opening=5.0,
    sample=1.0,
    shard=0.5,
    merge=0.25,
    result=3.0,
    result_sample=0.01,
    state_bytes=1000,
    sample_bytes=8.0,
    input_bytes=48,
    model_bytes=10_000,
    task_bytes=700,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its rows, and a reference for scores."""
    path = tmp_path_factory.mktemp("plan")
    model_and_data(path)
    arguments = ["analyze", str(path / "m.safetensors"), "--data", str(path / "rows.npy")]
    more = ["--samples", "200", "--analysis", "anomaly", "--out", str(path / "reference.h5")]
    assert main([*arguments, *more]) == 0
    return path


def test_the_sums_are_those_of_the_documentation() -> None:
    """Each term by hand: opening, rows, shards, merges, the result; and three shards a worker."""
    concluding = 10 * 0.25 + 3.0 + 1000 * 0.01
    assert PLAN.alone() == pytest.approx(5.0 + 1000 * 1.0 + 10 * 0.5 + concluding)
    asking = 5.0 + 10 * TASK + concluding
    for workers, shards_of_one in ((1, 10), (3, 4), (4, 3), (10, 1), (64, 1)):
        made = 5.0 + shards_of_one * (100 * 1.0 + 0.5)
        assert PLAN.on(workers) == pytest.approx(asking + made)
    assert PLAN.bytes_moved(4) == {
        "data": 48_000, "checkpoints": 40_000, "shards": 10 * 1000 + 8000, "tasks": 7000,
    }  # fmt: skip


def test_what_is_put_together_meanwhile_takes_no_time_of_its_own() -> None:
    """But for the last shard, or where the asking process has more to do than the workers."""
    scores = replace(PLAN, merge=0.0, result=0.0, beside=True)
    begun = 5.0 + 10 * TASK
    assert scores.on(10) == pytest.approx(begun + 5.0 + 100.5 + 100 * 0.01)
    slow = replace(scores, result_sample=0.5)
    assert slow.on(10) == pytest.approx(begun + 1000 * 0.5)
    assert slow.on(1) == pytest.approx(begun + 5.0 + 1005.0 + 100 * 0.5)


def test_checkpoints_are_a_task_each() -> None:
    quick = replace(PLAN, sample=0.001, opening=0.1)
    many = replace(quick, checkpoints=7)
    assert many.alone() == pytest.approx(7 * quick.alone())
    assert many.on(3) == pytest.approx(3 * quick.alone() + 7 * TASK)
    assert many.workers() == [1, 2, 4, 7]


def test_checkpoints_that_take_long_are_split() -> None:
    """All that is to be done is shared, and no worker is idle while another has shards."""
    many = replace(PLAN, checkpoints=7)
    assert many.workers() == [1, 2, 4, 8, 16, 32, 64, 70]
    assert many.on(1) == pytest.approx(7 * PLAN.alone() + 7 * TASK)
    each = PLAN.alone() + 12 * TASK + 2 * 5.0 + PATIENCE  # 30 s of the first shard are lost
    assert many.on(4) == pytest.approx(7 * (each + 4 * 5.0) / 4)
    assert many.on(70) == pytest.approx(PLAN.on(70) + 2 * 5.0 + PATIENCE)
    times = [many.on(count) for count in many.workers()]
    assert sorted(times, reverse=True) == times


@pytest.mark.parametrize("tasks", [1, 2, 3, 10, 5000])
def test_no_more_workers_than_tasks_are_told_of(tasks: int) -> None:
    plan = replace(PLAN, ranges=[range(k, k + 1) for k in range(tasks)])
    workers = plan.workers()
    assert workers[0] == 1 and workers[-1] == min(tasks, 1024)
    assert sorted(set(workers)) == workers
    times = [plan.on(count) for count in workers]
    assert sorted(times, reverse=True) == times


def test_it_is_of_the_job_that_would_be_done(folder: Path, tmp_path: Path) -> None:
    asked = RunSettings(samples=1500, batch_size=100, threads=1, analyses=("isometry", "anomaly"))
    given = (str(folder / "rows.npy"), asked)
    plan = plan_analysis([folder / "m.safetensors"], *given)
    out = tmp_path / "r.h5"
    result = run_shards(folder / "m.safetensors", *given, out=out)
    assert result is not None
    with result:
        assert (plan.samples, plan.most) == (result.attrs["samples"], False)
    assert plan.input_bytes == 12 * 4
    assert plan.model_bytes == (folder / "m.safetensors").stat().st_size
    assert min(plan.opening, plan.sample, plan.shard, plan.merge, plan.result) > 0
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


@pytest.mark.parametrize("samples", ["auto", "7", "all"])
def test_the_command_prints_it_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], samples: str
) -> None:
    before = sorted(p.name for p in folder.iterdir())
    line = ["analyze", str(folder / "m.safetensors"), "--data", str(folder / "rows.npy")]
    assert main([*line, "--samples", samples, "--plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == (7 if samples == "7" else 1500)
    assert found["most"] is (samples == "auto")
    assert [w["workers"] for w in found["workers"]][-1] == found["shards"]
    assert main([*line, "--samples", samples, "--plan"]) == 0
    assert "no cluster" in capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize("out", [[], ["--out", "scores/"]])
def test_scores_too(folder: Path, capsys: pytest.CaptureFixture[str], out: list[str]) -> None:
    before = sorted(p.name for p in folder.iterdir())
    line = ["score", str(folder / "m.safetensors"), "--data", str(folder / "rows.npy")]
    line += ["--reference", str(folder / "reference.h5"), "--batch-size", "100", "--plan", *out]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "1,500 samples in 8 shards of up to 200" in said
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize("fdr", [None, 0.1])
def test_scores_wait_for_all_shards_where_every_p_value_is_needed(
    folder: Path, fdr: float | None
) -> None:
    given = (folder / "m.safetensors", str(folder / "rows.npy"), folder / "reference.h5")
    plan = plan_scores(*given, ScoreSettings(batch_size=100, fdr=fdr), parts=False)
    assert plan.beside is (fdr is None)
