"""Show where images are odd: maps of the distortion against masks, and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import DataError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result, require_numbers
from isoprobe.results.whole import replacing
from isoprobe.show.plots.oddities import draw
from isoprobe.theory.localisation import LIMIT, pixel_auroc, region_overlap

if TYPE_CHECKING:
    from isoprobe.run.scoring import Scoring

MAP = "distortion_map"


def check_maps(out: Path | None, *, by_input: bool) -> None:
    """Refuse to compare maps that will not be there, before any work is done.

    Raises:
        OptionError: when scores are to go elsewhere, or without maps.
    """
    if out is None or out.suffix != ".h5" or not by_input:
        raise OptionError("--masks needs --map and --out FILE.h5, whose maps it compares.")


def against_masks(scores: Path, masks: str) -> dict[str, float]:
    """Compare the maps in a file of scores with masks.

    Args:
        scores: written by ``isoprobe score --map``.
        masks: data spec of the masks, one for each row of the data, not 0 where a pixel is odd.

    Returns:
        ``pixel_auroc``, ``region_overlap`` up to a false-positive rate of ``limit``, and
        ``odd_share`` of the pixels.

    Raises:
        DataError: when masks and maps are not of one number and size, or only one kind is there.
    """
    with Result.open(scores) as result:
        columns = result.samples(names=["row", MAP])
    rows = require_numbers(columns["row"], 1, f"{scores}: row")
    axes = max(columns[MAP].ndim, 2)
    maps = _flat(require_numbers(columns[MAP], axes, f"{scores}: {MAP}").astype(float), summed=True)
    with closing(installed().data(masks)) as dataset:
        if len(dataset) <= int(rows.max()):
            shown = f"{len(dataset)} masks of {_size(dataset.shape)}"
            raise DataError(f"{masks}: {shown}, and {len(rows)} maps of {_size(maps.shape[1:])}")
        held = _flat(np.asarray(dataset.read(rows)), summed=False) != 0
    if held.shape != maps.shape:
        raise DataError(
            f"{masks}: {len(held)} masks of {_size(held.shape[1:])}, and {len(maps)} maps of "
            f"{_size(maps.shape[1:])}; expected one for each row, of the images' size"
        )
    if held.all() or not held.any():
        raise DataError(f"{masks}: every pixel is {'odd' if held.all() else 'normal'}")
    return {
        "pixel_auroc": pixel_auroc(maps, held),
        "region_overlap": region_overlap(maps, held),
        "limit": LIMIT,
        "odd_share": float(held.mean()),
    }


def draw_rows(scoring: Scoring, rows: Sequence[tuple[int, dict[str, Any]]], folder: Path) -> None:
    """Write each row's image beside where it is odd, as ``row_17.png``.

    Args:
        scoring: what was scored.
        rows: positions and columns, as :attr:`isoprobe.run.decisions.Tally.highest` has them.
        folder: where to.

    Raises:
        OptionError: when the inputs are no images, or the metric is no sum over inputs.
    """
    if len(scoring.vae.input_shape) < 2:
        raise OptionError("--pictures needs images, and the model takes vectors; leave it out")
    folder.mkdir(parents=True, exist_ok=True)
    objective = scoring.scores.objective_of(by_input=True)
    for position, columns in rows:
        x, _ = scoring.data.batch(position, position + 1, scoring.vae.device, scoring.vae.dtype)
        found = objective(x).by_input
        if found is None:
            raise OptionError("--pictures needs a metric that is a sum over inputs")
        with replacing(folder / f"row_{columns['row']}.png") as partial:
            odd = _flat(found.double().cpu().numpy(), summed=True)[0]
            draw(x[0].double().cpu().numpy(), odd, partial, f"row {columns['row']}")


def _flat(values: np.ndarray, *, summed: bool) -> np.ndarray:
    """Take channels together: maps summed over them, masks odd where any channel is.

    Returns:
        ``(N, H, W)``.

    Raises:
        DataError: when they are no images.
    """
    if values.ndim == 3:
        return values
    if values.ndim != 4:
        raise DataError(f"expected images; found rows of shape {values.shape[1:]}")
    last = values.shape[3] <= 4 < values.shape[1]
    axis = 3 if last else 1
    found: np.ndarray = values.sum(axis=axis) if summed else values.max(axis=axis)
    return found


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
