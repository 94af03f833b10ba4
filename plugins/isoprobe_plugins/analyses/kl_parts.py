"""Take the KL term apart: I(x; z_j) and KL(q(z_j) || p) of every latent, I and TC as intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.hookspecs import hookimpl
from isoprobe.theory.kl_parts import describe, kl_parts
from isoprobe_plugins.analyses.rows import OverRows, posterior
from isoprobe_plugins.analyses.variables import latent, scalar, sourced

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Analysis, Batch, Context, Variable
    from isoprobe.theory.kl_parts import KLParts, LatentParts


class KLPartsAnalysis(OverRows):
    """KL_j = I(x; z_j) + KL(q_j || p), and E KL = I(x; z) + TC + sum_j KL(q_j || p).

    Args:
        rows: rows that are compared all with all, spread over the data. At most log(rows) can be
            seen of I(x; z), so models are compared at equal numbers.
    """

    name = "kl-parts"
    independent = "its mixtures are of independent latents"
    standard_prior = "its parts are distances from N(0, 1)"
    summary = "the KL term in parts: information about x, total correlation, distance from p(z)"

    def update(self, batch: Batch) -> None:
        """Nothing: posteriors are stored by every run."""

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """All parts, with standard errors over rows."""
        _, mean, std = posterior(columns, self.rows, context.setup.seed)
        if len(mean) < 2:
            few = {"rows": scalar(len(mean), "rows with a finite posterior: too few")}
            return sourced(few, kl_parts)
        parts = kl_parts(mean, std, context.setup.seed)
        return sourced({**_of_latents(parts.latents), **_of_all(parts)}, kl_parts)


def _of_latents(parts: LatentParts) -> dict[str, Variable]:
    nats = {
        "information": (parts.information, "I(x; z_j)", "column"),
        "information_se": (parts.information_se, "standard error of I(x; z_j)", "none"),
        "marginal_kl": (parts.marginal_kl, "KL(q(z_j) || p)", "column"),
        "marginal_kl_se": (parts.marginal_kl_se, "standard error of KL(q(z_j) || p)", "none"),
        "bias": (
            parts.bias,
            "by how much few rows raise KL(q_j || p) and lower I(x; z_j)",
            "none",
        ),
    }
    return {
        **{
            name: latent(values, text, units="nat", show=show, form=".3f")
            for name, (values, text, show) in nats.items()
        },
        "active_unit": latent(parts.active, "variance of mu_j above 0.01 (Burda et al. 2016)"),
        "widened": latent(parts.widened, "rows too narrow for the grid, taken as wide as its step"),
    }


def _of_all(parts: KLParts) -> dict[str, Variable]:

    (low, high), (tc_low, tc_high) = parts.information, parts.total_correlation
    share = float("nan") if parts.joint is None else parts.joint.own_share
    errors = {
        "kl": (parts.kl, "E KL summed over latents"),
        "information_sum": (parts.information_sum, "sum_j I(x; z_j) = I(x; z) + TC"),
        "marginal_sum": (parts.marginal_sum, "sum_j KL(q(z_j) || p)"),
    }
    ends = {
        "joint_low": (low, "I(x; z) is at least this, two standard errors allowed"),
        "joint_high": (high, "I(x; z) is at most this, two standard errors allowed"),
        "tc_low": (tc_low, "total correlation is at least this, two standard errors allowed"),
        "tc_high": (tc_high, "total correlation is at most this, two standard errors allowed"),
    }
    return {
        **{
            name: scalar(bound.value, text, units="nat", show="tile", form=".3f")
            for name, (bound, text) in errors.items()
        },
        **{
            f"{name}_se": scalar(bound.se, f"standard error of {text}", units="nat")
            for name, (bound, text) in errors.items()
        },
        **{
            name: scalar(value, text, units="nat", show="tile", form=".2f")
            for name, (value, text) in ends.items()
        },
        "own_share": scalar(
            share, "mean share of a row in q(z) at its own draw: above 0.5 log N bounds I(x; z)"
        ),
        "active_units": scalar(int(parts.latents.active.sum()), "latents that count as active"),
        "rows": scalar(len(parts.latents.rows), "rows compared all with all"),
        "state": scalar(parts.state, "point, interval, saturated or not estimated"),
        "line": scalar(describe(parts), "all of it in words"),
    }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Parts of the KL term."""
    return [KLPartsAnalysis]
