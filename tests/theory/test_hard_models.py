"""Models on which pooled figures went astray: beta, used latents and importance stay right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isoprobe
from isoprobe.contracts import VAE, Facts, Posterior
from isoprobe.results.reader import Result
from isoprobe_plugins.architectures.linear import linear_vae
from tests.theory.test_linear_vae import exact_moments

BETA = 0.5
EIGENVALUES = np.array([4.0, 2.0, 1.0, 0.6])
#: directions that cost less to leave out than to code
WATER = np.array([0.2, 0.15])
USED = np.array([True, True, True, True, False, False])


def covariance() -> np.ndarray:
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    return basis @ np.diag(np.r_[EIGENVALUES, WATER]) @ basis.T


def model() -> VAE:
    vae = linear_vae(torch.as_tensor(covariance()), BETA, latent_size=6)
    return replace(vae, facts=Facts(metric="sse", beta=BETA))


def encoding(vae: VAE, change: Callable[[Posterior], Posterior]) -> VAE:
    encode = vae.encode
    assert encode is not None
    return replace(vae, encode=lambda x: change(encode(x)))


def analyzed(vae: VAE, rows: np.ndarray | None = None) -> Result:
    rows = exact_moments(covariance()) if rows is None else rows
    return isoprobe.analyze(vae, rows, samples=None)


def expect(
    result: Result, beta: float, used: np.ndarray, importance: np.ndarray, known: np.ndarray
) -> None:
    """Beta within 5 %, used latents exactly, and the importance of those known within 5 %."""
    assert float(result["conditions"]["beta"].values) == pytest.approx(beta, rel=0.05)
    np.testing.assert_array_equal(result["overview"]["active"].values, used)
    exact = result["importance"]["exact"].values
    np.testing.assert_allclose(exact[known], importance[known], rtol=0.05)


def codes(result: Result) -> list[str]:
    group = result["diagnosis"]
    return [str(code) for code in group["finding"].values] if "finding" in group else []


def test_two_idle_latents_at_half_the_prior() -> None:
    def idle(p: Posterior) -> Posterior:
        std = torch.where(torch.as_tensor(USED), p.std, torch.full_like(p.std, 0.5**0.5))
        return Posterior(p.mean, std)

    with analyzed(encoding(model(), idle)) as result:
        expect(result, BETA, USED, np.r_[EIGENVALUES, WATER], USED)
        assert codes(result) == []
        assert str(result["diagnosis"]["level"].values) == "sound"
        assert result["diagnosis"]["label"].values.tolist() == ["active"] * 4 + ["collapsed"] * 2


def test_one_latent_far_too_sharp() -> None:
    sharp = 1
    scale = torch.ones(6, dtype=torch.float64)
    scale[sharp] = 1e-3
    with analyzed(encoding(model(), lambda p: Posterior(p.mean, p.std * scale))) as result:
        known = USED.copy()
        known[sharp] = False
        expect(result, BETA, USED, np.r_[EIGENVALUES, WATER], known)
        assert not result["importance"]["determined"].values[sharp]
        assert codes(result) == ["encoder-mismatched"]
        labels = result["diagnosis"]["label"].values.tolist()
        assert [i for i, label in enumerate(labels) if label == "encoder-mismatched"] == [sharp]


def test_a_latent_that_one_row_in_a_thousand_uses() -> None:
    """The decoder answers to it by a ramp beyond 3.5; a row that uses it has mean 5."""
    vae, latent, at, start = model(), 5, 5.0, 3.5
    slope = 3 * BETA**0.5
    height = slope * (at - start) + BETA * at / (2 * slope)  # both of the row's conditions hold
    sigma = (BETA / 2 / (slope**2 + BETA / 2)) ** 0.5
    rows = np.hstack([exact_moments(covariance()), np.zeros((4096, 1))])
    rows[500::1000, -1] = height
    encode, decode = vae.encode, vae.decode
    assert encode is not None

    def encoded(x: Tensor) -> Posterior:
        own, uses = encode(x[:, :-1]), x[:, -1] > height / 2
        mean, std = own.mean.clone(), own.std.clone()
        mean[:, latent] = torch.where(uses, at, 0.0)
        std[:, latent] = torch.where(uses, sigma, 1.0)
        return Posterior(mean, std)

    def decoded(z: Tensor) -> Tensor:
        keep = torch.ones(6).to(z)
        keep[latent] = 0
        ramp = slope * (z[:, latent : latent + 1] - start).clamp_min(0)
        return torch.cat([decode(z * keep), ramp], dim=1)

    vae = replace(vae, encode=encoded, decode=decoded, input_shape=(7,))
    with analyzed(vae, rows) as result:
        expect(result, BETA, USED, np.r_[EIGENVALUES, WATER], USED)
        assert codes(result) == []
        assert str(result["diagnosis"]["label"].values[latent]) == "rare"
        assert result["diagnosis"]["remark"].values.tolist() == ["rare"]
        rate = 0.5 * (at**2 + sigma**2 - 1) - np.log(sigma)
        most = result["conditions"]["kl_max"].values
        assert most[latent] == pytest.approx(rate, rel=1e-6)
        assert result["overview"]["kl_mean"].values[latent] < 0.02


# --------------------------------------------------------------------------- trained in seconds


class Plain(nn.Module):
    """A linear model whose E D is a closed form, so that training has no noise."""

    def __init__(self, encoder: nn.Module, head: nn.Module, decoder: nn.Module, n: int) -> None:
        super().__init__()
        self.encoder, self.head, self.decoder, self.n = encoder, head, decoder, n
        self.log_std = nn.Parameter(torch.full((n,), -0.5))

    def vae(self, shape: tuple[int, ...], latents: tuple[int, ...], beta: float) -> VAE:
        def encode(x: Tensor) -> Posterior:
            mean = self.head(self.encoder(x)).flatten(1)
            return Posterior(mean, self.log_std.exp().expand_as(mean))

        return VAE(
            decode=lambda z: self.decoder(z.reshape(-1, *latents)),
            encode=encode,
            input_shape=shape,
            latent_shape=latents,
            module=self,
            facts=Facts(metric="sse", beta=beta),
        )

    @torch.no_grad()
    def rates(self, x: Tensor, latents: tuple[int, ...]) -> np.ndarray:
        """Mean rate of each latent, ``(n,)``."""
        rates: np.ndarray = self.parts(x, latents)[1].numpy()
        return rates

    def parts(self, x: Tensor, latents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """E D with sse, and the mean rate of each latent."""
        mean = self.head(self.encoder(x)).flatten(1)
        still = (x - self.decoder(mean.reshape(-1, *latents))).square().flatten(1).sum(1).mean()
        unit = torch.eye(self.n).to(x)
        zero = self.decoder(torch.zeros(1, *latents).to(x))
        columns = (self.decoder(unit.reshape(-1, *latents)) - zero).square().flatten(1).sum(1)
        variance = (2 * self.log_std).exp()
        rate = 0.5 * (mean.square().mean(0) + variance - 1) - self.log_std
        return still + (variance * columns).sum(), rate


def minimise(module: Plain, loss: Callable[[], Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-2 * 0.5 * (1 + np.cos(np.pi * step / steps))
        optimizer.zero_grad()
        value = loss()
        torch.autograd.backward(value)
        optimizer.step()


def test_a_capacity_loss() -> None:
    """gamma |KL - C| is a beta-VAE of another beta where it holds the rate at C."""
    torch.manual_seed(0)
    gamma, capacity = 20.0, 3.0
    module = Plain(nn.Identity(), nn.Linear(6, 4), nn.Linear(4, 6), 4).double()
    x = torch.as_tensor(exact_moments(covariance(), 32))
    minimise(module, lambda: _capacity(module, x, gamma, capacity), 2500)
    rate = module.rates(x, (4,))
    assert rate.sum() == pytest.approx(capacity, abs=0.05)
    # water-filling: the beta at which the spectrum above beta/2 has this rate
    spectrum = EIGENVALUES
    grid = np.linspace(0.01, 8, 20000)
    rates = 0.5 * np.log(np.maximum(spectrum[:, None] / (grid / 2), 1)).sum(axis=0)
    beta = float(grid[np.argmin(np.abs(rates - rate.sum()))])
    with analyzed(module.vae((6,), (4,), gamma)) as result:
        assert float(result["conditions"]["beta"].values) == pytest.approx(beta, rel=0.05)
        used = result["overview"]["active"].values
        np.testing.assert_array_equal(used, rate > 0.02)
        variance = (2 * module.log_std).exp().detach().numpy()
        # Var(y_j) is beta / (2 sigma_j^2), in units of the beta in force, which is the declared one
        exact = result["importance"]["exact"].values / gamma
        np.testing.assert_allclose(exact[used], 0.5 / variance[used], rtol=0.05)
        assert codes(result) == ["beta"]
        assert "objective" in str(result["diagnosis"]["causes"].values[0])


def _capacity(module: Plain, x: Tensor, gamma: float, capacity: float) -> Tensor:
    distortion, rate = module.parts(x, (4,))
    # |KL - C| smoothed at its kink, or Adam would jump across it
    return distortion + gamma * ((rate.sum() - capacity).square() + 1e-2).sqrt()


def test_a_linear_convolution_with_spatial_latents() -> None:
    """Flattened latents are off 1 and 0 at the exact optimum; nothing is accused."""
    torch.manual_seed(0)
    beta, latents = 0.3, (2, 3, 3)
    encoder = nn.Conv2d(1, 8, 2, stride=2, padding=0)
    head = nn.Conv2d(8, 2, 3, padding=1)
    decoder = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ConvTranspose2d(8, 1, 2, stride=2))
    module = Plain(encoder, head, decoder, 18).double()
    x = _images(512)

    def loss() -> Tensor:
        distortion, rate = module.parts(x, latents)
        return distortion + beta * rate.sum()

    minimise(module, loss, 400)
    rate = module.rates(x, latents)
    with analyzed(module.vae((1, 6, 6), latents, beta), x.numpy()) as result:
        found = result["conditions"]
        assert float(found["beta"].values) == pytest.approx(beta, rel=0.05)
        used = result["overview"]["active"].values
        np.testing.assert_array_equal(used, rate > 0.01)
        second = result["overview"]["second_moment_mean"].values
        assert np.abs(second[used] - 1).max() > 0.3  # what would be called wrong data if judged
        variance = (2 * module.log_std).exp().detach().numpy()
        mean = result["overview"]["posterior_mean_mean"].values
        truth = beta / 2 / variance * (second - mean**2)  # sigma is constant: y is linear in z
        np.testing.assert_allclose(
            result["importance"]["exact"].values[used], truth[used], rtol=0.05
        )
        assert codes(result) == []


def _images(count: int) -> Tensor:
    """Smooth random fields that fade towards the edges."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(count, 1, 10, 10, generator=generator, dtype=torch.float64)
    kernel = torch.ones(1, 1, 5, 5, dtype=torch.float64) / 5
    field = nn.functional.conv2d(noise, kernel)
    window = torch.tensor([0.3, 0.8, 1.2, 1.2, 0.8, 0.3], dtype=torch.float64)
    return field * window[:, None] * window
