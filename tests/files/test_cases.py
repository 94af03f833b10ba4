"""The hostile files at hand: each is one line, within 5 s of processor time and 500 MB."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import bad_files

SECONDS, BYTES = 5, 500 << 20
CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "hostile"
NAMES = sorted(p.name for p in CASES.iterdir()) if CASES.is_dir() else []
SOUND = "crc_good.pt"


def limited(
    arguments: list[str], folder: Path
) -> tuple[subprocess.CompletedProcess[str], float, int]:
    """Run a command, and tell the processor time and the memory it took beyond torch's own."""
    code = (
        "import resource, sys, torch;"
        "from isoprobe.cli import main;"
        "import isoprobe.api, isoprobe_plugins.adapters.objects.wrapping;"
        "u = lambda: resource.getrusage(resource.RUSAGE_SELF);"
        "a = u(); status = main(sys.argv[1:]); b = u();"
        "print(f'\\n#{b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime}',"
        " b.ru_maxrss - a.ru_maxrss,"
        " file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)),
    )
    said, _, told = done.stderr.rpartition("#")
    assert told, done.stderr[-500:]
    seconds, kilobytes = told.split()
    done.stderr = said.strip()
    return done, float(seconds), int(kilobytes) << 10


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good model, its data, and a file that would be overwritten."""
    folder = tmp_path_factory.mktemp("good")
    bad_files.good_model(folder / "model.safetensors")
    np.save(folder / "good.npy", np.random.default_rng(0).random((40, 12), "f4"))
    return folder


def commands(path: Path) -> list[list[str]]:
    """Every command that would read a case."""
    name = path.name
    if name.startswith("data_") or path.suffix == ".npy":
        return [["analyze", "model.safetensors", "--data", str(path), "--samples", "8"]]
    if name.startswith("res_"):
        score = ["score", "model.safetensors", "--data", "good.npy", "--reference", str(path)]
        return [["report", str(path), "-o", "page.html"], ["compare", str(path), str(path)], score]
    if path.suffix == ".toml":
        return [["analyze", "weights.pt", "--adapter", "declared", "--samples", "8"]]
    graph = ["--option", "decoder=self"] if path.suffix in {".onnx", ".pt2"} else []
    found = [["analyze", str(path), "--samples", "8", *graph]]
    if name.split("_")[0] in {"dictcopies.pt", "hash", "laughs", "legacyF", "zmlp.pt", "crc"}:
        found.append([*found[0], "--adapter", "tutorial-mlp"])
    return found


def test_the_hostile_files_are_at_hand(shared: Path) -> None:
    assert SOUND in NAMES and shared == CASES.parents[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_refused_in_one_line(good, tmp_path, name) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    if name.endswith(".toml"):
        torch.save({"a.weight": torch.zeros(2, 2)}, tmp_path / "weights.pt")
        shutil.copy(CASES / name, tmp_path / "weights.toml")
    canaries = ["ts_canary", "canary", "x"]
    for canary in canaries:
        (tmp_path / canary).write_bytes(b"mine")
    before = {p.name for p in tmp_path.iterdir()}
    for command in commands(CASES / name):
        done, seconds, memory = limited(command, tmp_path)
        if name == SOUND:
            assert done.returncode == 0, done.stderr
            continue
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert done.returncode == 1, (command, done.stderr, done.stdout)
        assert len(errors) == 1, (command, done.stderr)
        assert "\x1b" not in done.stdout + done.stderr
        assert seconds < SECONDS, command
        assert memory < BYTES, (command, memory >> 20)
    assert {p.name for p in tmp_path.iterdir()} == before
    assert all((tmp_path / canary).read_bytes() == b"mine" for canary in canaries)
