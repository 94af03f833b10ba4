"""Beta from the checkpoint's own behaviour, and the overview every run ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.contracts import Analysis, Beta, Variable
from isoprobe.statistics.moments import BlockSums, Estimate, Moments, ratio

if TYPE_CHECKING:
    from isoprobe.contracts import Batch, Context, Setup


class BetaSums(BlockSums):
    """Block sums of what beta is a ratio of, for each latent.

    Column 0: 1 - sigma^2; 1: E[sigma eps dD/dz]; 2: 2 sigma^2 g_jj (zero without a pullback).

    Args:
        latents: number of dimensions n.
    """

    def __init__(self, latents: int) -> None:
        super().__init__((latents, 3))

    def take(self, batch: Batch) -> None:
        """Take in a batch that has ``std``, ``stationarity`` and perhaps ``pullback``."""
        variance = batch.array("std") ** 2
        pullback = np.zeros_like(variance)
        if "pullback" in batch.quantities:
            pullback = 2 * variance * batch.array("pullback")
        self.update(
            batch.index, np.stack([1 - variance, batch.array("stationarity"), pullback], axis=2)
        )

    def by_latent(self, column: int) -> Estimate:
        """Beta recovered from each latent alone, ``(n,)``; column 1 or 2."""
        return ratio(self.sums[:, :, column], self.sums[:, :, 0])

    def pooled(self, column: int, active: np.ndarray) -> Estimate | None:
        """Beta recovered from all active latents, a ratio of sums; None when none is active."""
        if not active.any():
            return None
        numerator = self.sums[:, active, column].sum(axis=1)
        if not numerator.any():
            return None
        return ratio(numerator, self.sums[:, active, 0].sum(axis=1))


def _interval(estimate: Estimate | None) -> tuple[float, float] | None:
    return None if estimate is None else (float(estimate.low), float(estimate.high))


class Overview(Analysis):
    """What every run records: rates, distortions, and beta by stationarity and by pullback.

    Beta by stationarity is E[sigma_j eps_j dD/dz_j] / E[1 - sigma_j^2] with no expansion, beyond
    the paper; by pullback 2 E[sigma_j^2 g_jj] / E[1 - sigma_j^2], from Lemma 1.
    """

    name = "overview"
    summary = "rate, distortion and beta"
    needs = frozenset(
        {
            "mean",
            "std",
            "kl",
            "stationarity",
            "distortion",
            "distortion_self",
            "distortion_transform",
            "distortion_coding",
        }
    )

    def start(self, setup: Setup) -> None:
        """Prepare accumulators."""
        super().start(setup)
        n = setup.vae.latent_size
        self.beta_sums = BetaSums(n)
        self.latents = {name: Moments((n,)) for name in ("mean", "kl", "variance", "inverse")}
        self.scalars = {name: Moments() for name in _SCALARS}
        self.accumulators = {"beta": self.beta_sums, **self.latents, **self.scalars}

    def update(self, batch: Batch) -> Mapping[str, Variable]:
        """Take in a batch; store posterior and distortion parts of each sample."""
        self.beta_sums.take(batch)
        mean, std, kl = batch.array("mean"), batch.array("std"), batch.array("kl")
        values = {"mean": mean, "kl": kl, "variance": std**2, "inverse": std**-2}
        for name, accumulator in self.latents.items():
            accumulator.update(values[name])
        columns = {
            "mean": Variable(("sample", "latent"), mean, "posterior mean mu"),
            "std": Variable(("sample", "latent"), std, "posterior standard deviation sigma"),
            "kl": Variable(
                ("sample",),
                kl.sum(axis=1),
                "rate, KL summed over latents",
                units="nat",
                equation="2",
            ),
        }
        for name, (long_name, equation) in _SCALARS.items():
            value = kl.sum(axis=1) if name == "rate" else batch.array(name)
            self.scalars[name].update(value)
            if name != "rate":
                columns[name] = Variable(
                    ("sample",), value, long_name, units="metric", equation=equation
                )
        if batch.labels is not None and batch.labels.dtype.kind in "fiub":
            columns["label"] = Variable(("sample",), batch.labels, "label given with the data")
        dtype = np.float64 if batch.x.element_size() == 8 else np.float32
        return {
            name: replace(variable, values=_stored(variable.values, dtype))
            for name, variable in columns.items()
        }

    def resolve_beta(
        self, given: float | None, declared: float | None, *, comparable: bool = True
    ) -> Beta:
        """Choose the beta in force and compare it with what the model shows.

        Args:
            given: by the user, in units of the metric.
            declared: by the checkpoint.
            comparable: the declared beta is in units of the metric in use.

        Returns:
            The choice: the user's, else the declared one, else the recovered one.
        """
        active = self.setup.active
        stationary = self.beta_sums.pooled(1, active)
        pullback = self.beta_sums.pooled(2, active)
        recovered = None if stationary is None else float(stationary.value)
        if given is not None:
            value, source = given, "user"
        elif declared is not None and comparable:
            value, source = declared, "declared"
        elif recovered is not None and recovered > 0:
            value, source = recovered, "recovered"
        else:
            value, source = float("nan"), "unknown"
        return Beta(
            value=value,
            source=source,
            declared=declared,
            recovered=recovered,
            ci95=_interval(stationary),
            recovered_pullback=None if pullback is None else float(pullback.value),
            ci95_pullback=_interval(pullback),
        )

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Means over samples of rates, variances and distortions."""
        latent = ("latent",)
        variables = {
            "active": Variable(
                latent,
                self.setup.active,
                "mean KL above the threshold over a pilot",
                equation="Prop. 3",
                show="none",
            ),
        }
        for name, (key, long_name, units, equation) in _LATENT_MEANS.items():
            moments = self.latents[key]
            texts = {
                "mean": f"mean of {long_name}",
                "sd": f"standard deviation over samples of {long_name}",
                "se": f"standard error of the mean of {long_name}",
            }
            for suffix, text in texts.items():
                shown = _SHOWN.get(f"{name}_{suffix}", {"show": "none"})
                variables[f"{name}_{suffix}"] = Variable(
                    latent,
                    getattr(moments, suffix),
                    text,
                    units=units,
                    equation=equation if suffix == "mean" else "",
                    **shown,
                )
        for name, (long_name, equation) in _SCALARS.items():
            units = "nat" if name == "rate" else "metric"
            moments = self.scalars[name]
            for suffix, value in (("mean", moments.mean), ("sd", moments.sd), ("se", moments.se)):
                shown = _SHOWN.get(f"{name}_{suffix}", {"show": "none"})
                variables[f"{name}_{suffix}"] = Variable(
                    (),
                    np.asarray(value),
                    f"{suffix} of {long_name}",
                    units=units,
                    equation=equation,
                    **shown,
                )
        return variables


#: of all the statistics here, those that are shown, and how
_SHOWN = {
    "kl_mean": {"show": "column", "label": "KL"},
    "variance_mean": {"show": "column", "label": "E[sigma^2]"},
    "inverse_variance_mean": {"show": "column", "label": "E[sigma^-2]"},
    "distortion_mean": {"show": "tile", "label": "distortion"},
}
_SCALARS = {
    "rate": ("KL summed over latents", "2"),
    "distortion": ("E_z D(x, x_hat) by the points mu + sigma and mu - sigma", "A.6"),
    "distortion_self": ("D(x, x)", "100"),
    "distortion_transform": ("transform loss D(x, x_check)", "9"),
    "distortion_coding": ("coding loss D(x_check, x_hat) - D(x_check, x_check)", "9"),
}
_LATENT_MEANS = {
    "posterior_mean": ("mean", "mu", "1", ""),
    "kl": ("kl", "KL_j", "nat", "2"),
    "variance": ("variance", "sigma^2", "1", ""),
    "inverse_variance": ("inverse", "sigma^-2", "1", "22"),
}


def _stored(values: np.ndarray, dtype: type) -> np.ndarray:
    return values.astype(dtype) if values.dtype.kind == "f" else values
