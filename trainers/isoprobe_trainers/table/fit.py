"""Train a VAE on a table: linear in closed form first, then what is not linear.

The linear VAE chooses latents and beta and gives each column the weight that its residual asks for,
as factor analysis does; the training starts at its optimum and keeps the state of the greatest ELBO
on rows held out, so that it never ends with less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from isoprobe.errors import DataError
from isoprobe.theory.formulas import kl_divergence
from isoprobe_plugins.architectures.skip import Skip
from isoprobe_trainers.common.training import generator
from isoprobe_trainers.table.columns import learn_recipe, rescaled
from isoprobe_trainers.table.linear import fit_linear

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Networks
    from isoprobe.data.recipe import Recipe
    from isoprobe_plugins.architectures.skip_layers import Beside
    from isoprobe_trainers.table.linear import LinearVae

WIDTHS = (64, 64)
RATE, EPOCHS, LEAST_EPOCHS, STEPS, PATIENCE = 1e-3, 200, 30, 3000, 20
#: share of the rows held out, to choose by
HELD_OUT = 0.1
#: residuals of a column are taken as this share of the mean noise at least
_FLOOR = 0.3
#: draws of the noise at which the ELBO of rows held out is taken
_DRAWS = 8
_LEAST_ROWS = 4
_ROWS, _WEIGHTS, _ORDER, _HELD = range(4)


@dataclass(frozen=True)
class Trained:
    """A VAE of a table.

    Attributes:
        networks: encoder and decoder.
        config: of the architecture ``skip``.
        recipe: how columns become inputs.
        beta: KL weight for the summed square error of the inputs.
        record: of the training, plain values.
        said: what was chosen and why, a sentence each.
    """

    networks: Networks
    config: dict[str, Any]
    recipe: Recipe
    beta: float
    record: dict[str, Any]
    said: tuple[str, ...]


def fit(cells: Mapping[str, np.ndarray], seed: int = 0, where: str = "the table") -> Trained:
    """Train on rows.

    Args:
        cells: columns by name, ``(N,)`` each, numbers or text.
        seed: of rows held out, weights, order and noise.
        where: the table, for errors.

    Returns:
        The VAE of the greatest ELBO on rows held out.

    Raises:
        DataError: for fewer than four rows, or a missing cell.
    """
    count = len(next(iter(cells.values()), ()))
    if count < _LEAST_ROWS:
        raise DataError(f"{where} has {count} rows; expected at least {_LEAST_ROWS} to train on")
    recipe = learn_recipe(cells, where)
    x = recipe.inputs(cells, where)
    order = torch.randperm(count, generator=generator(seed, _ROWS)).numpy()
    out = max(1, round(HELD_OUT * count))
    factors = _weights(fit_linear(x[order[out:]]), x[order[out:]])
    start = fit_linear(x[order[out:]] * factors)
    recipe = rescaled(recipe, factors)
    networks, config = started(start, recipe.size, seed)
    before, after, epochs = _train(
        networks, start, x[order[out:]] * factors, x[order[:out]] * factors, seed
    )
    record = {
        "trainer": "table",
        "seed": seed,
        "rows": count,
        "held_out": out,
        "epochs": epochs,
        "elbo_linear": -before,
        "elbo": -after,
        "table": recipe.record(),
    }
    said = (
        f"{start.latents} latents and beta {start.beta:.4g}, as the linear VAE of the greatest "
        "ELBO on rows left out has",
        f"training raised the ELBO on {out} rows held out from {-before:.4g} to {-after:.4g} nats "
        f"in {epochs} epochs"
        if after < before
        else f"{epochs} epochs of training did not raise the ELBO on {out} rows held out "
        f"({-before:.4g} nats): the "
        "linear VAE is kept",
    )
    return Trained(networks, config, recipe, start.beta, record, said)


def _weights(linear: LinearVae, x: np.ndarray) -> np.ndarray:
    """Factors of the inputs after which all have about the same residual, their mean square 1."""
    residuals = np.maximum(linear.residuals(x), _FLOOR * linear.noise)
    factors = 1 / np.sqrt(residuals)
    scaled: np.ndarray = factors / np.sqrt(np.square(factors).mean())
    return scaled


def started(linear: LinearVae, inputs: int, seed: int) -> tuple[Networks, dict[str, Any]]:
    """Return networks at the optimum of a linear VAE: the layers beside it give 0.

    Args:
        linear: the optimum.
        inputs: number of inputs m.
        seed: of the weights.

    Returns:
        The networks, and their configuration as architecture ``skip``.
    """
    n = linear.latents
    config = {"input_shape": [inputs], "widths": list(WIDTHS), "latent_size": n}
    with torch.random.fork_rng([]):
        torch.manual_seed(generator(seed, _WEIGHTS).initial_seed())
        networks = Skip().build(config)
    encoder = cast("Beside", networks.encoder.both)
    decoder = cast("Beside", networks.decoder.both)
    mean = linear.encoder
    with torch.no_grad():
        for part in (encoder, decoder):
            for parameter in part.layers[-1].parameters():
                parameter.zero_()
        encoder.linear.weight.copy_(_tensor(np.concatenate([mean, np.zeros_like(mean)])))
        encoder.linear.bias.copy_(_tensor(np.r_[-mean @ linear.mean, np.log(linear.std)]))
        decoder.linear.weight.copy_(_tensor(linear.decoder))
        decoder.linear.bias.copy_(_tensor(linear.mean))
    return networks, config


def _train(
    networks: Networks, start: LinearVae, x: np.ndarray, held_out: np.ndarray, seed: int
) -> tuple[float, float, int]:
    """Train in place; return -ELBO of rows held out before and after, and the epochs."""
    rows, others = _tensor(x), _tensor(held_out)
    constant = 0.5 * x.shape[1] * math.log(math.pi * start.beta)
    noise = torch.randn(_DRAWS, len(others), start.latents, generator=generator(seed, _HELD))
    modules = torch.nn.ModuleList([networks.encoder, networks.decoder])
    optimizer = torch.optim.Adam(modules.parameters(), lr=RATE)
    order = generator(seed, _ORDER)
    size = 128 if len(rows) >= 512 else 32
    epochs = min(EPOCHS, max(LEAST_EPOCHS, STEPS // max(1, len(rows) // size)))

    def held() -> float:
        with torch.no_grad():
            losses = [_loss(networks, others, one, start.beta).mean() for one in noise]
        return float(torch.stack(losses).mean().item() + constant)

    before = best = held()
    kept = {name: value.clone() for name, value in modules.state_dict().items()}
    worse, epoch = 0, 0
    while epoch < epochs and worse <= PATIENCE:
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for batch in torch.split(torch.randperm(len(rows), generator=order), size):
            drawn = torch.randn(len(batch), start.latents, generator=order)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(_loss(networks, rows[batch], drawn, start.beta).mean())
            optimizer.step()
        now, epoch = held(), epoch + 1
        if now < best:
            best, worse = now, 0
            kept = {name: value.clone() for name, value in modules.state_dict().items()}
        else:
            worse += 1
    modules.load_state_dict(kept)
    return before, best, epoch


def _loss(networks: Networks, x: Tensor, noise: Tensor, beta: float) -> Tensor:
    """L_x / beta, ``(B,)``."""
    mean, std = networks.encoder(x)
    output = networks.decoder(mean + std * noise)
    loss: Tensor = (output - x).square().sum(1) / beta + kl_divergence(mean, std).sum(1)
    return loss


def _tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
