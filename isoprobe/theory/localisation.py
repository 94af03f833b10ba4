"""Measure how well maps of a score find where an image is odd, by masks that say so.

Pixel AUROC, and the area under the per-region overlap curve up to a false-positive rate (Bergmann,
Batzner, Fauser, Sattlegger and Steger 2021), which counts every region alike, small or large.
"""

from __future__ import annotations

import numpy as np

from isoprobe.theory.detection import auroc
from isoprobe.theory.stated import stated

#: false-positive rate up to which the overlap counts, as is usual
LIMIT = 0.3


@stated("Where an image is odd (beyond)")
def pixel_auroc(maps: np.ndarray, masks: np.ndarray) -> float:
    """Return the chance that an odd pixel scores above another, over all images together.

    Args:
        maps: scores of pixels, ``(N, H, W)``.
        masks: which are odd, ``(N, H, W)`` bool, with both kinds in it.

    Returns:
        Area under the ROC curve.
    """
    return auroc(maps.ravel(), masks.ravel())


@stated("Where an image is odd (beyond)")
def regions(mask: np.ndarray) -> np.ndarray:
    """Number the connected regions of a mask, corners touching counted as connected.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        ``(H, W)`` int64, 0 outside, regions from 1 on.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), dtype=np.int64)
    inside = padded[1:-1, 1:-1]
    inside[mask] = np.arange(1, int(mask.sum()) + 1)
    views = [
        padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    ]
    while True:
        highest = np.where(mask, np.max(views, axis=0), 0)
        if np.array_equal(highest, inside):
            break
        inside[:] = highest
        # a pixel takes the number that its own number's pixel has got meanwhile
        first = np.zeros(int(mask.sum()) + 1, dtype=np.int64)
        first[np.arange(1, len(first))] = inside[mask]
        inside[mask] = first[inside[mask]]
    numbers, named = np.unique(inside[mask], return_inverse=True)
    found = np.zeros(mask.shape, dtype=np.int64)
    found[mask] = named.reshape(-1) + 1 if len(numbers) else 0
    return found


@stated("Where an image is odd (beyond)")
def region_overlap(maps: np.ndarray, masks: np.ndarray, limit: float = LIMIT) -> float:
    """Return the mean overlap with regions over false-positive rates up to a limit.

    Args:
        maps: scores of pixels, ``(N, H, W)``.
        masks: which are odd, ``(N, H, W)`` bool, with both kinds in it.
        limit: highest false-positive rate, over all pixels outside the masks.

    Returns:
        Area under the curve of the regions' mean covered share against that rate, divided by the
        limit: 1 where every region is covered before any other pixel.
    """
    weights = np.zeros(masks.shape)
    count = 0
    for weight, mask in zip(weights, masks, strict=True):
        numbered = regions(mask)
        sizes = np.bincount(numbered[mask], minlength=int(numbered.max()) + 1)
        weight[mask] = 1 / sizes[numbered[mask]]
        count += int(numbered.max())
    order = np.argsort(-maps.ravel(), kind="stable")
    ordered = maps.ravel()[order]
    last = np.flatnonzero(np.diff(ordered, append=-np.inf))
    covered = np.cumsum(weights.ravel()[order])[last] / count
    false = np.cumsum(~masks.ravel()[order])[last] / int((~masks).sum())
    covered, false = np.r_[0.0, covered], np.r_[0.0, false]
    inside = false <= limit
    at = np.interp(limit, false, covered)
    x, y = np.r_[false[inside], limit], np.r_[covered[inside], at]
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / limit)
