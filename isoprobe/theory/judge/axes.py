"""Judge the decoder's columns: how strongly it answers, and whether latents lie along its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.theory.judge.answers import Answer, Condition, Finding, failing, weigh
from isoprobe.theory.judge.betas import beta_off, other_metrics
from isoprobe.theory.judge.readings import declaring_reading
from isoprobe.theory.judge.words import moment_words
from isoprobe.theory.tolerances import TOLERANCES

if TYPE_CHECKING:
    from isoprobe.theory.judge.evidence import Evidence


def gains(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Is the decoder's response to each latent as strong as it should be."""
    strong = e.strong() & (1 - e.variance > TOLERANCES["strong_gain"].value)
    gain = e.gain.at(strong)
    if not len(gain.value):
        return [], []
    condition = weigh("gain", gain, e.degrees(), samples=e.samples)
    if condition.answer is not Answer.FAILS:
        return [condition], []
    mask = np.zeros_like(e.used)
    mask[strong] = failing("gain", gain, e.degrees())
    worst = int(np.argmax(np.abs(np.where(mask, e.gain.value, 0))))
    words = (
        f"the decoder's response is off by {e.gain.value[worst]:+.0%} "
        f"(+-{2 * e.gain.se[worst]:.0%}) in latent {worst}, beyond tolerance in "
        f"{int(mask.sum())} of {int(strong.sum())} latents"
    )
    turned = _turned(e)
    if turned is not None:
        return [condition], [_rotated(e, turned)]
    causes: tuple[str, ...] = ("decoder", "data") if not e.own_draws else ("decoder",)
    advice = "the decoder is read in another way (an activation, batch norm, a layer, a column)"
    others, off = other_metrics(e), beta_off(e)
    if others or off:
        causes = (*causes, "metric", "beta")
        named = " or ".join(others)
        advice += f", or the metric is {named}" if others else f", or the metric is not {e.metric}"
        words += "" if not off else f"; {off}"
    reading = declaring_reading(e) if off else None
    if reading is not None:
        causes = (*causes, "scale-head")
        words += f", {reading[1]:.3g} if {reading[0].name}, which fits no worse"
        advice += ", or the posterior head is misread (--option head=..., or the adapter's)"
    if not e.own_draws:
        advice += ", or the inputs differ from the training's (noise, scale, a part of them)"
    advice += "; held-out rows of a model that knows its training rows by heart read the same"
    return [condition], [
        Finding("decoder", causes, words, f"either {advice}", tuple(map(int, np.flatnonzero(mask))))
    ]


def _turned(e: Evidence) -> Condition | None:
    """The worse of two conditions on pairs that fail: columns that mix, planes that are turned."""
    strong = e.strong()
    pairs = np.outer(strong, strong) & ~np.eye(len(strong), dtype=bool)
    conditions = [
        weigh(name, measured.at(chosen), e.degrees(), samples=e.samples)
        for name, measured, chosen in (
            ("mixing", e.mixing, pairs),
            ("turn", e.turn, np.triu(pairs)),
        )
        if measured is not None and chosen.any()
    ]
    failed = [c for c in conditions if c.answer is Answer.FAILS]
    return max(failed, key=lambda c: c.size / c.tolerance, default=None)


def axes(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Do latents lie along the decoder's axes."""
    turned = _turned(e)
    if turned is None:
        # mixing is evidence against, its absence is not asked for in order to call a model sound
        return [], []
    return [turned], [_rotated(e, turned)]


def _rotated(e: Evidence, c: Condition) -> Finding:
    off = beta_off(e)
    if off:
        metrics = " or ".join(other_metrics(e))
        return Finding(
            "rotated",
            ("rotated", "mismatch", "metric", "beta"),
            f"turning latents into each other would lower the loss under {e.metric} "
            f"({TOLERANCES[c.name].words} are off by {c.size:.2g} +-{c.error:.1g}, as a share of a "
            f"column), and {off}",
            f"either the metric is {metrics or f'not {e.metric}'}, or beta is in other units, and "
            "the latents are turned against the decoder's axes",
        )
    if e.uneasy("second", "centre"):
        return Finding(
            "data",
            ("data", "rotated", "mismatch"),
            f"{moment_words(e)}, and up to {c.size:.2g} (+-{c.error:.1g}) of a decoder column "
            "belongs to another latent",
            "either the inputs are not the training's (axes, channels, another set), or the "
            "latents are turned against the decoder's axes",
        )
    return Finding(
        "rotated",
        ("rotated", "mismatch"),
        f"turning latents into each other would lower the loss ({TOLERANCES[c.name].words} are off "
        f"by {c.size:.2g} +-{c.error:.1g}, as a share of a column): the latents are turned against "
        "the decoder's axes, so importances read off single latents mix",
        "read the eigenvalues of the conditions instead of single importances; if the weights were "
        "edited (rotated, permuted, merged), use the originals",
    )
