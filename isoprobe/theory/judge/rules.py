"""List the rules in the order in which they are asked, and pass one judgement from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.theory.judge.answers import LABELS, Answer, Condition, Finding, Level, Verdict
from isoprobe.theory.judge.axes import axes, gains
from isoprobe.theory.judge.betas import declared_beta
from isoprobe.theory.judge.moments import moments
from isoprobe.theory.judge.readings import head
from isoprobe.theory.judge.responses import responses
from isoprobe.theory.judge.structure import reconstruction
from isoprobe.theory.judge.words import listed, numbers, summed_up
from isoprobe.theory.stated import stated
from isoprobe.theory.tolerances import TOLERANCES

if TYPE_CHECKING:
    from isoprobe.theory.judge.evidence import Evidence


@dataclass(frozen=True)
class Rule:
    """A rule as data.

    Attributes:
        name: of the rule.
        keys: evidence it reads.
        apply: gives conditions and findings.
    """

    name: str
    keys: tuple[str, ...]
    apply: Callable[[Evidence], tuple[list[Condition], list[Finding]]]


_TRIP = ("variance", "round_trip", "expected_trip")
_MOMENTS = ("second", "centre")
_BETA = ("declared", "beta", "metrics", "metric", "families", "trials")
_GAINS = ("gain", *_TRIP, *_BETA)
_AXES = ("mixing", "turn", *_TRIP, *_MOMENTS, *_BETA)
_RESPONSES = (
    "beta",
    "beta_each",
    "residual",
    "answer",
    "variance",
    "fixed_scale",
    "objective",
    "metric",
)
#: in the order in which they are asked, the most fundamental first, until something is found
RULES: tuple[Rule, ...] = (
    Rule(
        "structure",
        (
            "distortion",
            "baseline",
            "loss",
            "answer",
            "variance",
            "code_fit",
            *_BETA,
            *_TRIP,
            *_MOMENTS,
        ),
        reconstruction,
    ),
    Rule(
        "head",
        ("trials", "baseline", "residual", "fixed_scale", *_MOMENTS, "declared", "beta"),
        head,
    ),
    Rule("moments", (*_MOMENTS, "residual"), moments),
    Rule("responses", _RESPONSES, responses),
    Rule("gains", (*_GAINS, *_AXES), gains),
    Rule("axes", _AXES, axes),
    Rule("declared beta", (*_GAINS, *_MOMENTS), declared_beta),
)


@stated("Verdict")
def judge(e: Evidence) -> Verdict:
    """Apply the rules.

    Args:
        e: the evidence.

    Returns:
        The verdict.
    """
    conditions: list[Condition] = []
    findings: list[Finding] = []
    labels = [
        "rare" if r else "collapsed" if not u else "mixed" if m else "active"
        for u, m, r in zip(e.used, e.mixed, _rarely_used(e), strict=True)
    ]
    if not e.used.any():
        findings.append(_collapsed(e))
        return _verdict(e, findings, [], conditions, labels)
    for rule in RULES:
        condition, found = rule.apply(e)
        conditions += condition
        findings += found
        if findings:
            break
    if e.held is not None:
        labels = ["active" if h else label for h, label in zip(e.held, labels, strict=True)]
    for finding in findings:
        if finding.code in LABELS:
            for latent in finding.latents:
                labels[latent] = finding.code
    remarks = [] if findings else list(_remarks(e))
    return _verdict(e, findings, remarks, conditions, labels)


def _verdict(
    e: Evidence,
    findings: list[Finding],
    remarks: list[Finding],
    conditions: list[Condition],
    labels: list[str],
) -> Verdict:
    undecided = any(c.answer is Answer.CANNOT_TELL for c in conditions)
    open_level = Level.UNDECIDED if undecided else Level.SOUND
    level = Level.NOT_SOUND if findings else open_level
    return Verdict(
        level,
        tuple(findings),
        tuple(remarks),
        tuple(conditions),
        tuple(labels),
        summed_up(e, level, conditions),
    )


def _rarely_used(e: Evidence) -> np.ndarray:
    """Latents that count as idle and yet code single rows."""
    idle = ~e.used if e.held is None else ~e.used & ~e.held
    rare: np.ndarray = idle & (e.rate_most - e.rate > TOLERANCES["rare_rate"].value)
    return rare


def _constraint(e: Evidence) -> Iterator[Finding]:
    """What beta means where the objective holds rates at a target."""
    assert e.beta is not None  # noqa: S101 - without it something was found
    beta = e.beta.value.item()
    if e.capacity is not None:
        yield Finding(
            "constraint",
            ("objective",),
            f"the objective is {e.objective}: E KL is {e.rate.sum():.3g} nats, and beta {beta:.3g} "
            "is the weight of the KL that balances the distortion there",
            "read beta as the slope of distortion against rate at that rate, and not as gamma, "
            "which only has to be larger",
        )
    elif e.free_bits is not None:
        held = np.zeros_like(e.used) if e.held is None else e.held
        named = f"; latents {numbers(held)} rest there and are not judged" if held.any() else ""
        yield Finding(
            "constraint",
            ("objective",),
            f"the objective is {e.objective}: beta {beta:.3g} is that of latents above it{named}",
            "norms and importances of latents at the floor have a smaller beta of their own",
            tuple(int(i) for i in np.flatnonzero(held)),
        )


def _remarks(e: Evidence) -> Iterator[Finding]:
    yield from _constraint(e)
    rare = _rarely_used(e)
    if rare.any():
        yield Finding(
            "rare",
            ("rare",),
            f"latents {numbers(rare)} count as idle, and yet single rows use them (up to "
            f"{listed(e.rate_most[rare])} nats in a row, {listed(e.rate[rare])} on average)",
            "look at those rows (samples/kl): pooled figures and importances leave these latents "
            "out, and fewer than 2,000 rows would not show them",
            tuple(int(i) for i in np.flatnonzero(rare)),
        )
    if e.beta is not None and e.beta_pullback is not None:
        ratio = e.beta_pullback.value.item() / e.beta.value.item()
        high = TOLERANCES["curved"].value
        if ratio > high or ratio < 1 / high:
            yield Finding(
                "curved",
                ("curved",),
                f"beta by the pullback is {ratio:.2f} times beta by stationarity: the decoder "
                "bends within one sigma, or reconstructs far from the inputs",
                "trust the stationary figures; expansions at a point (norms, volumes, cosines) "
                "are rough here",
            )


def _collapsed(e: Evidence) -> Finding:
    idle = e.rate.sum() > TOLERANCES["idle_rate"].value
    causes = ("collapsed", "scale-head", "data")
    told = "the encoder gives the same answer whatever it sees"
    if idle:
        told += f", yet not the prior ({e.width} {listed(e.variance)})"
    return Finding(
        "collapsed",
        (*causes, "objective", "idle") if idle else causes,
        f"the rate is {e.rate.sum():.3g} nats over {len(e.used)} latents, and no latent's mean "
        f"moves: {told}",
        "check the preprocessing and the reading of the scale head ('isoprobe doctor MODEL --data "
        "SPEC' tries readings); if those are right, beta was too large for the data's variance "
        "(above 2 Var(y)), or training fell into collapse"
        + (", held off the prior by a capacity or free-bits term" if idle else ""),
    )
