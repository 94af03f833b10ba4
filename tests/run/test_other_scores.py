"""Other scores than L_x: what they are, that they are compared with errors, and scored alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.data.held import Held
from isoprobe.errors import OptionError, ResultError
from isoprobe.probe.fixed import fixed_noise
from isoprobe.theory.detection import auroc, conformal_p_values
from isoprobe.theory.scores import Mahalanobis, auroc_error, compared
from tests.oracles import small_vae

if TYPE_CHECKING:
    from isoprobe.contracts import VAE

BETA = 0.4


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 9))


@pytest.fixture(scope="module")
def vae() -> VAE:
    return small_vae(dtype=torch.float64)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, vae: VAE) -> Path:
    out = tmp_path_factory.mktemp("scores") / "r.h5"
    labels = np.arange(300) % 6 == 0
    data = Held(rows(300, 0) * np.where(labels, 2, 1)[:, None], labels=labels.astype(int))
    spec = "anomaly:iwae=true"
    isoprobe.analyze(vae, data, metric="sse", beta=BETA, analyses=[spec], out=out).close()
    return out


@torch.no_grad()
def by_hand(vae: VAE, x: np.ndarray, name: str) -> np.ndarray:
    inputs = torch.from_numpy(x)
    posterior = vae.encode(inputs)
    mean, std = posterior.mean, posterior.std
    noise = fixed_noise(mean.shape[1])
    z = mean[:, None] + std[:, None] * noise
    output = vae.decode(z.reshape(-1, mean.shape[1])).reshape(len(x), len(noise), -1)
    distortion = (output - inputs[:, None]).square().sum(2)
    kl = 0.5 * (mean**2 + std**2 - 2 * std.log() - 1).sum(1)
    if name == "kl":
        return (BETA * kl).numpy()
    if name == "reconstruction":
        return distortion.mean(1).numpy()
    log_ratio = 0.5 * (noise**2).sum(1) - 0.5 * (z**2).sum(2) + std.log().sum(1)[:, None]
    weights = log_ratio - distortion / BETA
    return (-BETA * (weights.logsumexp(1) - np.log(len(noise)))).numpy()


@pytest.mark.parametrize("name", ["kl", "reconstruction", "iwae"])
def test_a_score_is_what_its_name_says(vae: VAE, reference: Path, name: str) -> None:
    x = rows(50, 4)
    found = isoprobe.score(vae, x, reference, score=name)
    np.testing.assert_allclose(found["score"], by_hand(vae, x, name), rtol=1e-9)
    loss = isoprobe.score(vae, x, reference)["score"]
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-12)
    if name == "iwae":
        assert (found["score"] <= loss + 1e-6).all()


def test_the_distance_in_y_of_a_linear_map_is_that_in_its_coordinates() -> None:
    """Constant sigma makes y linear in z: y_j = sqrt(beta/2) mu_j / sigma_j."""
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(500, 3)) @ generator.normal(size=(3, 3))
    std = np.broadcast_to(np.array([0.2, 0.5, 1.0]), mean.shape)
    y = np.sqrt(BETA / 2) * mean / std
    moved = y - y.mean(0)
    inverse = np.linalg.inv(np.cov(y, rowvar=False, bias=True) + BETA / 2 * np.eye(3))
    expected = np.einsum("ij,jk,ik->i", moved, inverse, moved)
    np.testing.assert_allclose(Mahalanobis.of(mean, std, BETA).distance(mean), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["loss", "iwae", "mahalanobis", "reconstruction", "kl"])
def test_reference_rows_and_new_rows_score_alike(vae: VAE, reference: Path, name: str) -> None:
    labels = np.arange(300) % 6 == 0
    data = rows(300, 0) * np.where(labels, 2, 1)[:, None]
    found = isoprobe.score(vae, data, reference, score=name)
    old = np.sort(found["score"][~labels])
    p_values = conformal_p_values(found["score"], old, 1e-6 * np.abs(found["score"]))
    np.testing.assert_allclose(found["p_value"], p_values)
    assert found["flag_quantile"].sum() >= found["flag_quantile"][~labels].sum()
    assert found["flag_quantile"][~labels].sum() <= 3


def test_all_scores_are_compared_where_labels_are(reference: Path) -> None:
    from isoprobe.results.reader import Result

    with Result.open(reference) as result:
        group = result["anomaly"]
        names = [str(name) for name in group["by_score"].values]
        assert names == ["loss", "iwae", "mahalanobis", "reconstruction", "kl"]
        assert group["by_score_auroc"].values[0] == pytest.approx(float(group["auroc"].values))
        for name in ("auroc_se", "average_precision_se"):
            assert ((values := group[f"by_score_{name}"].values) > 0).all() and (values < 0.2).all()


def test_errors_of_auroc_are_those_of_repetition() -> None:
    generator, values, errors = np.random.default_rng(0), [], []
    for _ in range(400):
        odd = np.arange(120) < 40
        scores = generator.normal(size=120) + odd
        values.append(auroc(scores, odd))
        errors.append(auroc_error(scores, odd))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)
    found = compared({"one": scores, "two": -scores}, odd)
    assert found["auroc"][0] + found["auroc"][1] == pytest.approx(1)


def test_what_a_reference_lacks_is_said(vae: VAE, tmp_path: Path) -> None:
    out = tmp_path / "plain.h5"
    isoprobe.analyze(
        vae, rows(100, 0), metric="sse", beta=BETA, analyses=["anomaly"], out=out
    ).close()
    with pytest.raises(ResultError, match=r"score='iwae': plain.h5 has no such score.*iwae=true"):
        isoprobe.score(vae, rows(5, 1), out, score="iwae")
    with pytest.raises(OptionError, match="found 'losss'; did you mean 'loss'"):
        isoprobe.score(vae, rows(5, 1), out, score="losss")
