"""Measure how much each latent changes the picture, against what its sigma foretells.

To second order D(Dec(0), Dec(z_j)) = z_j^2 J_j'GJ_j, and at the optimum E[sigma^-2] = 1 + (2/beta)
E[J_j'GJ_j]; so sigma foretells E[z^2] (beta/2) (E[sigma^-2] - 1) for the mean of D along a walk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.theory.formulas import rough_importance
from isoprobe_trainers.common.tables import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from isoprobe.contracts import Metric
    from isoprobe.results.reader import Result

    Array = NDArray[np.float64]

#: the paper's groups in Figure 6: places in the order of sigma^-2, from 1
GROUPS = (1, 2, 3, 16, 17, 32)


@dataclass(frozen=True)
class Walks:
    """Walks in descending order of E[sigma^-2].

    Attributes:
        latents: number of each latent, ``(n,)``.
        inverse_variance: E[sigma_j^-2], ``(n,)``.
        change: mean of D(Dec(0), Dec(z_j)) - D(Dec(0), Dec(0)) over the walk, ``(n,)``, in units
            of the metric.
        foretold: the same by sigma alone, ``(n,)``.
    """

    latents: NDArray[np.int64]
    inverse_variance: Array
    change: Array
    foretold: Array

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of the change with E[sigma^-2]."""
        change, inverse = (np.argsort(np.argsort(v)) for v in (self.change, self.inverse_variance))
        return float(np.corrcoef(change, inverse)[0, 1])


def walks_of(result: Result, metric: Metric, beta: float) -> Walks:
    """Measure the decoded walks of a result.

    Args:
        result: with ``traversal`` of all latents, in an odd number of steps about 0.
        metric: of the distortion.
        beta: KL weight in its units.

    Returns:
        The walks.
    """
    group = result["traversal"]
    pictures, z = torch.from_numpy(group["images"].values), group["z"].values
    origin = pictures[:, pictures.shape[1] // 2]
    still = metric.distortion(origin, origin)  # not zero for a cross entropy
    steps = [metric.distortion(origin, picture) - still for picture in pictures.unbind(1)]
    change = torch.stack(steps).double().mean(0).numpy()
    latents = group["latents"].values
    inverse = result["overview"]["inverse_variance_mean"].values[latents]
    foretold = np.square(z).mean(1) * rough_importance(inverse - 1, beta)
    order = np.argsort(-inverse, kind="stable")
    return Walks(*(values[order] for values in (latents, inverse, change, foretold)))


def report(title: str, walks: Walks, places: Sequence[int]) -> str:
    """Return a table of walks at some places in the order, and the rank correlation over all.

    Args:
        title: of the model.
        walks: all of them.
        places: from 1; those beyond the number of latents are left out.

    Returns:
        Markdown.
    """
    shown = [place - 1 for place in places if place <= len(walks.latents)]
    rows = [
        [
            str(i + 1),
            str(walks.latents[i]),
            f"{walks.inverse_variance[i]:.3g}",
            f"{walks.change[i]:.4f}",
            f"{walks.foretold[i]:.4f}",
        ]
        for i in shown
    ]
    header = [f"{title}: place", "latent", "E[sigma^-2]", "mean D along -2 to 2", "by sigma alone"]
    count = len(walks.latents)
    return (
        f"{render(header, rows)}\n\nrank correlation of the change with E[sigma^-2] over "
        f"{count} latents: {walks.rank_correlation:.3f}"
    )
