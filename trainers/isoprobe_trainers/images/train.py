"""Train one VAE of any architecture for a number of iterations: the loop of MNIST and CelebA.

Random numbers of a step follow from the seed and the step alone, so that a training goes on from a
saved step exactly as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.theory.formulas import kl_divergence
from isoprobe_trainers.common.parallel import Team, joined
from isoprobe_trainers.common.training import (
    JsonLog,
    Schedule,
    generator,
    load_state,
    save_state,
    versions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from isoprobe.contracts import Networks

#: seconds between resume files
SAVE_EVERY = 30.0
ALONE = Team()
_WEIGHTS, _FIRST_ORDER, FIRST_NOISE = 0, 1, 1 << 40


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: file name of the checkpoint without its suffix.
        architecture: registered name.
        config: of the architecture.
        metric: metric spec of the distortion.
        beta: KL weight in units of that metric.
        decomposed: train on D(x, x_check) + D(x_check, x_hat) rather than D(x, x_hat).
        dataset: data spec of the training data.
        iterations: steps of Adam.
        batch: rows of a step.
        rate: of Adam.
        seed: of weights, order and noise.
        decay: share of the iterations, the last ones, in which the rate falls to 0.
    """

    name: str
    architecture: str
    config: Mapping[str, Any]
    metric: str
    beta: float
    dataset: str
    iterations: int
    batch: int
    rate: float = 1e-3
    seed: int = 0
    decomposed: bool = False
    decay: float = 0.0

    def __post_init__(self) -> None:
        numbers = {n: getattr(self, n) for n in ("iterations", "batch", "beta", "rate")}
        wrong = [f"{n} {v}" for n, v in numbers.items() if not 0 < v < math.inf]
        if wrong or self.seed < 0:
            raise OptionError(
                "a training needs positive iterations, batch, beta and rate, and a seed of at "
                f"least 0; found {', '.join(wrong) or f'seed {self.seed}'}"
            )

    @property
    def schedule(self) -> Schedule:
        """The rate of every step; an iteration stands for an epoch there."""
        return Schedule(self.iterations, self.batch, self.rate, self.decay)

    def record(self) -> dict[str, Any]:
        """The training as plain values."""
        return {**asdict(self), "config": dict(self.config)}


#: row numbers ``(B,)`` -> inputs in [0, 1], ``(B, *input_shape)``, on the device
Rows = Callable[["Tensor"], "Tensor"]


class Trainer:
    """Networks, optimiser, and the step they stand at.

    Args:
        run: what to train.
        rows: gives inputs by row number.
        count: how many rows there are.
        device: where to train.
        team: the processes that share every batch.

    Raises:
        OptionError: when a batch is larger than the data, or cannot be shared evenly.
    """

    def __init__(
        self, run: Run, rows: Rows, count: int, device: torch.device, team: Team = ALONE
    ) -> None:
        if run.batch > count:
            raise OptionError(
                f"a batch of {run.batch} is larger than the {count} rows of {run.dataset}; "
                "use a smaller batch"
            )
        team.check(run.batch)
        self.run, self.rows, self.count, self.device = run, rows, count, device
        self.team = team
        self.metric = installed().metric(run.metric)
        self.networks = _drawn(run)
        self.module = nn.ModuleList([self.networks.encoder, self.networks.decoder]).to(device)
        fused = device.type in {"cpu", "cuda"}
        self.schedule = run.schedule
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=run.rate, fused=fused)
        self.step, self.per_epoch = 0, count // run.batch
        self.totals: dict[str, float] = {}
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def advance(self) -> dict[str, float]:
        """Take one step of Adam; return the parts of the loss, in units of beta."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.schedule.rate(self.step)
        x = self.rows(self.team.share(self._chosen()))
        noise = torch.randn(
            (self.run.batch, math.prod(self.networks.latent_shape)),
            generator=generator(self.run.seed, FIRST_NOISE + self.step),
        )
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.parts(x, self.team.share(noise).to(self.device))
        torch.autograd.backward(torch.stack(list(parts.values())).sum())
        means = self.team.average(list(self.module.parameters()), parts)
        self.optimizer.step()
        self._project()
        self.step += 1
        return means

    def _project(self) -> None:
        """Put parameters that a step took beyond their bounds back onto them."""
        for part in self.module.modules():
            project = getattr(part, "project", None)
            if callable(project):
                project()

    def parts(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Parts of L_x / beta averaged over a batch (Eq. 3, or Section 5.2's decomposed loss).

        Args:
            x: inputs, ``(B, *input_shape)``.
            noise: standard normal draws, ``(B, n)``.

        Returns:
            Parts that add up to the loss.
        """
        encoder, decoder = self.networks.encoder, self.networks.decoder
        mean, std = encoder(x)
        z = mean + std * noise
        kl = kl_divergence(mean, std).sum(1).mean()
        weight = 1 / self.run.beta
        if not self.run.decomposed:
            return {"distortion": weight * self._distortion(x, z).mean(), "kl": kl}
        x_check, x_hat = decoder(torch.cat([mean, z])).chunk(2)
        transform = self.metric.distortion(x, x_check).mean()
        coding = self.metric.distortion(x_check, x_hat).mean()
        return {"transform": weight * transform, "coding": weight * coding, "kl": kl}

    def _distortion(self, x: Tensor, z: Tensor) -> Tensor:
        logits = getattr(self.networks.decoder, "logits", None)
        if logits is not None and self.metric.logits_distortion is not None:
            return self.metric.logits_distortion(x, logits(z))
        return self.metric.distortion(x, self.networks.decoder(z))

    def _chosen(self) -> Tensor:
        epoch, place = divmod(self.step, self.per_epoch)
        if self._order[0] != epoch:
            drawn = generator(self.run.seed, _FIRST_ORDER + epoch)
            self._order = (epoch, torch.randperm(self.count, generator=drawn))
        return self._order[1][place * self.run.batch :][: self.run.batch]

    def state(self, seconds: float) -> dict[str, Any]:
        """What is needed to go on."""
        return {
            "run": self.run.record(),
            "step": self.step,
            "totals": dict(self.totals),
            "seconds": seconds,
            "weights": self.module.state_dict(),
            "adam": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.module.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["adam"])
        self.step, self.totals = int(state["step"]), dict(state["totals"])


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
        from isoprobe_trainers.images.recorded import RecordedTrainer

        return RecordedTrainer(run, rows, count, device)
    return Trainer(run, rows, count, device, team)


def _drawn(run: Run) -> Networks:
    """Build the networks with weights drawn from the seed, the global generator left alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(generator(run.seed, _WEIGHTS).initial_seed())
        return installed().architecture(run.architecture).build(dict(run.config))


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
