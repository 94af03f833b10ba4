"""Priors other than N(0, I): exact identities at optima, and trained models by their figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import isoprobe
from isoprobe.cli.group import cli
from isoprobe.errors import CheckpointError, IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe.theory import prior as priors
from isoprobe.theory.prior import MixturePrior, log_mixture_parts, prior_terms

FILES = Path(__file__).parents[1] / "gallery" / "layouts" / "files"
ANSWERS = json.loads(FILES.with_name("layouts.json").read_text())
MLP = """input_shape = [12]
encoder = [{ linear = "encoder.0" }, "relu"]
decoder = [{ linear = "decoder.0" }, "relu", { linear = "decoder.2" }]
ignore = IGNORE
[head]
mean = "fc_mu"
scale = "fc_var"
[loss]
metric = "sse"
beta = 1.0
"""
PRIORS = {
    "learnt_prior": 'kind = "gaussian"\nmeans = "prior_mu"\nscales = "prior_logvar"\n',
    "mixture_prior": 'kind = "mixture"\nmeans = "prior.means"\nscales = "prior.logvars"\n'
    'shares = "prior.w"\n',
    "vamp_prior": 'kind = "vamp"\npseudo_inputs = "pseudo_inputs"\n',
}


def declared(name: str, folder: Path, prior: str | None = None, ignore: str = "[]") -> dict:
    """Options that read a layout's file by a declaration."""
    text = MLP.replace("IGNORE", ignore)
    given = PRIORS[name] if prior is None else prior
    (folder / "said.toml").write_text(text + (f"[prior]\n{given}" if given else ""))
    return {"adapter": "declared", "options": {"declaration": str(folder / "said.toml")}}


def mixture(latents: int, apart: float = 1.6) -> tuple[Tensor, Tensor, Tensor]:
    """Shares, means and deviations of three components, two of them apart."""
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(3, latents, generator=generator, dtype=torch.float64)
    means[0, 0], means[1, 0] = -apart, apart
    stds = 0.4 + torch.rand(3, latents, generator=generator, dtype=torch.float64)
    return torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(), means, stds


def test_parts_of_a_mixture_are_its_density_and_that_of_its_margins() -> None:
    log_shares, means, stds = mixture(3)
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def density(upto: int) -> Tensor:
        each = Independent(Normal(means[:, :upto], stds[:, :upto]), 1)
        return MixtureSameFamily(Categorical(logits=log_shares), each).log_prob(z[:, :upto])

    parts = log_mixture_parts(z, log_shares, means, stds)
    for j in range(3):
        torch.testing.assert_close(parts[:, : j + 1].sum(1), density(j + 1))
    prior = MixturePrior(lambda: (log_shares, means, stds))
    torch.testing.assert_close(prior.log_density(z), density(3))
    used = torch.tensor([True, True, False])
    torch.testing.assert_close(prior.log_density(z, used), density(2))


def test_a_mixture_of_many_components_is_walked_in_blocks(monkeypatch) -> None:
    """Values and slopes are those of one block, and no block takes more than it may."""
    generator = torch.Generator().manual_seed(2)
    drawn = [torch.randn(40, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    parts = (torch.full((40,), 1 / 40, dtype=torch.float64).log(), drawn[0], 0.3 + drawn[1].abs())
    prior, used = MixturePrior(lambda: parts), torch.tensor([True, False, True])
    mean = torch.randn(101, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 101, 3, generator=generator, dtype=torch.float64)
    sizes: list[int] = []
    components = priors._log_components

    def counted(*given: Tensor) -> Tensor:
        found = components(*given)
        sizes.append(found.numel() * found.element_size())
        return found

    monkeypatch.setattr(priors, "_log_components", counted)

    def values() -> list[Tensor]:
        terms = prior_terms(prior, mean, mean.abs() + 0.1, noise)
        by_rows = [prior.log_density(mean), prior.log_density(mean, used), prior.log_parts(mean)]
        return [*by_rows, prior.curvature(mean), terms.kl, terms.slope, terms.answer]

    whole = values()
    assert max(sizes) == 101 * 40 * 3 * 8
    sizes.clear()
    monkeypatch.setattr(priors, "HELD", 1 << 17)
    for one, other in zip(values(), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
    assert max(sizes) <= (1 << 17) / 8


def test_draws_of_a_mixture_have_its_moments() -> None:
    log_shares, means, stds = mixture(2)
    prior = MixturePrior(lambda: (log_shares, means, stds))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    z = prior.draw(noise, torch.rand(len(noise), generator=generator, dtype=torch.float64))
    shares = log_shares.exp()[:, None]
    expected = (shares * means).sum(0)
    second = (shares * (means**2 + stds**2)).sum(0)
    error = 5 * (second / len(z)).sqrt()
    assert bool(((z.mean(0) - expected).abs() < error).all())
    assert bool(((z.square().mean(0) - second).abs() < 0.05).all())


def test_terms_are_those_of_a_standard_normal_where_the_prior_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    std = 0.1 + torch.rand(20, 3, generator=generator, dtype=torch.float64)
    half = torch.randn(4, 20, 3, generator=generator, dtype=torch.float64)
    one = (torch.zeros(1), torch.zeros(1, 3), torch.ones(1, 3))
    # the prior's curvature is known exactly, so that draws leave no noise
    found = prior_terms(MixturePrior(lambda: one), mean, std, torch.cat([half, -half]))
    torch.testing.assert_close(found.kl, 0.5 * (mean**2 + std**2 - 1) - std.log())
    torch.testing.assert_close(found.slope, mean)
    torch.testing.assert_close(found.answer, std**2)


@pytest.mark.parametrize("latents", [1, 2])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_stationarity_holds_for_each_row_at_its_optimum_under_a_mixture(
    latents: int, beta: float
) -> None:
    """E[sigma eps dD/dz] = beta (1 - P), with the prior's P and a decoder that bends."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(60))
    weights = weights / weights.sum()
    noise = torch.cartesian_prod(*[nodes] * latents).reshape(-1, latents)
    weight = torch.cartesian_prod(*[weights] * latents).reshape(-1, latents).prod(1)
    log_shares, means, stds = mixture(latents)
    prior = MixturePrior(lambda: (log_shares, means, stds))
    generator = torch.Generator().manual_seed(1)
    slopes = torch.randn(latents, 4, generator=generator, dtype=torch.float64)

    def decode(z: Tensor) -> Tensor:
        return torch.tanh(z @ slopes) + 0.3 * z @ slopes

    x = decode(torch.randn(5, latents, generator=generator, dtype=torch.float64)) + 0.1
    mean = torch.zeros(5, latents, dtype=torch.float64, requires_grad=True)
    log_std = torch.full_like(mean, -0.5).requires_grad_()
    search = torch.optim.LBFGS(
        [mean, log_std], max_iter=1000, tolerance_grad=1e-14, tolerance_change=1e-18,
        line_search_fn="strong_wolfe", history_size=20,
    )  # fmt: skip

    def distortion(z: Tensor) -> Tensor:
        return (decode(z) - x[:, None]).square().sum(-1)

    def loss() -> Tensor:
        search.zero_grad()
        z = mean[:, None] + log_std.exp()[:, None] * noise
        density = log_mixture_parts(z.flatten(0, 1), log_shares, means, stds).sum(1)
        rate = -log_std.sum(1, keepdim=True) - density.reshape(5, -1)
        value = ((distortion(z) + beta * rate) * weight).sum()
        value.backward()
        return value

    search.step(loss)
    mean, std = mean.detach(), log_std.detach().exp()
    z = (mean[:, None] + std[:, None] * noise).requires_grad_()
    (slope,) = torch.autograd.grad(distortion(z).sum(), z)
    answer = (std[:, None] * noise * slope * weight[:, None]).sum(1) / beta
    asked = prior_terms(prior, mean, std, noise, weight)
    residual = answer + asked.answer - 1
    assert float(residual.abs().max()) < 1e-6
    # N(0, I) in its place would be far off, so the statement tells priors apart
    assert float((answer + std**2 - 1).abs().max()) > 0.05
    shifted = (slope * weight[:, None]).sum(1) + beta * asked.slope
    assert float(shifted.abs().max()) < 1e-6
    log_q = Normal(mean[:, None], std[:, None]).log_prob(z).sum(2)
    log_p = log_mixture_parts(z.flatten(0, 1), log_shares, means, stds).sum(1).reshape(5, -1)
    kl = ((log_q - log_p) * weight).sum(1).detach()
    torch.testing.assert_close(asked.kl.sum(1), kl, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", PRIORS)
def test_a_trained_model_gives_its_trainers_figures(name: str, tmp_path: Path) -> None:
    right = ANSWERS[name]
    found = isoprobe.analyze(
        FILES / right["file"], f"{FILES}/{right['data']}", samples=None, out=tmp_path / "r.h5",
        analyses=("isometry", "diagnosis", "density:draws=25", "rate-distortion", "anomaly"),
        **declared(name, tmp_path),
    )  # fmt: skip
    overview = found["overview"]
    kl, error = overview["rate_mean"].values, overview["rate_se"].values
    assert float(kl) == pytest.approx(right["kl"], abs=float(error))
    assert found.attrs["beta_recovered"] == pytest.approx(1.0, rel=0.08)
    assert overview["kl_mean"].values.sum() == pytest.approx(float(kl), rel=1e-6)
    residual = found["isometry"]["stationary_residual_mean"].values
    assert np.abs(residual).max() < 0.1
    np.testing.assert_allclose(overview["second_moment_mean"].values, 1.0, atol=0.15)
    assert "prior" not in str(found["diagnosis"]["verdict"].values)
    assert float(found["density"]["estimator_correlation"].values) > 0.7
    gap = float(found["density"]["iwae_gap"].values)
    assert 0 <= gap < 1


def test_every_analysis_holds_under_a_mixture_or_says_that_it_is_not_judged(
    tmp_path: Path,
) -> None:
    right, asked = ANSWERS["mixture_prior"], declared("mixture_prior", tmp_path)
    spec, left = f"{FILES}/{right['data']}", []
    for name in installed().names("analysis"):
        if name == "information":  # asks for labels, whatever the prior
            continue
        found = isoprobe.analyze(FILES / right["file"], spec, analyses=(name,), samples=60, **asked)
        notes = " ".join(found.attrs["notes"])
        assert "the prior is a mixture of 5 Gaussians" in notes
        if f"{name} not judged: " in notes:
            left.append(name)
            assert name not in found
    assert left == ["geometry", "kl-parts"]
    with pytest.raises(IsoprobeError, match="curvature of N"):
        isoprobe.interpolate(FILES / right["file"], 0, 1, data=spec, **asked)


@pytest.mark.parametrize("name", PRIORS)
def test_a_native_checkpoint_keeps_the_prior(name: str, tmp_path: Path) -> None:
    right, asked = ANSWERS[name], declared(name, tmp_path)
    out, spec = tmp_path / "c.safetensors", f"{FILES}/{right['data']}"
    said = asked["options"]["declaration"]
    told = ["--adapter", "declared", "--option", f"declaration={said}"]
    done = CliRunner().invoke(cli, ["convert", str(FILES / right["file"]), str(out), *told])
    assert done.exit_code == 0, done.output
    run = {"samples": 100, "analyses": ("anomaly",)}
    before = isoprobe.analyze(FILES / right["file"], spec, **run, **asked)
    after = isoprobe.analyze(out, spec, out=tmp_path / "r.h5", **run)
    for variable in ("kl_mean", "distortion_mean"):
        np.testing.assert_allclose(
            after["overview"][variable].values, before["overview"][variable].values, rtol=1e-6
        )
    scores = isoprobe.score(out, spec, tmp_path / "r.h5")
    parts = scores["distortion"] + scores["rate"]
    np.testing.assert_allclose(scores["score"], parts, rtol=1e-5)
    drawn = isoprobe.sample(out, 4)
    np.testing.assert_allclose(drawn, isoprobe.sample(FILES / right["file"], 4, **asked), rtol=1e-5)
    with pytest.raises(CheckpointError, match="prior of its own"):
        from isoprobe_plugins.commands.convert import converted

        converted(out, tmp_path / "d.safetensors", latents="used", data=spec)


def test_samples_of_a_model_are_those_of_its_prior(tmp_path: Path) -> None:
    from isoprobe.probe.prior import from_prior

    vae = isoprobe.load(
        FILES / ANSWERS["mixture_prior"]["file"], **declared("mixture_prior", tmp_path)
    )
    assert vae.prior is not None
    z = from_prior(vae, 0, "test", np.arange(4000)).double()
    own = vae.prior.log_density(z).mean()
    other = Independent(Normal(torch.zeros(3), torch.ones(3)), 1).log_prob(z.float()).mean()
    assert float(own) > float(other)
    # the entropy of a draw of its own is what its density says
    again = vae.prior.log_density(from_prior(vae, 1, "test", np.arange(4000)).double())
    error = float(again.std()) / math.sqrt(4000)
    assert float(own) == pytest.approx(float(again.mean()), abs=6 * error)


@pytest.mark.parametrize(
    ("name", "prior", "ignore", "words"),
    [
        ("mixture_prior", "", '["prior."]', "by its name a prior's"),
        ("vamp_prior", "", '["pseudo_inputs"]', "by its name a prior's"),
        ("learnt_prior", "", '["prior_"]', "by its name a prior's"),
        ("mixture_prior", 'kind = "mixture"\nmeans = "prior.means"\n', "[]", "needs scales"),
        ("vamp_prior", PRIORS["vamp_prior"] + 'means = "fc_mu.bias"\n', "[]", "has no means"),
        ("vamp_prior", 'kind = "vamp"\npseudo_inputs = "u"\n', "[]", "no tensor 'u'"),
        ("vamp_prior", 'kind = "vamp"\npseudo_inputs = "fc_mu.bias"\n', "[]", "not of input_shape"),
        ("mixture_prior", PRIORS["mixture_prior"] + 'form = "no"\n', "[]", "logvar"),
    ],
)
def test_a_prior_that_is_left_out_or_does_not_fit_is_said(
    name: str, prior: str, ignore: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(IsoprobeError, match=words) as caught:
        isoprobe.load(FILES / ANSWERS[name]["file"], **declared(name, tmp_path, prior, ignore))
    assert "\n" not in str(caught.value)


def test_a_prior_that_is_said_to_play_no_part_may_be_left_out(tmp_path: Path) -> None:
    asked = declared("mixture_prior", tmp_path, "", '["prior."]\nprior = "standard"')
    right = ANSWERS["mixture_prior"]
    found = isoprobe.analyze(
        FILES / right["file"], f"{FILES}/{right['data']}", samples=None, **asked
    )
    assert found["overview"]["rate_mean"].values == pytest.approx(
        right["kl_to_standard_normal"], rel=1e-3
    )
