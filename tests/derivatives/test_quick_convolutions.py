"""Convolutions taken the quicker way give PyTorch's outputs and slopes, and leave others alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isoprobe.contracts import VAE, Posterior
from isoprobe.derivatives import quick_convolutions, surface
from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe.derivatives.quick_convolutions import QuickConvolutions, quick_for
from isoprobe.probe import quantities, trials
from isoprobe.registry.lookup import installed
from isoprobe.run.settle import chosen_metric
from isoprobe.theory.geodesics import geodesics, straight


def slope(decode: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Output, and the slope of some function of it that is no sum."""
    z = z.clone().requires_grad_()
    output = decode(z)
    weights = torch.linspace(-1, 1, output.numel(), dtype=z.dtype).view_as(output)
    (found,) = torch.autograd.grad((output.square() * weights).sum(), z)
    return output.detach(), found


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (nn.ConvTranspose2d, (4, 2, 1)),
        (nn.ConvTranspose2d, (3, 2, 1, 1)),
        (nn.ConvTranspose2d, (5, 1, 2)),
        (nn.Conv2d, (3, 1, 1)),
        (nn.Conv2d, (3, 1, "same")),
        (nn.Conv2d, (3, 2, 1)),
    ],
)
def test_outputs_and_slopes_are_those_of_torch(
    kind: Any, args: tuple[Any, ...], channels: int, bias: bool
) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(kind(8, 8, 3, 1, 1), nn.Softplus(), kind(8, channels, *args, bias=bias))
    layers.double()
    x = torch.randn(5, 8, 6, 7, dtype=torch.float64)
    expected = slope(layers, x)
    with QuickConvolutions():
        found = slope(layers, x)
    torch.testing.assert_close(found, expected)
    assert all(part.grad is None for part in layers.parameters())


def test_few_channels_do_go_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    genuine = quick_convolutions.convolve

    def counted(*args: Any) -> Tensor:
        taken.append(args[0])
        return genuine(*args)

    monkeypatch.setattr(quick_convolutions, "convolve", counted)
    x, weight = torch.randn(2, 8, 4, 4), torch.randn(8, 1, 4, 4)
    functional.conv_transpose2d(x, weight)
    assert taken == []
    with QuickConvolutions():
        functional.conv_transpose2d(x, weight)
    assert taken == [functional.conv_transpose2d]


def test_a_weight_made_of_the_latents_keeps_its_share_of_the_slope() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 8, 4, 4, dtype=torch.float64)
    rows = torch.randn(3, 8 * 16, dtype=torch.float64)

    def decode(z: Tensor) -> Tensor:
        weight = (z.mean(dim=0) @ rows).view(8, 1, 4, 4)
        return functional.conv_transpose2d(x * z.sum(), weight, stride=2)

    z = torch.randn(4, 3, dtype=torch.float64)
    expected = slope(decode, z)
    with QuickConvolutions():
        found = slope(decode, z)
    torch.testing.assert_close(found, expected)


def test_a_decoder_may_use_functional_transforms_itself() -> None:
    torch.manual_seed(2)
    weight = torch.randn(8, 1, 4, 4, dtype=torch.float64)

    def shown(rows: Tensor) -> Tensor:
        return functional.conv_transpose2d(rows, weight)

    def decode(z: Tensor) -> Tensor:
        many = torch.vmap(shown)(z.view(4, 1, 8, 3, 3))
        return many + torch.func.jvp(shown, (z,), (torch.ones_like(z),))[1][:, None]

    z = torch.randn(4, 8, 3, 3, dtype=torch.float64)
    expected = slope(decode, z)
    with QuickConvolutions():
        found = slope(decode, z)
    torch.testing.assert_close(found, expected)


def test_arguments_by_name_and_other_functions_are_as_they_were() -> None:
    x, weight = torch.randn(2, 8, 6, 6), torch.randn(2, 8, 3, 3)
    expected = functional.conv2d(x, weight, padding=1)
    line, kernel = torch.randn(2, 8, 6), torch.randn(2, 8, 3)
    with QuickConvolutions():
        torch.testing.assert_close(functional.conv2d(x, weight, padding=1), expected)
        named = functional.conv2d(input=x, weight=weight, padding=1)
        torch.testing.assert_close(named, expected)
        image = functional.conv2d(x[0], weight, None, 1, 1)
        torch.testing.assert_close(image, expected[0], rtol=1e-4, atol=1e-4)
        assert functional.conv1d(line, kernel).shape == (2, 2, 4)


def of_images() -> VAE:
    """Draws images of one channel in double precision; its encoder is linear."""
    torch.manual_seed(2)
    layers: list[nn.Module] = [nn.Linear(3, 8 * 16), nn.Unflatten(1, (8, 4, 4)), nn.Softplus()]
    layers += [nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.Tanh(), nn.ConvTranspose2d(8, 1, 4, 2, 1)]
    parts = nn.ModuleList([nn.Sequential(*layers), nn.Linear(256, 6)]).double()

    def encode(rows: Tensor) -> Posterior:
        mean, log = parts[1](rows.flatten(1)).chunk(2, dim=1)
        return Posterior(mean, log.exp())

    return VAE(
        name="own", encode=encode, decode=parts[0], input_shape=(1, 16, 16), latent_shape=(3,),
        module=parts,
    )  # fmt: skip


def test_paths_of_a_decoder_of_images_keep_their_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solved with and without, in double precision, where rounding is not followed far."""
    vae = of_images()
    seen = surface.surface(output_metric(chosen_metric(installed(), "sse", vae), vae), vae, 0.01)
    ends = torch.randn(2, 4, 3, dtype=torch.float64)
    found = geodesics(seen, [straight(ends[0], ends[1])]).length
    monkeypatch.setattr(surface, "QuickConvolutions", nullcontext)
    expected = geodesics(seen, [straight(ends[0], ends[1])]).length
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_dense_layers_are_not_watched() -> None:
    dense = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    for module in (None, dense):
        assert not isinstance(quick_for(module), QuickConvolutions)
    both = nn.Sequential(dense, nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 1, 1))
    assert isinstance(quick_for(both), QuickConvolutions)


def test_walks_and_readings_go_the_quicker_way_to_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Draws of the posterior and their slopes, and what other readings show."""
    vae = of_images()
    x = torch.rand(24, 1, 16, 16, dtype=torch.float64)
    wanted = {"stationarity", "distortion", "distortion_draws", "noise_gradient"}
    ways = []
    for quick in (True, False):
        if not quick:
            for module in (quantities, trials):
                monkeypatch.setattr(module, "quick_for", lambda module: nullcontext())
        metric = chosen_metric(installed(), "sse", vae)
        batch = quantities.Probe(vae, metric, wanted)(np.arange(len(x)), x)
        readings = trials.try_readings(vae, metric, x)
        assert len(readings) > 3
        numbers = [(r.distortion, r.disagreement, r.moment, r.beta) for r in readings]
        ways.append((numbers, [batch.array(name) for name in sorted(wanted)]))
    (read, one), (read_plainly, other) = ways
    np.testing.assert_allclose(read, read_plainly, rtol=1e-9)
    for found, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
