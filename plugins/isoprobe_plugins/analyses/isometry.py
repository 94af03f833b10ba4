"""Measure isometry: norms by pullback and stationarity, residuals, orthogonality, beta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe.statistics.assisted import AssistedMeans
from isoprobe.statistics.jackknife import jackknife
from isoprobe.statistics.moments import BlockSums, Moments
from isoprobe.theory import formulas
from isoprobe.theory.covariance import covariance_answer, covariance_residual
from isoprobe.theory.isometry import pullback_diagonal
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup
    from isoprobe.probe.beta import BetaSums

_BOUNDS = {"": "", "_low": ", 95 % lower bound", "_high": ", 95 % upper bound"}
#: beyond this many latents the n x n cosines of every sample are left out
GRAM_LIMIT = 256


class Isometry(WithFigures):
    """Section 4.3.3 of the paper, and the exact finite-rate identity norm + sigma^2 = 1.

    For a metric without a tensor the pullback half is left out and stationarity stands alone.
    """

    name = "isometry"
    summary = "norms, residuals, orthogonality, recovered beta (Eq. 14, 23 and beyond)"
    needs = frozenset({"std", "stationarity"})

    def start(self, setup: Setup) -> None:
        """Prepare accumulators; ask for the Gram matrix where n allows it."""
        super().start(setup)
        n = setup.vae.latent_size
        self.off_diagonal = Moments((n,))
        self.cosine = Moments((n, n) if n <= GRAM_LIMIT else ())
        self.gap = Moments()
        self.accumulators = {
            "cosine": self.cosine,
            "gap": self.gap,
            "off_diagonal": self.off_diagonal,
        }
        self.assisted = None
        self.covariance = None
        if setup.vae.correlated and n <= GRAM_LIMIT:
            self.covariance = self.accumulators["covariance"] = BlockSums((2, n, n))
            self.needs = self.needs | {"noise_gradient"}
        if setup.metric.smooth:
            self.needs = self.needs | {"pullback"} | self._beyond_the_diagonal(setup.pullback, n)
        if "pullback_drawn" in self.needs:
            self.assisted = self.accumulators["assisted"] = assisted_means(n)

    @staticmethod
    def _beyond_the_diagonal(method: str, n: int) -> set[str]:
        from isoprobe.derivatives.sampled import COLUMN_LIMIT

        if method == "probe":
            few = {"mean", "pullback_drawn"} if n <= COLUMN_LIMIT else set()
            return {"pullback_off_diagonal"} | few
        return {"gram"} if method == "exact" and n <= GRAM_LIMIT else set()

    def update(self, batch: Batch) -> Mapping[str, Variable] | None:
        """Take in a batch; store g_jj of each sample."""
        import numpy as np

        if self.covariance is not None:
            root = batch["root"].double()
            answer = covariance_answer(batch["noise_gradient"].double(), root)
            parts = [part.cpu().numpy() for part in (answer, root.mT @ root)]
            self.covariance.update(batch.index, np.stack(parts, axis=1))
        if "pullback" not in batch.quantities:
            return None
        pullback = batch.array("pullback")
        if "gram" in batch.quantities:
            self._orthogonality(batch)
        if "pullback_off_diagonal" in batch.quantities:
            self.off_diagonal.update(4 * batch.array("pullback_off_diagonal"))
        if self.assisted is not None:
            pullback = self._drawn(self.assisted, batch)
        stored = pullback.astype(np.float64 if batch.x.element_size() == 8 else np.float32)
        return {
            "pullback": Variable(
                ("sample", "latent"),
                stored,
                "J_j' G J_j at the posterior mean",
                units="metric",
                **cite(pullback_diagonal),
            )
        }

    @staticmethod
    def _drawn(assisted: AssistedMeans, batch: Batch) -> np.ndarray:
        """Take in the exact values among the estimates; NaN elsewhere."""
        import numpy as np

        drawn = batch["pullback_drawn"].cpu().numpy()
        mean, std = batch.array("mean"), batch.array("std")
        values = batch.array("pullback") * drawn.mean(axis=1, keepdims=True)
        targets = np.stack([formulas.decoder_response(std, values), values], 2)
        assisted.update(covariates(mean, std), drawn, targets)
        return np.where(drawn, values, np.nan)

    def _orthogonality(self, batch: Batch) -> None:
        import numpy as np
        import torch

        gram = batch["gram"].double()
        self.cosine.update(abs(formulas.cosines(gram)).cpu().numpy())
        active = torch.as_tensor(self.setup.active, device=gram.device)
        if int(active.sum()) > 1:
            subset = formulas.active_subset(gram, active)
            gap = formulas.hadamard_gap(subset).cpu().numpy()
            # A sample with a vanishing or linearly dependent column has no finite gap.
            self.gap.update(gap[np.isfinite(gap)])

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Norms, residuals, cosines and betas, by latent and overall."""
        variables = self._by_stationarity(context)
        if context.statistics.response.count:
            variables |= self._by_pullback(context)
        if self.cosine.count:
            variables |= self._by_gram(context.setup.active)
        if self.covariance is not None:
            variables |= self._by_covariance(self.covariance, context.beta.value)
        if self.off_diagonal.count:
            variables |= self._orthogonality_defect(context.statistics.response.mean)
        return variables

    def _by_stationarity(self, context: Context) -> dict[str, Variable]:
        beta, found = context.beta.value, context.statistics.stationarity
        norm = formulas.stationary_norm(found.mean, beta)
        source = cite(formulas.stationary_norm)
        return {
            "stationary_norm_mean": latent(
                norm,
                "norm by stationarity",
                show="column",
                label="stat. norm",
                form=".3f",
                **source,
            ),
            "stationary_norm_sd": latent(
                formulas.stationary_norm(found.sd, beta),
                "standard deviation over samples and draws, by stationarity",
                **source,
            ),
            "stationary_norm_se": latent(
                formulas.stationary_norm(found.se, beta),
                "standard error of the norm by stationarity",
                **source,
            ),
            "stationary_residual_mean": latent(
                formulas.residual(norm, context.statistics.beta.variance()),
                f"norm by stationarity + {self._width} - 1",
                **cite(formulas.residual),
            ),
            **self._beta_by_latent("beta_recovered", context.statistics.beta, 1, "stationarity"),
        }

    @staticmethod
    def _by_covariance(sums: BlockSums, beta: float) -> dict[str, Variable]:
        """The whole condition of a full covariance, with what is off its diagonal."""
        import numpy as np

        answer, width = sums.sums[:, 0], sums.sums[:, 1]
        count = np.broadcast_to(sums.counts[:, None, None].astype(float), answer.shape)
        found = jackknife(
            lambda a, w, c: covariance_residual(a / c, w / c, beta), answer, width, count
        )
        text = "E[L'd eps'] / beta + L'L - I, zero at an optimum"
        return {
            name: Variable(("latent", "latent_2"), values, said, **cite(covariance_residual))
            for name, values, said in (
                ("covariance_residual", found.value, text),
                ("covariance_residual_se", found.se, f"standard error of {text}"),
            )
        }

    @property
    def _width(self) -> str:
        """What the norm is 1 less of: P_j = E[sigma_j eps_j s_j] where the prior is its own."""
        return "sigma^2" if self.setup.vae.prior is None else "P_j"

    @property
    def _order(self) -> str:
        """How well the pullback's form holds."""
        return "" if self.setup.vae.prior is None else ", to second order under this prior"

    def _by_pullback(self, context: Context) -> dict[str, Variable]:
        beta, statistics = context.beta.value, context.statistics
        moments = [statistics.response, statistics.pullback]
        (response, pullback), (response_sd, pullback_sd) = (
            [m.mean for m in moments],
            [m.sd for m in moments],
        )
        response_se = moments[0].se
        if self.assisted is not None:
            means, errors = self.assisted.means()
            (response, pullback), response_se = means.T, errors[:, 0]
            response_sd, pullback_sd = self.assisted.sd().T
        norm, source = formulas.norm_of(response, beta), cite(formulas.isometry_norm)
        g = cite(pullback_diagonal)
        return {
            "norm_mean": latent(
                norm,
                f"squared norm of x_{{y_j}}, 1 - {self._width} at an optimum{self._order}",
                show="column",
                label="norm",
                form=".3f",
                **source,
            ),
            "norm_sd": latent(
                formulas.norm_of(response_sd, beta), "standard deviation of the norm", **source
            ),
            "norm_se": latent(
                formulas.norm_of(response_se, beta),
                "standard error of the norm",
                show="column",
                label="s.e. of norm",
                form=".3f",
                **source,
            ),
            "residual_mean": latent(
                formulas.residual(norm, statistics.beta.variance()),
                f"norm + {self._width} - 1, zero at an optimum{self._order}",
                show="column",
                label="residual",
                form="+.3f",
                **cite(formulas.residual),
            ),
            "pullback_mean": latent(pullback, "mean of D'_j = g_jj", units="metric", **g),
            "pullback_sd": latent(pullback_sd, "standard deviation of g_jj", units="metric", **g),
            "inverse_variance_expected": latent(
                formulas.inverse_variance_called_for(pullback, beta),
                "E[sigma^-2] that g_jj implies",
                **cite(formulas.inverse_variance_called_for),
            ),
            **self._beta_by_latent("beta_pullback", statistics.beta, 2, "pullback"),
        }

    def _orthogonality_defect(self, response: np.ndarray) -> dict[str, Variable]:
        """What a few products a sample tell of orthogonality, in place of cosines."""
        import numpy as np

        square, source = self.off_diagonal, cite(formulas.orthogonality_defect)
        with np.errstate(divide="ignore", invalid="ignore"):
            defect = formulas.orthogonality_defect(square.mean, response)
            error = 0.5 * defect * square.se / square.mean  # of a root, to first order
        name = "orthogonality defect: root of E sum_{k != j} (sigma_j sigma_k g_jk)^2 over the norm"
        return {
            "orthogonality_defect": latent(defect, name, **source),
            "orthogonality_defect_se": latent(error, f"standard error of the {name}", **source),
        }

    def _beta_by_latent(
        self, name: str, sums: BetaSums, column: int, route: str
    ) -> dict[str, Variable]:
        import numpy as np

        estimate = sums.by_latent(column)
        text = f"beta recovered from this latent alone by {route}"
        parts = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
        # A collapsed latent says nothing about beta: both sides of its condition are zero.
        return {
            name + suffix: latent(
                np.where(self.setup.active, value, np.nan),
                text + _BOUNDS[suffix],
                show="column" if name + suffix == "beta_recovered" else "none",
                label="beta_j" + suffix,
                units="metric",
                **cite(formulas.recovered_beta),
            )
            for suffix, value in parts.items()
        }

    def _by_gram(self, active: np.ndarray) -> dict[str, Variable]:
        return {
            "cosine": Variable(
                ("latent", "latent_2"),
                self.cosine.mean,
                "mean |cos| between decoder columns",
                **cite(formulas.cosines),
            ),
            "cosine_mean_abs": scalar(
                formulas.mean_absolute_cosine(self.cosine.mean, active),
                "mean |cos| over pairs of active dimensions, 0 when orthogonal",
                show="tile",
                label="mean |cosine|",
                form=".3f",
                **cite(formulas.mean_absolute_cosine),
            ),
            "hadamard_gap": scalar(
                self.gap.mean if self.gap.count else 0.0,
                "half of sum log g_jj - log det g over active dimensions, 0 when orthogonal",
                units="nat",
                show="tile",
                label="Hadamard gap",
                form=".3f",
                **cite(formulas.hadamard_gap),
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

    own = 1 + np.arange(n)[:, None] + n * np.arange(4)
    return AssistedMeans(n, 4 * n + 1, np.hstack([np.zeros((n, 1), dtype=np.int64), own]), 2)


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Isometry."""
    return [Isometry]
