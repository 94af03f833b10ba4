"""Own the means that other analyses read: the overview that every run begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from isoprobe.contracts import Analysis, Beta, Variable
from isoprobe.probe.beta import RESPONSE, STATIONARY, weighed
from isoprobe.probe.shared import PassStatistics
from isoprobe.theory.formulas import excess, expected_distortion, kl_divergence, rate, second_moment
from isoprobe.theory.judge import used_latents
from isoprobe.theory.prior import prior_moment, prior_terms
from isoprobe.theory.stated import Source, cite

if TYPE_CHECKING:
    from isoprobe.contracts import Batch, Context, Setup
    from isoprobe.statistics.moments import Estimate, Moments


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
            "gradient",
            "distortion",
            "distortion_self",
            "distortion_transform",
            "distortion_coding",
        }
    )

    def start(self, setup: Setup) -> None:
        """Prepare accumulators."""
        super().start(setup)
        self.statistics = PassStatistics.empty(setup.vae.latent_size)
        self.accumulators = self.statistics.accumulators()

    def update(self, batch: Batch) -> Mapping[str, Variable]:
        """Take in a batch; store posterior and distortion parts of each sample."""
        self.statistics.update(batch)
        latents = ("sample", "latent")
        columns = {
            "mean": Variable(latents, batch.array("mean"), "posterior mean mu", theory="Setting"),
            "std": Variable(
                latents,
                batch.array("std"),
                "posterior standard deviation sigma",
                theory="Setting",
            ),
        }
        numbers = {"kl": rate(batch.array("kl"))}
        numbers |= {name: batch.array(name) for name in _LOSSES if name != "rate"}
        for name, values in numbers.items():
            loss = _LOSSES["rate" if name == "kl" else name]
            columns[name] = Variable(
                ("sample",), values, loss.long_name, units=loss.units, **loss.source
            )
        if batch.labels is not None and batch.labels.dtype.kind in "fiub":
            columns["label"] = Variable(
                ("sample", "factor")[: batch.labels.ndim],
                batch.labels,
                "label given with the data",
                theory="Anomaly score",
            )
        if batch.condition is not None:
            columns["told"] = Variable(
                ("sample", "column"), batch.condition, "what the model is told", theory="Setting"
            )
        dtype = np.float64 if batch.x.element_size() == 8 else np.float32
        return {
            name: replace(variable, values=_stored(variable.values, dtype))
            for name, variable in columns.items()
        }

    def update_encoded(self, batch: Batch) -> None:
        """Take in what the encoder says of more rows."""
        self.statistics.update_encoded(batch)

    def resolve_beta(
        self,
        given: float | None,
        declared: float | None,
        *,
        comparable: bool,
        recover: bool,
    ) -> Beta:
        """Choose the beta in force and compare it with what the model shows.

        Args:
            given: by the user, in units of the metric.
            declared: by the checkpoint.
            comparable: the declared beta is in units of the metric in use.
            recover: take the recovered beta although one is declared.

        Returns:
            The choice: the user's, else the declared one, else the recovered one.
        """
        sums = self.statistics.beta
        active = weighed(self.setup.active, self.setup.vae.facts, self.statistics.kl.mean)
        stationary, pullback = sums.pooled(STATIONARY, active), sums.pooled(RESPONSE, active)
        recovered = None if stationary is None else float(stationary.value)
        if given is not None:
            value, source = given, "user"
        elif declared is not None and comparable and not recover:
            value, source = declared, "declared"
        elif recovered is not None and recovered > 0:
            value, source = recovered, "recovered"
        else:
            value, source = float("nan"), "unknown"
        return Beta(
            value=value,
            source=source,
            declared=declared,
            comparable=comparable,
            recovered=recovered,
            ci95=_interval(stationary),
            recovered_pullback=None if pullback is None else float(pullback.value),
            ci95_pullback=_interval(pullback),
        )

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Means over samples of rates, variances and distortions."""
        variables = {
            "active": Variable(
                ("latent",),
                self.setup.active,
                "the latent does something: its mean varies, or the decoder answers to it",
                show="none",
                **cite(used_latents),
            ),
        }
        latents = _LATENTS if self.setup.vae.prior is None else _LATENTS | _OWN_PRIOR
        for name, quantity in latents.items():
            moments: Moments = getattr(self.statistics, quantity.of)
            variables |= _described(name, ("latent",), moments, quantity)
        for name, quantity in _LOSSES.items():
            variables |= _described(name, (), getattr(self.statistics, name), quantity)
        return variables


@dataclass(frozen=True)
class _Quantity:
    """A quantity whose mean, deviation and standard error are recorded.

    Attributes:
        long_name: what it is.
        source: where its values come from.
        units: of all three.
        of: the statistic's name.
    """

    long_name: str
    source: Source
    units: str = "1"
    of: str = ""


def _described(
    name: str, dims: tuple[str, ...], moments: Moments, quantity: _Quantity
) -> dict[str, Variable]:
    """Mean, deviation over samples, and standard error of the mean."""
    texts = {
        "mean": f"mean of {quantity.long_name}",
        "sd": f"standard deviation over samples of {quantity.long_name}",
        "se": f"standard error of the mean of {quantity.long_name}",
    }
    return {
        f"{name}_{suffix}": Variable(
            dims,
            np.asarray(getattr(moments, suffix)),
            text,
            units=quantity.units,
            **quantity.source,
            **_SHOWN.get(f"{name}_{suffix}", _HIDDEN),
        )
        for suffix, text in texts.items()
    }


class _Display(TypedDict, total=False):
    show: str
    label: str


_HIDDEN: _Display = {"show": "none"}
#: of all the statistics here, those that are shown, and how
_SHOWN: dict[str, _Display] = {
    "kl_mean": {"show": "column", "label": "KL"},
    "variance_mean": {"show": "column", "label": "E[sigma^2]"},
    "inverse_variance_mean": {"show": "column", "label": "E[sigma^-2]"},
    "distortion_mean": {"show": "tile", "label": "distortion"},
    "distortion_coding_mean": {"show": "tile", "label": "coding loss"},
}
_GIVEN: Source = {"equation": "", "formula": "", "theory": "Setting"}
_LOSSES = {
    "rate": _Quantity("KL summed over latents", cite(rate), "nat"),
    "distortion": _Quantity(
        "D(x, x_hat) over posterior draws", cite(expected_distortion), "metric"
    ),
    "distortion_self": _Quantity("D(x, x)", {**_GIVEN, "theory": "The metric tensor"}, "metric"),
    "distortion_transform": _Quantity("transform loss D(x, x_check)", _GIVEN, "metric"),
    "distortion_coding": _Quantity(
        "coding loss D(x_check, x_hat) - D(x_check, x_check)", cite(excess), "metric"
    ),
}
_LATENTS = {
    "posterior_mean": _Quantity("mu", _GIVEN, of="mean"),
    "kl": _Quantity("KL_j", cite(kl_divergence), "nat", of="kl"),
    "variance": _Quantity("sigma^2", _GIVEN, of="variance"),
    "inverse_variance": _Quantity("sigma^-2", _GIVEN, of="inverse_variance"),
    "second_moment": _Quantity(
        "mu^2 + sigma^2, 1 at an optimum", cite(second_moment), of="second_moment"
    ),
}

#: the same where the prior is not N(0, I), and what is asked beside it
_OWN_PRIOR = {
    "kl": _Quantity("KL_j given the latents before j", cite(prior_terms), "nat", of="kl"),
    "second_moment": _Quantity("z_j s_j, 1 at an optimum", cite(prior_moment), of="second_moment"),
    "prior_slope": _Quantity("s_j = d(-log p(z))/dz_j", cite(prior_terms), of="slope"),
}


def _stored(values: np.ndarray, dtype: type) -> np.ndarray:
    return values.astype(dtype) if values.dtype.kind == "f" else values


def _interval(estimate: Estimate | None) -> tuple[float, float] | None:
    return None if estimate is None else (float(estimate.low), float(estimate.high))
