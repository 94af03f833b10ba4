"""``hf://owner/name`` is read from the hub's cache, safetensors only; no other address is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isoprobe.checkpoints.remote import fetched
from isoprobe.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
MODEL, DATA = ROOT / "examples" / "digits.safetensors", ROOT / "examples" / "digits.npy"
REVISION = "a" * 40


@pytest.fixture
def cache(tmp_path):
    """A cache as the hub's library keeps one, with a repository of safetensors and a pickle."""
    pytest.importorskip("huggingface_hub")
    repository = tmp_path / "hub" / "models--someone--digits"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    shutil.copy(MODEL, snapshot / "model.safetensors")
    (snapshot / "model.pt").write_bytes(b"\x80\x02.")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return tmp_path


def isoprobe(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    return subprocess.run(
        [sys.executable, "-m", "isoprobe", *words],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_file_of_the_hub_is_analysed_from_the_cache(cache):
    quick = ["--data", str(DATA), "--samples", "50", "--analysis", "importance", "--json"]
    here = isoprobe(cache, "analyze", str(MODEL), *quick)
    there = isoprobe(cache, "analyze", "hf://someone/digits/model.safetensors", *quick)
    assert there.returncode == 0, there.stderr
    assert there.stdout.replace('"model": "model"', '"model": "digits"') == here.stdout


def test_what_is_no_safetensors_is_not_fetched(cache):
    done = isoprobe(cache, "analyze", "hf://someone/digits/model.pt", "--data", str(DATA))
    assert done.returncode == 1
    assert "--trust" in done.stderr and done.stderr.count("\n") == 1


def test_what_is_not_there_is_one_line(cache):
    done = isoprobe(cache, "analyze", "hf://someone/else/model.safetensors", "--data", str(DATA))
    assert done.returncode == 1
    assert "hf://someone/else" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "address",
    ["https://example.org/vae.pt", "s3://bucket/vae.pt", "http:/one.slash/vae.pt"],
)
def test_another_address_gets_a_line_that_says_how(address):
    with pytest.raises(CheckpointError, match="curl -LO"):
        fetched(address)


@pytest.mark.parametrize("address", ["hf://", "hf://one", "hf://../../etc", "hf://a/../b", "hf:/a"])
def test_a_name_that_is_none_is_refused(address):
    with pytest.raises(CheckpointError, match="hf://owner/name"):
        fetched(address)


def test_a_local_path_is_left_alone():
    assert fetched("folder/vae.pt") == (Path("folder/vae.pt"), "")
