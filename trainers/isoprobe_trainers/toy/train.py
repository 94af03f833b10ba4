"""Train the toy models of Section 5.1 and Appendix D (networks and schedule of Appendix C.1).

From top to bottom: settings, the losses with their equations, a group of models with its data,
networks and step, groups side by side, the training, its checkpoints. A model is a
:class:`~isoprobe_trainers.toy.members.Member`, its data :mod:`isoprobe_trainers.toy.data`.
"""

from __future__ import annotations

import abc
import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from isoprobe.checkpoints.native import Objective as Stated
from isoprobe.errors import OptionError
from isoprobe.theory.formulas import kl_divergence
from isoprobe_trainers.common.batched import BatchedMLP
from isoprobe_trainers.common.export import write_mlp
from isoprobe_trainers.common.graphs import Steps, adam, set_rate
from isoprobe_trainers.common.loop import SAVE_EVERY, Loop
from isoprobe_trainers.common.training import JsonLog, Schedule, generator, versions
from isoprobe_trainers.toy.data import generate
from isoprobe_trainers.toy.source import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from isoprobe_trainers.toy.members import Member

    Map = Callable[[Tensor], Tensor]

# --------------------------------------------------------------------------- settings

#: Appendix C.1, but for the decay: at a constant rate Adam's noise alone triples the transform loss
FULL = Schedule(epochs=500, batch=128, lr=1e-3, decay=0.1)
QUICK = Schedule(epochs=120, batch=256, lr=2e-3, decay=1.0)
ENCODER_WIDTHS = (128, 64)
DECODER_WIDTHS = (64, 128)
#: members of a group on the CPU, beyond which activations leave the cache
CPU_GROUP = 15
RESUME_FILE = "resume.pt"
LOG_FILE = "log.jsonl"
_WEIGHTS, _ORDER, _NOISE = range(3)


# --------------------------------------------------------------------------- losses
#
# Every quantity has the member as its first axis. A loss is a weighted sum of named parts,
# L = sum_p weight_p part_p, averaged over the batch. With weight lambda on the distortion and 1 on
# the KL this is Eq. 95, so beta = 1 / lambda.

#: power of 2/3 + 2 |x|^2 / 21 in a_x: the square error, Eq. 24 and Eq. 96
METRIC_POWERS = {"sse": 0.0, "downward": 1.0, "upward": -1.0}


class Objective(nn.Module, abc.ABC):
    """The loss of a group of members.

    Args:
        members: whose loss it is; the distortion's parts weigh lambda, the others 1.

    Attributes:
        parts: names of the parts.
        heads: encoder outputs for each latent.
    """

    parts: ClassVar[tuple[str, ...]]
    heads: ClassVar[int] = 2
    power: Tensor
    weights: Tensor

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        powers = [METRIC_POWERS[m.metric] for m in members]
        self.scaled = any(powers)
        rows = [[1.0 if part in {"kl", "rate"} else m.lam for m in members] for part in self.parts]
        self.register_buffer("power", torch.tensor(powers)[:, None])
        self.register_buffer("weights", torch.tensor(rows))

    @abc.abstractmethod
    def forward(self, encode: Map, decode: Map, x: Tensor, noise: Tensor) -> Tensor:
        """Parts averaged over the batch.

        Args:
            encode: ``(E, B, m) -> (E, B, heads n)``.
            decode: ``(E, B, n) -> (E, B, m)``.
            x: inputs, ``(E, B, m)``.
            noise: standard normal draws, ``(E, B, n)``.

        Returns:
            ``(P, E)``.
        """

    def total(self, parts: Tensor) -> Tensor:
        """Loss of each member from its parts: ``(P, E) -> (E,)``."""
        return (self.weights * parts).sum(0)

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D = a_x |x - x_hat|^2 summed over the inputs, ``(E, B)``."""
        square = (x_hat - x).square().sum(-1)
        if not self.scaled:
            return square
        return square * (2 / 3 + 2 / 21 * x.square().sum(-1)) ** self.power


class Plain(Objective):
    """The VAE's own: E_z D(x, Dec(z)) with one draw of z, and the KL (Eq. 3, 95)."""

    parts = ("distortion", "kl")

    def forward(self, encode: Map, decode: Map, x: Tensor, noise: Tensor) -> Tensor:
        """Distortion and KL, ``(2, E)``."""
        _, z, kl = _posterior(encode(x), noise)
        return torch.stack([self.distortion(x, decode(z)).mean(1), kl])


class Decomposed(Objective):
    """D(x, x_check) + E_z D(x_check, x_hat) and the KL (Lemma 1, Section 5.3)."""

    parts = ("transform", "coding", "kl")

    def forward(self, encode: Map, decode: Map, x: Tensor, noise: Tensor) -> Tensor:
        """Transform loss, coding loss and KL, ``(3, E)``."""
        mean, z, kl = _posterior(encode(x), noise)
        x_check, x_hat = decode(torch.cat([mean, z], 1)).chunk(2, 1)
        transform, coding = self.distortion(x, x_check), self.distortion(x_check, x_hat)
        return torch.stack([transform.mean(1), coding.mean(1), kl])


class Radogaga(Objective):
    """Kato et al. (2020): constant noise and a learned prior, as Section 3 describes it.

    The noise has variance beta/2 in every direction, so that at the optimum the decoder is
    isometric as it stands: J' G J = I (Eq. 4). The prior is a mixture of Gaussians for each latent,
    and the rate -log p(z) replaces the KL.

    Args:
        members: whose loss it is.
        components: Gaussians in the prior of each latent.
    """

    parts = ("transform", "coding", "rate")
    heads = 1
    noise_std: Tensor

    def __init__(self, members: Sequence[Member], components: int = 16) -> None:
        super().__init__(members)
        shape = (len(members), 1, members[0].latent_size, components)
        evenly = torch.linspace(-3, 3, components).expand(shape).clone()
        self.prior_mean = nn.Parameter(evenly)
        self.prior_log_std = nn.Parameter(torch.full(shape, -0.5))
        self.prior_logit = nn.Parameter(torch.zeros(shape))
        stds = torch.tensor([math.sqrt(m.beta / 2) for m in members])
        self.register_buffer("noise_std", stds[:, None, None])

    def forward(self, encode: Map, decode: Map, x: Tensor, noise: Tensor) -> Tensor:
        """Transform loss, coding loss and rate in nats, ``(3, E)``."""
        mean = encode(x)
        z = mean + self.noise_std * noise
        x_check, x_hat = decode(torch.cat([mean, z], 1)).chunk(2, 1)
        transform, coding = self.distortion(x, x_check), self.distortion(x_check, x_hat)
        return torch.stack([transform.mean(1), coding.mean(1), -self.log_prior(z).mean(1)])

    def log_prior(self, z: Tensor) -> Tensor:
        """Log of the learned prior density, ``(E, B, n) -> (E, B)``."""
        scaled = (z[..., None] - self.prior_mean) * (-self.prior_log_std).exp()
        log_normal = -0.5 * scaled.square() - self.prior_log_std - 0.5 * math.log(2 * math.pi)
        return (self.prior_logit.log_softmax(-1) + log_normal).logsumexp(-1).sum(-1)


OBJECTIVES: dict[str, type[Objective]] = {
    "plain": Plain,
    "decomposed": Decomposed,
    "radogaga": Radogaga,
}


def _posterior(heads: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, a draw of z, and the KL averaged over the batch (Eq. 2), from mean and log variance."""
    mean, log_variance = heads.chunk(2, -1)
    std = (0.5 * log_variance).exp()
    kl = kl_divergence(mean, std, log_variance).sum(-1).mean(1)
    return mean, torch.addcmul(mean, std, noise), kl


# --------------------------------------------------------------------------- data, networks, step


class Group:
    """Members of one architecture and objective, trained in step.

    Args:
        members: equal in latent size, objective, and shape of their data.
        data: inputs of each data spec, ``(N, m)`` float32, on the device.
        schedule: epochs, batch and learning rate.
        compile_step: compile the loss with ``torch.compile``.
        record: record the step for replays; on a card when None.
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: Mapping[str, Tensor],
        schedule: Schedule,
        *,
        compile_step: bool = False,
        record: bool | None = None,
    ) -> None:
        self.members, self.schedule = list(members), schedule
        used = sorted({m.data for m in members})
        self.rows = torch.cat([data[spec] for spec in used])
        self.samples, inputs = data[used[0]].shape
        self.offsets = [used.index(m.data) * self.samples for m in members]
        self.batches = self.samples // schedule.batch
        self.device = self.rows.device
        latents = members[0].latent_size
        objective = OBJECTIVES[members[0].objective]
        drawn = [generator(m.seed, _WEIGHTS) for m in members]
        heads = objective.heads * latents
        self.encoder = BatchedMLP((inputs, *ENCODER_WIDTHS, heads), drawn, self.device)
        self.decoder = BatchedMLP((latents, *DECODER_WIDTHS, inputs), drawn, self.device)
        self.objective = objective(members).to(self.device)
        self.order = [generator(m.seed, _ORDER) for m in members]
        self.noise = [generator(m.seed, _NOISE) for m in members]
        record = self.device.type == "cuda" if record is None else record
        self.optimizer = adam(self.parameters(), schedule.lr, self.device, record=record)
        self.parts: Callable[..., Tensor] = self._parts
        if compile_step and not record:  # a recorded step needs no compiler
            self.parts = torch.compile(self._parts, mode="default")
        parts = torch.zeros_like(self.objective.weights)
        self.steps = Steps(self.step, self.optimizer, parts, self.batches, record=record)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Every trained tensor, each with the member as its first axis."""
        for module in (self.encoder, self.decoder, self.objective):
            yield from module.parameters()

    def run_epoch(self, epoch: int) -> Tensor:
        """Train for one epoch; return the parts averaged over its steps, ``(P, E)``."""
        set_rate(self.optimizer, self.schedule.rate(epoch))
        orders = [
            torch.randperm(self.samples, generator=g) + offset
            for g, offset in zip(self.order, self.offsets, strict=True)
        ]
        shape = (self.batches * self.schedule.batch, self.members[0].latent_size)
        noise = [torch.randn(shape, generator=g) for g in self.noise]
        total = self.steps.take(self._by_step(orders), self._by_step(noise))
        return total / self.batches

    def step(self, chosen: Tensor, noise: Tensor) -> Tensor:
        """Take one step of Adam on rows of every member.

        Args:
            chosen: row numbers, ``(E, B)``.
            noise: standard normal draws, ``(E, B, n)``.

        Returns:
            The parts of the loss, ``(P, E)``.
        """
        x = self.rows.index_select(0, chosen.reshape(-1)).view(*chosen.shape, -1)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.parts(x, noise)
        # summed over members, whose gradients are independent of one another
        torch.autograd.backward(self.objective.total(parts).sum())
        self.optimizer.step()
        return parts.detach()

    def _parts(self, x: Tensor, noise: Tensor) -> Tensor:
        parts: Tensor = self.objective(self.encoder, self.decoder, x, noise)
        return parts

    def _by_step(self, rows: Sequence[Tensor]) -> Tensor:
        """``(N, ...)`` a member to ``(steps, E, B, ...)``; what fills no batch is left out."""
        kept = torch.stack(list(rows)).to(self.device)[:, : self.batches * self.schedule.batch]
        shape = (len(kept), self.batches, self.schedule.batch, *kept.shape[2:])
        return kept.reshape(shape).movedim(0, 1)

    # ----------------------------------------------------------------- saving and restoring

    def state(self) -> dict[str, dict[str, Any]]:
        """What each member needs to go on, by member name, whatever its group."""
        tensors = list(self.parameters())
        moments = [self.optimizer.state[p] for p in tensors]
        return {
            member.name: {
                "weights": [_slice(p, e) for p in tensors],
                "mean": [_slice(s["exp_avg"], e) for s in moments],
                "square": [_slice(s["exp_avg_sq"], e) for s in moments],
                "step": float(moments[0]["step"]),
                "order": self.order[e].get_state(),
                "noise": self.noise[e].get_state(),
            }
            for e, member in enumerate(self.members)
        }

    def restore(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from saved states of these members."""
        own = [states[m.name] for m in self.members]
        for index, parameter in enumerate(self.parameters()):

            def stacked(key: str, index: int = index) -> Tensor:
                return torch.stack([s[key][index] for s in own]).to(self.device)

            parameter.data.copy_(stacked("weights"))
            self.optimizer.state[parameter] = {
                "step": torch.tensor(own[0]["step"], device=self.device),
                "exp_avg": stacked("mean"),
                "exp_avg_sq": stacked("square"),
            }
        for e, state in enumerate(own):
            self.order[e].set_state(state["order"])
            self.noise[e].set_state(state["noise"])
        self.steps.forget()


def _slice(tensor: Tensor, index: int) -> Tensor:
    return tensor[index].detach().cpu().clone()


# --------------------------------------------------------------------------- groups side by side


class Ensemble:
    """Any toy models, trained in one program.

    Args:
        members: models, all different.
        schedule: shared by all.
        device: where to train.
        compile_step: compile the losses.
        most: members of a group on the CPU.
    """

    def __init__(
        self,
        members: Sequence[Member],
        schedule: Schedule,
        device: torch.device,
        *,
        compile_step: bool = False,
        most: int = CPU_GROUP,
    ) -> None:
        recipes = {m.data: parse(m.data) for m in members}
        self.workers = torch.get_num_threads() if device.type == "cpu" else 1
        data = {
            spec: torch.from_numpy(generate(recipe).x).to(device)
            for spec, recipe in recipes.items()
        }
        alike: dict[tuple[Any, ...], list[Member]] = defaultdict(list)
        for m in members:
            alike[m.latent_size, m.objective, data[m.data].shape].append(m)
        self.groups = [
            Group(part, data, schedule, compile_step=compile_step)
            for same in alike.values()
            for part in _partition(same, self.workers, device, most)
        ]

    def run_epoch(self, epoch: int) -> dict[str, dict[str, float]]:
        """Train every member for one epoch; return its loss and parts by member name."""
        with _one_thread_each():
            parts = self._run_groups(epoch)
        return {
            name: record
            for group, mean in zip(self.groups, parts, strict=True)
            for name, record in _by_member(group, mean).items()
        }

    def _run_groups(self, epoch: int) -> list[Tensor]:
        if self.workers == 1 or len(self.groups) == 1:
            return [group.run_epoch(epoch) for group in self.groups]
        pool = ThreadPoolExecutor(self.workers)
        try:
            return list(pool.map(lambda group: group.run_epoch(epoch), self.groups))
        finally:
            # an interruption waits for the groups at work, not for those in the queue
            pool.shutdown(cancel_futures=True)

    def state(self) -> dict[str, dict[str, Any]]:
        """What every member needs to go on, by name."""
        return {name: state for group in self.groups for name, state in group.state().items()}

    def restore(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from saved states of the members, in whatever groups they were."""
        for group in self.groups:
            group.restore(states)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let groups share the cores between them; matrices this small gain nothing from threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _partition(
    members: list[Member], workers: int, device: torch.device, most: int = CPU_GROUP
) -> Iterator[list[Member]]:
    """Split members into groups of nearly equal size, a multiple of the workers in number."""
    if device.type != "cpu":
        yield members
        return
    count = -(-len(members) // most)
    count = min(-(-count // workers) * workers, len(members))
    bounds = [len(members) * i // count for i in range(count + 1)]
    for start, stop in pairwise(bounds):
        yield members[start:stop]


def _by_member(group: Group, parts: Tensor) -> dict[str, dict[str, float]]:
    losses = group.objective.total(parts).tolist()
    columns = parts.T.tolist()
    return {
        m.name: {"loss": loss, **dict(zip(group.objective.parts, column, strict=True))}
        for m, loss, column in zip(group.members, losses, columns, strict=True)
    }


# --------------------------------------------------------------------------- the training


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
    save_every: float = SAVE_EVERY,
    most: int = CPU_GROUP,
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
        save_every: seconds between resume files.
        most: members of a group on the CPU.

    Returns:
        The checkpoints, in the order of the members.

    Raises:
        CheckpointError: when a checkpoint exists, or the resume file belongs to another training.
        OptionError: when a batch is larger than the data, two members are the same, or a loss is
            no longer finite.
    """
    _check(members, schedule)
    paths = [checkpoint_path(out, m) for m in members]
    identity = {"members": [m.record() for m in members], "schedule": schedule.record()}
    loop = Loop(
        "train", schedule.epochs, "epoch", identity, paths, out / RESUME_FILE,
        resume=resume, overwrite=overwrite, save_every=save_every,
    )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    ensemble = Ensemble(members, schedule, device, compile_step=compile_step, most=most)
    if loop.saved is not None:
        ensemble.restore(loop.saved)
    log = JsonLog(out / LOG_FILE, loop.done, {m.name for m in members})
    losses: dict[str, dict[str, float]] = {}
    for epoch in loop:
        losses = ensemble.run_epoch(epoch)
        _refuse_divergence(losses, epoch)
        log.write([{"epoch": epoch, "member": n, **loss} for n, loss in losses.items()])
        loop.passed(1, ensemble.state, shown=_mean(losses))
    together = {**loop.spent(), "trained_together": len(members)}
    for group in ensemble.groups:
        for index, member in enumerate(group.members):
            record = _record(member, group, losses[member.name], together)
            _export(group, index, checkpoint_path(out, member), record)
    loop.finish()
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
    *trunk, head = group.encoder.member(index)
    split = member.objective != "plain"
    objective = Stated(
        metric=member.metric,
        beta=member.beta,
        decomposed=split,
        transform_weight=1.0 if split else None,
    )
    write_mlp(
        path,
        config,
        trunk,
        _heads(head, member),
        group.decoder.member(index),
        objective=objective,
        dataset=member.data,
        training=record,
    )


def _heads(layer: tuple[Tensor, Tensor], member: Member) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the heads for mean and log variance that an encoder's last layer stands for.

    RaDOGAGA's noise is constant: its log variance is log(beta / 2) whatever the input.
    """
    weight, bias = layer
    n = member.latent_size
    if member.objective == "radogaga":
        constant = torch.full_like(bias, member.beta / 2).log()
        return {"mean": layer, "scale": (torch.zeros_like(weight), constant)}
    return {"mean": (weight[:n], bias[:n]), "scale": (weight[n:], bias[n:])}
