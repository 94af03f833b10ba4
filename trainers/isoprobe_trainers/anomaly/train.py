"""Train the anomaly detectors of Section 5.3: 20 seeds of a data set as one ensemble (Appendix H).

A model is kept at every tenth of the schedule. Of the ten that one is taken whose objective is
least on normal rows held out of the training half; the test rows are never looked at.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.errors import CheckpointError, OptionError
from isoprobe_plugins.architectures.mlp import Mlp
from isoprobe_trainers.anomaly.ensemble import AnomalyEnsemble
from isoprobe_trainers.anomaly.recipes import BATCH, KEPT
from isoprobe_trainers.anomaly.recorded import RecordedEnsemble
from isoprobe_trainers.anomaly.source import data_spec
from isoprobe_trainers.anomaly.tables import load, split
from isoprobe_trainers.common.training import JsonLog, load_state, save_state, versions, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn

from isoprobe_trainers.anomaly.recipes import Recipe

#: seconds between resume files
SAVE_EVERY = 30.0
RULE = "least objective on held-out normal rows among the models kept at each tenth"


@dataclass
class _Progress:
    """Where a training stands.

    Attributes:
        epoch: epochs done.
        seconds: spent on them.
        held_out: objective on held-out rows by seed, at each tenth so far.
    """

    epoch: int
    seconds: float
    held_out: list[list[float]]


def checkpoint_path(out: Path, name: str, seed: int) -> Path:
    """File of the model taken."""
    return out / f"{name}_seed{seed}.safetensors"


def kept_path(out: Path, name: str, seed: int, tenth: int) -> Path:
    """File of the model kept at a tenth of the schedule, from 1 to 10."""
    return out / "tenths" / f"{name}_seed{seed}_tenth{tenth:02d}.safetensors"


def train(
    recipe: Recipe,
    seeds: Sequence[int],
    out: Path,
    device: torch.device,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Train one model for each seed, which also chooses the split, and write native checkpoints.

    A resume file is written beside them at every tenth and at most twice a minute between, and
    removed at the end. Training continued from it ends in the same weights.

    Args:
        recipe: data set, network, losses and schedule.
        seeds: all different.
        out: folder for checkpoints, those of every tenth, a log and the resume file.
        device: where to train.
        resume: go on from the resume file, if there is one.
        overwrite: replace existing checkpoints.

    Returns:
        The checkpoints taken, in the order of the seeds.

    Raises:
        CheckpointError: when a checkpoint exists, the resume file belongs to another training, or
            a model's objective is no longer finite.
        OptionError: when a seed is given twice.
    """
    if len(set(seeds)) < len(seeds):
        raise OptionError("a seed is given twice; give each once")
    paths = [checkpoint_path(out, recipe.name, seed) for seed in seeds]
    resume_file = out / f"{recipe.name}_resume.pt"
    resume = resume and resume_file.exists()
    existing = [p for p in paths if p.exists()]
    if existing and not (overwrite or resume):
        raise CheckpointError(f"{existing[0]} exists already; choose another folder or overwrite")
    tables = [load(recipe.name, seed) for seed in seeds]
    splits = [split(t, seed) for t, seed in zip(tables, seeds, strict=True)]
    (out / "tenths").mkdir(parents=True, exist_ok=True)
    ensemble = _kind(device)(recipe, seeds, tables, splits, device)
    progress = _restored(ensemble, recipe, seeds, resume_file, resume=resume)
    log = JsonLog(out / f"{recipe.name}_log.jsonl", progress.epoch + 1)
    _run(ensemble, recipe, seeds, progress, log, resume_file)
    for index, seed in enumerate(seeds):
        taken = best_tenth([tenth[index] for tenth in progress.held_out])
        with whole(checkpoint_path(out, recipe.name, seed)) as partial:
            shutil.copyfile(kept_path(out, recipe.name, seed, taken), partial)
    resume_file.unlink(missing_ok=True)
    return paths


def _kind(device: torch.device) -> type[AnomalyEnsemble]:
    return AnomalyEnsemble if device.type != "cuda" else RecordedEnsemble


def best_tenth(objectives: Sequence[float]) -> int:
    """Number of the tenth, from 1, whose held-out objective is least; the first of equal ones."""
    return min(range(len(objectives)), key=objectives.__getitem__) + 1


def _run(
    ensemble: AnomalyEnsemble,
    recipe: Recipe,
    seeds: Sequence[int],
    progress: _Progress,
    log: JsonLog,
    resume_file: Path,
) -> None:
    begun, started = progress.seconds, time.monotonic()
    saved = started
    bar = tqdm(total=recipe.epochs, initial=progress.epoch, desc=recipe.name, disable=None)
    while progress.epoch < recipe.epochs:
        ensemble.run_epoch(progress.epoch)
        progress.epoch += 1
        bar.update()
        tenth = len(progress.held_out) + 1
        if progress.epoch == round(recipe.epochs * tenth / KEPT):
            progress.seconds = begun + time.monotonic() - started
            _keep(ensemble, recipe, seeds, progress, log, resume_file.parent)
        elif time.monotonic() - saved <= SAVE_EVERY:
            continue
        progress.seconds = begun + time.monotonic() - started
        save_state(resume_file, _state(ensemble, recipe, seeds, progress))
        saved = time.monotonic()
    bar.close()


def _keep(
    ensemble: AnomalyEnsemble,
    recipe: Recipe,
    seeds: Sequence[int],
    progress: _Progress,
    log: JsonLog,
    out: Path,
) -> None:
    """Measure the models on the rows held out, and write a checkpoint of each."""
    objectives = ensemble.held_out_objective()
    if not all(math.isfinite(value) for value in objectives):
        raise CheckpointError(
            f"{recipe.name}: the objective is no longer finite after {progress.epoch} epochs; "
            "train with smaller lambdas"
        )
    progress.held_out.append(objectives)
    tenth = len(progress.held_out)
    for index, (seed, value) in enumerate(zip(seeds, objectives, strict=True)):
        record = _record(ensemble, recipe, seed, progress)
        record["held_out_objective"] = value
        _export(ensemble, index, kept_path(out, recipe.name, seed, tenth), record)
    log.write(
        [
            {"epoch": progress.epoch, "seed": seed, "held_out": value}
            for seed, value in zip(seeds, objectives, strict=True)
        ]
    )


# --------------------------------------------------------------------------- resume


def _identity(recipe: Recipe, seeds: Sequence[int]) -> dict[str, Any]:
    return {"recipe": recipe.record(), "seeds": list(seeds)}


def _state(
    ensemble: AnomalyEnsemble, recipe: Recipe, seeds: Sequence[int], progress: _Progress
) -> dict[str, Any]:
    return {**_identity(recipe, seeds), **vars(progress), "state": ensemble.state()}


def _restored(
    ensemble: AnomalyEnsemble, recipe: Recipe, seeds: Sequence[int], path: Path, *, resume: bool
) -> _Progress:
    if not resume:
        return _Progress(0, 0.0, [])
    state = load_state(path)
    if {k: state.get(k) for k in ("recipe", "seeds")} != _identity(recipe, seeds):
        raise CheckpointError(
            f"{path} belongs to a training of other seeds or another schedule; give the same "
            "options as then, or remove it"
        )
    ensemble.restore(state["state"])
    return _Progress(int(state["epoch"]), float(state["seconds"]), list(state["held_out"]))


# --------------------------------------------------------------------------- checkpoints


def _record(
    ensemble: AnomalyEnsemble, recipe: Recipe, seed: int, progress: _Progress
) -> dict[str, Any]:
    return {
        "trainer": "anomaly",
        "recipe": recipe.record(),
        "epoch": progress.epoch,
        "batch": BATCH,
        "rule": RULE,
        "seed": seed,
        "device": str(ensemble.device),
        "seconds": round(progress.seconds, 1),
        "trained_together": len(ensemble.rows),
        "versions": versions(),
    }


def objective_of(recipe: Recipe, inputs: int) -> Objective:
    """The loss as a checkpoint states it, in units of the summed square error.

    Args:
        recipe: with lambdas and reduction.
        inputs: number of inputs m.

    Returns:
        Metric ``sse`` with beta = 1 / lambda2 (m / lambda2 for a mean over the inputs) and weight
        lambda1 / lambda2 on the transform loss.
    """
    return Objective(
        metric="sse",
        beta=1 / (recipe.lambda2 * recipe.scale(inputs)),
        decomposed=True,
        transform_weight=recipe.lambda1 / recipe.lambda2,
        transform_metric=None if recipe.transform == "sse" else recipe.transform,
    )


def _export(ensemble: AnomalyEnsemble, index: int, path: Path, record: Mapping[str, Any]) -> None:
    recipe, n = ensemble.recipe, ensemble.recipe.latents
    inputs = ensemble.encoder.widths[0]
    config = {
        "input_shape": [inputs],
        "encoder_widths": list(recipe.widths),
        "decoder_widths": list(reversed(recipe.widths)),
        "latent_size": n,
        "activation": recipe.activation,
        "output": "linear",
    }
    networks = Mlp().build(config)
    *trunk, (weight, bias) = ensemble.encoder.member(index)
    heads = {"mean": (weight[:n], bias[:n]), "scale": (weight[n:], bias[n:])}
    _fill(networks.encoder, trunk, heads)
    *trunk, last = ensemble.decoder.member(index)
    _fill(networks.decoder, trunk, {"out": last})
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        architecture=Mlp.name,
        config=config,
        latent_size=n,
        objective=objective_of(recipe, inputs),
        dataset=data_spec(recipe.name, int(record["seed"]), "train"),
        training=dict(record),
    )
    write_checkpoint(path, networks.encoder, networks.decoder, manifest, overwrite=True)


Layer = tuple["Tensor", "Tensor"]


def _fill(module: nn.Module, trunk: Sequence[Layer], named: Mapping[str, Layer]) -> None:
    # a trunk is linear, activation, linear, activation ...
    layers = {f"trunk.{2 * i}": layer for i, layer in enumerate(trunk)} | dict(named)
    state = {f"{name}.weight": weight.cpu() for name, (weight, _) in layers.items()}
    state |= {f"{name}.bias": bias.cpu() for name, (_, bias) in layers.items()}
    module.load_state_dict(state)
