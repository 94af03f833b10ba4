"""Files of other frameworks and programs: diffusers, Keras, ONNX, TorchScript, torch.export."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.gallery import own
from tests.gallery.layouts.nets import Mlp, of_digits, of_table
from tests.gallery.layouts.shelf import layout
from tests.gallery.own import Own


class Encode(nn.Module):
    """The encoder alone: mean and log variance."""

    def __init__(self, network: Mlp) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.encode(x)


class Decode(nn.Module):
    """The decoder alone."""

    def __init__(self, network: Mlp) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        return self.network.decode(z)


@layout(
    "diffusers_kl", "spots16.npz:x", "a folder of diffusers' AutoencoderKL, KL weight small",
    head="one convolution, halves, mean then log variance clamped to -30..20",
    encoder="silu, group norm, attention", decoder="silu, group norm, attention",
    output="linear", note="spots in [0, 1] as given; posterior and decoder without scaling_factor",
)  # fmt: skip
def diffusers_kl(folder: Path) -> Own:
    from diffusers import AutoencoderKL

    own.seed("diffusers_kl")
    network = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=2, block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, sample_size=16, layers_per_block=1, scaling_factor=0.5,
    )  # fmt: skip

    def posterior(x: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        found = network.encode(x).latent_dist
        return found.mean.flatten(1), found.std.flatten(1)

    reading = Own(
        posterior, lambda z, _c: network.decode(z.view(-1, 2, 8, 8)).sample, own.sse, "sse", 0.05,
        own.blobs(16, 1),
    )  # fmt: skip
    own.fit(network, reading, steps=450, batch=16)
    network.save_pretrained(folder / "diffusers_kl")
    return reading


@of_digits(
    "keras_pair",
    "encoder.keras (z_mean, z_log_var) and decoder.keras, as in the Keras example",
    kl_tolerance=5e-3,
)
def keras_pair(network: Mlp, path: Path) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    from keras import layers

    inputs = keras.Input((64,))
    h = layers.Dense(32, activation="relu", name="dense")(inputs)
    heads = [layers.Dense(5, name="z_mean")(h), layers.Dense(5, name="z_log_var")(h)]
    encoder = keras.Model(inputs, heads, name="encoder")
    code = keras.Input((5,))
    back = layers.Dense(32, activation="relu", name="dense_1")(code)
    image = layers.Dense(64, activation="sigmoid", name="dense_2")(back)
    decoder = keras.Model(code, image, name="decoder")
    pairs = (
        (encoder, "dense", network.encoder[0]), (encoder, "z_mean", network.fc_mu),
        (encoder, "z_log_var", network.fc_var), (decoder, "dense_1", network.decoder[0]),
        (decoder, "dense_2", network.decoder[2]),
    )  # fmt: skip
    for model, name, layer in pairs:
        weight, bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
        model.get_layer(name).set_weights([weight, bias])
    path.mkdir(exist_ok=True)
    encoder.save(path / "encoder.keras")
    decoder.save(path / "decoder.keras")


@of_table("onnx_pair", "encoder.onnx (mu, logvar) and decoder.onnx in one folder", beta=0.5)
def onnx_pair(network: Mlp, path: Path) -> None:
    path.mkdir(exist_ok=True)
    batch = torch.export.Dim("batch")
    for part, example, names, file in (
        (Encode(network), torch.zeros(2, 12), ["mu", "logvar"], "encoder"),
        (Decode(network), torch.zeros(2, 4), ["recon"], "decoder"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                part.eval(), (example,), path / f"{file}.onnx", dynamo=True,
                input_names=["x" if file == "encoder" else "z"], output_names=names,
                dynamic_shapes=({0: batch},), external_data=False, verbose=False,
            )  # fmt: skip
        _without_traces(path / f"{file}.onnx")


def _without_traces(path: Path) -> None:
    """Drop where each node came from: paths of the machine that wrote the file."""
    import onnx

    model = onnx.load(path)
    graphs = [model.graph, *model.functions]
    for node in (node for graph in graphs for node in graph.node):
        del node.metadata_props[:]
    onnx.save(model, path)


class Scripted(nn.Module):
    """What is scripted: encode and decode exported, forward the whole."""

    def __init__(self, network: Mlp) -> None:
        super().__init__()
        self.encoder, self.fc_mu, self.fc_var = network.encoder, network.fc_mu, network.fc_var
        self.decoder = network.decoder

    @torch.jit.export
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.fc_mu(h), self.fc_var(h)

    @torch.jit.export
    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encode(x)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        return self.decode(z), mean, logvar


@of_digits("scripted.pt", "torch.jit.script with encode and decode exported")
def scripted(network: Mlp, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Scripted(network).eval()).save(str(path))
    _without_debug(path)


def _without_debug(path: Path) -> None:
    """Drop the records of source lines, which hold paths of the machine that wrote the file."""
    with zipfile.ZipFile(path) as old:
        kept = [(info, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for info, content in kept:
            if not info.filename.endswith(".debug_pkl"):
                new.writestr(info, content)


@of_table("exported_pair", "encoder.pt2 and decoder.pt2 of torch.export in one folder")
def exported_pair(network: Mlp, path: Path) -> None:
    path.mkdir(exist_ok=True)
    batch = torch.export.Dim("batch")
    for part, example, file in (
        (Encode(network), torch.zeros(2, 12), "encoder"),
        (Decode(network), torch.zeros(2, 4), "decoder"),
    ):
        program = torch.export.export(part.eval(), (example,), dynamic_shapes=({0: batch},))
        for node in program.graph.nodes:  # no paths of the machine that wrote the file
            node.meta.pop("stack_trace", None)
        torch.export.save(program, path / f"{file}.pt2")
