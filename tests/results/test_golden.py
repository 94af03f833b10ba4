"""Files of every format version there was are read, and say what they said.

A new version keeps these files and adds its own beside them, by
``python -m tests.results.test_golden``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from isoprobe.api import load
from isoprobe.checkpoints.native import FORMAT_VERSION as CHECKPOINT_VERSION
from isoprobe.checkpoints.native import read_manifest
from isoprobe.cli import main
from isoprobe.errors import CheckpointError, ResultError
from isoprobe.results.reader import Result
from isoprobe.results.versions import FORMAT_VERSION as RESULT_VERSION
from isoprobe.results.versions import MOVED
from tests import bad_files

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(p.stem.removeprefix("numbers-v") for p in GOLDEN.glob("numbers-v*.json"))


def numbers(folder: Path, version: str) -> dict[str, object]:
    return json.loads((folder / f"numbers-v{version}.json").read_text())


def test_the_current_versions_have_their_files() -> None:
    assert str(RESULT_VERSION) in VERSIONS
    assert (GOLDEN / f"model-v{CHECKPOINT_VERSION}.safetensors").is_file()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_says_what_it_said(version: str) -> None:
    wanted = numbers(GOLDEN, version)
    with Result.open(GOLDEN / f"result-v{version}.h5") as result:
        assert {name: result.attrs[name] for name in wanted["attrs"]} == wanted["attrs"]
        assert sorted(result.groups()) == sorted(wanted["groups"])
        for name, values in wanted["arrays"].items():
            group, _, key = name.partition("/")
            np.testing.assert_array_equal(result[group][key].values, values)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_checkpoint_gives_what_it_gave(version: str) -> None:
    wanted = numbers(GOLDEN, version)
    vae = load(GOLDEN / wanted["checkpoint"])
    assert (vae.facts.metric, vae.facts.beta) == ("bce", 1.0)
    found = vae.decode(torch.ones(1, vae.latent_size))
    np.testing.assert_allclose(found[0], wanted["decoded"], rtol=1e-6)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_result_is_a_reference_and_has_a_report(version, tmp_path, capsys) -> None:
    np.save(tmp_path / "rows.npy", np.full((3, bad_files.PIXELS), 0.5, "f4"))
    model, result = GOLDEN / numbers(GOLDEN, version)["checkpoint"], GOLDEN / f"result-v{version}"
    data = ["--data", str(tmp_path / "rows.npy")]
    score = ["score", str(model), *data, "--reference", f"{result}.h5"]
    assert main(score) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({line.partition(",")[2] for line in lines[1:]}) == 1  # equal rows, equal scores
    assert main(["report", f"{result}.h5", "-o", str(tmp_path / "page.html")]) == 0


def test_a_number_is_found_by_its_name_in_either_version() -> None:
    with Result.open(GOLDEN / "result-v1.h5") as old, Result.open(GOLDEN / "result-v2.h5") as new:
        for old_name, new_name in MOVED.items():
            (group, _, key), (other, _, name) = old_name.partition("/"), new_name.partition("/")
            if group not in old or group not in new:
                continue
            assert key in old[group]
            assert key not in list(new[group])
            with pytest.warns(DeprecationWarning, match=f"'{old_name}' is now '{new_name}'"):
                found = new[group][key]
            np.testing.assert_array_equal(found.values, new[other][name].values)
            np.testing.assert_array_equal(old[group][key].values, old[other][name].values)


def test_a_newer_result_is_refused_with_advice(tmp_path) -> None:
    path = tmp_path / "newer.h5"
    path.write_bytes((GOLDEN / f"result-v{RESULT_VERSION}.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = RESULT_VERSION + 1
    with pytest.raises(ResultError, match=r"version 3.*reads up to 2.*newer isoprobe"):
        Result.open(path)


def test_a_newer_checkpoint_is_refused_with_advice(tmp_path) -> None:
    path = tmp_path / "newer.safetensors"
    good = (GOLDEN / f"model-v{CHECKPOINT_VERSION}.safetensors").read_bytes()
    path.write_bytes(bad_files.with_manifest(good, format_version=2, feature="unheard of"))
    with pytest.raises(CheckpointError, match=r"version 2, newer than the 1.*upgrade"):
        read_manifest(path)


def make(folder: Path) -> None:
    """Write the files of the current version."""
    os.chdir(folder)  # so that no path of this machine is recorded
    version, model = RESULT_VERSION, Path(f"model-v{CHECKPOINT_VERSION}.safetensors")
    out = Path(f"result-v{version}.h5")
    if not model.exists():
        bad_files.good_model(model)
    rows = Path("rows.npy")
    np.save(rows, np.random.default_rng(0).random((24, bad_files.PIXELS)).astype("f4"))
    analyses = ["--analysis=anomaly", "--analysis=importance", "--analysis=isometry"]
    main(["analyze", str(model), "--data", str(rows), *analyses, "--out", str(out), "--json"])
    rows.unlink()
    with Result.open(out) as result:
        said = {
            "checkpoint": model.name,
            "attrs": {k: result.attrs[k] for k in ("model", "metric", "beta", "samples", "seed")},
            "groups": result.groups(),
            "arrays": {
                f"{group}/{name}": result[group][name].values.tolist()
                for group, name in (
                    ("isometry", "norm_mean"),
                    ("importance", "exact"),
                    ("anomaly", "threshold"),
                    ("samples", "score"),
                )
            },
        }
    said["decoded"] = load(model).decode(torch.ones(1, bad_files.LATENTS))[0].tolist()
    Path(f"numbers-v{version}.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(make(GOLDEN))
