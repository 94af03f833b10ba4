"""Hard numbers in, finite and right numbers out, or a refusal that names where they stand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import isoprobe
from isoprobe.checkpoints.native import vae_from_networks
from isoprobe.contracts import VAE, Facts, Posterior
from isoprobe.errors import CheckpointError, DataError, IsoprobeError
from isoprobe.results.reader import Result
from isoprobe.show import summary
from isoprobe_plugins.architectures.mlp import Mlp
from tests import configs

ANALYSES = ("isometry", "importance", "anomaly", "density", "rate-distortion", "diagnosis")
PIXELS, ROWS, BETA = 12, 40, 0.01
X = np.random.default_rng(0).random((ROWS, PIXELS)).astype("f4")
TIES = np.repeat(X[:1], ROWS, axis=0)
#: what has no value for a single sample, for ties alone, or where nothing is coded
UNDEFINED = {
    *("estimator_correlation", "beta_pullback", "beta_recovered", "loss_ratio"),
    *("iwae_gap_se", "exact_se"),
}
#: ratios to a beta that may be nothing, with errors over blocks of which there may be one
RATIOS = ("conditions/",)


def trained(latents: int = 3, pixels: int = PIXELS, metric: str = "bce") -> VAE:
    """A small network model."""
    torch.manual_seed(0)
    output = "sigmoid" if metric == "bce" else "linear"
    config = configs.mlp(pixels, latents=latents, output=output)
    facts = Facts(metric=metric, beta=1.0)
    return vae_from_networks(Mlp().build(config), facts, name="m", adapter="a", sha256="")


MATRIX = torch.randn(PIXELS, 3, generator=torch.Generator().manual_seed(0))
INVERSE = torch.linalg.pinv(MATRIX)


class Made:
    """A linear model of plain functions, any of which may be replaced."""

    @staticmethod
    def mean(x):
        return x @ INVERSE.T.to(x.dtype)

    @staticmethod
    def std(mean):
        return torch.full_like(mean, 0.1)

    @staticmethod
    def decode(z):
        return z @ MATRIX.T.to(z.dtype)


def made(
    mean: Callable = Made.mean,
    std: Callable = Made.std,
    decode: Callable | nn.Module = Made.decode,
    metric: str = "sse",
) -> VAE:
    def encode(x):
        found = mean(x)
        return Posterior(found, std(found))

    return VAE(
        decode=decode,
        encode=encode,
        input_shape=(PIXELS,),
        latent_shape=(3,),
        facts=Facts(metric=metric, beta=BETA),
        name="made",
        adapter="memory",
        module=decode if isinstance(decode, nn.Module) else None,
    )


def sums(decode: Callable) -> Callable:
    """A decoder of the latents' sum alone."""
    return lambda z: decode(z.sum(1, keepdim=True).expand(-1, PIXELS))


def analyze(model: VAE, data: np.ndarray, **options) -> Result:
    return isoprobe.analyze(model, data, analyses=options.pop("analyses", ANALYSES), **options)


def unfit(result: Result) -> list[str]:
    """Variables with a number that is not finite, but for those that cannot be defined."""
    json.dumps(summary.to_json(result), allow_nan=False)
    return [
        f"{group}/{name}"
        for group in result.groups()
        for name in result[group]
        if not name.startswith(tuple(UNDEFINED)) and not f"{group}/".startswith(RATIOS)
        if result[group][name].values.dtype.kind == "f"
        if not np.isfinite(result[group][name].values).all()
    ]


# ------------------------------------------------------------------ the same numbers


@pytest.fixture(scope="module")
def plain() -> dict[str, np.ndarray]:
    with analyze(trained(), X, analyses=["isometry", "importance"]) as result:
        return {name: result["isometry"][name].values for name in ("norm_mean", "residual_mean")}


LAYOUTS = {
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian double": lambda x: x.astype(">f8"),
    "columns first": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards in memory": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), "f4").reshape(x.shape),
    "a tensor that needs a gradient": lambda x: torch.tensor(x, requires_grad=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_an_array_changes_nothing(plain, layout) -> None:
    with analyze(trained(), LAYOUTS[layout](X), analyses=["isometry", "importance"]) as result:
        for name, expected in plain.items():
            np.testing.assert_array_equal(result["isometry"][name].values, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_computed_in_single(dtype) -> None:
    """The numbers are those of the rounded weights, in single precision."""
    rounded = trained().to("cpu", dtype).to("cpu", torch.float32)
    with (
        analyze(trained().to("cpu", dtype), X, analyses=["isometry"]) as half,
        analyze(rounded, X, analyses=["isometry"]) as single,
    ):
        assert half.attrs["dtype"] == "float32"
        np.testing.assert_array_equal(
            half["isometry"]["norm_mean"].values, single["isometry"]["norm_mean"].values
        )


@pytest.mark.parametrize("batch", [1, 7, 13, ROWS, 1000])
def test_a_last_batch_of_any_size(plain, batch) -> None:
    with analyze(trained(), X, analyses=["isometry"], batch_size=batch) as result:
        assert result.sizes["sample"] == ROWS
        np.testing.assert_allclose(
            result["isometry"]["norm_mean"].values, plain["norm_mean"], rtol=2e-6
        )


# ------------------------------------------------------------------ hard, but possible

FINE = {
    "one sample": lambda: (trained(), X[:1]),
    "two samples": lambda: (trained(), X[:2]),
    "one latent": lambda: (trained(latents=1), X),
    "one input": lambda: (trained(latents=1, pixels=1), X[:, :1]),
    "equal rows": lambda: (trained(), TIES),
    "constant columns": lambda: (trained(), np.where(np.arange(PIXELS) < 6, 0.5, X)),
    "only 0 and 1": lambda: (trained(), (X > 0.5).astype("f4")),
    "booleans": lambda: (trained(), X > 0.5),
    "small integers": lambda: (trained(metric="sse"), (X * 10).astype("i1")),
    "halves": lambda: (trained(), X.astype("f2")),
    "sigma of 1e-8": lambda: (made(std=lambda m: torch.full_like(m, 1e-8)), X),
    "sigma above 1": lambda: (made(std=lambda m: torch.full_like(m, 3.0)), X),
    "sigma of a million": lambda: (made(std=lambda m: torch.full_like(m, 1e6)), X),
    "nothing coded": lambda: (made(mean=lambda x: x[:, :3] * 0, std=torch.ones_like), X),
    "a constant decoder": lambda: (made(decode=sums(lambda s: s * 0)), X),
    "one latent thrice": lambda: (made(mean=lambda x: x[:, :1].expand(-1, 3)), X),
    "a saturated sigmoid": lambda: (
        made(decode=sums(lambda s: torch.sigmoid(1000 * s)), metric="sse"),
        X,
    ),
}
#: no density in input space, and no volume, where the decoder's columns are dependent
SINGULAR = {"log_volume", "log_density_input", "log_density_input_sigmas", "hadamard_gap"}


@pytest.mark.parametrize("case", FINE)
def test_a_hard_case_gives_finite_numbers(case) -> None:
    model, data = FINE[case]()
    with analyze(model, data) as result:
        found = unfit(result)
        assert [name for name in found if name.partition("/")[2] not in SINGULAR] == []
        assert math.isfinite(result.attrs["beta"])


def test_fewer_inputs_than_latents() -> None:
    """The decoder's columns are dependent: no volume, and everything else finite."""
    with analyze(trained(latents=20), X) as result:
        assert {name.partition("/")[2] for name in unfit(result)} <= SINGULAR
        assert np.isfinite(result["isometry"]["norm_mean"].values).all()


def test_nothing_coded_is_said_so() -> None:
    model, data = FINE["nothing coded"]()
    with analyze(model, data) as result:
        assert not result["overview"]["active"].values.any()
        assert summary.to_json(result)["summary"]["active"] == 0


# ------------------------------------------------------------------ refused, and named


def spoilt(place: tuple[int, int], value: float) -> np.ndarray:
    data = X.copy()
    data[place] = value
    return data


class Chain(nn.Sequential):
    """A decoder whose second layer spoils something."""

    def __init__(self, spoil: Callable) -> None:
        super().__init__()
        self.first, self.spoiler = nn.Linear(3, PIXELS), Spoil(spoil)
        with torch.no_grad():
            self.first.weight.copy_(MATRIX)
            self.first.bias.zero_()

    def forward(self, z):
        return self.spoiler(self.first(z))


class Spoil(nn.Module):
    def __init__(self, spoil: Callable) -> None:
        super().__init__()
        self.spoil = spoil

    def forward(self, x):
        return self.spoil(x)


def damaged(latents: int = 3) -> VAE:
    model = trained(latents)
    with torch.no_grad():
        next(p for n, p in model.module.named_parameters() if n == "decoder.out.weight")[3, 1] = (
            math.nan
        )
    return model


SAMPLE_5 = r"sample 5\b"
REFUSED = {
    "NaN in data": (lambda: (trained(), spoilt((30, 2), np.nan)), DataError, "row 30.*nan.*2 of"),
    "inf in data": (lambda: (trained(), spoilt((7, 0), np.inf)), DataError, "row 7.*inf"),
    "NaN in weights": (lambda: (damaged(), X), CheckpointError, "decoder.out.weight.*1 of 96.*nan"),
    "NaN in the mean": (
        lambda: (made(mean=lambda x: torch.where(x[:, :3] == X[5, 1], torch.nan, x[:, :3])), X),
        CheckpointError,
        f"posterior mean of latent 1 at {SAMPLE_5}.*nan",
    ),
    "infinite sigma": (
        lambda: (made(std=lambda m: torch.full_like(m, math.inf)), X),
        CheckpointError,
        "standard deviation of latent 0 at sample 0 is inf",
    ),
    "sigma of zero": (
        lambda: (made(std=torch.zeros_like), X),
        CheckpointError,
        "standard deviation of latent 0 at sample 0 is 0; expected a finite, positive",
    ),
    "NaN in every output": (
        lambda: (made(decode=Chain(lambda x: x * torch.nan)), X),
        CheckpointError,
        "made: the decoder.*layer 'spoiler' is the first whose output is not finite",
    ),
    "a loss that overflows": (
        lambda: (made(decode=sums(lambda s: 1e25 * s)), X),
        CheckpointError,
        "made: .*(distortion|pullback).*sample 0.*inf",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_finite_is_named(case) -> None:
    build, kind, message = REFUSED[case]
    model, data = build()
    with pytest.raises(kind, match=message) as caught:
        analyze(model, data)
    assert isinstance(caught.value, IsoprobeError)
    assert "\n" not in str(caught.value)


def test_an_output_of_one_sample_names_it_and_the_layer() -> None:
    """A logarithm of what is negative for some samples only."""
    inputs = torch.tensor(X) @ INVERSE.T @ MATRIX.T
    threshold = float(inputs[5].min())
    lowest = [i for i in range(ROWS) if float(inputs[i].min()) <= threshold]
    model = made(decode=Chain(lambda x: torch.where(x <= threshold + 1e-6, torch.nan, x)))
    with pytest.raises(CheckpointError, match="layer 'spoiler'") as caught:
        analyze(model, X, analyses=["importance"])
    assert f"sample {lowest[0]}" in str(caught.value)


def test_a_derivative_names_sample_latent_and_layer() -> None:
    """The root of zero: finite itself, its derivative infinite."""
    data = X.copy()
    data[5] = 0.0
    with pytest.raises(CheckpointError) as caught:
        analyze(made(decode=Chain(lambda x: x.abs().sqrt())), data, analyses=["isometry"])
    for named in ("made", "sample 5", "latent 0", "layer 'spoiler'", "derivative"):
        assert named in str(caught.value)
