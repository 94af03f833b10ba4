"""``hf://owner/name`` is read from the hub's cache, safetensors only; no other address is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isoprobe.checkpoints.remote import fetched
from isoprobe.errors import CheckpointError
from tests.checkpoints.hub_server import served

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


def isoprobe(
    home: Path, *words: str, endpoint: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_OFFLINE": "1"} if endpoint is None else {"HF_ENDPOINT": endpoint}
    environment.pop("HF_HUB_CACHE", None)
    if endpoint is not None:
        environment.pop("HF_HUB_OFFLINE", None)
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


QUICK = ["--data", str(DATA), "--samples", "50", "--analysis", "importance"]


def test_a_server_is_asked_for_safetensors_and_json_alone(tmp_path):
    """A file by name, and a repository whose pickle and code stay where they are."""
    pytest.importorskip("huggingface_hub")
    files = {
        "model.safetensors": MODEL.read_bytes(),
        "model.pt": b"\x80\x02.",
        "modeling.py": b"raise SystemExit('run')",
    }
    here = isoprobe(tmp_path, "analyze", str(MODEL), *QUICK, "--json")
    with served("someone/digits", files) as (endpoint, asked):
        for name in ("file", "repository"):
            (tmp_path / name).mkdir()
        address = "hf://someone/digits"
        words = ["analyze", f"{address}/model.safetensors", *QUICK, "--json"]
        done = isoprobe(tmp_path / "file", *words, endpoint=endpoint)
        assert done.returncode == 0, done.stderr
        assert done.stdout.replace('"model": "model"', '"model": "digits"') == here.stdout
        got = [line.split("/")[-1] for line in asked if line.startswith("GET someone")]
        assert got == ["model.safetensors"]
        asked.clear()
        told = isoprobe(tmp_path / "repository", "inspect", address, "--json", endpoint=endpoint)
        assert json.loads(told.stdout)["adapter"] == "native", told.stderr
        got = [line.split("/")[-1] for line in asked if line.startswith("GET someone")]
        assert got == ["model.safetensors"]


def test_a_server_that_has_no_such_file_or_is_not_there_is_one_line(tmp_path):
    pytest.importorskip("huggingface_hub")
    with served("someone/digits", {}) as (endpoint, _):
        done = isoprobe(
            tmp_path, "analyze", "hf://someone/digits/model.safetensors", *QUICK, endpoint=endpoint
        )
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "cannot be had" in done.stderr


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


# ------------------------------------------------------------------ addresses and repositories
# that mean harm


NAMES = ["a", "..", ".", "", "x.safetensors", "x.pt", "-r", "a b", "~", "C:", "é", "a\\b", "a\x00"]
NAMES += ["a\x1b[2J", "@main", "%2e%2e", "x.safetensors\n"]
DAMAGED = [b"", b"\x80\x02.", b"\xff" * 64, b'\x08\0\0\0\0\0\0\0{"a":1}']


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub's library, which only says what it was asked for."""
    library = pytest.importorskip("huggingface_hub")
    asked = []

    def file(repository, name):
        asked.append((repository, name))
        raise OSError("offline")

    def folder(repository, allow_patterns):
        asked.append((repository, *allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(library, "hf_hub_download", file)
    monkeypatch.setattr(library, "snapshot_download", folder)
    return asked


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(NAMES), max_size=5))
def test_an_address_asks_for_a_plain_name_or_for_nothing(hub, parts):
    hub.clear()
    with pytest.raises(CheckpointError) as caught:
        fetched("hf://" + "/".join(parts))
    assert "\n" not in str(caught.value).strip()
    for repository, *names in hub:
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repository)
        for name in names:
            assert ".." not in name.split("/") and not name.startswith("/")
            assert name.endswith((".safetensors", ".json"))


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_of_the_hub_is_one_line(cache, content):
    place = cache / "hub" / "models--someone--digits" / "snapshots" / REVISION
    (place / "model.safetensors").write_bytes(content)
    done = isoprobe(cache, "analyze", "hf://someone/digits/model.safetensors", "--data", str(DATA))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") <= 3 and "Traceback" not in done.stderr
