"""Train RaDOGAGA(d) (Kato et al. 2020), plain: isometric by constant noise, a mixture as prior.

The networks, transform losses and lambdas are those of Table 5, which the paper took from there.
The code gets noise of variance 1 / (2 lambda2), which makes the decoder isometric at the optimum
(Eq. 4); the mixture is fitted to the codes of a batch as DAGMM does. The score is -log P(z).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from isoprobe_trainers.anomaly.dagmm import Mixture, batches, estimation_network, numbered
from isoprobe_trainers.anomaly.distinct import by_row, shared
from isoprobe_trainers.anomaly.train import TRANSFORMS
from isoprobe_trainers.common.training import generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from isoprobe_trainers.anomaly.recipes import Recipe
    from isoprobe_trainers.anomaly.tables import Split, Table

WEIGHT_STREAM, _ORDER_STREAM = 20, 21
_ACTIVATIONS: dict[str, type[nn.Module]] = {"leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh}


class Radogaga(nn.Module):
    """Autoencoder and estimation network.

    Args:
        inputs: number of inputs m.
        recipe: widths, activation, losses.
        components: Gaussians of the mixture.
    """

    def __init__(self, inputs: int, recipe: Recipe, components: int) -> None:
        super().__init__()
        widths = (inputs, *recipe.widths, recipe.latents)
        activation = _ACTIVATIONS[recipe.activation]
        self.encoder = _network(widths, activation)
        self.decoder = _network(widths[::-1], activation)
        self.estimator = estimation_network(recipe.latents, components)
        self.recipe = recipe
        self.scale = recipe.scale(inputs)

    def loss(self, x: Tensor, share: Tensor) -> Tensor:
        """Objective of a batch: rate in nats and both distortions, averaged.

        Args:
            x: different rows, ``(B, m)``.
            share: of each in the batch, ``(B,)``.

        Returns:
            The mean over the batch.
        """
        noise = torch.randn(len(x), self.recipe.latents)
        total: Tensor = row_losses(self, self.estimator, x, share, noise) @ share.double()
        return total


class RadogagaNetworks(Protocol):
    """What a loss is taken of: one model, or many whose members come first."""

    recipe: Recipe
    scale: float

    @property
    def encoder(self) -> Callable[[Tensor], Tensor]:
        """Rows to codes."""

    @property
    def decoder(self) -> Callable[[Tensor], Tensor]:
        """Codes to rows."""


def row_losses(
    networks: RadogagaNetworks,
    memberships: Callable[[Tensor], Tensor],
    x: Tensor,
    share: Tensor,
    noise: Tensor,
) -> Tensor:
    """Objective of each row, -log P(z) + lambda1 D_t(x, x_check) + lambda2 SSE(x_check, x_hat).

    Args:
        networks: encoder and decoder, with their recipe.
        memberships: shares of each code in the mixture's Gaussians, ``(..., B, n)`` to
            ``(..., B, K)``.
        x: rows, ``(..., B, m)``.
        share: of each in its batch, ``(..., B)``.
        noise: standard normal draws, ``(..., B, n)``.

    Returns:
        ``(..., B)``, in nats.
    """
    recipe = networks.recipe
    lambda1, lambda2 = recipe.lambda1 * networks.scale, recipe.lambda2 * networks.scale
    z = networks.encoder(x)
    noisy = z + (0.5 / lambda2) ** 0.5 * noise
    x_check, x_hat = networks.decoder(torch.cat([z, noisy], -2)).chunk(2, -2)
    transform = TRANSFORMS[recipe.transform](x - x_check)
    coding = (x_check - x_hat).square().sum(-1)
    rate = Mixture.fitted(noisy, memberships(noisy), share).energy(noisy)
    return rate + lambda1 * transform + lambda2 * coding


def scores(table: Table, halves: Split, seed: int, recipe: Recipe, components: int) -> np.ndarray:
    """Train on the normal rows and score the test rows.

    Args:
        table: the data.
        halves: its split; the rows held out are trained on too.
        seed: of weights, order, noise and dropout.
        recipe: networks, losses and schedule.
        components: Gaussians of the mixture.

    Returns:
        -log P(z) of the test rows in nats, the mixture fitted to the training rows.
    """
    rows, train, test = numbered(table, halves)
    order = generator(seed, _ORDER_STREAM)
    with torch.random.fork_rng([]):
        torch.manual_seed(generator(seed, WEIGHT_STREAM).initial_seed())
        model = Radogaga(table.x.shape[1], recipe, components)
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate, fused=True)
        for epoch in tqdm(range(recipe.epochs), "RaDOGAGA", disable=None, leave=False):
            for group in optimizer.param_groups:
                group["lr"] = recipe.schedule.rate(epoch)
            for chosen in batches(len(train), recipe.batch, order):
                different, share = shared(train[chosen], merge=recipe.merge)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(model.loss(rows[different], share))
                optimizer.step()
    return judged(model, rows, train, test)


def judged(model: Radogaga, rows: Tensor, train: Tensor, test: Tensor) -> np.ndarray:
    """Fit the mixture to the training rows and score the test rows.

    Args:
        model: trained.
        rows: the different rows, ``(D, m)``.
        train: numbers of the training rows in them.
        test: numbers of the test rows.

    Returns:
        -log P(z) of the test rows in nats.
    """
    model.eval()
    with torch.no_grad():
        different, share = shared(train)
        z = model.encoder(rows[different])
        mixture = Mixture.fitted(z, model.estimator(z), share)
        found: np.ndarray = by_row(lambda r: mixture.energy(model.encoder(rows[r])), test).numpy()
    return found


def _network(widths: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])
