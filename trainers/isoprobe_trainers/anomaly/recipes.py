"""Hold Table 5 as data: network, losses and schedule of each data set (Appendix H)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from isoprobe.errors import OptionError, nearest
from isoprobe_trainers.common.training import Schedule

#: models are kept this many times during a training (H.2)
KEPT = 10


@dataclass(frozen=True)
class Recipe:
    """How a data set's models are made: lambda1 D_t(x, x_check) + lambda2 SSE(x_check, x_hat) + KL.

    Attributes:
        name: data set.
        widths: hidden widths of the encoder; the decoder's are these reversed.
        latents: latent size n.
        activation: ``leaky_relu`` or ``tanh``.
        transform: metric of the transform loss D_t, ``l2`` (norm, not squared) or ``sse``.
        lambda1: weight of the transform loss.
        lambda2: weight of the coding loss; beta = 1 / lambda2.
        epochs: passes over the training rows.
        contamination: share of the test rows taken for anomalies, as the paper has it.
        reduction: ``sum`` or ``mean`` over the inputs, for both losses.
        rate: of Adam.
        cosine: let the rate fall to 0 along a half cosine, epoch by epoch.
        merge: compute equal rows of a batch once, weighted by their number; they share their draw
            of z, which leaves the gradient's expectation as it is.
        batch: rows of a step.
    """

    name: str
    widths: tuple[int, ...]
    latents: int
    activation: str
    transform: str
    lambda1: float
    lambda2: float
    epochs: int
    contamination: float
    reduction: str = "sum"
    rate: float = 1e-4
    cosine: bool = False
    merge: bool = False
    batch: int = 1024

    def __post_init__(self) -> None:
        if self.epochs < KEPT:
            raise OptionError(
                f"a training of {self.epochs} epochs has no {KEPT} models to keep; expected at "
                f"least {KEPT} epochs"
            )

    @property
    def schedule(self) -> Schedule:
        """How long and how fast to train."""
        return Schedule(self.epochs, self.batch, self.rate, self.cosine)

    def at(self, fraction: float) -> Recipe:
        """Return the recipe with a fraction of its epochs.

        Raises:
            OptionError: for a fraction outside (0, 1], or one that leaves too few epochs.
        """
        if not 0 < fraction <= 1:
            raise OptionError(f"--fraction lies between 0 and 1; found {fraction:g}")
        return replace(self, epochs=round(fraction * self.epochs))

    def scale(self, inputs: int) -> float:
        """Factor on both losses that the reduction stands for."""
        return 1.0 if self.reduction == "sum" else 1 / inputs

    def record(self) -> dict[str, Any]:
        """The recipe as plain values; the batch stands beside it in records."""
        values = {**asdict(self), "widths": list(self.widths)}
        del values["batch"]
        return values


#: fraction of the epochs that :func:`short` keeps
_SHORT = {"kddcup99": 0.3, "thyroid": 0.1, "arrhythmia": 0.04, "kddcup-rev": 0.03}
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("kddcup99", (200, 100), 10, "leaky_relu", "l2", 30000, 6000, 600, 0.2, merge=True),
        Recipe("thyroid", (60, 30), 6, "leaky_relu", "l2", 6000, 18000, 40000, 0.025),
        Recipe("arrhythmia", (200, 100), 50, "leaky_relu", "l2", 6000, 24000, 30000, 0.15),
        Recipe("kddcup-rev", (200, 50), 20, "tanh", "sse", 30000, 6000, 600, 0.2, merge=True),
    )
}


def short(recipe: Recipe) -> Recipe:
    """Return the recipe with the part of its schedule that two cores get through in minutes.

    KDDCup99 starts with ten times the rate, which then falls to 0: at the constant rate of the
    paper its attacks of rare kinds are still being learnt when the full schedule ends. The others
    keep the rate.
    """
    shortened = recipe.at(_SHORT[recipe.name])
    if recipe.name == "kddcup99":
        return replace(shortened, rate=1e-3, cosine=True)
    return shortened


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a data set.

    Raises:
        OptionError: when there is none.
    """
    if name not in RECIPES:
        hint = nearest(name, list(RECIPES))
        raise OptionError(f"no anomaly data set '{name}'{hint}; known: {', '.join(RECIPES)}")
    return RECIPES[name]
