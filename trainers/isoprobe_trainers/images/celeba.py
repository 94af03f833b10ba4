"""Train the convolutional VAEs of Section 5.2 and Appendix E: GDN, 1 - SSIM, faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.errors import OptionError
from isoprobe_trainers.images.celeba_source import FacesSource
from isoprobe_trainers.images.train import train
from isoprobe_trainers.images.trainer import Run

if TYPE_CHECKING:
    from pathlib import Path

BATCH, ITERATIONS, CHANNELS = 64, 300_000, 64
#: latents -> lambda, and dense widths of encoder and decoder, of the paper's two sizes
SIZES: dict[int, tuple[float, tuple[int, ...], tuple[int, ...]]] = {
    32: (1000.0, (1024,), (1024,)),
    256: (10_000.0, (2048,), (2048,)),
}
#: the paper does not state the window: this is the standard one
METRIC = "ssim:window=11,sigma=1.5"


def faces_run(
    latents: int = 32,
    *,
    decomposed: bool = False,
    size: int = 64,
    channels: int = CHANNELS,
    iterations: int = ITERATIONS,
    batch: int = BATCH,
    seed: int = 0,
) -> Run:
    """Return a training of Appendix C.2 (32 latents) or E.3 (256).

    Args:
        latents: 32 or 256, which also sets lambda and the dense layers.
        decomposed: train on D(x, x_check) + D(x_check, x_hat).
        size: side of the images, 64 as in the paper or 32.
        channels: of the convolutions; the paper has 64.
        iterations: steps; the paper takes 300,000.
        batch: rows of a step; the paper takes 64.
        seed: of everything random.

    Returns:
        The training, with beta = 1 / lambda.

    Raises:
        OptionError: for another number of latents.
    """
    if latents not in SIZES:
        raise OptionError(f"the paper's models have 32 or 256 latents; found {latents}")
    lam, encoder_widths, decoder_widths = SIZES[latents]
    kind = "decomposed" if decomposed else "plain"
    config = {
        "input_shape": [3, size, size],
        "latent_size": latents,
        "channels": channels,
        "kernels": [9, 5, 5, 5],
        "encoder_widths": list(encoder_widths),
        "decoder_widths": list(decoder_widths),
    }
    return Run(
        name=f"celeba{size}_{kind}_n{latents}_c{channels}_seed{seed}",
        architecture="gdn",
        config=config,
        metric=METRIC,
        beta=1 / lam,
        dataset=f"celeba{size}/train",
        iterations=iterations,
        batch=batch,
        seed=seed,
        decomposed=decomposed,
    )


def train_faces(
    run: Run,
    out: Path,
    device: torch.device,
    *,
    samples: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train on the training part, which is decoded once and held in memory as bytes.

    Args:
        run: from :func:`faces_run`.
        out: folder.
        device: where to train.
        samples: use this many images, evenly spaced; None for all.
        resume: go on from the resume file, if there is one.
        overwrite: replace an existing checkpoint.

    Returns:
        The checkpoint.
    """
    data = FacesSource().open(run.dataset)
    count = len(data) if samples is None else min(samples, len(data))
    chosen = np.arange(count) * len(data) // count
    images = torch.from_numpy(data.read(chosen)).movedim(-1, 1).contiguous().to(device)

    def rows(numbers: torch.Tensor) -> torch.Tensor:
        return images[numbers.to(device)].float() / 255

    return train(run, rows, count, out, device, resume=resume, overwrite=overwrite)
