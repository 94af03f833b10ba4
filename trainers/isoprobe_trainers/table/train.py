"""Train a VAE on a table in a file: linear in closed form first, then what is not linear.

From top to bottom: settings, the linear VAE, data, networks, the loss, the training with its step,
the files. The linear VAE chooses latents and beta and gives each column the weight that its
residual asks for, as factor analysis does; the training starts at its optimum and keeps the state
of the greatest ELBO on rows held out, so that it never ends with less.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.contracts import VAE, Facts, Posterior
from isoprobe.data.recipe import texts
from isoprobe.errors import DataError, OptionError
from isoprobe.results.whole import check_place
from isoprobe.theory.formulas import kl_divergence
from isoprobe_plugins.architectures.skip import Skip
from isoprobe_plugins.data.tables import read_cells
from isoprobe_trainers.common.graphs import adam, set_rate
from isoprobe_trainers.common.training import Schedule, generator, versions, whole
from isoprobe_trainers.table.columns import learn_recipe, rescaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from isoprobe.contracts import Networks
    from isoprobe.data.recipe import Recipe
    from isoprobe_plugins.architectures.skip_layers import Beside

# --------------------------------------------------------------------------- settings

METRIC = "sse"
_ROWS, _WEIGHTS, _ORDER, _HELD = range(4)


@dataclass(frozen=True)
class Sizes:
    """How large and how long.

    Attributes:
        widths: of the layers beside the linear ones, encoder and decoder alike.
        rate: of Adam, which falls along a half cosine.
        epochs: at most.
        least_epochs: at least, however many steps they are.
        steps: that the epochs make up, between these bounds.
        patience: epochs without a greater ELBO after which it stops.
        held_out: share of the rows held out, to choose by.
        floor: residuals of a column are taken as this share of the mean noise at least.
        draws: of the noise at which the ELBO of rows held out is taken.
        least_rows: a table needs.
    """

    widths: tuple[int, ...] = (64, 64)
    rate: float = 1e-3
    epochs: int = 200
    least_epochs: int = 30
    steps: int = 3000
    patience: int = 20
    held_out: float = 0.1
    floor: float = 0.3
    draws: int = 8
    least_rows: int = 4

    def batch(self, rows: int) -> int:
        """Rows of a step."""
        return 128 if rows >= 512 else 32

    def schedule(self, rows: int) -> Schedule:
        """Epochs, batch and rate for a number of rows."""
        batch = self.batch(rows)
        epochs = max(self.least_epochs, self.steps // max(1, rows // batch))
        return Schedule(min(self.epochs, epochs), batch, self.rate)


SIZES = Sizes()


# --------------------------------------------------------------------------- the linear VAE

# Its optimum is probabilistic PCA (Tipping and Bishop 1999; Lucas, Tucker, Grosse and Norouzi
# 2019): with S = U diag(lambda) U' the covariance and beta = 2 sigma^2, the decoder is
# U (lambda - sigma^2)^(1/2), the posterior's variance sigma^2 / lambda.

#: numbers of latents that are tried
LATENTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
#: variance that is left to noise at least, of standardised columns
LEAST_NOISE = 1e-3
FOLDS = 5


@dataclass(frozen=True)
class LinearVae:
    """The optimum of a linear VAE on rows.

    Attributes:
        mean: of the rows, ``(m,)``.
        directions: orthonormal, ``(m, n)``.
        variances: along them, ``(n,)``, above the noise.
        noise: variance of every input around its reconstruction.
    """

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    noise: float

    @property
    def latents(self) -> int:
        """Number of latents n."""
        return len(self.variances)

    @property
    def beta(self) -> float:
        """KL weight for the summed square error at which the ELBO is greatest."""
        return 2 * self.noise

    @property
    def decoder(self) -> np.ndarray:
        """Columns of the decoder, ``(m, n)``."""
        weight: np.ndarray = self.directions * np.sqrt(self.variances - self.noise)
        return weight

    @property
    def encoder(self) -> np.ndarray:
        """Rows of the encoder's mean, ``(n, m)``."""
        gain = np.sqrt(self.variances - self.noise) / self.variances
        weight: np.ndarray = gain[:, None] * self.directions.T
        return weight

    @property
    def std(self) -> np.ndarray:
        """Standard deviations of the posterior, ``(n,)``, the same for every row."""
        found: np.ndarray = np.sqrt(self.noise / self.variances)
        return found

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """Mean square by column of what Dec(mu) leaves of rows, ``(m,)``."""
        moved = x - self.mean
        left: np.ndarray = moved - moved @ self.encoder.T @ self.decoder.T
        squares: np.ndarray = np.square(left).mean(axis=0)
        return squares

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log p(x) of the model, ``(N, m)`` to ``(N,)``, in nats."""
        moved = x - self.mean
        codes = moved @ self.directions
        rest = np.square(moved).sum(axis=1) - np.square(codes).sum(axis=1)
        left = x.shape[1] - self.latents
        squares = np.square(codes) @ (1 / self.variances) + rest / self.noise
        constant = np.log(self.variances).sum() + left * np.log(self.noise)
        density: np.ndarray = -0.5 * (squares + constant + x.shape[1] * np.log(2 * np.pi))
        return density


def fit_linear(x: np.ndarray, folds: int = FOLDS) -> LinearVae:
    """Return the linear VAE whose number of latents rows left out prefer.

    Args:
        x: rows, ``(N, m)``, in random order.
        folds: parts, each left out once; the median log density over all rows decides, so that a
            few odd rows do not.

    Returns:
        The optimum on all rows for that number, beta being the one of the greatest ELBO.
    """
    folds = min(folds, len(x))
    parts = [np.arange(len(x))[place::folds] for place in range(folds)]
    left_out: dict[int, list[np.ndarray]] = {}
    for part in parts:
        principal = _principal(np.delete(x, part, axis=0))
        for size in _latents(x.shape[1]):
            left_out.setdefault(size, []).append(_optimum(principal, size).log_density(x[part]))
    median = {size: float(np.median(np.concatenate(v))) for size, v in left_out.items()}
    return _optimum(_principal(x), max(median, key=median.__getitem__))


def _latents(count: int) -> list[int]:
    return [size for size in LATENTS if size < count] or [1]


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variances in falling order, and directions."""
    mean, count = x.mean(axis=0), x.shape[1]
    covariance = np.cov(x - mean, rowvar=False, bias=True).reshape(count, count)
    values, vectors = np.linalg.eigh(covariance)
    return mean, np.maximum(values[::-1], 0), vectors[:, ::-1]


def _optimum(principal: tuple[np.ndarray, np.ndarray, np.ndarray], size: int) -> LinearVae:
    mean, values, vectors = principal
    noise = max(float(values[size:].sum()) / max(len(values) - size, 1), LEAST_NOISE)
    return LinearVae(mean, vectors[:, :size], np.maximum(values[:size], noise * 1.0001), noise)


# --------------------------------------------------------------------------- data


def rows_of(cells: Mapping[str, np.ndarray], seed: int, where: str, sizes: Sizes = SIZES) -> Rows:
    """Make inputs of a table's columns, and hold some rows out.

    Args:
        cells: columns by name, ``(N,)`` each, numbers or text.
        seed: of the rows held out.
        where: the table, for errors.
        sizes: what is held out, and the least number of rows.

    Returns:
        The rows, each input scaled so that the linear VAE leaves about the same residual of all.

    Raises:
        DataError: for too few rows, or a missing cell.
    """
    count = len(next(iter(cells.values()), ()))
    if count < sizes.least_rows:
        raise DataError(
            f"{where} has {count} rows; expected at least {sizes.least_rows} to train on"
        )
    recipe = learn_recipe(cells, where)
    x = recipe.inputs(cells, where)
    order = torch.randperm(count, generator=generator(seed, _ROWS)).numpy()
    out = max(1, round(sizes.held_out * count))
    train, held = x[order[out:]], x[order[:out]]
    factors = _weights(fit_linear(train), train, sizes.floor)
    return Rows(rescaled(recipe, factors), train * factors, held * factors)


@dataclass(frozen=True)
class Rows:
    """What is trained on.

    Attributes:
        recipe: how columns become inputs.
        train: inputs ``(N, m)``.
        held: inputs of the rows held out.
    """

    recipe: Recipe
    train: np.ndarray
    held: np.ndarray


def _weights(linear: LinearVae, x: np.ndarray, floor: float) -> np.ndarray:
    """Factors of the inputs after which all have about the same residual, their mean square 1."""
    residuals = np.maximum(linear.residuals(x), floor * linear.noise)
    factors = 1 / np.sqrt(residuals)
    scaled: np.ndarray = factors / np.sqrt(np.square(factors).mean())
    return scaled


# --------------------------------------------------------------------------- networks


def started(
    linear: LinearVae, inputs: int, seed: int, widths: Sequence[int] = SIZES.widths
) -> tuple[Networks, dict[str, Any]]:
    """Return networks at the optimum of a linear VAE: the layers beside it give 0.

    Args:
        linear: the optimum.
        inputs: number of inputs m.
        seed: of the weights.
        widths: of the layers beside it.

    Returns:
        The networks, and their configuration as architecture ``skip``.
    """
    n = linear.latents
    config = {"input_shape": [inputs], "widths": list(widths), "latent_size": n}
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


# --------------------------------------------------------------------------- the loss


def _loss(networks: Networks, x: Tensor, noise: Tensor, beta: float) -> Tensor:
    """L_x / beta = |x - Dec(z)|^2 / beta + KL of each row (Eq. 3), ``(B,)``."""
    mean, std = networks.encoder(x)
    output = networks.decoder(mean + std * noise)
    loss: Tensor = (output - x).square().sum(1) / beta + kl_divergence(mean, std).sum(1)
    return loss


def _tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


# --------------------------------------------------------------------------- the training


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


def fit(
    cells: Mapping[str, np.ndarray],
    seed: int = 0,
    where: str = "the table",
    sizes: Sizes = SIZES,
) -> Trained:
    """Train on rows.

    Args:
        cells: columns by name, ``(N,)`` each, numbers or text.
        seed: of rows held out, weights, order and noise.
        where: the table, for errors.
        sizes: of networks and schedule.

    Returns:
        The VAE of the greatest ELBO on rows held out.

    Raises:
        DataError: for too few rows, or a missing cell.
    """
    rows = rows_of(cells, seed, where, sizes)
    start, recipe = fit_linear(rows.train), rows.recipe
    networks, config = started(start, recipe.size, seed, sizes.widths)
    out = len(rows.held)
    before, after, epochs = _train(networks, start, rows, seed, sizes)
    record = {
        "trainer": "table",
        "seed": seed,
        "rows": len(rows.train) + out,
        "held_out": out,
        "epochs": epochs,
        "elbo_linear": -before,
        "elbo": -after,
        "table": recipe.record(),
    }
    latents = "1 latent" if start.latents == 1 else f"{start.latents} latents"
    said = (
        f"{latents} and beta {start.beta:.4g}, as the linear VAE of the greatest ELBO on rows left "
        "out has",
        f"training raised the ELBO on {out} rows held out from {-before:.4g} to {-after:.4g} nats "
        f"in {epochs} epochs"
        if after < before
        else f"{epochs} epochs of training did not raise the ELBO on {out} rows held out "
        f"({-before:.4g} nats): the "
        "linear VAE is kept",
    )
    return Trained(networks, config, recipe, start.beta, record, said)


def _train(
    networks: Networks, start: LinearVae, data: Rows, seed: int, sizes: Sizes
) -> tuple[float, float, int]:
    """Train in place; return -ELBO of rows held out before and after, and the epochs."""
    rows, others = _tensor(data.train), _tensor(data.held)
    constant = 0.5 * rows.shape[1] * math.log(math.pi * start.beta)
    noise = torch.randn(sizes.draws, len(others), start.latents, generator=generator(seed, _HELD))
    modules = torch.nn.ModuleList([networks.encoder, networks.decoder])
    schedule = sizes.schedule(len(rows))
    optimizer = adam(modules.parameters(), schedule.lr, rows.device, record=False)
    order = generator(seed, _ORDER)

    def held() -> float:
        with torch.no_grad():
            losses = [_loss(networks, others, one, start.beta).mean() for one in noise]
        return float(torch.stack(losses).mean().item() + constant)

    before = best = held()
    kept = {name: value.clone() for name, value in modules.state_dict().items()}
    worse, epoch = 0, 0
    while epoch < schedule.epochs and worse <= sizes.patience:
        set_rate(optimizer, schedule.lr * (1 + math.cos(math.pi * epoch / schedule.epochs)) / 2)
        for batch in torch.split(torch.randperm(len(rows), generator=order), schedule.batch):
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


# --------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Files:
    """What a training wrote.

    Attributes:
        checkpoint: the model.
        reference: rows it was not trained on, as CSV; None where none were left out.
        said: what was chosen and why, a sentence each.
    """

    checkpoint: Path
    reference: Path | None
    said: tuple[str, ...]


def train(
    spec: str,
    out: Path,
    *,
    seed: int = 0,
    normal: str = "0",
    reference: float = 0.25,
    overwrite: bool = False,
) -> Files:
    """Train a VAE on the normal rows of a table.

    Args:
        spec: ``FILE.csv:columns=a,b;label=y;id=patient``, CSV, TSV or Parquet.
        out: folder for the files.
        seed: of everything random.
        normal: label of the rows to train on, where a label is given.
        reference: share of these rows that is left out of the training, for a reference.
        overwrite: replace existing files.

    Returns:
        The files.

    Raises:
        OptionError: for a share outside [0, 1).
        DataError: for a missing cell, or too few rows.
    """
    if not 0 <= reference < 1:
        raise OptionError(f"--reference is at least 0 and below 1; found {reference:g}")
    began = time.monotonic()
    table = read_cells(spec)
    cells, labels, name = table.columns, table.labels, table.name
    kept = np.arange(len(next(iter(cells.values()))))
    if labels is not None:
        kept = np.flatnonzero(texts(labels, "label", name) == normal)
        if not len(kept):
            some = ", ".join(np.unique(texts(labels, "label", name))[:5])
            raise DataError(
                f"no row of {name} has the label '{normal}' of a normal row; found {some}: name "
                "the right one with --normal"
            )
    stem = name.partition(".")[0]
    checkpoint = check_place(out / f"{stem}.safetensors", overwrite=overwrite)
    beside = check_place(out / f"{stem}.reference.csv", overwrite=overwrite)
    order = np.random.default_rng(seed).permutation(kept)
    left = np.sort(order[: round(reference * len(order))])
    rows = np.sort(order[len(left) :])
    trained = fit({key: values[rows] for key, values in cells.items()}, seed, name)
    record = {
        **trained.record,
        "data": name,
        "seconds": round(time.monotonic() - began, 1),
        "versions": versions(),
    }
    write(checkpoint, trained.networks, trained.config, trained.beta, record, overwrite=overwrite)
    if len(left):
        _write_rows(beside, {key: values[left] for key, values in cells.items()})
    return Files(checkpoint, beside if len(left) else None, trained.said)


def write(
    path: str | Path,
    networks: Networks,
    config: Mapping[str, Any],
    beta: float,
    record: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write a table's VAE as a native checkpoint."""
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        architecture=Skip.name,
        config=dict(config),
        latent_size=int(config["latent_size"]),
        objective=Objective(METRIC, beta),
        training=dict(record),
    )
    write_checkpoint(path, networks.encoder, networks.decoder, manifest, overwrite=overwrite)


def as_vae(networks: Networks, beta: float, record: Mapping[str, Any]) -> VAE:
    """Return a table's VAE as the core takes it."""

    def encode(x: Tensor) -> Posterior:
        return Posterior(*networks.encoder(x))

    return VAE(
        decode=networks.decoder,
        encode=encode,
        input_shape=networks.input_shape,
        latent_shape=networks.latent_shape,
        module=torch.nn.ModuleList([networks.encoder, networks.decoder]),
        facts=Facts(metric=METRIC, beta=beta, training=dict(record)),
        name="detector",
    )


def _write_rows(path: Path, cells: Mapping[str, np.ndarray]) -> None:
    """Write rows as they were read."""
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(cells)
        writer.writerows(zip(*(values.tolist() for values in cells.values()), strict=True))
