"""Draw what latents read from an input and write into the output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import ResultError
from isoprobe.show.plots.style import DIVERGING
from isoprobe.show.plots.walks import tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoprobe.results.reader import Group, Result


def read_write(result: Result, ax: Axes) -> None:
    """Draw the mean read and write maps of the leading latents.

    Images stand in two rows, a column for each latent; vectors in two columns, a row for each.

    Args:
        result: with ``maps``.
        ax: to draw on.

    Raises:
        ResultError: if the inputs are neither vectors nor images.
    """
    group = result["maps"]
    names = [name for name in ("read", "write") if name in group]
    flat = group["write"].values.ndim == 2
    pictures = np.stack(
        [_signed(group[name].values, result) for name in names], axis=1 if flat else 0
    )
    tiles(_coloured(pictures), ax)
    latents, kinds = _labels(group, "  " if flat else "\n"), [f"{name}s" for name in names]
    across, down = (kinds, latents) if flat else (latents, kinds)
    ax.set_xticks(np.arange(len(across)), across)
    ax.set_yticks(np.arange(len(down)), down)
    (ax.set_ylabel if flat else ax.set_xlabel)("latent (agreement)")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _labels(group: Group, gap: str) -> list[str]:
    if "alignment" not in group:
        return [str(latent) for latent in group["latents"].values]
    pairs = zip(group["latents"].values, group["alignment"].values, strict=True)
    return [f"{latent}{gap}({agreed:.2f})" for latent, agreed in pairs]


def _signed(values: np.ndarray, result: Result) -> np.ndarray:
    """Maps as ``(rank, H, W)`` in [-1, 1], each on its own scale; colours are averaged."""
    if values.ndim == 2:
        values = np.repeat(values[:, None, :], max(values.shape[1] // 8, 1), axis=1)
    elif values.ndim == 4:
        values = values.mean(axis=1)
    elif values.ndim != 3:
        raise ResultError(f"{result.path} has inputs of shape {values.shape[1:]}: no figure")
    largest = np.abs(values).max(axis=(1, 2), keepdims=True)
    shown: np.ndarray = values / np.where(largest > 0, largest, 1)
    return shown


def _coloured(values: np.ndarray) -> np.ndarray:
    """Colours ``(rank, map, H, W, 3)``: blue below 0, white, red above."""
    import matplotlib as mpl

    colours: np.ndarray = mpl.colormaps[DIVERGING]((values + 1) / 2)
    return colours[..., :3]
