"""Make the toy data of Section 5.1 and Appendix D.2, with its exact densities.

x = sum_i s_i v_i, where the s_i are independent with known one-dimensional densities and the v_i
are orthonormal. On the three-dimensional plane that carries the data, log p(x) = sum_i log p(s_i).
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

#: variances of s_1, s_2, s_3 in Section 5.1, in the ratio 1 : 4 : 16
PAPER_VARIANCES = (1 / 6, 2 / 3, 8 / 3)


@dataclass(frozen=True)
class Shape(abc.ABC):
    """A one-dimensional density with mean 0.

    Attributes:
        variance: of the density.
    """

    variance: float
    name: ClassVar[str]

    @abc.abstractmethod
    def log_density(self, s: Array) -> Array:
        """Log p(s), minus infinity outside the support."""

    @abc.abstractmethod
    def cdf(self, s: Array) -> Array:
        """P(S <= s)."""

    @abc.abstractmethod
    def quantile(self, u: Array) -> Array:
        """The inverse of :meth:`cdf`, for u in (0, 1)."""


class OnInterval(Shape):
    """A density on an interval whose width is as the deviation.

    Attributes:
        ratio: w^2 over the variance.
    """

    ratio: ClassVar[float]

    @property
    def width(self) -> float:
        """The w of the density."""
        return math.sqrt(self.ratio * self.variance)


class Triangle(OnInterval):
    """Symmetric triangle on [-w, w], w^2 = 6 variance: p(s) = (w - |s|) / w^2."""

    name = "triangle"
    ratio = 6

    def log_density(self, s: Array) -> Array:
        """Log p(s), minus infinity outside the support."""
        w = self.width
        return _log(np.clip(w - np.abs(s), 0, None) / w**2)

    def cdf(self, s: Array) -> Array:
        """P(S <= s)."""
        t = np.clip(s / self.width, -1, 1)
        return np.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)

    def quantile(self, u: Array) -> Array:
        """The inverse of :meth:`cdf`."""
        lower, upper = np.sqrt(2 * np.minimum(u, 0.5)), np.sqrt(2 * np.minimum(1 - u, 0.5))
        return np.asarray(self.width * np.where(u < 0.5, lower - 1, 1 - upper))


class Uniform(OnInterval):
    """Constant on [-w, w], w^2 = 3 variance."""

    name = "uniform"
    ratio = 3

    def log_density(self, s: Array) -> Array:
        """Log p(s), minus infinity outside the support."""
        w = self.width
        return np.where(np.abs(s) <= w, -math.log(2 * w), -np.inf)

    def cdf(self, s: Array) -> Array:
        """P(S <= s)."""
        return np.clip(s / self.width, -1, 1) / 2 + 0.5

    def quantile(self, u: Array) -> Array:
        """The inverse of :meth:`cdf`."""
        return self.width * (2 * u - 1)


class Ramp(OnInterval):
    """Rising from 0 on [-2w/3, w/3], w^2 = 18 variance: p(s) = 2 (s + 2w/3) / w^2."""

    name = "ramp"
    ratio = 18

    def log_density(self, s: Array) -> Array:
        """Log p(s), minus infinity outside the support."""
        w = self.width
        t = s + 2 * w / 3
        return _log(np.where((t >= 0) & (t <= w), 2 * t / w**2, 0))

    def cdf(self, s: Array) -> Array:
        """P(S <= s)."""
        return np.square(np.clip(s / self.width + 2 / 3, 0, 1))

    def quantile(self, u: Array) -> Array:
        """The inverse of :meth:`cdf`."""
        return self.width * (np.sqrt(u) - 2 / 3)


class Normal(Shape):
    """Gaussian."""

    name = "normal"

    @property
    def _distribution(self) -> NormalDist:
        return NormalDist(0, math.sqrt(self.variance))

    def log_density(self, s: Array) -> Array:
        """Log p(s)."""
        return -np.square(s) / (2 * self.variance) - math.log(2 * math.pi * self.variance) / 2

    def cdf(self, s: Array) -> Array:
        """P(S <= s)."""
        return np.asarray(np.vectorize(self._distribution.cdf, otypes=[float])(s))

    def quantile(self, u: Array) -> Array:
        """The inverse of :meth:`cdf`."""
        return np.asarray(np.vectorize(self._distribution.inv_cdf, otypes=[float])(u))


#: shapes of s_1, s_2, ... of each set; repeated in turn where more variances are given
SHAPES: dict[str, tuple[type[Shape], ...]] = {
    "mix": (Triangle, Uniform, Ramp),
    "ramp": (Ramp, Ramp, Ramp),
    "norm": (Normal, Normal, Normal),
}


@dataclass(frozen=True)
class ToyRecipe:
    """What determines a toy data set, bit for bit.

    Attributes:
        kind: ``mix``, ``ramp`` or ``norm``.
        seed: of the directions v_i and of the samples.
        samples: number of rows.
        dim: number of inputs m.
        variances: of s_1, s_2, ...
        draw: 0 for the training data; any other number draws fresh rows along the same v_i.
    """

    kind: str = "mix"
    seed: int = 0
    samples: int = 50_000
    dim: int = 16
    variances: tuple[float, ...] = PAPER_VARIANCES
    draw: int = 0

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Density of each s_i."""
        cycle = SHAPES[self.kind]
        return tuple(cycle[i % len(cycle)](v) for i, v in enumerate(self.variances))

    def spec(self) -> str:
        """The data spec, naming only what differs from the paper, but always the seed."""
        default = ToyRecipe()
        options = [f"seed={self.seed}"]
        for name in ("samples", "dim", "draw"):
            if getattr(self, name) != getattr(default, name):
                options.append(f"{name}={getattr(self, name)}")
        if self.variances != default.variances:
            options.append("variances=" + "+".join(repr(v) for v in self.variances))
        return f"toy/{self.kind}:{','.join(options)}"


@dataclass(frozen=True)
class ToyData:
    """Generated toy data.

    Attributes:
        recipe: what it was made from.
        sources: s, ``(N, k)`` float64.
        directions: orthonormal rows v_i, ``(k, m)`` float64.
    """

    recipe: ToyRecipe
    sources: Array
    directions: Array

    @cached_property
    def x(self) -> NDArray[np.float32]:
        """Inputs, ``(N, m)`` float32."""
        return (self.sources @ self.directions).astype(np.float32)

    def recover_sources(self, x: Array) -> Array:
        """Sources s of any points in the plane of the data: ``(B, m) -> (B, k)``."""
        return np.asarray(x, dtype=np.float64) @ self.directions.T

    def log_density(self, sources: Array | None = None) -> Array:
        """Exact log p of rows given by s, ``(B, k) -> (B,)``; of every row by default."""
        return log_density(self.recipe.shapes, self.sources if sources is None else sources)


def log_density(shapes: Sequence[Shape], sources: Array) -> Array:
    """Sum of the one-dimensional log densities, ``(B, k) -> (B,)``."""
    columns = [shape.log_density(sources[:, i]) for i, shape in enumerate(shapes)]
    return np.asarray(np.sum(columns, axis=0))


def generate(recipe: ToyRecipe) -> ToyData:
    """Draw the data of a recipe; the same recipe gives the same bits."""
    k = len(recipe.variances)
    directions = _orthonormal(np.random.default_rng([recipe.seed, 0]), k, recipe.dim)
    uniform = np.random.default_rng([recipe.seed, 1, recipe.draw]).random((recipe.samples, k))
    # random() may return 0, where the Gaussian quantile is infinite
    uniform = np.clip(uniform, 2.0**-54, None)
    columns = [shape.quantile(uniform[:, i]) for i, shape in enumerate(recipe.shapes)]
    return ToyData(recipe, np.stack(columns, axis=1), directions)


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    q, r = np.linalg.qr(rng.standard_normal((columns, rows)))
    return (q * np.sign(np.diag(r))).T


def _log(density: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(density)
