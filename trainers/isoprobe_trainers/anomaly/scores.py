"""Score a table's different rows once each, as ``isoprobe analyze`` scores every row of a part.

For tables of many equal rows and for models by the hundred; a test holds that both agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

import isoprobe
from isoprobe.probe.untrained import swapped, untrained
from isoprobe.theory.formulas import kl_divergence
from isoprobe_trainers.anomaly.quality import Quality, quality
from isoprobe_trainers.anomaly.train import TRANSFORMS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from isoprobe.contracts import VAE, Posterior
    from isoprobe_trainers.anomaly.recipes import Recipe
    from isoprobe_trainers.anomaly.tables import Split, Table

#: rows at once
_ROWS = 16_384


@torch.no_grad()
def scores(vae: VAE, recipe: Recipe, rows: Tensor) -> Tensor:
    """L_x / beta of rows, the coding loss at mu + sigma and mu - sigma (A.6).

    Args:
        vae: the model, on the device of the rows.
        recipe: with losses and lambdas.
        rows: inputs, ``(N, m)``.

    Returns:
        ``(N,)`` float64.
    """
    encode = cast("Callable[[Tensor], Posterior]", vae.encode)  # as every native checkpoint has
    factor = recipe.scale(rows.shape[1])
    lambda1, lambda2 = recipe.lambda1 * factor, recipe.lambda2 * factor
    found = []
    for x in torch.split(rows, _ROWS):
        posterior = encode(x)
        mean, std = posterior.mean, posterior.std
        x_check, above, below = (vae.decode(z) for z in (mean, mean + std, mean - std))
        coding = ((x_check - above).square().sum(1) + (x_check - below).square().sum(1)) / 2
        transform = TRANSFORMS[recipe.transform](x - x_check)
        rate = kl_divergence(mean, std).sum(1)
        found.append(lambda1 * transform.double() + lambda2 * coding.double() + rate.double())
    return torch.cat(found)


def qualities(
    checkpoint: Path,
    recipe: Recipe,
    table: Table,
    halves: Split,
    device: torch.device,
    *,
    twin: bool = False,
) -> tuple[Quality, Quality | None]:
    """Figures of a checkpoint on the test rows of its split.

    Args:
        checkpoint: native checkpoint.
        recipe: of its data set.
        table: the data set.
        halves: its split.
        device: where to compute.
        twin: judge the same network with parameters drawn anew, too.

    Returns:
        Figures of the trained model, and of the untrained one where asked for.
    """
    vae = isoprobe.load(checkpoint)
    module = cast("nn.Module", vae.module)
    module.to(device)
    numbers, places = np.unique(table.groups[halves.test], return_inverse=True)
    rows = torch.from_numpy(table.distinct[numbers]).to(device)
    marks = table.anomalous[halves.test]

    def judged() -> Quality:
        by_number = scores(vae, recipe, rows).cpu().numpy()
        return quality(by_number[places], marks, recipe.contamination)

    trained = judged()
    if not twin:
        return trained, None
    with swapped(module, untrained(module, 0).tensors):
        return trained, judged()
