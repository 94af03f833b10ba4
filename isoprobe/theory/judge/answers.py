"""Answer one condition by the size of a deviation beside its tolerance; name what may be found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.statistics.quantiles import corrected
from isoprobe.theory.tolerances import TOLERANCES

if TYPE_CHECKING:
    from isoprobe.theory.judge.evidence import Measured

LABELS = ("active", "mixed", "collapsed", "rare", "decoder-dead", "encoder-mismatched")


#: short names of findings and remarks, with what each means
CODES = {
    "collapsed": "no latent carries information",
    "reconstruction": "reconstructs no better than the mean input",
    "own-samples": "the encoder does not know the decoder's own samples",
    "scale-head": "the posterior head is read in another form than it was trained in",
    "decoder-dead": "the decoder does not answer to a latent that the encoder fills",
    "encoder-mismatched": "sigma of a latent does not fit the decoder",
    "data": "the inputs do not fill the prior as the training's did",
    "prior": "the posterior fills another prior than N(0, 1)",
    "decoder": "the decoder's response is too strong or too weak",
    "rotated": "latents are turned against the decoder's axes",
    "disagreement": "the latents disagree about beta",
    "fixed-scale": "sigma is the same for every row",
    "beta": "the declared beta is not what the weights show",
    "metric": "another metric explains the declared beta",
    "curved": "the decoder bends within one sigma",
    "rare": "single rows use a latent that counts as idle",
    "constraint": "the objective holds rates at a target, which says what beta is",
}


class Answer(StrEnum):
    """What a rule says."""

    FAILS = "fails"
    HOLDS = "holds"
    CANNOT_TELL = "cannot tell"


class Level(StrEnum):
    """What all rules say together."""

    SOUND = "sound"
    UNDECIDED = "undecided"
    NOT_SOUND = "not sound"


@dataclass(frozen=True)
class Condition:
    """One rule's answer.

    Attributes:
        name: of the rule.
        answer: fails, holds, or cannot tell.
        size: the largest value, in the units of its tolerance.
        error: half width of its interval.
        tolerance: what it is compared with.
        needed: rows with which it could be told, where it cannot; else 0.
    """

    name: str
    answer: Answer
    size: float
    error: float
    tolerance: float
    needed: int


@dataclass(frozen=True)
class Finding:
    """Something wrong, with its evidence and what to do.

    Attributes:
        code: short name, one of :data:`CODES`.
        causes: what may lie behind it, short names; several where the numbers cannot tell.
        evidence: the figures with their errors, a sentence.
        advice: what to do, a sentence.
        latents: which latents it concerns; empty for the whole model.
    """

    code: str
    causes: tuple[str, ...]
    evidence: str
    advice: str
    latents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The judgement.

    Attributes:
        level: sound, undecided or not sound.
        findings: what is wrong, most fundamental first.
        remarks: what is worth knowing and no defect, as findings.
        conditions: every rule's answer.
        labels: of each latent.
        meaning: one sentence that states sizes.
    """

    level: Level
    findings: tuple[Finding, ...]
    remarks: tuple[Finding, ...]
    conditions: tuple[Condition, ...]
    labels: tuple[str, ...]
    meaning: str


def weigh(name: str, measured: Measured, degrees: int, *, samples: int) -> Condition:
    """Compare sizes with a tolerance; the largest decides.

    One that fails is looked for among all, so its interval is corrected for their number. All hold
    where each does, which the plain 95 % interval of each says.

    Args:
        name: of the tolerance.
        measured: deviations from what should be, with standard errors.
        degrees: of freedom of those errors.
        samples: rows that they rest on.

    Returns:
        The answer.
    """
    tolerance = TOLERANCES[name].value
    size = np.abs(measured.value)
    se = np.where(np.isfinite(measured.se), measured.se, np.inf)
    width = corrected(len(size), degrees) * se
    low = size - width
    if np.any(low > tolerance):
        worst = int(np.argmax(low))
        answer = Answer.FAILS
    else:
        width = corrected(1, degrees) * se
        high = size + width
        worst = int(np.argmax(high))
        answer = Answer.HOLDS if np.all(high <= tolerance) else Answer.CANNOT_TELL
    needed = 0
    if answer is Answer.CANNOT_TELL:
        gap = abs(tolerance - float(size[worst]))
        share = float(width[worst]) / max(gap, 0.05 * tolerance)
        needed = int(min(np.ceil(samples * share**2), 10**9)) if np.isfinite(share) else 10**9
    return Condition(name, answer, float(size[worst]), float(width[worst]), tolerance, needed)


def failing(name: str, measured: Measured, degrees: int) -> np.ndarray:
    """Mask of the values that fail, each corrected for their number."""
    width = corrected(len(measured.value), degrees) * measured.se
    mask: np.ndarray = np.abs(measured.value) - width > TOLERANCES[name].value
    return mask
