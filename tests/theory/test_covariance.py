"""Posteriors of a full covariance: exact at optima, and what it was where L is diagonal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

import isoprobe
from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.contracts import VAE, Facts, Posterior
from isoprobe.errors import CheckpointError, IsoprobeError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result
from isoprobe.show.report import page
from isoprobe.theory import covariance
from isoprobe.theory.covariance import correlated
from isoprobe.theory.prior import log_mixture_parts
from isoprobe_plugins.architectures.layers import Layers
from isoprobe_plugins.architectures.linear import linear_vae
from isoprobe_plugins.metrics.likelihoods import HeteroscedasticGaussian
from tests.theory.test_linear_vae import BETA, exact_moments
from tests.theory.test_linear_vae import covariance as spectrum

SIZE = 6
#: what a full covariance has a place for
KEPT = [n for n in installed().names("analysis") if not installed().analysis(n).independent]


def roots(count: int, latents: int, seed: int = 0) -> Tensor:
    """Random L with correlations of every size."""
    generator = torch.Generator().manual_seed(seed)
    below = torch.randn(count, latents, latents, generator=generator, dtype=torch.float64).tril(-1)
    diagonal = torch.rand(count, latents, generator=generator, dtype=torch.float64) + 0.1
    return 0.4 * below + torch.diag_embed(diagonal)


# --------------------------------------------------------------------------- formulas


def test_the_kl_is_torchs_and_adds_up_whatever_the_order() -> None:
    root = roots(20, 4)
    mean = torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    q = MultivariateNormal(mean, scale_tril=root)
    unit = MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double())
    parts = covariance.correlated_kl(mean, root)
    torch.testing.assert_close(parts.sum(1), kl_divergence(q, unit))
    assert bool((parts > 0).all())
    turned = torch.linalg.cholesky((root @ root.mT).flip(1, 2))
    torch.testing.assert_close(covariance.correlated_kl(mean.flip(1), turned).sum(1), parts.sum(1))


def test_what_is_left_of_a_latent_is_the_inverse_of_the_precision() -> None:
    root = roots(20, 4)
    precision = torch.linalg.inv(root @ root.mT)
    torch.testing.assert_close(
        covariance.conditional_std(root), precision.diagonal(0, 1, 2) ** -0.5
    )
    noise = torch.randn(20, 7, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    u = noise @ root.mT
    expected = (u @ precision) / precision.diagonal(0, 1, 2)[:, None]
    torch.testing.assert_close(covariance.pulls(noise, root), expected)


def test_what_is_taken_away_from_draws_has_mean_zero() -> None:
    root = roots(1, 3)
    gram = roots(1, 3, seed=4) @ roots(1, 3, seed=4).mT
    noise = torch.randn(1, 400_000, 3, generator=torch.Generator().manual_seed(3)).double()
    u, pulled = noise @ root.mT, covariance.pulls(noise, root)
    std = covariance.conditional_std(root)
    for found in (
        covariance.correlated_surplus(u, gram, root).mean(1),
        covariance.correlated_surplus_of_products(u, gram, root),
        covariance.correlated_surplus_of_answers(u, pulled, gram, std),
    ):
        assert float(found.abs().max()) < 0.03


# --------------------------------------------------------------------------- at optima

LATENTS = 2
SLOPES = torch.tensor([[0.9, -0.4, 0.7, 0.3, 1.1, -0.8], [0.5, 0.8, -0.2, 0.9, -0.6, 0.4]]).double()


def bent(z: Tensor) -> Tensor:
    """Outputs of two latents, both of which move each, ``(..., 2) -> (..., 6)``."""
    return torch.tanh(z @ SLOPES) + 0.3 * z @ SLOPES


def heteroscedastic(x: Tensor, z: Tensor) -> Tensor:
    theta = bent(z).unflatten(-1, (2, 3))
    rows = x[:, None, :3].expand(*z.shape[:2], -1)
    metric = HeteroscedasticGaussian()
    return metric.distortion(rows.flatten(0, 1), theta.flatten(0, 1)).reshape(z.shape[:2])


CASES = {
    "sse": lambda x, z: (bent(z) - x[:, None]).square().sum(-1),
    "rounded-l1": lambda x, z: ((bent(z) - x[:, None]).square() + 1).sqrt().sum(-1),
    "gaussian-heteroscedastic": heteroscedastic,
}


def mixture() -> tuple[Tensor, Tensor, Tensor]:
    means = torch.tensor([[-1.2, 0.3], [1.0, -0.5]]).double()
    stds = torch.tensor([[0.6, 0.9], [0.8, 0.5]]).double()
    return torch.tensor([0.4, 0.6]).double().log(), means, stds


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("prior", ["standard", "mixture"])
def test_the_condition_holds_for_each_row_at_its_own_optimum(
    name: str, beta: float, prior: str
) -> None:
    """E[L' d eps'] / beta + L'L = I to 1e-6, and by latent; independent latents would be off."""
    distort = CASES[name]
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(60))
    noise = torch.cartesian_prod(nodes, nodes)
    weight = torch.cartesian_prod(weights, weights).prod(1) / weights.sum() ** 2
    generator = torch.Generator().manual_seed(1)
    x = bent(torch.randn(5, LATENTS, generator=generator, dtype=torch.float64)) + 0.1
    mean = torch.zeros(5, LATENTS, dtype=torch.float64, requires_grad=True)
    log_scale = torch.full_like(mean, -0.5).requires_grad_()
    below = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [mean, log_scale, below], max_iter=2000, tolerance_grad=1e-13, tolerance_change=1e-18,
        line_search_fn="strong_wolfe", history_size=20,
    )  # fmt: skip

    def root() -> Tensor:
        off = torch.zeros(5, LATENTS, LATENTS, dtype=torch.float64)
        off[:, 1, 0] = 1
        return torch.diag_embed(log_scale.exp()) + off * below[:, None, None]

    def log_prior(z: Tensor) -> Tensor:
        if prior == "standard":
            return -0.5 * z.square().sum(-1)
        return log_mixture_parts(z.flatten(0, 1), *mixture()).sum(1).reshape(z.shape[:2])

    def loss() -> Tensor:
        search.zero_grad()
        z = mean[:, None] + noise @ root().mT
        rate = -log_scale.sum(1, keepdim=True) - log_prior(z)
        value = ((distort(x, z) + beta * rate) * weight).sum()
        value.backward()
        return value

    search.step(loss)
    held = root().detach()
    u = (noise @ held.mT).expand(5, -1, -1)
    z = (mean.detach()[:, None] + u).requires_grad_()
    (d,) = torch.autograd.grad(distort(x, z).sum(), z)
    (s,) = torch.autograd.grad(-log_prior(z).sum(), z)
    answer, asked = (
        covariance.covariance_answer((u * weight[:, None]).mT @ slope, held) for slope in (d, s)
    )
    if prior == "standard":
        torch.testing.assert_close(asked, held.mT @ held, atol=1e-9, rtol=0)
    residual = covariance.covariance_residual(answer.numpy(), asked.numpy(), beta)
    assert np.abs(residual).max() < 1e-6
    pulled = covariance.pulls(noise.expand(5, -1, -1), held)
    by_latent = [((pulled * slope) * weight[:, None]).sum(1) for slope in (d, s)]
    assert float((by_latent[0] / beta + by_latent[1] - 1).abs().max()) < 1e-6
    # the deviation of a latent whatever the others are would be far off
    wide = covariance.marginal_variance(held)
    alone = ((u * d) * weight[:, None]).sum(1) / beta + wide - 1
    off = (held @ held.mT)[:, 0, 1].abs()
    assert float(off.max()) > 0.01
    if prior == "standard":
        torch.testing.assert_close(alone, torch.zeros_like(alone), atol=1e-6, rtol=0)
        assert float((wide - covariance.conditional_std(held) ** 2).abs().max()) > 1e-3


# --------------------------------------------------------------------------- through a run


def turned() -> tuple[VAE, VAE]:
    """A linear VAE at its optimum, and the same with all latents turned: it costs nothing."""
    plain = linear_vae(torch.as_tensor(spectrum()), BETA, latent_size=SIZE)
    plain = replace(plain, facts=Facts(metric="sse", beta=BETA))
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64))
    inner, decode = plain.encode, plain.decode
    assert inner is not None

    def encode(x: Tensor) -> Posterior:
        p = inner(x)
        whole = turn @ torch.diag_embed(p.std**2) @ turn.mT
        return correlated(p.mean @ turn.mT, torch.linalg.cholesky(whole))

    return plain, replace(plain, encode=encode, decode=lambda z: decode(z @ turn), correlated=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Result]:
    folder, (plain, other) = tmp_path_factory.mktemp("full"), turned()
    rows = exact_moments(spectrum())
    return (
        isoprobe.analyze(
            plain, rows, samples=None, analyses=("isometry", "anomaly", "rate-distortion")
        ),
        isoprobe.analyze(other, rows, samples=None, analyses=KEPT, out=folder / "full.h5"),
    )


def test_turning_latents_changes_nothing_that_is_of_all_of_them(
    pair: tuple[Result, Result],
) -> None:
    plain, full = pair
    np.testing.assert_allclose(full["isometry"]["residual_mean"].values, 0, atol=1e-9)
    np.testing.assert_allclose(full["isometry"]["stationary_residual_mean"].values, 0, atol=1e-9)
    np.testing.assert_allclose(full["isometry"]["covariance_residual"].values, 0, atol=1e-9)
    np.testing.assert_allclose(full["overview"]["second_moment_mean"].values, 1, atol=1e-9)
    np.testing.assert_allclose(full["conditions"]["gain"].values, 0, atol=1e-9)
    assert full.attrs["beta_recovered"] == pytest.approx(BETA, rel=1e-9)
    for name in ("rate_mean", "distortion_mean", "distortion_coding_mean"):
        np.testing.assert_allclose(
            full["overview"][name].values, plain["overview"][name].values, rtol=1e-9
        )
    found, asked = (full["conditions"][f"eigenvalue{end}"].values for end in ("", "_expected"))
    np.testing.assert_allclose(found, asked, atol=1e-9)
    norms = plain["isometry"]["norm_mean"].values
    np.testing.assert_allclose(found, np.sort(norms)[::-1], atol=1e-9)
    scores = [one.samples(names=["score"])["score"] for one in pair]
    np.testing.assert_allclose(*scores, rtol=1e-9)
    # importances go by axis: their sum is that of all directions
    exact = full["importance"]["exact"].values
    values = np.linalg.eigvalsh(spectrum())
    assert exact.sum() == pytest.approx(np.maximum(values, BETA / 2).sum(), rel=1e-6)
    assert str(full["diagnosis"]["level"].values) == "sound"
    meaning = " ".join(map(str, full["diagnosis"]["meaning"].values.ravel()))
    assert "PCA" not in meaning  # its latents lie along no axes
    assert "holds to within" in meaning


def test_what_was_done_is_said(pair: tuple[Result, Result]) -> None:
    assert pair[1].attrs["covariance"] == "full"
    rows, asked = exact_moments(spectrum()), ("isometry", "density", "kl-parts")
    with isoprobe.analyze(turned()[1], rows, samples=64, analyses=asked) as result:
        notes = " ".join(result.attrs["notes"])
        text = page.render(result)
    for name in ("density", "kl-parts"):
        assert f"{name} not judged" in notes
    assert "what is left of latent j when the others are known" in " ".join(text.split())


def test_scores_and_codes_are_those_of_the_run(pair: tuple[Result, Result]) -> None:
    full, model, rows = pair[1], turned()[1], exact_moments(spectrum())
    found = isoprobe.score(model, rows, full.path, samples=50)
    alone = isoprobe.score(model, rows, full.path, samples=50, batch_size=3)
    np.testing.assert_allclose(found["score"], alone["score"], rtol=1e-9)
    score = full.samples(names=["score"])["score"]
    np.testing.assert_allclose(found["score"], score[found["row"]], rtol=1e-9)
    codes = isoprobe.encode(model, rows)
    np.testing.assert_allclose(codes["kl"], full.samples(names=["kl"])["kl"], rtol=1e-9)


def test_a_diagonal_root_is_independent_latents(tmp_path: Path) -> None:
    """A bent model far from any optimum: every number of both is the same."""
    torch.manual_seed(0)
    module = nn.ModuleList([nn.Linear(5, 6), nn.Linear(3, 5)]).double()

    def encode(x: Tensor) -> Posterior:
        mean, raw = module[0](x).chunk(2, 1)
        return Posterior(mean, (0.3 * raw - 1).exp())

    def full(x: Tensor) -> Posterior:
        p = encode(x)
        return correlated(p.mean, torch.diag_embed(p.std))

    plain = VAE(lambda z: torch.tanh(module[1](z)), encode, (5,), (3,), module=module,
                facts=Facts(metric="sse", beta=0.2))  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(300, 5))
    marked = f"{tmp_path}/rows.npz"
    np.savez(marked, x=rows, y=np.arange(300) % 5 == 0)
    names = [n for n in KEPT if n not in {"geometry", "diagnosis"}]
    one, two = (
        isoprobe.analyze(vae, f"{marked}:x,y", analyses=names, samples=None, seed=3)
        for vae in (plain, replace(plain, encode=full, correlated=True))
    )
    compared = 0
    for group in ("overview", "isometry", "conditions", "importance", "anomaly", "samples"):
        for name in one[group]:
            values, others = one[group][name].values, two[group].get(name)
            if others is None:
                assert name.startswith(("turn", "round_trip")), name
            elif name.startswith("by_score_"):  # distances in z here, in y there
                kept = one[group]["by_score"].values != "mahalanobis"
                np.testing.assert_allclose(others.values[kept], values[kept], err_msg=name)
            elif values.dtype.kind == "f" and values.shape == others.values.shape:
                loose = name.startswith("eigenvalue_expected")
                if not loose:  # by rank of each row there, of the means here
                    np.testing.assert_allclose(others.values, values, rtol=1e-7, atol=1e-9,
                                               err_msg=name)  # fmt: skip
                compared += 1
    assert compared > 100


def test_a_trained_model_holds_it_within_its_error() -> None:
    """One L for all rows: the condition is then exact on average, whatever the encoder."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(512, 2, generator=generator, dtype=torch.float64)
    x = torch.stack([s[:, 0], s[:, 0] + s[:, 1], (s[:, 1] + s[:, 0] / 2).sin(), s[:, 1]], 1)
    encoder = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 2)).double()
    decoder = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 4)).double()
    log_scale = nn.Parameter(torch.full((2,), -1.0, dtype=torch.float64))
    below = nn.Parameter(torch.zeros((), dtype=torch.float64))
    module = nn.Module()
    module.encoder, module.decoder = encoder, decoder
    beta = 0.2

    def root() -> Tensor:
        corner = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        return torch.diag(log_scale.exp()) + below * corner

    every = [*encoder.parameters(), *decoder.parameters(), log_scale, below]
    optimizer = torch.optim.Adam(every, 1e-2)
    steps = 700
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        noise = torch.randn(len(x), 2, generator=generator, dtype=torch.float64)
        mean = encoder(x)
        own = root()
        loss = sum(
            (decoder(mean + sign * noise @ own.mT) - x).square().sum(1).mean() / 2
            for sign in (1, -1)
        )
        rate = covariance.correlated_kl(mean, own.expand(len(x), 2, 2)).sum(1).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss + beta * rate)
        optimizer.step()
    with torch.no_grad():
        held = root()
    vae = VAE(
        decoder, lambda x: correlated(encoder(x), held.expand(len(x), 2, 2)), (4,), (2,),
        module=module, facts=Facts(metric="sse", beta=beta), correlated=True,
    )  # fmt: skip
    with isoprobe.analyze(vae, x.numpy(), samples=None, analyses=("isometry",)) as result:
        found = result["isometry"]
        residual, error = (
            found["covariance_residual"].values,
            found["covariance_residual_se"].values,
        )
        assert (np.abs(residual) < 4 * error + 5e-3).all()
        assert error.max() < 0.02
        assert result.attrs["beta_recovered"] == pytest.approx(beta, rel=0.03)


# --------------------------------------------------------------------------- files and objects


def config(**head: object) -> dict:
    return {
        "input_shape": [4],
        "latent_size": 3,
        "encoder": [{"op": "linear", "width": 8}, {"op": "activation", "name": "tanh"}],
        "head": {"mean": [{"op": "linear", "width": 3}], "covariance": "full", **head},
        "decoder": [{"op": "linear", "width": 4}],
    }


def lines(width: int) -> list[dict]:
    return [{"op": "linear", "width": width}]


HEADS = {
    "rows": {"form": "softplus-std", "scale": lines(6)},
    "matrix": {"form": "logstd", "scale": lines(9)},
    "signed": {"form": "std", "scale": lines(9)},
    "apart": {"form": "logvar", "scale": lines(3), "below": lines(3)},
    "apart-matrix": {"form": "logvar", "scale": lines(3), "below": lines(9)},
}


def by_hand(name: str, raw: Tensor, below: Tensor | None) -> Tensor:
    """The covariance, as training code writes it."""
    rows, columns = np.tril_indices(3)
    under, beside = np.tril_indices(3, -1)
    found = torch.zeros(len(raw), 3, 3)
    for b, values in enumerate(raw):
        if name == "rows":
            found[b][rows, columns] = values
        elif below is None:
            found[b] = values.reshape(3, 3).tril()
        else:
            taken = below[b].reshape(3, 3)[under, beside] if below.shape[1] == 9 else below[b]
            found[b][under, beside] = taken
            found[b] += torch.diag(values)
    diagonal = torch.diagonal(found, 0, 1, 2).clone()
    read = {
        "rows": torch.nn.functional.softplus, "matrix": torch.exp, "signed": lambda v: v,
        "apart": lambda v: (v / 2).exp(), "apart-matrix": lambda v: (v / 2).exp(),
    }[name]  # fmt: skip
    whole = found - torch.diag_embed(diagonal) + torch.diag_embed(read(diagonal))
    return whole @ whole.mT


@pytest.mark.parametrize("name", HEADS)
def test_a_native_checkpoint_keeps_the_covariance(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    written = config(**HEADS[name])
    built = Layers().build(written)
    manifest = Manifest(FORMAT_VERSION, "layers", written, 3, Objective("sse", 1.0))
    write_checkpoint(tmp_path / "m.safetensors", built.encoder, built.decoder, manifest)
    vae, x = isoprobe.load(tmp_path / "m.safetensors"), torch.rand(5, 4)
    assert vae.correlated
    assert vae.encode is not None
    features = built.encoder.body(x)
    below = built.encoder.below(features) if "below" in HEADS[name] else None
    expected = by_hand(name, built.encoder.scale(features), below)
    root = vae.encode(x).root
    assert root is not None
    torch.testing.assert_close(root @ root.mT, expected)
    assert bool((root.diagonal(0, 1, 2) > 0).all())
    assert bool((root.triu(1) == 0).all())
    result = isoprobe.analyze(vae, x.repeat(8, 1).numpy(), analyses=("isometry",))
    assert np.isfinite(result["isometry"]["covariance_residual"].values).all()


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"scale": lines(5)}, "a full covariance of 3 latents takes 6 .* or 9"),
        ({"scale": lines(6), "below": lines(3)}, "head.scale gives 6 values"),
        ({"scale": lines(3), "covariance": "diagonal", "below": lines(3)}, "belongs to"),
        ({"layout": "halves", "mean": []}, "gives 8 values"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(head: dict, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        Layers().build(config(**head))


def test_a_declaration_says_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = {"body": nn.Linear(4, 8), "mu": nn.Linear(8, 3), "tril": nn.Linear(8, 6),
             "out": nn.Linear(3, 4)}  # fmt: skip
    module = nn.ModuleDict(parts)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    (tmp_path / "m.toml").write_text(
        'input_shape = [4]\nencoder = [{ linear = "body" }, "tanh"]\n'
        'decoder = [{ linear = "out" }]\n[head]\nform = "logstd"\nmean = "mu"\n'
        'scale = "tril"\ncovariance = "full"\n[loss]\nmetric = "sse"\nbeta = 1.0\n'
    )
    vae, x = isoprobe.load(tmp_path / "m.pt"), torch.rand(5, 4)
    assert vae.encode is not None
    raw = module["tril"](torch.tanh(module["body"](x)))
    root = vae.encode(x).root
    assert root is not None
    torch.testing.assert_close(root[:, 1, 0], raw[:, 1])
    torch.testing.assert_close(root[:, 2, 2], raw[:, 5].exp())


class Returning(nn.Module):
    """A module whose encode returns a distribution of torch."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body, self.out, self.kind = nn.Linear(4, 9), nn.Linear(3, 4), kind

    def root(self, x: Tensor) -> Tensor:
        whole = self.body(x)[:, :3, None] * 0.3 + torch.eye(3) * 0.5
        return torch.linalg.cholesky(whole @ whole.mT + 0.1 * torch.eye(3))

    def encode(self, x: Tensor) -> object:
        mean = self.body(x)[:, 3:6]
        if self.kind == "posterior":
            return correlated(mean, self.root(x))
        return MultivariateNormal(mean, scale_tril=self.root(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.out(z)


@pytest.mark.parametrize("kind", ["distribution", "posterior"])
def test_a_live_module_may_return_one(kind: str) -> None:
    torch.manual_seed(0)
    model = Returning(kind)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    result = isoprobe.analyze(isoprobe.wrap(model, beta=1.0), x, metric="sse")
    assert result.attrs["covariance"] == "full"
    rows = torch.from_numpy(x)
    with torch.no_grad():
        found = covariance.correlated_kl(model.body(rows)[:, 3:6], model.root(rows)).sum(1).mean()
    assert float(result["overview"]["rate_mean"].values) == pytest.approx(float(found), rel=1e-5)


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"expectation": "two-point"}, OptionError, "the two points"),
    ],
)
def test_what_has_no_meaning_there_is_refused_in_one_line(
    options: dict, error: type[IsoprobeError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        isoprobe.analyze(turned()[1], exact_moments(spectrum()), samples=64, **options)
    assert "\n" not in str(caught.value)


def test_the_importance_weighted_bound_of_an_exact_posterior_is_the_evidence(
    tmp_path: Path,
) -> None:
    """q(z|x) = p(z|x): weights of all draws are log p(x), whatever way the latents are turned."""
    rows, made = exact_moments(spectrum()), {}
    for name, vae in zip(("plain", "full"), turned(), strict=True):
        path = tmp_path / f"{name}.h5"
        with isoprobe.analyze(
            vae, rows, samples=None, analyses=("anomaly:iwae=true",), out=path
        ) as result:
            made[name] = result.samples(names=["score_iwae", "score"])
        scored = isoprobe.score(vae, rows, path, samples=50, score="iwae")
        np.testing.assert_allclose(scored["score"], made[name]["score_iwae"][scored["row"]],
                                   rtol=1e-6)  # fmt: skip
    # the rank-SIZE model of D = |x - x_hat|^2 and beta: p(x) = N(0, W W' + beta/2 I), less the
    # constant (m/2) log(pi beta) of exp(-D/beta)
    values, vectors = np.linalg.eigh(spectrum())
    kept = np.maximum(values - BETA / 2, 0)
    kept[np.argsort(values)[:-SIZE]] = 0
    whole = vectors @ np.diag(kept + BETA / 2) @ vectors.T
    size = len(whole)
    log_density = -0.5 * (
        np.einsum("ij,jk,ik->i", rows, np.linalg.inv(whole), rows)
        + np.linalg.slogdet(whole)[1] + size * np.log(2 * np.pi)
    )  # fmt: skip
    right = -BETA * (log_density + size / 2 * np.log(np.pi * BETA))
    for name in made:
        np.testing.assert_allclose(made[name]["score_iwae"], right, rtol=1e-5, atol=1e-6)


def test_distances_by_the_aggregate_covariance_are_those_of_independent_latents(
    tmp_path: Path,
) -> None:
    """No linear map changes them, and y of a linear model is linear in z."""
    rows = exact_moments(spectrum())
    found = []
    for name, vae in zip(("plain", "full"), turned(), strict=True):
        path = tmp_path / f"{name}.h5"
        isoprobe.analyze(vae, rows, samples=None, analyses=("anomaly",), out=path).close()
        scored = isoprobe.score(vae, rows, path, samples=50, score="mahalanobis")
        found.append(scored["score"])
    with torch.no_grad():
        posterior = turned()[1].encode(torch.as_tensor(rows))  # type: ignore[misc]
    mean, root = posterior.mean.numpy(), posterior.root[0].numpy()
    whole = np.cov(mean, rowvar=False, bias=True) + root @ root.T
    off = mean - mean.mean(0)
    right = np.einsum("ij,jk,ik->i", off, np.linalg.inv(whole), off)
    np.testing.assert_allclose(found[1], right[scored["row"]], rtol=1e-6)
    np.testing.assert_allclose(found[0], right[scored["row"]], rtol=0.02)  # y by bins of sigma


def test_a_model_says_what_its_posteriors_are() -> None:
    wrong = replace(turned()[1], correlated=False)
    with pytest.raises(CheckpointError, match="a root of a covariance"):
        isoprobe.analyze(wrong, exact_moments(spectrum()), samples=64)
