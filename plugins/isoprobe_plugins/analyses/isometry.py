"""Isometry: norms by pullback and by stationarity, residuals, orthogonality, recovered beta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup

_BOUNDS = {"": "", "_low": ", 95 % lower bound", "_high": ", 95 % upper bound"}
#: beyond this many latents the n x n cosines of every sample are left out
GRAM_LIMIT = 256


class Isometry(Analysis):
    """Section 4.3.3 of the paper, and the exact finite-rate identity norm + sigma^2 = 1.

    For a metric without a tensor the pullback half is left out and stationarity stands alone.
    """

    name = "isometry"
    summary = "norms, residuals, orthogonality, recovered beta (Eq. 14, 23 and beyond)"
    needs = frozenset({"std", "stationarity"})

    def start(self, setup: Setup) -> None:
        """Prepare accumulators; ask for the Gram matrix where n allows it."""
        from isoprobe.calibration import BetaSums
        from isoprobe.statistics import Moments

        super().start(setup)
        n = setup.vae.latent_size
        self.beta_sums = BetaSums(n)
        self.moments = {
            name: Moments((n,))
            for name in (
                "pullback",
                "inverse_variance",
                "scaled",
                "variance",
                "stationarity",
                "spread",
            )
        }
        self.cosine = Moments((n, n) if n <= GRAM_LIMIT else ())
        self.gap = Moments()
        self.accumulators = {
            "beta": self.beta_sums,
            "cosine": self.cosine,
            "gap": self.gap,
            **self.moments,
        }
        if setup.metric.smooth:
            self.needs = self.needs | {"pullback"} | self._beyond_the_diagonal(setup.pullback, n)

    @staticmethod
    def _beyond_the_diagonal(method: str, n: int) -> set[str]:
        if method == "probe":
            return {"pullback_spread"}
        return {"gram"} if method == "exact" and n <= GRAM_LIMIT else set()

    def update(self, batch: Batch) -> Mapping[str, Variable] | None:
        """Take in a batch; store 2 sigma^2 g_jj, the norm times beta, of each sample."""
        import numpy as np

        self.beta_sums.take(batch)
        variance = batch.array("std") ** 2
        self.moments["variance"].update(variance)
        self.moments["inverse_variance"].update(1 / variance)
        self.moments["stationarity"].update(batch.array("stationarity"))
        if "pullback" not in batch.quantities:
            return None
        pullback = batch.array("pullback")
        scaled = 2 * variance * pullback
        self.moments["pullback"].update(pullback)
        self.moments["scaled"].update(scaled)
        if "gram" in batch.quantities:
            self._orthogonality(batch)
        if "pullback_spread" in batch.quantities:
            self.moments["spread"].update(4 * batch.array("pullback_spread"))
        stored = pullback.astype(np.float64 if batch.x.element_size() == 8 else np.float32)
        return {
            "pullback": Variable(
                ("sample", "latent"), stored, "J_j' G J_j at the posterior mean", "metric", "23"
            )
        }

    def _orthogonality(self, batch: Batch) -> None:
        import numpy as np
        import torch

        from isoprobe.formulas import active_subset, cosines, hadamard_gap

        gram = batch["gram"].double()
        self.cosine.update(cosines(gram).abs().cpu().numpy())
        active = torch.as_tensor(self.setup.active, device=gram.device)
        if int(active.sum()) > 1:
            gap = hadamard_gap(active_subset(gram, active)).cpu().numpy()
            # A sample with a vanishing or linearly dependent column has no finite gap.
            self.gap.update(gap[np.isfinite(gap)])

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Norms, residuals, cosines and betas, by latent and overall."""
        beta = context.beta.value
        variables = self._by_stationarity(beta)
        if self.moments["scaled"].count:
            variables |= self._by_pullback(beta)
        if self.cosine.count:
            variables |= self._by_gram(context.setup.active)
        if self.moments["spread"].count:
            variables |= self._by_spread()
        return variables

    def _by_stationarity(self, beta: float) -> dict[str, Variable]:
        stationary = self.moments["stationarity"]
        norm = stationary.mean / beta
        return {
            "stationary_norm_mean": latent(norm, "norm by stationarity", "theory 2b"),
            "stationary_norm_sd": latent(
                stationary.sd / beta, "standard deviation over samples and draws, by stationarity"
            ),
            "stationary_norm_se": latent(
                stationary.se / beta, "standard error of the norm by stationarity"
            ),
            "stationary_residual_mean": latent(
                norm + self.moments["variance"].mean - 1,
                "norm by stationarity + sigma^2 - 1",
                "theory 2b",
            ),
            "variance_mean": latent(self.moments["variance"].mean, "mean of sigma^2"),
            **self._beta_by_latent("beta_recovered", 1, "stationarity", "theory 2b"),
        }

    def _by_pullback(self, beta: float) -> dict[str, Variable]:
        from isoprobe.formulas import residual

        norm, pullback = self.moments["scaled"], self.moments["pullback"]
        return {
            "norm_mean": latent(norm.mean / beta, "squared norm of x_{y_j}", "23"),
            "norm_sd": latent(norm.sd / beta, "standard deviation of the norm", "23"),
            "norm_se": latent(norm.se / beta, "standard error of the norm", "23"),
            "residual_mean": latent(
                residual(norm.mean / beta, self.moments["variance"].mean),
                "norm + sigma^2 - 1, zero at an optimum",
                "theory 2",
            ),
            "pullback_mean": latent(pullback.mean, "mean of D'_j = g_jj", "23", "metric"),
            "pullback_sd": latent(pullback.sd, "standard deviation of g_jj", "23", "metric"),
            "inverse_variance_expected": latent(
                1 + 2 / beta * pullback.mean, "E[sigma^-2] that g_jj implies", "theory 2"
            ),
            **self._beta_by_latent("beta_pullback", 2, "pullback", "theory 2"),
        }

    def _by_spread(self) -> dict[str, Variable]:
        """What random signs tell of orthogonality, in place of cosines."""
        import numpy as np

        square, diagonal = self.moments["spread"], self.moments["scaled"].mean
        with np.errstate(divide="ignore", invalid="ignore"):
            defect = np.sqrt(square.mean) / diagonal
            error = 0.5 * square.se / np.sqrt(square.mean) / diagonal
        name = "orthogonality defect: root of E sum_{k != j} (sigma_j sigma_k g_jk)^2 over the norm"
        return {
            "orthogonality_defect": latent(defect, name, "theory 2"),
            "orthogonality_defect_se": latent(error, f"standard error of the {name}"),
        }

    def _beta_by_latent(
        self, name: str, column: int, route: str, equation: str
    ) -> dict[str, Variable]:
        import numpy as np

        estimate = self.beta_sums.by_latent(column)
        text = f"beta recovered from this latent alone by {route}"
        parts = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
        # A collapsed latent says nothing about beta: both sides of its condition are zero.
        return {
            name + suffix: latent(
                np.where(self.setup.active, value, np.nan),
                text + _BOUNDS[suffix],
                equation,
                "metric",
            )
            for suffix, value in parts.items()
        }

    def _by_gram(self, active: np.ndarray) -> dict[str, Variable]:
        import numpy as np

        cosine = self.cosine.mean
        pairs = np.outer(active, active) & ~np.eye(len(active), dtype=bool)
        mean_abs = cosine[pairs].mean() if pairs.any() else 0.0
        return {
            "cosine": Variable(
                ("latent", "latent_2"), cosine, "mean |cos| between decoder columns", "1", "14"
            ),
            "cosine_mean_abs": scalar(
                mean_abs, "mean |cos| over pairs of active dimensions", "1", "14"
            ),
            "hadamard_gap": Variable(
                (),
                np.asarray(self.gap.mean if self.gap.count else 0.0),
                "half of sum log g_jj - log det g over active dimensions",
                "nat",
                "theory 2",
            ),
        }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Isometry."""
    return [Isometry]
