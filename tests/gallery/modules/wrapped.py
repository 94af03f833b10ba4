"""Modules inside wrappers, frameworks and narrow number types."""

from __future__ import annotations

from dataclasses import replace

import lightning
import torch
from torch import Tensor, nn

from tests.gallery import own
from tests.gallery.modules.methods import EncodeDecode, half, of_parts, plain_weights
from tests.gallery.modules.shelf import Made, module, ready


@module("nn.DataParallel around encode / decode")
def data_parallel() -> Made:
    made = of_parts(EncodeDecode())
    return replace(made, module=nn.DataParallel(made.module))


@module("torch.compile(backend='eager') around encode / decode")
def compiled() -> Made:
    made = of_parts(EncodeDecode())
    return replace(made, module=torch.compile(made.module, backend="eager"))


class Lit(lightning.LightningModule):
    """The VAE inside a LightningModule that has a training step and optimizers."""

    def __init__(self, latent_dim: int = 5, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.vae = EncodeDecode()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.vae(x)

    def training_step(self, batch: Tensor, _index: int) -> Tensor:
        recon, mu, logvar = self(batch)
        rate = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
        return (own.bce(batch, recon) + rate).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


@module("a LightningModule that holds the VAE as self.vae")
def lightning_module() -> Made:
    network = Lit()
    network.vae.load_state_dict(plain_weights())
    return ready(
        network, lambda x: half(network.vae.encode(x)), network.vae.decode, own.digits()[0]
    )


@module("weights in bfloat16", tolerance=0.03)
def bfloat16() -> Made:
    made = of_parts(EncodeDecode())
    made.module.bfloat16()
    wide = EncodeDecode()
    wide.load_state_dict({k: v.float() for k, v in made.module.state_dict().items()})
    wide.eval()
    reading = replace(
        made.reading, posterior=lambda x, _c: half(wide.encode(x)),
        decode=lambda z, _c: wide.decode(z),
    )  # fmt: skip
    return replace(made, reading=reading)
