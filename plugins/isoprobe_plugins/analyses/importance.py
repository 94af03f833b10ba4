"""Importance of each latent, like PCA's explained variance: rough, exact, and in bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup

STATES = ("active", "mixed", "collapsed")
#: a sample leaves a dimension idle when its posterior there is nearly the prior
IDLE_VARIANCE = 0.8
#: shares of idle samples between which a dimension is mixed
MIXED_SHARE = (0.05, 0.95)


class Importance(Analysis):
    """Proposition 4 and its exact form Var(y_j), with rates and states.

    The rough estimate bounds the exact variance from above (Gaussian Poincare inequality).
    """

    name = "importance"
    summary = "variance of each isometric coordinate, rate, state (Eq. 22, 67, Prop. 3)"
    needs = frozenset({"mean", "std", "kl"})

    def start(self, setup: Setup) -> None:
        """Prepare accumulators."""
        from isoprobe.statistics.moments import Moments
        from isoprobe.theory.isometric import ScaleTable

        super().start(setup)
        n = setup.vae.latent_size
        self.table = ScaleTable(n)
        self.moments = {name: Moments((n,)) for name in ("inverse_variance", "kl", "idle")}
        self.accumulators = {"table": self.table, **self.moments}

    def update(self, batch: Batch) -> None:
        """Take in a batch."""
        mean, std = batch.array("mean"), batch.array("std")
        self.table.update(mean, std)
        self.moments["inverse_variance"].update(std**-2)
        self.moments["kl"].update(batch.array("kl"))
        self.moments["idle"].update((std**2 > IDLE_VARIANCE).astype(float))

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Variances, shares, rates and states by latent, and the order of importance."""
        import numpy as np

        from isoprobe.theory.formulas import NATS_TO_BITS, rough_importance

        beta, active = context.beta.value, context.setup.active
        inverse, rate = self.moments["inverse_variance"], self.moments["kl"]
        exact = np.array([self.table.curve(j).variance(beta) for j in range(len(active))])
        # Shares count what is learnt: a collapsed dimension holds noise of variance beta/2 only.
        counted = np.where(active, np.nan_to_num(exact), 0.0)
        share = counted / counted.sum() if counted.any() else counted
        # without a beta there are no variances, and the inverse ones rank alike
        ranked = exact if np.isfinite(exact).all() else inverse.mean
        order = np.lexsort((-ranked, ~active))
        cumulative = np.empty_like(share)
        cumulative[order] = np.cumsum(share[order])
        return {
            "rough": latent(
                rough_importance(inverse.mean, beta),
                "(beta/2) E[sigma^-2]",
                equation="22",
                units="metric",
                show="column",
                label="rough",
            ),
            "rough_se": latent(
                rough_importance(inverse.se, beta),
                "standard error of rough",
                equation="22",
                units="metric",
            ),
            "exact": latent(
                exact,
                "Var(y_j) under the aggregate posterior",
                equation="16, 67",
                units="metric",
                show="column",
                label="importance",
            ),
            "share": latent(
                share,
                "share of the active dimensions' variance",
                show="column",
                label="share",
                form=".1%",
            ),
            "cumulative_share": latent(cumulative, "share up to here in order of importance"),
            "rate": latent(rate.mean, "E[KL_j]", equation="2", units="nat"),
            "rate_bits": latent(rate.mean * NATS_TO_BITS, "E[KL_j]", equation="2", units="bit"),
            "idle_share": latent(
                self.moments["idle"].mean, f"share of samples with sigma^2 > {IDLE_VARIANCE}"
            ),
            "state": latent(
                _states(active, self.moments["idle"].mean),
                "0 active, 1 mixed, 2 collapsed",
                equation="Prop. 3",
                show="column",
                label="state",
            ),
            "order": Variable(("rank",), order, "latents in descending importance"),
            "water_level": scalar(beta / 2, "beta/2", units="metric", equation="92"),
        }


def _states(active: np.ndarray, idle: np.ndarray) -> np.ndarray:
    """State codes: collapsed without rate, mixed where some samples use it and others do not."""
    import numpy as np

    low, high = MIXED_SHARE
    used = np.where((idle > low) & (idle < high), 1, 0)
    return np.where(active, used, 2).astype(np.int8)


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Importance."""
    return [Importance]
