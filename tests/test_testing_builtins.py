"""Every built-in plugin obeys the laws that third parties are held to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from isoprobe.checkpoint import write_checkpoint
from isoprobe.contracts import Posterior
from isoprobe.registry import Registry
from isoprobe.testing import (
    Law,
    check_adapter,
    check_analysis,
    check_architecture,
    check_data_source,
    check_metric,
)
from isoprobe.testing.models import small_data, small_vae
from isoprobe_plugins.architectures.linear import linear_networks


def names(kind: str) -> list[str]:
    """Built-in plugins of a kind, by name, at collection time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = Registry().listing()
    return [r.name for r in rows if (r.kind, r.distribution) == (kind, "isoprobe") and not r.error]


def obey(laws: list[Law]) -> None:
    assert len(laws) >= 5
    for law in laws:
        law()


# ------------------------------------------------------------------ metrics

#: metrics that need options, or samples of a certain shape
METRIC_CASES: dict[str, tuple[str, list[tuple[int, ...]]]] = {
    "ssim": ("ssim", [(1, 11, 13), (3, 12, 12)]),
    "ms_ssim": ("ms_ssim", [(1, 161, 161)]),
}
PLAIN_SHAPES = [(6,), (2, 3, 3)]


@pytest.mark.parametrize("name", names("metric"))
def test_metric(name: str) -> None:
    spec, shapes = METRIC_CASES.get(name, (name, PLAIN_SHAPES))
    obey(check_metric(Registry().metric(spec), shapes))


def test_a_metric_with_options_obeys_too() -> None:
    obey(check_metric(Registry().metric("gaussian:sigma2=0.3")))


# ------------------------------------------------------------------ analyses


@pytest.mark.parametrize("name", names("analysis"))
def test_analysis(name: str) -> None:
    obey(check_analysis(lambda: Registry().analysis(name)))


# ------------------------------------------------------------------ architectures

MLP = {
    "input_shape": [2, 3],
    "encoder_widths": [5],
    "decoder_widths": [5],
    "latent_size": 2,
    "output": "sigmoid",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "mlp": MLP,
    "linear": {"input_shape": [6], "latent_size": 2},
    "layers": {
        "input_shape": [1, 8, 8],
        "latent_size": 2,
        "encoder": [
            {"op": "conv", "channels": 3, "kernel": 4, "stride": 2, "padding": 1},
            {"op": "activation", "name": "relu"},
            {"op": "flatten"},
            {"op": "linear", "width": 4},
        ],
        "head": {"layout": "interleaved"},
        "decoder": [{"op": "linear", "width": 64}, {"op": "reshape", "shape": [1, 8, 8]}],
        "output": "sigmoid",
    },
    "gdn": {
        "input_shape": [1, 16, 16],
        "latent_size": 2,
        "channels": 4,
        "kernels": [5, 3],
        "encoder_widths": [8],
        "decoder_widths": [8],
    },
}


def test_every_architecture_has_its_case() -> None:
    assert set(names("architecture")) == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_architecture(name: str) -> None:
    obey(check_architecture(Registry().architecture(name), CONFIGS[name]))


# ------------------------------------------------------------------ data sources


def array_file(folder: Path) -> str:
    np.save(folder / "x.npy", np.random.default_rng(0).random((20, 6)))
    return str(folder / "x.npy")


def archive_file(folder: Path) -> str:
    x = np.random.default_rng(0).random((20, 6)).astype(np.float32)
    np.savez(folder / "x.npz", rows=x, y=np.arange(20) % 2)
    return f"{folder / 'x.npz'}:rows,y"


def hdf5_file(folder: Path) -> str:
    with h5py.File(folder / "x.h5", "w") as file:
        file["rows"] = np.random.default_rng(0).random((20, 6))
    return f"{folder / 'x.h5'}:/rows"


def table_file(folder: Path) -> str:
    lines = ["a,b,kind", *(f"{i},{i / 7},{i % 2}" for i in range(20))]
    (folder / "x.csv").write_text("\n".join(lines) + "\n")
    return f"{folder / 'x.csv'}:label=kind"


def image_folder(folder: Path) -> str:
    from PIL import Image

    (folder / "images").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    return str(folder / "images")


DATA_CASES = {
    "npy": ("arrays", array_file),
    "npz": ("arrays", archive_file),
    "hdf5": ("arrays", hdf5_file),
    "csv": ("tables", table_file),
    "images": ("images", image_folder),
    "prior": ("prior", lambda _: "prior"),
}


@pytest.mark.parametrize("case", DATA_CASES)
def test_data_source(case: str, tmp_path: Path) -> None:
    name, make = DATA_CASES[case]
    source = Registry().plugin("data-source", name)()
    obey(check_data_source(source, make(tmp_path), small_vae()))


# ------------------------------------------------------------------ adapters


def linear_checkpoint(folder: Path) -> Path:
    """A linear VAE at its optimum, in native form."""
    covariance = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.3, 0.05, 0.05], dtype=torch.float64))
    networks, manifest = linear_networks(covariance, 0.1, 4)
    path = folder / "linear.safetensors"
    write_checkpoint(path, networks.encoder, networks.decoder, manifest)
    return path


def test_native_adapter(tmp_path: Path) -> None:
    adapter = Registry().plugin("adapter", "native")()
    data = torch.randn(300, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data *= torch.tensor([4.0, 2.0, 1.0, 0.3, 0.05, 0.05]).sqrt()
    obey(check_adapter(adapter, linear_checkpoint(tmp_path), data=data))


class Factoried:
    """What a user's function returns."""

    def __init__(self) -> None:
        covariance = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.3], dtype=torch.float64))
        networks, _ = linear_networks(covariance, 0.1, 3, dtype=torch.float32)
        self.networks = torch.nn.ModuleList([networks.encoder, networks.decoder])

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = self.networks[0](x)
        return mean, std.square().log()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.networks[1](z)


class FactoriedModule(torch.nn.Module, Factoried):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        Factoried.__init__(self)


def test_factory_adapter(tmp_path: Path) -> None:
    adapter = Registry().plugin("adapter", "factory")()
    options = {
        "target": f"{__name__}:FactoriedModule",
        "head": "logvar",
        "input_shape": "4",
        "metric": "sse",
    }
    path = tmp_path / "anything"
    path.write_bytes(b"weights live in the function")
    obey(check_adapter(adapter, path, options, by_name=True))


def digits(shared: Path, side: int) -> torch.Tensor:
    """Images of digits, ``(256, 1, side, side)`` in [0, 1]."""
    images = np.load(shared / "data" / "mnist.npz")["x_test"][:256]
    x = torch.from_numpy(images / 255.0).float()[:, None]
    return torch.nn.functional.interpolate(x, (side, side), mode="bilinear")


@pytest.mark.shared
@pytest.mark.parametrize("model", ["VAE_mnist", "betaH_mnist"])
def test_disentangling_vae_adapter_on_real_weights(shared: Path, model: str) -> None:
    adapter = Registry().plugin("adapter", "disentangling-vae")()
    path = shared / "checkpoints" / "YannDubs+disentangling-vae" / model
    obey(check_adapter(adapter, path, data=digits(shared, 32)))


@pytest.mark.shared
def test_tutorial_adapter_on_real_weights(shared: Path) -> None:
    folder = shared / "checkpoints" / "csinva+gan-vae-pretrained-pytorch"
    adapter = Registry().plugin("adapter", "tutorial-mlp")()
    path = folder / "mnist_vae" / "weights" / "vae_epoch_25.pth"
    obey(check_adapter(adapter, path, data=digits(shared, 28).flatten(1)))


@pytest.mark.shared
def test_joint_vae_adapter_on_real_weights(shared: Path) -> None:
    """On samples of its own: its discrete latent is held at one digit."""
    path = shared / "checkpoints" / "Schlumberger+joint-vae" / "trained_models" / "mnist"
    obey(check_adapter(Registry().plugin("adapter", "joint-vae")(), path))


DECLARED = {
    "vae2": "shagunuppal+Riemannian_Geometry_of_Deep_Generative_Models/MNIST/vae2.pth",
    "elliptic": "Sajjad-Shahali+Elliptic-Bitcoin-Anomaly-Detection/models/vae.pt",
    "smawm": "jetnew+smawm/models/expert/vae.tar",
}


@pytest.mark.shared
@pytest.mark.parametrize("name", DECLARED)
def test_declared_adapter_on_real_weights(shared: Path, name: str) -> None:
    adapter = Registry().plugin("adapter", "declared")()
    declaration = Path(__file__).resolve().parents[1] / "docs" / "declarations" / f"{name}.toml"
    path = shared / "checkpoints" / DECLARED[name]
    obey(check_adapter(adapter, path, {"declaration": str(declaration)}, by_name=True))


# ------------------------------------------------------------------ the models of the kits


def test_the_small_model_is_a_model() -> None:
    vae = small_vae()
    assert vae.encode is not None
    posterior = vae.encode(small_data(5))
    assert isinstance(posterior, Posterior)
    assert (posterior.std > 0).all()
