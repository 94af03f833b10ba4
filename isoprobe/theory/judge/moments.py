"""Judge whether the codes fill the prior: E[mu^2 + sigma^2] = 1 and E[mu] = 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.theory.judge.answers import Answer, Condition, Finding, weigh
from isoprobe.theory.judge.words import moment_words, residual_size

if TYPE_CHECKING:
    from isoprobe.theory.judge.evidence import Evidence


def moments(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Does the data fill the prior: E[mu^2 + sigma^2] = 1 and E[mu] = 0."""
    if e.spatial or e.own_draws:
        return [], []
    second, centre = e.deviation("second"), e.centre.at(e.used)
    conditions = [
        weigh("second", second, e.degrees(), samples=e.samples),
        weigh("centre", centre, e.degrees(), samples=e.samples),
    ]
    if all(c.answer is not Answer.FAILS for c in conditions):
        return conditions, []
    if e.prior:
        return conditions, [_prior_unfilled(e)]
    if _alike(e):
        return conditions, [_other_prior(e)]
    return conditions, [
        Finding(
            "data",
            ("data", "prior", "training"),
            f"{moment_words(e)}, while {residual_size(e)}: these inputs do not fill the prior as "
            "the training's did",
            "give the training's data with its preprocessing (set, part, crop, scale, noise); if "
            "these are they, the prior was not N(0, 1) or the scale of the latents had not "
            "converged",
        )
    ]


def _prior_unfilled(e: Evidence) -> Finding:
    """The codes do not lie as a prior of the model's own has them."""
    return Finding(
        "data",
        ("data", "prior", "training"),
        f"{moment_words(e)}, while {residual_size(e)}: these inputs do not fill the prior, "
        f"{e.prior}, as the training's did",
        "give the training's data with its preprocessing (set, part, crop, scale, noise); if "
        "these are they, the prior is read in another form than it was trained in, or training "
        "had not converged",
    )


def _alike(e: Evidence) -> bool:
    """Whether all used latents are off in the same way, as another prior would have it."""
    second, centre = e.second.value[e.used], e.centre.value[e.used]
    if len(second) < 2:
        return False
    variance = second - centre**2
    same_width = variance.std() < 0.25 * abs(variance.mean() - 1) and abs(variance.mean() - 1) > 0.3
    same_centre = np.abs(centre).std() < 0.25 * np.abs(centre).mean() and abs(centre.mean()) > 0.5
    return bool(same_width or same_centre)


def _other_prior(e: Evidence) -> Finding:
    second, centre = e.second.value[e.used], e.centre.value[e.used]
    width = float((second - centre**2).mean())
    return Finding(
        "prior",
        ("prior", "data"),
        f"{moment_words(e)}, alike in all used latents, while {residual_size(e)}: the codes "
        f"fill N({centre.mean():.2g}, {width:.2g}) rather than N(0, 1)",
        "either the model was trained with another prior, which the rates and norms here do not "
        "know, or these inputs are not the training's",
    )
