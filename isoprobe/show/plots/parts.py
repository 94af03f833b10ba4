"""Draw the KL in parts, latents against factors, truncation, and distances."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import ResultError
from isoprobe.show.plots.frames import frames, picture_shape
from isoprobe.show.plots.latents import MANY, latent_axis, ranking
from isoprobe.show.plots.style import (
    BLUE,
    DASHES,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    RED,
    SEQUENTIAL,
    SERIES,
    legend_above,
    unit,
)
from isoprobe.show.plots.walks import lines, tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoprobe.results.reader import Result

#: kept latents beyond which the axis is logarithmic
_WIDE = 64


def kl_parts(result: Result, ax: Axes) -> None:
    """Draw I(x; z_j) and KL(q(z_j) || p) of each latent on top of each other, and all in words.

    Args:
        result: with ``kl-parts``.
        ax: to draw on.
    """
    rank, group = ranking(result), result["kl-parts"]
    information, marginal, error = (
        group[name].values[rank.order] for name in ("information", "marginal_kl", "information_se")
    )
    width = 0.8 if len(rank.order) <= MANY else 1.0
    ax.bar(rank.ranks, information, width, yerr=error, color=BLUE, label="$I(x; z_j)$",
           error_kw={"elinewidth": 0.8, "ecolor": INK})  # fmt: skip
    ax.bar(
        rank.ranks, marginal, width, bottom=information, color=ORANGE, hatch="////",
        edgecolor="white", linewidth=0, label=r"$\mathrm{KL}(q(z_j)\,\|\,p)$",
    )  # fmt: skip
    ax.set_ylabel(r"$\mathrm{KL}_j$ [nat]")
    latent_axis(ax, rank)
    legend_above(ax)
    words = textwrap.fill(str(group["line"].values), 78)
    ax.annotate(
        words, (0, 0), (0, -30), xycoords="axes fraction", textcoords="offset points",
        va="top", fontsize=7,
    )  # fmt: skip


def information_bits(result: Result, ax: Axes) -> None:
    """Draw I(v_k; z_j) as a table; cells that may be nothing are left blank.

    Args:
        result: with ``information``.
        ax: to draw on; a colour bar is added.
    """
    rank, group = ranking(result), result["information"]
    bits = group["bits"].values[:, rank.order]
    sure = group["bits_low"].values[:, rank.order] > 0
    image = ax.imshow(
        np.where(sure, bits, np.nan), cmap=SEQUENTIAL, vmin=0, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.05, pad=0.02)
    bar.set_label("$I(v; z_j)$ [bit]")
    bar.outline.set_visible(False)
    if bits.size <= 160 and len(rank.order) <= 16:
        bright = 0.55 * np.nanmax(np.where(sure, bits, 0))
        for row, column in np.argwhere(sure):
            value = bits[row, column]
            colour = "white" if value < bright else "black"
            text = f"{value:.2f}".removeprefix("0")
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.5)
    names = [str(name) for name in group["factor_name"].values]
    ax.set_yticks(np.arange(len(names)), names)
    ticks = np.arange(len(rank.order))
    if len(ticks) <= MANY:
        ax.set_xticks(ticks, rank.order)
        ax.set_xlabel("latent, by importance")
    else:
        ax.set_xlabel("rank by importance")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def probe_accuracy(result: Result, ax: Axes) -> None:
    """Draw a linear probe's held-out accuracy by the number of latents it sees.

    Args:
        result: with ``information``.
        ax: to draw on.
    """
    _probe(result, ax, "probe_accuracy", "majority", "share of the commonest class")
    low, high = (result["information"][f"probe_accuracy_{end}"].values for end in ("low", "high"))
    counts = result["information"]["probe_latents"].values
    for place in range(min(len(low), len(SERIES))):
        ax.fill_between(counts, low[place], high[place], color=SERIES[place], alpha=0.2, lw=0)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("held-out accuracy")


def probe_bits(result: Result, ax: Axes) -> None:
    """Draw a linear probe's usable bits by the number of latents it sees, below H(v).

    Args:
        result: with ``information``.
        ax: to draw on.
    """
    _probe(result, ax, "probe_bits", "entropy", "$H(v)$: all there is to tell")
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    ax.set_ylabel("usable bits")


def _probe(result: Result, ax: Axes, curve: str, limit: str, said: str) -> None:
    group = result["information"]
    counts, names = group["probe_latents"].values, group["factor_name"].values
    for place, (values, line) in enumerate(
        zip(group[curve].values, group[limit].values, strict=True)
    ):
        colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
        ax.plot(counts, values, color=colour, marker=marker, label=str(names[place]))
        ax.axhline(line, color=colour, ls="--", lw=0.9)
    ax.plot([], [], color=INK, ls="--", lw=0.9, label=said)
    if counts[-1] > _WIDE:
        ax.set_xscale("log")
    ax.set_xlabel("latents seen, the most informative first")
    ax.grid(visible=True)
    legend_above(ax)


def truncation(result: Result, ax: Axes) -> None:
    """Draw distortion by the number of latents kept, measured and predicted by importance.

    Args:
        result: with ``truncation``.
        ax: to draw on.
    """
    group = result["truncation"]
    kept = group["kept"].values
    ax.errorbar(
        kept, group["distortion"].values, 2 * group["distortion_se"].values, fmt="o-", ms=3.5,
        color=BLUE, elinewidth=0.9, label="measured",
    )  # fmt: skip
    ax.plot(kept, group["distortion_predicted"].values, color=RED, ls="--",
            label="as importance predicts")  # fmt: skip
    if kept[-1] > _WIDE:
        ax.set_xscale("symlog", linthresh=16)
    ax.set_ylim(bottom=0)
    for share, dash in zip((90, 95, 99), DASHES[1:], strict=False):
        count = int(group[f"latents_{share}"].values)
        ax.axvline(count, color=GREY, lw=0.9, ls=dash, label=f"{share} %: k = {count}")
    ax.set_xlim(kept[0], kept[-1])
    ax.set_xlabel("latents kept, the most important first")
    ax.set_ylabel("distortion" + unit("metric", str(result.attrs.get("metric", "metric"))))
    legend_above(ax)


def truncation_pictures(result: Result, ax: Axes) -> None:
    """Draw the same rows decoded from more and more latents, and the rows themselves.

    Args:
        result: with ``truncation``.
        ax: to draw on.

    Raises:
        ResultError: if the inputs are neither vectors nor images.
    """
    group = result["truncation"]
    images, kept = group["images"], group["pictured"].values
    shown = np.concatenate([images.values, group["originals"].values[None]])
    _walks(result, ax, shown, [f"k = {k}" for k in kept] + ["row"])
    ax.set_xticks([])


def distances(result: Result, ax: Axes) -> None:
    """Draw ``|dy|`` and ``|dz|`` of pairs against the length of the shortest path between them.

    Args:
        result: with ``geometry``.
        ax: to draw on.
    """
    group = result["geometry"]
    d, y, z = (group[name].values for name in ("geodesic", "distance_y", "distance_z"))
    scale = float(np.median(d / z))
    ends = [0, 1.05 * float(max(d.max(), y.max()))]
    ax.plot(ends, ends, color=INK, lw=0.8, ls="--", label="equal")
    ax.plot(d, y, "o", color=BLUE, label=r"$|\Delta y|$")
    ax.plot(d, scale * z, "^", color=RED, mfc="none", label=rf"{scale:.2g} $|\Delta z|$")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    units = unit("metric", str(result.attrs.get("metric", "metric")))
    units = units.replace("[", "[root of ")
    ax.set_xlabel("length of the shortest path $d$" + units)
    ax.set_ylabel("distance in coordinates")
    ax.grid(visible=True)
    legend_above(ax)


def shortest_paths(result: Result, ax: Axes) -> None:
    """Draw what the shortest paths of the most distant pairs pass, above the straight walk in z.

    Args:
        result: with ``geometry``.
        ax: to draw on.

    Raises:
        ResultError: if the inputs are neither vectors nor images.
    """
    group = result["geometry"]
    both = np.stack([group["images_geodesic"].values, group["images_straight"].values], axis=1)
    names = [
        text
        for pair in group["pair_rows"].values[group["pictured"].values]
        for text in (f"{pair[0]} to {pair[1]}", "straight")
    ]
    _walks(result, ax, both.reshape(-1, *both.shape[2:]), names)
    ax.set_xticks([])
    ax.set_xlabel("equal steps of length")


def _walks(result: Result, ax: Axes, values: np.ndarray, names: list[str]) -> None:
    """Draw rows of inputs ``(row, step, *input axes)`` as pictures or as lines."""
    pictures = frames(values, picture_shape(result))
    if pictures is not None:
        tiles(pictures, ax)
    elif values.ndim == 3:
        lines(values, ax)
    else:
        raise ResultError(f"{result.path} has inputs of shape {values.shape[2:]}: no figure")
    ax.set_yticks(np.arange(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
