"""Speak for a result: one level, one headline and what stands behind them.

The judge's words are stored in the result (:mod:`isoprobe.theory.judge`); whatever prints a verdict
(terminal, JSON, page, comparison, notebook) repeats them from here, and adds nothing of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoprobe.errors import worded
from isoprobe.show.shown import column, number, plain
from isoprobe.theory.tolerances import TOLERANCES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isoprobe.show.shown import Readable, Shelf

#: correlation of the two density estimates from which they count as agreeing
DENSITIES_AGREE = 0.9
#: level -> class of the page and colour of the terminal
MANNERS = {"sound": "good", "undecided": "care", "not sound": "bad", "not judged": "care"}


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
        level: ``sound``, ``undecided``, ``not sound`` or ``not judged``.
        headline: the verdict in a few words.
        meaning: what the numbers mean together, a sentence or two.
        findings: what is wrong; empty also where nothing looked for it.
        trusted: what holds, each with its size, error and tolerance.
        doubts: what to distrust, a sentence each.
    """

    level: str
    headline: str
    meaning: str
    findings: tuple[Finding, ...]
    trusted: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def manner(self) -> str:
        """How it is drawn: ``good``, ``care`` or ``bad``."""
        return MANNERS.get(self.level, "care")

    def __str__(self) -> str:
        said = [f"{self.headline}. {self.meaning}"]
        said += [f"{found.code}: {found.evidence}. Do: {found.advice}." for found in self.findings]
        return "\n".join([*said, *self.doubts])


def voice(result: Readable) -> Voice:
    """Repeat what the judge said of a result.

    Args:
        result: a complete result.

    Returns:
        What everyone who speaks of it repeats.
    """
    if "diagnosis" not in result.groups() or "level" not in result["diagnosis"]:
        return _unjudged(result)
    group = result["diagnosis"]
    level, meaning = (str(group[name].values) for name in ("level", "meaning"))
    findings = tuple(_texts(group, ("finding", "evidence", "advice")))
    remarks = _texts(group, ("remark", "remark_evidence", "remark_advice"))
    doubts = [*_inputs(result), *(f"{r.evidence}. {_sentence(r.advice)}" for r in remarks)]
    return Voice(
        level=level,
        headline=f"Not sound: {findings[0].code}" if findings else level.capitalize(),
        meaning=meaning,
        findings=findings,
        trusted=tuple(_held(result)),
        doubts=tuple(_sentence(doubt) for doubt in doubts),
    )


def _unjudged(result: Readable) -> Voice:
    """Count latents, and say that nobody judged; older files hold a verdict without a level."""
    active = column(result, "overview/active")
    said = f"{sum(map(bool, active))} of {len(active)} latents are used."
    judged = "diagnosis" in result.groups()
    group: Shelf | dict[str, Any] = result["diagnosis"] if judged else {}
    findings = tuple(_texts(group, ("finding", "evidence", "advice")))
    if findings:
        return Voice("not sound", f"Not sound: {findings[0].code}", said, findings, (), ())
    if group:
        return Voice("sound", "Sound", said, (), (), tuple(_inputs(result)))
    return Voice("not judged", "Not judged", said, (), (), tuple(_inputs(result)))


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


def _texts(group: Shelf | dict[str, Any], names: tuple[str, str, str]) -> Iterator[Finding]:
    if all(name in group for name in names):
        columns = (group[name].values for name in names)
        for code, evidence, advice in zip(*columns, strict=True):
            yield Finding(str(code), worded(str(evidence)), worded(str(advice)))


def _inputs(result: Readable) -> Iterator[str]:
    """Say where the inputs are no data."""
    if str(result.attrs.get("data")).partition(":")[0] == "prior":
        yield worded(
            "No data was used: the inputs are decoded from the prior, so every figure describes "
            "the model's own samples. Give --data for the real ones."
        )


def _held(result: Readable) -> Iterator[str]:
    """Say what holds, and by how much."""
    group = result["diagnosis"]
    names = ("condition", "answer", "size", "error", "tolerance")
    if all(name in group for name in names):
        for name, answer, size, error, tolerance in zip(
            *(group[key].values for key in names), strict=True
        ):
            known = TOLERANCES.get(str(name))
            if answer == "holds" and known is not None:
                words = _sentence(known.words).removesuffix(".")
                yield f"{words}: {size:.2g} (+-{error:.1g}) at most, within {tolerance:.2g}."
    agreement = number(result, "density/estimator_correlation")
    if agreement is not None and agreement >= DENSITIES_AGREE:
        yield f"Ranking by density: two estimates correlate at {agreement:.2f}."


def _sentence(text: str) -> str:
    text = text if text.endswith(".") else f"{text}."
    return text[:1].upper() + text[1:]
