"""Encode and join rows together with the model that is bound to their conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Posterior


def encoded(vae: VAE, x: Tensor) -> Posterior:
    """Return the posteriors of rows ``(B, *input_shape)``.

    Raises:
        CheckpointError: when the model has no encoder.
    """
    if vae.encode is None:
        raise CheckpointError(f"{vae.name} has no encoder, and so no posterior to draw from.")
    return vae.encode(x)


def joined(parts: Sequence[tuple[VAE, Tensor]]) -> tuple[VAE, Tensor]:
    """Join rows, and bind the model to the conditions of all of them.

    Args:
        parts: at least one; each a model and the rows that it is bound to, if to any.

    Returns:
        The model and the rows, ``(B, *input_shape)``.
    """
    x = torch.cat([rows for _, rows in parts])
    given = [model.given for model, _ in parts if model.given is not None]
    vae = parts[0][0]
    return (vae.on(x, torch.cat(given)) if given else vae), x
