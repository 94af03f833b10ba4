"""Processes that share the batches of a training make the model that one process makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from isoprobe.checkpoints.native import read_manifest
from isoprobe.cli.group import cli
from isoprobe.errors import OptionError
from isoprobe_trainers.common.parallel import Team
from isoprobe_trainers.images.train import train
from tests.trainers.test_mnist_training import PICTURES, SSIM

RUN = replace(SSIM, iterations=12, batch=6)

#: the same training in a process of its own, stopped on the way where asked
SCRIPT = """
import sys
from pathlib import Path
import torch
from isoprobe_trainers.images import train as iterations
from tests.trainers.test_mnist_training import PICTURES
from tests.trainers.test_parallel_training import RUN

out, stop, resume = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
advance = iterations.Trainer.advance
def stopping(self):
    if self.done == stop:
        raise SystemExit(3)
    return advance(self)
iterations.Trainer.advance = stopping
rows = lambda chosen: PICTURES[chosen]
iterations.train(RUN, rows, 30, out, torch.device("cpu"), resume=resume, save_every=0.0)
"""


def together(out: Path, stop: int, how: str = "anew") -> int:
    script = out.parent / "train.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [*launch, str(script), str(out), str(stop), how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (stop < RUN.iterations) == (done.returncode != 0), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    return train(RUN, lambda chosen: PICTURES[chosen], 30, out, torch.device("cpu"))


def same(ours: Path, theirs: Path) -> None:
    for name, weight in load_file(ours).items():
        torch.testing.assert_close(load_file(theirs)[name], weight, rtol=1e-4, atol=1e-5)


def test_two_processes_train_what_one_does_and_go_on_after_a_stop(
    alone: Path, tmp_path: Path
) -> None:
    together(tmp_path / "two", stop=7)
    assert not list((tmp_path / "two").glob("*.safetensors"))
    together(tmp_path / "two", stop=RUN.iterations, how="resume")
    same(alone, tmp_path / "two" / alone.name)
    assert read_manifest(tmp_path / "two" / alone.name).training["processes"] == 2
    logs = [
        [json.loads(line) for line in next(folder.glob("*.jsonl")).read_text().splitlines()]
        for folder in (alone.parent, tmp_path / "two")
    ]
    assert [record["step"] for record in logs[1]] == [record["step"] for record in logs[0]]
    for one, two in zip(*logs, strict=True):
        assert two["kl"] == pytest.approx(one["kl"], rel=1e-4)


def test_weights_after_other_noise_would_differ(alone: Path, tmp_path: Path) -> None:
    other = train(replace(RUN, seed=1), lambda c: PICTURES[c], 30, tmp_path, torch.device("cpu"))
    with pytest.raises(AssertionError):
        same(alone, other)


def test_shares_are_a_partition_of_the_batch() -> None:
    batch = torch.arange(12)
    shares = [Team(rank, 3).share(batch) for rank in range(3)]
    assert {len(share) for share in shares} == {4}
    assert sorted(torch.cat(shares).tolist()) == batch.tolist()


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(OptionError, match="multiple"):
        Team(0, 4).check(6)


def test_a_training_of_one_process_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(cli, ["train", "toy", "--epochs", "1"])
    assert isinstance(done.exception, OptionError)
    assert "without torchrun" in str(done.exception)
