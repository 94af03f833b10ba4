"""Plan what a reproduction has to train, and about how long that takes.

Processor seconds were measured on one core of the machine that docs/reproduction.md describes, a
card's share of them on one H100 that held 18 other trainings at the time, so that alone it is
faster; for the toy models, which it did not train to their end, the share is a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoprobe_trainers.common.tables import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: cores of that machine that such a card stands for, by kind of work; 20 splits train together
CARD = {"toy": 5.0, "mnist": 12.0, "celeba": 13.0, "anomaly": 20.0}


@dataclass(frozen=True)
class Work:
    """What one item needs.

    Attributes:
        item: what is reproduced.
        kind: key of :data:`CARD`.
        seconds: of one core, by the file that the work ends in; a file that is there costs nothing.
    """

    item: str
    kind: str
    seconds: Mapping[Path, float]


def plan(works: Iterable[Work]) -> str:
    """Return a table of what is missing and the time it takes, each file being counted once.

    Args:
        works: in the order in which they will be done.

    Returns:
        Markdown.
    """
    seen: set[Path] = set()
    rows, totals = [], [0.0, 0.0]
    for work in works:
        missing = {p: s for p, s in work.seconds.items() if p not in seen and not p.exists()}
        seen.update(work.seconds)
        cpu = sum(missing.values())
        cuda = cpu / CARD[work.kind]
        totals = [totals[0] + cpu, totals[1] + cuda]
        done = len(work.seconds) - len(missing)
        rows.append([work.item, str(len(missing)), str(done), span(cpu), span(cuda)])
    rows.append(["all", "", "", span(totals[0]), span(totals[1])])
    header = ["item", "to train", "there or shared", "one core", "a busy card"]
    return f"{render(header, rows)}\n\nestimates, of the training alone"


def span(seconds: float) -> str:
    """A time in its largest unit, such as ``2.4 h``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
