"""Measure the norms of a model while it trains, as ``isoprobe analyze`` would measure it then."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import isoprobe
from isoprobe_trainers.common.graphs import alone
from isoprobe_trainers.images.experiments import USED, measure
from isoprobe_trainers.images.train import write

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from isoprobe_trainers.images.train import Trainer


def milestones(iterations: int, per_epoch: int, points: int) -> list[int]:
    """Ends of epochs at about equal ratios of their numbers, the last step included.

    Args:
        iterations: of the training.
        per_epoch: steps of an epoch.
        points: how many, where there are so many epochs.

    Returns:
        Steps, ascending.
    """
    last = math.ceil(iterations / per_epoch)
    ratios = [i / max(points - 1, 1) for i in range(points)]
    epochs = sorted({round(last**ratio) for ratio in ratios})
    return [min(epoch * per_epoch, iterations) for epoch in epochs]


def point(trainer: Trainer, images: np.ndarray) -> dict[str, float]:
    """Averages over the used latents at the step a training stands at.

    Args:
        trainer: as it stands; nothing of it is changed.
        images: rows to analyse, as a data source gives them.

    Returns:
        Step, number of used latents, their mean norm and residual, beta recovered by stationarity
        over the one trained with, and rate in nats.
    """
    with alone(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "now.safetensors"
        write(trainer, path, 0.0)
        with isoprobe.analyze(
            path, data=images, analyses=("isometry",), samples=None, device=str(trainer.device)
        ) as result:
            found = measure(result)
            used = found.active & (found.inverse_variance > USED)
            beta = float(result.attrs["beta_recovered"])
            rate = float(result["overview"]["kl_mean"].values.sum())
    return {
        "step": trainer.done,
        "used": int(used.sum()),
        "norm": _mean(found.norm[used]),
        "residual": _mean(found.residual[used]),
        "beta_ratio": beta / trainer.run.beta,
        "rate": rate,
    }


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(sum(values) / len(values)) if len(values) else math.nan
