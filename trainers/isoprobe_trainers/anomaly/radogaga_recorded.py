"""Train RaDOGAGA(d) for the splits of many seeds together on a card, by one recorded step.

The networks, losses and batches are those of :mod:`isoprobe_trainers.anomaly.radogaga`, row by row.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isoprobe_trainers.anomaly.dagmm import numbered
from isoprobe_trainers.anomaly.radogaga import WEIGHT_STREAM, Radogaga, judged, row_losses
from isoprobe_trainers.anomaly.recorded import Batches, CardEpochs
from isoprobe_trainers.anomaly.train import distinct_rows
from isoprobe_trainers.common.batched import NETWORKS, BatchedMLP
from isoprobe_trainers.common.graphs import adam
from isoprobe_trainers.common.training import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from isoprobe_trainers.anomaly.recipes import Recipe
    from isoprobe_trainers.anomaly.tables import SplitTable

#: width of the estimation network
_HIDDEN = 10


class RadogagaEnsemble:
    """RaDOGAGA of one recipe, one for each seed and split.

    Args:
        recipe: networks, losses and schedule.
        data: of each member, with its seed; the rows held out are trained on too.
        device: where to train.
        components: Gaussians of the mixture.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Sequence[SplitTable],
        device: torch.device,
        components: int,
    ) -> None:
        self.recipe, self.device, self.components = recipe, device, components
        self.parts = [numbered(one.table, one.halves) for one in data]
        train = [rows.to(device) for _, rows, _ in self.parts]
        batches = Batches(train, _equal(list(map(len, train)), recipe.batch))
        rows = distinct_rows([one.table for one in data], device)
        inputs, n = rows[0].shape[1], recipe.latents
        seeds = [one.seed for one in data]
        widths = (inputs, *recipe.widths, n)
        drawn = [generator(seed, WEIGHT_STREAM) for seed in seeds]
        kind = NETWORKS[recipe.activation]
        self.encoder = kind(widths, drawn, device)
        self.decoder = kind(widths[::-1], drawn, device)
        self.estimator = BatchedMLP((n, _HIDDEN, components), drawn, device)
        self.scale = recipe.scale(inputs)
        self.optimizer = adam(self.parameters(), recipe.rate, device, record=True)
        drawn_for = [(n, _normal), (_HIDDEN, _kept)]
        self.card = CardEpochs(self.step, self.optimizer, rows, batches, seeds, drawn_for)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Every trained tensor, each with the member as its first axis."""
        for network in (self.encoder, self.decoder, self.estimator):
            yield from network.parameters()

    def run_epoch(self, epoch: int) -> None:
        """Train once on every row of every member.

        Args:
            epoch: counted from 0, for the learning rate.
        """
        self.card.epoch(self.recipe.schedule.rate(epoch))

    def step(self, x: Tensor, share: Tensor, noise: Tensor, kept: Tensor) -> None:
        """Take one step of Adam on rows, as :meth:`loss` takes them."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.loss(x, share, noise, kept).sum())
        self.optimizer.step()

    def loss(self, x: Tensor, share: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
        """Objectives of the members' batches.

        Args:
            x: rows, ``(E, B, m)``.
            share: of each in its batch, ``(E, B)``.
            noise: standard normal draws, ``(E, B, n)``.
            kept: 1 where dropout keeps a hidden unit of the estimation network, else 0.

        Returns:
            ``(E,)``.
        """
        rows = row_losses(self, partial(self._memberships, kept=kept), x, share, noise)
        total: Tensor = (rows * share.double()).sum(1)
        return total

    def scores(self) -> Iterator[np.ndarray]:
        """-log P(z) of the test rows of each member in turn, in nats."""
        for index, (rows, train, test) in enumerate(self.parts):
            yield judged(self.member(index), rows, train, test)

    def member(self, index: int) -> Radogaga:
        """One model by itself, on the CPU."""
        model = Radogaga(self.encoder.widths[0], self.recipe, self.components)
        for batched, alone in (
            (self.encoder, model.encoder),
            (self.decoder, model.decoder),
            (self.estimator, model.estimator),
        ):
            linear = [layer for layer in alone if isinstance(layer, torch.nn.Linear)]
            with torch.no_grad():
                for layer, (weight, bias) in zip(linear, batched.member(index), strict=True):
                    layer.weight.copy_(weight)
                    layer.bias.copy_(bias)
        return model

    def _memberships(self, z: Tensor, kept: Tensor) -> Tensor:
        (w_in, w_out), (b_in, b_out) = self.estimator.weights, self.estimator.biases
        hidden = torch.baddbmm(b_in, z, w_in.mT).tanh() * (2 * kept)
        return torch.baddbmm(b_out, hidden, w_out.mT).softmax(-1)


def _normal(noise: Tensor, *, generator: torch.Generator) -> Tensor:
    return noise.normal_(generator=generator)


def _kept(mask: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw what dropout keeps: half of the hidden units."""
    return mask.bernoulli_(0.5, generator=generator)


def train_together(
    recipe: Recipe, data: Sequence[SplitTable], device: torch.device, components: int
) -> list[np.ndarray]:
    """Train one model for each seed, and score the test rows of its split.

    Args:
        recipe: networks, losses and schedule.
        data: of each member, with its seed.
        device: where to train.
        components: Gaussians of the mixture.

    Returns:
        Scores of each member's test rows.
    """
    ensemble = RadogagaEnsemble(recipe, data, device, components)
    for epoch in range(recipe.epochs):
        ensemble.run_epoch(epoch)
    return list(ensemble.scores())


def _equal(counts: Sequence[int], batch: int) -> list[list[int]]:
    """Nearly equal batches: moments of a few rows would be singular."""
    steps = max(1, round(sum(counts) / len(counts) / batch))
    return [[count * step // steps for step in range(steps + 1)] for count in counts]
