"""Build models whose every figure is known at infinite rows, and fresh data for them.

A model is a product over latents: a source z ~ N(0, 1) is warped into x = h(z) and turned by an
orthogonal matrix into the inputs; the decoder undoes neither, the encoder finds z again and takes
the sigma that solves stationarity there exactly, E[sigma eps dD/dz] = beta (1 - sigma^2). With sse
every figure is then an integral over z and eps, taken here by Gauss-Hermite quadrature. The linear
VAE (theory, ground truth 1) is the case of straight warps, shrunk as its optimum asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from isoprobe import VAE, Facts, Posterior

#: nodes of the quadrature over z and over eps
NODES = 60
#: sigma is tabled over the latent's mean between these ends
REACH, STEPS = 8.0, 2001
INPUTS = 8


@dataclass(frozen=True)
class Warp:
    """One latent's decoder h, its slope, and the encoder's way back.

    Attributes:
        forward: ``z -> h(z)``.
        slope: ``z -> h'(z)``.
        back: ``x -> mean``.
        source: ``z -> x``, what the data are made of; h where the encoder inverts the decoder.
    """

    forward: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    source: Callable[[Tensor], Tensor]


def sinh(scale: float, bend: float) -> Warp:
    """Make a source of heavier tails than a normal's: x = scale / bend times sinh of bend z."""

    def forward(z: Tensor) -> Tensor:
        return scale * torch.sinh(bend * z) / bend

    return Warp(
        forward,
        lambda z: scale * torch.cosh(bend * z),
        lambda x: torch.asinh(bend * x / scale) / bend,
        forward,
    )


def arctan(scale: float, bend: float) -> Warp:
    """Make a source that flattens towards both ends: x = scale / bend times atan of bend z."""

    def forward(z: Tensor) -> Tensor:
        return scale * torch.atan(bend * z) / bend

    return Warp(
        forward,
        lambda z: scale / (1 + (bend * z).square()),
        lambda x: torch.tan(bend * x / scale) / bend,
        forward,
    )


def straight(eigenvalue: float, beta: float) -> Warp:
    """Return the linear VAE's optimum for a direction of this variance, above beta / 2."""
    gain = (eigenvalue - beta / 2) ** 0.5
    return Warp(
        lambda z: gain * z,
        lambda z: gain * torch.ones_like(z),
        lambda x: gain / eigenvalue * x,
        lambda z: eigenvalue**0.5 * z,
    )


@dataclass(frozen=True)
class Product:
    """A model in closed form.

    Attributes:
        name: of the model.
        warps: of its latents.
        beta: weight of the KL, sse.
    """

    name: str
    warps: tuple[Warp, ...]
    beta: float

    @cached_property
    def axes(self) -> Tensor:
        """Directions of the sources among the inputs, ``(INPUTS, n)`` orthonormal, float64."""
        drawn = np.random.default_rng(0).standard_normal((INPUTS, len(self.warps)))
        return torch.from_numpy(np.linalg.qr(drawn)[0])

    def draw(self, rows: int, seed: int) -> np.ndarray:
        """Return fresh rows, ``(rows, INPUTS)`` float64."""
        z = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, len(self.warps))))
        x = torch.stack([w.source(z[:, j]) for j, w in enumerate(self.warps)], dim=1)
        return (x @ self.axes.T).numpy()

    def vae(self) -> VAE:
        """Return the model, to be analysed."""
        axes, warps, tables = self.axes, self.warps, self.tables

        def encode(x: Tensor) -> Posterior:
            own = x @ axes.to(x)
            mean = torch.stack([w.back(own[:, j]) for j, w in enumerate(warps)], dim=1)
            found = [_looked_up(table, mean[:, j]) for j, table in enumerate(tables)]
            return Posterior(mean, torch.stack(found, dim=1))

        def decode(z: Tensor) -> Tensor:
            own = torch.stack([w.forward(z[..., j]) for j, w in enumerate(warps)], dim=-1)
            return own @ axes.to(z).T

        return VAE(
            decode=decode,
            encode=encode,
            input_shape=(INPUTS,),
            latent_shape=(len(warps),),
            facts=Facts(metric="sse", beta=self.beta),
            name=self.name,
        )

    @cached_property
    def tables(self) -> tuple[Tensor, ...]:
        """Sigma of each latent over its mean, by bisection of stationarity at every point."""
        return tuple(self._table(w) for w in self.warps)

    def _table(self, warp: Warp) -> Tensor:
        mean = torch.linspace(-REACH, REACH, STEPS, dtype=torch.float64)
        # the x that this mean belongs to, where it is not the decoder's own answer: x = source(z)
        x = _inverse(warp, mean)
        low, high = torch.full_like(mean, 1e-4), torch.ones_like(mean)
        for _ in range(50):
            middle = (low + high) / 2
            excess = self._pull(warp, mean, middle, x) - self.beta * (1 - middle.square())
            low, high = torch.where(excess < 0, middle, low), torch.where(excess < 0, high, middle)
        return (low + high) / 2

    @staticmethod
    def _pull(warp: Warp, mean: Tensor, std: Tensor, x: Tensor) -> Tensor:
        """E_eps[sigma eps dD/dz], ``(...)``."""
        eps, weight = _hermite()
        z = mean[..., None] + std[..., None] * eps
        gradient = 2 * (warp.forward(z) - x[..., None]) * warp.slope(z)
        return (weight * std[..., None] * eps * gradient).sum(-1)

    def truth(self) -> Mapping[str, np.ndarray]:
        """Return every figure at infinite rows: by latent ``(n,)``, or one number ``()``."""
        eps, weight = _hermite()
        found: dict[str, list[float]] = {name: [] for name in BY_LATENT}
        distortion = 0.0
        for j, warp in enumerate(self.warps):
            x = warp.source(eps)
            mean = warp.back(x)
            std = _looked_up(self.tables[j], mean)
            pulled = self._pull(warp, mean, std, x)
            z = mean[:, None] + std[:, None] * eps
            error = warp.forward(z) - x[:, None]
            both = weight[:, None] * weight
            kl = 0.5 * (mean.square() + std.square() - 1) - std.log()
            used = (weight * (1 - std.square())).sum()
            decoder = (both * z * 2 * error * warp.slope(z)).sum() / self.beta
            y = self._coordinate(j, z)
            center = (both * y).sum()
            response = 2 * std.square() * warp.slope(mean).square()
            second = mean.square() + std.square()
            sharp = (weight * second * (std**-2 - 1)).sum()
            norm = float((weight * pulled).sum() / self.beta)
            found["kl"].append(float((weight * kl).sum()))
            found["stationary norm"].append(norm)
            found["norm"].append(float((weight * response).sum() / self.beta))
            found["residual"].append(norm - float(used))
            found["beta_j"].append(float((weight * pulled).sum() / used))
            found["beta_j, pullback"].append(float((weight * response).sum() / used))
            found["t_j"].append(float(decoder))
            found["gain"].append(float(decoder / sharp))
            found["second moment"].append(float((weight * second).sum()))
            found["importance"].append(float((both * (y - center).square()).sum()))
            found["rough importance"].append(float(self.beta / 2 * (weight * std**-2).sum()))
            distortion += float((both * error.square()).sum())
        truth = {name: np.array(values) for name, values in found.items()}
        return truth | {"beta": np.array(self.beta), "distortion": np.array(distortion)}

    def expected_distortion(self, rows: np.ndarray) -> np.ndarray:
        """E_z D of each row, ``(N,)``."""
        eps, weight = _hermite()
        own = torch.from_numpy(rows) @ self.axes
        total = torch.zeros(len(rows), dtype=torch.float64)
        for j, warp in enumerate(self.warps):
            mean = warp.back(own[:, j])
            z = mean[:, None] + _looked_up(self.tables[j], mean)[:, None] * eps
            total += (weight * (warp.forward(z) - own[:, j, None]).square()).sum(1)
        return total.numpy()

    def _coordinate(self, latent: int, z: Tensor) -> Tensor:
        """y(z) = integral from 0 to z of sqrt(beta / 2) / sigma, by the trapezoid rule."""
        density = (self.beta / 2) ** 0.5 / self.tables[latent]
        step = 2 * REACH / (STEPS - 1)
        whole = torch.cat([density.new_zeros(1), ((density[1:] + density[:-1]) / 2).cumsum(0)])
        whole = (whole - whole[STEPS // 2]) * step
        return _looked_up(whole, z)


#: figures that each latent has one of
BY_LATENT = (
    "kl",
    "stationary norm",
    "norm",
    "residual",
    "beta_j",
    "beta_j, pullback",
    "t_j",
    "gain",
    "second moment",
    "importance",
    "rough importance",
)


@cache
def _hermite() -> tuple[Tensor, Tensor]:
    """Nodes and weights of an expectation under N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def _inverse(warp: Warp, mean: Tensor) -> Tensor:
    """The x whose encoder mean this is: back is increasing, and linear wherever it is not h^-1."""
    own = warp.forward(mean)
    if torch.allclose(warp.back(own), mean):
        return own
    one = warp.back(torch.ones((), dtype=mean.dtype))
    return mean / one


def _looked_up(table: Tensor, where: Tensor) -> Tensor:
    """Interpolate a table over [-REACH, REACH] linearly; its ends go on beyond."""
    at = ((where.double() + REACH) * ((STEPS - 1) / (2 * REACH))).clamp(0, STEPS - 1.001)
    index = at.long()
    share = at - index
    values: Tensor = table[index] * (1 - share) + table[index + 1] * share
    return values.to(where.dtype)


@cache
def models() -> tuple[Product, ...]:
    """Return the models, made once: a linear VAE, and one whose latents bend both ways."""
    beta = 0.5
    spectrum = (4.0, 2.0, 1.0, 0.5)
    return (
        Product("linear", tuple(straight(v, beta) for v in spectrum), beta),
        Product("bent", (sinh(1.5, 0.4), arctan(2.0, 0.5), sinh(0.8, 0.6)), 0.1),
    )
