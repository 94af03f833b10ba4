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
import torch

from benchmarks.truth.closed import models
from benchmarks.truth.run import ROOT
from benchmarks.truth.tables import share
from isoprobe.contracts import VAE, Beta, Context, Metric, Setup
from isoprobe.derivatives.routes import choose_route
from isoprobe.probe.overview import Overview
from isoprobe.probe.pilot import active_latents
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.registry.lookup import installed

SIZES = (200, 2000)
SETS = 1000
#: shares of intervals that hold the truth must lie between these
LOW, HIGH = 0.92, 0.98
ANALYSES = ("isometry", "importance", "conditions")
#: figure -> group, value, and its standard error or the ends of its interval, as a result has them
PRINTED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "beta_j": ("isometry", "beta_recovered", ("beta_recovered_low", "beta_recovered_high")),
    "beta_j, pullback": ("isometry", "beta_pullback", ("beta_pullback_low", "beta_pullback_high")),
    "stationary norm": ("isometry", "stationary_norm_mean", ("stationary_norm_se",)),
    "norm": ("isometry", "norm_mean", ("norm_se",)),
    "residual": ("conditions", "residual", ("residual_se",)),
    "gain": ("conditions", "gain", ("gain_se",)),
    "second moment": ("overview", "second_moment_mean", ("second_moment_se",)),
    "kl": ("overview", "kl_mean", ("kl_se",)),
    "distortion": ("overview", "distortion_mean", ("distortion_se",)),
    "importance": ("importance", "exact", ("exact_se",)),
    "rough importance": ("importance", "rough", ("rough_se",)),
}
#: of single rows, over their own draws
DENSITY = "log density of a row"
FIGURES = ("beta", *PRINTED, DENSITY)
_DRAWN = 64
#: relative error that looking sigma up in a table leaves
TABLED = 1e-5
#: what that is relative to where the truth may be 0 (norm + sigma^2 - 1)
SCALE = {"residual": 1.0}


@dataclass(frozen=True)
class Trial:
    """One fresh data set: number of the model among :func:`models`, rows, and seed."""

    model: int
    rows: int
    seed: int


def intervals(groups: Groups, samples: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the printed 95 % intervals by figure; what is not printed is left out.

    Args:
        groups: variables by group, as a result has them.
        samples: rows they rest on.

    Returns:
        Lower and upper ends.
    """
    found = {}
    quantile = _t95(samples - 1)
    for figure, (group, name, errors) in PRINTED.items():
        if group not in groups or not {name, *errors} <= set(groups[group]):
            continue
        values = groups[group][name].values
        parts = [groups[group][error].values for error in errors]
        if len(parts) == 2:
            found[figure] = (parts[0], parts[1])
        else:
            found[figure] = (values - quantile * parts[0], values + quantile * parts[0])
    return found


Groups = Mapping[str, Mapping[str, Any]]


@cache
def _settings(model: int) -> tuple[VAE, Metric, str]:
    """A model in double precision, its metric, and the way to its decoder's derivatives."""
    vae, metric = models()[model].vae(), installed().metric("sse")
    trial = torch.zeros(2, vae.latent_size, dtype=torch.float64)
    return vae, metric, choose_route(vae.decode, trial).name


def measured(trial: Trial) -> tuple[Groups, Beta, np.ndarray, np.ndarray]:
    """Analyse one data set as a run does, in one batch and without a file.

    Args:
        trial: which.

    Returns:
        Variables by group, beta with its interval, the rows, and their E_z D over draws.
    """
    vae, metric, route = _settings(trial.model)
    rows = models()[trial.model].draw(trial.rows, trial.seed)
    x, index = torch.from_numpy(rows), np.arange(trial.rows)
    active = active_latents(vae, metric, [(vae, x)], trial.seed)
    setup = Setup(
        vae, metric, trial.rows, trial.seed, active, lambda count: x[:: -(-len(x) // count)]
    )
    steps = [Overview(), *(type(installed().analysis(name))() for name in ANALYSES)]
    for step in steps:
        step.start(setup)
    density = type(installed().analysis("density"))()
    density.start(setup)
    needs = frozenset().union(density.needs, *(step.needs for step in steps))
    batch = Probe(vae, metric, needs, ProbeOptions(seed=trial.seed, route=route))(index, x)
    for step in steps:
        step.update(batch)
    overview = steps[0]
    declared = models()[trial.model].beta
    beta = overview.resolve_beta(None, declared, comparable=True, recover=False)
    groups: dict[str, Mapping[str, Any]] = {}
    for step in steps:
        groups[step.name] = step.result(Context(setup, beta, overview.statistics, dict(groups)))
    density.update(batch)
    context = Context(setup, beta, overview.statistics, dict(groups))
    groups["density"] = density.result(context)
    return groups, beta, rows, batch.array("distortion")


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
    torch.set_num_threads(1)
    truth = _truth(trial.model)
    groups, beta, rows, value = measured(trial)
    found = intervals(groups, trial.rows)
    if beta.ci95 is not None:
        found["beta"] = (np.array(beta.ci95[0]), np.array(beta.ci95[1]))
    held_by = {
        figure: np.ravel(_holds(low, high, truth[figure], SCALE.get(figure, 0.0))).tolist()
        for figure, (low, high) in found.items()
    }
    exact = models()[trial.model].expected_distortion(rows[:_DRAWN])
    value = value[:_DRAWN]
    half = _t95(trial.rows) * float(groups["density"]["distortion_draw_se"].values)
    return {**held_by, DENSITY: _holds(value - half, value + half, exact).tolist()}


def _holds(low: np.ndarray, high: np.ndarray, truth: np.ndarray, scale: float = 0.0) -> np.ndarray:
    """Whether intervals hold the truth; where there is no noise and the value is right, nothing."""
    low, high, truth = np.atleast_1d(low), np.atleast_1d(high), np.atleast_1d(truth)
    slack = TABLED * np.maximum(np.abs(truth), scale)
    held: np.ndarray = (low - slack <= truth) & (truth <= high + slack)
    exact = held & (high - low <= 2 * slack)
    return held[~exact]


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
                where = f"{model.name}, n = {rows}"
                print("\n".join(lines({where: counts})), flush=True)
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
            if not trials:
                shown.append(f"{where:<18} {figure:<16} {'exact, without noise':>22}")
                continue
            verdict = "holds" if LOW <= hits / trials <= HIGH else "FAILS"
            shown.append(
                f"{where:<18} {figure:<16} {share(hits, trials):>22}"
                f"   {100 * LOW:.0f} to {100 * HIGH:.0f} %: {verdict}"
            )
    return shown


def main() -> None:
    """Count, and print each model and size as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS, help="fresh data sets of each kind")
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES, help="of each data set")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "coverage.json")
    asked = parser.parse_args()
    started = time.monotonic()
    found = count(asked.sets, asked.jobs, asked.rows)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{asked.sets} data sets each, {(time.monotonic() - started) / 60:.1f} min")


if __name__ == "__main__":
    main()
