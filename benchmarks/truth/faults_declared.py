"""Deform what is declared of a model, and the data it is judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from benchmarks.truth import data
from benchmarks.truth.implied import tells
from benchmarks.truth.subject import (
    Change,
    Deformation,
    Fits,
    Subject,
    any_model,
    images,
    random_of,
    tables,
)


def beta_times(factor: float) -> Change:
    """Declare another beta."""
    return lambda s: replace(s, beta=s.beta * factor)


def metric_is(spec: str) -> Change:
    """Declare another metric, and the same number for beta."""
    return lambda s: replace(s, metric=spec)


# --------------------------------------------------------------------------- data


def rows_are(change: Callable[[Subject], np.ndarray]) -> Change:
    """Judge on other rows."""
    return lambda s: replace(s, rows=np.ascontiguousarray(change(s), dtype=np.float32))


OTHER = {"mnist": "fashion", "fashion": "mnist", "toy": "spiral", "spiral": "linear"}
OTHER |= {"linear": "heavy", "heavy": "toy"}


def another_set(s: Subject) -> np.ndarray:
    """Return as many rows of another set of the same shape."""
    return data.rows(OTHER[s.recipe.data]).train[: len(s.rows)]


def _one_class(s: Subject) -> np.ndarray:
    rows = data.rows(s.recipe.data)
    ones: np.ndarray = rows.train[rows.classes == 1]
    return ones


def _noisy(s: Subject) -> np.ndarray:
    noise = random_of(s, "noise").standard_normal(s.rows.shape)
    if s.rows.ndim == 3:
        noisy: np.ndarray = np.clip(s.rows + 0.2 * noise, 0, 1)
        return noisy
    return np.asarray(s.rows + 0.5 * s.rows.std() * noise)


def _padded(s: Subject) -> np.ndarray:
    """Make images smaller and pad them to the size they had."""
    side = s.rows.shape[1]
    small = functional.interpolate(
        torch.from_numpy(s.rows.copy())[:, None], size=(side - 4, side - 4), mode="area"
    )
    return functional.pad(small, (2, 2, 2, 2))[:, 0].numpy()


# --------------------------------------------------------------------------- the lists


def _wrongly(spec: str, *losses: str) -> Fits:
    """Models of these losses whose weights show another beta under ``spec``."""
    return lambda recipe, _entry: recipe.loss in losses and tells(recipe, spec)


def declared() -> list[Deformation]:
    """Return another beta or another metric; where weights cannot tell which, either is right."""
    found = [
        Deformation(f"beta x {f}", "declared beta", frozenset({"beta"}), beta_times(f))
        for f in (0.1, 0.5, 0.8, 1.25, 2.0, 10.0)
    ]
    metric, units = frozenset({"metric"}), frozenset({"metric", "beta"})
    pairs = [
        ("sse for bce", "sse", "bce", metric),
        ("l1 for bce", "l1", "bce", metric),
        ("bce for sse", "bce", "sse", metric),
        ("l1 for sse", "l1", "sse", metric),
        ("l2 for sse", "l2", "sse", metric),
        ("ssim for sse", "ssim", "sse", metric),
        ("sse for l1", "sse", "l1", metric),
        ("bce for l1", "bce", "l1", metric),
        ("sse for ssim", "sse", "ssim", metric),
        ("l1 for a likelihood", "l1", "gaussian", metric),
        # of one family: the metric and the units of beta are one mistake
        ("sum for mean", "sse", "mse", units),
        ("mean for sum", "mse", "sse", units),
        ("sse for a likelihood", "sse", "gaussian", units),
        ("a unit likelihood for sse", "gaussian", "sse", units),
    ]
    return found + [
        Deformation(name, "declared metric", causes, metric_is(spec), _wrongly(spec, loss))
        for name, spec, loss, causes in pairs
    ]


def of_data() -> list[Deformation]:
    """Return faults of the data."""
    wrong: list[tuple[str, Callable[[Subject], np.ndarray], Fits]] = [
        ("another set", another_set, lambda r, _e: r.data in OTHER),
        ("inverted", lambda s: 1 - s.rows, images),
        ("0..255 for 0..1", lambda s: s.rows * 255, images),
        ("0..1 for 0..255", lambda s: s.rows / 255, images),
        ("scaled by 0.5", lambda s: s.rows * 0.5, any_model),
        ("scaled by 1.3", lambda s: s.rows * 1.3, any_model),
        ("shifted", lambda s: s.rows + s.rows.std(), tables),
        ("brightened", lambda s: s.rows + 0.2, images),
        ("moved by two pixels", lambda s: np.roll(s.rows, 2, axis=2), images),
        ("-1..1 for 0..1", lambda s: 2 * s.rows - 1, images),
        (
            "columns standardised",
            lambda s: (s.rows - s.rows.mean(0)) / s.rows.std(0),
            lambda r, e: tables(r, e) and r.data != "thyroid",
        ),
        ("axes exchanged", lambda s: s.rows.swapaxes(1, 2), images),
        ("columns reversed", lambda s: s.rows[:, ::-1], tables),
        ("noise added", _noisy, any_model),
        ("one class only", _one_class, images),
        ("padded, not resized", _padded, images),
    ]
    cause = frozenset({"data"})
    return [Deformation(name, "data", cause, rows_are(f), fits) for name, f, fits in wrong]
