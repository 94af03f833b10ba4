"""Repeat Tables 3 and 6: anomaly detection, ours beside the published figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import click
import msgspec
import numpy as np

from isoprobe.checkpoints.native import read_manifest
from isoprobe_trainers.anomaly.baselines import (
    METHODS,
    baseline,
    expected_seconds,
    kept_figures,
    radogaga_together,
    shortened,
)
from isoprobe_trainers.anomaly.dagmm import SETTINGS as DAGMM
from isoprobe_trainers.anomaly.quality import Quality, cited_rows, keep, model_quality, read_kept
from isoprobe_trainers.anomaly.recipes import RECIPES, short
from isoprobe_trainers.anomaly.tables import drawn, duplicates
from isoprobe_trainers.anomaly.train import RULE, checkpoint_path, train
from isoprobe_trainers.common.files import use_root
from isoprobe_trainers.common.plan import Work
from isoprobe_trainers.common.records import Record, origin, write
from isoprobe_trainers.common.tables import render
from isoprobe_trainers.common.training import pick_device, trained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from isoprobe_trainers.anomaly.dagmm import DagmmSettings
    from isoprobe_trainers.anomaly.quality import CitedRow
    from isoprobe_trainers.anomaly.recipes import Recipe
    from isoprobe_trainers.commands.reproduce import Reproduction

TITLES = {
    "table3": "F1 of anomaly detection",
    "table6": "precision, recall and F1 of anomaly detection",
}
#: processor seconds of an epoch of one model
SECONDS = {"kddcup99": 1.5, "thyroid": 0.011, "arrhythmia": 0.009, "kddcup-rev": 0.6}
UNTRAINED, TRAINED = "untrained VAE", "VAE"
#: name of these experiments in records; Table 3 is a part of Table 6
EXPERIMENT = "table6"
#: figure of Table 6 -> how it is printed
_HEADINGS = {"precision": "precision", "recall": "recall", "f1": "F1"}
_BESIDE = {"auroc": "AUROC", "average_precision": "average precision"}


@dataclass(frozen=True)
class Sizes:
    """Networks and schedules of every data set.

    Attributes:
        recipes: of the VAE and RaDOGAGA, at the paper's schedule.
        quick: shortens one.
        mixtures: of DAGMM.
    """

    recipes: Mapping[str, Recipe] = field(default_factory=lambda: RECIPES)
    quick: Callable[[Recipe], Recipe] = short
    mixtures: Mapping[str, DagmmSettings] = field(default_factory=lambda: DAGMM)

    def of(self, data: str, *, quick: bool) -> tuple[Recipe, DagmmSettings]:
        """Return what a data set is trained by; DAGMM has the recipe's share of its schedule."""
        full = self.recipes[data]
        recipe = self.quick(full) if quick else full
        return recipe, shortened(self.mixtures[data], recipe.epochs / full.epochs)


SIZES = Sizes()


def reproduce(names: Sequence[str], settings: Reproduction, sizes: Sizes = SIZES) -> None:
    """Train or reuse models and baselines, and print each table for each data set.

    Args:
        names: ``table3``, ``table6``.
        settings: schedule, folder, seeds, device and the folder of data files.
        sizes: of networks and schedules.
    """
    use_root(settings.data_root)
    found = {}
    for data in settings.tables or sizes.recipes:
        recipe, mixture = sizes.of(data, quick=settings.quick)
        planned = sizes.recipes[data].epochs
        with settings.attempts.item(f"{' '.join(names)} on {data}"):
            folder = settings.folder / "anomaly"
            found[data] = recipe, planned, measure(recipe, mixture, folder, settings)
            if settings.records is not None:
                _record(*found[data], folder, settings.records)
    for name in names:
        figures = ("f1",) if name == "table3" else ("precision", "recall", "f1")
        click.echo(f"## {name}: {TITLES[name]}\n")
        for recipe, planned, by_method in found.values():
            click.echo(report(recipe, planned, by_method, figures) + "\n")


def work(names: Sequence[str], settings: Reproduction) -> list[Work]:
    """Models and baselines that the tables need, and how long each takes.

    Args:
        names: ``table3``, ``table6``.
        settings: schedule, folder, seeds and data sets.

    Returns:
        The work of each.
    """
    folder, seconds = settings.folder / "anomaly", {}
    for data, seed in product(settings.tables or RECIPES, range(settings.seeds)):
        recipe, mixture = SIZES.of(data, quick=settings.quick)
        seconds[checkpoint_path(folder, data, seed)] = recipe.epochs * SECONDS[data]
        for method in METHODS:
            kept = kept_figures(folder / "figures", data, method, seed)
            seconds[kept] = expected_seconds(method, recipe, mixture, SECONDS[data])
    return [Work(name, "anomaly", seconds) for name in names]


def measure(
    recipe: Recipe, mixture: DagmmSettings, folder: Path, settings: Reproduction
) -> dict[str, list[Quality]]:
    """Figures of every method on the splits of every seed.

    Args:
        recipe: of the data set.
        mixture: of DAGMM.
        folder: for checkpoints and figures; what is there is used again.
        settings: seeds and device.

    Returns:
        Figures by method, in the order of the seeds.
    """
    _provide(recipe, folder, settings)
    rows = folder / "figures"
    rows.mkdir(parents=True, exist_ok=True)
    device = pick_device(settings.device)
    if device.type == "cuda":
        radogaga_together(recipe, mixture, range(settings.seeds), rows, device)
    found: dict[str, list[Quality]] = {UNTRAINED: [], **{m: [] for m in METHODS}, TRAINED: []}
    for seed in range(settings.seeds):
        untrained, trained = _judged(recipe, seed, folder)
        found[UNTRAINED].append(untrained)
        found[TRAINED].append(trained)
        for method in METHODS:
            click.echo(f"{recipe.name}, seed {seed}: {method}", err=True)
            found[method].append(baseline(method, recipe, mixture, seed, rows))
    return found


def _record(
    recipe: Recipe,
    planned: int,
    found: Mapping[str, Sequence[Quality]],
    folder: Path,
    records: Path,
) -> None:
    """Keep the figures of every method, split by split."""
    seeds = range(len(found[TRAINED]))
    where = origin([checkpoint_path(folder, recipe.name, seed) for seed in seeds])
    for method, rows in found.items():
        trained = method == TRAINED
        kept = [msgspec.structs.asdict(row) for row in rows]
        # methods beside it have no schedule of their own in the paper
        record = Record(
            experiment=EXPERIMENT,
            model=method,
            seeds=tuple(seeds),
            data=recipe.name,
            epochs=recipe.epochs if trained else 0,
            planned=planned if trained else 0,
            batch=recipe.schedule.batch if trained else 0,
            rate=recipe.rate if trained else None,
            decay=float(trained and recipe.cosine),
            values={name: [row[name] for row in kept] for name in kept[0]},
            **where,
        )
        write(record, records, f"{EXPERIMENT}_{recipe.name}_{method.split()[0].lower()}")


def _provide(recipe: Recipe, folder: Path, settings: Reproduction) -> None:
    """Train together the models that are missing."""
    record = recipe.record()
    missing = [
        seed
        for seed in range(settings.seeds)
        if not trained(checkpoint_path(folder, recipe.name, seed), recipe=record)
    ]
    if missing:
        click.echo(f"training {len(missing)} models of {recipe.name} into {folder}", err=True)
        train(recipe, missing, folder, pick_device(settings.device), resume=True)


def _judged(recipe: Recipe, seed: int, folder: Path) -> tuple[Quality, Quality]:
    """Figures of the untrained and the trained model, kept beside the checkpoint."""
    checkpoint = checkpoint_path(folder, recipe.name, seed)
    settings = {
        **recipe.record(),
        "epoch": read_manifest(checkpoint).training.get("epoch"),
        "seed": seed,
    }
    paths = [
        folder / "figures" / f"{recipe.name}_{kind}_seed{seed}.json"
        for kind in ("untrained", "trained")
    ]
    untrained, trained = (read_kept(path, settings) for path in paths)
    if untrained is None or trained is None:
        trained, untrained = model_quality(checkpoint, recipe, seed)
        keep(paths[0], settings, untrained)
        keep(paths[1], settings, trained)
    return untrained, trained


# --------------------------------------------------------------------------- reports


def report(
    recipe: Recipe,
    planned: int,
    found: Mapping[str, Sequence[Quality]],
    figures: Sequence[str],
) -> str:
    """Return the table of one data set, and what it rests on.

    Args:
        recipe: of the data set.
        planned: epochs of the full schedule.
        found: figures by method.
        figures: those of the paper's table to print.

    Returns:
        Markdown.
    """
    cited = [
        [f"{row.method} (cited)", *(_cited(row, name) for name in figures), *"----"]
        for row in cited_rows()
        if row.data == recipe.name
    ]
    ours = [
        [
            f"{method} (ours)",
            *(_mean_and_sd(rows, name) for name in (*figures, *_BESIDE)),
            str(len(rows)),
            " ".join(str(row.ties) for row in rows),
        ]
        for method, rows in found.items()
    ]
    beside = [*_BESIDE.values(), "seeds", "ties"]
    header = [recipe.name, *(_HEADINGS[name] for name in figures), *beside]
    return f"{render(header, [*cited, *ours])}\n\n{_account(recipe, planned, found[TRAINED])}"


def _account(recipe: Recipe, planned: int, rows: Sequence[Quality]) -> str:
    """Seeds, schedule, threshold, ties, prevalence and duplicates in words."""
    first = drawn(recipe.name, 0)
    repeated = duplicates(first.table, first.halves)
    rate = f"{recipe.rate:g}{', falling on a half cosine' if recipe.cosine else ''}"
    return (
        f"Seeds 0 to {len(rows) - 1}, each with its split; mean and standard deviation over them. "
        f"{recipe.epochs} of {planned} epochs at rate {rate}; taken: {RULE}. "
        f"Threshold at {recipe.contamination:g} of the test rows; anomalies are "
        f"{_mean(rows, 'prevalence'):.4f} of them; rows that tie with it, in the last column by "
        f"seed, are not flagged. Of {repeated.rows} rows "
        f"{repeated.distinct} are distinct, and {repeated.test_seen:.1%} of the test rows of "
        "seed 0 equal a row trained on."
    )


def _cited(row: CitedRow, name: str) -> str:
    mean, deviation = getattr(row, name)
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ({deviation:.4f})"


def _mean_and_sd(rows: Sequence[Quality], name: str) -> str:
    values = [float(getattr(row, name)) for row in rows]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return f"{_mean(rows, name):.4f}" + ("" if math.isnan(deviation) else f" ({deviation:.4f})")


def _mean(rows: Sequence[Quality], name: str) -> float:
    return float(np.mean([getattr(row, name) for row in rows]))
