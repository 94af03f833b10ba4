"""Measure what each latent tells of the rows' labels or factors, in bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.theory.information import factor, latent_information
from isoprobe.theory.linear_probe import probe_curve
from isoprobe_plugins.analyses.rows import OverRows, posterior
from isoprobe_plugins.analyses.variables import latent, scalar, sourced

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup
    from isoprobe.theory.information import Factor, LatentInformation
    from isoprobe.theory.linear_probe import ProbeCurve

_MATRIX = ("factor", "latent")
_CURVE = ("factor", "probe")


class Information(OverRows):
    """I(v_k; z_j), the gap of each factor, modularity, and a linear probe by the best k latents.

    Gap and modularity need two factors or more: one label says nothing of disentanglement.

    Args:
        rows: rows used, spread over the data.
    """

    name = "information"
    independent = "its mixtures are of independent latents"
    summary = "which latents carry the labels or factors, in bits, and how well they are read off"

    def start(self, setup: Setup) -> None:
        """Check that there is something to tell of.

        Raises:
            OptionError: when the rows carry no labels.
        """
        super().start(setup)
        if not setup.labelled:
            raise OptionError(
                "analysis 'information' needs rows with labels and these have none; name them, "
                "as in --data FILE.npz:x,y1,y2 or FILE.csv:label=COLUMN."
            )

    def update(self, batch: Batch) -> None:
        """Nothing: posteriors and labels are stored by every run.

        Raises:
            OptionError: when labels are no numbers.
        """
        if batch.labels is not None and batch.labels.dtype.kind not in "fiub":
            raise OptionError(
                "analysis 'information' needs labels that are numbers; found "
                f"{batch.labels.dtype}. Write each class as a number."
            )

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Bits with intervals, gaps, modularity, and the probe's curve."""
        import numpy as np

        rows, mean, std = posterior(columns, self.rows, context.setup.seed)
        labels = columns("label")[rows]
        table = labels.reshape(len(rows), -1)
        known = np.isfinite(table.astype(float)).all(axis=1)
        if known.sum() < 2:
            few = {"rows": scalar(int(known.sum()), "rows with finite posterior and labels")}
            return sourced(few, latent_information)
        mean, std, table = mean[known], std[known], table[known]
        names = context.setup.factors or ("label",)
        factors = [factor(column, name) for column, name in zip(table.T, names, strict=True)]
        found = latent_information(mean, std, factors, context.setup.seed)
        several = _of_several(found) if len(factors) > 1 else {}
        rows_used = {"rows": scalar(len(mean), "rows used")}
        return {
            **sourced(_of_factors(factors), factor),
            **sourced({**_of_matrix(found), **several, **rows_used}, latent_information),
            **_of_probes(mean, factors, found, context.setup.seed),
        }


def _of_factors(factors: list[Factor]) -> dict[str, Variable]:
    import numpy as np

    return {
        "factor_name": Variable(("factor",), np.array([f.name for f in factors]), "factor"),
        "entropy": Variable(
            ("factor",), np.array([f.entropy for f in factors]), "H(v) over these rows", "bit"
        ),
        "classes": Variable(
            ("factor",), np.array([f.classes for f in factors]), "number of classes"
        ),
        "quantiles": Variable(
            ("factor",),
            np.array([f.quantiles for f in factors]),
            "continuous, cut at its quantiles: bits are a lower bound",
        ),
    }


def _of_matrix(found: LatentInformation) -> dict[str, Variable]:
    matrix = {
        "bits": (found.bits, "I(v; z_j), middle of the two estimates"),
        "bits_low": (found.low, "two standard errors below the estimate with own rows left out"),
        "bits_high": (found.high, "two standard errors above the estimate from all rows"),
        "bits_permuted": (found.permuted, "the same with labels shuffled: what chance gives"),
    }
    return {
        **{name: Variable(_MATRIX, values, text, "bit") for name, (values, text) in matrix.items()},
        "first": Variable(("factor",), found.first, "latent that tells most of the factor"),
        "second": Variable(("factor",), found.second, "latent that tells next, -1 for none"),
        "informative": latent(found.informative, "tells more than 0.05 bits of some factor"),
        "widened": latent(found.widened, "rows too narrow for the grid, taken as wide as its step"),
    }


def _of_several(found: LatentInformation) -> dict[str, Variable]:
    return {
        "gap": Variable(("factor",), found.gap, "(largest - second I(v; z_j)) / H(v)"),
        "gap_se": Variable(("factor",), found.gap_se, "standard error of the gap"),
        "modularity": latent(
            found.modularity,
            "1 where a latent tells of one factor only, 0 of all alike",
            show="column",
            form=".2f",
        ),
    }


def _of_probes(
    mean: np.ndarray, factors: list[Factor], found: LatentInformation, seed: int
) -> dict[str, Variable]:
    import numpy as np

    orders = (-found.bits).argsort(axis=1, kind="stable")
    curves: list[ProbeCurve] = [
        probe_curve(mean, one.codes, order, seed=seed)
        for one, order in zip(factors, orders, strict=True)
    ]
    parts = {
        "accuracy": ("1", "held-out accuracy of a linear probe on the means of the best k latents"),
        "accuracy_low": ("1", "lower end of its 95 % Wilson interval"),
        "accuracy_high": ("1", "upper end of its 95 % Wilson interval"),
        "bits": ("bit", "usable bits of that probe: of the mean, without the posterior's noise"),
        "bits_se": ("bit", "standard error of the usable bits"),
    }
    variables = {
        "probe_latents": Variable(("probe",), curves[0].counts, "k, latents the probe sees"),
        "probe_order": Variable(("factor", "rank"), orders, "latents by what they tell"),
        "majority": Variable(
            ("factor",), np.array([c.majority for c in curves]), "share of the commonest class"
        ),
        "tested": scalar(curves[0].tested, "rows held out from the probe"),
        **{
            f"probe_{name}": Variable(
                _CURVE, np.stack([getattr(c, name) for c in curves]), text, units
            )
            for name, (units, text) in parts.items()
        },
    }
    return sourced(variables, probe_curve)


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Information on labels."""
    return [Information]
