"""Train the toy models of Section 5.1 and Appendix D (networks and schedule of Appendix C.1)."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.errors import CheckpointError, OptionError
from isoprobe_plugins.architectures.mlp import Mlp
from isoprobe_trainers.common.training import (
    Clock,
    JsonLog,
    Schedule,
    load_state,
    save_state,
    versions,
)
from isoprobe_trainers.toy.ensemble import Ensemble
from isoprobe_trainers.toy.group import DECODER_WIDTHS, ENCODER_WIDTHS, Group
from isoprobe_trainers.toy.source import parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from isoprobe_trainers.toy.members import Member

#: Appendix C.1, but for the decay: at a constant rate Adam's noise alone triples the transform loss
FULL = Schedule(epochs=500, batch=128, lr=1e-3, decay=0.1)
QUICK = Schedule(epochs=120, batch=256, lr=2e-3, decay=1.0)
RESUME_FILE = "resume.pt"
LOG_FILE = "log.jsonl"
#: seconds between resume files
SAVE_EVERY = 30.0


def checkpoint_path(out: Path, member: Member) -> Path:
    """File of a member's checkpoint."""
    return out / f"{member.name}.safetensors"


def train(
    members: Sequence[Member],
    schedule: Schedule,
    out: Path,
    device: torch.device,
    *,
    resume: bool = False,
    overwrite: bool = False,
    compile_step: bool = False,
) -> list[Path]:
    """Train members together and write one native checkpoint for each.

    A resume file is written beside them at the end of an epoch, at most twice a minute, and removed
    at the end. Training continued from it ends in the same weights.

    Args:
        members: models, all different.
        schedule: epochs, batch and learning rate.
        out: folder for checkpoints, ``log.jsonl`` and the resume file.
        device: where to train.
        resume: go on from the resume file, if there is one.
        overwrite: replace existing checkpoints.
        compile_step: compile the losses with ``torch.compile``.

    Returns:
        The checkpoints, in the order of the members.

    Raises:
        CheckpointError: when a checkpoint exists, or the resume file belongs to another training.
        OptionError: when a batch is larger than the data, two members are the same, or a loss is
            no longer finite.
    """
    _check(members, schedule)
    paths = [checkpoint_path(out, m) for m in members]
    existing = [p for p in paths if p.exists()]
    resume = resume and (out / RESUME_FILE).exists()
    if existing and not (overwrite or resume):
        raise CheckpointError(f"{existing[0]} exists already; choose another folder or overwrite")
    out.mkdir(parents=True, exist_ok=True)
    ensemble = Ensemble(members, schedule, device, compile_step=compile_step)
    begun, clock = _restore(ensemble, members, schedule, out, resume=resume)
    log = JsonLog(out / LOG_FILE, begun, {m.name for m in members})
    losses: dict[str, dict[str, float]] = {}
    saved = time.monotonic()
    epochs = range(begun, schedule.epochs)
    bar = tqdm(epochs, "train", unit="epoch", disable=None, initial=begun, total=schedule.epochs)
    for epoch in bar:
        losses = ensemble.run_epoch(epoch)
        _refuse_divergence(losses, epoch)
        bar.set_postfix(_mean(losses))
        log.write([{"epoch": epoch, "member": n, **loss} for n, loss in losses.items()])
        if time.monotonic() - saved > SAVE_EVERY and epoch + 1 < schedule.epochs:
            state = {"epoch": epoch + 1, "spent": clock.spent(), "states": ensemble.state()}
            save_state(out / RESUME_FILE, {**_identity(members, schedule), **state})
            saved = time.monotonic()
    together = {**clock.spent(), "trained_together": len(members)}
    for group in ensemble.groups:
        for index, member in enumerate(group.members):
            record = _record(member, group, losses[member.name], together)
            _export(group, index, checkpoint_path(out, member), record)
    (out / RESUME_FILE).unlink(missing_ok=True)
    return paths


def _check(members: Sequence[Member], schedule: Schedule) -> None:
    if len(set(members)) < len(members):
        raise OptionError("the same model is asked for twice; give each combination once")
    for m in members:
        if parse(m.data).samples < schedule.batch:
            raise OptionError(
                f"a batch of {schedule.batch} is larger than the {parse(m.data).samples} rows of "
                f"{m.data}; use a smaller batch"
            )


def _refuse_divergence(losses: dict[str, dict[str, float]], epoch: int) -> None:
    for name, loss in losses.items():
        if not math.isfinite(loss["loss"]):
            raise OptionError(
                f"{name} diverged in epoch {epoch}: its loss is {loss['loss']}; use a smaller rate"
            )


def _mean(losses: dict[str, dict[str, float]]) -> dict[str, str]:
    """Loss and parts averaged over the members that have them."""
    names = dict.fromkeys(name for loss in losses.values() for name in loss)
    values = {name: [loss[name] for loss in losses.values() if name in loss] for name in names}
    return {name: f"{sum(v) / len(v):.4g}" for name, v in values.items()}


# --------------------------------------------------------------------------- resume


def _identity(members: Sequence[Member], schedule: Schedule) -> dict[str, Any]:
    return {"members": [m.record() for m in members], "schedule": schedule.record()}


def _restore(
    ensemble: Ensemble,
    members: Sequence[Member],
    schedule: Schedule,
    out: Path,
    *,
    resume: bool,
) -> tuple[int, Clock]:
    """Return the first epoch to run, and the clock of what is spent already."""
    path = out / RESUME_FILE
    if not resume:
        return 0, Clock()
    state = load_state(path)
    if {k: state.get(k) for k in ("members", "schedule")} != _identity(members, schedule):
        raise CheckpointError(
            f"{path} belongs to a training of other models or another schedule; give the same "
            "options as then, or remove it"
        )
    ensemble.restore(state["states"])
    return int(state["epoch"]), Clock(state["spent"])


# --------------------------------------------------------------------------- checkpoints


def _record(
    member: Member, group: Group, losses: dict[str, float], together: dict[str, float]
) -> dict[str, Any]:
    schedule = group.schedule
    return {
        "trainer": "toy",
        "member": member.record(),
        "schedule": schedule.record(),
        "steps": schedule.epochs * group.batches,
        "seed": member.seed,
        "device": str(group.device),
        **together,
        "last_epoch": losses,
        "versions": versions(),
    }


def _export(group: Group, index: int, path: Path, record: dict[str, Any]) -> None:
    member = group.members[index]
    config = {
        "input_shape": [group.encoder.widths[0]],
        "encoder_widths": list(ENCODER_WIDTHS),
        "decoder_widths": list(DECODER_WIDTHS),
        "latent_size": member.latent_size,
        "activation": "tanh",
        "output": "linear",
    }
    networks = Mlp().build(config)
    *trunk, head = group.encoder.member(index)
    _fill(networks.encoder, trunk, _heads(head, member))
    *trunk, last = group.decoder.member(index)
    _fill(networks.decoder, trunk, {"out": last})
    split = member.objective != "plain"
    objective = Objective(
        metric=member.metric,
        beta=member.beta,
        decomposed=split,
        transform_weight=1.0 if split else None,
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        architecture=Mlp.name,
        config=config,
        latent_size=member.latent_size,
        objective=objective,
        dataset=member.data,
        training=record,
    )
    write_checkpoint(path, networks.encoder, networks.decoder, manifest, overwrite=True)


Layer = tuple["Tensor", "Tensor"]


def _heads(layer: Layer, member: Member) -> dict[str, Layer]:
    """Return the heads for mean and log variance that an encoder's last layer stands for.

    RaDOGAGA's noise is constant: its log variance is log(beta / 2) whatever the input.
    """
    weight, bias = layer
    n = member.latent_size
    if member.objective == "radogaga":
        constant = torch.full_like(bias, member.beta / 2).log()
        return {"mean": layer, "scale": (torch.zeros_like(weight), constant)}
    return {"mean": (weight[:n], bias[:n]), "scale": (weight[n:], bias[n:])}


def _fill(module: nn.Module, trunk: Sequence[Layer], named: dict[str, Layer]) -> None:
    # a trunk is linear, tanh, linear, tanh ...
    layers = {f"trunk.{2 * i}": layer for i, layer in enumerate(trunk)} | named
    state = {f"{name}.weight": weight for name, (weight, _) in layers.items()}
    state |= {f"{name}.bias": bias for name, (_, bias) in layers.items()}
    module.load_state_dict(state)
