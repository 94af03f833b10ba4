"""Files cut at every hundredth of their length: refused in one line, at once, with no code run."""

from __future__ import annotations

import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from isoprobe.checkpoints.source import Source
from isoprobe.errors import IsoprobeError
from isoprobe.registry.lookup import installed

SECONDS, KILOBYTES = 5.0, 1_000_000


@dataclass
class Whole:
    """A sound checkpoint.

    Attributes:
        path: what is loaded.
        cut: files that are cut, one at a time.
        adapter: that reads it.
        options: of the adapter.
    """

    path: Path
    cut: list[Path]
    adapter: str
    options: dict[str, str] = field(default_factory=dict)


def tutorial():
    sizes = {"fc1": (3, 4), "fc21": (2, 3), "fc22": (2, 3), "fc3": (3, 2), "fc4": (4, 3)}
    state = {f"{name}.weight": torch.rand(size) for name, size in sizes.items()}
    return state | {f"{name}.bias": torch.rand(size[0]) for name, size in sizes.items()}


def weights(name: str, write: Callable[[Path], object]) -> Callable[[Path], Whole]:
    def make(folder: Path) -> Whole:
        write(folder / name)
        return Whole(folder / name, [folder / name], "tutorial-mlp")

    return make


def safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tutorial(), path)


def script(folder: Path) -> Whole:
    from tests.plugins.test_adapters_exported import Vae, save

    path, options = save("script", Vae().eval(), folder)
    return Whole(path, [path], "torchscript", {**options, "input_shape": "1x8x8"})


def exported(folder: Path) -> Whole:
    from tests.plugins.test_adapters_exported import Vae, save

    path, options = save("export", Vae().eval(), folder)
    return Whole(path, [path], "torch-export", {**options, "input_shape": "1x8x8"})


def onnx(folder: Path) -> Whole:
    from tests.plugins import test_adapters_onnx as made  # skips without onnx

    decoder = folder / "decoder.onnx"
    made.export(made.made_decoder().eval(), torch.randn(2, 3), decoder)
    return Whole(decoder, [decoder], "onnx", {"decoder": "self", "latent_shape": "3"})


def keras(suffix: str) -> Callable[[Path], Whole]:
    def make(folder: Path) -> Whole:
        from tests.plugins import test_adapters_keras as made  # skips without Keras

        layers, model = made.keras.layers, made.keras.Model
        x, z = made.keras.Input((4,)), made.keras.Input((2,))
        heads = [layers.Dense(2, name="z_mean")(x), layers.Dense(2, name="z_log_var")(x)]
        encoder = model(x, heads, name="encoder")
        decoder = model(z, layers.Dense(4)(z), name="decoder")
        path = folder / f"vae{suffix}"
        model(x, decoder(encoder(x)[0])).save(path)
        return Whole(path, [path], "keras")

    return make


def diffusers(folder: Path) -> Whole:
    from tests.plugins.test_adapters_diffusers import small_model  # skips without diffusers

    small_model().save_pretrained(folder)
    names = ("diffusion_pytorch_model.safetensors", "config.json")
    return Whole(folder, [folder / name for name in names], "diffusers")


def pythae(folder: Path) -> Whole:
    from tests.plugins.test_adapters_pythae import saved  # skips without pythae

    saved(folder / "model")
    files = [folder / "model" / name for name in ("model.pt", "model_config.json")]
    return Whole(folder / "model", files, "pythae")


FORMATS: dict[str, Callable[[Path], Whole]] = {
    "safetensors": weights("vae.safetensors", safetensors),
    "torch zip": weights("vae.pt", lambda path: torch.save(tutorial(), path)),
    "torch legacy": weights(
        "vae.pth",
        lambda path: torch.save(tutorial(), path, _use_new_zipfile_serialization=False),
    ),
    "Lightning": weights(
        "vae.ckpt",
        lambda path: torch.save(
            {"pytorch-lightning_version": "2.6.6", "epoch": 1, "state_dict": tutorial()}, path
        ),
    ),
    "TorchScript": script,
    "torch.export": exported,
    "ONNX": onnx,
    "Keras archive": keras(".keras"),
    "Keras HDF5": keras(".h5"),
    "diffusers": diffusers,
    "pythae": pythae,
}


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:`torch.jit:DeprecationWarning")
def test_a_file_cut_anywhere_is_one_line(tmp_path, monkeypatch, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that write the files
        whole = FORMATS[name](tmp_path)
    monkeypatch.chdir(tmp_path)
    assert attempt(whole, whole.adapter) is None  # sound before it is cut
    present = set(tmp_path.rglob("*"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in whole.cut:
        data = path.read_bytes()
        for percent in range(100):
            path.write_bytes(data[: len(data) * percent // 100])
            for adapter in (None, whole.adapter):
                start = time.process_time()
                said = attempt(whole, adapter)
                assert time.process_time() - start < SECONDS, percent
                assert said is not None, percent
                assert "\n" not in said
        path.write_bytes(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < KILOBYTES
    assert set(tmp_path.rglob("*")) == present


def attempt(whole: Whole, adapter: str | None) -> str | None:
    """Load; return the error's text, if there is one."""
    source = Source(whole.path)
    try:
        installed().adapter_for(source, adapter).load(source, whole.options)
    except IsoprobeError as error:
        return str(error)
    return None
