"""Architectures build what their configuration says, and the linear VAE is the optimum."""

from __future__ import annotations

import math

import pytest
import torch

from isoprobe.errors import CheckpointError, OptionError
from isoprobe_plugins.architectures.activations import _MODULES, activation
from isoprobe_plugins.architectures.linear import Linear, linear_vae
from isoprobe_plugins.architectures.mlp import Mlp
from isoprobe_plugins.heads import HEADS, to_std

BETA = 0.4
EIGENVALUES = torch.tensor([5.0, 2.0, 0.7, 0.15, 0.15], dtype=torch.float64)  # beta / 2 = 0.2


def covariance():
    generator = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    return q @ torch.diag(EIGENVALUES) @ q.T, q


def test_linear_vae_is_isometric():
    c, _ = covariance()
    vae = linear_vae(c, BETA, 5)
    jacobian = torch.func.jacrev(lambda z: vae.decode(z[None])[0])(torch.zeros(5).double())
    g = jacobian.T @ jacobian
    std = vae.encode(torch.zeros(1, 5).double()).std[0]
    norm = 2 / BETA * std**2 * g.diagonal()
    assert torch.allclose(norm + std**2, torch.ones(5).double(), atol=1e-12)
    used = EIGENVALUES > BETA / 2
    assert torch.allclose(std[used] ** 2, BETA / 2 / EIGENVALUES[used], rtol=1e-12)
    assert torch.equal(std[~used], torch.ones(2).double())
    assert (g - torch.diag(g.diagonal())).abs().max() < 1e-12


def test_linear_vae_is_stationary():
    """The objective on exact second moments has zero gradient in every parameter."""
    c, _ = covariance()
    center = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    vae = linear_vae(c, BETA, 4, mean=center)
    parameters = [p.detach().requires_grad_() for p in vae.module.parameters()]
    a, b, log_std, w, bias = parameters
    assert a.shape == (4, 5)
    # E|x - W(Ax + b + sigma eps) - c|^2 for x ~ N(center, C), in closed form
    miss = torch.eye(5).double() - w @ a
    offset = miss @ center - w @ b - bias
    variance = (2 * log_std).exp()
    coding = torch.trace(miss @ c @ miss.T) + offset @ offset + ((w**2).sum(0) * variance).sum()
    mu = a @ center + b
    second = (a @ c @ a.T).diagonal() + mu**2
    loss = coding + BETA * 0.5 * (second + variance - variance.log() - 1).sum()
    loss.backward()
    for parameter in parameters:
        assert parameter.grad.abs().max() < 1e-12


def test_linear_vae_beats_its_neighbours():
    """The trace of its closed-form loss equals sum of the known minimum."""
    c, q = covariance()
    vae = linear_vae(c, BETA, 5)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).double()
    posterior = vae.encode(x)
    expected = (
        x
        @ q
        * torch.where(
            EIGENVALUES > BETA / 2, (EIGENVALUES - BETA / 2).clamp(min=0).sqrt() / EIGENVALUES, 0.0
        )
    )
    used = EIGENVALUES > BETA / 2
    assert torch.allclose(posterior.mean.abs(), expected.abs(), atol=1e-12)
    assert torch.equal(posterior.mean[:, ~used], torch.zeros(3, 2).double())


def test_linear_vae_refuses_impossible_requests():
    c, _ = covariance()
    with pytest.raises(OptionError, match="1 to 5"):
        linear_vae(c, BETA, 6)
    with pytest.raises(OptionError, match="positive"):
        linear_vae(c, 0.0, 2)
    assert linear_vae(c, BETA, 2, dtype=torch.float32).dtype is torch.float32


@pytest.mark.parametrize("name", sorted(_MODULES))
def test_mlp_equals_its_formula(name):
    torch.manual_seed(0)
    networks = Mlp().build({
        "input_shape": [2, 2], "encoder_widths": [3], "decoder_widths": [6], "latent_size": 2,
        "activation": name, "head": "logstd",
    })  # fmt: skip
    e, d = networks.encoder.state_dict(), networks.decoder.state_dict()
    act = activation(name)
    x, z = torch.rand(5, 2, 2), torch.randn(5, 2)
    h = act(x.reshape(5, 4) @ e["trunk.0.weight"].T + e["trunk.0.bias"])
    mean, std = networks.encoder(x)
    assert torch.allclose(mean, h @ e["mean.weight"].T + e["mean.bias"], atol=1e-6)
    assert torch.allclose(std.log(), h @ e["scale.weight"].T + e["scale.bias"], atol=1e-5)
    h = act(z @ d["trunk.0.weight"].T + d["trunk.0.bias"])
    out = (h @ d["out.weight"].T + d["out.bias"]).reshape(5, 2, 2)
    assert torch.allclose(networks.decoder(z), out, atol=1e-6)
    assert not hasattr(networks.decoder, "logits")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_size": 0}, r"\$\.latent_size"),
        ({"activation": "relo"}, "relo"),
        ({"depth": 3}, "depth"),
        ({"encoder_widths": ["a"]}, r"\$\.encoder_widths\[0\]"),
        ({"input_shape": []}, r"\$\.input_shape"),
    ],
)
def test_mlp_names_the_wrong_field(change, message):
    config = {"input_shape": [4], "encoder_widths": [3], "decoder_widths": [3], "latent_size": 2}
    with pytest.raises(CheckpointError, match=message):
        Mlp().build({**config, **change})
    with pytest.raises(OptionError, match="did you mean 'logvar'"):
        Mlp().build({**config, "head": "logva"})


def test_linear_architecture_names_the_wrong_field():
    with pytest.raises(CheckpointError, match="latent_size"):
        Linear().build({"input_shape": [4]})


HEAD_VALUES = {
    "logvar": lambda r: math.sqrt(math.exp(r)),
    "logvar-clamped": lambda r: math.sqrt(math.exp(min(max(r, -30), 20))),
    "logstd": math.exp,
    "std": abs,
    "variance": math.sqrt,
    "softplus-std": lambda r: math.log1p(math.exp(r)),
    "softplus-variance": lambda r: math.sqrt(1e-7 + math.log1p(math.exp(r))),
    "softplus-logvar": lambda r: math.sqrt(1 + math.exp(r)),
    "exp-variance": lambda r: math.sqrt(math.exp(r) + 1e-4),
}


@pytest.mark.parametrize("form", sorted(HEADS))
def test_every_head_form_equals_its_formula(form):
    raws = [0.3, 2.0, 25.0] if form in {"variance"} else [-40.0, -1.5, 0.3, 2.0, 25.0]
    got = to_std(form, torch.tensor(raws, dtype=torch.float64))
    want = torch.tensor([HEAD_VALUES[form](r) for r in raws], dtype=torch.float64)
    assert torch.allclose(got, want, rtol=1e-9, atol=0)
