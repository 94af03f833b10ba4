"""Every built-in plugin obeys the laws that third parties are held to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from isoprobe.checkpoint import FORMAT_VERSION, Manifest, Objective, write_checkpoint
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
}


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


@pytest.mark.parametrize("model", ["VAE_mnist", "betaH_mnist"])
def test_disentangling_vae_adapter_on_real_weights(shared: Path, model: str) -> None:
    adapter = Registry().plugin("adapter", "disentangling-vae")()
    images = np.load(shared / "data" / "mnist.npz")["x_test"][:256]
    x = torch.from_numpy(images / 255.0).float()[:, None]
    x = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear")
    path = shared / "checkpoints" / "YannDubs+disentangling-vae" / model
    obey(check_adapter(adapter, path, data=x))


# ------------------------------------------------------------------ the models of the kits


def test_the_small_model_is_a_model() -> None:
    vae = small_vae()
    assert vae.encode is not None
    posterior = vae.encode(small_data(5))
    assert isinstance(posterior, Posterior)
    assert (posterior.std > 0).all()


def test_an_architecture_in_a_checkpoint_is_one_the_adapter_obeys(tmp_path: Path) -> None:
    """The kits agree: what passes as an architecture loads as a checkpoint."""
    networks = Registry().architecture("mlp").build(MLP)
    manifest = Manifest(FORMAT_VERSION, "mlp", MLP, 2, Objective("bce", 1.0), None, (0.0, 1.0))
    path = tmp_path / "mlp.safetensors"
    write_checkpoint(path, networks.encoder, networks.decoder, manifest)
    obey(check_adapter(Registry().plugin("adapter", "native")(), path))
