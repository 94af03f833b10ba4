"""The models of one data set, one for each seed and split, trained in step as batched matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, pad

from isoprobe_trainers.anomaly_recipes import BATCH
from isoprobe_trainers.batched import BatchedMLP
from isoprobe_trainers.training import generator

if TYPE_CHECKING:
    from isoprobe_trainers.anomaly_recipes import Recipe
    from isoprobe_trainers.tabular import Split, Table

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
        # members with the same table share one tensor
        tensors = {id(t): torch.from_numpy(t.x).to(device) for t in tables}
        self.rows = [tensors[id(t)] for t in tables]
        self.train = [torch.from_numpy(s.train).to(device) for s in splits]
        self.held_out = [torch.from_numpy(s.held_out).to(device) for s in splits]
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
        """One step of Adam; members that have fewer rows left are padded with weightless ones."""
        counts = [len(rows) for rows in chosen]
        width, n = max(counts), self.recipe.latents
        draws = [
            torch.randn(count, n, generator=g) for count, g in zip(counts, self.noise, strict=True)
        ]
        noise = torch.stack([pad(d, (0, 0, 0, width - len(d))) for d in draws]).to(self.device)
        weight = torch.zeros(len(counts), width)
        for row, count in zip(weight, counts, strict=True):
            row[:count] = 1 / max(count, 1)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.losses(self._gathered(chosen, width), [noise])
        # summed over members, whose gradients are independent of one another
        torch.autograd.backward((losses.total * weight.to(self.device)).sum())
        self.optimizer.step()

    def _gathered(self, chosen: Sequence[Tensor], width: int) -> Tensor:
        rows = [x.index_select(0, c) for x, c in zip(self.rows, chosen, strict=True)]
        return torch.stack([pad(r, (0, 0, 0, width - len(r))) for r in rows])

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
        kl = 0.5 * (mean.square() + std.square() - log_variance - 1).sum(-1)
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
        means = []
        for member, rows in enumerate(self.held_out):
            total = 0.0
            for part in torch.split(rows, BATCH):
                chosen = [part if e == member else part[:0] for e in range(len(self.rows))]
                x = self._gathered(chosen, len(part))
                total += float(self.losses(x, [ones, -ones]).total[member].double().sum())
            means.append(total / len(rows))
        return means

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


def _norm(difference: Tensor) -> Tensor:
    """L2 norm over the last axis; its subgradient at 0 is 0."""
    norm: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return norm


def _square(difference: Tensor) -> Tensor:
    return difference.square().sum(-1)


TRANSFORMS: Mapping[str, Callable[[Tensor], Tensor]] = {"l2": _norm, "sse": _square}
