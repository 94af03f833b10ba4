"""Comparison of models that were really trained: three small toy models of one ensemble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import isoprobe
from isoprobe.cli.group import cli
from isoprobe_trainers.common.training import Schedule
from isoprobe_trainers.toy.members import Member
from isoprobe_trainers.toy.train import train

DATA = "toy/mix:samples=4000"
#: sources of variance 1/6, 2/3 and 8/3: at the second beta the water line is 1/4
BETA, HIGH_BETA = 0.1, 0.5
MEMBERS = {
    "one": Member(DATA, lam=1 / BETA, seed=0),
    "two": Member(DATA, lam=1 / BETA, seed=1),
    "high": Member(DATA, lam=1 / HIGH_BETA, seed=2),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the results of three trainings, as ``isoprobe train`` and ``analyze`` make them."""
    folder = tmp_path_factory.mktemp("trained")
    schedule = Schedule(epochs=60, batch=128, lr=4e-3, decay=1.0)
    paths = train(list(MEMBERS.values()), schedule, folder / "models", torch.device("cpu"))
    for name, path in zip(MEMBERS, paths, strict=True):
        analyses = ["isometry", "importance", "coordinates"]
        isoprobe.analyze(path, samples=1000, analyses=analyses, out=folder / f"{name}.h5").close()
    return folder


def compared(folder: Path, *names: str) -> dict[str, Any]:
    files = [str(folder / f"{name}.h5") for name in names]
    done = CliRunner().invoke(cli, ["compare", *files, "--json"], catch_exceptions=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_two_trainings_agree_latent_by_latent(results: Path) -> None:
    document = compared(results, "one", "two")
    assert [model["active"] for model in document["models"]] == [3, 3]
    (against,) = document["matchings"]
    assert {pair["other"] for pair in against["pairs"]} == {0, 1, 2}
    for pair in against["pairs"]:
        assert abs(pair["correlation"]) > 0.99
        assert pair["other_importance"] == pytest.approx(pair["importance"], rel=0.05)
    assert any("The two models agree" in said for said in against["says"])


def test_the_other_beta_loses_the_dimension_that_was_predicted(results: Path) -> None:
    document = compared(results, "one", "high")
    assert [model["active"] for model in document["models"]] == [3, 2]
    (against,) = document["matchings"]
    *kept, lost = against["pairs"]  # most important first: the triangle is last
    assert [pair["stays"] for pair in against["pairs"]] == [True, True, False]
    assert lost["importance"] == pytest.approx(1 / 6, rel=0.1)
    assert lost["other"] is None
    assert lost["explained"] < 0.05  # gone, not rotated into the others
    for pair, variance in zip(kept, (8 / 3, 2 / 3), strict=True):
        assert abs(pair["correlation"]) > 0.99
        assert pair["other_importance"] == pytest.approx(variance, rel=0.1)
    said = f"the loss of latents {lost['reference']}: as found"
    assert any(said in text for text in against["says"])
    assert not any("agree" in text for text in against["says"])
