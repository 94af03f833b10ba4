"""pythae folders with default networks load without pythae, with beta in summed units."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what pythae imports
    pythae = pytest.importorskip("pythae.models")

from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder, benchmarks

from isoprobe import api
from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.errors import CheckpointError
from isoprobe.registry.lookup import installed
from isoprobe_plugins.adapters.pythae.adapter import Pythae


def config_of(kind):
    """Class of a model's settings; some have an underscore before Config."""
    names = (f"{kind}Config", f"{kind}_Config")
    return next(getattr(pythae, name) for name in names if hasattr(pythae, name))


def saved(folder, kind="BetaVAE", **fields):
    torch.manual_seed(0)
    model = getattr(pythae, kind)(config_of(kind)(input_dim=(1, 4, 4), latent_dim=3, **fields))
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
    ("kind", "metric"), [("FactorVAE", "sse"), ("VAEGAN", None), ("Adversarial_AE", "sse")]
)
def test_discriminators_are_left_out(tmp_path, kind, metric):
    """The VAE beside one is read; the loss is not said where a discriminator measures it."""
    model = saved(tmp_path / "model", kind)
    vae = api.load(tmp_path / "model")
    x = torch.rand(5, 1, 4, 4)
    with torch.no_grad():
        answer = model.encoder(x)
        assert torch.allclose(vae.encode(x).mean, answer.embedding, atol=1e-6)
        assert torch.allclose(vae.encode(x).std, (answer.log_covariance / 2).exp(), rtol=1e-5)
        x_hat = model.decoder(answer.embedding).reconstruction
        assert torch.allclose(vae.decode(answer.embedding), x_hat, atol=1e-6)
    assert (vae.facts.metric, vae.facts.beta) == (metric, None)
    assert any("discriminator" in note for note in vae.facts.assumptions)


def test_pseudo_inputs_are_the_prior(tmp_path):
    model = saved(tmp_path / "model", "VAMP", number_components=7)
    with torch.no_grad():  # beyond [0, 1], where its Hardtanh clamps
        model.pseudo_inputs[0].weight.normal_(0.5, 1.0)
    model.save(str(tmp_path / "model"))
    vae = api.load(tmp_path / "model")
    assert vae.prior is not None
    z = torch.randn(6, 3)
    with torch.no_grad():
        right = model._log_p_z(z) - 1.5 * torch.log(torch.tensor(2 * torch.pi))
    assert torch.allclose(vae.prior.log_density(z), right, atol=1e-5)
    assert (vae.facts.metric, vae.facts.beta) == ("sse", 2.0)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("VAE_IAF", "inverse autoregressive"),
        ("VAE_LinNF", "planar and radial"),
        ("PoincareVAE", "hyperbolic"),
        ("SVAE", "von Mises-Fisher"),
        ("HVAE", "Hamiltonian"),
        ("RHVAE", "learnt metric"),
    ],
)
def test_other_posteriors_are_refused_by_what_they_are(tmp_path, kind, words):
    model = getattr(pythae, kind)(config_of(kind)(input_dim=(1, 6), latent_dim=4))
    model.save(str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match=f"not analysed: .*{words}") as caught:
        api.load(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deterministic_posterior": True}, "decodes its means"),
        ({"uses_default_encoder": False}, "pickled code.*adapter='factory'.*trust=True"),
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


@pytest.mark.parametrize(
    ("name", "shape"), [("mnist", (1, 28, 28)), ("cifar", (3, 32, 32)), ("celeba", (3, 64, 64))]
)
def test_its_convolutional_networks_are_read_with_no_code_run(tmp_path, name, shape):
    module = importlib.import_module(f"{benchmarks.__name__}.{name}")
    config = pythae.VAEConfig(input_dim=shape, latent_dim=2, reconstruction_loss="mse")
    torch.manual_seed(0)
    encoder = getattr(module, f"Encoder_Conv_VAE_{name.upper()}")(config)
    decoder = getattr(module, f"Decoder_Conv_AE_{name.upper()}")(config)
    pythae.VAE(config, encoder, decoder).save(str(tmp_path / "model"))
    vae = api.load(tmp_path / "model")
    assert f"Encoder_Conv_VAE_{name.upper()}" in "".join(vae.facts.assumptions)
    assert (vae.facts.metric, vae.facts.beta) == ("sse", 2.0)
    x, z = torch.rand(1, *shape), torch.randn(1, 2)
    with torch.no_grad():
        answer, x_hat = encoder.eval()(x), decoder.eval()(z).reconstruction
        assert torch.allclose(vae.encode(x).mean, answer.embedding, atol=1e-5)
        assert torch.allclose(vae.encode(x).std, (answer.log_covariance / 2).exp(), rtol=1e-4)
        assert torch.allclose(vae.decode(z), x_hat, atol=1e-5)


class OwnEncoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.mean, self.raw = torch.nn.Linear(16, 2), torch.nn.Linear(16, 2)

    def forward(self, x):
        flat = x.flatten(1)
        return ModelOutput(embedding=self.mean(flat), log_covariance=self.raw(flat))


class OwnDecoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(2, 16)

    def forward(self, z):
        return ModelOutput(reconstruction=self.up(z).sigmoid().reshape(-1, 1, 4, 4))


def test_networks_of_one_s_own_run_with_trust_alone(tmp_path):
    config = pythae.BetaVAEConfig(
        input_dim=(1, 4, 4), latent_dim=2, reconstruction_loss="mse", beta=3.0
    )
    torch.manual_seed(0)
    model = pythae.BetaVAE(config, OwnEncoder(), OwnDecoder())
    folder = tmp_path / "model"
    model.save(str(folder))
    with pytest.raises(CheckpointError, match="pickled code.*not run.*trust=True") as caught:
        api.load(folder)
    assert "\n" not in str(caught.value)
    vae = api.load(folder, trust=True)
    x, z = torch.rand(5, 1, 4, 4), torch.randn(5, 2)
    with torch.no_grad():
        answer = model.encoder(x)
        assert torch.equal(vae.encode(x).mean, answer.embedding)
        assert torch.allclose(vae.encode(x).std, (answer.log_covariance / 2).exp())
        assert torch.equal(vae.decode(z), model.decoder(z).reconstruction)
    assert (vae.facts.metric, vae.facts.beta) == ("sse", 6.0)
    result = api.analyze(vae, x.repeat(8, 1, 1, 1).numpy(), analyses=["isometry"])
    assert result["overview"]["active"].values.shape == (2,)
    result.close()


def test_a_canary_in_its_code_is_not_touched_without_trust(tmp_path):
    saved(tmp_path / "model")
    folder = tmp_path / "model"
    path = folder / "model_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "uses_default_encoder": False}))

    class Payload:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'canary'}",))

    (folder / "encoder.pkl").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="trust=True"):
        api.load(folder)
    assert not (tmp_path / "canary").exists()
    with pytest.raises(CheckpointError, match="pythae cannot load it"):
        api.load(folder, trust=True)
    assert (tmp_path / "canary").exists()
