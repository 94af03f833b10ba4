"""Count how often printed 95 % intervals hold the truth: ``python -m benchmarks.truth.coverage``.

Models in closed form are analysed on fresh data, again and again; the truth is each figure at
infinite rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.truth.closed import models
from benchmarks.truth.run import ROOT
from benchmarks.truth.tables import share

SIZES = (200, 2000)
SETS = 1000
#: shares of intervals that hold the truth must lie between these
LOW, HIGH = 0.92, 0.98
ANALYSES = ("isometry", "importance")
#: figure -> group, value, and its standard error or the ends of its interval, as a result has them
PRINTED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "beta_j": ("isometry", "beta_recovered", ("beta_recovered_low", "beta_recovered_high")),
    "stationary norm": ("isometry", "stationary_norm_mean", ("stationary_norm_se",)),
    "kl": ("overview", "kl_mean", ("kl_se",)),
    "distortion": ("overview", "distortion_mean", ("distortion_se",)),
    "importance": ("importance", "exact", ("exact_se",)),
    "t_j": ("isometry", "decoder_scale", ("decoder_scale_se",)),
}
FIGURES = ("beta", *PRINTED)


@dataclass(frozen=True)
class Trial:
    """One fresh data set: number of the model among :func:`models`, rows, and seed."""

    model: int
    rows: int
    seed: int


def intervals(result: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the printed 95 % intervals by figure; what is not printed is left out.

    Args:
        result: what ``isoprobe.analyze`` returns.
    """
    found = {}
    ends = result.attrs.get("beta_ci95")
    if ends is not None:
        found["beta"] = (np.array(ends[0]), np.array(ends[1]))
    quantile = _t95(int(result.attrs["samples"]) - 1)
    for figure, (group, name, errors) in PRINTED.items():
        if group not in result.groups() or not {name, *errors} <= set(result[group]):
            continue
        values = result[group][name].values
        parts = [result[group][error].values for error in errors]
        if len(parts) == 2:
            found[figure] = (parts[0], parts[1])
        else:
            found[figure] = (values - quantile * parts[0], values + quantile * parts[0])
    return found


def _t95(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t, to 1e-4 from 20 degrees on."""
    z = 1.959963984540054
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def held(trial: Trial) -> dict[str, list[bool]]:
    """Analyse one data set.

    Args:
        trial: which.

    Returns:
        Of each printed figure, latent by latent, whether its interval holds the truth.
    """
    import torch

    import isoprobe

    torch.set_num_threads(1)
    model = models()[trial.model]
    rows = model.draw(trial.rows, trial.seed)
    truth = _truth(trial.model)
    with isoprobe.analyze(
        model.vae(),
        rows,
        samples=None,
        analyses=ANALYSES,
        dtype="float64",
        seed=trial.seed,
    ) as result:
        found = intervals(result)
    return {
        figure: np.ravel((low <= truth[figure]) & (truth[figure] <= high)).tolist()
        for figure, (low, high) in found.items()
    }


@cache
def _truth(model: int) -> Mapping[str, np.ndarray]:
    """The truth of a model, worked out once a process."""
    return models()[model].truth()


def count(sets: int, jobs: int, sizes: Sequence[int] = SIZES) -> dict[str, dict[str, Any]]:
    """Analyse fresh data sets of every model and size.

    Args:
        sets: of each.
        jobs: processes.
        sizes: rows of a data set.

    Returns:
        Intervals that held and intervals in all, by ``MODEL, n = ROWS`` and figure.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, dict[str, Any]] = {}
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for index, model in enumerate(models()):
            for rows in sizes:
                trials = [Trial(index, rows, seed) for seed in range(sets)]
                counts = found[f"{model.name}, n = {rows}"] = {}
                for one in pool.imap_unordered(held, trials, chunksize=10):
                    for figure, hits in one.items():
                        old = counts.get(figure, (0, 0))
                        counts[figure] = (old[0] + sum(hits), old[1] + len(hits))
    return found


def lines(found: Mapping[str, Mapping[str, tuple[int, int]]]) -> list[str]:
    """Write the counts as a table, a figure a line."""
    shown = []
    for where, counts in found.items():
        for figure in FIGURES:
            if figure not in counts:
                shown.append(f"{where:<18} {figure:<16} {'not printed':>22}")
                continue
            hits, trials = counts[figure]
            verdict = "holds" if LOW <= hits / trials <= HIGH else "FAILS"
            shown.append(
                f"{where:<18} {figure:<16} {share(hits, trials):>22}"
                f"   {100 * LOW:.0f} to {100 * HIGH:.0f} %: {verdict}"
            )
    return shown


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS, help="fresh data sets of each kind")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "coverage.json")
    asked = parser.parse_args()
    started = time.monotonic()
    found = count(asked.sets, asked.jobs)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(lines(found)))
    print(f"\n{asked.sets} data sets each, {(time.monotonic() - started) / 60:.1f} min")


if __name__ == "__main__":
    main()
