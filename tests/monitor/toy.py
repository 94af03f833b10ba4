"""A small VAE and its training, in which everything is there that a monitor could disturb."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.sampled import Sampled

BETA = 0.02
SIZE, LATENTS = 8, 4


def rows(count: int = 512) -> Tensor:
    """Two factors in eight inputs."""
    generator = torch.Generator().manual_seed(1)
    factors = torch.randn(count, 2, generator=generator) * torch.tensor([2.0, 1.0])
    turn = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(2)))[0]
    return factors @ turn[:, :2].T


class Toy(Sampled):
    """A VAE with norms of the batch, dropout and counters."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(SIZE, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.1)
        )
        self.fc_mu, self.fc_logvar = nn.Linear(width, LATENTS), nn.Linear(width, LATENTS)
        self.out = nn.Sequential(nn.Linear(LATENTS, width), nn.Tanh(), nn.Linear(width, SIZE))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.fc_mu(h), self.fc_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        return self.out(z)


def loss(answer: tuple[Tensor, Tensor, Tensor], x: Tensor, beta: float = BETA) -> Tensor:
    recon, mu, logvar = answer
    rate = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
    return ((recon - x).square().sum(1) + beta * rate).mean()


def begun(seed: int = 0) -> tuple[Toy, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Toy()
    return model, torch.optim.Adam(model.parameters(), 5e-3)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, beta: float = BETA
) -> None:
    batch = x[torch.randint(len(x), (64,))]
    optimizer.zero_grad()
    loss(model(batch), batch, beta).backward()
    optimizer.step()
