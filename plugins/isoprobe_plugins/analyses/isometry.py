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
    from isoprobe.statistics.assisted import AssistedMeans

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
        from isoprobe.probe.beta import BetaSums
        from isoprobe.statistics.moments import Moments

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
        self.assisted = None
        if setup.metric.smooth:
            self.needs = self.needs | {"pullback"} | self._beyond_the_diagonal(setup.pullback, n)
        if "pullback_drawn" in self.needs:
            self.assisted = self.accumulators["assisted"] = assisted_means(n)

    @staticmethod
    def _beyond_the_diagonal(method: str, n: int) -> set[str]:
        from isoprobe.derivatives.sampled import COLUMN_LIMIT

        if method == "probe":
            few = {"mean", "pullback_drawn"} if n <= COLUMN_LIMIT else set()
            return {"pullback_spread"} | few
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
        if self.assisted is not None:
            pullback = self._drawn(self.assisted, batch)
        stored = pullback.astype(np.float64 if batch.x.element_size() == 8 else np.float32)
        return {
            "pullback": Variable(
                ("sample", "latent"),
                stored,
                "J_j' G J_j at the posterior mean",
                units="metric",
                equation="23",
            )
        }

    @staticmethod
    def _drawn(assisted: AssistedMeans, batch: Batch) -> np.ndarray:
        """Take in the exact values among the estimates; NaN elsewhere."""
        import numpy as np

        drawn = batch["pullback_drawn"].cpu().numpy()
        mean, std = batch.array("mean"), batch.array("std")
        values = batch.array("pullback") * drawn.mean(axis=1, keepdims=True)
        assisted.update(covariates(mean, std), drawn, np.stack([2 * std**2 * values, values], 2))
        return np.where(drawn, values, np.nan)

    def _orthogonality(self, batch: Batch) -> None:
        import numpy as np
        import torch

        from isoprobe.theory.formulas import active_subset, cosines, hadamard_gap

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
            "stationary_norm_mean": latent(
                norm,
                "norm by stationarity",
                equation="theory 2b",
                show="column",
                label="stat. norm",
                form=".3f",
            ),
            "stationary_norm_sd": latent(
                stationary.sd / beta, "standard deviation over samples and draws, by stationarity"
            ),
            "stationary_norm_se": latent(
                stationary.se / beta, "standard error of the norm by stationarity"
            ),
            "stationary_residual_mean": latent(
                norm + self.moments["variance"].mean - 1,
                "norm by stationarity + sigma^2 - 1",
                equation="theory 2b",
            ),
            "variance_mean": latent(self.moments["variance"].mean, "mean of sigma^2"),
            **self._beta_by_latent("beta_recovered", 1, "stationarity", "theory 2b"),
        }

    def _by_pullback(self, beta: float) -> dict[str, Variable]:
        from isoprobe.theory.formulas import residual

        moments = [self.moments["scaled"], self.moments["pullback"]]
        (norm, pullback), (norm_sd, pullback_sd) = (
            [m.mean for m in moments],
            [m.sd for m in moments],
        )
        norm_se = moments[0].se
        if self.assisted is not None:
            means, errors = self.assisted.means()
            (norm, pullback), norm_se = means.T, errors[:, 0]
            norm_sd, pullback_sd = self.assisted.sd().T
        return {
            "norm_mean": latent(
                norm / beta,
                "squared norm of x_{y_j}, 1 - sigma^2 at an optimum",
                equation="23",
                show="column",
                label="norm",
                form=".3f",
            ),
            "norm_sd": latent(norm_sd / beta, "standard deviation of the norm", equation="23"),
            "norm_se": latent(
                norm_se / beta,
                "standard error of the norm",
                equation="23",
                show="column",
                label="± s.e.",
                form=".3f",
            ),
            "residual_mean": latent(
                residual(norm / beta, self.moments["variance"].mean),
                "norm + sigma^2 - 1, zero at an optimum",
                equation="theory 2",
                show="column",
                label="residual",
                form="+.3f",
            ),
            "pullback_mean": latent(pullback, "mean of D'_j = g_jj", equation="23", units="metric"),
            "pullback_sd": latent(
                pullback_sd, "standard deviation of g_jj", equation="23", units="metric"
            ),
            "inverse_variance_expected": latent(
                1 + 2 / beta * pullback, "E[sigma^-2] that g_jj implies", equation="theory 2"
            ),
            **self._beta_by_latent("beta_pullback", 2, "pullback", "theory 2"),
        }

    def _by_spread(self) -> dict[str, Variable]:
        """What a few products a sample tell of orthogonality, in place of cosines."""
        import numpy as np

        square, diagonal = self.moments["spread"], self.moments["scaled"].mean
        with np.errstate(divide="ignore", invalid="ignore"):
            defect = np.sqrt(square.mean) / diagonal
            error = 0.5 * square.se / np.sqrt(square.mean) / diagonal
        name = "orthogonality defect: root of E sum_{k != j} (sigma_j sigma_k g_jk)^2 over the norm"
        return {
            "orthogonality_defect": latent(defect, name, equation="theory 2"),
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
        shown = {"beta_recovered": "column"}
        return {
            name + suffix: latent(
                np.where(self.setup.active, value, np.nan),
                text + _BOUNDS[suffix],
                show=shown.get(name + suffix, "none"),
                label="beta_j" + suffix,
                equation=equation,
                units="metric",
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
                ("latent", "latent_2"),
                cosine,
                "mean |cos| between decoder columns",
                units="1",
                equation="14",
            ),
            "cosine_mean_abs": scalar(
                mean_abs,
                "mean |cos| over pairs of active dimensions",
                equation="14",
                show="tile",
                label="mean |cosine|",
                form=".3f",
            ),
            "hadamard_gap": scalar(
                self.gap.mean if self.gap.count else 0.0,
                "half of sum log g_jj - log det g over active dimensions",
                units="nat",
                equation="theory 2",
                show="tile",
                label="Hadamard gap",
                form=".3f",
            ),
        }


def covariates(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """What the encoder says of a sample, ``(B, 4 n + 1)``."""
    import numpy as np

    scale = np.log(std)
    return np.hstack([np.ones((len(mean), 1)), scale, mean, scale**2, mean**2])


def assisted_means(n: int) -> AssistedMeans:
    """Means of the norm and of g_jj from the samples that drew them."""
    import numpy as np

    from isoprobe.statistics.assisted import AssistedMeans

    own = 1 + np.arange(n)[:, None] + n * np.arange(4)
    return AssistedMeans(n, 4 * n + 1, np.hstack([np.zeros((n, 1), dtype=np.int64), own]), 2)


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Isometry."""
    return [Isometry]
