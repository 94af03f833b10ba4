"""Train on a table in a file: a checkpoint that knows its columns, and the rows left out of it."""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.contracts import VAE, Facts, Posterior
from isoprobe.data.recipe import texts
from isoprobe.errors import DataError, OptionError
from isoprobe.results.whole import check_place
from isoprobe_plugins.architectures.skip import Skip
from isoprobe_plugins.data.tables import read_cells
from isoprobe_trainers.common.training import versions, whole
from isoprobe_trainers.table.fit import fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from isoprobe.contracts import Networks

METRIC = "sse"


@dataclass(frozen=True)
class Files:
    """What a training wrote.

    Attributes:
        checkpoint: the model.
        reference: rows it was not trained on, as CSV; None where none were left out.
        said: what was chosen and why, a sentence each.
    """

    checkpoint: Path
    reference: Path | None
    said: tuple[str, ...]


def train(
    spec: str,
    out: Path,
    *,
    seed: int = 0,
    normal: str = "0",
    reference: float = 0.25,
    overwrite: bool = False,
) -> Files:
    """Train a VAE on the normal rows of a table.

    Args:
        spec: ``FILE.csv:columns=a,b;label=y;id=patient``, CSV, TSV or Parquet.
        out: folder for the files.
        seed: of everything random.
        normal: label of the rows to train on, where a label is given.
        reference: share of these rows that is left out of the training, for a reference.
        overwrite: replace existing files.

    Returns:
        The files.

    Raises:
        OptionError: for a share outside [0, 1).
        DataError: for a missing cell, or too few rows.
    """
    if not 0 <= reference < 1:
        raise OptionError(f"--reference is at least 0 and below 1; found {reference:g}")
    began = time.monotonic()
    table = read_cells(spec)
    cells, labels, name = table.columns, table.labels, table.name
    kept = np.arange(len(next(iter(cells.values()))))
    if labels is not None:
        kept = np.flatnonzero(texts(labels, "label", name) == normal)
        if not len(kept):
            some = ", ".join(np.unique(texts(labels, "label", name))[:5])
            raise DataError(
                f"no row of {name} has the label '{normal}' of a normal row; found {some}: name "
                "the right one with --normal"
            )
    stem = name.partition(".")[0]
    checkpoint = check_place(out / f"{stem}.safetensors", overwrite=overwrite)
    beside = check_place(out / f"{stem}.reference.csv", overwrite=overwrite)
    order = np.random.default_rng(seed).permutation(kept)
    left = np.sort(order[: round(reference * len(order))])
    rows = np.sort(order[len(left) :])
    trained = fit({key: values[rows] for key, values in cells.items()}, seed, name)
    record = {
        **trained.record,
        "data": name,
        "seconds": round(time.monotonic() - began, 1),
        "versions": versions(),
    }
    write(checkpoint, trained.networks, trained.config, trained.beta, record, overwrite=overwrite)
    if len(left):
        _write_rows(beside, {key: values[left] for key, values in cells.items()})
    return Files(checkpoint, beside if len(left) else None, trained.said)


def write(
    path: str | Path,
    networks: Networks,
    config: Mapping[str, Any],
    beta: float,
    record: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write a table's VAE as a native checkpoint."""
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        architecture=Skip.name,
        config=dict(config),
        latent_size=int(config["latent_size"]),
        objective=Objective(METRIC, beta),
        training=dict(record),
    )
    write_checkpoint(path, networks.encoder, networks.decoder, manifest, overwrite=overwrite)


def as_vae(networks: Networks, beta: float, record: Mapping[str, Any]) -> VAE:
    """Return a table's VAE as the core takes it."""
    import torch

    def encode(x: Tensor) -> Posterior:
        return Posterior(*networks.encoder(x))

    return VAE(
        decode=networks.decoder,
        encode=encode,
        input_shape=networks.input_shape,
        latent_shape=networks.latent_shape,
        module=torch.nn.ModuleList([networks.encoder, networks.decoder]),
        facts=Facts(metric=METRIC, beta=beta, training=dict(record)),
        name="detector",
    )


def _write_rows(path: Path, cells: Mapping[str, np.ndarray]) -> None:
    """Write rows as they were read."""
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(cells)
        writer.writerows(zip(*(values.tolist() for values in cells.values()), strict=True))
