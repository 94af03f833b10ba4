"""Train the VAEs of images: Appendix F (MNIST, dense) and Section 5.2, Appendix E (faces, GDN).

From top to bottom: settings, the paper's models, their data, networks and loss and the step of
Adam, the training, its checkpoint. Random numbers of a step follow from the seed and the step
alone, so that a training goes on from a saved step exactly as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.theory.formulas import kl_divergence
from isoprobe_trainers.common.graphs import Steps, adam, load_adam, set_rate
from isoprobe_trainers.common.loop import SAVE_EVERY, Loop
from isoprobe_trainers.common.parallel import Team, joined
from isoprobe_trainers.common.training import JsonLog, Schedule, generator, versions
from isoprobe_trainers.images.celeba_source import FacesSource
from isoprobe_trainers.images.mnist_source import DigitsSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from isoprobe.contracts import Networks

# --------------------------------------------------------------------------- settings

ALONE = Team()
_WEIGHTS, _FIRST_ORDER, _FIRST_NOISE = 0, 1, 1 << 40


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


# --------------------------------------------------------------------------- the paper's models

PIXELS = 784
DIGITS_ITERATIONS, FACES_ITERATIONS = 50_000, 300_000
#: latents and lambda of the two models of Figure 28
PAPER = ((32, 2000.0), (64, 10_000.0))
#: latents -> lambda, and dense widths of encoder and decoder, of the paper's two sizes
SIZES: dict[int, tuple[float, tuple[int, ...], tuple[int, ...]]] = {
    32: (1000.0, (1024,), (1024,)),
    256: (10_000.0, (2048,), (2048,)),
}
#: the paper does not state the window: this is the standard one
METRIC = "ssim:window=11,sigma=1.5"


def digits_run(
    kind: str,
    latents: int,
    lam: float,
    iterations: int = DIGITS_ITERATIONS,
    seed: int = 0,
    *,
    batch: int = 256,
    widths: Sequence[int] = (1024, 1024),
) -> Run:
    """Return a training of Appendix F.

    Args:
        kind: ``mnist`` or ``fashion-mnist``.
        latents: latent size n.
        lam: weight of the cross entropy, averaged over pixels, beside the KL.
        iterations: steps; the paper takes 50,000.
        seed: of everything random.
        batch: rows of a step; the paper takes 256.
        widths: hidden layers of the encoder and of the decoder; the paper has two of 1024.

    Returns:
        The training, with beta = 784 / lambda for the cross entropy summed over pixels.
    """
    config = {
        "input_shape": [PIXELS],
        "encoder_widths": list(widths),
        "decoder_widths": list(widths),
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
        batch=batch,
        seed=seed,
    )


def faces_run(
    latents: int = 32,
    *,
    decomposed: bool = False,
    size: int = 64,
    channels: int = 64,
    dense: Sequence[int] | None = None,
    iterations: int = FACES_ITERATIONS,
    batch: int = 64,
    seed: int = 0,
) -> Run:
    """Return a training of Appendix C.2 (32 latents) or E.3 (256).

    Args:
        latents: 32 or 256, which also sets lambda and the dense layers.
        decomposed: train on D(x, x_check) + D(x_check, x_hat).
        size: side of the images, 64 as in the paper or 32.
        channels: of the convolutions; the paper has 64.
        dense: widths of the dense layers of encoder and decoder; the paper's when None.
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
        "encoder_widths": list(encoder_widths if dense is None else dense),
        "decoder_widths": list(decoder_widths if dense is None else dense),
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


# --------------------------------------------------------------------------- data

#: row numbers ``(B,)`` -> inputs in [0, 1], ``(B, *input_shape)``, on the device
Rows = Callable[[Tensor], Tensor]


def digits(run: Run, device: torch.device) -> tuple[Rows, int]:
    """Hold the images of a training part of :func:`digits_run` on the device, as bytes.

    Returns:
        What gives inputs by row number, and how many rows there are.
    """
    images = torch.from_numpy(DigitsSource().open(run.dataset).images).to(device)

    def rows(chosen: Tensor) -> Tensor:
        return images[chosen.to(device)].flatten(1).float() / 255

    return rows, len(images)


def faces(run: Run, device: torch.device, samples: int | None = None) -> tuple[Rows, int]:
    """Decode the training part of :func:`faces_run` once, and hold it on the device as bytes.

    Args:
        run: the training.
        device: where to train.
        samples: use this many images, evenly spaced; None for all.

    Returns:
        What gives inputs by row number, and how many rows there are.
    """
    data = FacesSource().open(run.dataset)
    count = len(data) if samples is None else min(samples, len(data))
    chosen = np.arange(count) * len(data) // count
    images = torch.from_numpy(data.read(chosen)).movedim(-1, 1).contiguous().to(device)

    def rows(numbers: Tensor) -> Tensor:
        return images[numbers.to(device)].float() / 255

    return rows, count


# --------------------------------------------------------------------------- networks, loss, step


class Trainer:
    """Networks, optimiser, and the step they stand at.

    Args:
        run: what to train.
        rows: gives inputs by row number.
        count: how many rows there are.
        device: where to train.
        team: the processes that share every batch.
        record: record the step for replays, an epoch at a time; where None, on a card that one
            process has to itself. It trains the same model, up to the order of additions.

    Raises:
        OptionError: when a batch is larger than the data, or cannot be shared evenly.
    """

    def __init__(
        self,
        run: Run,
        rows: Rows,
        count: int,
        device: torch.device,
        team: Team = ALONE,
        *,
        record: bool | None = None,
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
        self.names = ("transform", "coding", "kl") if run.decomposed else ("distortion", "kl")
        self.schedule = run.schedule
        record = device.type == "cuda" and team.count == 1 if record is None else record
        self.optimizer = adam(self.module.parameters(), run.rate, device, record=record)
        self.done, self.per_epoch = 0, count // run.batch
        zeros = torch.zeros(len(self.names), device=device)
        self.steps = Steps(self.step, self.optimizer, zeros, self.per_epoch, record=record)
        self.totals: dict[str, float] = {}
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def advance(self) -> dict[str, float]:
        """Take a step of Adam, or where it is recorded all that are left of an epoch.

        Returns:
            Parts of the loss in units of beta, averaged over the steps taken.
        """
        left = min(self.per_epoch - self.done % self.per_epoch, self.run.iterations - self.done)
        taken = range(self.done, self.done + (left if self.steps.record else 1))
        total = self.steps.take(
            [self._chosen(number) for number in taken],
            [self._noise(number) for number in taken],
            [self.schedule.rate(number) for number in taken],
        )
        self.done += len(taken)
        return dict(zip(self.names, (total / len(taken)).tolist(), strict=True))

    def step(self, chosen: Tensor, noise: Tensor, rate: float | Tensor) -> Tensor:
        """Take one step of Adam.

        Args:
            chosen: row numbers of the whole batch, ``(B,)``.
            noise: standard normal draws for it, ``(B, n)``.
            rate: of Adam.

        Returns:
            Parts of the loss, averaged over the batch, ``(P,)``.
        """
        set_rate(self.optimizer, rate)
        x = self.rows(self.team.share(chosen))
        self.optimizer.zero_grad(set_to_none=True)
        parts = torch.stack(list(self.parts(x, self.team.share(noise).to(self.device)).values()))
        torch.autograd.backward(parts.sum())
        means = self.team.average(list(self.module.parameters()), parts.detach())
        self.optimizer.step()
        self._project()
        return means

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

    def _project(self) -> None:
        """Put parameters that a step took beyond their bounds back onto them."""
        for part in self.module.modules():
            project = getattr(part, "project", None)
            if callable(project):
                project()

    def _chosen(self, number: int) -> Tensor:
        """Row numbers of a step."""
        epoch, place = divmod(number, self.per_epoch)
        if self._order[0] != epoch:
            drawn = generator(self.run.seed, _FIRST_ORDER + epoch)
            self._order = (epoch, torch.randperm(self.count, generator=drawn))
        return self._order[1][place * self.run.batch :][: self.run.batch]

    def _noise(self, number: int) -> Tensor:
        """Noise of a step."""
        drawn = generator(self.run.seed, _FIRST_NOISE + number)
        shape = (self.run.batch, math.prod(self.networks.latent_shape))
        return torch.randn(shape, generator=drawn)

    def state(self) -> dict[str, Any]:
        """What is needed to go on."""
        return {
            "step": self.done,
            "totals": dict(self.totals),
            "weights": self.module.state_dict(),
            "adam": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, whether its steps were recorded or not."""
        self.module.load_state_dict(state["weights"])
        load_adam(self.optimizer, state["adam"], self.device)
        self.done, self.totals = int(state["step"]), dict(state["totals"])
        self.steps.forget()


def _drawn(run: Run) -> Networks:
    """Build the networks with weights drawn from the seed, the global generator left alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(generator(run.seed, _WEIGHTS).initial_seed())
        return installed().architecture(run.architecture).build(dict(run.config))


# --------------------------------------------------------------------------- the training


def train(
    run: Run,
    rows: Rows,
    count: int,
    out: Path,
    device: torch.device,
    *,
    resume: bool = False,
    overwrite: bool = False,
    save_every: float = SAVE_EVERY,
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
        save_every: seconds between resume files.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: when the checkpoint exists, the resume file belongs to another training, or
            the loss is no longer finite.
    """
    path = out / f"{run.name}.safetensors"
    with joined(device) as team:
        loop = Loop(
            run.name, run.iterations, "step", run.record(), [path], out / f"{run.name}_resume.pt",
            resume=resume, overwrite=overwrite, save_every=save_every, leads=team.leads,
        )  # fmt: skip
        trainer = Trainer(run, rows, count, device, team)
        out.mkdir(parents=True, exist_ok=True)
        if loop.saved is not None:
            trainer.restore(loop.saved)
        log_file = out / f"{run.name}_log.jsonl"
        log = JsonLog(log_file, trainer.done // trainer.per_epoch) if team.leads else None
        for begun in loop:
            parts = trainer.advance()
            _check_finite(run, trainer.done, parts)
            _count(trainer, parts, trainer.done - begun, log)
            loop.passed(trainer.done - begun, trainer.state)
        if team.leads:
            write(trainer, path, loop.spent()["seconds"])
            loop.finish()
    return path


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
    epoch, place = divmod(trainer.done, trainer.per_epoch)
    steps = place or trainer.per_epoch
    if place == 0 or trainer.done == trainer.run.iterations:
        means = {name: total / steps for name, total in trainer.totals.items()}
        if log is not None:
            log.write([{"epoch": epoch - (place == 0), "step": trainer.done, **means}])
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
            **({"steps": trainer.done} if trainer.done < run.iterations else {}),
            "batch": run.batch,
            "lr": run.rate,
            "decay": run.decay,
            "seed": run.seed,
            "device": str(trainer.device),
            "processes": trainer.team.count,
            "seconds": seconds,
            "versions": versions(),
        },
    )
    encoder, decoder = trainer.networks.encoder, trainer.networks.decoder
    write_checkpoint(path, encoder, decoder, manifest, overwrite=True)
