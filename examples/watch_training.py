"""Watch a training: is beta right, which latents are used, has it collapsed?

A small VAE learns rows of three factors in 2,000 steps while beta is annealed. A monitor measures
it on the way, with the probe of an analysis and at most 2 % of the training's time, and ends in
what ``isoprobe.analyze`` finds in the final weights. Then beta is far too large: the monitor says
that the training has collapsed, and the loop ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import isoprobe

STEPS, BETA = 2000, 0.02


class Vae(nn.Module):
    """A plain VAE of sixteen inputs and five latents."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.Softplus())
        self.fc_mu, self.fc_logvar = nn.Linear(64, 5), nn.Linear(64, 5)
        self.out = nn.Sequential(nn.Linear(5, 64), nn.Softplus(), nn.Linear(64, 16))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance."""
        h = self.body(x)
        return self.fc_mu(h), self.fc_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruction."""
        return self.out(z)

    def loss(self, x: Tensor, beta: float) -> Tensor:
        """L_x of Eq. 3: squared error summed over inputs, KL summed over latents."""
        mu, logvar = self.encode(x)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        rate = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return ((self.decode(z) - x) ** 2).sum(1).add(beta * rate).mean()


def rows(count: int = 4096) -> Tensor:
    """Three uniform factors of different size, turned into sixteen inputs."""
    factors = (torch.rand(count, 3) - 0.5) * torch.tensor([4.0, 2.0, 1.0])
    turn = torch.linalg.qr(torch.randn(16, 16))[0]
    return factors @ turn[:, :3].T


def train(beta: Callable[[int], float], x: Tensor, steps: int, out: Path) -> isoprobe.Monitor:
    """Train, and watch; an alarm ends the training."""
    model = Vae()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with isoprobe.Monitor(model, x, metric="sse", beta=beta, every=250, out=out) as monitor:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            model.loss(x[torch.randint(len(x), (128,))], beta(step)).backward()
            optimizer.step()
            monitor.step()
            if monitor.alarm is not None:
                break
    if monitor.alarm is None:
        compare(monitor, model, x)
    return monitor


def compare(monitor: isoprobe.Monitor, model: Vae, x: Tensor) -> None:
    """Put the last point beside an analysis of the final weights, on the same rows."""
    last = monitor.points[-1]
    with isoprobe.analyze(model, x, metric="sse", samples=256) as result:
        used = int(result["overview"]["active"].values.sum())
        rate = float(result["overview"]["rate_mean"].values)
        beta = result.attrs["beta_recovered"]
    print(f"used {last.used} and {used}, rate {last.rate:.4f} and {rate:.4f} nats, ", end="")
    print(f"beta {last.beta_recovered:.5f} and {beta:.5f}: monitor and analyze")
    assert last.used == used
    assert abs(last.rate / rate - 1) < 0.03
    assert abs(last.beta_recovered / beta - 1) < 0.03


def main() -> None:
    """Train twice: as one should, and with a beta that nothing survives."""
    torch.manual_seed(0)
    x = rows()
    with tempfile.TemporaryDirectory() as folder:
        good = train(lambda step: BETA * min(step / 500, 1.0), x, STEPS, Path(folder, "good.jsonl"))
        good.report(Path(folder, "good.html"))
        bad = train(lambda step: 50.0, x, STEPS, Path(folder, "bad.jsonl"))
    last = good.points[-1]
    assert last.used == 3  # as many as there are factors
    assert abs(last.beta_recovered / BETA - 1) < 0.15
    print(f"cost beyond the first and the last: {good.cost:.1%} of the training's time")
    assert good.cost < 0.03
    assert bad.alarm is not None and bad.alarm.kind == "collapse"
    print(f"alarm at step {bad.alarm.step}: {bad.alarm.text}")


if __name__ == "__main__":
    main()
