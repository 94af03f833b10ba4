"""Measure what the paper measures of a toy model, through ``isoprobe.analyze`` alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from isoprobe_trainers.common.analysed import analysed
from isoprobe_trainers.toy.data import generate
from isoprobe_trainers.toy.source import parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from isoprobe_trainers.toy.members import Member

    Array = NDArray[np.float64]

_ANALYSES = ("isometry", "importance", "density")
_COLUMNS = (
    "log_density_prior",
    "log_density_metric",
    "log_density_metric_sigmas",
    "log_density_input",
    "log_density_input_sigmas",
)


@dataclass(frozen=True)
class Densities:
    """Exact log density and the paper's four estimates of it, each up to a constant, ``(N,)``.

    Attributes:
        exact: log p(x).
        prior: log p(mu).
        posterior: log p(mu) prod sigma (Eq. 19).
        objective: -L_x / beta (Eq. 19), E_z D by the points mu + sigma and mu - sigma (A.6).
        scaled_posterior: log a_x^(n/2) p(mu) prod sigma (Eq. 21).
        scaled_objective: (n/2) log a_x - L_x / beta (Eq. 21).
    """

    exact: Array
    prior: Array
    posterior: Array
    objective: Array
    scaled_posterior: Array
    scaled_objective: Array

    def correlation(self, name: str) -> float:
        """R between the density and an estimate, both as densities rather than logarithms."""
        estimate: Array = getattr(self, name)
        shifted = np.exp(estimate - estimate.max())
        return float(np.corrcoef(np.exp(self.exact), shifted)[0, 1])


def _correlation(estimate: str, doc: str) -> property:
    """A property: the correlation R of an estimated density with the exact one."""

    def found(self: Measurement) -> float:
        return self.densities.correlation(estimate)

    return property(found, doc=doc)


@dataclass(frozen=True)
class Measurement:
    """A model's row in the tables; latents in the paper's order.

    That is one latent for each source by rising variance, then those to spare, which collapse.

    Attributes:
        member: what was trained.
        active: which latents carry information.
        norm_mean: (2/beta) sigma^2 D' (Eq. 23), ``(n,)``.
        norm_sd: its standard deviation over samples.
        residual: norm + sigma^2 - 1, zero at an optimum.
        pullback_mean: D'_j.
        pullback_sd: its standard deviation over samples.
        inverse_variance: E[sigma^-2].
        rough: (beta/2) E[sigma^-2] (Eq. 22).
        exact: Var(y_j).
        beta_recovered: by stationarity.
        transform_loss: E D(x, x_check).
        coding_loss: E D(x_check, x_hat).
        densities: exact and estimated.
    """

    member: Member
    active: NDArray[np.bool_]
    norm_mean: Array
    norm_sd: Array
    residual: Array
    pullback_mean: Array
    pullback_sd: Array
    inverse_variance: Array
    rough: Array
    exact: Array
    beta_recovered: float
    transform_loss: float
    coding_loss: float
    densities: Densities

    @property
    def inverse_variance_ratio(self) -> Array:
        """E[sigma^-2] relative to z_1."""
        ratio: Array = self.inverse_variance / self.inverse_variance[0]
        return ratio

    @property
    def loss_ratio(self) -> float:
        """Transform loss over coding loss (Lemma 3)."""
        return self.transform_loss / self.coding_loss

    r_prior = _correlation("prior", "R of p(mu).")
    r_posterior = _correlation("posterior", "R of p(mu) prod sigma.")
    r_objective = _correlation("objective", "R of exp(-L_x / beta).")
    r_scaled_posterior = _correlation("scaled_posterior", "R of a_x^(n/2) p(mu) prod sigma.")
    r_scaled_objective = _correlation("scaled_objective", "R of a_x^(n/2) exp(-L_x / beta).")

    def values(self, quantity: str) -> list[float]:
        """A quantity by latent, or the single number it is."""
        return [float(v) for v in np.atleast_1d(getattr(self, quantity))]


def measure(checkpoint: Path, member: Member, result_path: Path, samples: int) -> Measurement:
    """Analyse a checkpoint, or read the result of an earlier analysis.

    Args:
        checkpoint: native checkpoint of the member.
        member: what it is.
        result_path: result file to write, or to read where it exists and is of this checkpoint.
        samples: rows of the member's own data set to analyse, from its beginning.

    Returns:
        The measurement.
    """
    recipe = parse(member.data)
    spec = replace(recipe, samples=min(samples, recipe.samples)).spec()
    with analysed(checkpoint, result_path, _ANALYSES, data=spec) as result:
        isometry, importance = result["isometry"], result["importance"]
        overview = result["overview"]
        active = overview["active"].values.astype(bool)
        inverse = overview["inverse_variance_mean"].values
        order = _papers_order(inverse, len(recipe.variances))
        norm, pullback = isometry["norm_mean"].values, isometry["pullback_mean"].values
        return Measurement(
            member=member,
            active=active[order],
            norm_mean=norm[order],
            norm_sd=isometry["norm_sd"].values[order],
            residual=isometry["residual_mean"].values[order],
            pullback_mean=pullback[order],
            pullback_sd=isometry["pullback_sd"].values[order],
            inverse_variance=inverse[order],
            rough=importance["rough"].values[order],
            exact=importance["exact"].values[order],
            beta_recovered=float(result.attrs["beta_recovered"]),
            transform_loss=float(overview["distortion_transform_mean"].values),
            coding_loss=float(overview["distortion_coding_mean"].values),
            densities=_densities(spec, result.samples(names=_COLUMNS)),
        )


def _papers_order(inverse_variance: Array, sources: int) -> NDArray[np.intp]:
    """Return one latent for each source by rising variance, then those to spare."""
    rising = np.argsort(inverse_variance)
    spare = max(len(rising) - sources, 0)
    return np.concatenate([rising[spare:], rising[:spare]])


def _densities(spec: str, columns: Mapping[str, Array]) -> Densities:
    return Densities(
        exact=generate(parse(spec)).log_density(),
        prior=columns["log_density_prior"],
        posterior=columns["log_density_metric_sigmas"],
        objective=columns["log_density_metric"],
        scaled_posterior=columns["log_density_input_sigmas"],
        scaled_objective=columns["log_density_input"],
    )
