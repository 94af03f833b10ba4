"""Draw the figures: one function each, taking a result (or arrays) and matplotlib Axes.

``figure(result, "scree")`` draws one by name in the house style; ``save`` writes them all. Colours
are told apart by people who see red and green alike, and every curve has a marker or dash of its
own for black and white print.
"""

from __future__ import annotations

from isoprobe.show.plots.ablations import ablation
from isoprobe.show.plots.anomalies import (
    anomaly_precision_recall,
    anomaly_roc,
    anomaly_scores,
    precision_recall,
    roc,
    score_histogram,
)
from isoprobe.show.plots.catalogue import available, catalogue, figure, save, to_png, to_svg
from isoprobe.show.plots.comparisons import matched, rate_distortion_points, spectra
from isoprobe.show.plots.densities import density_estimators, density_scatter
from isoprobe.show.plots.latents import inverse_variances, norms, orthogonality, scree
from isoprobe.show.plots.losses import rate_distortion
from isoprobe.show.plots.maps import read_write
from isoprobe.show.plots.parts import (
    distances,
    information_bits,
    kl_parts,
    probe_accuracy,
    probe_bits,
    shortest_paths,
    truncation,
    truncation_pictures,
)
from isoprobe.show.plots.rows import (
    likely_rows,
    prior_samples,
    reconstructions,
    worst_reconstructions,
)
from isoprobe.show.plots.style import styled
from isoprobe.show.plots.walks import coordinates, traversal

__all__ = [
    "ablation",
    "anomaly_precision_recall",
    "anomaly_roc",
    "anomaly_scores",
    "available",
    "catalogue",
    "coordinates",
    "density_estimators",
    "density_scatter",
    "distances",
    "figure",
    "information_bits",
    "inverse_variances",
    "kl_parts",
    "likely_rows",
    "matched",
    "norms",
    "orthogonality",
    "precision_recall",
    "prior_samples",
    "probe_accuracy",
    "probe_bits",
    "rate_distortion",
    "rate_distortion_points",
    "read_write",
    "reconstructions",
    "roc",
    "save",
    "score_histogram",
    "scree",
    "shortest_paths",
    "spectra",
    "styled",
    "to_png",
    "to_svg",
    "traversal",
    "truncation",
    "truncation_pictures",
    "worst_reconstructions",
]
