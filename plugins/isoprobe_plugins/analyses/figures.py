"""Say which figures each analysis offers, and how to read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Figure
from isoprobe.show.plots import anomalies, densities, latents, losses, maps, parts, rows, walks

if TYPE_CHECKING:
    from collections.abc import Sequence

IMPORTANCE = (
    Figure(
        "scree",
        latents.scree,
        "Importance of each latent",
        "Dots: variance of the isometric coordinate (Eq. 67), the counterpart of a PCA "
        "eigenvalue. Ticks: the rough estimate from mean inverse variances (Eq. 22), an upper "
        "bound for an ideal model. A dimension under the water line (Eq. 92) costs more than it "
        "brings.",
        "importance/exact",
    ),
    Figure(
        "inverse_variances",
        latents.inverse_variances,
        "Mean inverse posterior variance",
        "The quantity the paper plots (Eq. 22): proportional to importance, 1 where a latent "
        "carries nothing.",
        "overview/inverse_variance_mean",
    ),
)
ISOMETRY = (
    Figure(
        "norms",
        latents.norms,
        "Is the embedding isometric?",
        "Theory asks norm + sigma^2 = 1 of every latent, used or not. Squares measure it through "
        "the decoder's derivative at the mean, diamonds through stationarity of the objective, "
        "which needs no expansion. The norm (Eq. 23) alone is near 1 only where sigma is small; "
        "its lines span one standard deviation over samples.",
        "isometry/stationary_residual_mean",
    ),
    Figure(
        "orthogonality",
        latents.orthogonality,
        "Do latents move the output in different directions?",
        "Mean |cosine| between the decoder's columns in the metric (Eq. 14): 0 is orthogonal, as "
        "theory asks; 1 means two latents do the same thing. The scale ends at the highest.",
        "isometry/cosine",
        (4.2, 3.5),
    ),
)
RATE_DISTORTION = (
    Figure(
        "rate_distortion",
        losses.rate_distortion,
        "Rate and distortion",
        "The grey curve predicts, from this model's spectrum (Eq. 92), what other values of beta "
        "would give. The coding loss (Eq. 54) should lie on it; what the distortion has on top is "
        "transform loss, which the decoder's capacity decides.",
        "rate-distortion/predicted_rate",
    ),
)
DENSITY = (
    Figure(
        "density_estimators",
        densities.density_estimators,
        "Do the two density estimates agree?",
        "One comes from the objective (Eq. 57), one from the prior and the sigmas (Eq. 19). A "
        "high correlation means either may rank samples by how likely they are.",
        "samples/log_density_metric_sigmas",
        (4.2, 3.4),
    ),
)
ANOMALY = (
    Figure(
        "anomaly_scores",
        anomalies.anomaly_scores,
        "Anomaly scores",
        "Samples by score (Eq. 3), the higher the odder; those right of the threshold are flagged.",
        "anomaly/threshold",
        rows=True,
    ),
    Figure(
        "anomaly_roc",
        anomalies.anomaly_roc,
        "Anomalies found against normals flagged",
        "The area is the chance that an anomaly scores above a normal sample.",
        "anomaly/auroc",
        (3.6, 3.6),
        rows=True,
    ),
    Figure(
        "anomaly_precision_recall",
        anomalies.anomaly_precision_recall,
        "Precision against recall",
        "With few anomalies this tells more than the ROC curve; chance reaches the dashed line.",
        "anomaly/auroc",
        (3.6, 3.4),
        rows=True,
    ),
)
EXAMPLES = (
    Figure(
        "reconstructions",
        rows.reconstructions,
        "Rows and what the decoder makes of them",
        "Rows spread over the data, above the decoded mean of each, on one scale of brightness; "
        "below, the expected distortion. If the two lines differ in brightness or contrast, the "
        "inputs are not scaled as in training.",
        "examples/spread_input",
        (6.2, 1.75),
    ),
    Figure(
        "worst_reconstructions",
        rows.worst_reconstructions,
        "The worst reconstructions",
        "The rows with the highest distortion, the worst first. What they share is what the model "
        "has not learnt, or a defect of the data.",
        "examples/worst_input",
        (6.2, 1.75),
    ),
    Figure(
        "likely_rows",
        rows.likely_rows,
        "The most likely rows, and the least",
        "Upper line: the rows with the lowest objective, which are the likeliest in the metric. "
        "Lower line: those with the highest, the oddest first.",
        "examples/likely_objective",
        (6.2, 1.75),
    ),
    Figure(
        "prior_samples",
        rows.prior_samples,
        "Samples of the prior",
        "Decoded draws from N(0, I). Where these look unlike the data while reconstructions are "
        "good, the encoder leaves part of the prior empty.",
        "examples/prior",
        (6.2, 1.75),
    ),
)
COORDINATES = (
    Figure(
        "coordinates",
        walks.coordinates,
        "Samples in isometric coordinates",
        "Distances here are distances in the metric (Eq. 16), so clusters and outliers look as "
        "large as they are.",
        "samples/y",
        (5.0, 5.0),
    ),
)
TRAVERSAL = (
    Figure(
        "traversal",
        walks.traversal,
        "What each latent does",
        "Decoded walks along the leading latents with all others held still, most important "
        "first; in brackets the mean inverse variance.",
        "traversal/images",
        (5.0, 4.6),
    ),
)
KL_PARTS = (
    Figure(
        "kl_parts",
        parts.kl_parts,
        "What the KL term pays for",
        "Each latent's KL is what it tells of the row, I(x; z_j), and how far its distribution "
        "over all rows is from the prior. Only the first part is code; the second is mismatch.",
        "kl-parts/information",
        (5.4, 3.4),
    ),
)
INFORMATION = (
    Figure(
        "information_bits",
        parts.information_bits,
        "Which latent carries which label or factor",
        "Bits that one latent alone tells of a label or factor. Blank cells may be nothing at "
        "all: two standard errors reach zero.",
        "information/bits",
        (5.4, 2.4),
    ),
    Figure(
        "probe_accuracy",
        parts.probe_accuracy,
        "How well a linear probe reads it off",
        "Held-out accuracy from the means of the k most informative latents, with its 95 % band. "
        "A probe that knows nothing reaches the dashed line.",
        "information/probe_accuracy",
    ),
    Figure(
        "probe_bits",
        parts.probe_bits,
        "How many bits a linear probe reads off",
        "Usable bits from the means of the k most informative latents; at the dashed line there "
        "is nothing left to tell. Means leave out the posterior's noise, so this may exceed what "
        "one latent carries.",
        "information/probe_bits",
    ),
)
TRUNCATION = (
    Figure(
        "truncation",
        parts.truncation,
        "How many latents are needed",
        "Distortion with only the k most important latents kept and the others held still. The "
        "dashed curve is what importance predicts; they part where latents act together.",
        "truncation/distortion",
    ),
    Figure(
        "truncation_pictures",
        parts.truncation_pictures,
        "Rows decoded from few latents",
        "The same rows from the k most important latents, and, last, the rows themselves.",
        "truncation/images",
        (5.0, 4.6),
    ),
)
MAPS = (
    Figure(
        "read_write",
        maps.read_write,
        "What each latent reads and writes",
        "Mean derivative of mu_j by the input, and of the output by z_j, each on its own scale: "
        "red raises, blue lowers. In brackets how far mu_j reads what the "
        "objective asks it to read, along the differences between rows: 1 is all of it.",
        "maps/write",
        (5.0, 2.4),
    ),
)
GEOMETRY = (
    Figure(
        "distances",
        parts.distances,
        "Is it isometric at a distance?",
        "Where y is isometric, dots lie on the dashed line: |dy| is the length of the shortest "
        "path. Triangles show |dz|, scaled to the same middle.",
        "geometry/geodesic",
        (4.4, 3.6),
    ),
    Figure(
        "shortest_paths",
        parts.shortest_paths,
        "Along the shortest path, and straight through z",
        "The most distant pairs of samples. Upper rows follow the shortest path between two, "
        "lower rows the straight line in z, both in steps of equal length in the metric.",
        "geometry/images_geodesic",
        (5.0, 6.2),
    ),
)

_OF = {
    "anomaly": ANOMALY,
    "coordinates": COORDINATES,
    "density": DENSITY,
    "examples": EXAMPLES,
    "geometry": GEOMETRY,
    "importance": IMPORTANCE,
    "information": INFORMATION,
    "isometry": ISOMETRY,
    "kl-parts": KL_PARTS,
    "maps": MAPS,
    "rate-distortion": RATE_DISTORTION,
    "traversal": TRAVERSAL,
    "truncation": TRUNCATION,
}


class WithFigures(Analysis):
    """An analysis whose figures stand here, by its name."""

    @classmethod
    def figures(cls) -> Sequence[Figure]:
        """What the report draws of it."""
        return _OF.get(cls.name, ())
