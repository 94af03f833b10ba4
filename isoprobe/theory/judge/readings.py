"""Tell whether another reading of the posterior head fits where the one in hand does not."""

from __future__ import annotations

import numpy as np

from isoprobe.theory.judge.answers import Condition, Finding, failing
from isoprobe.theory.judge.evidence import AS_READ, Evidence, TriedReading, worst_distortion
from isoprobe.theory.judge.words import moment_words, residual_words
from isoprobe.theory.tolerances import TOLERANCES


def fitting_reading(e: Evidence) -> TriedReading | None:
    """Find another reading of the posterior that fits where the one in hand does not.

    Args:
        e: the evidence, with trials.

    Returns:
        The best one; None where none is clearly better.
    """
    ours = next((t for t in e.trials if t.name == AS_READ), None)
    fitting: list[TriedReading] = []
    for trial in e.trials:
        if trial.name == AS_READ or trial.misfit > TOLERANCES["reading"].value:
            continue
        if e.baseline is not None and trial.distortion > 0.98 * e.baseline:
            continue
        if ours is not None and trial.distortion > worst_distortion(ours.distortion):
            continue
        if ours is None or trial.misfit < TOLERANCES["reading_ratio"].value * ours.misfit:
            fitting.append(trial)
    return min(fitting, key=lambda trial: _cost(e, trial), default=None)


def declaring_reading(e: Evidence) -> tuple[TriedReading, float] | None:
    """A reading that fits as well as the one in hand and shows the declared beta, and that beta."""
    ours = next((t for t in e.trials if t.name == AS_READ), None)
    if ours is None or e.declared is None or e.beta is None:
        return None
    found: list[tuple[float, TriedReading, float]] = []
    for trial in e.trials:
        # both were tried on the same few rows, so that their ratio is known better than either
        beta = e.beta.value.item() * trial.beta / ours.beta
        off = abs(float(np.log(beta / e.declared)))
        fits = trial.misfit < ours.misfit and trial.distortion <= worst_distortion(ours.distortion)
        if trial.name != AS_READ and fits and off <= TOLERANCES["beta"].value:
            found.append((off, trial, beta))
    if not found:
        return None
    _, reading, beta = min(found, key=lambda f: f[0])
    return reading, beta


def _cost(e: Evidence, reading: TriedReading) -> float:
    """How far a reading is from an optimum, and from the beta that is declared."""
    if e.declared is None:
        return reading.misfit
    return reading.misfit + abs(float(np.log(reading.beta / e.declared)))


def misread(e: Evidence, reading: TriedReading, reasons: list[str]) -> Finding:
    """Say that the posterior head is misread, and which reading fits."""
    ours = next((t for t in e.trials if t.name == AS_READ), None)
    first = (
        "; ".join(reasons) if reasons else "the posterior as read fits neither decoder nor prior"
    )
    then = f"misfit {reading.misfit:.2g}" + (f" for {ours.misfit:.2g}" if ours else "")
    shown = f"beta {reading.beta:.3g}"
    if e.declared is not None:
        shown += f", {e.declared:.3g} declared"
    causes: tuple[str, ...] = ("scale-head",)
    advice = "the posterior head is misread: declare its form (--option head=..., or the adapter's)"
    if e.fixed_scale:
        causes = ("scale-head", "fixed-scale")
        first += ", and sigma is the same for every row"
        advice = f"either {advice}; or sigma was fixed in training"
    return Finding(
        "scale-head", causes, f"{first}; it fits if {reading.name} ({then}; {shown})", advice
    )


def head(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Another reading of the head, where anything that rests on the head fails."""
    reading = fitting_reading(e)
    if reading is None:
        return [], []
    for name in ("residual", "second", "centre"):
        if name != "residual" and (e.spatial or e.own_draws):
            continue
        failed = failing(name, e.deviation(name), e.degrees())
        if not failed.any():
            continue
        mask = np.zeros_like(e.used)
        mask[e.used] = failed
        words = residual_words(e, mask) if name == "residual" else moment_words(e)
        return [], [misread(e, reading, [words])]
    return [], []
