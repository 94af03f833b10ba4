"""A new plugin of each kind: created, installed, tested, listed, and used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from isoprobe.checkpoints.native import write_checkpoint
from isoprobe.cli import main
from isoprobe.errors import OptionError
from isoprobe.scaffold import KINDS, create
from isoprobe_plugins.architectures.linear import linear_networks
from tests.environments import Environment

EIGENVALUES = np.array([4.0, 2.0, 1.0, 0.3])
USES = {
    "metric": ["model.safetensors", "--data", "x.npy", "--metric", "own-metric"],
    "adapter": ["model.npz", "--data", "x.npy"],
    "analysis": ["model.safetensors", "--data", "x.npy", "--analysis", "own-analysis"],
    "data-source": ["model.safetensors", "--data", "own-data-source/50"],
}
#: runs several commands in one process, since each start of torch takes seconds
COMMANDS = """
import json, sys
from isoprobe.cli import main
for arguments in json.loads(sys.argv[1]):
    print(json.dumps(arguments), flush=True)
    code = main(arguments)
    if code:
        sys.exit(code)
"""


def material(folder: Path) -> None:
    """A linear VAE in native form and as the scaffold's adapter reads it, and its data."""
    beta = 0.1
    covariance = torch.diag(torch.from_numpy(EIGENVALUES))
    networks, manifest = linear_networks(covariance, beta, 4)
    write_checkpoint(folder / "model.safetensors", networks.encoder, networks.decoder, manifest)
    gain = np.sqrt(EIGENVALUES - beta / 2)
    np.savez(
        folder / "model.npz",
        encoder=np.diag(gain / EIGENVALUES),
        logvar=np.log(beta / 2 / EIGENVALUES),
        decoder=np.diag(gain),
    )
    rows = np.random.default_rng(0).standard_normal((50, 4)) * np.sqrt(EIGENVALUES)
    np.save(folder / "x.npy", rows)


def test_a_new_plugin_of_each_kind_installs_passes_is_listed_and_is_used(tmp_path: Path) -> None:
    projects = tmp_path / "projects"
    for kind in KINDS:
        assert main(["new-plugin", kind, f"own-{kind}", "--into", str(projects)]) == 0
    environment = Environment(tmp_path / "environment")
    environment.install(*sorted(projects.iterdir()))

    rows = json.loads(environment.run("-m", "isoprobe", "plugins", "--json"))
    own = {row["kind"]: row for row in rows if row["distribution"].startswith("isoprobe-own-")}
    assert own.keys() == set(KINDS)
    assert all(row["name"] == f"own-{kind}" and not row["error"] for kind, row in own.items())

    tests = [str(path) for path in projects.rglob("test_*.py")]
    assert len(tests) == len(KINDS)
    report = environment.run("-m", "pytest", "-p", "no:cacheprovider", *tests, cwd=projects)
    assert " passed" in report
    assert "failed" not in report

    material(tmp_path)
    commands = [["analyze", *use, "--json"] for use in USES.values()]
    output = environment.run("-c", COMMANDS, json.dumps(commands), cwd=tmp_path)
    for kind, text in zip(USES, output.split('["analyze"')[1:], strict=True):
        document = json.loads(text.partition("\n")[2])
        assert document["data"]["samples"] == 50, kind
    assert '"adapter": "own-adapter"' in output
    assert '"metric": "own-metric:width=1.0"' in output
    assert '"name": "own-data-source/50"' in output


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_complete_and_filled_in(tmp_path: Path, kind: str) -> None:
    files = create(kind, "my-part", tmp_path)
    names = {str(path.relative_to(tmp_path / "isoprobe-my-part")) for path in files}
    assert {"pyproject.toml", "README.md", "isoprobe_my_part.py"} <= names
    assert ".github/workflows/test.yml" in names
    assert "tests/test_isoprobe_my_part.py" in names
    for path in files:
        text = path.read_text()
        assert "$" not in text.replace("${{ matrix.python }}", ""), path
        compile(text, path, "exec") if path.suffix == ".py" else None


@pytest.mark.parametrize("name", ["My-Part", "1st", "a_b", "", "a--b", "class", "../x"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="lower case"):
        create("metric", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_project_is_left_alone(tmp_path: Path) -> None:
    create("metric", "one", tmp_path)
    with pytest.raises(OptionError, match="exists already"):
        create("analysis", "one", tmp_path)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="one of metric, adapter"):
        create("command", "one", tmp_path)
