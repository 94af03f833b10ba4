"""Train the VAEs of Appendix F: 784-1024-1024-n with ReLU, binary cross entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from isoprobe_trainers.images.mnist_source import DigitsSource
from isoprobe_trainers.images.train import train
from isoprobe_trainers.images.trainer import Run

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = 784
WIDTHS = (1024, 1024)
BATCH, ITERATIONS = 256, 50_000
#: latents and lambda of the two models of Figure 28
PAPER = ((32, 2000.0), (64, 10_000.0))


def digits_run(
    kind: str, latents: int, lam: float, iterations: int = ITERATIONS, seed: int = 0
) -> Run:
    """Return a training of Appendix F.

    Args:
        kind: ``mnist`` or ``fashion-mnist``.
        latents: latent size n.
        lam: weight of the cross entropy, averaged over pixels, beside the KL.
        iterations: steps; the paper takes 50,000.
        seed: of everything random.

    Returns:
        The training, with beta = 784 / lambda for the cross entropy summed over pixels.
    """
    config = {
        "input_shape": [PIXELS],
        "encoder_widths": list(WIDTHS),
        "decoder_widths": list(WIDTHS),
        "latent_size": latents,
        "activation": "relu",
        "output": "sigmoid",
    }
    return Run(
        name=f"{kind}_lam{lam:g}_n{latents}_seed{seed}",
        architecture="mlp",
        config=config,
        metric="bce",
        beta=PIXELS / lam,
        dataset=f"{kind}/train",
        iterations=iterations,
        batch=BATCH,
        seed=seed,
    )


def train_digits(
    run: Run, out: Path, device: torch.device, *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Train on the 50,000 images of the training part.

    Args:
        run: from :func:`digits_run`.
        out: folder.
        device: where to train.
        resume: go on from the resume file, if there is one.
        overwrite: replace an existing checkpoint.

    Returns:
        The checkpoint.
    """
    images = torch.from_numpy(DigitsSource().open(run.dataset).images).to(device)

    def rows(chosen: torch.Tensor) -> torch.Tensor:
        return images[chosen.to(device)].flatten(1).float() / 255

    return train(run, rows, len(images), out, device, resume=resume, overwrite=overwrite)
