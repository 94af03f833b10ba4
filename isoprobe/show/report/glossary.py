"""Define the words of the report, with their formulas and where the code keeps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One entry.

    Attributes:
        name: the word.
        formula: in plain characters.
        meaning: a sentence or two.
        source: equation of the paper, or that it goes beyond it.
    """

    name: str
    formula: str
    meaning: str
    source: str


GLOSSARY = (
    Term(
        "objective",
        "L = E D(x, x̂) + β Σⱼ KLⱼ",
        "What training minimised: distortion, summed over input dimensions, plus β times the rate.",
        "Eq. 3",
    ),
    Term(
        "metric",
        "D(x, x + δ) ≈ D(x, x) + δᵀ G δ",
        "The distortion D, and G, half its second derivative: what counts as near.",
        "Eq. 9 to 11",
    ),
    Term(
        "norm",
        "normⱼ = (2/β) σⱼ² Dec′ⱼᵀ G Dec′ⱼ",
        "How far the output moves, in the metric, when latent j moves by one isometric unit. "
        "Near 1 for used latents, 0 for unused ones.",
        "Eq. 23",
    ),
    Term(
        "residual",
        "rⱼ = normⱼ + σⱼ² − 1",
        "Zero for every latent of an optimal model, used or not: the honest test of isometry.",
        "beyond the paper",
    ),
    Term(
        "stationarity",
        "E[σⱼ εⱼ ∂D/∂zⱼ] = β (1 − σⱼ²)",
        "The same condition without any expansion, from random draws of the posterior. It holds "
        "for losses that have no metric tensor, too, and gives the best estimate of β.",
        "beyond the paper",
    ),
    Term(
        "isometric coordinate",
        "yⱼ = ∫₀^μⱼ √(β/2) / σⱼ(t) dt",
        "A rescaled latent in which Euclidean distance is distance in the metric.",
        "Eq. 16, 67",
    ),
    Term(
        "importance",
        "Var(yⱼ); roughly (β/2) E[σⱼ⁻²]",
        "The variance a latent accounts for, as an eigenvalue does in PCA. The rough form is an "
        "upper bound of it for an ideal model.",
        "Eq. 22, 67",
    ),
    Term(
        "rate",
        "KLⱼ = (μⱼ² + σⱼ² − ln σⱼ² − 1) / 2",
        "Information a latent carries about one sample; one nat is 1.44 bits.",
        "Eq. 2",
    ),
    Term(
        "active, mixed, collapsed",
        "E[KLⱼ] above a threshold",
        "Carries information; carries it for some samples only; repeats the prior.",
        "Prop. 3",
    ),
    Term(
        "water line",
        "β/2",
        "A latent pays for itself while its variance is above this; raising β drowns the weakest "
        "latents first.",
        "Eq. 92",
    ),
    Term(
        "orthogonality",
        "cos = Dec′ⱼᵀ G Dec′ₖ / (‖Dec′ⱼ‖ ‖Dec′ₖ‖)",
        "Whether two latents move the output in different directions. The Hadamard gap is 0 "
        "exactly when all do.",
        "Eq. 14",
    ),
    Term(
        "coding and transform loss",
        "D(x̌, x̂) ≈ n β/2;  D(x, x̌)",
        "What the noise of the latents costs, and what the decoder cannot express; x̌ is the "
        "decoded mean.",
        "Eq. 9, 54, 62",
    ),
    Term(
        "density",
        "ln p(x) = −L/β + const",
        "How likely a sample is relative to a volume: that of the metric, or of the input.",
        "Eq. 19 to 21",
    ),
)
