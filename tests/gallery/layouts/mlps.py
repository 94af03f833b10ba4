"""Layouts of plain networks for flat rows: what the tutorials write, and its relatives."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.gallery import own
from tests.gallery.layouts.nets import Mlp, Tutorial, as_bce, as_sse, of_digits, of_table
from tests.gallery.layouts.shelf import TO_LINE, TO_UNIT, layout
from tests.gallery.own import Own


@layout(
    "tutorial_mlp.pt", "digits.npy", "state dict of the MLP of the PyTorch examples",
    TO_UNIT,
)  # fmt: skip
def tutorial_mlp(folder: Path) -> Own:
    network = Tutorial()
    reading = as_bce(network, own.digits()[0])
    return own.kept(network, reading, folder / "tutorial_mlp.pt")


@layout(
    "tutorial_extras.pth", "digits.npy",
    "the same names inside a training checkpoint (epoch, optimizer, loss, config), beta 0.4",
    TO_UNIT,
    wrong="beta 1 taken from the layout's name; the config in the file says 0.4",
)  # fmt: skip
def tutorial_extras(folder: Path) -> Own:
    network = Tutorial(latent=8)
    reading = as_bce(network, own.digits()[0], 0.4)
    own.fit(network, reading)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6)
    reading.objective(reading.x[:4], None).mean().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 40,
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": 19.2,
        "config": {"latent_dim": 8, "hidden_dim": 32, "beta": 0.4, "lr": 1e-3},
    }
    torch.save(checkpoint, folder / "tutorial_extras.pth")
    return reading


class Named(nn.Module):
    """Three hidden layers and names like hidden2mu."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_linear1 = nn.Linear(12, 32)
        self.enc_linear2 = nn.Linear(32, 16)
        self.hidden2mu = nn.Linear(16, 3)
        self.hidden2logvar = nn.Linear(16, 3)
        self.dec_linear1 = nn.Linear(3, 16)
        self.dec_linear2 = nn.Linear(16, 32)
        self.dec_out = nn.Linear(32, 12)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.enc_linear2(torch.tanh(self.enc_linear1(x))))
        return self.hidden2mu(h), self.hidden2logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        return self.dec_out(torch.tanh(self.dec_linear2(torch.tanh(self.dec_linear1(z)))))


@layout(
    "float64_tanh.pt", "table.csv", "weights in float64, tanh, layers named one by one, a table",
    TO_LINE, encoder="tanh", decoder="tanh",
)  # fmt: skip
def float64_tanh(folder: Path) -> Own:
    network = Named()
    reading = as_sse(network, own.table(), 0.5)
    own.fit(network, reading)
    network.double()
    reading.x = reading.x.double()
    torch.save(network.state_dict(), folder / "float64_tanh.pt")
    return reading


@of_digits("half.pt", "weights stored in float16", kl_tolerance=5e-3)
def half(network: Mlp, path: Path) -> None:
    torch.save({k: v.half() for k, v in network.state_dict().items()}, path)
    network.half().float()  # the answers are those of the rounded weights


@layout(
    "elu.pt", "digits.npy", "two hidden layers, ELU, squared error of a linear output",
    TO_LINE, encoder="elu", decoder="elu",
)  # fmt: skip
def elu(folder: Path) -> Own:
    network = Mlp(act=nn.ELU, output=None)
    network.encoder = nn.Sequential(nn.Linear(64, 48), nn.ELU(), nn.Linear(48, 32), nn.ELU())
    reading = as_sse(network, own.digits()[0], 0.2)
    return own.kept(network, reading, folder / "elu.pt")


@layout(
    "batch_norm.pt", "digits.npy", "Linear, BatchNorm1d, LeakyReLU blocks",
    TO_UNIT, encoder="batch norm, leaky_relu(0.01)", decoder="batch norm, leaky_relu(0.01)",
)  # fmt: skip
def batch_norm(folder: Path) -> Own:
    network = Mlp()
    network.encoder = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.LeakyReLU())
    network.decoder = nn.Sequential(
        nn.Linear(5, 32), nn.BatchNorm1d(32), nn.LeakyReLU(), nn.Linear(32, 64), nn.Sigmoid()
    )
    reading = as_bce(network, own.digits()[0])
    return own.kept(network, reading, folder / "batch_norm.pt")


@layout(
    "no_decoder_activation.pt", "table.csv",
    "decoder_input is a layer of its own with no activation after it, as in VanillaVAE",
    TO_LINE, encoder="silu", decoder="none after decoder_input, then silu",
)  # fmt: skip
def no_decoder_activation(folder: Path) -> Own:
    network = Mlp(12, 24, 4, nn.SiLU, None)
    network.decoder_input = nn.Linear(4, 16)
    network.decoder = nn.Sequential(nn.Linear(16, 24), nn.SiLU(), nn.Linear(24, 12))
    reading = as_sse(network, own.table(), 1.0)
    reading.decode = lambda z, _c: network.decoder(network.decoder_input(z))
    return own.kept(network, reading, folder / "no_decoder_activation.pt")


@of_table("safetensors_plain.safetensors", "safetensors without metadata", beta=2.0)
def safetensors_plain(network: Mlp, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(network.state_dict(), path)


@of_digits("safetensors_metadata.safetensors", "safetensors with metadata of its own")
def safetensors_metadata(network: Mlp, path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"format": "pt", "latent_dim": "5", "loss": "bce", "beta": "1.0"}
    save_file(network.state_dict(), path, metadata)
