"""Learn from a table's rows how its columns become inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isoprobe.data.recipe import Column, Recipe, is_missing, numbers, texts
from isoprobe.errors import DataError

#: different values of a category at most
MOST_VALUES = 200
#: a deviation below this share of the mean is rounding
_ROUNDING = 1e-9


def learn_recipe(cells: Mapping[str, np.ndarray], where: str) -> Recipe:
    """Standardise numbers, and give a category an input for each of its values.

    A column is a category when a cell of it is no number.

    Args:
        cells: columns of the training rows by name, ``(N,)`` each.
        where: the table, for errors.

    Returns:
        The recipe; of these rows every input has mean 0 and, unless it is constant, variance 1.

    Raises:
        DataError: for a missing cell, or a category of so many values that it is text.
    """
    return Recipe(tuple(_column(name, values, where) for name, values in cells.items()))


def rescaled(recipe: Recipe, factors: np.ndarray) -> Recipe:
    """Return a recipe with its inputs multiplied by factors, ``(size,)``."""
    columns, start = [], 0
    for one in recipe.columns:
        stop = start + len(one.scale)
        scale = tuple((np.array(one.scale) * factors[start:stop]).tolist())
        columns.append(Column(one.name, one.values, one.center, scale))
        start = stop
    return Recipe(tuple(columns))


def _column(name: str, cells: np.ndarray, where: str) -> Column:
    if _is_category(cells):
        found = texts(cells, name, where)
        values = tuple(np.unique(found).tolist())
        if len(values) > MOST_VALUES:
            raise DataError(
                f"column '{name}' of {where} has {len(values)} different texts, more than the "
                f"{MOST_VALUES} a category may have; leave it out, or name it as an id"
            )
        raw = (found[:, None] == np.array(values)).astype(float)
    else:
        values, raw = None, numbers(cells, name, where)[:, None]
    center, deviation = raw.mean(axis=0), raw.std(axis=0)
    varies = deviation > _ROUNDING * np.maximum(1, np.abs(center))
    scale = 1 / np.where(varies, deviation, 1.0)
    return Column(name, values, tuple(center.tolist()), tuple(scale.tolist()))


def _is_category(cells: np.ndarray) -> bool:
    if cells.dtype.kind in "fiub":
        return False
    for cell in cells.tolist():
        try:
            float(cell)
        except (TypeError, ValueError):
            if not is_missing(cell):  # a missing cell says nothing of its column
                return True
    return False
