"""Log densities of each sample, in the metric's space and in input space (Prop. 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.analyses.variables import sample, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup

#: beyond this many latents the determinants of the volume correction are left out
GRAM_LIMIT = 256


class Density(Analysis):
    """log p(x) by two estimators, relative to the metric's volume and to the input's.

    ``metric`` densities are p(y) of the isometric coordinates: from L_x (Eq. 57) and from the
    prior times sigmas (Eq. 52 with its exponent put right). ``input`` densities add the volume
    correction: Eq. 21 for G = a_x I, Eq. 20 for m = n, and beyond the paper
    (1/2) log det(J'GJ) - (1/2) log det(J'J) over active dimensions, which reduces to both.

    Args:
        volume: ``auto`` takes Eq. 21 or 20 where they apply and the general correction elsewhere;
            ``general`` always takes the general one; ``none`` leaves input densities out.
    """

    name = "density"
    summary = "log density of each sample, metric and input space (Eq. 19-21 and beyond)"
    needs = frozenset({"mean", "std", "distortion", "distortion_self", "distortion_signs", "kl"})

    def __init__(self, volume: str = "auto") -> None:
        super().__init__()
        if volume not in {"auto", "general", "none"}:
            raise OptionError(f"density's volume is auto, general or none; found {volume!r}.")
        self.volume = volume

    def start(self, setup: Setup) -> None:
        """Choose the volume correction; ask for determinants where it needs them."""
        from isoprobe.statistics.moments import Moments

        super().start(setup)
        self.self_distortion = Moments()
        self.accumulators = {"self": self.self_distortion}
        self.route = self._route(setup)
        if self.route == "general":
            self.needs = self.needs | {"gram", "euclidean_gram"}

    def _route(self, setup: Setup) -> str:
        metric, vae = setup.metric, setup.vae
        if self.volume == "none" or not metric.smooth:
            return "none"
        if self.volume == "auto" and metric.scale is not None:
            return "scale"
        if self.volume == "auto" and metric.diagonal is not None and self._full(setup):
            return "determinant"
        fits = vae.latent_size <= GRAM_LIMIT and setup.pullback == "exact"
        return "general" if fits else "none"

    @staticmethod
    def _full(setup: Setup) -> bool:
        return int(setup.active.sum()) == setup.vae.input_size

    def update(self, batch: Batch) -> Mapping[str, Variable]:
        """Store the volume correction and the random-sign distortion of each sample."""
        import numpy as np

        self.self_distortion.update(batch.array("distortion_self"))
        draws = batch.array("distortion_signs")
        columns = {
            "distortion_signs": sample(
                draws.mean(axis=1), "E_z D by random corners mu +- sigma", units="metric"
            ),
            "distortion_signs_se": sample(
                draws.std(axis=1, ddof=1) / np.sqrt(draws.shape[1])
                if draws.shape[1] > 1
                else np.full(len(draws), np.inf),
                "standard error of distortion_signs",
                units="metric",
            ),
        }
        volume = self._log_volume(batch)
        if volume is not None:
            columns["log_volume"] = sample(
                volume,
                f"log of metric volume over input volume ({self.route})",
                units="nat",
                equation="20-21",
            )
        return columns

    def _log_volume(self, batch: Batch) -> np.ndarray | None:
        import torch

        from isoprobe.theory.formulas import active_subset

        metric, active = self.setup.metric, torch.as_tensor(self.setup.active)
        if self.route == "scale" and metric.scale is not None:
            a_x = metric.scale(batch.x).double()
            volume = 0.5 * float(active.sum()) * a_x.log()
        elif self.route == "determinant" and metric.diagonal is not None:
            volume = 0.5 * metric.diagonal(batch.x).double().log().flatten(1).sum(1)
        elif self.route == "general":
            active = active.to(batch.x.device)
            gram = active_subset(batch["gram"].double(), active)
            euclidean = active_subset(batch["euclidean_gram"].double(), active)
            volume = 0.5 * (gram.logdet() - euclidean.logdet())
        else:
            return None
        array: np.ndarray = volume.cpu().numpy()
        return array

    def finish_samples(
        self, chunk: Mapping[str, np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Log densities of stored samples, once beta is known."""
        import numpy as np

        beta, active = context.beta.value, context.setup.active
        n = int(active.sum())
        mean, std = chunk["mean"][:, active].astype(float), chunk["std"][:, active].astype(float)
        # D(x, x) is no distance: the expansion behind Eq. 19 is about what D adds to it.
        excess = chunk["distortion"].astype(float) - chunk["distortion_self"].astype(float)
        rate = chunk["kl"].astype(float)
        by_objective = -excess / beta - rate - n / 2 * math.log(math.pi * beta)
        log_prior = -0.5 * (mean**2).sum(axis=1) - n / 2 * math.log(2 * math.pi)
        by_sigmas = log_prior + np.log(std).sum(axis=1) - n / 2 * math.log(beta / 2)
        columns = {
            "log_density_prior": sample(log_prior, "log p(mu), the prior alone", units="nat"),
            "log_density_metric": sample(
                by_objective, "log p(y) from -L_x / beta", units="nat", equation="57"
            ),
            "log_density_metric_sigmas": sample(
                by_sigmas, "log p(y) from the prior times sigmas", units="nat", equation="19, 52"
            ),
            "log_density_metric_se": sample(
                chunk["distortion_signs_se"].astype(float) / beta,
                "standard error of -E D / beta over random corners",
                units="nat",
            ),
        }
        if "log_volume" in chunk:
            volume = chunk["log_volume"].astype(float)
            columns["log_density_input"] = sample(
                by_objective + volume, "log p(x) from -L_x / beta", units="nat", equation="20-21"
            )
            columns["log_density_input_sigmas"] = sample(
                by_sigmas + volume,
                "log p(x) from the prior times sigmas",
                units="nat",
                equation="20-21",
            )
        normaliser = self._normaliser(beta)
        if normaliser is not None:
            total = chunk["distortion"].astype(float) / beta + rate
            columns["log_density_absolute"] = sample(
                -total - normaliser,
                "absolute log p(x), an evidence lower bound",
                units="nat",
                equation="theory 4",
            )
        return columns

    def _normaliser(self, beta: float) -> float | None:
        """Return the log normaliser of the decoder's density; None where there is no density.

        D(x, x) must be one constant: with grey inputs BCE's varies, and nothing is normalised.
        """
        spread, level = float(self.self_distortion.sd), float(self.self_distortion.mean)
        if spread > 1e-5 * max(abs(level), 1.0):
            return None
        return self.setup.metric.log_normaliser(beta, self.setup.vae.input_size)

    def result(self, context: Context) -> Mapping[str, Variable]:
        """What the densities are relative to."""
        normaliser = self._normaliser(context.beta.value)
        reference = {
            "none": "metric space only",
            "scale": "input space by (n/2) log a_x (Eq. 21)",
            "determinant": "input space by (1/2) log det G (Eq. 20)",
            "general": "input space by (1/2) log det(J'GJ) / det(J'J) over active dimensions",
        }[self.route]
        absolute = (
            "absolute values exist"
            if normaliser is not None
            else "relative only: exp(-D/beta) is not a normalised density here"
        )
        return {
            "active_dimensions": scalar(
                int(context.setup.active.sum()), "n, active dimensions only"
            ),
            "volume": scalar(reference, "volume the input density refers to"),
            "absolute": scalar(absolute, "whether absolute values exist"),
        }

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """How far the two estimators agree, and how certain each is."""
        import numpy as np

        one, two = columns("log_density_metric"), columns("log_density_metric_sigmas")
        both = np.isfinite(one) & np.isfinite(two)
        one, two = one[both], two[both]
        varied = len(one) > 1 and one.std() > 0 and two.std() > 0
        correlation = np.corrcoef(one, two)[0, 1] if varied else np.nan
        summaries = {
            "mean_log_density_metric": (one.mean() if len(one) else np.nan, "mean log p(y)"),
            "estimator_correlation": (correlation, "correlation of the two log densities"),
            "estimator_difference_mean": (
                (one - two).mean() if len(one) else np.nan,
                "mean of log p(y) by L_x minus by sigmas",
            ),
            "estimator_difference_sd": (
                (one - two).std() if len(one) else np.nan,
                "standard deviation of that difference",
            ),
        }
        return {
            name: scalar(
                value,
                text,
                units="nat" if "corr" not in name else "1",
                show="tile" if "corr" in name else "none",
                label="agreement of densities" if "corr" in name else "",
            )
            for name, (value, text) in summaries.items()
        }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Density."""
    return [Density]
