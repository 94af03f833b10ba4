"""One table over every variable of a full result, away from the optimum, against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import Variable
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result
from isoprobe_plugins.architectures.linear import linear_vae
from tests.theory.crooked import (
    ACTIVE,
    AT,
    BETA,
    CONTAMINATION,
    DECLARED,
    QUANTILE,
    ROWS,
    SEED,
    STEPS,
    WALKS,
    N,
    Oracle,
    rows,
    vae,
)

ANALYSES = [
    "isometry",
    "importance",
    "coordinates",
    "rate-distortion",
    "density",
    "diagnosis",
    f"anomaly:quantile={QUANTILE},contamination={CONTAMINATION}",
    f"traversal:latents={WALKS},steps={STEPS},at={AT}",
]
#: D(x, x) is the same for every row, or there were no absolute densities
CONSTANT = {"overview/distortion_self_sd", "overview/distortion_self_se"}
#: words, which tests of their own hold
WORDS = {
    f"diagnosis/{name}"
    for name in (
        "verdict", "label", "finding", "evidence", "advice", "level", "meaning", "causes",
        "condition", "answer", "size", "error", "tolerance",
    )
}  # fmt: skip
#: groups that tests of their own hold against closed forms, on and off the optimum
ELSEWHERE = (
    "conditions/",  # tests/theory/test_conditions.py
    "anomaly/by_score",  # tests/run/test_other_scores.py
)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    x, marks = rows()
    path = tmp_path_factory.mktemp("crooked") / "rows.npz"
    np.savez(path, x=x, y=marks)
    return analyzed(path)


def analyzed(path: Path, **options: object) -> Result:
    return isoprobe.analyze(
        vae(), f"{path}:x,y", analyses=ANALYSES, beta=BETA, samples=None, seed=SEED, batch_size=32,
        **options,
    )  # fmt: skip


def same(name: str, found: np.ndarray, expected: object) -> None:
    wanted = np.asarray(expected)
    assert found.shape == wanted.shape, name
    if found.dtype.kind in "UOS":
        assert found.tolist() == wanted.tolist(), name
        return
    loose = 1e-6 if found.dtype == np.float32 else 1e-8
    if name.endswith(("_low", "_high")):
        loose = 3e-7  # Student's quantile by a series
    np.testing.assert_allclose(
        found.astype(float), wanted.astype(float), rtol=loose, atol=loose / 100, err_msg=name
    )


def test_every_variable_is_what_the_definitions_give(result: Result, oracle: Oracle) -> None:
    expected = oracle.everything()
    found = {f"{g}/{name}": v for g in result.groups() for name, v in result[g].items()}
    held = {name for name in found if not name.startswith(ELSEWHERE)}
    assert held - WORDS == expected.keys()
    for name, value in expected.items():
        same(name, np.asarray(found[name].values), value)


def test_nothing_is_zero_by_accident(oracle: Oracle) -> None:
    """A number that is 0 or 1 anyway would hide a wrong factor."""
    for name, value in oracle.everything().items():
        values = np.asarray(value)
        if values.dtype.kind == "f" and name not in CONSTANT:
            assert np.any(np.abs(values[np.isfinite(values)]) > 1e-6), name
            assert not np.all(values == 1), name


def test_betas_of_the_attributes(result: Result, oracle: Oracle) -> None:
    attributes = result.attrs
    assert (attributes["beta"], attributes["beta_declared"]) == (BETA, DECLARED)
    response = {
        "beta_recovered": oracle.stationarity,
        "beta_recovered_pullback": 2 * oracle.s**2 * oracle.g,
    }
    for name, values in response.items():
        counted = agreeing(oracle, values[:, ACTIVE], (1 - oracle.s**2)[:, ACTIVE])
        value, *ends = oracle.ratio(
            values[:, ACTIVE] @ counted, (1 - oracle.s**2)[:, ACTIVE] @ counted
        )
        assert attributes[name] == pytest.approx(value, rel=1e-9)
        assert attributes[name.replace("recovered", "ci95")] == pytest.approx(ends, rel=1e-7)


def agreeing(oracle: Oracle, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """How far each latent counts: in full to a quarter off the weighted median, not from half."""
    value, error = oracle.error(above, below)
    order = np.argsort(value)
    parts = np.stack([oracle.stationarity.mean(0), oracle.drift.mean(0)])[:, ACTIVE]
    off = np.abs(parts.sum(0)) / np.abs(parts).sum(0)  # 0 where sigma and decoder balance
    weight = (np.abs(below.sum(0)) / (1 + 9 * off**2))[order]
    centre = value[order][np.searchsorted(np.cumsum(weight) / weight.sum(), 0.5)]
    beyond = np.maximum(np.abs(value - centre) - 2 * error, 0) / abs(centre)
    return np.clip(2 - 4 * beyond, 0, 1)


def test_labels_and_verdict(result: Result) -> None:
    group: dict[str, Variable] = dict(result["diagnosis"])
    assert str(group["level"].values) == "not sound"
    assert str(group["verdict"].values) == str(group["finding"].values[0])
    assert str(group["label"].values[3]) == "collapsed"


def test_the_general_volume_is_that_of_the_scale_where_there_is_one(
    oracle: Oracle, tmp_path: Path
) -> None:
    x, _ = rows()
    with isoprobe.analyze(vae(), x, analyses=["density:volume=general"], seed=SEED) as general:
        found = general.samples(names=["log_volume"])["log_volume"]
        np.testing.assert_allclose(found, oracle.densities["log_volume"], rtol=1e-9)
        assert "det(J'GJ)" in str(general["density"]["volume"].values)


def test_betas_under_other_metrics_are_tables_of_one_number() -> None:
    """Metrics that are multiples of each other show multiples of one beta."""
    covariance = torch.diag(torch.tensor([3.0, 1.0, 0.4, 0.2], dtype=torch.float64))
    model = linear_vae(covariance, 0.1, latent_size=3).with_facts(beta=0.4)
    x = np.random.default_rng(0).multivariate_normal(np.zeros(4), covariance.numpy(), 600)
    with isoprobe.analyze(model, x, metric="sse", analyses=["diagnosis"], seed=SEED) as result:
        group = result["diagnosis"]
        assert str(group["verdict"].values) == "metric"
        table = dict(zip(group["metric"].values, group["metric_beta"].values, strict=True))
        recovered = result.attrs["beta_recovered"]
    assert table["sse"] == pytest.approx(0.1, rel=0.1)
    assert table["sse"] == pytest.approx(recovered, rel=0.05)  # of 512 rows of the 600
    assert table["mse"] == pytest.approx(table["sse"] / 4, rel=1e-9)
    assert table["gaussian:sigma2=1.0"] == pytest.approx(table["sse"] / 2, rel=1e-9)
    assert table["gaussian:sigma2=0.5"] == pytest.approx(table["sse"], rel=1e-9)


def test_a_declared_beta_that_holds_asks_for_no_table() -> None:
    """The table takes a pass of its own, which a sound run is spared."""
    covariance = torch.diag(torch.tensor([3.0, 1.0, 0.4, 0.2], dtype=torch.float64))
    x = np.random.default_rng(0).multivariate_normal(np.zeros(4), covariance.numpy(), 2000)
    with isoprobe.analyze(
        linear_vae(covariance, 0.1, latent_size=3), x, metric="sse", analyses=["diagnosis"]
    ) as result:
        assert str(result["diagnosis"]["verdict"].values) == "sound"
        assert "metric_beta" not in list(result["diagnosis"])


def test_what_random_columns_tell_of_orthogonality(oracle: Oracle) -> None:
    """Means and errors of the probe's own estimates, taken once more by hand."""
    model = vae()
    metric = installed().metric(model.facts.metric)
    needs = {"std", "pullback", "pullback_off_diagonal", "pullback_drawn"}
    probe = Probe(model, metric, needs, ProbeOptions(pullback="probe", seed=SEED))
    batch = probe(np.arange(ROWS), torch.as_tensor(oracle.x))
    square = 4 * batch.array("pullback_off_diagonal")
    response = 2 * oracle.s**2 * batch.array("pullback")
    options = {"beta": BETA, "seed": SEED, "pullback": "probe", "analyses": ["isometry"]}
    with isoprobe.analyze(model, oracle.x, **options) as result:
        group = {name: v.values for name, v in result["isometry"].items()}
        stored = result.samples(names=["pullback"])["pullback"]
    defect = np.sqrt(square.mean(0)) / response.mean(0)
    error = square.std(0, ddof=1) / np.sqrt(ROWS) / (2 * np.sqrt(square.mean(0))) / response.mean(0)
    np.testing.assert_allclose(group["orthogonality_defect"], defect, rtol=1e-9)
    np.testing.assert_allclose(group["orthogonality_defect_se"], error, rtol=1e-9)
    assert "cosine" not in group
    drawn = batch["pullback_drawn"].numpy()
    assert drawn.any()
    np.testing.assert_array_equal(np.isfinite(stored), drawn)
    np.testing.assert_allclose(stored[drawn], oracle.g[drawn], rtol=1e-9)
    truth = 2 * oracle.s**2 * oracle.g / BETA
    off = np.abs(group["norm_mean"] - truth.mean(0)) / group["norm_se"]
    assert off.max() < 3
    at_hand = [np.where(drawn[:, j], truth[:, j], np.nan) for j in range(N)]
    spread = np.array([np.nanstd(column, ddof=1) for column in at_hand])
    np.testing.assert_allclose(group["norm_sd"], spread, rtol=1e-9)


def test_without_a_pair_of_active_latents_there_is_no_angle() -> None:
    covariance = torch.diag(torch.tensor([3.0, 0.02, 0.01], dtype=torch.float64))
    x = np.random.default_rng(0).multivariate_normal(np.zeros(3), covariance.numpy(), 200)
    model = linear_vae(covariance, 0.1, latent_size=3)
    with isoprobe.analyze(model, x, analyses=["isometry", "density"], seed=SEED) as result:
        assert result["overview"]["active"].values.tolist() == [True, False, False]
        assert float(result["isometry"]["cosine_mean_abs"].values) == 0
        assert float(result["isometry"]["hadamard_gap"].values) == 0


def test_density_without_a_volume(oracle: Oracle) -> None:
    for options in ({"analyses": ["density:volume=none"]}, {"metric": "l1", "beta": 1.0}):
        with isoprobe.analyze(
            vae(), oracle.x, seed=SEED, **{"analyses": ["density"], **options}
        ) as result:
            assert "log_volume" not in result["samples"]
            assert "log_density_input" not in result["samples"]
            assert str(result["density"]["volume"].values) == "metric space only"
