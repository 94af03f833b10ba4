"""pythae folders with default networks load without pythae, with beta in summed units."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what pythae imports
    pythae = pytest.importorskip("pythae.models")

from isoprobe.errors import CheckpointError
from isoprobe.registry import installed
from isoprobe.source import FileKind, Source
from isoprobe_plugins.adapters.pythae_folders import Pythae


def saved(folder, kind="BetaVAE", **fields):
    torch.manual_seed(0)
    config = getattr(pythae, f"{kind}Config")(input_dim=(1, 4, 4), latent_dim=3, **fields)
    model = getattr(pythae, kind)(config)
    model.save(str(folder))
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "fields", "metric", "beta"),
    [
        ("VAE", {"reconstruction_loss": "bce"}, "bce", 1.0),
        ("VAE", {"reconstruction_loss": "mse"}, "sse", 2.0),
        ("BetaVAE", {"reconstruction_loss": "mse", "beta": 2.5}, "sse", 5.0),
        ("BetaTCVAE", {"reconstruction_loss": "bce"}, "bce", None),
    ],
)
def test_it_gives_pythae_s_own_numbers(tmp_path, kind, fields, metric, beta):
    model = saved(tmp_path / "model", kind, **fields)
    source = Source(tmp_path / "model")
    assert source.kind is FileKind.PYTHAE
    adapter = installed().adapter_for(source)
    vae = adapter.load(source, {})
    x, z = torch.rand(5, 1, 4, 4), torch.randn(5, 3)
    with torch.no_grad():
        answer = model.encoder(x)
        x_hat = model.decoder(z).reconstruction
    assert torch.allclose(vae.encode(x).mean, answer.embedding, atol=1e-6)
    assert torch.allclose(vae.encode(x).std, (answer.log_covariance / 2).exp(), rtol=1e-5)
    assert torch.allclose(vae.decode(z), x_hat, atol=1e-6)
    assert (vae.facts.metric, vae.facts.beta) == (metric, beta)
    assert adapter.describe(source)["name"] == f"{kind}Config"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uses_default_encoder": False}, "pickled code.*--adapter factory"),
        ({"name": "AEConfig"}, "no VAE"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"reconstruction_loss": "l1"}, "reconstruction_loss"),
        ({"input_dim": [1, 4, 5]}, "reshape|shape"),
    ],
)
def test_other_models_are_refused_by_what_they_are(tmp_path, change, message):
    saved(tmp_path / "model")
    path = tmp_path / "model" / "model_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        Pythae().load(Source(tmp_path / "model"), {})
