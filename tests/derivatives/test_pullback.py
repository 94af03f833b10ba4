"""Every fast path of the pullback equals the dense float64 oracle."""

from __future__ import annotations

import pytest
import torch

from isoprobe.contracts import VAE, Metric
from isoprobe.derivatives.exact import exact_pullback, finite_difference_pullback
from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe_plugins.metrics.bce import BinaryCrossEntropy
from isoprobe_plugins.metrics.convex import DownwardConvex
from isoprobe_plugins.metrics.square import MeanSquaredError, SumSquaredError
from tests.oracles import dense_jacobian, dense_pullback, small_vae


class LogCosh(Metric):
    """Given by D alone, mixing inputs so that G is not diagonal."""

    name = "log-cosh-here"

    def distortion(self, x: torch.Tensor, x_hat: torch.Tensor) -> torch.Tensor:
        d = x - x_hat
        return torch.log(torch.cosh(d + d.roll(1, dims=1))).sum(1) + (x * d).square().sum(1)


CASES = [
    (SumSquaredError(), False),
    (MeanSquaredError(), False),
    (DownwardConvex(), False),
    (LogCosh(), False),
    (BinaryCrossEntropy(), True),
    (SumSquaredError(), True),
    (LogCosh(), True),
]


def _vae(metric: Metric, sigmoid: bool, dtype: torch.dtype) -> tuple[VAE, torch.Tensor]:
    vae = small_vae(sigmoid=sigmoid, dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    return vae, torch.randn(6, 4, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("metric", "sigmoid"), CASES, ids=lambda v: getattr(v, "name", str(v)))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk", [1, 3, None])
def test_exact_equals_dense(
    metric: Metric, sigmoid: bool, dtype: torch.dtype, tolerance: float, chunk: int | None
) -> None:
    vae, z = _vae(metric, sigmoid, dtype)
    whole = exact_pullback(output_metric(metric, vae), z, gram=True, euclidean=True, chunk=chunk)
    alone = exact_pullback(output_metric(metric, vae), z, chunk=chunk)
    exact = dense_pullback(vae.to("cpu", torch.float64), metric, z)
    jacobian = dense_jacobian(vae.decode, z)

    def close(found: torch.Tensor, expected: torch.Tensor) -> None:
        error = (found.double() - expected).abs().max() / expected.abs().max()
        assert error < tolerance

    close(whole.gram, exact)
    close(whole.diagonal, exact.diagonal(dim1=1, dim2=2))
    close(alone.diagonal, exact.diagonal(dim1=1, dim2=2))
    close(whole.euclidean, jacobian.mT @ jacobian)


def test_saturated_sigmoid_gives_the_exact_small_norm() -> None:
    """At logits near 40 float32 rounds x to 1; the logit form still gives g."""
    vae = small_vae(sigmoid=True, dtype=torch.float64)
    with torch.no_grad():
        vae.module.decoder[-1].bias += 40.0
    z = torch.randn(5, 4, dtype=torch.float64)
    exact = exact_pullback(output_metric(BinaryCrossEntropy(), vae), z).diagonal
    vae.to("cpu", torch.float32)
    single = exact_pullback(output_metric(BinaryCrossEntropy(), vae), z.float()).diagonal
    assert (exact > 0).all()
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("metric", [SumSquaredError(), BinaryCrossEntropy()], ids=["sse", "bce"])
def test_finite_difference_converges_to_exact(metric: Metric) -> None:
    vae, z = _vae(metric, True, torch.float64)
    view = output_metric(metric, vae)
    exact = exact_pullback(view, z).diagonal
    errors = [
        (finite_difference_pullback(view, z, step).diagonal - exact).abs().max().item()
        for step in (1e-2, 1e-3)
    ]
    assert errors[1] < 2e-2 * errors[0]
    assert errors[1] < 1e-5 * exact.max().item()


def test_finite_difference_subtracts_the_entropy_of_x() -> None:
    """Without D(x, x) subtracted the BCE difference would be off by orders of magnitude."""
    vae, z = _vae(BinaryCrossEntropy(), True, torch.float64)
    view = output_metric(BinaryCrossEntropy(), vae)
    entropy = view.distortion(vae.decode(z), view.decode(z)).min().item()
    found = finite_difference_pullback(view, z, 1e-3).diagonal.max().item()
    assert found < 1e-3 * entropy / 1e-6
