"""Tell how variables are shown whose files were written before they said so themselves."""

from __future__ import annotations

from typing import NamedTuple


class Said(NamedTuple):
    """What a variable of such a file would say: see :class:`isoprobe.contracts.Variable`."""

    show: str = "none"
    label: str = ""
    form: str = ""


FORMER = {
    "overview/kl_mean": Said("column", "KL"),
    "overview/variance_mean": Said("column", "E[sigma^2]"),
    "overview/inverse_variance_mean": Said("column", "E[sigma^-2]"),
    "overview/distortion_mean": Said("tile", "distortion"),
    "overview/distortion_coding_mean": Said("tile", "coding loss"),
    "density/iwae_gap": Said("tile", "IWAE - ELBO"),
    "density/pareto_k": Said("tile", "Pareto k", ".2f"),
    "isometry/norm_mean": Said("column", "norm", ".3f"),
    "isometry/norm_se": Said("column", "s.e. of norm", ".3f"),
    "isometry/residual_mean": Said("column", "residual", "+.3f"),
    "isometry/stationary_norm_mean": Said("column", "stat. norm", ".3f"),
    "isometry/beta_recovered": Said("column", "beta_j"),
    "isometry/cosine_mean_abs": Said("tile", "mean |cosine|", ".3f"),
    "isometry/hadamard_gap": Said("tile", "Hadamard gap", ".3f"),
    "importance/exact": Said("column", "importance"),
    "importance/rough": Said("column", "rough"),
    "importance/share": Said("column", "share", ".1%"),
    "importance/state": Said("column", "state", "active|mixed|collapsed"),
    "diagnosis/label": Said("column", "diagnosis"),
    "rate-distortion/transform_loss": Said("tile", "transform loss"),
    "density/estimator_correlation": Said("tile", "agreement of densities", ".3f"),
    "anomaly/auroc": Said("tile", "AUROC", ".3f"),
}


def former(group: str, name: str) -> Said:
    """Return how a variable of an old file is shown: not at all where it is not known.

    Args:
        group: of the file.
        name: of the variable in it.

    Returns:
        What it would say.
    """
    return FORMER.get(f"{group}/{name}", Said())
