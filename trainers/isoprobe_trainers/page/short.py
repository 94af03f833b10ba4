"""Write the tables of the page on the shortened toy schedule, from its records."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from isoprobe_trainers.common.records import Record, records
from isoprobe_trainers.toy import ablation
from isoprobe_trainers.toy.experiments import control, correlations, with_beyond
from isoprobe_trainers.toy.members import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isoprobe_trainers.toy.measure import Measurement

#: a table on the page: its name, and what stands there now
_BLOCK = re.compile(r"<!-- (\S+) -->\n.*?<!-- end -->", re.DOTALL)
#: tolerances are twice as wide on this schedule
_SLACK = 2.0


class _Kept:
    """A model as a record has it, in the place of one that was measured just now."""

    def __init__(self, record: Record, place: int) -> None:
        self.member = Member(*record.values["members"][place])
        self._record, self._place = record, place

    def values(self, quantity: str) -> list[float]:
        found: list[float] = self._record.values[quantity][self._place]
        return found

    def __getattr__(self, quantity: str) -> Any:
        values = self.values(quantity)
        return values[0] if len(values) == 1 else np.array(values)


def filled(page: str) -> str:
    """Return a page with each table between ``<!-- NAME -->`` and ``<!-- end -->`` made anew."""
    tables = _tables()
    return _BLOCK.sub(
        lambda found: f"<!-- {found[1]} -->\n\n{tables[found[1]]()}\n\n<!-- end -->", page
    )


def _models(name: str) -> Sequence[Measurement]:
    record = records("quick")[name]
    kept = [_Kept(record, place) for place in range(len(record.values["members"]))]
    return cast("Sequence[Measurement]", kept)


def _tables() -> dict[str, Callable[[], str]]:
    """What makes each table of the page, by its name."""
    three, downward, five = (
        _models(f"toy_{name}-latents")
        for name in ("square-error_3", "downward-convex_3", "square-error_5")
    )
    many = _models("toy_ablation")
    square = [m for m in many if m.member.metric == "sse"]
    made: dict[str, Callable[[], str]] = {
        "table1": lambda: with_beyond("table1", three, _SLACK),
        "table2": lambda: with_beyond("table2", downward, _SLACK),
        "table4": lambda: with_beyond("table4", five, _SLACK),
        "fig3": lambda: correlations("fig3", downward, _SLACK),
        "fig10": lambda: correlations("fig10", three, _SLACK),
        "fig25": lambda: correlations("fig25", five, _SLACK),
        "radogaga": lambda: control([*three, *_models("toy_radogaga_3-latents")]),
        "claims": lambda: ablation.claims(many),
        "fig22": lambda: ablation.ratio_table([m for m in many if m.member.lam == 100]),
        "fig23": lambda: ablation.beta_table(square, "coding_loss", 3 / 2),
        "fig24": lambda: ablation.beta_table(square, "loss_ratio", 21 / 16),
    }
    for number, (kind, metric) in enumerate(
        product(ablation.KINDS, ablation.METRICS), ablation.FIRST_FIGURE
    ):
        chosen = [m for m in many if (ablation.kind_of(m), m.member.metric) == (kind, metric)]
        made[f"fig{number}"] = lambda chosen=chosen: ablation.curve_table(chosen)  # type: ignore[misc]
    return made
