"""Train DAGMM (Zong et al. 2018), plain: an autoencoder, and a mixture fitted to its code.

The mixture sees the code, the relative reconstruction error and the cosine between input and
reconstruction. An estimation network gives each row its memberships, from which the mixture's
moments follow; the score is the energy, the negative log density.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from isoprobe_trainers.anomaly.distinct import by_row, shared
from isoprobe_trainers.common.training import generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoprobe_trainers.anomaly.tables import Split, Table

_EPS = 1e-12
#: added to the diagonal of every covariance
_JITTER = 1e-6
_WEIGHT_STREAM, _ORDER_STREAM = 10, 11


@dataclass(frozen=True)
class DagmmSettings:
    """Networks and schedule of one data set, from that paper's Section 4.3.

    Attributes:
        widths: encoder from the first hidden layer to the code, tanh between them.
        components: Gaussians of the mixture.
        epochs: passes over the training rows.
        batch: rows of a step.
        rate: of Adam.
        energy: weight of the energy beside the square error.
        singular: weight of the inverse variances, which keeps covariances from collapsing.
        merge: compute equal rows of a batch once, with one draw of the dropout for them all.
    """

    widths: tuple[int, ...]
    components: int
    epochs: int
    batch: int
    rate: float = 1e-4
    energy: float = 0.1
    singular: float = 0.005
    merge: bool = False

    def record(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)


SETTINGS: dict[str, DagmmSettings] = {
    "kddcup99": DagmmSettings((60, 30, 10, 1), 4, 200, 1024, merge=True),
    "thyroid": DagmmSettings((12, 4, 1), 2, 20000, 1024),
    "arrhythmia": DagmmSettings((10, 2), 2, 10000, 128),
    "kddcup-rev": DagmmSettings((60, 30, 10, 1), 2, 400, 1024, merge=True),
}


@dataclass(frozen=True)
class Mixture:
    """Gaussians over features, K of them in d dimensions; models may come first, as ``...``.

    Attributes:
        weight: ``(..., K)``.
        mean: ``(..., K, d)``.
        covariance: ``(..., K, d, d)``.
    """

    weight: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def fitted(cls, features: Tensor, membership: Tensor, share: Tensor) -> Mixture:
        """Moments of features by memberships, in double precision.

        Args:
            features: of different rows, ``(..., B, d)``.
            membership: of each row in each Gaussian, adding up to 1, ``(..., B, K)``.
            share: of each row in the data, ``(..., B)``, adding up to 1.

        Returns:
            The mixture.
        """
        features = features.double()
        belonging = (membership.double() * share.double()[..., None]).mT
        total = belonging.sum(-1)
        mean = belonging @ features / (total[..., None] + _EPS)
        centred = features[..., None, :, :] - mean[..., None, :]
        scatter = centred.mT @ (belonging[..., None] * centred)
        jitter = _JITTER * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        return cls(total, mean, scatter / (total[..., None, None] + _EPS) + jitter)

    def energy(self, features: Tensor) -> Tensor:
        """Negative log density of features ``(..., B, d)``, ``(..., B)`` in nats."""
        # a card would have to wait to see whether a covariance is singular
        root, _ = torch.linalg.cholesky_ex(
            self.covariance, check_errors=not self.covariance.is_cuda
        )
        centred = (features.double()[..., None, :, :] - self.mean[..., None, :]).mT
        whitened = torch.linalg.solve_triangular(root, centred, upper=False)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * features.shape[-1] * math.log(2 * math.pi)
        log_normal = -0.5 * whitened.square().sum(-2) - (log_det + constant)[..., None]
        return -torch.logsumexp(log_normal + (self.weight + _EPS).log()[..., None], -2)


class Dagmm(nn.Module):
    """Compression and estimation networks.

    Args:
        inputs: number of inputs m.
        settings: widths and components.
    """

    def __init__(self, inputs: int, settings: DagmmSettings) -> None:
        super().__init__()
        widths = (inputs, *settings.widths)
        self.encoder = _tanh_network(widths)
        self.decoder = _tanh_network(widths[::-1])
        self.estimator = estimation_network(widths[-1] + 2, settings.components)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(B, d + 2)`` and square errors ``(B,)`` of inputs ``(B, m)``."""
        code = self.encoder(x)
        x_hat = self.decoder(code)
        error, length = (x - x_hat).norm(dim=1), x.norm(dim=1)
        distance = error / (length + _EPS)
        cosine = (x * x_hat).sum(1) / (length * x_hat.norm(dim=1) + _EPS)
        return torch.cat([code, distance[:, None], cosine[:, None]], 1), error.square()


def scores(table: Table, halves: Split, seed: int, settings: DagmmSettings) -> np.ndarray:
    """Train on the normal rows and score the test rows.

    Args:
        table: the data.
        halves: its split; the rows held out are trained on too.
        seed: of weights, order and dropout.
        settings: networks and schedule.

    Returns:
        Energies of the test rows in nats, the mixture fitted to the training rows.
    """
    rows, train, test = numbered(table, halves)
    with torch.random.fork_rng([]):
        torch.manual_seed(generator(seed, _WEIGHT_STREAM).initial_seed())
        model = Dagmm(table.x.shape[1], settings)
        _train(model, rows, train, settings, generator(seed, _ORDER_STREAM))
    model.eval()
    with torch.no_grad():
        different, share = shared(train)
        features = model(rows[different])[0]
        mixture = Mixture.fitted(features, model.estimator(features), share)
        found: np.ndarray = by_row(lambda r: mixture.energy(model(rows[r])[0]), test).numpy()
    return found


def numbered(table: Table, halves: Split) -> tuple[Tensor, Tensor, Tensor]:
    """Return the different rows ``(D, m)``, and the numbers of normal and of test rows in them."""
    normal = np.concatenate([halves.train, halves.held_out])
    train, test = (torch.from_numpy(table.groups[part]) for part in (normal, halves.test))
    return torch.from_numpy(table.distinct), train, test


def _train(
    model: Dagmm, rows: Tensor, train: Tensor, settings: DagmmSettings, order: torch.Generator
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.rate, fused=True)
    for _ in tqdm(range(settings.epochs), "DAGMM", unit="epoch", disable=None, leave=False):
        for chosen in batches(len(train), settings.batch, order):
            different, share = shared(train[chosen], merge=settings.merge)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(model, rows[different], share, settings))
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()


def loss(model: Dagmm, x: Tensor, share: Tensor, settings: DagmmSettings) -> Tensor:
    """Objective of a batch.

    Args:
        model: the networks.
        x: different rows, ``(B, m)``.
        share: of each in the batch, ``(B,)``.
        settings: weights of the parts.

    Returns:
        Mean square error, weighted energy and inverse variances, added up.
    """
    features, square = model(x)
    mixture = Mixture.fitted(features, model.estimator(features), share)
    inverse = (1 / mixture.covariance.diagonal(dim1=1, dim2=2)).sum()
    energy = mixture.energy(features) @ share.double()
    total: Tensor = square @ share + settings.energy * energy + settings.singular * inverse
    return total


def batches(count: int, batch: int, order: torch.Generator) -> Sequence[Tensor]:
    """Cut a random order into nearly equal batches: moments of a few rows would be singular."""
    return torch.randperm(count, generator=order).tensor_split(max(1, round(count / batch)))


def estimation_network(features: int, components: int) -> nn.Sequential:
    """Return the network from features ``(B, d)`` to memberships ``(B, K)``, as in that paper."""
    return nn.Sequential(
        nn.Linear(features, 10),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(10, components),
        nn.Softmax(dim=1),
    )


def _tanh_network(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
