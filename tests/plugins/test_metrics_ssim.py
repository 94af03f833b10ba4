"""SSIM's metric tensor against Taylor expansions and the closed form of the paper's windows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d

from isoprobe.contracts import Metric
from isoprobe.derivatives.metric_tensor import hessian_action
from isoprobe.errors import MetricError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe_plugins.metrics.ssim import MultiScaleSsim, Ssim
from tests.oracles import dense_tensor

#: MS-SSIM with the smallest window fits images of 33 pixels, which keeps these tests quick
METRICS = [Ssim(), Ssim(window=5, sigma=0.8), MultiScaleSsim(window=3)]


def images(*shape: int, seed: int = 0) -> Tensor:
    """Smooth random images between 0 and 1, float64."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(*shape[:-2], 5, 5, generator=generator, dtype=torch.float64)
    fine = torch.rand(*shape, generator=generator, dtype=torch.float64)
    size = torch.nn.functional.interpolate(coarse, shape[-2:], mode="bilinear")
    return 0.8 * size + 0.2 * fine


def noise(x: Tensor, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


class UniformSsim(Metric):
    """1 - SSIM with the paper's uniform windows at every position, written from its definition."""

    name = "uniform-ssim"

    def __init__(self, window: int, c1: float, c2: float) -> None:
        self.window, self.c1, self.c2 = window, c1, c2

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        def mean(image: Tensor) -> Tensor:
            return avg_pool2d(image, self.window, stride=1)

        mx, my = mean(x), mean(x_hat)
        vx, vy = mean(x * x) - mx**2, mean(x_hat * x_hat) - my**2
        cov = mean(x * x_hat) - mx * my
        luminance = (2 * mx * my + self.c1) / (mx**2 + my**2 + self.c1)
        contrast = (2 * cov + self.c2) / (vx + vy + self.c2)
        return 1 - (luminance * contrast).flatten(1).mean(1)


def closed_form(x: Tensor, v: Tensor, weights: Tensor, c1: float, c2: float) -> Tensor:
    """G v for windows of given weights, from mean = w'd and variance = d'(diag w - w w')d.

    A window's G is w w' / (2 mean^2 + C1) + (diag w - w w') / (2 variance + C2); with w = 1/N^2
    these are the 11'/N^4 and I/N^2 - 11'/N^4 of the paper's Eq. 105-106, put right.
    """
    kernel = weights[None, None]
    mean = conv2d(x, kernel)
    variance = conv2d(x * x, kernel) - mean**2
    positions = mean[0].numel()
    projected = conv2d(v, kernel)
    along = 1 / (2 * mean**2 + c1) - 1 / (2 * variance + c2)
    spread = conv_transpose2d(along * projected, kernel)
    own = v * conv_transpose2d(1 / (2 * variance + c2), kernel)
    return (spread + own) / positions


@pytest.mark.parametrize("constants", [(0.0, 0.0), (1e-4, 9e-4)], ids=["paper", "stabilised"])
def test_hessian_equals_the_corrected_closed_form_of_uniform_windows(
    constants: tuple[float, float],
) -> None:
    x = images(2, 1, 12, 13)
    v, window = noise(x), 4
    weights = torch.full((window, window), 1 / window**2, dtype=x.dtype)
    found = hessian_action(UniformSsim(window, *constants))(x, v)
    torch.testing.assert_close(found, closed_form(x, v, weights, *constants), rtol=1e-9, atol=0)


def test_the_windows_of_the_paper_as_dense_matrices() -> None:
    """One window alone: mean^2 is d'(11'/N^4)d and variance d'(I/N^2 - 11'/N^4)d."""
    window = 3
    x = images(1, 1, window, window)
    ones = torch.ones(9, 9, dtype=x.dtype)
    square_of_mean = ones / window**4
    variance = torch.eye(9, dtype=x.dtype) / window**2 - square_of_mean
    flat = x.flatten()
    expected = square_of_mean / (2 * flat @ square_of_mean @ flat)
    expected = expected + variance / (2 * flat @ variance @ flat)
    found = dense_tensor(UniformSsim(window, 0.0, 0.0), x)[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_ssim_equals_the_closed_form_of_gaussian_windows() -> None:
    x = images(2, 1, 15, 14)
    v = noise(x)
    line = torch.exp(-((torch.arange(11, dtype=x.dtype) - 5) ** 2) / (2 * 1.5**2))
    line = line / line.sum()
    expected = closed_form(x, v, torch.outer(line, line), 0.01**2, 0.03**2)
    torch.testing.assert_close(hessian_action(Ssim())(x, v), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.spec())
def test_second_difference_equals_g(metric: Metric) -> None:
    """[D(x, x + d) + D(x, x - d)] / 2 = d' G d + O(|d|^4), D(x, x) being 0."""
    x = images(3, 2, 36, 35)
    d = noise(x)
    step = 1e-4
    second = metric.distortion(x, x + step * d) + metric.distortion(x, x - step * d)
    quadratic = (d * hessian_action(metric)(x, d)).flatten(1).sum(1)
    torch.testing.assert_close(second / (2 * step**2), quadratic, rtol=1e-4, atol=0)


@pytest.mark.parametrize("metric", [Ssim(window=5), MultiScaleSsim(window=3)], ids=lambda m: m.name)
def test_g_is_positive_semidefinite(metric: Metric) -> None:
    size = 9 if metric.name == "ssim" else 33
    x = images(1, 1, size, size)
    if metric.name == "ssim":
        matrix = dense_tensor(metric, x)[0]
    else:  # the Hessian of 33 x 33 pixels seen from 60 directions
        basis = torch.linalg.qr(noise(x.expand(60, 1, size, size)).flatten(1).T)[0].T
        columns = basis.reshape(60, 1, 1, size, size)
        acted = vmap(lambda v: hessian_action(metric)(x, v))(columns).flatten(1)
        matrix = basis @ acted.T
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-8, atol=1e-10)
    values = torch.linalg.eigvalsh(matrix)
    assert values[0] >= -1e-9 * values[-1]
    assert values[-1] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_g_is_finite_and_right_on_flat_images(level: float, dtype: torch.dtype) -> None:
    """Without variance G is (diag w - w w') / C2 + w w' / (2 level^2 + C1), not clamped away."""
    x = torch.full((1, 1, 13, 13), level, dtype=dtype)
    v = noise(x.double()).to(dtype)
    line = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    line = line / line.sum()
    expected = closed_form(x.double(), v.double(), torch.outer(line, line), 0.01**2, 0.03**2)
    found = hessian_action(Ssim())(x, v)
    assert found.isfinite().all()
    scale = float(expected.abs().max())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    assert float((found.double() - expected).abs().max()) < tolerance * scale
    assert (
        hessian_action(MultiScaleSsim(window=3))(
            torch.full((1, 1, 33, 33), level, dtype=dtype), torch.ones(1, 1, 33, 33, dtype=dtype)
        )
        .isfinite()
        .all()
    )


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.spec())
def test_forward_reverse_and_vmapped_derivatives_agree(metric: Metric) -> None:
    x, x_hat = images(2, 1, 33, 34), images(2, 1, 33, 34, seed=5)
    tangents = noise(x.expand(3, *x.shape))

    def value(y: Tensor) -> Tensor:
        return metric.distortion(x, y).sum()

    gradient = grad(value)(x_hat)
    forward = vmap(lambda t: jvp(value, (x_hat,), (t,))[1])(tangents)
    torch.testing.assert_close(forward, (tangents * gradient).flatten(1).sum(1))

    leaf = x_hat.clone().requires_grad_()
    (first,) = torch.autograd.grad(value(leaf), leaf, create_graph=True)
    (double,) = torch.autograd.grad((first * tangents[0]).sum(), leaf)
    forward_over_reverse = jvp(grad(value), (x_hat,), (tangents[0],))[1]
    torch.testing.assert_close(double, forward_over_reverse)


def test_channels_are_averaged() -> None:
    x, x_hat = images(2, 3, 12, 12), images(2, 3, 12, 12, seed=4)
    metric = Ssim()
    alone = [metric.distortion(x[:, c], x_hat[:, c]) for c in range(3)]
    torch.testing.assert_close(metric.distortion(x, x_hat), sum(alone) / 3)


def test_ms_ssim_has_finite_gradients_where_a_scale_is_anticorrelated() -> None:
    x = images(2, 1, 33, 33)
    x_hat = (1 - x).requires_grad_()
    value = MultiScaleSsim(window=3).distortion(x, x_hat)
    (gradient,) = torch.autograd.grad(value.sum(), x_hat)
    torch.testing.assert_close(value.detach(), torch.ones(2, dtype=x.dtype))
    assert gradient.isfinite().all()


def test_ms_ssim_equals_pytorch_msssim_elsewhere() -> None:
    from pytorch_msssim import ms_ssim

    x, x_hat = images(2, 3, 33, 40), images(2, 3, 33, 40, seed=9)
    near = 0.7 * x + 0.3 * x_hat
    # given in double precision: the library's own window is rounded to float32
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype) ** 2) / (2 * 1.5**2))
    window = (line / line.sum()).expand(3, 1, 1, 3)
    expected = 1 - ms_ssim(x, near, data_range=1.0, size_average=False, win=window)
    torch.testing.assert_close(MultiScaleSsim(window=3).distortion(x, near), expected)


@pytest.mark.parametrize(
    ("metric", "shape", "message"),
    [
        (Ssim(), (1, 10, 32), "at least 11 x 11 pixels; found 10 x 32"),
        (MultiScaleSsim(), (3, 160, 200), "at least 161 x 161 pixels; found 160 x 200"),
        (Ssim(), (784,), r"needs images .* has shape \(784,\)"),
    ],
)
def test_images_that_are_too_small_are_refused(
    metric: Metric, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        metric.distortion(torch.zeros(2, *shape), torch.zeros(2, *shape))


def test_the_smallest_images_that_fit_are_taken() -> None:
    for metric, side in ((Ssim(), 11), (MultiScaleSsim(), 161)):
        x = images(1, 1, side, side)
        assert float(metric.distortion(x, x)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("option", ["window=4", "window=1", "sigma=0", "k1=0", "data_range=-1"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(OptionError, match=f"needs.*{option.partition('=')[0]}"):
        installed().metric(f"ssim:{option}")


def test_options_in_force_are_recorded() -> None:
    metric = installed().metric("ms_ssim:window=7,data_range=2")
    assert metric.spec() == "ms_ssim:window=7,sigma=1.5,k1=0.01,k2=0.03,data_range=2.0"
    x, x_hat = images(1, 1, 20, 20), images(1, 1, 20, 20, seed=2)
    wide = Ssim(data_range=255.0)
    torch.testing.assert_close(wide.distortion(255 * x, 255 * x_hat), Ssim().distortion(x, x_hat))
