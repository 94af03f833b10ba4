"""Several processes: the result of one, whatever dies on the way, or one line saying why not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
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
from isoprobe.results.journal import Journal
from isoprobe.results.reader import Result
from isoprobe.results.writer import ResultWriter
from isoprobe.run import merging as sharding
from isoprobe.run import processes
from isoprobe.run.processes import Process, Watch, await_shards
from isoprobe.run.shards import Part, Shard, in_order
from isoprobe_plugins.architectures.mlp import Mlp

PIXELS, LATENTS, SAMPLES = 6, 3, 301
CONFIG = {
    "input_shape": [PIXELS],
    "encoder_widths": [8],
    "decoder_widths": [8],
    "latent_size": LATENTS,
    "output": "sigmoid",
}
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


def sharded(count: int, out: Path, **changes: Any) -> Result:
    """The result of an analysis done in shares, made and given in no good order."""
    settings = {**SETTINGS, **changes}
    paths = [
        sharding.analyze_shard(Part(k, count), model(), Labelled(), out=out, **settings)
        for k in range(count, 0, -1)
    ]
    return sharding.merge(paths, model(), Labelled(), out=out, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    out = tmp_path_factory.mktemp("whole") / "r.h5"
    with analyze(model(), Labelled(), out=out, **SETTINGS) as result:
        yield result


def require_same(found: Result, expected: Result, tolerance: float = 1e-12) -> None:
    """Every attribute and group, every variable with its description, every row."""
    told = {"output"}
    for name in (expected.attrs.keys() | found.attrs.keys()) - told:
        one, two = found.attrs[name], expected.attrs[name]
        if isinstance(two, float) or name.startswith("beta_ci95"):
            np.testing.assert_allclose(one, two, rtol=tolerance, err_msg=name)
        else:
            assert one == two, name
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
            if b.dtype.kind != "f":
                assert (a == b).all(), f"{group}/{name}"
                continue
            finite = np.abs(b[np.isfinite(b)])
            scale = float(finite.max()) if finite.size else 1.0
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_together_give_the_result_of_one(
    whole: Result, tmp_path: Path, count: int
) -> None:
    with sharded(count, tmp_path / "r.h5") as merged:
        require_same(merged, whole)
        assert {"anomaly", "density", "diagnosis", "coordinates"} <= set(merged.groups())
        assert merged["anomaly"]["auroc"].values.size == 1  # labels were seen
        assert merged["traversal"]["base"].values.any()  # sample 200 too, by whoever had it


@pytest.mark.parametrize("pullback", ["probe", "finite-difference"])
def test_other_pullbacks_too(tmp_path: Path, pullback: str) -> None:
    changes = {"pullback": pullback, "analyses": ("isometry", "density"), "metric": "sse"}
    with (
        analyze(model(), Labelled(), **{**SETTINGS, **changes}) as one,
        sharded(3, tmp_path / "r.h5", **changes) as merged,
    ):
        require_same(merged, one)


def test_more_processes_than_samples(tmp_path: Path) -> None:
    changes = {"samples": 3, "analyses": ["isometry", "importance"]}
    with (
        analyze(model(), Labelled(), **{**SETTINGS, **changes}) as one,
        sharded(5, tmp_path / "r.h5", **changes) as merged,
    ):
        require_same(merged, one)


def test_the_comparison_sees_a_relative_error_of_1e_11(whole: Result, tmp_path: Path) -> None:
    """Counter-test: a result that differs is not taken for the same."""
    copy = tmp_path / "r.h5"
    shutil.copy(whole.path, copy)
    with h5py.File(copy, "r+") as file:
        file["samples/std"][100] *= 1 + 1e-11
    with Result.open(copy) as changed, pytest.raises(AssertionError):
        require_same(changed, whole)


def test_parts_share_the_samples_in_order() -> None:
    for samples in (0, 1, 7, 100):
        for count in (1, 2, 3, 8):
            rows = [i for k in range(count) for i in Part(k + 1, count).rows(samples)]
            assert rows == list(range(samples))


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(OptionError, match="--shard takes K/N"):
        Part.parse(text)


def test_a_shard_is_refused_where_a_result_is_expected(tmp_path: Path) -> None:
    path = shard(tmp_path, Part(1, 2))
    with pytest.raises(ResultError, match="is a shard of a result; .*'isoprobe merge'"):
        Result.open(path)


# ------------------------------------------------------------------ what cannot be merged

QUICK = {**SETTINGS, "analyses": ("isometry",), "samples": 40}


def shard(folder: Path, part: Part, **changes: Any) -> Path:
    settings = {**QUICK, **changes}
    return sharding.analyze_shard(part, model(), Labelled(), out=folder / "r.h5", **settings)


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
    one = shard(tmp_path, Part(1, 2), **base)
    two = shard(tmp_path / "other", Part(2, 2), **{**base, **DIFFERENT[name]})
    message = refused([one, two], **base)
    assert "is of another run than" in message
    assert f"{name} was" in message


def test_a_merge_with_other_settings_is_refused(tmp_path: Path) -> None:
    paths = [shard(tmp_path, Part(k, 2)) for k in (1, 2)]
    assert "seed was 0, now 5" in refused(paths, seed=5)


def test_missing_and_repeated_samples_are_refused(tmp_path: Path) -> None:
    one, two, three = (shard(tmp_path, Part(k, 3)) for k in (1, 2, 3))
    assert "no shard holds samples 13 up to 26" in refused([one, three])
    assert "no shard holds samples 26 up to 40" in refused([two, one])
    assert "no shard holds samples 0 up to 13" in refused([three, two])
    assert f"{two} and {two} both hold sample 13" in refused([two, one, three, two])
    (tmp_path / "half").mkdir()
    half = shard(tmp_path / "half", Part(1, 2))
    assert "both hold sample" in refused([one, half, three])


def test_files_that_are_no_shards_are_refused(tmp_path: Path, whole: Result) -> None:
    one = shard(tmp_path, Part(1, 2))
    assert "does not exist" in refused([one, tmp_path / "none.h5"])
    assert "is a whole result, no shard" in refused([one, whole.path])


@pytest.mark.parametrize("spoil", ["identity", "first", "state", "probe_notes"])
def test_a_damaged_shard_is_one_line(tmp_path: Path, spoil: str) -> None:
    path = shard(tmp_path, Part(1, 1))
    with h5py.File(path, "r+") as file:
        if spoil == "state":
            del file["state/isometry/beta"]
        else:
            del file.attrs[spoil]
    assert f"{path} is damaged" in (said := refused([path])) or f"cannot read {path}" in said


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
        shard(tmp_path, Part(1, 2), analyses=[OwnState()])
    assert list(tmp_path.iterdir()) == []


def test_an_analysis_with_its_own_state_and_merge(tmp_path: Path) -> None:
    changes = {"analyses": [OwnMerge()]}
    with (
        analyze(model(), Labelled(), **{**QUICK, **changes}) as one,
        sharded(3, tmp_path / "r.h5", **{**QUICK, **changes}) as merged,
    ):
        require_same(merged, one)


def test_shards_must_agree_on_the_active_latents(tmp_path: Path) -> None:
    one, two = (shard(tmp_path, Part(k, 2)) for k in (1, 2))
    with h5py.File(two, "r+") as file:
        file["run/active"][0] = 1 - file["run/active"][0]
    with (
        Shard.open(one) as first,
        Shard.open(two) as second,
        pytest.raises(ResultError, match="other latents active"),
    ):
        in_order([first, second])


# ------------------------------------------------------------------ killed and resumed


def test_a_killed_share_is_resumed_and_the_others_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = shard(tmp_path, Part(1, 2))
    before = done.stat()
    batches = killed_after(3, monkeypatch, lambda: shard(tmp_path, Part(2, 2), batch_size=4))
    assert batches == 3
    assert shard(tmp_path, Part(1, 2), resume=True) == done
    assert (done.stat().st_ino, done.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    rest = shard(tmp_path, Part(2, 2), batch_size=4, resume=True)
    with (
        analyze(model(), Labelled(), **QUICK) as one,
        sharding.merge([done, rest], model(), Labelled(), **QUICK) as merged,
    ):
        require_same(merged, one)


def killed_after(count: int, patch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """Stop a run after some batches, each of them saved; return how many there were."""
    seen = 0
    original = ResultWriter.checkpoint

    def checkpoint(self: ResultWriter, *args: Any, **kwargs: Any) -> None:
        nonlocal seen
        original(self, *args, **kwargs)
        seen += 1
        if seen == count:
            raise KeyboardInterrupt

    with patch.context() as inner, pytest.raises(KeyboardInterrupt):
        inner.setattr(ResultWriter, "due", lambda _: True)
        inner.setattr(ResultWriter, "checkpoint", checkpoint)
        work()
    return seen


def test_a_finished_share_of_another_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    path = shard(tmp_path, Part(1, 2))
    with pytest.raises(ResultError, match="exists already"):
        shard(tmp_path, Part(1, 2))
    with pytest.raises(ResultError, match="seed was 0, now 1"):
        shard(tmp_path, Part(1, 2), seed=1, resume=True)
    shard(tmp_path, Part(1, 2), seed=1, overwrite=True)
    with Shard.open(path) as opened:
        assert opened.identity["seed"] == 1


# ------------------------------------------------------------------ waiting for each other


def test_a_process_knows_its_place() -> None:
    here = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    assert Process.of(here) == Process(1, 4, 1)
    assert Process.of({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert Process.of({}) is None
    assert Process(1, 4, 1).part == Part(2, 4)
    for wrong in ({"RANK": "4"}, {"RANK": "x"}, {"RANK": "-1"}, {"LOCAL_RANK": "y"}):
        with pytest.raises(OptionError, match="expected 0 <= RANK < WORLD_SIZE"):
            Process.of({**here, **wrong})


def test_a_share_whose_process_died_is_given_up(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "s.h5.partial")
    watch = Watch(tmp_path / "s.h5")
    now = time.monotonic()
    watch.check(now)
    watch.check(now + 2 * processes.START)  # alive: it holds its lock, however long it takes
    journal.close()
    with pytest.raises(ResultError, match="has ended before it was done; .* --resume"):
        watch.check(now + 3 * processes.START)


def test_a_share_that_moves_is_not_given_up(tmp_path: Path) -> None:
    """Where locks are not seen from here, growing files tell that somebody works."""
    (tmp_path / "s.h5.partial").mkdir()
    watch = Watch(tmp_path / "s.h5")
    for minute in range(1, 5):
        (tmp_path / "s.h5.partial" / "column").write_text("x" * minute)
        watch.check(time.monotonic() + minute * 1.5 * processes.PATIENCE)


def test_a_share_that_never_begins_is_given_up(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "s.h5")
    watch.check(time.monotonic() + 0.9 * processes.START)
    with pytest.raises(ResultError, match="no process has begun"):
        watch.check(time.monotonic() + 2.0 * processes.START)


def test_waiting_ends_when_all_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    looks = iter(paths)
    monkeypatch.setattr(processes.time, "sleep", lambda _: next(looks).touch())
    await_shards(paths, Path.exists)
    assert capsys.readouterr().err == "waiting for a.h5, b.h5\nwaiting for b.h5\n"


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
    assert f"isoprobe merge {out} {tmp_path / 'r.shard-*-of-3.h5'}" in told.err
    paths = [str(Part(k, 3).path(out)) for k in (1, 2, 3)]
    assert main(["merge", str(out), *paths]) == 0
    assert "What it means" in capsys.readouterr().out
    assert main([*COMMAND, "--out", str(tmp_path / "one.h5")]) == 0
    with Result.open(out) as merged, Result.open(tmp_path / "one.h5") as one:
        assert merged.attrs["command"].startswith("isoprobe merge")
        merged.attrs["command"] = one.attrs["command"]
        require_same(merged, one)
    assert all(Path(path).exists() for path in paths)  # they are the user's


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
    assert "--shard needs --out" in complaint(*COMMAND, "--shard", "1/2")
    assert "--shard takes K/N" in complaint(*COMMAND, "--shard", "3/2", "--out", out)
    assert "after isoprobe merge" in complaint(*COMMAND, "--shard", "1/1", "--out", out, "--json")
    assert main([*COMMAND, "--shard", "1/1", "--out", out, "--adapter", "native"]) == 0
    capsys.readouterr()
    one = str(tmp_path / "r.shard-1-of-1.h5")
    assert "no file may say which code is run" in complaint("merge", out, one)
    assert main(["merge", out, one, "--adapter", "native", "--json"]) == 0
    capsys.readouterr()
    again = ("merge", out, one, "--adapter", "native")
    assert "exists already; add --overwrite" in complaint(*again)
    wide = np.random.default_rng(1).random((60, PIXELS)).astype(np.float32)
    np.save(tmp_path / "other.npy", wide)
    other = str(tmp_path / "other.npy")
    assert "data was" in complaint(*again, "--overwrite", "--data", other)
    memory = str(shard(tmp_path, Part(2, 2)))
    assert "was made in Python" in complaint("merge", str(tmp_path / "n.h5"), memory)


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
    with analyze(folder / "model.safetensors", rows, dtype="float64") as one, Result.open(out) as r:
        for name in ("data", "data_fingerprint", "command"):
            r.attrs[name] = one.attrs[name]
        require_same(r, one)
