"""Speaks for a result: one level, one headline and what stands behind them.

Whatever prints a verdict (terminal, JSON, page, comparison) repeats what is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from isoprobe.show.shown import column, number, plain
from isoprobe.show.verdict import AGREE, ISOMETRIC, ORTHOGONAL, Reading, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isoprobe.show.shown import Readable

#: correlation of the two density estimates from which they count as agreeing
DENSITIES_AGREE = 0.9


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        code: one word for it.
        evidence: the numbers that show it.
        advice: what to do.
    """

    code: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class Voice:
    """What is said of a result.

    Attributes:
        level: ``good``, ``care`` or ``bad``.
        headline: the verdict in a few words.
        meaning: what the numbers mean together, a sentence or two.
        findings: what is wrong; empty also where nothing looked for it.
        trusted: what the evidence supports, a sentence each.
        doubts: what to distrust, a sentence each.
    """

    level: str
    headline: str
    meaning: str
    findings: tuple[Finding, ...]
    trusted: tuple[str, ...]
    doubts: tuple[str, ...]


def voice(result: Readable) -> Voice:
    """Judge a result, in words.

    Args:
        result: a complete result.

    Returns:
        What everyone who speaks of it repeats.
    """
    read, diagnosed = _reading(result), "diagnosis" in result.groups()
    findings = tuple(_findings(result)) if diagnosed else ()
    said = verdict(read, diagnosed=diagnosed)
    level, headline = _status(read, findings, said.doubts)
    trusted = tuple(_trusted(result, read, settled=diagnosed and not findings))
    return Voice(level, headline, said.meaning, findings, trusted, tuple(said.doubts))


def known_beta(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of beta as plain values, None for what is not.

    Args:
        attrs: root attributes of a result.

    Returns:
        The part ``beta`` of the JSON.
    """
    interval = attrs.get("beta_ci95")
    ends = None if interval is None else [plain(end) for end in interval]
    return {
        "value": plain(attrs.get("beta")),
        "source": attrs.get("beta_source"),
        "declared": plain(attrs.get("beta_declared")),
        "recovered": plain(attrs.get("beta_recovered")),
        "ci95": None if ends is None or None in ends else ends,
        "recovered_pullback": plain(attrs.get("beta_recovered_pullback")),
    }


def _status(read: Reading, findings: tuple[Finding, ...], doubts: list[str]) -> tuple[str, str]:
    if not read.active:
        return "bad", "Nothing learnt"
    if findings:
        return "bad", f"Not sound: {findings[0].code}"
    return ("care", "Usable, with care") if doubts else ("good", "Sound")


def _findings(result: Readable) -> Iterator[Finding]:
    group = result["diagnosis"]
    parts = [group[name].values for name in ("finding", "evidence", "advice") if name in group]
    for code, evidence, advice in zip(*parts, strict=True):
        yield Finding(str(code), str(evidence), str(advice))


def _reading(result: Readable) -> Reading:
    """The numbers a verdict rests on."""
    active = column(result, "overview/active")

    def finite(place: str) -> tuple[float, ...]:
        values = zip(column(result, place), active, strict=True)
        return tuple(value for value, used in values if used and value is not None)

    return Reading(
        active=sum(map(bool, active)),
        latents=len(active),
        residuals=finite("isometry/residual_mean"),
        stationary_residuals=finite("isometry/stationary_residual_mean"),
        betas=finite("isometry/beta_recovered"),
        beta=known_beta(result.attrs),
        cosine=number(result, "isometry/cosine_mean_abs"),
        data=str(result.attrs.get("data")),
        samples=int(plain(result.attrs.get("samples")) or 0),
        distortion=number(result, "overview/distortion_transform_mean"),
        baseline=plain(result.attrs.get("mean_input_distortion")),
    )


def _trusted(result: Readable, read: Reading, *, settled: bool) -> Iterator[str]:
    if settled and read.active:
        yield "Convergence: rate, sigma and decoder fit each other as at an optimum."
    if read.active and read.residuals and _mean_abs(read.residuals) <= ISOMETRIC:
        yield (
            "Importance and shares: norm + sigma^2 is 1 to within "
            f"{_mean_abs(read.residuals):.2f} on average over active latents."
        )
    stationary = read.stationary_residuals
    if read.active and stationary and _mean_abs(stationary) <= ISOMETRIC:
        yield (
            "Convergence: stationarity gives norm + sigma^2 = 1 to within "
            f"{_mean_abs(stationary):.2f}, with no expansion involved."
        )
    declared, recovered = read.beta["declared"], read.beta["recovered"]
    if declared and recovered and abs(declared / recovered - 1) <= AGREE:
        yield f"beta: declared {declared:.4g}, and the weights show {recovered:.4g}."
    if read.active > 1 and read.cosine is not None and read.cosine <= ORTHOGONAL:
        yield f"Latents act in separate directions: mean |cosine| {read.cosine:.2f}."
    agreement = number(result, "density/estimator_correlation")
    if agreement is not None and agreement >= DENSITIES_AGREE:
        yield f"Ranking by density: two independent estimates correlate at {agreement:.2f}."


def _mean_abs(values: tuple[float, ...]) -> float:
    return fmean(map(abs, values))
