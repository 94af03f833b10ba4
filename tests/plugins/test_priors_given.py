"""Priors of each class, and priors that a caller gives: exactly what they are by other ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

import isoprobe
from isoprobe.checkpoints.native import (
    FORMAT_VERSION,
    Manifest,
    Objective,
    vae_from_networks,
    write_checkpoint,
)
from isoprobe.contracts import VAE, Facts, Networks
from isoprobe.errors import CheckpointError, IsoprobeError
from isoprobe.theory.prior import MixturePrior
from isoprobe_plugins.architectures.layers import Layers
from tests.run import test_conditional as told

N = 6


def classes() -> tuple[Tensor, Tensor]:
    """Means and deviations of the prior of each class."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(told.CLASSES, N, generator=generator, dtype=torch.float64)
    return means, 0.5 + torch.rand(told.CLASSES, N, generator=generator, dtype=torch.float64)


def moved() -> VAE:
    """The optimum of each class, its latents moved to where a prior of each class has them."""
    whole, (means, widths) = told.by_class(), classes()
    plain = whole.conditional
    assert plain is not None

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = whole.module

        def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            assert plain.encode is not None
            p, k = plain.encode(x, c), c[:, 0].long()
            return means[k] + widths[k] * p.mean, widths[k] * p.std

    class Decoder(nn.Module):
        def forward(self, z: Tensor, c: Tensor) -> Tensor:
            k = c[:, 0].long()
            return plain.decode((z - means[k]) / widths[k], c)

    networks = Networks(
        Encoder(), Decoder(), (6,), (N,), (told.CLASSES,), "class", prior_by=0,
        prior=lambda: (torch.zeros(told.CLASSES), means, widths), prior_words="by class",
    )  # fmt: skip
    return vae_from_networks(networks, Facts(metric="sse", beta=told.BETA), name="moved")


def test_a_prior_of_each_class_is_a_change_of_units() -> None:
    """Every figure of the optimum stays, and beta comes back."""
    x, y = told.rows()
    found, plain = (
        isoprobe.analyze(vae, x, condition=y, samples=None, analyses=("isometry", "anomaly"))
        for vae in (moved(), told.by_class())
    )
    assert found.attrs["beta_recovered_pullback"] == pytest.approx(told.BETA, rel=1e-6)
    np.testing.assert_allclose(found["isometry"]["residual_mean"].values, 0, atol=1e-6)
    for name in ("kl_mean", "second_moment_mean", "distortion_mean"):
        np.testing.assert_allclose(
            found["overview"][name].values, plain["overview"][name].values, rtol=1e-6
        )
    scores = [one.samples(names=["score"])["score"] for one in (found, plain)]
    np.testing.assert_allclose(*scores, rtol=1e-6)


CONFIG = {
    "input_shape": [4],
    "latent_size": 2,
    "encoder": [{"op": "condition", "form": "one_hot", "classes": 3}, {"op": "linear", "width": 5}],
    "head": {"mean": [{"op": "linear", "width": 2}], "scale": [{"op": "linear", "width": 2}]},
    "decoder": [{"op": "condition", "form": "one_hot", "classes": 3}, {"op": "linear", "width": 4}],
    "condition": {"classes": [3]},
    "prior": {"kind": "gaussian", "components": 3, "by": 0},
}


def filled() -> Networks:
    torch.manual_seed(0)
    built = Layers().build(CONFIG)
    for name, value in built.decoder.prior.named_parameters():
        value.data = torch.randn_like(value) * (0.3 if "scales" in name else 1)
    return built


def test_a_native_checkpoint_keeps_it_and_the_kl_is_torchs(tmp_path: Path) -> None:
    built = filled()
    manifest = Manifest(FORMAT_VERSION, "layers", CONFIG, 2, Objective("sse", 1.0))
    write_checkpoint(tmp_path / "m.safetensors", built.encoder, built.decoder, manifest)
    x, c = torch.rand(40, 4), torch.arange(40)[:, None] % 3
    result = isoprobe.analyze(
        tmp_path / "m.safetensors", x.numpy(), condition=c.numpy(), samples=None,
        analyses=("isometry",),
    )  # fmt: skip
    with torch.no_grad():
        mean, std = built.encoder(x, c.float())
        means, scales = (
            part.value[c[:, 0]] for part in (built.decoder.prior.means, built.decoder.prior.scales)
        )
        expected = kl_divergence(Normal(mean, std), Normal(means, (scales / 2).exp())).mean(0)
    np.testing.assert_allclose(result["overview"]["kl_mean"].values, expected, rtol=1e-5)
    vae = isoprobe.load(tmp_path / "m.safetensors").on(x, c.float())
    assert vae.encode is not None
    with torch.no_grad():
        again = vae.decode(vae.encode(x).mean)
        torch.testing.assert_close(again, built.decoder(mean, c.float()))


def test_a_declaration_reads_tables_of_a_row_a_class(tmp_path: Path) -> None:
    built = filled()
    names = {"body.1": "enc", "mean.0": "mu", "scale.0": "lv"}
    state = {f"{names[k.rsplit('.', 1)[0]]}.{k.rsplit('.', 1)[1]}": v
             for k, v in built.encoder.state_dict().items()}  # fmt: skip
    state |= {f"dec.{leaf}": built.decoder.state_dict()[f"body.1.{leaf}"]
              for leaf in ("weight", "bias")}  # fmt: skip
    state |= {f"prior_{name}.weight": built.decoder.state_dict()[f"prior.{name}.value"]
              for name in ("means", "scales")}  # fmt: skip
    torch.save(state, tmp_path / "m.pt")
    code = '{ condition = "one_hot", classes = 3 }'
    text = (
        f'input_shape = [4]\nencoder = [{code}, {{ linear = "enc" }}]\n'
        f'decoder = [{code}, {{ linear = "dec" }}]\n'
        '[head]\nmean = "mu"\nscale = "lv"\n[condition]\nclasses = [3]\n'
        '[prior]\nkind = "KIND"\nmeans = "prior_means.weight"\nscales = "prior_scales.weight"\n'
        "by = BY\n"
    )
    (tmp_path / "m.toml").write_text(text.replace("KIND", "gaussian").replace("BY", "0"))
    x, c = torch.rand(9, 4), (torch.arange(9)[:, None] % 3).float()
    vae = isoprobe.load(tmp_path / "m.pt").on(x, c)
    own = vae_from_networks(built, Facts()).on(x, c)
    assert vae.encode is not None
    assert own.encode is not None
    torch.testing.assert_close(vae.encode(x).mean, own.encode(x).mean)
    torch.testing.assert_close(vae.decode(own.encode(x).mean), own.decode(own.encode(x).mean))
    for kind, by, words in (
        ("gaussian", "1", "by number 1 of what is told"),
        ("mixture", "0", "a prior by class is 'gaussian'"),
    ):
        (tmp_path / "m.toml").write_text(text.replace("KIND", kind).replace("BY", by))
        with pytest.raises(CheckpointError, match=words):
            isoprobe.load(tmp_path / "m.pt")


# --------------------------------------------------------------------------- given by a caller


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enc, self.dec = nn.Linear(5, 4), nn.Linear(2, 5)

    def encode(self, x: Tensor) -> Normal:
        mean, raw = self.enc(x).chunk(2, 1)
        return Normal(mean, (raw / 2).exp())

    def decode(self, z: Tensor) -> Tensor:
        return self.dec(z)


MEANS, STDS = torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), torch.tensor([[0.5, 1.0], [0.7, 0.6]])
SHARES = torch.tensor([0.3, 0.7])
MIXTURE = MixtureSameFamily(Categorical(SHARES), Independent(Normal(MEANS, STDS), 1))
GIVEN = {
    "mixture": MIXTURE,
    "gaussian": Independent(Normal(MEANS[0], STDS[0]), 1),
    "own": MixturePrior(lambda: (SHARES.log(), MEANS, STDS), "mine"),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_caller_may_give_the_prior_of_a_live_model(name: str) -> None:
    model, x = Small(), np.random.default_rng(0).normal(size=(200, 5)).astype("float32")
    wrapped = isoprobe.wrap(model, prior=GIVEN[name], beta=1.0)
    result = isoprobe.analyze(wrapped, x, metric="sse", samples=None, analyses=("isometry",))
    q = model.encode(torch.from_numpy(x))
    rate = float(result["overview"]["rate_mean"].values)
    if name == "gaussian":
        with torch.no_grad():
            expected = float(kl_divergence(q, GIVEN[name].base_dist).sum(1).mean())
        assert rate == pytest.approx(expected, rel=1e-5)
        assert "the prior is a Gaussian" in " ".join(result.attrs["notes"])
        return
    with torch.no_grad():
        z = q.sample((2000,))
        draws = q.log_prob(z).sum(-1) - MIXTURE.log_prob(z)
        error = float(draws.std(0).mean()) / (16 * len(x)) ** 0.5  # of the run's draws
        expected = float(draws.mean())
    assert rate == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (Normal(0.0, 1.0), "prior is a Normal; needed is"),
        ("standard", "prior is a str; needed is"),
        (Independent(Normal(torch.zeros(3), torch.ones(3)), 1), "latents"),
    ],
)
def test_what_is_no_prior_of_these_latents_is_refused(prior: object, words: str) -> None:
    x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    with pytest.raises(IsoprobeError, match=words) as caught:
        isoprobe.analyze(isoprobe.wrap(Small(), prior=prior), x, metric="sse")
    assert "\n" not in str(caught.value)
