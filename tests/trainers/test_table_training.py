"""From a table to alarms: three commands, the same in Python, and scikit-learn's own checks."""

from __future__ import annotations

import csv
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pandas
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

import isoprobe
from isoprobe.cli import main
from isoprobe.data.recipe import Column
from isoprobe.errors import DataError
from isoprobe.theory.detection import auroc
from isoprobe_trainers.table import train as fitting
from isoprobe_trainers.table.columns import learn_recipe
from isoprobe_trainers.table.train import fit_linear


def people(count: int, seed: int) -> pandas.DataFrame:
    """Height and weight that go together, a site, and every tenth row where they do not."""
    generator = np.random.default_rng(seed)
    height = generator.normal(170, 10, count)
    weight = 70 + 0.9 * (height - 170) + generator.normal(0, 3, count)
    odd = np.arange(count) % 10 == 0
    weight[odd] -= 1.8 * (height[odd] - 170) + 25
    site = generator.choice(["north", "south"], count)
    columns = {"id": np.arange(count), "height": height, "weight": weight, "site": site}
    return pandas.DataFrame(columns | {"odd": odd.astype(int)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("table")
    for name, seed in (("data", 0), ("new", 1)):
        people(500, seed).to_csv(root / f"{name}.csv", index=False)
    spec = f"{root}/data.csv:label=odd;id=id"
    assert main(["train", "table", spec, "--out", str(root / "run")]) == 0
    model, reference = root / "run" / "data.safetensors", root / "run" / "data.reference.csv"
    result = ["--analysis", "anomaly", "--out", str(root / "r.h5")]
    assert main(["analyze", str(model), "--data", str(reference), *result]) == 0
    return root


def test_three_commands_lead_to_alarms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(folder / "run" / "data.safetensors")
    arguments = ["--reference", str(folder / "r.h5"), "--fdr", "0.1", "--top", "5"]
    data = f"{folder}/new.csv:id=id;label=odd"
    out = folder / "s.csv"
    assert main(["score", model, "--data", data, *arguments, "--out", str(out)]) == 0
    found = pandas.read_csv(out)
    truth = people(500, 1)["odd"].to_numpy()
    assert auroc(found["score"].to_numpy(), truth == 1) > 0.95
    assert found["id"].tolist() == list(range(500))
    flags = found["flag_fdr"].to_numpy() == 1
    assert flags.sum() > 20
    assert truth[flags].mean() > 0.8
    text = capsys.readouterr().err
    assert "height" in text or "weight" in text
    assert "site=" not in text  # a category's inputs are one part


def test_python_scores_as_the_command_does(folder: Path) -> None:
    model = folder / "run" / "data.safetensors"
    frame = people(500, 1)
    from_file = isoprobe.score(model, f"{folder}/new.csv", folder / "r.h5")
    frame.to_parquet(folder / "new.parquet")
    parquet = f"{folder}/new.parquet"
    for data in (parquet, frame, frame[["height", "weight", "site"]].to_numpy()):
        found = isoprobe.score(model, data, folder / "r.h5")
        assert np.array_equal(found["score"], from_file["score"])


def test_rows_left_out_are_not_trained_on(folder: Path) -> None:
    with (folder / "run" / "data.reference.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0].keys() == {"height", "weight", "site"}
    assert len(rows) == round(0.25 * 450)


def test_a_missing_column_or_cell_is_named(folder: Path, tmp_path: Path) -> None:
    model, frame = folder / "run" / "data.safetensors", people(20, 2)
    frame.drop(columns="weight").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(DataError, match=r"no column 'weight'"):
        isoprobe.score(model, f"{tmp_path}/less.csv", folder / "r.h5")
    frame.loc[3, "weight"] = np.nan
    frame.to_csv(tmp_path / "holes.csv", index=False)
    for data in (f"{tmp_path}/holes.csv", frame):
        with pytest.raises(DataError, match=r"row 3 of .*column 'weight'.*found nothing; fill"):
            isoprobe.score(model, data, folder / "r.h5")
    with pytest.raises(DataError, match=r"row 3 of .*column 'weight'.*found nothing; fill"):
        learn_recipe({"weight": frame["weight"].to_numpy()}, "the frame")


@pytest.mark.parametrize("hole", ["NA", "N/A", "?", "NULL", "nan", ""])
def test_a_text_that_stands_for_a_missing_cell_makes_no_category_of_a_column(hole: str) -> None:
    """Else every number of the column would be a category, and the model one of texts."""
    for column in (["1.5", "2.5", hole, "4"], ["a", "b", hole, "b"]):
        with pytest.raises(DataError, match=r"row 2 of t.csv, column 'x'.*; fill the cell, or"):
            learn_recipe({"x": np.array(column)}, "t.csv")


def test_a_known_category_may_be_called_as_a_missing_cell_is() -> None:
    column = Column("x", ("NA", "b"), (0.0, 0.0), (1.0, 1.0))
    found = column.inputs(np.array(["NA", "b", "c"]), "t.csv")
    np.testing.assert_array_equal(found, [[1, 0], [0, 1], [0, 0]])
    with pytest.raises(DataError, match="found 'N/A'; fill the cell"):
        column.inputs(np.array(["b", "N/A"]), "t.csv")


# ------------------------------------------------------------------ where the training starts


def test_the_linear_start_is_probabilistic_pca() -> None:
    from sklearn.decomposition import PCA

    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 3)) @ generator.normal(size=(3, 8))
    x += 0.5 * generator.normal(size=x.shape)
    found = fit_linear(x)
    assert found.latents == 3
    theirs = PCA(3).fit(x)
    np.testing.assert_allclose(found.noise, theirs.noise_variance_, rtol=0.01)
    np.testing.assert_allclose(found.log_density(x), theirs.score_samples(x), rtol=0.01)


def test_at_the_start_the_elbo_is_the_log_density() -> None:
    """The bound is tight for a linear VAE, so L_x of the networks is -beta log p(x) of PPCA."""
    import torch

    from isoprobe.probe.objective import Objective, parts
    from isoprobe.registry.lookup import installed
    from isoprobe_trainers.table.train import as_vae

    x = np.random.default_rng(1).normal(size=(300, 6)) @ np.diag([3, 2, 1, 1, 1, 1])
    linear = fit_linear(x)
    networks, _ = fitting.started(linear, 6, 0)
    vae = as_vae(networks, linear.beta, {}).to("cpu", torch.float64)
    score = parts(Objective(vae, installed().metric("sse"))(torch.from_numpy(x)), linear.beta).score
    constant = 0.5 * 6 * np.log(np.pi * linear.beta)
    np.testing.assert_allclose(-score / linear.beta - constant, linear.log_density(x), rtol=1e-4)


def test_a_training_never_ends_with_less() -> None:
    generator = np.random.default_rng(2)
    along = generator.normal(size=400)
    curve = {"x": along, "y": along**2, "z": np.sin(2 * along)}
    curve = {name: values + 0.1 * generator.normal(size=400) for name, values in curve.items()}
    record = fitting.fit(curve).record
    assert record["elbo"] > record["elbo_linear"] + 0.1
    noise = generator.normal(size=(200, 3))
    record = fitting.fit({str(place): noise[:, place] for place in range(3)}).record
    assert record["elbo"] >= record["elbo_linear"]


# ------------------------------------------------------------------ scikit-learn


def test_scikit_learn_checks_its_own() -> None:
    detector = isoprobe.Detector(seed=1)
    failed = {}
    for estimator, check in estimator_checks_generator(detector):
        name = getattr(check, "func", check).__name__
        try:
            check(estimator)
        except SkipTest:
            continue
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    assert failed == {}


def test_the_detector_does_what_its_methods_say(tmp_path: Path) -> None:
    train, new = people(500, 0), people(200, 1)
    normal = train[train["odd"] == 0][["height", "weight", "site"]]
    rows = new[["height", "weight", "site"]]
    detector = isoprobe.Detector(seed=0).fit(normal)
    score, p_value = detector.decision_function(rows), detector.p_value(rows)
    assert auroc(score, new["odd"].to_numpy() == 1) > 0.95
    assert np.array_equal(detector.predict(rows), p_value <= 0.05)
    assert np.corrcoef(score.argsort().argsort(), p_value)[0, 1] < -0.8
    detector.set_params(fdr=0.2)
    assert new["odd"].to_numpy()[detector.predict(rows) == 1].mean() > 0.7
    detector.save(tmp_path / "d.safetensors")
    vae = isoprobe.load(tmp_path / "d.safetensors")
    assert vae.facts.beta == detector.beta_


def test_p_values_of_the_detector_hold_on_normal_rows() -> None:
    """At most alpha plus its error of new normal rows, over trainings."""
    rates = []
    for seed in range(6):
        normal = np.random.default_rng(seed).normal(size=(900, 4))
        detector = isoprobe.Detector(alpha=0.1, seed=seed).fit(normal[:400])
        rates.append(detector.predict(normal[400:]).mean())
    assert np.mean(rates) <= 0.1 + 2 * np.std(rates) / np.sqrt(len(rates)) + 0.01
    assert np.mean(rates) > 0.02


@pytest.mark.parametrize("count", [1, 7, 256])
def test_equal_rows_score_equally_in_any_company(count: int) -> None:
    normal = np.random.default_rng(0).normal(size=(200, 5))
    detector = isoprobe.Detector().fit(normal)
    whole = detector.decision_function(normal)
    found = np.concatenate(
        [detector.decision_function(normal[a : a + count]) for a in range(0, 200, count)]
    )
    np.testing.assert_allclose(found, whole, rtol=1e-12)
