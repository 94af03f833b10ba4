"""Shorter ways to all columns: the products of a dense Jacobian in double precision, and when."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isoprobe.contracts import VAE
from isoprobe.derivatives.exact import exact_pullback
from isoprobe.derivatives.memory import plan
from isoprobe.derivatives.metric_tensor import OutputMetric
from isoprobe.derivatives.quicker import quickest_route
from isoprobe.errors import MetricError
from isoprobe.registry.lookup import installed


def mlp(*widths: int, last: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for start, stop in itertools.pairwise(widths):
        layers += [nn.Linear(start, stop), nn.ELU()]
    layers[-1:] = [] if last is None else [last]
    return nn.Sequential(*layers).eval().requires_grad_(requires_grad=False)


class Tied(nn.Module):
    """Its last weight is made anew in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(3, 8, last=nn.ELU())
        self.weight = nn.Parameter(torch.randn(30, 8), requires_grad=False)

    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.linear(self.inner(z), 2 * self.weight)


class Skipping(nn.Module):
    """Something is added behind the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.beside = mlp(3, 8, 30), mlp(3, 30)

    def forward(self, z: Tensor) -> Tensor:
        added: Tensor = self.inner(z) + self.beside(z)
        return added


def view(decode: nn.Module, metric: str = "sse") -> OutputMetric:
    return OutputMetric(installed().metric(metric), decode, logits=False)


def dense(decode: nn.Module, z: Tensor) -> Tensor:
    """J'J in double precision, ``(B, n, n)``."""
    decode.double()
    columns = torch.func.vmap(torch.func.jacfwd(lambda v: decode(v[None])[0]))(z.double())
    decode.float()
    flat = columns.reshape(len(z), -1, z.shape[1])
    return flat.mT @ flat


DECODERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "linear output": (lambda: mlp(5, 12, 8, 60), "stacked+folded"),
    "in the shape of images": (
        lambda: mlp(5, 12, 8, 60, last=nn.Unflatten(1, (3, 4, 5))),
        "stacked+folded",
    ),
    "one linear layer": (lambda: mlp(5, 60), "stacked+folded"),
    "curved output": (lambda: mlp(5, 12, 60, last=nn.Sigmoid()), "stacked"),
    "wide last layer": (lambda: mlp(5, 58, 60), "stacked"),
    "weight of each call": (Tied, "stacked"),
    "something added": (Skipping, "stacked"),
    "fewer outputs than latents": (lambda: mlp(9, 12, 4), "stacked+rows"),
}


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("metric", ["sse", "mse", "gaussian:sigma2=0.3"])
def test_products_of_columns_are_those_of_the_dense_jacobian(name: str, metric: str) -> None:
    build, expected = DECODERS[name]
    decode = build()
    n = {"weight of each call": 3, "something added": 3, "fewer outputs than latents": 9}.get(
        name, 5
    )
    z = torch.randn(6, n, generator=torch.Generator().manual_seed(1))
    seen = view(decode, metric)
    route = quickest_route(seen, z[:2])
    assert route.name == expected
    assert quickest_route(seen, z[:2], route.name).name == expected
    output = decode(z)
    scale = seen.weights(output).reshape(-1, 1, 1).double()
    truth = scale * dense(decode, z)
    for chunk, block in ((None, None), (2, 4)):
        whole = exact_pullback(
            seen, z, gram=True, euclidean=True, chunk=chunk, block=block, route=route
        )
        diagonal = exact_pullback(seen, z, chunk=chunk, block=block, route=route).diagonal
        size = truth.abs().amax()
        assert whole.gram is not None
        assert whole.euclidean is not None
        torch.testing.assert_close(whole.gram.double() / size, truth / size, rtol=0, atol=1e-6)
        small = whole.euclidean.double() * scale / size
        torch.testing.assert_close(small, truth / size, rtol=0, atol=1e-6)
        found = diagonal.double() / truth.diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-6)
        torch.testing.assert_close(whole.output, output)


def test_a_metric_that_is_no_multiple_of_the_identity_is_not_folded() -> None:
    decode = mlp(5, 12, 8, 60)
    z = torch.randn(2, 5)
    assert quickest_route(view(decode, "bce"), z).name == "stacked"
    with pytest.raises(MetricError, match="no multiple of the identity"):
        exact_pullback(view(decode, "bce"), z, gram=True, route=quickest_route(view(decode), z))


def test_a_way_that_gives_other_products_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import isoprobe.derivatives.quicker as module

    right = module.push_folded

    def wrong(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        output, columns = right(*arguments)
        return output, 1.01 * columns

    monkeypatch.setattr(module, "push_folded", wrong)
    assert quickest_route(view(mlp(5, 12, 8, 60)), torch.randn(2, 5)).name == "stacked"


def test_sizes_follow_what_is_pushed() -> None:
    decode = mlp(5, 16, 16, 4096)
    vae = VAE(decode, None, (4096,), (5,), module=decode)
    route = quickest_route(view(decode), torch.randn(2, 5))
    long, short = (plan(vae, decode, 1 << 24, route=way) for way in (None, route))
    assert short.block > 4 * long.block
    narrow = mlp(64, 16, 4)
    vae = VAE(narrow, None, (4,), (64,), module=narrow)
    rows = quickest_route(view(narrow), torch.randn(2, 64))
    assert plan(vae, narrow, 1 << 24, route=rows).chunk == 64
