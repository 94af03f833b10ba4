"""Several processes: the bits of one, whatever dies on the way, or one line saying why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from isoprobe.api import analyze
from isoprobe.checkpoints.native import (
    FORMAT_VERSION,
    Manifest,
    Objective,
    vae_from_networks,
    write_checkpoint,
)
from isoprobe.cli import main
from isoprobe.contracts import VAE, Analysis, Dataset, Facts, Variable
from isoprobe.errors import IsoprobeError, OptionError, PluginError, ResultError
from isoprobe.results.reader import Result
from isoprobe.results.shard import Shard, ShardWriter
from isoprobe.run import merging as sharding
from isoprobe.run import shards as plans
from isoprobe.run.engine import Pass
from isoprobe.run.processes import Process
from isoprobe.run.settings import RunSettings
from isoprobe.run.shards import Part, in_order, planned
from isoprobe_plugins.architectures.mlp import Mlp
from tests import configs

PIXELS, LATENTS, SAMPLES = 6, 3, 301
CONFIG = configs.mlp(PIXELS, latents=LATENTS, output="sigmoid")
ANALYSES = (
    "isometry",
    "importance",
    "diagnosis",
    "density:volume=general",
    "anomaly",
    "rate-distortion",
    "coordinates",
    "traversal:at=200",
)
SETTINGS: dict[str, Any] = {
    "metric": "bce",
    "beta": "auto",
    "analyses": ANALYSES,
    "dtype": "float64",
    "samples": None,
    "device": "cpu",
    "batch_size": 32,
}


class Labelled(Dataset):
    """Rows of which every ninth is an anomaly."""

    name, shape, dtype = "labelled", (PIXELS,), "float64"

    def __len__(self) -> int:
        return SAMPLES

    def read(self, indices: np.ndarray) -> np.ndarray:
        rows = np.random.default_rng(0).random((SAMPLES, PIXELS))
        return rows[indices]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return (indices % 9 == 0).astype(np.int64)

    def fingerprint(self) -> str:
        return "labelled rows"


def model() -> VAE:
    """A model with active latents."""
    torch.manual_seed(0)
    networks = Mlp().build(CONFIG)
    with torch.no_grad():
        for parameter in networks.encoder.parameters():
            parameter.mul_(2)
    facts = Facts(metric="bce")
    return vae_from_networks(networks, facts, name="m", adapter="a", sha256="")


@pytest.fixture(scope="module", autouse=True)
def _small_shards() -> Iterator[None]:
    """A shard of one batch at least, so that few samples make many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "_LEAST", 1)
        patch.setattr(plans, "_PIECES", 1000)
        yield


@pytest.fixture
def usual_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards as long as they are for a user."""
    monkeypatch.setattr(plans, "_LEAST", 128)
    monkeypatch.setattr(plans, "_PIECES", 8)


def sharded(count: int, out: Path, **changes: Any) -> Result:
    """The result of an analysis done in shares, made in no good order."""
    settings = {**SETTINGS, **changes}
    for k in range(count, 0, -1):
        folder = sharding.analyze_shard(Part(k, count), model(), Labelled(), out=out, **settings)
    return sharding.merge([folder], model(), Labelled(), out=out, **settings)


def together(rank: int, count: int, out: Path, **changes: Any) -> Result | None:
    """What one of several processes does."""
    settings = RunSettings(**{**SETTINGS, **changes})
    process = Process(rank, count, rank)
    return sharding.run_shards(model(), Labelled(), settings, out=out, process=process)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    out = tmp_path_factory.mktemp("whole") / "r.h5"
    with analyze(model(), Labelled(), out=out, **SETTINGS) as result:
        yield result


def require_same(found: Result, expected: Result) -> None:
    """Every attribute, every array with its description, every row, to the last bit."""
    for name in (expected.attrs.keys() | found.attrs.keys()) - {"output"}:
        assert found.attrs[name] == expected.attrs[name], name
    assert found.groups() == expected.groups()
    for group in expected.groups():
        assert set(found[group]) == set(expected[group])
        for name, variable in expected[group].items():
            other = found[group][name]
            assert (other.dims, other.long_name, other.units, other.equation) == (
                variable.dims,
                variable.long_name,
                variable.units,
                variable.equation,
            )
            a, b = np.asarray(other.values), np.asarray(variable.values)
            assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{group}/{name}"
            same = a.tolist() == b.tolist() if a.dtype.kind == "O" else a.tobytes() == b.tobytes()
            assert same, f"{group}/{name}"


@pytest.mark.parametrize("count", [1, 2, 8])
def test_processes_together_give_the_result_of_one(
    whole: Result, tmp_path: Path, count: int
) -> None:
    with sharded(count, tmp_path / "r.h5") as merged:
        require_same(merged, whole)
        assert {"anomaly", "density", "diagnosis", "coordinates"} <= set(merged.groups())
        assert merged["anomaly"]["auroc"].values.size == 1  # labels were seen
        assert merged["traversal"]["base"].values.any()  # sample 200 too, by whoever had it
    assert [path.name for path in tmp_path.iterdir()] == ["r.h5"]


@pytest.mark.parametrize("pullback", ["probe", "finite-difference"])
def test_other_pullbacks_too(tmp_path: Path, pullback: str) -> None:
    changes = {"pullback": pullback, "analyses": ("isometry", "density"), "metric": "sse"}
    with (
        analyze(model(), Labelled(), **{**SETTINGS, **changes}) as one,
        sharded(3, tmp_path / "r.h5", **changes) as merged,
    ):
        require_same(merged, one)


def test_more_processes_than_samples_and_some_rows_alone(tmp_path: Path) -> None:
    changes = {"samples": 3, "analyses": ["isometry", "importance"]}
    with (
        analyze(model(), Labelled(), **{**SETTINGS, **changes}) as one,
        sharded(5, tmp_path / "r.h5", **changes) as merged,
    ):
        require_same(merged, one)
        assert len(set(merged.samples()["row"])) == 3


def test_the_comparison_sees_one_bit(whole: Result, tmp_path: Path) -> None:
    """Counter-test: a result that differs is not taken for the same."""
    copy = tmp_path / "r.h5"
    shutil.copy(whole.path, copy)
    with h5py.File(copy, "r+") as file:
        file["samples/std"][100] *= 1 + 2**-22
    with Result.open(copy) as changed, pytest.raises(AssertionError):
        require_same(changed, whole)


@pytest.mark.usefixtures("usual_shards")
def test_parts_share_the_shards() -> None:
    for samples in (1, 7, 1000, 20_000):
        ranges = planned(samples, 32)
        assert [i for rows in ranges for i in rows] == list(range(samples))
        for count in (1, 2, 3, 8):
            parts = [Part(k + 1, count) for k in range(count)]
            assert [rows for part in parts for rows in part.of(ranges)] == ranges
            assert all(
                sorted(part.first(ranges), key=lambda r: r.start) == ranges for part in parts
            )
            if samples > 10_000:
                shares = [sum(map(len, part.of(ranges))) for part in parts]
                assert max(shares) - min(shares) < 0.15 * samples / count + 2000


@pytest.mark.usefixtures("usual_shards")
def test_a_longer_run_has_the_shards_of_a_shorter_one_and_not_too_many() -> None:
    for batch in (1, 32, 512, 8192):
        longest = planned(10_000_000, batch)
        assert len(longest) < 400
        for samples in (1000, 5000, 100_000):
            assert planned(samples, batch) == longest[: len(planned(samples, batch))]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(OptionError, match="--shard takes K/N"):
        Part.parse(text)


def test_a_shard_is_refused_where_a_result_is_expected(tmp_path: Path) -> None:
    path = shards(tmp_path, Part(1, 2))[0]
    with pytest.raises(ResultError, match="is a shard of a result; .*'isoprobe merge'"):
        Result.open(path)


# ------------------------------------------------------------------ what cannot be merged

QUICK = {**SETTINGS, "analyses": ("isometry",), "samples": 40, "batch_size": 10}


def shards(folder: Path, part: Part, **changes: Any) -> list[Path]:
    """Make a part of the shards; all that are there then."""
    settings = {**QUICK, **changes}
    made = sharding.analyze_shard(part, model(), Labelled(), out=folder / "r.h5", **settings)
    return sorted(made.glob("*.shard"), key=lambda path: int(path.name.split("-")[1]))


def refused(paths: Sequence[Path], **changes: Any) -> str:
    """What merging says, in one line."""
    with pytest.raises(IsoprobeError) as error:
        sharding.merge(paths, model(), Labelled(), **{**QUICK, **changes})
    assert "\n" not in str(error.value)
    return str(error.value)


DIFFERENT = {
    "metric": {"metric": "sse"},
    "seed": {"seed": 1},
    "samples": {"samples": 41},
    "analyses": {"analyses": ("isometry", "importance")},
    "analyses_asked": {"analyses": ("anomaly:quantile=0.9", "isometry")},
    "pullback": {"pullback": "finite-difference"},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_shards_of_different_runs_are_refused(tmp_path: Path, name: str) -> None:
    base = {"analyses": ("anomaly", "isometry")} if name == "analyses_asked" else {}
    (tmp_path / "other").mkdir()
    one = shards(tmp_path, Part(1, 2), **base)
    two = shards(tmp_path / "other", Part(2, 2), **{**base, **DIFFERENT[name]})
    message = refused([*one, *two], **base)
    assert "is of another run than" in message
    assert f"{name} was" in message


def test_a_merge_with_other_settings_is_refused(tmp_path: Path) -> None:
    shards(tmp_path, Part(1, 1))
    assert "seed was 0, now 5" in refused([tmp_path / "r.h5.partial"], seed=5)


def test_missing_and_repeated_samples_are_refused(tmp_path: Path) -> None:
    one, two, three, four = shards(tmp_path, Part(1, 1))
    assert "no shard holds samples 10 up to 20 (10 rows)" in refused([one, three, four])
    assert "no shard holds samples 20 up to 40 (20 rows)" in refused([two, one])
    assert "no shard holds samples 0 up to 10 (10 rows)" in refused([three, two, four])
    assert f"{two} and {two} both hold sample 10" in refused([two, one, three, two, four])
    (tmp_path / "half").mkdir()
    half = shards(tmp_path / "half", Part(1, 1), batch_size=20)
    assert "batch_size was 10, now 20" in refused([one, half[1], two])


def test_files_that_are_no_shards_are_refused(tmp_path: Path, whole: Result) -> None:
    one = shards(tmp_path, Part(1, 2))
    assert "does not exist" in refused([*one, tmp_path / "none.shard"])
    assert "is no shard" in refused([*one, whole.path])
    assert "holds no shards" in refused([tmp_path])


@pytest.mark.parametrize("spoil", ["identity", "settled", "active", "notes", "device", "state"])
def test_a_shard_that_lacks_something_is_one_line(tmp_path: Path, spoil: str) -> None:
    (path,) = shards(tmp_path, Part(1, 1), batch_size=40)
    with Shard.open(path) as shard:
        columns = {n: shard.read(n, 0, 40) for n in shard.columns}
        described = shard.columns
        record, state = dict(shard.record), shard.state()
    if spoil == "state":
        state = {name: v for name, v in state.items() if not name.startswith("isometry/")}
    else:
        del record[spoil]
    with ShardWriter(path, range(40), LATENTS) as writer:
        rows = {n: Variable(described[n].dims, v, "a column") for n, v in columns.items()}
        writer.append(40, rows)
        writer.finish(record, state)
    said = refused([path])
    assert f"{path} is damaged" in said or f"cannot read {path}" in said


class OwnState(Analysis):
    """Keeps a sum that no accumulator knows, and does not say how two become one."""

    name = "own-state"
    needs = frozenset({"mean"})

    def start(self, setup: Any) -> None:
        super().start(setup)
        self.total = np.zeros(())

    def update(self, batch: Any) -> None:
        self.total = self.total + batch.array("mean").sum()

    def result(self, context: Any) -> dict[str, Variable]:
        return {"total": Variable((), self.total, "sum of means")}

    def state(self) -> dict[str, np.ndarray]:
        return {"total": self.total}

    def restore(self, state: Any) -> None:
        self.total = state["total"]


class OwnMerge(OwnState):
    def merge(self, other: Analysis) -> None:
        assert isinstance(other, OwnMerge)
        self.total = self.total + other.total


def test_an_analysis_without_a_merge_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="analysis 'own-state' keeps a state of its own and no"):
        shards(tmp_path, Part(1, 2), analyses=[OwnState()])
    assert list(tmp_path.iterdir()) == []


def test_an_analysis_without_a_merge_runs_in_one_process(tmp_path: Path) -> None:
    with analyze(model(), Labelled(), **{**QUICK, "analyses": [OwnState()]}) as result:
        total = result.samples(names=["mean"])["mean"].sum()
        np.testing.assert_allclose(result["own-state"]["total"].values, total, rtol=1e-12)


def test_an_analysis_with_its_own_state_and_merge(tmp_path: Path) -> None:
    changes = {"analyses": [OwnMerge()]}
    with (
        analyze(model(), Labelled(), **{**QUICK, **changes}) as one,
        sharded(3, tmp_path / "r.h5", **{**QUICK, **changes}) as merged,
    ):
        require_same(merged, one)


def test_shards_must_agree_on_the_active_latents(tmp_path: Path) -> None:
    one, two, *_ = shards(tmp_path, Part(1, 1))
    with Shard.open(one) as first, Shard.open(two) as second:
        second.record["active"] = [not active for active in second.record["active"]]
        with pytest.raises(ResultError, match="other latents active"):
            in_order([first, second])


# ------------------------------------------------------------------ killed and resumed


def killed_after(count: int, patch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Stop a run in the middle of a shard, after some batches."""
    seen = 0
    original = Pass.feed

    def columns(self: Pass, start: int, stop: int) -> Any:
        nonlocal seen
        if seen == count:
            raise KeyboardInterrupt
        seen += 1
        return original(self, start, stop)

    with patch.context() as inner, pytest.raises(KeyboardInterrupt):
        inner.setattr(Pass, "feed", columns)
        work()


def batches(patch: pytest.MonkeyPatch, work: Callable[[], Result]) -> tuple[Result, int]:
    """The result of a run, and how many batches it took."""
    seen = 0
    original = Pass.feed

    def columns(self: Pass, start: int, stop: int) -> Any:
        nonlocal seen
        seen += 1
        return original(self, start, stop)

    with patch.context() as inner:
        inner.setattr(Pass, "feed", columns)
        return work(), seen


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_killed_run_is_resumed_to_the_same_bits(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    out = tmp_path / "r.h5"
    run = lambda **more: analyze(model(), Labelled(), out=out, **SETTINGS, **more)  # noqa: E731
    killed_after(count, monkeypatch, run)
    assert list(out.with_name("r.h5.partial").glob("*.new")) == []
    found, left = batches(monkeypatch, lambda: run(resume=True))
    assert left == 10 - count  # a shard is one batch of the ten here
    with found:
        require_same(found, whole)


def test_a_killed_share_is_resumed_and_the_others_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat() for path in shards(tmp_path, Part(1, 2))}
    killed_after(1, monkeypatch, lambda: shards(tmp_path, Part(2, 2)))
    every = shards(tmp_path, Part(2, 2), resume=True)
    for path, stat in before.items():
        now = path.stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    with (
        analyze(model(), Labelled(), **QUICK) as one,
        sharding.merge(every, model(), Labelled(), **QUICK) as merged,
    ):
        require_same(merged, one)
    assert all(path.exists() for path in every)  # they are the user's


def test_a_damaged_shard_is_made_again(whole: Result, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "r.h5"
    run = lambda **more: analyze(model(), Labelled(), out=out, **SETTINGS, **more)  # noqa: E731
    killed_after(7, monkeypatch, run)
    path = next(out.with_name("r.h5.partial").glob("rows-0-*.shard"))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with run(resume=True) as found:
        require_same(found, whole)


def test_a_resumed_run_keeps_what_was_settled(tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "r.h5"
    run = lambda **more: analyze(model(), Labelled(), out=out, **{**SETTINGS, **more})  # noqa: E731
    killed_after(3, monkeypatch, run)
    with run(resume=True, batch_size=7, threads=3) as found:
        assert found.attrs["batch_size"] == SETTINGS["batch_size"]
        assert found.attrs["threads"] == torch.get_num_threads()  # set back, and not 3


def test_a_finished_share_of_another_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    shards(tmp_path, Part(1, 2))
    with pytest.raises(ResultError, match="seed was 0, now 1"):
        shards(tmp_path, Part(1, 2), seed=1, resume=True)
    for path in shards(tmp_path, Part(1, 2), seed=1, overwrite=True):
        with Shard.open(path) as opened:
            assert opened.record["identity"]["seed"] == 1


# ------------------------------------------------------------------ processes beside each other


@pytest.mark.parametrize("count", [2, 8])
def test_the_first_process_does_what_dead_ones_left(
    whole: Result, tmp_path: Path, count: int
) -> None:
    result = together(0, count, tmp_path / "r.h5")
    assert result is not None
    with result:
        require_same(result, whole)


def test_the_first_process_merges_what_others_made(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.h5"
    assert together(1, 2, out) is None
    found, made = batches(monkeypatch, lambda: together(0, 2, out))  # type: ignore[arg-type]
    assert made == 0
    with found:
        require_same(found, whole)
    assert together(1, 2, out) is None  # one that comes too late
    assert [path.name for path in tmp_path.iterdir()] == ["r.h5"]


def test_a_process_whose_folder_is_taken_away_has_nothing_left_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.h5"
    original = Pass.feed

    def columns(self: Pass, start: int, stop: int) -> Any:
        if start > 100:
            shutil.rmtree(out.with_name("r.h5.partial"), ignore_errors=True)
        return original(self, start, stop)

    monkeypatch.setattr(Pass, "feed", columns)
    assert together(1, 2, out, analyses=("isometry",)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_another_process_made_meanwhile_is_given_up(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "r.h5", tmp_path / "other.h5"
    assert together(1, 2, other) is None
    original, seen = Pass.feed, []

    def columns(self: Pass, start: int, stop: int) -> Any:
        seen.append(start)
        for path in other.with_name("other.h5.partial").glob("*.shard"):
            shutil.copy(path, out.with_name("r.h5.partial") / path.name)
        return original(self, start, stop)

    monkeypatch.setattr(Pass, "feed", columns)
    result = together(0, 2, out)
    assert seen == [0]  # one batch, after which all was there
    assert result is not None
    with result:
        require_same(result, whole)


def test_samples_auto_by_two_processes(tmp_path: Path) -> None:
    changes = {"samples": "auto", "tolerance": 0.9, "analyses": ("isometry",)}
    out = tmp_path / "r.h5"
    assert together(1, 2, out, **changes) is None
    found = together(0, 2, out, **changes)
    assert found is not None
    with found, analyze(model(), Labelled(), **{**SETTINGS, **changes}) as one:
        require_same(found, one)


def test_a_process_knows_its_place() -> None:
    here = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    assert Process.of(here) == Process(1, 4, 1)
    assert Process.of({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert Process.of({}) is None
    assert Process(1, 4, 1).part == Part(2, 4)
    for wrong in ({"RANK": "4"}, {"RANK": "x"}, {"RANK": "-1"}, {"LOCAL_RANK": "y"}):
        with pytest.raises(OptionError, match="expected 0 <= RANK < WORLD_SIZE"):
            Process.of({**here, **wrong})


# ------------------------------------------------------------------ the commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its data."""
    root = tmp_path_factory.mktemp("commands")
    torch.manual_seed(0)
    networks = Mlp().build(CONFIG)
    manifest = Manifest(FORMAT_VERSION, "mlp", CONFIG, LATENTS, Objective("bce", 1.0))
    write_checkpoint(root / "model.safetensors", networks.encoder, networks.decoder, manifest)
    np.save(root / "rows.npy", np.random.default_rng(0).random((60, PIXELS)).astype(np.float32))
    return root


COMMAND = ("analyze", "model.safetensors", "--data", "rows.npy", "--dtype", "float64")


def test_a_job_array_and_its_merge(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(folder)
    out = tmp_path / "r.h5"
    for k in (1, 2, 3):
        assert main([*COMMAND, "--out", str(out), "--shard", f"{k}/3"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert f"isoprobe merge {out}" in told.err
    elsewhere = tmp_path / "copied"
    shutil.copytree(f"{out}.partial", elsewhere)
    assert main(["merge", str(out)]) == 0
    assert "What it means" in capsys.readouterr().out
    assert main(["merge", str(tmp_path / "two.h5"), str(elsewhere)]) == 0
    # a part cannot know when the whole is enough: parts take what --samples 10000 takes
    fixed = [*COMMAND, "--samples", "10000", "--out", str(tmp_path / "one.h5")]
    assert main(fixed) == 0
    with (
        Result.open(out) as merged,
        Result.open(tmp_path / "one.h5") as one,
        Result.open(tmp_path / "two.h5") as two,
    ):
        assert merged.attrs["command"].startswith("isoprobe merge")
        merged.attrs["command"] = two.attrs["command"] = one.attrs["command"]
        require_same(merged, one)
        require_same(two, one)
    assert list(elsewhere.glob("*.shard"))  # they are the user's
    assert not out.with_name("r.h5.partial").exists()


def test_a_merge_says_what_it_cannot_do(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def complaint(*arguments: str) -> str:
        assert main(list(arguments)) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    monkeypatch.chdir(folder)
    out = str(tmp_path / "r.h5")
    assert "holds no shards" in complaint("merge", out) or "does not exist" in complaint(
        "merge", out
    )
    assert "--shard needs --out" in complaint(*COMMAND, "--shard", "1/2")
    assert "--shard takes K/N" in complaint(*COMMAND, "--shard", "3/2", "--out", out)
    assert "after isoprobe merge" in complaint(*COMMAND, "--shard", "1/1", "--out", out, "--json")
    assert main([*COMMAND, "--shard", "1/1", "--out", out, "--adapter", "native"]) == 0
    capsys.readouterr()
    assert "no file may say which code is run" in complaint("merge", out)
    shutil.copytree(f"{out}.partial", tmp_path / "s")
    assert main(["merge", out, "--adapter", "native", "--json"]) == 0
    capsys.readouterr()
    again = ("merge", out, str(tmp_path / "s"), "--adapter", "native")
    assert "exists already; add --overwrite" in complaint(*again)
    wide = np.random.default_rng(1).random((60, PIXELS)).astype(np.float32)
    np.save(tmp_path / "other.npy", wide)
    other = str(tmp_path / "other.npy")
    assert "data was" in complaint(*again, "--overwrite", "--data", other)
    memory = [str(path) for path in shards(tmp_path / "s", Part(2, 2))]
    assert "was made in Python" in complaint("merge", str(tmp_path / "n.h5"), *memory)


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    return subprocess.run(
        [sys.executable, *command, "-m", "isoprobe", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_torchrun_gives_the_result_of_one_process(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.h5"
    found = torchrun(folder, *COMMAND, "--out", str(out))
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("What it means") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["r.h5"]
    rows = np.load(folder / "rows.npy")
    asked = {"dtype": "float64", "threads": 1}
    with analyze(folder / "model.safetensors", rows, **asked) as one, Result.open(out) as r:
        for name in ("data", "data_fingerprint", "command"):
            r.attrs[name] = one.attrs[name]
        require_same(r, one)
