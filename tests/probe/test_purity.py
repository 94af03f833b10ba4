"""A model whose answer for a row is not a function of that row is stopped before the run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import isoprobe
from isoprobe import VAE, Posterior
from isoprobe.errors import IsoprobeError

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.mu, self.out = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(3, 6)

    def encode(self, x: Tensor) -> Posterior:
        mean = self.mu(torch.tanh(self.first(x)))
        return Posterior(mean, torch.full_like(mean, 0.3))

    def decode(self, z: Tensor) -> Tensor:
        return self.out(torch.tanh(z))


class Drawn(Model):
    def encode(self, x):
        q = super().encode(x)
        return Posterior(q.mean + q.std * torch.randn_like(q.mean), q.std)


class Dropped(Model):
    def encode(self, x):
        return super().encode(F.dropout(x, 0.3))


class NoisyLayer(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.rand_like(x)


class NoisyInside(Model):
    def __init__(self):
        super().__init__()
        self.mu = nn.Sequential(self.mu, NoisyLayer())


class NoisyDecoder(Model):
    def decode(self, z):
        return super().decode(z + 0.01 * torch.randn_like(z))


class Standardised(Model):
    def encode(self, x):
        return super().encode((x - x.mean(0)) / x.std(0))


class NormOfBatch(Model):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(
            self.first, nn.BatchNorm1d(8, track_running_stats=False), nn.Identity()
        )


class DecodesByBatch(Model):
    def decode(self, z):
        return super().decode(z - 0.2 * z.mean(0))


BAD = {
    Drawn: ("each time", "after the last layer"),
    Dropped: ("each time", "'first'"),
    NoisyInside: ("each time", "'mu.1'"),
    NoisyDecoder: ("decode gives another", "'out'"),
    Standardised: ("other rows", "'first'"),
    NormOfBatch: ("other rows", "'first.1'"),
    DecodesByBatch: ("what decode gives", "'out'"),
}


def as_vae(model: Model) -> VAE:
    return VAE(model.decode, model.encode, (6,), (3,), module=model)


def run(model: Model, **more: object) -> float:
    with isoprobe.analyze(
        as_vae(model), X, metric="sse", beta=1.0, analyses=["importance"], **more
    ) as result:
        return float(result.columns()["kl"].values.mean())


@pytest.mark.parametrize("kind", BAD)
def test_it_is_stopped_and_the_layer_named_and_a_switch_goes_on(kind):
    with pytest.raises(IsoprobeError) as caught:
        run(kind())
    for words in (*BAD[kind], "allow_random=True"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert np.isfinite(run(kind(), allow_random=True))


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_pure_model_passes_whatever_its_size_and_type(dtype):
    model = Model()
    model.first = nn.Sequential(nn.Linear(6, 4096), nn.ReLU(), nn.Linear(4096, 8))
    assert np.isfinite(run(model, dtype=dtype))


def test_no_two_scores_for_one_row(tmp_path):
    reference = tmp_path / "r.h5"
    with isoprobe.analyze(
        as_vae(Model()), X, metric="sse", beta=1.0, analyses=["anomaly"], out=reference
    ):
        pass
    with pytest.raises(IsoprobeError, match="each time"):
        isoprobe.score(as_vae(Drawn()), X, reference)


class NoGrad(Model):
    @torch.no_grad()
    def decode(self, z):
        return super().decode(z)


class Inference(Model):
    @torch.inference_mode()
    def decode(self, z):
        return super().decode(z)


class Detached(Model):
    def decode(self, z):
        return super().decode(z.detach())


@pytest.mark.parametrize("kind", [NoGrad, Inference, Detached])
def test_a_decoder_off_the_graph_is_one_line_and_differences_give_the_same_numbers(kind):
    with pytest.raises(IsoprobeError, match="finite-difference"):
        run(kind())

    def norms(model: Model, how: str) -> tuple[np.ndarray, float]:
        with isoprobe.analyze(
            as_vae(model), X, metric="sse", analyses=["isometry"], pullback=how, dtype="float64"
        ) as result:
            columns = result.columns()
            return columns["pullback"].values, float(result.attrs["beta"])

    by_differences, beta = norms(kind(), "finite-difference")
    exact, _ = norms(Model(), "exact")
    _, right = norms(Model(), "finite-difference")
    np.testing.assert_allclose(by_differences, exact, rtol=1e-3, atol=1e-6)
    assert beta == pytest.approx(right, rel=1e-5)
