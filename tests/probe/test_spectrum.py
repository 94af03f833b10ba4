"""What a decoder alone tells, against the linear VAE's closed form and the whole analysis."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import isoprobe
from isoprobe.cli import main
from isoprobe.contracts import VAE
from isoprobe.errors import CheckpointError, MetricError
from isoprobe.probe.spectrum import PAIRED, spectrum
from isoprobe.registry.lookup import installed
from isoprobe.statistics.draws import normal
from isoprobe_plugins.architectures.linear import linear_vae
from tests.oracles import dense_pullback

EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
BETA = 0.2
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits.safetensors"


def metric(spec: str = "sse"):
    return installed().metric(spec)


@pytest.fixture
def linear() -> VAE:
    """The optimum's decoder, its encoder lost."""
    return dataclasses.replace(linear_vae(torch.diag(EIGENVALUES), BETA, 4), encode=None)


def test_importances_are_the_eigenvalues_and_rates_their_logarithms(linear: VAE) -> None:
    found = spectrum(linear, metric(), beta=BETA, samples=50)
    ordered = np.sort(found.importance)[::-1]
    np.testing.assert_allclose(ordered, EIGENVALUES, rtol=1e-6)
    # reverse water-filling: half the logarithm of an eigenvalue over the water level (Eq. 92)
    expected = 0.5 * np.log(EIGENVALUES.numpy() / (BETA / 2))
    np.testing.assert_allclose(np.sort(found.rate)[::-1], expected, rtol=1e-6)
    np.testing.assert_allclose(found.pullback_se, 0, atol=1e-12)
    assert found.hadamard_gap == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found.cosine, np.eye(4), atol=1e-7)


def test_without_a_beta_the_columns_speak_for_themselves(linear: VAE) -> None:
    found = spectrum(linear, metric(), samples=10)
    assert found.rate is None
    np.testing.assert_allclose(
        np.sort(found.importance)[::-1], EIGENVALUES.numpy() - BETA / 2, rtol=1e-6
    )


def test_means_over_the_prior_equal_dense_ones() -> None:
    vae = isoprobe.load(DIGITS).to(None, torch.float64)
    found = spectrum(vae, metric("bce"), beta=0.2, samples=40, seed=3)
    z = torch.as_tensor(normal(3, "prior", np.arange(40), 10))
    gram = dense_pullback(vae, metric("bce"), z).detach()
    g = gram.diagonal(dim1=1, dim2=2).numpy()
    np.testing.assert_allclose(found.pullback, g.mean(0), rtol=1e-8)
    np.testing.assert_allclose(found.pullback_se, g.std(0, ddof=1) / np.sqrt(40), rtol=1e-8)
    np.testing.assert_allclose(found.rate, 0.5 * np.log1p(10 * g).mean(0), rtol=1e-8)
    length = np.sqrt(g[:, :, None] * g[:, None, :])
    np.testing.assert_allclose(found.cosine, np.abs(gram.numpy() / length).mean(0), rtol=1e-6)
    halves = 0.5 * (np.log(g).sum(1) - np.linalg.slogdet(gram.numpy())[1])
    assert found.hadamard_gap == pytest.approx(halves.mean(), rel=1e-5)


def test_a_seed_gives_the_same_numbers_whatever_the_memory() -> None:
    vae = isoprobe.load(DIGITS)
    one, two = (
        spectrum(vae, metric("bce"), samples=100, seed=5, memory=m) for m in (1 << 20, 1 << 30)
    )
    np.testing.assert_allclose(one.pullback, two.pullback, rtol=1e-5)
    other = spectrum(vae, metric("bce"), samples=100, seed=6)
    assert np.abs(other.pullback / one.pullback - 1).max() > 1e-3


def test_many_latents_leave_the_angles_out() -> None:
    decoder = nn.Linear(PAIRED + 1, 8)
    vae = VAE(decoder, None, (8,), (PAIRED + 1,), module=decoder)
    found = spectrum(vae, metric(), samples=2)
    assert (found.cosine, found.hadamard_gap) == (None, None)
    np.testing.assert_allclose(found.pullback, decoder.weight.detach().square().sum(0), rtol=1e-5)


def test_a_metric_without_a_tensor_is_refused(linear: VAE) -> None:
    with pytest.raises(MetricError, match="l1"):
        spectrum(linear, metric("l1"))


def test_the_analysis_points_at_it(linear: VAE) -> None:
    with pytest.raises(CheckpointError, match="isoprobe spectrum"):
        isoprobe.analyze(linear, np.zeros((5, 4)), metric="sse")


# --------------------------------------------------------------------------- the command


def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spectrum", str(DIGITS), "--samples", "50"]) == 0
    text = capsys.readouterr().out
    assert "beta 0.2" in text
    assert "not to be had" in text
    assert main(["spectrum", str(DIGITS), "--samples", "50", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    importances = [latent["importance"] for latent in document["latents"]]
    assert importances == sorted(importances, reverse=True)
    assert sum(latent["share"] for latent in document["latents"]) == pytest.approx(1)
    assert f"{importances[0]:.4g}" in text


def test_the_declared_beta_is_converted_or_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spectrum", str(DIGITS), "--samples", "5", "--metric", "sse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["beta"] is None


def test_a_model_of_unknown_loss_needs_a_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "decoders.py").write_text(
        "import torch\n\n\ndef build(path):\n"
        "    model = torch.nn.Module()\n"
        "    model.latent_shape, model.input_shape = (2,), (3,)\n"
        "    model.encode = lambda x: (x[:, :2], x[:, :2])\n"
        "    model.decode = lambda z: torch.cat([z, z[:, :1]], 1)\n"
        "    return model\n"
    )
    (tmp_path / "weights.pt").write_bytes(b"anything")
    command = ["spectrum", str(tmp_path / "weights.pt"), "--adapter", "factory"]
    command += ["--option", f"target={tmp_path / 'decoders.py'}:build"]
    assert main(command) == 1
    assert "give --metric" in capsys.readouterr().err
    assert main([*command, "--metric", "sse", "--samples", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [latent["pullback"] for latent in document["latents"]] == pytest.approx([2, 1])
