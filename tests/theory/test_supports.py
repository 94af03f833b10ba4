"""What likelihoods say by sums over their support, against torch's formulas and dense products."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, Gamma, Geometric, Normal, Poisson, StudentT
from torch.distributions import kl_divergence as kl

from isoprobe.errors import MetricError
from isoprobe.theory import likelihood
from isoprobe.theory.likelihood import Likelihood

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def family(made: Callable[[Tensor, Tensor], Distribution]) -> Likelihood:
    class Family(Likelihood):
        name = "made-up"
        parameters = ("a", "b")

        def distribution(self, theta: Tensor) -> Distribution:
            return made(theta[:, 0], theta[:, 1])

    return Family()


FAMILIES = {
    "normal": family(lambda a, b: Normal(a, b.exp())),
    "gamma": family(lambda a, b: Gamma(a.exp(), b.exp())),
    "beta": family(lambda a, b: Beta(a.exp() + 0.5, b.exp() + 1)),
    "poisson": family(lambda a, b: Poisson((2 * a + 0.1 * b + 2).exp(), validate_args=False)),
    "geometric": family(lambda a, b: Geometric(logits=a + 0.1 * b)),
}
STUDENT = family(lambda a, b: StudentT(4.0, a, b.exp()))
same = torch.testing.assert_close


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_a_divergence_by_sums_is_torchs(name: str, shape: tuple[int, ...]) -> None:
    metric = FAMILIES[name]
    one, two = random(4, 2, *shape), random(4, 2, *shape, seed=1)
    told = kl(metric.distribution(one), metric.distribution(two))
    found = metric.summed_divergence(one, two)
    same(found, told, rtol=1e-7, atol=1e-9)
    if shape:
        same(metric.divergence(one, two), told.flatten(1).sum(1))
    assert metric.summed_divergence(one.float(), two.float()).dtype == torch.float32
    far = two + 30 if name == "normal" else two  # where p is nothing its logarithm counts nothing
    told = kl(metric.distribution(one), metric.distribution(far))
    same(metric.summed_divergence(one, far), told, rtol=1e-7, atol=1e-9)


def test_where_torch_knows_no_divergence_it_is_summed() -> None:
    one, two = random(3, 2, 4), random(3, 2, 4, seed=1)
    same(STUDENT.divergence(one, two), STUDENT.summed_divergence(one, two).sum(1))
    z = one[:, 0, :, None] + one[:, 1, :, None].exp() * torch.linspace(-400, 400, 40_001, dtype=F64)
    p, q = (STUDENT.distribution(t[..., None]).log_prob(z) for t in (one, two))
    told = torch.trapezoid(p.exp() * (p - q), z)
    same(STUDENT.summed_divergence(one, two), told, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_the_tensor_is_half_the_information_times_each_direction(shape: tuple[int, ...]) -> None:
    metric, theta = FAMILIES["gamma"], random(4, 2, *shape)
    fisher = metric.fisher(theta)
    a, b = theta[:, 0].exp(), theta[:, 1].exp()
    told = torch.stack(
        [torch.stack([a * a * torch.special.polygamma(1, a), -a], 1), torch.stack([-a, a], 1)], 2
    )
    same(fisher, told, rtol=1e-7, atol=1e-9)
    assert bool((b > 0).all())
    many = random(3, *theta.shape, seed=2)
    found = metric.tensor_action(theta, many)
    for v, answer in zip(many, found, strict=True):
        by_hand = sum(0.5 * told[:, :, q] * v[:, q, None] for q in range(2))
        same(answer, by_hand, rtol=1e-7, atol=1e-9)
    same(metric.tensor_action(theta, many[0]), found[0])


def test_blocks_change_nothing_and_hold_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    metric, one, two = FAMILIES["normal"], random(4, 2, 5), random(4, 2, 5, seed=1)
    fisher, apart = metric.fisher(one), metric.summed_divergence(one, two)
    rows, _ = likelihood._elements(one)
    assert [len(part) for part in metric._blocks(rows)] == [20]
    points = len(metric._support(rows[:1])[0])
    for fit, sizes in ((3, [3] * 6 + [2]), (20, [20]), (0, [1] * 20)):
        monkeypatch.setattr(likelihood, "_AT_ONCE", fit * points * 2 + 1)
        assert [len(part) for part in metric._blocks(rows)] == sizes
        same(metric.fisher(one), fisher)
        same(metric.summed_divergence(one, two), apart)


def test_parts_by_input_are_the_distortion_and_nothing_is_its_least() -> None:
    metric, theta, x = FAMILIES["normal"], random(4, 2, 5), random(4, 5, seed=3)
    told = -Normal(theta[:, 0], theta[:, 1].exp()).log_prob(x)
    same(metric.by_input(x, theta), told)
    same(metric.distortion(x, theta), told.sum(1))
    assert metric.own_distortion(x).tolist() == [0] * 4
    same(metric.mean_of(theta), theta[:, 0])
    for beta, normaliser in ((1.0, 0.0), (1 + 1e-10, 0.0), (1.01, None), (0.99, None), (2.0, None)):
        assert metric.log_normaliser(beta, 5) == normaliser


@pytest.mark.parametrize("log_rate", [-30.0, 0.0, 3.0, 6.0, 9.0])
def test_whole_numbers_are_summed_as_far_as_they_are_likely(log_rate: float) -> None:
    metric = family(lambda a, b: Poisson(a.exp(), validate_args=False))
    theta = torch.tensor([[log_rate, 0.0]], dtype=F64)
    x, weight = metric._whole_numbers(theta)
    p = (metric._logs(x, theta)).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-8)
    assert float(p[-1]) * len(x) < 1e-13
    assert len(x) >= 64 and len(x) & (len(x) - 1) == 0
    half = len(x) // 2
    enough = float(p[:half].sum()) > 1 - 1e-9 and float(p[half - 1]) * half < 1e-13
    assert len(x) == 64 or not enough  # no more than twice what is needed
    assert bool((weight == 1).all())
    same(x[:, 0], torch.arange(len(x), dtype=F64))


def test_too_many_numbers_are_refused_and_sums_that_are_not_whole() -> None:
    wide = family(lambda a, b: Poisson(a.exp(), validate_args=False))
    with pytest.raises(MetricError, match="more than 1,048,576 values carry probability"):
        wide.fisher(torch.tensor([[14.0, 0.0]], dtype=F64))
    same(
        wide.fisher(torch.tensor([[13.0, 0.0]], dtype=F64))[0, 0, 0].log(),
        torch.tensor(13.0, dtype=F64),
    )
    for off in (0.9e-8, -0.9e-8):
        FAMILIES["normal"]._require_whole(torch.tensor([[0.5], [0.5 + off]], dtype=F64))
    for off in (1.1e-8, -1.1e-8, torch.nan):
        with pytest.raises(MetricError, match="misses 1 by"):
            FAMILIES["normal"]._require_whole(torch.tensor([[0.5], [0.5 + off]], dtype=F64))


def test_a_density_too_far_out_to_be_a_number_has_no_mass() -> None:
    logs = torch.tensor([[0.0], [-200.0], [-torch.inf]], dtype=F64)
    found = likelihood._mass(logs, torch.tensor([[0.5], [1.0], [1.0]], dtype=F64))
    assert found.tolist() == [[0.5], [0.0], [0.0]]
    assert float(likelihood._mass(logs[1:2] + 70, torch.ones(1, 1, dtype=F64))) > 0
