"""Count verdicts and print them as tables with Wilson intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

#: two-sided 95 % quantile of the normal
Z = 1.959963984540054
SOUND = ("sound", "undecided", "accused")
FAULTS = ("named", "sound", "other", "undecided")
#: groups that stand for themselves and are in no bar
APART = ("training",)
UNTOUCHED = ("sound", "biased")


@dataclass(frozen=True)
class Run:
    """One verdict.

    Attributes:
        case: name of the case.
        model: name of the model.
        group: row of the table of kinds.
        half: 1 or 2.
        part: ``train`` or ``test``.
        n: rows judged on.
        draw: which subsample.
        level: of the verdict.
        findings: their names.
        causes: that they name.
        right: causes of the fault.
        outcome: of :data:`FAULTS` for a fault, of :data:`SOUND` for a model as it is.
        text: everything said.
        seconds: CPU time.
    """

    case: str
    model: str
    group: str
    half: int
    part: str
    n: int
    draw: int
    level: str
    findings: tuple[str, ...]
    causes: tuple[str, ...]
    right: tuple[str, ...]
    outcome: str
    text: str
    seconds: float


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share.

    Args:
        hits: how many.
        trials: of how many, at least one.

    Returns:
        Lower and upper end.
    """
    share = hits / trials
    center = share + Z**2 / (2 * trials)
    half = Z * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    scale = 1 + Z**2 / trials
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def share(hits: int, trials: int) -> str:
    """Write a share as ``91 % (85-95)``."""
    if not trials:
        return "-"
    low, high = wilson(hits, trials)
    return f"{100 * hits / trials:.1f} % ({100 * low:.0f}-{100 * high:.0f})"


def confusion(runs: Sequence[Run]) -> Iterator[str]:
    """Write the confusion matrix: models as they are, faults together, faults by group.

    Args:
        runs: verdicts.

    Yields:
        The next line.
    """
    sizes = sorted({run.n for run in runs})
    yield f"{'models as they are':<26} {'n':>5} {'runs':>5}" + _header(SOUND)
    for group in UNTOUCHED:
        for n in sizes:
            yield from _row(group, n, SOUND, (r for r in runs if r.group == group and r.n == n))
    yield ""
    yield f"{'faults':<26} {'n':>5} {'runs':>5}" + _header(FAULTS)
    faults = [run for run in runs if run.group not in (*UNTOUCHED, *APART)]
    for n in sizes:
        yield from _row("all", n, FAULTS, (r for r in faults if r.n == n))
    for group in dict.fromkeys(run.group for run in faults):
        for n in sizes:
            yield from _row(group, n, FAULTS, (r for r in faults if r.group == group and r.n == n))
    yield ""
    yield f"{'in no bar':<26} {'n':>5} {'runs':>5}" + _header(FAULTS)
    for group in APART:
        for n in sizes:
            yield from _row(group, n, FAULTS, (r for r in runs if r.group == group and r.n == n))


def _header(outcomes: Sequence[str]) -> str:
    return "".join(f"{name:>20}" for name in outcomes)


def _row(name: str, n: int, outcomes: Sequence[str], runs: Iterable[Run]) -> Iterator[str]:
    counts = Counter(run.outcome for run in runs)
    total = counts.total()
    if total:
        cells = "".join(f"{share(counts[outcome], total):>20}" for outcome in outcomes)
        yield f"{name:<26} {n:>5} {total:>5}{cells}"


def bars(runs: Sequence[Run]) -> Iterator[str]:
    """Compare with what the verdict has to reach.

    Args:
        runs: verdicts.

    Yields:
        A line for each bar that these runs say something of.
    """
    untouched = [run for run in runs if run.group in UNTOUCHED]
    faults = [run for run in runs if run.group not in (*UNTOUCHED, *APART)]
    for n in sorted({run.n for run in runs}):
        least = 0.95 if n < 200 else 0.98
        yield from _bar(f"models as they are not accused, n = {n}", untouched, n, "accused", least)
    undecided = [run for run in untouched if run.group == "sound"]
    yield from _bar("sound models decided, n = 2000", undecided, 2000, "undecided", 0.95)
    yield from _bar("faults not called sound, n = 2000", faults, 2000, "sound", 0.97)
    yield from _bar("faults without another accusation, n = 2000", faults, 2000, "other", 0.92)
    named = [run.outcome for run in faults if run.n == 2000]
    if named:
        yield _line("faults named, n = 2000", named.count("named"), len(named), 0.85)


def _bar(text: str, runs: Sequence[Run], n: int, bad: str, least: float) -> Iterator[str]:
    outcomes = [run.outcome for run in runs if run.n == n]
    if outcomes:
        yield _line(text, len(outcomes) - outcomes.count(bad), len(outcomes), least)


def _line(text: str, hits: int, trials: int, least: float) -> str:
    verdict = "holds" if hits >= least * trials else "FAILS"
    return f"{text:<46} {share(hits, trials):>20}   at least {100 * least:.0f} %: {verdict}"
