"""Train the anomaly detectors of Section 5.3: 20 seeds of a data set as one ensemble (Appendix H).

From top to bottom: the loss with its parts, an ensemble with its data, networks and step of Adam,
the training, its checkpoints. The settings of each data set are Table 5, in
:mod:`isoprobe_trainers.anomaly.recipes`; tables and splits come from
:mod:`isoprobe_trainers.anomaly.tables`.

A model is kept at every tenth of the schedule. Of the ten that one is taken whose objective is
least on normal rows held out of the training half; the test rows are never looked at.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from isoprobe.checkpoints.native import Objective
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.theory.formulas import kl_divergence
from isoprobe_trainers.anomaly.distinct import shared
from isoprobe_trainers.anomaly.recipes import KEPT
from isoprobe_trainers.anomaly.recorded import Batches, CardEpochs, fixed
from isoprobe_trainers.anomaly.source import data_spec
from isoprobe_trainers.anomaly.tables import drawn
from isoprobe_trainers.common.batched import NETWORKS
from isoprobe_trainers.common.export import write_mlp
from isoprobe_trainers.common.graphs import adam, load_adam, set_rate
from isoprobe_trainers.common.loop import SAVE_EVERY, Loop
from isoprobe_trainers.common.training import JsonLog, generator, versions, whole

if TYPE_CHECKING:
    from pathlib import Path

    from isoprobe_trainers.anomaly.recipes import Recipe
    from isoprobe_trainers.anomaly.tables import SplitTable, Table

RULE = "least objective on held-out normal rows among the models kept at each tenth"
_WEIGHTS, _ORDER, _NOISE = range(3)

# --------------------------------------------------------------------------- the loss
#
# L_x / beta = lambda1 D_t(x, x_check) + lambda2 SSE(x_check, x_hat) + KL, where x_check = Dec(mu)
# and x_hat = Dec(z): the decomposed loss of Section 5.3, beta = 1 / lambda2.


def _norm(difference: Tensor) -> Tensor:
    """L2 norm over the last axis; its subgradient at 0 is 0."""
    norm: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return norm


def _square(difference: Tensor) -> Tensor:
    return difference.square().sum(-1)


#: the transform loss D_t of a difference
TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {"l2": _norm, "sse": _square}


@dataclass(frozen=True)
class Losses:
    """Parts of the objective of single rows, ``(E, B)`` each, weighted so that they add up.

    Attributes:
        transform: lambda1 D_t(x, x_check).
        coding: lambda2 SSE(x_check, x_hat).
        kl: sum_j KL_j in nats.
    """

    transform: Tensor
    coding: Tensor
    kl: Tensor

    @property
    def total(self) -> Tensor:
        """L_x / beta, ``(E, B)``."""
        return self.transform + self.coding + self.kl


# --------------------------------------------------------------------------- data, networks, step


class AnomalyEnsemble:
    """Models of one recipe, each with its own rows, order, noise and weights.

    Args:
        recipe: network and losses.
        data: of each member, with its seed; one table where it is the same.
        device: where to train.
        record: keep rows, order and noise on the card and replay one recorded step; on a card when
            None. Equal rows are then not merged.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Sequence[SplitTable],
        device: torch.device,
        *,
        record: bool | None = None,
    ) -> None:
        self.recipe, self.device = recipe, device
        self.rows = distinct_rows([one.table for one in data], device)
        halves = [(one.table.groups, one.halves) for one in data]
        self.train = [torch.from_numpy(groups[s.train]).to(device) for groups, s in halves]
        self.held_out = [torch.from_numpy(groups[s.held_out]).to(device) for groups, s in halves]
        inputs, n = self.rows[0].shape[1], recipe.latents
        seeds = [one.seed for one in data]
        drawn = [generator(seed, _WEIGHTS) for seed in seeds]
        kind = NETWORKS[recipe.activation]
        self.encoder = kind((inputs, *recipe.widths, 2 * n), drawn, device)
        self.decoder = kind((n, *reversed(recipe.widths), inputs), drawn, device)
        self.order = [generator(seed, _ORDER) for seed in seeds]
        self.noise = [generator(seed, _NOISE) for seed in seeds]
        record = device.type == "cuda" if record is None else record
        self.optimizer = adam(self.parameters(), recipe.rate, device, record=record)
        self.scale = recipe.scale(inputs)
        self.card: CardEpochs | None = None
        if record:
            batches = Batches(self.train, fixed(list(map(len, self.train)), recipe.batch))
            noise = (n, Tensor.normal_)
            self.card = CardEpochs(self.step, self.optimizer, self.rows, batches, seeds, [noise])

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Every trained tensor, each with the member as its first axis."""
        yield from self.encoder.parameters()
        yield from self.decoder.parameters()

    def run_epoch(self, epoch: int) -> None:
        """Train once on every row of every member, the last batch being what is left over.

        Args:
            epoch: counted from 0, for the learning rate.
        """
        rate = self.recipe.schedule.rate(epoch)
        if self.card is not None:
            self.card.epoch(rate)
            return
        set_rate(self.optimizer, rate)
        orders = [
            rows[torch.randperm(len(rows), generator=g).to(self.device)]
            for rows, g in zip(self.train, self.order, strict=True)
        ]
        batch = self.recipe.batch
        for start in range(0, max(map(len, orders)), batch):
            self.step(*self._batch([order[start : start + batch] for order in orders]))

    def step(self, x: Tensor, share: Tensor, noise: Tensor) -> None:
        """Take one step of Adam.

        Args:
            x: rows of every member, ``(E, B, m)``.
            share: weight of each in the mean over its batch, ``(E, B)``.
            noise: standard normal draws, ``(E, B, n)``.
        """
        self.optimizer.zero_grad(set_to_none=True)
        # summed over members, whose gradients are independent of one another
        torch.autograd.backward((self.losses(x, [noise]).total * share).sum())
        self.optimizer.step()

    def _batch(self, chosen: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs ``(E, B, m)``, their shares ``(E, B)``, and noise ``(E, B, n)`` drawn for each."""
        parts = [shared(rows, merge=self.recipe.merge) for rows in chosen]
        draws = [
            torch.randn(len(rows), self.recipe.latents, generator=g).to(self.device)
            for (rows, _), g in zip(parts, self.noise, strict=True)
        ]
        return (
            self._gathered([rows for rows, _ in parts]),
            filled([s for _, s in parts]),
            filled(draws),
        )

    def _gathered(self, chosen: Sequence[Tensor]) -> Tensor:
        return filled([x.index_select(0, c) for x, c in zip(self.rows, chosen, strict=True)])

    def losses(self, x: Tensor, draws: Sequence[Tensor]) -> Losses:
        """Parts of the objective, the coding loss averaged over draws.

        Args:
            x: inputs, ``(E, B, m)``.
            draws: noise in units of sigma, each of a shape that ``(E, B, n)`` broadcasts with.

        Returns:
            The parts, ``(E, B)`` each.
        """
        mean, log_variance = self.encoder(x).chunk(2, -1)
        std = (0.5 * log_variance).exp()
        kl = kl_divergence(mean, std, log_variance).sum(-1)
        latents = torch.cat([mean, *(mean + std * draw for draw in draws)], 1)
        x_check, *x_hats = self.decoder(latents).split(x.shape[1], 1)
        coding = sum((x_check - x_hat).square().sum(-1) for x_hat in x_hats) / len(draws)
        transform = TRANSFORMS[self.recipe.transform](x - x_check)
        lambda1, lambda2 = self.recipe.lambda1 * self.scale, self.recipe.lambda2 * self.scale
        return Losses(lambda1 * transform, lambda2 * coding, kl)

    @torch.no_grad()
    def held_out_objective(self) -> list[float]:
        """Mean of L_x / beta over the rows held out, at mu + sigma and mu - sigma (A.6)."""
        ones = torch.ones(1, device=self.device)
        batch = self.recipe.batch
        rows, shares = zip(*map(shared, self.held_out), strict=True)
        means = torch.zeros(len(rows), dtype=torch.float64, device=self.device)
        for start in range(0, max(map(len, rows)), batch):
            x = self._gathered([r[start : start + batch] for r in rows])
            share = filled([s[start : start + batch] for s in shares])
            means += (self.losses(x, [ones, -ones]).total.double() * share).sum(1)
        found: list[float] = means.tolist()
        return found

    # ----------------------------------------------------------------- saving and restoring

    def state(self) -> dict[str, Any]:
        """What is needed to go on."""
        tensors = list(self.parameters())
        return {
            "weights": [p.detach().cpu().clone() for p in tensors],
            "adam": self.optimizer.state_dict(),
            "order": [g.get_state() for g in self.order],
            "noise": [g.get_state() for g in self.noise],
            "card": None if self.card is None else self.card.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for parameter, saved in zip(self.parameters(), state["weights"], strict=True):
            parameter.data.copy_(saved)
        load_adam(self.optimizer, state["adam"], self.device)
        if self.card is not None:
            self.card.restore(state["card"])
        for generators, saved in ((self.order, state["order"]), (self.noise, state["noise"])):
            for own, value in zip(generators, saved, strict=True):
                own.set_state(value)


def distinct_rows(tables: Sequence[Table], device: torch.device) -> list[Tensor]:
    """Return the different rows of each table; members with the same table share one tensor."""
    tensors = {id(t): torch.from_numpy(t.distinct).to(device) for t in tables}
    return [tensors[id(t)] for t in tables]


def filled(parts: Sequence[Tensor]) -> Tensor:
    """Stack tensors ``(B_e, ...)`` along a new first axis, zeros filling up the shorter."""
    return pad_sequence(list(parts), batch_first=True)


# --------------------------------------------------------------------------- the training


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
    save_every: float = SAVE_EVERY,
    data: Callable[[str, int], SplitTable] = drawn,
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
        save_every: seconds between resume files.
        data: reads and splits a data set as a seed has it.

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
    identity = {"recipe": recipe.record(), "batch": recipe.batch, "seeds": list(seeds)}
    loop = Loop(
        recipe.name, recipe.epochs, "epoch", identity, paths, out / f"{recipe.name}_resume.pt",
        resume=resume, overwrite=overwrite, save_every=save_every,
    )  # fmt: skip
    (out / "tenths").mkdir(parents=True, exist_ok=True)
    ensemble = AnomalyEnsemble(recipe, [data(recipe.name, seed) for seed in seeds], device)
    #: objective on held-out rows by seed, at each tenth so far
    held_out: list[list[float]] = []
    if loop.saved is not None:
        ensemble.restore(loop.saved["ensemble"])
        held_out = loop.saved["held_out"]
    log = JsonLog(out / f"{recipe.name}_log.jsonl", loop.done + 1)
    for epoch in loop:
        ensemble.run_epoch(epoch)
        tenth = epoch + 1 == round(recipe.epochs * (len(held_out) + 1) / KEPT)
        if tenth:
            number = len(held_out) + 1
            found = _keep(ensemble, seeds, out, number, epoch + 1, loop.spent()["seconds"])
            log.write([{"epoch": epoch + 1, "seed": s, "held_out": v} for s, v in found.items()])
            held_out.append(list(found.values()))
        loop.passed(1, lambda: {"ensemble": ensemble.state(), "held_out": held_out}, save=tenth)
    for index, seed in enumerate(seeds):
        taken = best_tenth([tenth[index] for tenth in held_out])
        with whole(checkpoint_path(out, recipe.name, seed)) as partial:
            shutil.copyfile(kept_path(out, recipe.name, seed, taken), partial)
    loop.finish()
    return paths


def best_tenth(objectives: Sequence[float]) -> int:
    """Number of the tenth, from 1, whose held-out objective is least; the first of equal ones."""
    return min(range(len(objectives)), key=objectives.__getitem__) + 1


def _keep(
    ensemble: AnomalyEnsemble,
    seeds: Sequence[int],
    out: Path,
    tenth: int,
    epochs: int,
    spent: float,
) -> dict[int, float]:
    """Write a checkpoint of each model; return the objectives on rows held out, by seed."""
    recipe = ensemble.recipe
    objectives = ensemble.held_out_objective()
    if not all(math.isfinite(value) for value in objectives):
        raise CheckpointError(
            f"{recipe.name}: the objective is no longer finite after {epochs} epochs; "
            "train with smaller lambdas"
        )
    for index, (seed, value) in enumerate(zip(seeds, objectives, strict=True)):
        record = _record(ensemble, seed, epochs, spent)
        record["held_out_objective"] = value
        _export(ensemble, index, kept_path(out, recipe.name, seed, tenth), record)
    return dict(zip(seeds, objectives, strict=True))


# --------------------------------------------------------------------------- checkpoints


def _record(ensemble: AnomalyEnsemble, seed: int, epochs: int, seconds: float) -> dict[str, Any]:
    return {
        "trainer": "anomaly",
        "recipe": ensemble.recipe.record(),
        "epoch": epochs,
        "batch": ensemble.recipe.batch,
        "rule": RULE,
        "seed": seed,
        "device": str(ensemble.device),
        "seconds": seconds,
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
    *trunk, (weight, bias) = ensemble.encoder.member(index)
    write_mlp(
        path,
        config,
        trunk,
        {"mean": (weight[:n], bias[:n]), "scale": (weight[n:], bias[n:])},
        ensemble.decoder.member(index),
        objective=objective_of(recipe, inputs),
        dataset=data_spec(recipe.name, int(record["seed"]), "train"),
        training=record,
    )
