"""One and the same model, saved by seven libraries and formats, gives equal numbers in each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from isoprobe import api
from isoprobe.contracts import VAE
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.registry.lookup import installed

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

DECLARATION = """
input_shape = [1, 4, 4]
encoder = ["flatten", {linear = "encoder.layers.0.0"}, "relu"]
head = {mean = "encoder.embedding", scale = "encoder.log_var", form = "logvar"}
decoder = [{linear = "decoder.layers.0.0"}, "relu", {linear = "decoder.layers.1.0"},
           {reshape = [1, 4, 4]}]
output = "sigmoid"
"""


class Encoder(nn.Module):
    """pythae's default encoder, without its dictionary of outputs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(16, 512), nn.ReLU())])
        self.embedding, self.log_var = nn.Linear(512, 3), nn.Linear(512, 3)

    def forward(self, x):
        h = self.layers[0](x.flatten(1))
        return self.embedding(h), self.log_var(h)


class Decoder(nn.Module):
    """pythae's default decoder."""

    def __init__(self):
        super().__init__()
        first = nn.Sequential(nn.Linear(3, 512), nn.ReLU())
        self.layers = nn.ModuleList([first, nn.Sequential(nn.Linear(512, 16), nn.Sigmoid())])

    def forward(self, z):
        return self.layers[1](self.layers[0](z)).unflatten(1, (1, 4, 4))


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = Encoder(), Decoder()


def declared(write: Callable[[Both, Path], object], name: str) -> Callable[[Both, Path], VAE]:
    def load(model: Both, folder: Path) -> VAE:
        write(model, folder / name)
        (folder / name).with_suffix(".toml").write_text(DECLARATION)
        return api.load(folder / name)

    return load


def by_safetensors(model: Both, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(model.state_dict(), path)


def by_lightning(model: Both, path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Training(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = model.encoder, model.decoder

    trainer = lightning.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    trainer.strategy.connect(Training())
    trainer.save_checkpoint(path)


def by_script(model: Both, folder: Path) -> VAE:
    for name, example in (("encoder", torch.rand(2, 1, 4, 4)), ("decoder", torch.rand(2, 3))):
        torch.jit.trace(getattr(model, name), example).save(str(folder / f"{name}.pt"))
    return api.load(folder, options={"input_shape": "1x4x4"})


def by_export(model: Both, folder: Path) -> VAE:
    from tests.plugins.test_adapters_exported import export

    for name, example in (("encoder", torch.rand(2, 1, 4, 4)), ("decoder", torch.rand(2, 3))):
        export(getattr(model, name), example, folder / f"{name}.pt2")
    return api.load(folder, options={"input_shape": "1x4x4"})


def by_onnx(model: Both, folder: Path) -> VAE:
    from tests.plugins.test_adapters_onnx import export  # skips without onnx

    for name, example in (("encoder", torch.rand(2, 1, 4, 4)), ("decoder", torch.rand(2, 3))):
        export(getattr(model, name), example, folder / f"{name}.onnx")
    return api.load(folder)


def by_pythae(model: Both, folder: Path) -> VAE:
    from tests.plugins.test_adapters_pythae import pythae  # skips without pythae

    own = pythae.VAE(pythae.VAEConfig(input_dim=(1, 4, 4), latent_dim=3))
    own.load_state_dict(model.state_dict())
    own.save(str(folder / "pythae"))
    return api.load(folder / "pythae")


ROUTES = {
    "torch zip": declared(lambda model, path: torch.save(model.state_dict(), path), "vae.pt"),
    "Lightning": declared(by_lightning, "vae.ckpt"),
    "TorchScript": by_script,
    "torch.export": by_export,
    "ONNX": by_onnx,
    "pythae": by_pythae,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    vae = declared(by_safetensors, "vae.safetensors")(
        Both().eval(), tmp_path_factory.mktemp("reference")
    )
    return quantities(vae)


def quantities(vae: VAE) -> dict[str, torch.Tensor]:
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    needs = {"mean", "std", "kl", "gram", "stationarity", "distortion", "distortion_draws"}
    probe = Probe(vae, installed().metric("sse"), needs, ProbeOptions(seed=3))
    return {name: probe(np.arange(8), x)[name] for name in needs}


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_every_route_gives_the_numbers_of_the_weights_themselves(tmp_path, reference, route):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that write
        vae = ROUTES[route](Both().eval(), tmp_path)
    found = quantities(vae)
    for name, wanted in reference.items():
        assert torch.allclose(found[name], wanted, rtol=1e-4, atol=1e-6), name
