"""Every built-in plugin obeys the laws that third parties are held to."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from isoprobe.checkpoints.native import write_checkpoint
from isoprobe.cli import main
from isoprobe.contracts import Posterior
from isoprobe.registry.lookup import Registry
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
from tests import configs


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

MLP = configs.mlp(2, 3, latents=2, width=5, output="sigmoid")
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
    "skip": {"input_shape": [2, 3], "widths": [5], "latent_size": 2},
    "gdn": configs.gdn(1, 16, 16, latents=2, channels=4),
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


def array_parts(folder: Path) -> str:
    rows = np.random.default_rng(0).random((20, 6))
    for name, part in (("a", rows[:8]), ("b", rows[8:])):
        np.save(folder / f"{name}.npy", part)
    return str(folder / "*.npy")


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


def zarr_store(folder: Path) -> str:
    import zarr

    zarr.save_array(folder / "x.zarr", np.random.default_rng(0).random((20, 6)))
    return str(folder / "x.zarr")


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
    "parts": ("parts", array_parts),
    "zarr": ("zarr", zarr_store),
    "prior": ("prior", lambda _: "prior"),
    "toy": ("toy", lambda _: "toy/mix:seed=3,samples=100"),
}
#: data sets that are files of the data folder
REAL_DATA = {
    "anomaly": "anomaly/thyroid:seed=1,part=test",
    "mnist": "mnist/test",
    "celeba": "celeba64/test",
}


@pytest.mark.parametrize("case", DATA_CASES)
def test_data_source(case: str, tmp_path: Path) -> None:
    name, make = DATA_CASES[case]
    source = Registry().plugin("data-source", name)()
    obey(check_data_source(source, make(tmp_path), small_vae()))


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL_DATA)
def test_data_source_of_real_data(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOPROBE_DATA", str(shared / "data"))
    obey(check_data_source(Registry().plugin("data-source", name)(), REAL_DATA[name]))


# ------------------------------------------------------------------ adapters


@dataclass(frozen=True)
class Case:
    """A checkpoint of a trained model, and how it is tried."""

    path: Path
    options: dict[str, str] = field(default_factory=dict)
    data: torch.Tensor | None = None
    by_name: bool = False


VARIANCES = torch.tensor([4.0, 2.0, 1.0, 0.3])


def gaussian_rows() -> torch.Tensor:
    """Data that the model of :func:`linear_parts` is optimal for, ``(300, 4)``."""
    return torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) * VARIANCES.sqrt()


class LogStd(torch.nn.Module):
    """A linear encoder that answers as saved models do: mean and log of the deviation."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.mean = torch.nn.Linear(4, 3)
        self.log_std = torch.nn.Linear(4, 3)
        state = encoder.state_dict()
        self.mean.load_state_dict({"weight": state["weight"], "bias": state["bias"]})
        self.log_std.load_state_dict({"weight": torch.zeros(3, 4), "bias": state["log_std"]})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean(x), self.log_std(x)


def linear_parts() -> tuple[torch.nn.Module, torch.nn.Module]:
    """Encoder and decoder of a linear VAE at its optimum, in float32."""
    networks, _ = linear_networks(torch.diag(VARIANCES), 0.1, 3, dtype=torch.float32)
    return LogStd(networks.encoder).eval(), networks.decoder.eval()


PAIR = {"head": "logstd", "metric": "sse", "input_shape": "4"}


def native(folder: Path) -> Case:
    covariance = torch.diag(VARIANCES.double())
    networks, manifest = linear_networks(covariance, 0.1, 3)
    write_checkpoint(folder / "m.safetensors", networks.encoder, networks.decoder, manifest)
    return Case(folder / "m.safetensors", data=gaussian_rows().double())


def exported(folder: Path) -> Case:
    from tests.plugins.test_adapters_exported import export

    encoder, decoder = linear_parts()
    export(encoder, torch.rand(2, 4), folder / "encoder.pt2")
    export(decoder, torch.rand(2, 3), folder / "decoder.pt2")
    return Case(folder, PAIR, gaussian_rows())


def exported_file(folder: Path) -> Case:
    case = exported(folder)
    decoder = {"decoder": str(folder / "decoder.pt2")}
    return Case(folder / "encoder.pt2", {**PAIR, **decoder}, case.data)


class Scripted(torch.nn.Module):
    """Both parts with the methods TorchScript is looked through for."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = linear_parts()

    @torch.jit.export
    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.encoder(x)

    @torch.jit.export
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x)[0])


def scripted(folder: Path) -> Case:
    encoder, decoder = linear_parts()
    torch.jit.trace(encoder, torch.rand(2, 4)).save(str(folder / "encoder.pt"))
    torch.jit.trace(decoder, torch.rand(2, 3)).save(str(folder / "decoder.pt"))
    return Case(folder, PAIR, gaussian_rows())


def scripted_methods(folder: Path) -> Case:
    model = Scripted().eval()
    # traced, since types of its source are none that torch.jit knows
    model.decoder = torch.jit.trace(model.decoder, torch.rand(2, 3))
    torch.jit.script(model).save(str(folder / "m.pt"))
    return Case(folder / "m.pt", PAIR, gaussian_rows())


def onnx(folder: Path) -> Case:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")  # which torch exports with
    from tests.plugins.test_adapters_onnx import export

    encoder, decoder = linear_parts()
    export(encoder, torch.rand(2, 4), folder / "encoder.onnx")
    export(decoder, torch.randn(2, 3), folder / "decoder.onnx")
    return Case(folder, PAIR, gaussian_rows())


def keras(folder: Path) -> Case:
    from tests.plugins import test_adapters_keras as made  # skips without Keras

    layers = made.keras.layers
    x = made.keras.Input((4,))
    heads = [layers.Dense(3, name="z_mean")(x), layers.Dense(3, name="z_log_sigma")(x)]
    model = made.Vae(
        made.keras.Model(x, heads), made.keras.Sequential([made.keras.Input((3,)), layers.Dense(4)])
    )
    for part, trained in zip((model.encoder, model.decoder), linear_parts(), strict=True):
        part.set_weights([weight.numpy().T for weight in trained.state_dict().values()])
    model(gaussian_rows().numpy())
    model.save(folder / "m.keras")
    return Case(folder / "m.keras", {"metric": "sse"}, gaussian_rows())


def train(
    model: torch.nn.Module,
    encode: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    decode: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    steps: int,
) -> None:
    """Minimise SSE + 0.02 KL: only a trained model tells how its scale head is to be read."""
    optimizer = torch.optim.Adam(model.train().parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (32,), generator=generator)]
        mean, logvar = encode(batch)
        z = mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=generator)
        error = (decode(z) - batch).square().sum()
        rate = (mean.square() + logvar.exp() - logvar - 1).sum() / 2
        optimizer.zero_grad()
        ((error + 0.02 * rate) / len(batch)).backward()
        optimizer.step()
    model.eval()


def planes(shape: tuple[int, int, int], low: float) -> torch.Tensor:
    """Images that lie on a plane of two dimensions, ``(300, *shape)`` in [low, 1]."""
    generator = torch.Generator().manual_seed(0)
    weights, patterns = (torch.rand(n, 2, generator=generator) for n in (300, np.prod(shape)))
    rows = weights @ patterns.T / 2
    return (low + (1 - low) * rows).reshape(-1, *shape)


def pythae(folder: Path) -> Case:
    from tests.plugins.test_adapters_pythae import saved  # skips without pythae

    model = saved(folder / "untrained", "VAE", reconstruction_loss="mse")
    x = planes((1, 4, 4), 0.0)

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        answer = model.encoder(x)
        return answer.embedding, answer.log_covariance

    train(model, encode, lambda z: model.decoder(z).reconstruction, x, 300)
    model.save(str(folder / "model"))
    return Case(folder / "model", data=x)


def diffusers(folder: Path) -> Case:
    from tests.plugins.test_adapters_diffusers import small_model  # skips without diffusers

    model, x = small_model(), planes((3, 8, 8), -1.0)

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latent = model.encode(x).latent_dist
        return latent.mean, latent.logvar

    train(model, encode, lambda z: model.decode(z).sample, x, 150)
    model.save_pretrained(folder / "model")
    return Case(folder / "model", data=x)


class FactoriedModule(torch.nn.Module):
    """What a user's function returns."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = linear_parts()

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = self.encoder(x)
        return mean, 2 * log_std

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z)


def factory(folder: Path) -> Case:
    target = {"target": f"{__name__}:FactoriedModule", "head": "logvar"}
    torch.manual_seed(0)
    torch.save(FactoriedModule().state_dict(), folder / "anything")
    options = {**target, "input_shape": "4", "metric": "sse"}
    return Case(folder / "anything", options, gaussian_rows(), by_name=True)


#: files made here: case -> adapter and how its checkpoint is made
MADE_ADAPTERS: dict[str, tuple[str, Callable[[Path], Case]]] = {
    "native": ("native", native),
    "torch-export folder": ("torch-export", exported),
    "torch-export file": ("torch-export", exported_file),
    "torchscript pair": ("torchscript", scripted),
    "torchscript methods": ("torchscript", scripted_methods),
    "onnx": ("onnx", onnx),
    "keras": ("keras", keras),
    "pythae": ("pythae", pythae),
    "diffusers": ("diffusers", diffusers),
    "factory": ("factory", factory),
}


@pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning",  # of TorchScript as such
    "ignore::torch.jit.TracerWarning",
    "ignore:::keras",
)
@pytest.mark.parametrize("case", MADE_ADAPTERS)
def test_adapter(case: str, tmp_path: Path) -> None:
    name, make = MADE_ADAPTERS[case]
    follow(name, make(tmp_path))


def follow(adapter: str, case: Case) -> None:
    """Hold a built-in adapter to its laws on a case."""
    plugin = Registry().plugin("adapter", adapter)()
    obey(check_adapter(plugin, case.path, case.options, data=case.data, by_name=case.by_name))


def digits(shared: Path, side: int) -> torch.Tensor:
    """Images of digits, ``(256, 1, side, side)`` in [0, 1]."""
    images = np.load(shared / "data" / "mnist.npz")["x_test"][:256]
    x = torch.from_numpy(images / 255.0).float()[:, None]
    return torch.nn.functional.interpolate(x, (side, side), mode="bilinear")


def disentangling(shared: Path, model: str) -> Case:
    path = shared / "checkpoints" / "YannDubs+disentangling-vae" / model
    return Case(path, data=digits(shared, 32))


def tutorial(shared: Path) -> Case:
    folder = shared / "checkpoints" / "csinva+gan-vae-pretrained-pytorch"
    path = folder / "mnist_vae" / "weights" / "vae_epoch_25.pth"
    return Case(path, data=digits(shared, 28).flatten(1))


def joint(shared: Path) -> Case:
    """On samples of its own: its discrete latent is held at one digit."""
    folder = shared / "checkpoints" / "Schlumberger+joint-vae" / "trained_models" / "mnist"
    return Case(folder, {"code": "3"})


def declared(shared: Path, path: str, declaration: str) -> Case:
    folder = Path(__file__).resolve().parents[2] / "docs" / "declarations"
    options = {"declaration": str(folder / f"{declaration}.toml")}
    return Case(shared / "checkpoints" / path, options, by_name=True)


VAE2 = "shagunuppal+Riemannian_Geometry_of_Deep_Generative_Models/MNIST/vae2.pth"
ELLIPTIC = "Sajjad-Shahali+Elliptic-Bitcoin-Anomaly-Detection/models/vae.pt"
#: real weights: case -> adapter and where they lie in the shared folder
REAL_ADAPTERS: dict[str, tuple[str, Callable[[Path], Case]]] = {
    "VAE_mnist": ("disentangling-vae", lambda shared: disentangling(shared, "VAE_mnist")),
    "betaH_mnist": ("disentangling-vae", lambda shared: disentangling(shared, "betaH_mnist")),
    "tutorial": ("tutorial-mlp", tutorial),
    "joint-vae": ("joint-vae", joint),
    "vae2": ("declared", lambda shared: declared(shared, VAE2, "vae2")),
    "elliptic": ("declared", lambda shared: declared(shared, ELLIPTIC, "elliptic")),
    "smawm": (
        "declared",
        lambda shared: declared(shared, "jetnew+smawm/models/expert/vae.tar", "smawm"),
    ),
}


@pytest.mark.shared
@pytest.mark.parametrize("case", REAL_ADAPTERS)
def test_adapter_on_real_weights(case: str, shared: Path) -> None:
    name, find = REAL_ADAPTERS[case]
    follow(name, find(shared))


# ------------------------------------------------------------------ none is forgotten

#: plugins with a case above
TRIED = {
    "metric": set(names("metric")),
    "analysis": set(names("analysis")),
    "architecture": set(CONFIGS),
    "data-source": {name for name, _ in DATA_CASES.values()} | set(REAL_DATA),
    "adapter": {name for name, _ in (*MADE_ADAPTERS.values(), *REAL_ADAPTERS.values())},
}
#: plugins that no kit can try, and why
UNTRIED = {
    (
        "adapter",
        "pickle",
    ): "it runs code, so without trust it reads nothing",
    ("adapter", "class"): "it runs the class that a user names; tests/plugins has its own",
    ("adapter", "scvi"): "its models take a condition; tests/plugins holds it to scvi-tools",
    ("adapter", "live"): "it takes modules in memory, not files; tests/gallery tries 31 of them",
    ("adapter", "weights"): "it reads weights on data; tests/plugins has its own",
    ("adapter", "unsupported"): "it refuses whatever it recognises: there is no model to try",
}


def untried(listing: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Built-in plugins of a listing without a case; commands have no contract to be held to."""
    built_in = {
        (row["kind"], row["name"])
        for row in listing
        if row["distribution"] == "isoprobe" and row["kind"] != "command"
    }
    tried = {(kind, name) for kind, tried in TRIED.items() for name in tried}
    return sorted(built_in - tried - set(UNTRIED))


def test_every_built_in_plugin_has_its_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert untried(listing) == []
    # a plugin added without one, or broken, would show
    added = {"distribution": "isoprobe", "error": ""}
    for kind in TRIED:
        new = {**added, "kind": kind, "name": "brand-new"}
        assert untried([*listing, new]) == [(kind, "brand-new")]
    # and what is tried, or excused, is there
    known = {(row["kind"], row["name"]) for row in listing}
    assert set(UNTRIED) <= known
    assert {(kind, name) for kind, tried in TRIED.items() for name in tried} <= known


# ------------------------------------------------------------------ the models of the kits


def test_the_small_model_is_a_model() -> None:
    vae = small_vae()
    assert vae.encode is not None
    posterior = vae.encode(small_data(5))
    assert isinstance(posterior, Posterior)
    assert (posterior.std > 0).all()
