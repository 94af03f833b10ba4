"""Compare the VAE with PCA, DAGMM and RaDOGAGA on the same splits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe_trainers.anomaly import dagmm
from isoprobe_trainers.anomaly import radogaga as anomaly_radogaga
from isoprobe_trainers.anomaly.quality import Quality, keep, quality, read_kept
from isoprobe_trainers.anomaly.radogaga_recorded import train_together
from isoprobe_trainers.anomaly.recipes import KEPT
from isoprobe_trainers.anomaly.tables import drawn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import torch

    from isoprobe_trainers.anomaly.dagmm import DagmmSettings
    from isoprobe_trainers.anomaly.recipes import Recipe
    from isoprobe_trainers.anomaly.tables import Split, SplitTable, Table

METHODS = ("PCA", "DAGMM", "RaDOGAGA(d)")


def baseline(
    method: str, recipe: Recipe, mixture: DagmmSettings, seed: int, folder: Path
) -> Quality:
    """Figures of a method on one split, computed once for each folder and settings.

    Args:
        method: one of :data:`METHODS`.
        recipe: of the data set, with the schedule of RaDOGAGA.
        mixture: DAGMM's settings; RaDOGAGA's mixture has as many Gaussians.
        seed: of the split and of everything random.
        folder: where figures are kept.

    Returns:
        The figures.
    """
    settings = _settings(method, recipe, mixture)
    path = kept_figures(folder, recipe.name, method, seed)
    found = read_kept(path, settings)
    if found is None:
        data = drawn(recipe.name, seed)
        found = _kept(path, settings, recipe, data, _scores(method, data, recipe, mixture))
    return found


def radogaga_together(
    recipe: Recipe, mixture: DagmmSettings, seeds: Iterable[int], folder: Path, device: torch.device
) -> None:
    """Train RaDOGAGA on all splits without figures at once, and keep theirs.

    Args:
        recipe: of the data set, with its schedule.
        mixture: DAGMM's settings; RaDOGAGA's mixture has as many Gaussians.
        seeds: of the splits.
        folder: where :func:`baseline` looks for figures.
        device: a card, where many take about as long as one.
    """
    method = METHODS[-1]
    settings = _settings(method, recipe, mixture)
    paths = {seed: kept_figures(folder, recipe.name, method, seed) for seed in seeds}
    missing = {seed: path for seed, path in paths.items() if read_kept(path, settings) is None}
    if missing:
        data = [drawn(recipe.name, seed) for seed in missing]
        found = train_together(recipe, data, device, mixture.components)
        for one, path, scores in zip(data, missing.values(), found, strict=True):
            _kept(path, settings, recipe, one, scores)


def kept_figures(folder: Path, data: str, method: str, seed: int) -> Path:
    """File of a method's figures on one split."""
    return folder / f"{data}_{method}_seed{seed}.json"


def expected_seconds(method: str, recipe: Recipe, mixture: DagmmSettings, epoch: float) -> float:
    """Processor seconds of a baseline, an epoch of the VAE being known.

    Args:
        method: one of :data:`METHODS`.
        recipe: of the data set.
        mixture: DAGMM's settings.
        epoch: processor seconds of an epoch of the VAE.

    Returns:
        As long for an epoch of DAGMM, 1.7 times as long for one of RaDOGAGA, as was measured.
    """
    epochs = {
        "PCA": 1,
        "DAGMM": mixture.epochs,
        "RaDOGAGA(d)": 1.7 * recipe.epochs,
    }
    return epochs[method] * epoch


def pca_scores(table: Table, halves: Split, components: int) -> np.ndarray:
    """Square error of reconstruction from principal components.

    Args:
        table: the data.
        halves: its split; components are those of the normal rows, held out or not.
        components: how many are kept.

    Returns:
        Errors of the test rows, ``(N,)``.
    """
    normal = table.x[np.concatenate([halves.train, halves.held_out])].astype(np.float64)
    mean = normal.mean(0)
    _, vectors = np.linalg.eigh(np.cov(normal, rowvar=False))
    left_out = vectors[:, : max(table.x.shape[1] - components, 0)]
    test = table.x[halves.test].astype(np.float64) - mean
    errors: np.ndarray = np.square(test @ left_out).sum(1)
    return errors


def pca_components(recipe: Recipe, inputs: int) -> int:
    """As many components as the VAE has latents, less one where nothing would be left out."""
    return min(recipe.latents, inputs - 1)


def shortened(mixture: DagmmSettings, fraction: float) -> DagmmSettings:
    """Return DAGMM's settings with a fraction of its epochs."""
    return replace(mixture, epochs=max(KEPT, round(fraction * mixture.epochs)))


def _kept(
    path: Path, settings: dict[str, Any], recipe: Recipe, data: SplitTable, scores: np.ndarray
) -> Quality:
    """Figures of a split's scores, which are kept."""
    found = quality(scores, data.table.anomalous[data.halves.test], recipe.contamination)
    path.parent.mkdir(parents=True, exist_ok=True)
    keep(path, settings, found)
    return found


def _settings(method: str, recipe: Recipe, mixture: DagmmSettings) -> dict[str, Any]:
    if method == "PCA":
        return {"components": recipe.latents, "contamination": recipe.contamination}
    if method == "DAGMM":
        return {**mixture.record(), "contamination": recipe.contamination}
    return recipe.record()


def _scores(method: str, data: SplitTable, recipe: Recipe, mixture: DagmmSettings) -> np.ndarray:
    table, halves = data.table, data.halves
    if method == "PCA":
        return pca_scores(table, halves, pca_components(recipe, table.x.shape[1]))
    if method == "DAGMM":
        return dagmm.scores(table, halves, data.seed, mixture)
    return anomaly_radogaga.scores(table, halves, data.seed, recipe, mixture.components)
