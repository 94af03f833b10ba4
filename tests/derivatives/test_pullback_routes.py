"""Every route to the decoder's derivatives gives the dense Jacobian, on modules people write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import isoprobe
from isoprobe.contracts import VAE, Posterior
from isoprobe.derivatives import routes
from isoprobe.derivatives.routes import ROUTES, Route, choose_route
from isoprobe.derivatives.tangents import UnsupportedError, push_keeping, push_stacked
from isoprobe.errors import CheckpointError
from tests.oracles import dense_jacobian

N = 5


class Residual(nn.Module):
    """Skip connections, a condition joined to z, norms, and an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(N + 2, 32)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.batch = nn.BatchNorm2d(8)
        self.batch.running_mean.uniform_(-1, 1)
        self.batch.running_var.uniform_(0.5, 2)
        self.act = nn.LeakyReLU(0.2, inplace=True)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")
        self.last = nn.Conv2d(8, 2, 3, padding=1, groups=2)

    def forward(self, z: Tensor) -> Tensor:
        condition = torch.ones(len(z), 2, dtype=z.dtype)
        h = self.first(torch.cat([z, condition], dim=1)).view(z.size(0), 8, 2, 2)
        h = h + self.conv(self.act(self.batch(h)))
        h = self.up(functional.silu(self.norm(h)))
        return self.last(h) * h.mean(dim=1, keepdim=True) + 0.1


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(N, 3 * 4 * 8)
        self.out = nn.Linear(8, 3)

    def forward(self, z: Tensor) -> Tensor:
        q, k, v = self.make(z).reshape(len(z), 3, 1, 4, 8).unbind(1)
        return self.out(functional.scaled_dot_product_attention(q, k, v)).flatten(1)


class Recurrent(nn.Module):
    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = cell(N, 7, batch_first=True)

    def forward(self, z: Tensor) -> Tensor:
        return self.cell(z[:, None].expand(-1, 3, -1))[0]


class OldSine(torch.autograd.Function):
    """As functions were written before torch.func: no vmap, no forward derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.detach().sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].cos()


class OldOnce(OldSine):
    """The same with a backward pass that cannot be differentiated again."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].cos()


class Custom(nn.Module):
    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(N, 6), nn.Linear(6, 4)
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.function.apply(self.first(z)))


class AddingCustom(Custom):
    """What neither stacking nor vmap can follow: a write in place, and a function unbatched."""

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z)
        total = h.clone()
        total += self.function.apply(h)
        return self.last(total)


class Adding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(N, 6), nn.Linear(6, 6)

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z)
        h += self.last(h).tanh()
        return h


class SineWithoutBatching(torch.autograd.Function):
    """A newer function that has a forward derivative, and no rule for vmap."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].cos()

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent * ctx.saved_tensors[0].cos()


def burgess() -> nn.Module:
    up = [nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1)]
    return nn.Sequential(nn.Linear(N, 16), nn.ReLU(), nn.Unflatten(1, (4, 2, 2)), *up)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(N, 9), nn.Softplus(), nn.Linear(9, 6), nn.Tanh(), nn.Sigmoid())


MODULES: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "conv": burgess,
    "residual": Residual,
    "attention": Attention,
    "gru": lambda: Recurrent(nn.GRU),
    "lstm": lambda: Recurrent(nn.LSTM),
    "adding in place": Adding,
    "new function": lambda: Custom(SineWithoutBatching),
    "new function, adding": lambda: AddingCustom(SineWithoutBatching),
    "old function": lambda: Custom(OldSine),
    "old function, once": lambda: Custom(OldOnce),
}


#: how the notes of a result name the ways that are not the usual ones
SAID = ("plain kernels", "one direction at a time", "reverse mode twice", "one backward pass")


def build(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return MODULES[name]().to(dtype).eval().requires_grad_(False)


def latents(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, N, generator=torch.Generator().manual_seed(1), dtype=dtype)


def columns(route: Route, decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    output, tangents = route.push(decode, z, torch.eye(N, dtype=z.dtype)[:, None])
    torch.testing.assert_close(output, decode(z))
    return tangents.flatten(2).permute(1, 2, 0)


@pytest.mark.parametrize("name", MODULES)
def test_the_chosen_route_gives_the_dense_jacobian(name: str) -> None:
    decode = build(name)
    z = latents()
    expected = torch.stack(
        [torch.autograd.functional.jacobian(lambda v: decode(v[None])[0], one) for one in z]
    ).flatten(1, -2)
    torch.testing.assert_close(columns(choose_route(decode, z[:2]), decode, z), expected)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: r.name)
@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_every_route_gives_the_dense_jacobian(name: str, route: Route) -> None:
    decode = build(name)
    torch.testing.assert_close(columns(route, decode, latents()), dense_jacobian(decode, latents()))


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("mlp", "stacked"),
        ("conv", "stacked"),
        ("residual", "stacked-keeping"),
        ("adding in place", "vmap"),
        ("new function", "stacked"),
        ("new function, adding", "loop"),
        ("old function", "reverse-twice"),
        ("old function, once", "rows"),
    ],
)
def test_the_fastest_route_that_works_is_chosen(name: str, route: str) -> None:
    assert choose_route(build(name), latents()[:2]).name == route


@pytest.mark.parametrize("name", ["attention", "lstm", "gru"])
def test_single_precision_agrees_where_kernels_are_fused(name: str) -> None:
    decode, z = build(name, torch.float32), latents(torch.float32)
    route = choose_route(decode, z[:2])
    assert ("plain kernels" in route.note) == (name != "gru")
    double = build(name)
    expected = columns(choose_route(double, latents()[:2]), double, latents())
    torch.testing.assert_close(columns(route, decode, z).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mlp", None),
        ("attention", "plain kernels"),
        ("new function, adding", "one direction at a time"),
        ("old function", "reverse mode twice"),
        ("old function, once", "one backward pass for each output"),
    ],
)
def test_the_result_says_which_way_was_taken(name: str, said: str | None) -> None:
    decode = build(name, torch.float32)
    size = decode(torch.zeros(1, N)).shape[1]
    encoder = nn.Linear(size, N)
    vae = VAE(
        decode,
        lambda x: Posterior(encoder(x), torch.full((len(x), N), 0.5)),
        (size,),
        (N,),
        module=nn.ModuleList([decode, encoder]),
    )
    x = torch.randn(8, size, generator=torch.Generator().manual_seed(0))
    with isoprobe.analyze(
        vae, x, metric="sse", beta=1.0, analyses=["isometry"], device="cpu"
    ) as result:
        ways = [note for note in result.attrs["notes"] if any(s in note for s in SAID)]
    assert len(ways) == (said is not None)
    assert said is None or said in ways[0]


def test_directions_may_differ_between_samples() -> None:
    decode, z = build("residual"), latents()
    directions = torch.randn(2, 3, N, dtype=z.dtype, generator=torch.Generator().manual_seed(2))
    _, tangents = push_keeping(decode, z, directions)
    expected = torch.einsum("bmn,cbn->cbm", dense_jacobian(decode, z), directions)
    torch.testing.assert_close(tangents.flatten(2), expected)


@pytest.mark.parametrize("again", [False, True])
def test_columns_that_samples_share_are_not_written_over_when_they_take_another_shape(
    again: bool,
) -> None:
    """Unit vectors are the same for all samples, and so are the tangents of a first layer."""
    torch.manual_seed(0)
    linear, norm = nn.Linear(N, 32).double(), nn.BatchNorm2d(8).double().eval()
    norm.running_var.uniform_(0.5, 2)

    def decode(z: Tensor) -> Tensor:
        h = linear(z)
        image = h.view(-1, 8, 2, 2)
        if again:  # what is below may not change what the image is made of
            return functional.softplus(h) + norm(image).flatten(1)
        return functional.softplus(norm(image)).flatten(1)

    z = torch.randn(4, N, dtype=torch.float64)
    found = torch.cat([columns for _, columns in choose_route(decode, z).columns(decode, z, 2)])
    torch.testing.assert_close(found.permute(1, 2, 0), dense_jacobian(decode, z))


def test_a_wrong_forward_derivative_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A route that runs but errs by one in a thousand is passed over."""

    def wrong(decode: Any, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        output, tangents = push_stacked(decode, z, directions)
        return output, 1.001 * tangents

    monkeypatch.setattr(routes, "ROUTES", (Route("wrong", wrong), *ROUTES))
    assert choose_route(build("mlp"), latents()[:2]).name == "stacked"


def test_a_decoder_without_derivatives_is_named() -> None:
    with pytest.raises(CheckpointError, match="cannot be differentiated.*finite-difference"):
        choose_route(lambda z: torch.from_numpy(z.detach().numpy().copy()), latents()[:2])


def test_an_operation_that_drops_tangents_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        push_stacked(lambda z: torch.zeros(3, 2), latents(), torch.eye(N)[:, None])


def test_the_latents_are_left_alone() -> None:
    z = latents()
    before = z.clone()
    decode = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(N, 2).double()).requires_grad_(False)
    push_stacked(decode, z, torch.eye(N, dtype=z.dtype)[:, None])
    assert torch.equal(z, before)


# --------------------------------------------------------------------------- digits on a card


def precisions() -> list[str]:
    cudnn: Any = torch.backends.cudnn
    return [p.fp32_precision for p in (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)]


@pytest.mark.parametrize("allowed", [True, False])
def test_a_route_differentiates_without_tf32_and_gives_the_setting_back(allowed: bool) -> None:
    was = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    seen = []

    def decode(z: Tensor) -> Tensor:
        seen.append(precisions())
        return z.tanh()

    def failing(z: Tensor) -> Tensor:
        raise RuntimeError("no")

    try:
        before = precisions()
        choose_route(decode, torch.randn(2, N))
        with pytest.raises(CheckpointError):
            choose_route(failing, torch.randn(2, N))
        assert precisions() == before
        assert torch.backends.cudnn.allow_tf32 is allowed
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = was
    assert seen
    assert all(each == ["ieee"] * 3 for each in seen)
