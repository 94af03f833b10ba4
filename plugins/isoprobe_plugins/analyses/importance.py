"""Rank latents like PCA's explained variance: rough, exact, and in bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe.probe.prior import answer_called_for
from isoprobe.statistics.moments import Moments
from isoprobe.theory import formulas
from isoprobe.theory.importance import IDLE_VARIANCE, STATES
from isoprobe.theory.isometric import ScaleCurve
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup


class Importance(WithFigures):
    """Proposition 4 and its exact form Var(y_j), with rates and states.

    The rough estimate bounds the exact variance from above (Gaussian Poincare inequality).
    """

    name = "importance"
    summary = "variance of each isometric coordinate, rate, state (Eq. 22, 67, Prop. 3)"
    needs = frozenset({"std"})

    def start(self, setup: Setup) -> None:
        """Prepare the share of idle samples and the variance of the data."""
        from isoprobe.probe.selfcheck import SAMPLES, mean_input_distortion

        super().start(setup)
        self.idle = Moments((setup.vae.latent_size,))
        x = setup.sample(SAMPLES)
        # few rows tell the order of size, which is all that is asked of it here
        self.baseline = mean_input_distortion(setup.metric, x, least=2)
        self.accumulators = {"idle": self.idle}

    def update(self, batch: Batch) -> None:
        """Take in a batch."""
        wide = answer_called_for(batch).clip(0.0) ** 0.5
        self.idle.update(formulas.idle(wide).astype(float))

    def update_encoded(self, batch: Batch) -> None:
        """Take in more rows: all that is kept here rests on the encoder."""
        self.update(batch)

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Variances, shares, rates and states by latent, and the order of importance."""
        import numpy as np

        beta, active = context.beta.value, context.setup.active
        inverse = context.statistics.inverse_variance
        exact = context.statistics.scales.variances(beta)
        error = context.statistics.scales.variance_errors(beta)
        known = formulas.determined(exact, error, self._variance(context))
        # without a beta there are no variances, and the inverse ones rank alike
        ranked = exact if np.isfinite(exact).all() else inverse.mean
        order = formulas.order_of_importance(ranked, active & known)
        share = formulas.shares(exact, active & known)
        rough = cite(formulas.rough_importance)
        return {
            "rough": latent(
                formulas.rough_importance(inverse.mean, beta),
                "(beta/2) E[sigma^-2]",
                units="metric",
                show="column",
                label="rough",
                **rough,
            ),
            "rough_se": latent(
                formulas.rough_importance(inverse.se, beta),
                "standard error of rough",
                units="metric",
                **rough,
            ),
            "exact": latent(
                exact,
                "Var(y_j) under the aggregate posterior",
                units="metric",
                show="column",
                label="importance",
                **cite(ScaleCurve.variance),
            ),
            "exact_se": latent(
                error, "standard error of exact", units="metric", **cite(ScaleCurve.variance_error)
            ),
            "determined": latent(
                known,
                "exact is not clearly above the variance of the data, which no latent can exceed",
                **cite(formulas.determined),
            ),
            "called_for": latent(
                self._called_for(context),
                "(E[g_jj] + beta/2) Var(mu_j) + beta/2, what the decoder calls for by itself",
                units="metric",
                **cite(formulas.importance_called_for),
            ),
            "share": latent(
                share,
                "share of the active dimensions' variance",
                show="column",
                label="share",
                form=".1%",
                **cite(formulas.shares),
            ),
            "cumulative_share": latent(
                formulas.cumulative_shares(share, order),
                "share up to here in order of importance",
                **cite(formulas.cumulative_shares),
            ),
            "rate_bits": latent(
                formulas.bits(context.statistics.kl.mean),
                "E[KL_j]",
                units="bit",
                **cite(formulas.bits),
            ),
            "idle_share": latent(
                self.idle.mean,
                f"share of samples with sigma^2 > {IDLE_VARIANCE}",
                **cite(formulas.idle),
            ),
            "state": latent(
                formulas.states(active, self.idle.mean),
                ", ".join(f"{code} {name}" for code, name in enumerate(STATES)),
                show="column",
                label="state",
                form="|".join(STATES),
                **cite(formulas.states),
            ),
            "order": Variable(
                ("rank",),
                order,
                "latents in descending importance",
                **cite(formulas.order_of_importance),
            ),
            "water_level": scalar(
                formulas.water_level(beta), "beta/2", units="metric", **cite(formulas.water_level)
            ),
        }

    @staticmethod
    def _called_for(context: Context) -> np.ndarray:
        """By the decoder alone; NaN without a pullback, and where the prior is not N(0, I)."""
        import numpy as np

        found, vae = context.statistics, context.setup.vae
        if vae.prior is not None or not found.pullback.count:
            return np.full(vae.latent_size, np.nan)
        beta = context.beta.value
        return formulas.importance_called_for(found.pullback.mean, found.mean.sd**2, beta)

    def _variance(self, context: Context) -> float | None:
        """Least E D(x, c) - D(x, x) over constants c; None where it is not known."""
        own = float(context.statistics.distortion_self.mean)
        return None if self.baseline is None else self.baseline - own


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Importance."""
    return [Importance]
