"""Judge a declared beta against the one that the weights show, under this metric and others."""

from __future__ import annotations

import numpy as np

from isoprobe.theory.judge.answers import Answer, Condition, Finding, weigh
from isoprobe.theory.judge.evidence import Evidence, Measured, TriedReading
from isoprobe.theory.judge.readings import declaring_reading
from isoprobe.theory.judge.words import moment_words
from isoprobe.theory.tolerances import TOLERANCES


def declared_beta(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """The declared beta against what the weights show."""
    if e.declared is None or e.beta is None or not e.beta.value.item() > 0:
        return [], []
    beta, error = e.beta.value.item(), e.beta.se.item()
    ratio = beta / e.declared
    deviation = Measured.of(np.log(ratio), error / beta)
    condition = weigh("beta", deviation, e.degrees(), samples=e.samples)
    if condition.answer is not Answer.FAILS:
        return [condition], []
    shown = (
        f"beta {e.declared:.3g} is declared; under {e.metric} the weights show "
        f"{beta:.3g} (+-{2 * error:.1g}), {ratio:.3g} times as much"
    )
    code, causes = "beta", ["beta"]
    either = [
        f"beta is off by {ratio:.2g} or in other units (a mean for a sum, a factor 0.5; "
        "--beta auto takes what is shown)"
    ]
    metrics = other_metrics(e)
    if metrics:
        code, causes = "metric", ["metric", "beta"]
        under = ", ".join(f"{spec} {e.metrics[spec].beta:.3g}" for spec in metrics)
        shown += f"; under other metrics they show: {under}"
        use = " or ".join(f"--metric {spec}" for spec in metrics)
        either.append(f"the metric is {' or '.join(metrics)} ({use})")
    reading = declaring_reading(e)
    if reading is not None:
        code, causes = ("scale-head" if code == "beta" else code), [*causes, "scale-head"]
        shown += f"; {reading[1]:.3g}, and no worse a fit, if {reading[0].name}"
        either.append("the posterior head is misread (--option head=..., or the adapter's)")
    if code == "beta":
        causes += ["metric", "objective"]
        either += [
            "the metric is none of those tried",
            "the objective weighs the KL term in another way (capacity, free bits)",
        ]
    if e.uneasy("second", "centre", "gain"):
        causes.append("data")
        shown += f"; {_uneasy_words(e)}"
        either.append("the inputs differ from the training's (noise, scale, a part of them)")
    advice = f"either {', or '.join(either)}: the weights cannot tell these apart"
    return [condition], [Finding(code, tuple(causes), shown, advice)]


def _uneasy_words(e: Evidence) -> str:
    """What is off by more than half of its tolerance, in words."""
    if e.uneasy("second", "centre"):
        return moment_words(e)
    worst = int(np.argmax(np.abs(np.where(e.strong(), e.gain.value, 0))))
    return (
        f"the decoder's response is off by {e.gain.value[worst]:+.0%} "
        f"(+-{2 * e.gain.se[worst]:.0%}) in latent {worst}"
    )


def beta_off(e: Evidence) -> str:
    """The declared beta beside the recovered one, in words, where they differ by a half."""
    if e.declared is None or e.beta is None or not e.beta.value.item() > 0:
        return ""
    beta = e.beta.value.item()
    if abs(np.log(beta / e.declared)) < np.log(1.5):
        return ""
    return f"beta {e.declared:.3g} is declared, {beta:.3g} shown under {e.metric}"


def worst_moment(e: Evidence, ours: TriedReading | None) -> float:
    """Most departure of the moments at which another reading could still be preferred.

    A reading's misfit is at least that of its moments, which are known without the decoder.

    Args:
        e: the evidence, as yet without trials.
        ours: how the reading in hand fits; None where it gives no numbers.

    Returns:
        Mean |E[mu_j^2 + sigma_j^2] - 1| over used latents, beyond which neither
        ``fitting_reading`` nor ``declaring_reading`` takes a reading.
    """
    most = TOLERANCES["reading"].value
    if ours is None:
        return most
    fits = min(most, TOLERANCES["reading_ratio"].value * ours.misfit)
    wanted = bool(beta_off(e)) or bool(declared_beta(e)[1])  # those who ask for a declaring one
    return max(fits, ours.misfit) if wanted else fits


def of_other_families(e: Evidence) -> list[str]:
    """Metrics tried that are no scaling of the one in use."""
    ours = e.families.get(e.metric, "")
    return [
        spec
        for spec in e.metrics
        if spec != e.metric and not (ours and e.families.get(spec) == ours)
    ]


def other_metrics(e: Evidence) -> list[str]:
    """Metrics of other families whose beta lies near the declared one, the nearest first."""
    if e.declared is None:
        return []
    off = {
        spec: abs(float(np.log(e.metrics[spec].beta / e.declared)))
        for spec in of_other_families(e)
        if e.metrics[spec].beta > 0
    }
    near = [spec for spec in off if off[spec] <= TOLERANCES["beta"].value]
    return sorted(near, key=lambda spec: off[spec])
