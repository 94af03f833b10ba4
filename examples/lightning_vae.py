"""A Lightning training from its first step to a verdict on its checkpoint.

The LightningModule holds a plain VAE. ``MonitorCallback`` measures it while it trains, its numbers
in the trainer's own logger; afterwards the module itself and the checkpoint that Lightning wrote
are analysed, which are the same weights and give the same numbers.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import isoprobe
from isoprobe.monitor.lightning import MonitorCallback

EPOCHS, BETA = 25, 0.02


class Vae(nn.Module):
    """Sixteen inputs, four latents."""

    def __init__(self, hidden: int = 48, latent_dim: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, hidden), nn.Softplus())
        self.fc_mu, self.fc_logvar = nn.Linear(hidden, latent_dim), nn.Linear(hidden, latent_dim)
        self.up, self.out = nn.Linear(latent_dim, hidden), nn.Linear(hidden, 16)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance."""
        h = self.body(x)
        return self.fc_mu(h), self.fc_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        """Reconstruction."""
        return self.out(nn.functional.softplus(self.up(z)))


class Lit(lightning.LightningModule):
    """The VAE as Lightning trains it."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = Vae()

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """L_x of Eq. 3: squared error summed over inputs, KL summed over latents."""
        (x,) = batch
        mu, logvar = self.vae.encode(x)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        rate = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        return ((self.vae.decode(z) - x) ** 2).sum(1).add(BETA * rate).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 5e-3)


def rows(count: int = 2048) -> Tensor:
    """Two uniform factors of different size, turned into sixteen inputs."""
    factors = (torch.rand(count, 2) - 0.5) * torch.tensor([4.0, 2.0])
    return factors @ torch.linalg.qr(torch.randn(16, 16))[0][:, :2].T


def main(folder: Path) -> None:
    """Train, then ask the module and the checkpoint."""
    lightning.seed_everything(0, verbose=False)
    x, model = rows(), Lit()
    watch = MonitorCallback(x, metric="sse", beta=BETA, every=200, share=None, table=False)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=CSVLogger(folder), callbacks=[watch],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(x), 128, shuffle=True))
    trainer.save_checkpoint(folder / "vae.ckpt")

    found = []
    with isoprobe.analyze(model, x, metric="sse", samples=512) as result:
        found.append(result.attrs["beta_recovered"])
        used = int(result["overview"]["active"].values.sum())
    file = f"{Path(__file__).resolve()}:Vae"  # runs this file, since it is named here
    options = {"class": file}
    with isoprobe.analyze(
        folder / "vae.ckpt", x, metric="sse", samples=512, adapter="class", options=options
    ) as result:
        found.append(result.attrs["beta_recovered"])
    last = watch.monitor.points[-1]
    print(
        f"used {used} of 4; beta {found[0]:.4f}, trained with {BETA}; last point {last.used} used"
    )
    logged = next(folder.rglob("metrics.csv")).read_text("utf-8").splitlines()
    print(f"the trainer's logger has {len(logged) - 1} rows of {logged[0].count(',')} numbers")
    assert found[0] == found[1], "module and checkpoint are the same weights"
    assert abs(found[0] / BETA - 1) < 0.1
    assert used == last.used


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
