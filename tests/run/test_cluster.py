"""A cluster makes shards to the bits of one process; what keeps it from that is said in a line."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster

from isoprobe.cli import main
from isoprobe.errors import IsoprobeError, OptionError, ResultError
from isoprobe.results.sweep import Outcome, read_table
from isoprobe.results.working import Visited, Working
from isoprobe.run import merging
from isoprobe.run import sweep as sweeps
from isoprobe.run.cluster import Cluster, Tasks, absolute, make_on_worker, require_seen
from isoprobe.run.merging import run_shards
from isoprobe.run.settings import RunSettings
from isoprobe.run.sweep import sweep
from isoprobe.run.tables import in_turn
from tests.kills import contents_of, model_and_data

ANALYSES = ("isometry", "importance", "anomaly")
ASKED = RunSettings(batch_size=100, threads=1, analyses=ANALYSES, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its rows, and the result and the scores of one process."""
    path = tmp_path_factory.mktemp("cluster")
    model_and_data(path)
    result = run_shards(path / "m.safetensors", str(path / "rows.npy"), ASKED, out=path / "one.h5")
    assert result is not None
    result.close()
    assert score(path, path / "scores.h5") == 0
    return path


def score(folder: Path, out: Path, *more: str) -> int:
    given = ("--data", str(folder / "rows.npy"), "--reference", str(folder / "one.h5"))
    options = ("--batch-size", "100", "--threads", "1", "--out", str(out), *more)
    return main(["score", str(folder / "m.safetensors"), *given, *options])


@pytest.fixture(scope="module")
def here() -> Iterator[Cluster]:
    """A cluster with two workers in this very process: it shows the way of tasks, not of bits."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as local,
        Client(local) as client,
    ):
        yield Cluster(client, "here")


def on(cluster: Cluster, folder: Path, out: Path, **more: Any) -> None:
    given = (folder / "m.safetensors", str(folder / "rows.npy"), ASKED)
    result = run_shards(*given, out=out, cluster=cluster, **more)
    assert result is not None
    result.close()


def test_shards_of_a_cluster_are_those_of_one_process(
    here: Cluster, folder: Path, tmp_path: Path
) -> None:
    on(here, folder, tmp_path / "two.h5")
    assert contents_of(tmp_path / "two.h5") == contents_of(folder / "one.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["two.h5"]


def test_as_many_samples_as_are_enough_too(here: Cluster, folder: Path, tmp_path: Path) -> None:
    given = (folder / "m.safetensors", str(folder / "rows.npy"))
    asked = RunSettings(
        batch_size=100, threads=1, analyses=ANALYSES, samples="auto", tolerance=0.05
    )
    for name, cluster in (("a.h5", None), ("b.h5", here)):
        result = run_shards(*given, asked, out=tmp_path / name, cluster=cluster)
        assert result is not None
        result.close()
    assert contents_of(tmp_path / "a.h5") == contents_of(tmp_path / "b.h5")


def test_scores_of_a_cluster_are_the_file_of_one_process(
    here: Cluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cluster, "connected", lambda address: nullcontext(here))
    monkeypatch.chdir(folder)  # what is typed may be relative; workers need not be here
    assert score(Path(), tmp_path / "s.h5", "--cluster", "here") == 0
    assert (tmp_path / "s.h5").read_bytes() == (folder / "scores.h5").read_bytes()


def test_finished_shards_are_not_made_again(
    here: Cluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.h5"
    made: list[range] = []
    whole = Cluster.make

    def stopping(self: Cluster, work: Any, ranges: Any) -> Iterator[range]:
        made.extend(ranges[:3])
        yield from whole(self, work, ranges[:3])
        raise KeyboardInterrupt

    def counting(self: Cluster, work: Any, ranges: Any) -> Iterator[range]:
        made.extend(ranges)
        return whole(self, work, ranges)

    monkeypatch.setattr(Cluster, "make", stopping)
    with pytest.raises(KeyboardInterrupt):
        on(here, folder, out)
    monkeypatch.setattr(Cluster, "make", counting)
    on(here, folder, out, resume=True)
    assert len({rows.start for rows in made}) == len(made)
    assert contents_of(out) == contents_of(folder / "one.h5")


def test_what_a_worker_does_not_see_is_said_in_a_line(
    here: Cluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(change: Any) -> str:
        whole = merging.ShardWork.opened

        def opened(self: merging.ShardWork) -> Any:
            return whole(change(self))

        with monkeypatch.context() as patch:
            patch.setattr(merging.ShardWork, "opened", opened)
            with pytest.raises(IsoprobeError, match=r"^worker .*: ") as caught:
                on(here, folder, tmp_path / "r.h5")
        shutil.rmtree(tmp_path / "r.h5.partial", ignore_errors=True)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def without(name: str, value: Any) -> Any:
        return lambda work: replace(work, asked=replace(work.asked, **{name: value}))

    assert "/gone/m.safetensors" in refusal(without("model", "/gone/m.safetensors"))
    assert "/gone/rows.npy" in refusal(without("data", "/gone/rows.npy"))
    assert "sees no" in refusal(lambda work: replace(work, target=tmp_path / "elsewhere.h5"))
    other = tmp_path / "other.npy"
    shutil.copy(folder / "rows.npy", other)
    with other.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x11")
    assert "data was 'rows.npy', now 'other.npy'" in refusal(without("data", str(other)))


@pytest.mark.parametrize("made", [[1, 2, 3], [3, 2, 1], [2, 3, 1]])
def test_shards_are_put_together_in_turn_as_they_come(made: list[int]) -> None:
    ranges = [range(k, k + 1) for k in range(5)]
    seen: list[int] = []

    def coming() -> Iterator[range]:
        for place in made:
            seen.append(place)
            yield ranges[place]

    taken = []
    for rows in in_turn(ranges, ranges[1:4], coming()):
        taken.append(rows.start)
        needed = made[
            : max((made.index(k) + 1 for k in range(1, min(rows.start, 3) + 1)), default=0)
        ]
        assert seen == needed  # nothing is waited for that is not next
    assert taken == [0, 1, 2, 3, 4]


def test_a_folder_of_that_name_that_is_not_the_runs_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="every worker sees"):
        require_seen(Visited(tmp_path / "r.h5"), {}, {})


def test_tasks_are_small(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    class Watching(Cluster):
        def make(self, work: Any, ranges: Any) -> Iterator[range]:
            sent.append(len(pickle.dumps(work)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on(Watching(None, ""), folder, tmp_path / "r.h5")  # type: ignore[arg-type]
    assert sent[0] < 16_000


def test_errors_of_the_input_are_not_tried_again_and_others_are(
    here: Cluster, tmp_path: Path
) -> None:
    class Failing:
        device = "cpu"

        def __init__(self, error: type[Exception], times: int) -> None:
            self.error, self.times, self.log = error, times, tmp_path / error.__name__

        def opened(self) -> Any:
            return nullcontext(self.fail)

        def fail(self, rows: range) -> None:
            tried = self.log.read_text() if self.log.exists() else ""
            self.log.write_text(tried + ".")
            if len(tried) < self.times:
                raise self.error("nonsense")

    with pytest.raises(OptionError, match="nonsense"):
        list(here.make(Failing(OptionError, 1), [range(3)]))
    assert (tmp_path / "OptionError").read_text() == "."
    assert list(here.make(Failing(KeyError, 2), [range(3)])) == [range(3)]
    assert (tmp_path / "KeyError").read_text() == "..."
    with pytest.raises(KeyError):
        list(here.make(Failing(KeyError, 100), [range(3)]))


def test_accelerators_are_asked_for_where_workers_have_them() -> None:
    class Known:
        def __init__(self, resources: dict[str, float]) -> None:
            self.resources = resources

        def scheduler_info(self, n_workers: int) -> Any:
            return {"workers": {"a": {"resources": self.resources}}}

    def asked(device: str, resources: dict[str, float]) -> Any:
        return Cluster(Known(resources), "")._resources(device)  # type: ignore[arg-type]

    assert asked("cuda", {"GPU": 1}) == {"GPU": 1}
    assert asked("cuda", {}) is None
    assert asked("cpu", {"GPU": 1}) is None


def test_a_sweep_on_a_cluster_is_that_of_one_process(
    here: Cluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [tmp_path / f"step={k}.safetensors" for k in range(4)]
    for model in models:
        shutil.copy(folder / "m.safetensors", model)
    models[2].write_bytes(b"no weights")
    outcomes = {}
    for name, cluster in (("one", None), ("two", here)):
        given = (models, str(folder / "rows.npy"), ASKED, tmp_path / name)
        outcomes[name] = sweep(*given, cluster=cluster)
    for one, two in zip(outcomes["one"], outcomes["two"], strict=True):
        assert (one.model, one.result, one.steps) == (two.model, two.result, two.steps)
        assert (one.error is None) == (two.error is None)
        if one.result is not None:
            found, expected = (tmp_path / n / one.result for n in ("two", "one"))
            assert contents_of(found) == contents_of(expected)
    assert [o.error is None for o in outcomes["two"]] == [True, True, False, True]
    assert {o.model: o for o in read_table(tmp_path / "two")} == {
        o.model: o for o in outcomes["two"]
    }
    made: list[object] = []
    whole = Tasks.add

    def counting(self: Tasks, name: Any, *call: Any, **how: Any) -> None:
        made.append(name)
        whole(self, name, *call, **how)

    monkeypatch.setattr(Tasks, "add", counting)
    again = sweep(models, given[1], ASKED, tmp_path / "two", resume=True, cluster=here)
    assert made == [(str(models[2]), given[1])]
    assert again[0] == outcomes["two"][0]


def assert_alone(outcome: Outcome, folder: Path) -> None:
    """A pair of a sweep is to the bit what a run of it alone is."""
    alone = folder.parent / f"alone-{outcome.result}"
    result = run_shards(outcome.model, outcome.data, ASKED, out=alone)
    assert result is not None
    result.close()
    assert contents_of(folder / str(outcome.result)) == contents_of(alone)


@pytest.mark.parametrize("patience", [0.0, 3600.0])
def test_many_checkpoints_on_many_data_sets_are_one_graph(
    here: Cluster,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
) -> None:
    """Each pair is a task, or tasks of its shards where it takes long; no bit depends on which."""
    models = [tmp_path / f"step={k}.safetensors" for k in range(2)]
    for model in models:
        shutil.copy(folder / "m.safetensors", model)
    rows = np.load(folder / "rows.npy")
    sets = [str(tmp_path / f"{name}.npy") for name in ("train", "test", "wide")]
    for path, values in zip(sets, (rows, rows[::-2], np.ones((900, 99))), strict=True):
        np.save(path, values)
    calls: list[Any] = []
    whole = Tasks.add

    def counting(self: Tasks, name: Any, function: Any, *call: Any, **how: Any) -> None:
        calls.append(function)
        whole(self, name, function, *call, **how)

    monkeypatch.setattr(Tasks, "add", counting)
    monkeypatch.setattr(sweeps, "PATIENCE", patience)
    done = sweep(models, sets, ASKED, tmp_path / "two", cluster=here)
    assert [(o.model, o.data) for o in done] == [(str(m), s) for m in models for s in sets]
    assert (make_on_worker in calls) == (patience == 0)
    names = ["step=0-train.h5", "step=0-test.h5", None, "step=1-train.h5", "step=1-test.h5", None]
    assert [outcome.result for outcome in done] == names
    for outcome in done:
        if outcome.result is None:
            assert "99" in str(outcome.error)
            continue
        assert_alone(outcome, tmp_path / "two")
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(
        ["sweep.json", *filter(None, names)]
    )


def test_a_shard_that_fails_fails_its_pair_alone(
    here: Cluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.tile(np.load(folder / "rows.npy"), (6, 1))  # 9,000
    np.save(tmp_path / "good.npy", rows)
    rows[4001] = np.nan  # neither met while the pair is opened nor in its first shard
    np.save(tmp_path / "bad.npy", rows)
    monkeypatch.setattr(sweeps, "PATIENCE", 0.0)
    dropped: list[Any] = []
    whole = Tasks.drop

    def dropping(self: Tasks, name: Any) -> None:
        dropped.append(name)
        whole(self, name)

    monkeypatch.setattr(Tasks, "drop", dropping)
    sets = [str(tmp_path / f"{name}.npy") for name in ("good", "bad")]
    given = ([folder / "m.safetensors"], sets, replace(ASKED, samples=None), tmp_path / "two")
    good, bad = sweep(*given, cluster=here)
    assert dropped == [bad.pair]
    assert (good.error, good.result) == (None, "m-good.h5")
    assert bad.result is None
    assert "4001" in str(bad.error)
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["m-good.h5", "sweep.json"]


def test_shards_stay_where_the_mistake_is_not_in_the_input(
    here: Cluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a full disk: what is there need not be made again."""

    def failing(work: Any, token: str, rows: range) -> IsoprobeError | None:
        assert make_on_worker(work, token, rows) is None
        return ResultError("no space left on device")

    monkeypatch.setattr(sweeps, "PATIENCE", 0.0)
    monkeypatch.setattr(sweeps, "make_on_worker", failing)
    given = ([folder / "m.safetensors"], str(folder / "rows.npy"), ASKED, tmp_path / "two")
    (left,) = sweep(*given, cluster=here)
    assert "no space" in str(left.error)
    assert list((tmp_path / "two" / "m.h5.partial").glob("*.shard")) != []


def test_a_sweep_goes_on_where_the_scheduler_died(
    here: Cluster, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of a pair that was not finished are there, and are not made again."""
    rows = np.load(folder / "rows.npy")
    sets = [str(tmp_path / f"{name}.npy") for name in ("a", "b")]
    for path in sets:
        np.save(path, rows)
    monkeypatch.setattr(sweeps, "PATIENCE", 0.0)
    given = ([folder / "m.safetensors"], sets, ASKED, tmp_path / "two")
    whole, ended = Tasks._returned, []

    def dying(self: Tasks, future: Any) -> Any:
        found = whole(self, future)
        ended.append(found)
        if ended.count(None) == 5:
            raise ResultError("the scheduler at here is gone")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Tasks, "_returned", dying)
        with pytest.raises(ResultError, match="scheduler"):
            sweep(*given, cluster=here)
    left = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("*/*.shard")}
    assert len(left) >= 5
    kept: dict[Path, int] = {}
    publish = Working.publish

    def looking(self: Working, assembled: Path) -> None:
        kept.update({path: path.stat().st_mtime_ns for path in self.folder.glob("*.shard")})
        publish(self, assembled)

    monkeypatch.setattr(Working, "publish", looking)
    done = sweep(*given, cluster=here, resume=True)
    assert {path: kept.get(path) for path in left} == left
    for outcome in done:
        assert_alone(outcome, tmp_path / "two")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--cluster", "local:0", "--out", "r.h5"), "local:N"),
        (("--cluster", "local", "--out", "r.h5"), "local:N"),
        (("--cluster", "local:2"), "--out F.h5"),
        (("--cluster", "local:2", "--out", "r.h5", "--shard", "1/2"), "exclude each other"),
        (("--cluster", "nonsense://x", "--out", "r.h5"), "no scheduler answers"),
    ],
)
def test_options_that_cannot_be(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("analyze", str(folder / "m.safetensors"), "--data", str(folder / "rows.npy"))
    assert main([*given, *more]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_scores_of_a_cluster_need_a_file_made_of_shards(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(folder, tmp_path / "s.csv", "--cluster", "local:2") == 1
    assert "--out FILE.h5" in capsys.readouterr().err


def test_a_missing_library_is_named(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert score(folder, tmp_path / "s.h5", "--cluster", "local:2") == 1
    assert "pip install 'isoprobe[cluster]'" in capsys.readouterr().err


def test_names_of_data_sets_and_members_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").touch()
    assert absolute("a.npz:x,y") == f"{tmp_path.resolve()}/a.npz:x,y"
    assert absolute("a.npz") == f"{tmp_path.resolve()}/a.npz"
    assert absolute("toy/mix:samples=10") == "toy/mix:samples=10"
    assert absolute("prior") == "prior"


def trim() -> str | None:
    """How a worker's process was told to give memory back."""
    return os.environ.get("MALLOC_TRIM_THRESHOLD_")


def environment() -> dict[str, str]:
    """This process's, without what dask keeps there of itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("__DASK")}


def test_workers_here_keep_the_memory_of_a_batch_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = environment()
    with Cluster.connected("local:1") as cluster, cluster.tasks("cpu") as tasks:
        tasks.add("trim", trim)
        assert list(tasks) == [("trim", None)]
    assert environment() == before


def test_two_processes_are_lent_to_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.h5"
    given = ("--data", str(folder / "rows.npy"), "--reference", str(folder / "one.h5"))
    options = ("--batch-size", "100", "--out", str(out), "--cluster", "local:2")
    command = [sys.executable, "-m", "isoprobe", "score", str(folder / "m.safetensors")]
    done = subprocess.run([*command, *given, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == (folder / "scores.h5").read_bytes()
