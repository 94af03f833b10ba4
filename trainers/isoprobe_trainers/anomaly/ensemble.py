"""The models of one data set, one for each seed and split, trained in step as batched matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu
from torch.nn.utils.rnn import pad_sequence

from isoprobe.theory.formulas import kl_divergence
from isoprobe_trainers.anomaly.distinct import shared
from isoprobe_trainers.anomaly.recipes import BATCH
from isoprobe_trainers.common.batched import BatchedMLP
from isoprobe_trainers.common.training import generator

if TYPE_CHECKING:
    from isoprobe_trainers.anomaly.recipes import Recipe
    from isoprobe_trainers.anomaly.tables import Split, Table

_WEIGHTS, _ORDER, _NOISE = range(3)
#: torch's own slope, which the paper does not state
_SLOPE = 0.01


class LeakyMLP(BatchedMLP):
    """The same networks with leaky ReLU between linear layers."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply member e to ``x[e]``: ``(E, B, widths[0]) -> (E, B, widths[-1])``."""
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for w, b in hidden:
            x = leaky_relu(torch.baddbmm(b, x, w.mT), _SLOPE, inplace=True)
        return torch.baddbmm(bias, x, weight.mT)


NETWORKS: Mapping[str, type[BatchedMLP]] = {"tanh": BatchedMLP, "leaky_relu": LeakyMLP}


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


class AnomalyEnsemble:
    """Models of one recipe, each with its own rows, order, noise and weights.

    Args:
        recipe: network and losses.
        seeds: one for each member.
        tables: the data of each member, one object where it is the same.
        splits: of each member.
        device: where to train.
    """

    def __init__(
        self,
        recipe: Recipe,
        seeds: Sequence[int],
        tables: Sequence[Table],
        splits: Sequence[Split],
        device: torch.device,
    ) -> None:
        self.recipe, self.device = recipe, device
        # members with the same table share one tensor, which has each different row once
        tensors = {id(t): torch.from_numpy(t.distinct).to(device) for t in tables}
        self.rows = [tensors[id(t)] for t in tables]
        halves = list(zip(tables, splits, strict=True))
        self.train = [torch.from_numpy(t.groups[s.train]).to(device) for t, s in halves]
        self.held_out = [torch.from_numpy(t.groups[s.held_out]).to(device) for t, s in halves]
        inputs, n = tables[0].x.shape[1], recipe.latents
        drawn = [generator(seed, _WEIGHTS) for seed in seeds]
        kind = NETWORKS[recipe.activation]
        self.encoder = kind((inputs, *recipe.widths, 2 * n), drawn, device)
        self.decoder = kind((n, *reversed(recipe.widths), inputs), drawn, device)
        self.order = [generator(seed, _ORDER) for seed in seeds]
        self.noise = [generator(seed, _NOISE) for seed in seeds]
        self.optimizer = torch.optim.Adam(list(self.parameters()), lr=recipe.rate, fused=True)
        self.scale = recipe.scale(inputs)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Every trained tensor, each with the member as its first axis."""
        yield from self.encoder.parameters()
        yield from self.decoder.parameters()

    def run_epoch(self, epoch: int) -> None:
        """Train once on every row of every member, the last batch being what is left over.

        Args:
            epoch: counted from 0, for the learning rate.
        """
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.recipe.schedule.rate(epoch)
        orders = [
            rows[torch.randperm(len(rows), generator=g).to(self.device)]
            for rows, g in zip(self.train, self.order, strict=True)
        ]
        for start in range(0, max(map(len, orders)), BATCH):
            self._step([order[start : start + BATCH] for order in orders])

    def _step(self, chosen: Sequence[Tensor]) -> None:
        """One step of Adam on the rows of each member."""
        x, share, noise = self._batch(chosen)
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
        rows, shares = zip(*map(shared, self.held_out), strict=True)
        means = torch.zeros(len(rows), dtype=torch.float64, device=self.device)
        for start in range(0, max(map(len, rows)), BATCH):
            x = self._gathered([r[start : start + BATCH] for r in rows])
            share = filled([s[start : start + BATCH] for s in shares])
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
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for parameter, saved in zip(self.parameters(), state["weights"], strict=True):
            parameter.data.copy_(saved)
        self.optimizer.load_state_dict(state["adam"])
        for generators, saved in ((self.order, state["order"]), (self.noise, state["noise"])):
            for own, value in zip(generators, saved, strict=True):
                own.set_state(value)


def filled(parts: Sequence[Tensor]) -> Tensor:
    """Stack tensors ``(B_e, ...)`` along a new first axis, zeros filling up the shorter."""
    return pad_sequence(list(parts), batch_first=True)


def _norm(difference: Tensor) -> Tensor:
    """L2 norm over the last axis; its subgradient at 0 is 0."""
    norm: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return norm


def _square(difference: Tensor) -> Tensor:
    return difference.square().sum(-1)


TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {"l2": _norm, "sse": _square}
