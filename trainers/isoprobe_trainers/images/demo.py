"""Train the model that ``isoprobe demo`` analyses, and pack the images beside it.

    python -m isoprobe_trainers.images.demo FOLDER

A small dense VAE of Fashion-MNIST, trained by cross entropy at beta 1 with a rate that falls to 0,
and a few hundred images that it has not seen; the set's licence lies beside them.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.registry.lookup import installed

IMAGES = 500
STEPS = 40_000
_BATCH, _RATE, _BETA = 256, 2e-3, 1.0
_LATENTS = 10
_CONFIG: dict[str, Any] = {
    "input_shape": [28, 28],
    "encoder_widths": [256],
    "decoder_widths": [256],
    "latent_size": _LATENTS,
    "activation": "relu",
    "output": "sigmoid",
}


def train(folder: Path, steps: int = STEPS) -> Path:
    """Train and write the model and its images.

    Args:
        folder: where ``model.safetensors`` and ``images.npz`` go.
        steps: of Adam.

    Returns:
        The checkpoint.
    """
    torch.manual_seed(0)
    networks = installed().architecture("mlp").build(_CONFIG)
    source = installed().data("fashion-mnist/train")
    images = torch.from_numpy(source.read(np.arange(len(source)))).float() / 255
    parts = [*networks.encoder.parameters(), *networks.decoder.parameters()]
    optimizer = torch.optim.Adam(parts, _RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    began = time.perf_counter()
    for _ in range(steps):
        x = images[torch.randint(len(images), (_BATCH,))]
        mean, std = networks.encoder(x)
        decoder: Any = networks.decoder
        logits = decoder.logits(mean + std * torch.randn_like(std))
        distortion = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, x, reduction="sum"
        )
        rate = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum()
        optimizer.zero_grad()
        ((distortion + _BETA * rate) / _BATCH).backward()
        optimizer.step()
        schedule.step()
    record = {"steps": steps, "seed": 0, "batch": _BATCH, "lr": _RATE}
    record["seconds"] = round(time.perf_counter() - began)
    path = folder / "model.safetensors"
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        architecture="mlp",
        config=_CONFIG,
        latent_size=_LATENTS,
        objective=Objective("bce", _BETA),
        dataset="fashion-mnist/train",
        input_range=(0.0, 1.0),
        training=record,
    )
    write_checkpoint(path, networks.encoder, networks.decoder, manifest, overwrite=True)
    unseen = installed().data("fashion-mnist/test")
    rows = np.arange(IMAGES) * len(unseen) // IMAGES
    np.savez_compressed(folder / "images.npz", x=unseen.read(rows))
    return path


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), *map(int, sys.argv[2:])))
