"""Weights that other people trained, against their own logs (ground truth 5)."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoprobe.cli import main

FOLDER = "YannDubs+disentangling-vae"
SAMPLES = "10000"


def analyzed(checkpoint: Path, *options: str) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["analyze", str(checkpoint), *options, "--json"]) == 0
    document: dict[str, Any] = json.loads(printed.getvalue())
    return document


def authors_log(checkpoint: Path) -> dict[str, float]:
    """Last figures of the authors' training log, by name."""
    with (checkpoint / "train_losses_tail.csv").open() as rows:
        return {row[1]: float(row[2]) for row in csv.reader(rows) if row[2][0].isdigit()}


def column(document: Mapping[str, Any], name: str) -> np.ndarray:
    return np.array([latent[name] for latent in document["latents"]], dtype=float)


@pytest.fixture(scope="module")
def mnist(shared: Path) -> dict[str, dict[str, Any]]:
    data = ["--data", f"{shared}/data/mnist.npz:x_train", "--resize", "32", "--samples", SAMPLES]
    data += ["--analysis", "isometry", "--analysis", "importance"]
    return {
        name: analyzed(shared / "checkpoints" / FOLDER / name, *data)
        for name in ("VAE_mnist", "betaH_mnist")
    }


@pytest.mark.parametrize("name", ["VAE_mnist", "betaH_mnist"])
def test_rates_are_those_of_the_authors(
    mnist: dict[str, dict[str, Any]], shared: Path, name: str
) -> None:
    log = authors_log(shared / "checkpoints" / FOLDER / name)
    assert mnist[name]["summary"]["kl_total"] == pytest.approx(log["kl_loss"], rel=0.03)
    for latent in mnist[name]["latents"]:
        expected = log[f"kl_loss_{latent['index']}"]
        assert latent["kl_mean"] == pytest.approx(expected, rel=0.12)


def test_vae_mnist_obeys_the_finite_rate_identity(mnist: dict[str, dict[str, Any]]) -> None:
    document = mnist["VAE_mnist"]
    assert np.abs(column(document, "residual_mean")).max() < 0.15
    assert 0.95 < document["beta"]["recovered"] < 1.08
    assert document["beta"]["recovered_pullback"] == pytest.approx(1.05, abs=0.05)
    assert document["beta"]["declared"] == 1


def test_beta_h_mnist_does_too_though_its_norms_do_not(mnist: dict[str, dict[str, Any]]) -> None:
    document = mnist["betaH_mnist"]
    assert np.abs(column(document, "residual_mean")).max() < 0.15
    assert 3.8 < document["beta"]["recovered"] < 4.3
    each = column(document, "beta_recovered")
    assert each.min() > 3.5
    assert each.max() < 4.5
    norm = column(document, "norm_mean")
    assert norm.min() < 0.55
    assert norm.max() > 0.95


def test_without_data_the_prior_shows_the_same(shared: Path) -> None:
    document = analyzed(
        shared / "checkpoints" / FOLDER / "betaH_mnist", "--data", "prior", "--samples", "2000"
    )
    # what the model's own samples show hangs on which are drawn: size less its error decides
    size, error = np.abs(column(document, "residual_mean")), column(document, "norm_se")
    assert (size - 2 * error).max() < 0.15


def test_celeba_rate(shared: Path) -> None:
    checkpoint = shared / "checkpoints" / FOLDER / "VAE_celeba"
    document = analyzed(
        checkpoint, "--data", f"{shared}/data/celeba64_subset.zip", "--samples", "400"
    )
    expected = authors_log(checkpoint)["kl_loss"]
    assert document["summary"]["kl_total"] == pytest.approx(expected, rel=0.05)
