"""The same inputs and seed give the same bytes; batches and threads change rounding alone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.cli import main
from tests import bad_files
from tests.theory.test_numbers import ANALYSES, X, trained

#: relative difference that another order of summation may make, by precision
ROUNDING = {"float32": 2e-5, "float64": 1e-11}


def test_the_same_command_gives_the_same_bytes_at_another_time_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["analyze", "model.safetensors", "--data", "good.npy", "--out", "r.h5"]
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        bad_files.good_model(Path("model.safetensors"))
        np.save("good.npy", np.random.default_rng(0).random((40, 12)).astype("f4"))
        assert main([*arguments, *(f"--analysis={name}" for name in ANALYSES)]) == 0
        time.sleep(1.1)  # HDF5's clock ticks in seconds
    files = [tmp_path / name / "r.h5" for name in ("here", "there")]
    assert files[0].read_bytes() == files[1].read_bytes()
    texts = capsys.readouterr().out
    assert texts[: len(texts) // 2] == texts[len(texts) // 2 :]


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    """Counter-test: what is drawn shows in the file."""
    for seed in (0, 1):
        out = tmp_path / f"{seed}.h5"
        isoprobe.analyze(trained(), X, analyses=["isometry"], seed=seed, out=out).close()
    assert (tmp_path / "0.h5").read_bytes() != (tmp_path / "1.h5").read_bytes()


def numbers(**options) -> dict[str, np.ndarray]:
    """Every array of numbers in a result."""
    with isoprobe.analyze(trained(), X, analyses=list(ANALYSES), **options) as result:
        return {
            f"{group}/{name}": result[group][name].values
            for group in result.groups()
            for name in result[group]
            if result[group][name].values.dtype.kind in "fi"
        }


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], dtype: str) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        size = np.nanmax(np.abs(values), initial=1e-3)
        if "coding" in name:  # a difference of distortions is as exact as those are
            size = max(size, wanted["overview/distortion_mean"])
        rounding = ROUNDING[dtype]
        np.testing.assert_allclose(found[name], values, rounding, rounding * size, err_msg=name)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_batches_change_rounding_alone(dtype: str) -> None:
    wanted = numbers(batch_size=len(X), dtype=dtype)
    assert_same(numbers(batch_size=7, dtype=dtype), wanted, dtype)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_threads_change_rounding_alone(dtype: str) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        wanted = numbers(dtype=dtype)
        torch.set_num_threads(2)
        assert_same(numbers(dtype=dtype), wanted, dtype)
    finally:
        torch.set_num_threads(before)
