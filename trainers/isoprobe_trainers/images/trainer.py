"""One VAE in training: what is trained, and the step that it stands at.

Random numbers of a step follow from the seed and the step alone, so that a training goes on from a
saved step exactly as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from isoprobe.errors import OptionError
from isoprobe.registry.lookup import installed
from isoprobe.theory.formulas import kl_divergence
from isoprobe_trainers.common.parallel import Team
from isoprobe_trainers.common.training import Schedule, generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from isoprobe.contracts import Networks

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


def _drawn(run: Run) -> Networks:
    """Build the networks with weights drawn from the seed, the global generator left alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(generator(run.seed, _WEIGHTS).initial_seed())
        return installed().architecture(run.architecture).build(dict(run.config))
