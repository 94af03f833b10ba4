"""Count how often the intervals of the KL term's parts hold the truth, over many sets.

Run it as ``python -m benchmarks.truth_kl_parts``; the bar is 93 % of 200 sets.
"""

from __future__ import annotations

import numpy as np

from isoprobe.theory.kl_parts import kl_parts
from tests.theory.codes import LinearCode

SETS, ROWS = 200, 1000
CODES = ((2.0, 4), (6.0, 10), (19.0, 10))


def coverage(code: LinearCode, sets: int = SETS, rows: int = ROWS) -> dict[str, float]:
    """Share of sets whose interval of two standard errors holds the truth, and mean widths."""
    held: dict[str, list[bool]] = {"sum of I": [], "sum of KL(q||p)": [], "I": [], "TC": []}
    widths: dict[str, list[float]] = {"width of I": [], "width of TC": []}
    for seed in range(sets):
        parts = kl_parts(*code.draw(rows, seed), seed)
        for name, bound, truth in (
            ("sum of I", parts.information_sum, code.information_sum),
            ("sum of KL(q||p)", parts.marginal_sum, code.marginal_sum),
        ):
            held[name].append(bound.below <= truth <= bound.above)
        for name, (low, high), truth in (
            ("I", parts.information, code.information),
            ("TC", parts.total_correlation, code.total_correlation),
        ):
            held[name].append(low <= truth <= high)
            widths[f"width of {name}"].append(high - low)
    return {name: float(np.mean(values)) for name, values in (held | widths).items()}


if __name__ == "__main__":
    for information, size in CODES:
        code = LinearCode(information, size)
        found = coverage(code)
        print(
            f"I = {code.information:.2f}, TC = {code.total_correlation:.2f}, {size} latents,"
            f" {SETS} sets of {ROWS} rows:",
            ", ".join(f"{name} {value:.3f}" for name, value in found.items()),
        )
