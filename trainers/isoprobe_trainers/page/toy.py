"""Write the toy models' tables from records: ours beside the paper's, and what it leaves out."""

from __future__ import annotations

import numpy as np

from isoprobe_trainers.common import tables as text
from isoprobe_trainers.common.paper import rows_of
from isoprobe_trainers.common.records import Record, of
from isoprobe_trainers.toy.experiments import CONDITIONS, EXPERIMENT


def tables() -> str:
    """Every condition that has a record: its tables and figures beside the paper's."""
    return "\n\n".join(_condition(record) for record in of(EXPERIMENT))


def _condition(record: Record) -> str:
    places = [place for place, model in CONDITIONS.items() if model == record.model]
    compared = [
        text.compare(place, lambda quantity: record.values[quantity], 1.0)
        for place in places
        if rows_of(place)
    ]
    head = f"### {record.model[0].upper()}{record.model[1:]}: {len(record.seeds)} seeds"
    return "\n\n".join([head, *compared, _beyond(record)])


def _beyond(record: Record) -> str:
    """Residuals and beta recovered by seed, and the correlation of each density estimate."""
    rows = []
    for place, seed in enumerate(record.seeds):
        residual = np.array(record.values["residual"][place])
        active = np.array(record.values["active"][place], dtype=bool)
        values = {name: record.values[name][place][0] for name in _NUMBERS}
        rows.append(
            [
                str(seed),
                f"{residual[active].min():+.3f} to {residual[active].max():+.3f}",
                *(f"{value:.4f}" for value in values.values()),
            ]
        )
    return text.render(["seed", "norm + sigma^2 - 1, used", *_NUMBERS.values()], rows)


_NUMBERS = {
    "beta_recovered": "beta recovered",
    "r_prior": "R: p(mu)",
    "r_posterior": "R: p(mu) prod sigma",
    "r_objective": "R: exp(-L/beta)",
    "r_scaled_posterior": "R: a^n/2 p(mu) prod sigma",
    "r_scaled_objective": "R: a^n/2 exp(-L/beta)",
}
