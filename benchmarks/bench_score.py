"""Rows scored a second, and the cost against a plain encoder-decoder pass over the same rows.

Run it with ``python -m benchmarks.bench_score [rows]``; it prints, and asserts nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

import isoprobe
from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.run.scoring import Scoring, open_scoring
from isoprobe.run.tables import write_scores
from isoprobe_plugins.architectures.mlp import Mlp

#: name, features, hidden widths, latents, and rows as a share of those asked for
MODELS = (
    ("MLP of 16 features", 16, [64, 64], 4, 1.0),
    ("MLP of 16 features, wide", 16, [512, 512], 8, 0.2),
    ("MLP of 784 features", 784, [512, 256], 32, 0.05),
)


def make_reference(
    folder: Path, features: int, widths: list[int], latents: int, normal: int
) -> np.random.Generator:
    """Write a checkpoint and the result of so many normal rows; return what goes on drawing."""
    config = {
        "input_shape": [features],
        "encoder_widths": widths,
        "decoder_widths": widths[::-1],
        "latent_size": latents,
    }
    torch.manual_seed(0)
    networks = Mlp().build(config)
    manifest = Manifest(FORMAT_VERSION, "mlp", config, latents, Objective("sse", 0.1))
    write_checkpoint(folder / "model.safetensors", networks.encoder, networks.decoder, manifest)
    generator = np.random.default_rng(0)
    np.save(folder / "old.npy", generator.normal(size=(normal, features)).astype(np.float32))
    isoprobe.analyze(
        folder / "model.safetensors",
        str(folder / "old.npy"),
        analyses=["anomaly"],
        out=folder / "reference.h5",
    ).close()
    return generator


def make(folder: Path, features: int, widths: list[int], latents: int, rows: int) -> None:
    """Write a checkpoint, a reference result and rows to score."""
    generator = make_reference(folder, features, widths, latents, 1000)
    new = np.lib.format.open_memmap(
        folder / "new.npy", mode="w+", dtype=np.float32, shape=(rows, features)
    )
    for start in range(0, rows, 50_000):
        new[start : start + 50_000] = generator.normal(size=new[start : start + 50_000].shape)
    new.flush()


def plain(scoring: Scoring, *, reading: bool) -> None:
    """Encode and decode every row once; read each batch, or take the first one again."""
    vae = scoring.vae
    if vae.encode is None:
        raise TypeError("a benchmark model has an encoder")
    first, _ = scoring.data.batch(0, min(scoring.batch, scoring.rows), vae.device, vae.dtype)
    with torch.no_grad():
        for start in range(0, scoring.rows, scoring.batch):
            stop = min(start + scoring.batch, scoring.rows)
            x = first[: stop - start]
            if reading:
                x, _ = scoring.data.batch(start, stop, vae.device, vae.dtype)
            vae.decode(vae.encode(x).mean)


def work(scoring: Scoring, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is timed; the first is what the others are compared with."""
    yield "encode and decode, rows in memory", lambda: plain(scoring, reading=False)
    yield "encode and decode, rows read", lambda: plain(scoring, reading=True)
    yield "score", lambda: sum(len(columns["score"]) for columns in scoring)
    for suffix in (".h5", ".csv"):
        out = folder / f"out{suffix}"
        yield f"score into {suffix}", partial(write_scores, scoring, out, overwrite=True)


def main(rows: int) -> None:
    """Print a table for each model."""
    for name, features, widths, latents, share in MODELS:
        count = max(1, int(rows * share))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make(folder, features, widths, latents, count)
            model = folder / "model.safetensors"
            with open_scoring(model, str(folder / "new.npy"), folder / "reference.h5") as scoring:
                print(f"{name}: {count:,} rows, {scoring.batch} at once")
                base = 0.0
                for label, run in work(scoring, folder):
                    start, begun = time.process_time(), time.perf_counter()
                    run()
                    seconds, wall = time.process_time() - start, time.perf_counter() - begun
                    base = base or seconds
                    print(
                        f"  {label:36s} {count / seconds:12,.0f} rows per CPU second"
                        f"  {count / wall:12,.0f} rows/s  {seconds / base:5.2f} x"
                    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
