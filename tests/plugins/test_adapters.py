"""Adapters give the model that was saved, or one line on why not."""

from __future__ import annotations

import json
import warnings

import pytest
import safetensors.torch
import torch

import isoprobe
from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError, IsoprobeError, OptionError
from isoprobe_plugins.adapters.declared.disentangling import DisentanglingVae
from isoprobe_plugins.adapters.native import Native
from isoprobe_plugins.architectures.linear import linear_networks
from isoprobe_plugins.architectures.mlp import Mlp
from tests.gallery.layouts.make_layouts import FILES
from tests.processes import python

# --------------------------------------------------------------------------- native

CONFIG = {
    "input_shape": [6],
    "encoder_widths": [5],
    "decoder_widths": [5],
    "latent_size": 2,
    "output": "sigmoid",
}


def native(path, config=CONFIG, architecture="mlp", latent_size=2):
    networks = Mlp().build(CONFIG)
    manifest = Manifest(
        FORMAT_VERSION, architecture, config, latent_size, Objective("bce", 2.0), None, (0.0, 1.0)
    )
    write_checkpoint(path, networks.encoder, networks.decoder, manifest)
    return networks


def test_native_gives_the_saved_model(tmp_path):
    path = tmp_path / "m.safetensors"
    networks = native(path)
    source = Source(path)
    assert Native().matches(source)
    vae = Native().load(source, {})
    x, z = torch.rand(3, 6), torch.randn(3, 2)
    mean, std = networks.encoder(x)
    assert torch.equal(vae.encode(x).mean, mean)
    assert torch.equal(vae.encode(x).std, std)
    assert torch.equal(vae.decode(z), networks.decoder(z))
    assert torch.equal(vae.decode_logits(z).sigmoid(), networks.decoder(z))
    assert (vae.facts.metric, vae.facts.beta, vae.facts.output_range) == ("bce", 2.0, (0.0, 1.0))
    assert vae.adapter == "native"
    assert vae.name == "m"
    assert len(vae.sha256) == 64
    loaded = isoprobe.load(path)
    assert not any(p.requires_grad for p in loaded.module.parameters())


def test_native_keeps_double_precision(tmp_path):
    networks, manifest = linear_networks(torch.eye(3) * 4, 0.5, 2)
    path = tmp_path / "m.safetensors"
    write_checkpoint(path, networks.encoder, networks.decoder, manifest)
    vae = Native().load(Source(path), {})
    assert vae.dtype is torch.float64
    assert vae.decode_logits is None
    assert vae.facts.beta == 0.5


def test_native_leaves_foreign_safetensors_to_others(tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    assert not Native().matches(Source(path))
    with pytest.raises(CheckpointError, match="adapter='factory'"):
        Native().load(Source(path), {})


def test_native_describes_itself(tmp_path):
    path = tmp_path / "m.safetensors"
    native(path)
    described = Native().describe(Source(path))
    assert described["architecture"] == "mlp"
    assert described["objective"]["beta"] == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "mlpp"}, "mlpp"),
        ({"latent_size": 3}, "gives 2 latents, its description 3"),
        ({"config": {**CONFIG, "decoder_widths": [1 << 30, 1 << 30]}}, "decoder"),
        ({"config": {**CONFIG, "activation": 3}}, "activation"),
        ({"config": {}}, "input_shape"),
    ],
)
def test_native_refuses_what_does_not_fit(tmp_path, changes, message):
    path = tmp_path / "m.safetensors"
    native(path, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        Native().load(Source(path), {})
    assert "\n" not in str(caught.value)


def test_native_truncated_anywhere_is_one_error(tmp_path):
    path = tmp_path / "m.safetensors"
    native(path)
    data = path.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 200)):
        path.write_bytes(data[:length])
        source = Source(path)
        matched = Native().matches(source)
        # once the key is there, the damage is named instead of "no adapter"
        assert matched == (length > data.find(b'"isoprobe"') + 10)
        with pytest.raises(CheckpointError):
            Native().load(source, {})


def test_adapters_without_options_say_so(tmp_path):
    path = tmp_path / "m.safetensors"
    native(path)
    with pytest.raises(OptionError, match="no option 'beta'"):
        Native().load(Source(path), {"beta": "2"})


# --------------------------------------------------------------------------- disentangling-vae

FOLDER = "checkpoints/YannDubs+disentangling-vae"


def mnist_test(shared, side):
    import numpy as np

    x = np.load(shared / "data" / "mnist.npz")["x_test"]
    x = torch.from_numpy(x).float()[:, None] / 255
    return torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear")


def bce_and_kl(vae, x):
    with torch.no_grad():
        posterior = vae.encode(x)
        torch.manual_seed(0)
        z = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
        bce = torch.nn.functional.binary_cross_entropy_with_logits(
            vae.decode_logits(z), x, reduction="sum"
        )
        var = posterior.std**2
        kl = 0.5 * (posterior.mean**2 + var - var.log() - 1).sum()
    return float(bce) / len(x), float(kl) / len(x)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "bce", "kl", "beta"),
    [("VAE_mnist", 122.9, 19.33, 1.0), ("betaH_mnist", 140.7, 10.68, 4.0)],
)
def test_disentangling_vae_reaches_its_known_figures(shared, name, bce, kl, beta):
    source = Source(shared / FOLDER / name)
    assert DisentanglingVae().matches(source)
    vae = DisentanglingVae().load(source, {})
    got = bce_and_kl(vae, mnist_test(shared, 32)[:2000])
    assert got == (pytest.approx(bce, rel=0.03), pytest.approx(kl, rel=0.03))
    assert (vae.facts.metric, vae.facts.beta) == ("bce", beta)
    assert vae.facts.input_range == (0.0, 1.0)
    assert (vae.input_shape, vae.latent_shape) == ((1, 32, 32), (10,))
    described = DisentanglingVae().describe(source)
    assert described["objective"]["beta"] == beta
    assert described["dataset"] == "mnist"


@pytest.mark.shared
def test_disentangling_vae_at_64_pixels(shared):
    vae = DisentanglingVae().load(Source(shared / FOLDER / "VAE_celeba"), {})
    assert vae.input_shape == (3, 64, 64)
    z = torch.randn(2, 10)
    assert torch.equal(vae.decode(z), vae.decode_logits(z).sigmoid())


def disentangling(folder, **changes):
    """A folder of random weights with the layout that code base writes."""
    specs = {
        "img_size": [1, 32, 32],
        "latent_dim": 3,
        "loss": "betaH",
        "betaH_B": 5,
        "rec_dist": "bernoulli",
        "model_type": "Burgess",
        "btcvae_A": 1,
    }
    shapes = {"encoder.conv1": (32, 1, 4, 4), "encoder.conv2": (32, 32, 4, 4),
              "encoder.conv3": (32, 32, 4, 4), "encoder.lin1": (256, 512),
              "encoder.lin2": (256, 256), "encoder.mu_logvar_gen": (6, 256),
              "decoder.lin1": (256, 3), "decoder.lin2": (256, 256), "decoder.lin3": (512, 256),
              "decoder.convT1": (32, 32, 4, 4), "decoder.convT2": (32, 32, 4, 4),
              "decoder.convT3": (32, 1, 4, 4)}  # fmt: skip
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape) * 0.05
        out = shape[1] if "convT" in name else shape[0]
        state[f"{name}.bias"] = torch.zeros(out)
    folder.mkdir()
    (folder / "specs.json").write_text(json.dumps({**specs, **changes}))
    torch.save(state, folder / "model.pt")
    return state


@pytest.mark.parametrize(
    ("changes", "metric", "beta", "words"),
    [
        ({}, "bce", 5.0, "betaH_B"),
        ({"loss": "VAE"}, "bce", 1.0, "'VAE'"),
        ({"rec_dist": "gaussian"}, "sse", 5 / 255, "betaH_B"),
        ({"rec_dist": "laplace"}, None, None, "no metric"),
        ({"loss": "btcvae"}, "bce", None, "differently"),
        ({"loss": "betaB"}, "bce", None, "capacity"),
        ({"loss": "factor"}, "bce", None, "total correlation"),
        ({"loss": "new"}, "bce", None, "not known"),
    ],
)
def test_beta_is_known_only_where_one_number_weighs_the_kl(tmp_path, changes, metric, beta, words):
    folder = tmp_path / "run"
    disentangling(folder, **changes)
    facts = DisentanglingVae().load(Source(folder), {}).facts
    assert facts.metric == metric
    assert facts.beta == (None if beta is None else pytest.approx(beta))
    assert words in facts.beta_source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_size": [1, 28, 28]}, "28 pixels"),
        ({"model_type": "VGG"}, "VGG"),
        ({"latent_dim": 4}, r"\(6, 256\).*\(8, 256\)"),
        ({"latent_dim": "3"}, "latent_dim"),
        ({"img_size": [3, 64, 64]}, "conv_64"),
    ],
)
def test_wrong_specs_are_named(tmp_path, changes, message):
    folder = tmp_path / "run"
    disentangling(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        DisentanglingVae().load(Source(folder), {})


def test_a_pickled_module_is_refused_with_the_next_step(tmp_path):
    folder = tmp_path / "run"
    disentangling(folder)
    torch.save(torch.nn.Linear(2, 2), folder / "model.pt")
    with pytest.raises(CheckpointError, match=r"torch\.nn\S+Linear.*adapter='factory'"):
        DisentanglingVae().load(Source(folder), {})


def test_left_over_weights_are_refused(tmp_path):
    folder = tmp_path / "run"
    state = disentangling(folder)
    torch.save({**state, "discriminator.weight": torch.zeros(1)}, folder / "model.pt")
    with pytest.raises(CheckpointError, match=r"discriminator\.weight.*used by no layer"):
        DisentanglingVae().load(Source(folder), {})
    del state["decoder.lin2.bias"]
    torch.save(state, folder / "model.pt")
    with pytest.raises(CheckpointError, match=r"no tensor 'decoder\.lin2\.bias'"):
        DisentanglingVae().load(Source(folder), {})


@pytest.mark.parametrize("legacy", [True, False])
def test_truncated_weights_are_one_line(tmp_path, legacy):
    folder = tmp_path / "run"
    state = disentangling(folder)
    path = folder / "model.pt"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    for percent in range(0, 100, 2):
        path.write_bytes(data[: len(data) * percent // 100])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(IsoprobeError) as caught:
                DisentanglingVae().load(Source(folder), {})
        assert "\n" not in str(caught.value)


def test_modules_of_adapters_load_without_torch():
    code = (
        "import sys\n"
        "import isoprobe_plugins.adapters.native, isoprobe_plugins.adapters.objects.factory\n"
        "import isoprobe_plugins.adapters.declared.disentangling\n"
        "import isoprobe_plugins.architectures.mlp, isoprobe_plugins.architectures.linear\n"
        "import isoprobe_plugins.architectures.layers\n"
        "assert 'torch' not in sys.modules\n"
    )
    python("-c", code)


def test_inspect_tells_what_files_are_without_torch():
    """No file of any format needs it: whoever asks for it in this process gets an ImportError."""
    files = {
        "tutorial_mlp.pt": "tutorial-mlp",
        "transposed.pt": "weights",
        "config_folder": "weights",
        "scripted.pt": "torchscript",
        "exported_pair": "torch-export",
        "keras_pair": "keras",
        "onnx_pair": "onnx",
        "diffusers_kl": "diffusers",
    }
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "sys.modules['torch'] = None\n"
        "from isoprobe.registry.looking import look\n"
        "told = {p: look(Path(p), adapter=None, trust=False) for p in sys.argv[1:]}\n"
        "print(json.dumps({Path(p).name: [t['adapter'], bool(t['tensors'])]"
        " for p, t in told.items()}))\n"
    )
    paths = [str(FILES / name) for name in files] + ["examples/digits.safetensors"]
    done = python("-c", code, *paths)
    told = json.loads(done.stdout)
    files["digits.safetensors"] = "native"
    assert {name: adapter for name, (adapter, _) in told.items()} == files
    silent = {name for name, (_, tensors) in told.items() if not tensors}
    assert silent <= {"exported_pair", "keras_pair", "onnx_pair", "diffusers_kl", "scripted.pt"}
