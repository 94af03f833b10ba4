"""Train one VAE of any architecture for a number of iterations: the loop of MNIST and CelebA."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.errors import CheckpointError
from isoprobe_trainers.common.parallel import joined
from isoprobe_trainers.common.training import (
    JsonLog,
    load_state,
    save_state,
    versions,
)
from isoprobe_trainers.images.recorded import RecordedTrainer
from isoprobe_trainers.images.trainer import Run, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

    from isoprobe_trainers.common.parallel import Team
    from isoprobe_trainers.images.trainer import Rows

#: seconds between resume files
SAVE_EVERY = 30.0


def train(
    run: Run,
    rows: Rows,
    count: int,
    out: Path,
    device: torch.device,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train and write a native checkpoint; a log and, at most twice a minute, a resume file too.

    Under torchrun the processes share every batch, and the first of them writes.

    Args:
        run: what to train.
        rows: gives inputs by row number.
        count: how many rows there are.
        out: folder.
        device: where to train.
        resume: go on from the resume file, if there is one.
        overwrite: replace an existing checkpoint.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: when the checkpoint exists, the resume file belongs to another training, or
            the loss is no longer finite.
    """
    path, resume_file = out / f"{run.name}.safetensors", out / f"{run.name}_resume.pt"
    resume = resume and resume_file.exists()
    if path.exists() and not (overwrite or resume):
        raise CheckpointError(f"{path} exists already; choose another folder or overwrite")
    with joined(device) as team:
        trainer = _trainer(run, rows, count, device, team)
        out.mkdir(parents=True, exist_ok=True)
        spent = _restored(trainer, resume_file) if resume else 0.0
        started = time.monotonic()

        def seconds() -> float:
            return spent + time.monotonic() - started

        _advance(trainer, out, lambda: save_state(resume_file, trainer.state(seconds())))
        if team.leads:
            write(trainer, path, seconds())
            resume_file.unlink(missing_ok=True)
    return path


def _advance(trainer: Trainer, out: Path, save: Callable[[], None]) -> None:
    """Take all steps that are left; the first process logs and saves."""
    run, leads = trainer.run, trainer.team.leads
    epoch = trainer.step // trainer.per_epoch
    log = JsonLog(out / f"{run.name}_log.jsonl", epoch) if leads else None
    saved, hidden = time.monotonic(), None if leads else True
    with tqdm(total=run.iterations, initial=trainer.step, desc=run.name, disable=hidden) as bar:
        while trainer.step < run.iterations:
            begun = trainer.step
            parts = trainer.advance()
            _check_finite(run, trainer.step, parts)
            _count(trainer, parts, trainer.step - begun, log)
            bar.update(trainer.step - begun)
            if leads and time.monotonic() - saved > SAVE_EVERY:
                save()
                saved = time.monotonic()


def _trainer(run: Run, rows: Rows, count: int, device: torch.device, team: Team) -> Trainer:
    """A card that one process has to itself takes an epoch at a time."""
    if device.type == "cuda" and team.count == 1:
        return RecordedTrainer(run, rows, count, device)
    return Trainer(run, rows, count, device, team)


def _restored(trainer: Trainer, path: Path) -> float:
    state = load_state(path)
    if state.get("run") != trainer.run.record():
        raise CheckpointError(
            f"{path} belongs to another training; give the same options as then, or remove it"
        )
    trainer.restore(state)
    return float(state["seconds"])


def _check_finite(run: Run, step: int, parts: Mapping[str, float]) -> None:
    if not all(math.isfinite(value) for value in parts.values()):
        shown = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        raise CheckpointError(
            f"{run.name}: the loss is no longer finite at step {step} ({shown}); use a smaller rate"
        )


def _count(trainer: Trainer, parts: Mapping[str, float], taken: int, log: JsonLog | None) -> None:
    """Sum the parts, means over the steps taken, over an epoch, and log their means at its end."""
    for name, value in parts.items():
        trainer.totals[name] = trainer.totals.get(name, 0.0) + taken * value
    epoch, place = divmod(trainer.step, trainer.per_epoch)
    steps = place or trainer.per_epoch
    if place == 0 or trainer.step == trainer.run.iterations:
        means = {name: total / steps for name, total in trainer.totals.items()}
        if log is not None:
            log.write([{"epoch": epoch - (place == 0), "step": trainer.step, **means}])
        trainer.totals = {}


def write(trainer: Trainer, path: Path, seconds: float) -> None:
    """Write the checkpoint of a training as it stands.

    Args:
        trainer: the training.
        path: file, replaced if it is there.
        seconds: spent on it.
    """
    run = trainer.run
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        architecture=run.architecture,
        config=dict(run.config),
        latent_size=math.prod(trainer.networks.latent_shape),
        objective=Objective(
            metric=run.metric,
            beta=run.beta,
            decomposed=run.decomposed,
            transform_weight=1.0 if run.decomposed else None,
        ),
        dataset=run.dataset,
        input_range=(0.0, 1.0),
        training={
            "iterations": run.iterations,
            **({"steps": trainer.step} if trainer.step < run.iterations else {}),
            "batch": run.batch,
            "lr": run.rate,
            "decay": run.decay,
            "seed": run.seed,
            "device": str(trainer.device),
            "processes": trainer.team.count,
            "seconds": round(seconds, 1),
            "versions": versions(),
        },
    )
    encoder, decoder = trainer.networks.encoder, trainer.networks.decoder
    write_checkpoint(path, encoder, decoder, manifest, overwrite=True)
