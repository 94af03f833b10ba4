"""Anomaly scores against closed forms and dense computations, thresholds and quality by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor

import isoprobe
from isoprobe.contracts import VAE, Beta, Context, Dataset, Posterior, Setup
from isoprobe.errors import CheckpointError, DataError, MetricError, OptionError
from isoprobe.probe.fixed import fixed_noise
from isoprobe.probe.objective import rates
from isoprobe.probe.shared import PassStatistics
from isoprobe.show.summary import to_json, to_text
from isoprobe_plugins.analyses.anomaly import Anomaly
from isoprobe_plugins.architectures.linear import linear_vae
from isoprobe_plugins.metrics.square import SumSquaredError
from tests.oracles import small_vae

if TYPE_CHECKING:
    from isoprobe.results.reader import Result

BETA = 0.4


def rows(count: int = 200, size: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size))


def greys(count: int = 200, size: int = 9) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.02, 0.98, size=(count, size))


def scored(vae: VAE, data: object, spec: str = "anomaly", **settings: object) -> Result:
    settings = {"metric": "sse", "beta": BETA, "samples": None} | settings
    return isoprobe.analyze(vae, data, analyses=[spec], **settings)


def posterior_kl(posterior: Posterior) -> Tensor:
    normal = torch.distributions.Normal
    prior = normal(torch.zeros_like(posterior.mean), 1.0)
    return torch.distributions.kl_divergence(normal(posterior.mean, posterior.std), prior)


class Labelled(Dataset):
    """Rows and labels in memory."""

    name = "labelled rows"

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self.shape, self.dtype = x.shape[1:], x.dtype.name

    def __len__(self) -> int:
        return len(self.x)

    def read(self, indices: np.ndarray) -> np.ndarray:
        return self.x[indices]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self.y[indices]

    def fingerprint(self) -> str:
        return "labelled"


def mixture(count: int = 300, anomalies: int = 30) -> Labelled:
    """Rows rounded so that scores tie, some of them spread wider, every third of them twice."""
    x = np.round(rows(count), 0)
    y = np.zeros(count, dtype=np.uint8)
    y[:: count // anomalies] = 1
    x[y == 1] *= 2
    x[1::3] = x[0::3][: len(x[1::3])]
    return Labelled(x, y)


# ------------------------------------------------------------------ the score itself


def test_score_is_minus_log_density_on_the_linear_vae() -> None:
    """-L_x / beta - (m/2) log(pi beta) = log N(x; 0, C) when the rest of the spectrum is beta/2."""
    beta = 0.02
    basis, _ = np.linalg.qr(rows(6, 6))
    covariance = basis @ np.diag([3.0, 1.0, 0.5, 0.2, beta / 2, beta / 2]) @ basis.T
    x = np.random.default_rng(1).multivariate_normal(np.zeros(6), covariance, size=300)
    expected = torch.distributions.MultivariateNormal(
        torch.zeros(6, dtype=torch.float64), torch.as_tensor(covariance)
    ).log_prob(torch.as_tensor(x))
    with scored(linear_vae(torch.as_tensor(covariance), beta, latent_size=4), x, beta=beta) as r:
        score = r.samples(names=["score"])["score"]
    found = -score / beta - 3 * np.log(np.pi * beta)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", ["sse", "bce", "l1"])
def test_score_equals_a_dense_computation(metric: str) -> None:
    vae, x = small_vae(sigmoid=True), torch.as_tensor(greys())
    posterior = vae.encode(x)

    def distortion(z: Tensor) -> Tensor:
        x_hat = vae.decode(z)
        by_metric = {
            "sse": (x - x_hat) ** 2,
            "l1": (x - x_hat).abs(),
            "bce": torch.nn.functional.binary_cross_entropy(x_hat, x, reduction="none"),
        }
        return by_metric[metric].sum(1)

    mean, std = posterior.mean, posterior.std
    noise = fixed_noise(vae.latent_size)
    expected = torch.stack([distortion(mean + std * e) for e in noise]).mean(0).detach().numpy()
    with scored(vae, greys(), metric=metric) as result:
        columns = result.samples()
    np.testing.assert_allclose(columns["score_distortion"], expected, rtol=1e-10)
    rate = BETA * posterior_kl(posterior).detach().numpy()
    np.testing.assert_allclose(columns["score_rate"], rate, rtol=1e-9)
    np.testing.assert_allclose(columns["score"], expected + rate.sum(1), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decomposed", [False, True])
def test_stored_parts_add_up_to_the_last_bit(dtype: torch.dtype, decomposed: bool) -> None:
    vae = small_vae(dtype=dtype, decomposed=decomposed, transform_weight=0.3)
    with scored(vae, rows()) as result:
        columns = result.samples()
    assert all(columns[c].dtype == np.float64 for c in ("score", "score_distortion", "score_rate"))
    total = columns["score_distortion"]
    if decomposed:
        total = total + columns["score_transform"]
    assert np.array_equal(columns["score"], total + columns["score_rate"].sum(axis=1))
    assert ("score_transform" in columns) == decomposed


@pytest.mark.parametrize(("metric", "transform"), [("sse", "l2"), ("sse", None), ("bce", None)])
def test_score_of_the_decomposed_loss(metric: str, transform: str | None) -> None:
    """w D_t(x, x_check) + D(x_check, x_hat) + beta KL, nothing subtracted from D."""
    vae = small_vae(sigmoid=True, decomposed=True, transform_weight=2.5, transform_metric=transform)
    x = torch.as_tensor(greys())
    posterior = vae.encode(x)
    mean, std = posterior.mean, posterior.std
    x_check = vae.decode(mean)

    def distortion(a: Tensor, b: Tensor) -> Tensor:
        if metric == "bce":
            return torch.nn.functional.binary_cross_entropy(b, a, reduction="none").sum(1)
        return ((a - b) ** 2).sum(1)

    ends = [vae.decode(mean + std * e) for e in fixed_noise(vae.latent_size)]
    coding = sum(distortion(x_check, end) for end in ends) / len(ends)
    apart = (x - x_check).norm(dim=1) if transform == "l2" else distortion(x, x_check)
    expected = 2.5 * apart + coding + BETA * posterior_kl(posterior).sum(1)
    with scored(vae, greys(), metric=metric) as result:
        columns = result.samples()
    np.testing.assert_allclose(columns["score"], expected.detach().numpy(), rtol=1e-9)
    np.testing.assert_allclose(columns["score_transform"], 2.5 * apart.detach().numpy(), rtol=1e-9)


def test_rates_are_taken_in_double_precision() -> None:
    mean, std = torch.tensor([[1e-4]]), torch.tensor([[1.0]])
    assert rates(mean, std)[0, 0] == pytest.approx(5e-9, rel=1e-6)


def test_scores_do_not_depend_on_the_batch_size() -> None:
    found = []
    for batch in (7, 64, 200):
        with scored(small_vae(dtype=torch.float32), rows(), batch_size=batch) as result:
            found.append(result.samples(names=["score"])["score"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)


def test_a_score_needs_beta() -> None:
    """Nothing is active here, so beta can be neither read nor recovered."""
    vae = small_vae()
    flat = replace(vae, encode=lambda x: Posterior(x.new_zeros(len(x), 4), x.new_ones(len(x), 4)))
    with pytest.raises(MetricError, match="beta is not known.*beta"):
        scored(flat, rows(), beta=None)


# ------------------------------------------------------------------ thresholds


def test_thresholds_flag_the_share_asked_for() -> None:
    with scored(small_vae(), rows(200), "anomaly:contamination=0.07,quantile=0.9") as result:
        score, group = result.samples(names=["score"])["score"], result["anomaly"]
        threshold = dict(zip(group["rule"].values, group["threshold"].values, strict=True))
    assert (score > threshold["contamination"]).sum() == 14
    assert (score > threshold["quantile"]).sum() == 20
    assert threshold["quantile"] in score


def test_the_reference_is_every_score_in_order() -> None:
    with scored(small_vae(), rows()) as result:
        score = result.samples(names=["score"])["score"]
        group = result["anomaly"]
        assert np.array_equal(group["reference"].values, np.sort(score))
        assert list(group["rule"].values) == ["quantile"]
        assert "auroc" not in group


@pytest.mark.parametrize("option", ["contamination=0", "contamination=1.5", "quantile=1"])
def test_a_share_outside_zero_and_one_is_refused(option: str) -> None:
    with pytest.raises(OptionError, match="between 0 and 1"):
        scored(small_vae(), rows(), f"anomaly:{option}")


# ------------------------------------------------------------------ quality


def test_quality_is_that_of_scikit_learn() -> None:
    data = mixture()
    with scored(small_vae(), data) as result:
        score, group = result.samples(names=["score"])["score"], result["anomaly"]
        threshold = group["threshold"].values
        assert float(group["prevalence"].values) == 0.1
        assert float(group["auroc"].values) == pytest.approx(sklearn.roc_auc_score(data.y, score))
        assert float(group["average_precision"].values) == pytest.approx(
            sklearn.average_precision_score(data.y, score)
        )
        for i in range(2):
            flags = score > threshold[i]
            expected = sklearn.precision_recall_fscore_support(data.y, flags, average="binary")
            found = [group[name].values[i] for name in ("precision", "recall", "f1")]
            assert found == pytest.approx(expected[:3])
            assert group["flagged"].values[i] == flags.sum()
            assert group["ties"].values[i] == (score == threshold[i]).sum()
        assert (group["ties"].values > 1).any()  # or nothing here is about ties


def test_the_reference_of_labelled_rows_is_the_normal_ones() -> None:
    data = mixture()
    with scored(small_vae(), data) as result:
        score, group = result.samples(names=["score"])["score"], result["anomaly"]
        assert np.array_equal(group["reference"].values, np.sort(score[data.y == 0]))
        rules = list(group["rule"].values)
        above = score > group["threshold"].values[rules.index("quantile")]
        assert above[data.y == 0].mean() <= 0.01
        assert group["share"].values[rules.index("contamination")] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("labels", "spec", "anomalies"),
    [
        (np.array(["normal.", "smurf.", "back."]), "anomaly:anomaly=smurf.", [1]),
        (np.array([0, 3, 7]), "anomaly:anomaly=7", [2]),
        (np.array([0, 3, 7]), "anomaly:anomaly=nonzero", [1, 2]),
        (np.array([0, 1, 0]), "anomaly", [1]),
        (np.array([False, True, False]), "anomaly", [1]),
        (np.array([0.0, 1.0, 0.0]), "anomaly:anomaly=1", [1]),
    ],
)
def test_what_counts_as_an_anomaly(labels: np.ndarray, spec: str, anomalies: list[int]) -> None:
    data = Labelled(rows(30), np.tile(labels, 10))
    with scored(small_vae(), data, spec) as result:
        marks = result.samples(names=["anomalous"])["anomalous"]
        assert "auroc" in result["anomaly"]
    assert sorted(set(np.flatnonzero(marks) % 3)) == anomalies
    assert marks.sum() == 10 * len(anomalies)


@pytest.mark.parametrize(
    ("labels", "spec", "message"),
    [
        (["a", "b"], "anomaly", "labels are text such as 'a'.*anomaly:anomaly=LABEL"),
        (["a", "b"], "anomaly:anomaly=nonzero", "needs labels that are numbers"),
        ([0, 1], "anomaly:anomaly=bad", "anomaly=bad is text, and the labels are numbers"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(
    labels: list[object], spec: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        scored(small_vae(), Labelled(rows(20), np.tile(np.array(labels), 10)), spec)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.arange(3), "are classes, not marks of anomalies"),
        (np.zeros(3, int), "no row is labelled"),
        (np.ones(3, int), "every row is labelled"),
    ],
)
def test_labels_that_mark_no_anomalies_are_left_out_with_the_reason(
    labels: np.ndarray, reason: str
) -> None:
    with scored(small_vae(), Labelled(rows(30), np.tile(labels, 10))) as result:
        group = result["anomaly"]
        assert "auroc" not in group and "untrained_auroc" not in group
        assert reason in str(group["notes"].values)
        assert len(group["reference"].values) == 30


# ------------------------------------------------------------------ the untrained network


def test_the_untrained_row_is_that_of_the_network_drawn_anew() -> None:
    # rows without ties, which rounding could break in one of the two runs alone
    data, seed = Labelled(rows(300), np.arange(300) % 10 == 0), 5
    vae = small_vae()
    before = {name: p.clone() for name, p in vae.module.named_parameters()}
    with scored(vae, data, seed=seed, batch_size=50) as result:
        group, score = result["anomaly"], result.samples(names=["untrained_score"])
        figures = {name: group[f"untrained_{name}"].values for name in ("auroc", "f1", "threshold")}
    assert all(torch.equal(p, before[n]) for n, p in vae.module.named_parameters())

    fresh = small_vae()
    torch.manual_seed(seed)
    for part in reversed(list(fresh.module.modules())):
        if isinstance(part, torch.nn.Linear):
            part.reset_parameters()
    with scored(fresh, data, batch_size=50) as result:
        expected = result.samples(names=["score"])["score"]
        group = result["anomaly"]
        np.testing.assert_allclose(score["untrained_score"], expected, rtol=1e-9)
        for name, value in figures.items():
            np.testing.assert_allclose(value, group[name].values, rtol=1e-9)
    # the trained score is another one, or the comparison says nothing
    assert not np.allclose(figures["threshold"], [0, 0])


def test_a_parameter_that_cannot_be_drawn_anew_leaves_the_row_out() -> None:
    vae = small_vae()
    vae.module.register_parameter("extra", torch.nn.Parameter(torch.ones(2)))
    with scored(vae, mixture()) as result:
        group = result["anomaly"]
        assert "untrained_auroc" not in group and "auroc" in group
        assert "no reset_parameters fills extra" in str(group["notes"].values)
        assert "untrained_score" not in result["samples"]


def test_without_labels_no_untrained_network_is_run() -> None:
    with scored(small_vae(), rows()) as result:
        assert not any("untrained" in name for name in result["samples"])


def test_a_score_that_is_not_finite_is_refused_by_sample() -> None:
    setup = Setup(small_vae(), SumSquaredError(), 3, 0, np.ones(4, bool), torch.zeros)
    analysis = Anomaly()
    analysis.start(setup)
    columns = {"score": np.array([1.0, np.inf, 2.0])}
    with pytest.raises(CheckpointError, match="score of sample 1 is inf"):
        analysis.conclude(
            columns.__getitem__, Context(setup, Beta(1.0, "user"), PassStatistics.empty(4))
        )


def test_xarray_reads_the_group(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    out = tmp_path / "r.h5"
    scored(small_vae(), mixture(), out=out).close()
    with xarray.open_dataset(out, engine="h5netcdf", group="anomaly") as group:
        assert group["f1"].sel(rule="contamination").ndim == 0
        assert group.sizes["reference"] == 270


# ------------------------------------------------------------------ the summary


def test_the_summary_prints_the_untrained_row_beside_the_trained_one() -> None:
    with scored(small_vae(), mixture()) as result:
        found, text = to_json(result)["anomaly"], to_text(result)
        group = {name: variable.values for name, variable in result["anomaly"].items()}
    assert found["rules"] == ["quantile", "contamination"]
    assert found["reference_rows"] == 270
    for name, prefix in (("trained", ""), ("untrained", "untrained_")):
        assert found[name]["auroc"] == float(group[f"{prefix}auroc"])
        assert found[name]["f1"] == list(group[f"{prefix}f1"])
        (line,) = re.findall(rf"\b{name}, by contamination((?: [\d.]+)+)", " ".join(text.split()))
        figures = [float(word) for word in line.split()[-5:]]
        values = [found[name][key][1] for key in ("f1", "precision", "recall")]
        values += [found[name][key] for key in ("auroc", "average_precision")]
        assert figures == pytest.approx(values, abs=6e-4)
    assert "prevalence 0.1" in text


def test_the_summary_without_labels_has_thresholds_alone() -> None:
    with scored(small_vae(), rows()) as result:
        found, text = to_json(result)["anomaly"], to_text(result)
    assert found["trained"] is None and found["prevalence"] is None
    assert "at most 0.01 of the reference rows lie above" in text
    assert "AUROC" not in text


def test_the_summary_says_why_quality_is_left_out() -> None:
    with scored(small_vae(), Labelled(rows(30), np.arange(30) % 5)) as result:
        assert "are classes, not marks" in to_text(result)
    with scored(small_vae(), rows(), "importance") as result:
        assert to_json(result)["anomaly"] is None
