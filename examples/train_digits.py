"""Train the small checkpoint that ships with the examples: a BCE VAE on 8x8 digits.

Writes ``examples/digits.safetensors`` and its data ``examples/digits.npy`` (the digits that
scikit-learn carries, as image bytes). Needs scikit-learn, and about two minutes on one core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from tqdm import tqdm

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe_plugins.architectures.mlp import Mlp

HERE = Path(__file__).parent
BETA, LATENTS, STEPS, BATCH, SEED = 0.2, 10, 30_000, 256, 0
CONFIG = {
    "input_shape": [64],
    "encoder_widths": [128, 128],
    "decoder_widths": [128, 128],
    "latent_size": LATENTS,
    "activation": "tanh",
    "output": "sigmoid",
}


def loss_parts(
    encoder: torch.nn.Module, decoder: torch.nn.Module, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """BCE summed over pixels and KL summed over latents, means over the batch, in nats."""
    mean, std = encoder(x)
    logits = decoder.logits(mean + std * torch.randn_like(std))
    distortion = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    rate = 0.5 * (mean.square() + std.square() - 2 * std.log() - 1)
    return distortion.sum(1).mean(), rate.sum(1).mean()


def main() -> None:
    """Train, and write checkpoint and data."""
    torch.manual_seed(SEED)
    rows = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    x = torch.from_numpy(rows) / 255
    networks = Mlp().build(CONFIG)
    encoder, decoder = networks.encoder, networks.decoder
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    bar = tqdm(range(STEPS), disable=None)
    for step in bar:
        distortion, rate = loss_parts(encoder, decoder, x[torch.randint(len(x), (BATCH,))])
        optimizer.zero_grad()
        (distortion + BETA * rate).backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            bar.set_postfix(distortion=f"{distortion.item():.2f}", rate=f"{rate.item():.2f}")
    np.save(HERE / "digits.npy", rows)
    write_checkpoint(
        HERE / "digits.safetensors",
        encoder,
        decoder,
        Manifest(
            format_version=FORMAT_VERSION,
            architecture="mlp",
            config=CONFIG,
            latent_size=LATENTS,
            objective=Objective(metric="bce", beta=BETA),
            dataset="digits.npy",
            input_range=(0.0, 1.0),
            preprocessing={"scale": "bytes divided by 255"},
            training={
                "steps": STEPS,
                "batch": BATCH,
                "optimizer": "Adam, cosine from 1e-3",
                "seed": SEED,
                "samples": len(rows),
            },
        ),
        overwrite=True,
    )


if __name__ == "__main__":
    main()
