"""Make what users write beside weights, for fuzz: declarations, cards, conditions, graphs."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.torch
import torch

from isoprobe.checkpoints.source import Source
from isoprobe.contracts import VAE, Conditional
from isoprobe.data.told import told
from isoprobe.registry.lookup import installed
from isoprobe.run.opening import load
from isoprobe_plugins.adapters.declared.cards import preset
from tests.files.test_corpus import STATE

MLP = """input_shape = [4]
encoder = [{ linear = "fc1" }, "relu"]
decoder = [STEP{ linear = "fc3" }, "relu", { linear = "fc4" }]
ignore = ["other."]
[head]
mean = "fc21"
scale = "SCALE"
"""
#: tensors beside those of the tutorial's network that a declaration may name
MORE = {"tril": (3, 3), "means": (3, 2), "scales": (3, 2), "shares": (3,), "pseudo": (5, 4)}


def _mlp(more: str, step: str = "", scale: str = "fc22", *, wide: int = 0) -> Callable[[Path], int]:
    text = MLP.replace("STEP", step).replace("SCALE", scale)
    return lambda path: path.write_text(f"{text}{more}# {wide}\n")


#: declarations of each part that THEORY has beyond N(0, I), diagonals and one network for all
DECLARATIONS = {
    "mixture.toml": _mlp(
        '[prior]\nkind = "mixture"\nmeans = "means"\nscales = "scales"\nshares = "shares"\n'
    ),
    "vamp.toml": _mlp('[prior]\nkind = "vamp"\npseudo_inputs = "pseudo"\nsqueeze = "sigmoid"\n'),
    "full.toml": _mlp('covariance = "full"\nform = "logstd"\n', scale="tril"),
    "told.toml": _mlp(
        '[condition]\nclasses = [2, 0]\nwords = "class"\n[loss]\nmetric = "sse"\nbeta = 1.0\n',
        step='{ condition = "one_hot", classes = 2 }, ',
        wide=2,
    ),
}


def declared(path: Path) -> None:
    """Read weights by the declaration that a file is."""
    tensors = {name: tensor.clone() for name, tensor in STATE.items()}
    text = path.read_bytes()
    used = {name: torch.ones(shape) for name, shape in MORE.items() if name.encode() in text}
    for name, tensor in used.items():
        layer = name == "tril"
        tensors[f"{name}.weight" if layer else name] = tensor
        tensors |= {f"{name}.bias": torch.ones(3)} if layer else {}
    if "tril" in used:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("fc22.")}
    if b"# 2" in text:
        tensors["fc3.weight"] = torch.ones(3, 4)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "w.safetensors"
        safetensors.torch.save_file(tensors, weights)
        vae = load(weights, adapter="declared", options={"declaration": str(path)})
        vae = vae.anywhere()
        vae.decode(torch.zeros(1, vae.latent_size))
        if vae.encode is not None:
            vae.encode(torch.zeros(1, *vae.input_shape))
        if vae.prior is not None:
            vae.prior.log_density(torch.zeros(1, vae.latent_size))


CARD = """summary = "a network of two layers"
only = true
[tensors]
"fc1.weight" = ["h", "m"]
"fc21.weight" = ["n", "h"]
[declaration]
input_shape = ["$m"]
encoder = [{ linear = "fc1" }, "relu"]
decoder = [{ linear = "fc3" }, "relu", { linear = "fc4" }]
head = { mean = "fc21", scale = "fc22" }
[options.beta]
words = "weight of the KL"
field = "loss.beta"
"""


def card(path: Path) -> None:
    """Read weights by the card that a file is."""
    adapter = preset(path)()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "w.safetensors"
        safetensors.torch.save_file(STATE, weights)
        source = Source(weights)
        adapter.matches(source)
        vae = adapter.load(source, {})
        vae.decode(torch.zeros(1, vae.latent_size))


def conditions(path: Path) -> None:
    """Read a file as what a model is told of each of 40 rows."""
    told_of = Conditional(lambda z, c: z, None, (3, 0), "class and size")
    vae = VAE.told(told_of, input_shape=(2,), latent_shape=(2,))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", np.ones((40, 2), "f4"))
        rows = installed().data(f"{folder}/x.npy")
        opened = installed().data(f"{path}:y")
        try:
            found = told(vae, rows, opened, labelled=False)
            if found is not None:
                found.at(np.arange(40), None)
        finally:
            opened.close()
            rows.close()


def made_conditions(path: Path) -> None:
    """Write a class and a number for each of 40 rows."""
    np.savez(path, y=np.stack([np.arange(40) % 3, np.linspace(0, 1, 40)], 1))


def _layer(kind: str, name: str, *inputs: str, **config: Any) -> dict[str, Any]:
    nodes = [[[parent, 0, 0, {}] for parent in inputs]] if inputs else []
    whole = {"name": name, **config}
    return {"class_name": kind, "name": name, "config": whole, "inbound_nodes": nodes}


def _graph(layers: list[dict[str, Any]], inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    ends = {
        "input_layers": [[name, 0, 0] for name in inputs],
        "output_layers": [[name, 0, 0] for name in outputs],
    }
    return {"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}}


def _sequence() -> dict[str, Any]:
    """The configuration of a recurrent VAE that is told a class of each row."""
    seq = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    encoder = [
        _layer("InputLayer", "x", batch_shape=[None, 5, 3]),
        _layer("InputLayer", "c", batch_shape=[None, 4]),
        _layer("LSTM", "lstm", "x", units=2, return_sequences=False, **seq),
        _layer("Concatenate", "join", "lstm", "c", axis=-1),
        _layer("Dense", "mu", "join", units=2, activation="linear"),
        _layer("Dense", "lv", "join", units=2, activation="linear"),
    ]
    dense = {"class_name": "Dense", "config": {"name": "d", "units": 3, "activation": "tanh"}}
    decoder = [
        _layer("InputLayer", "z", batch_shape=[None, 2]),
        _layer("InputLayer", "c", batch_shape=[None, 4]),
        _layer("Concatenate", "join", "c", "z", axis=-1),
        _layer("RepeatVector", "repeat", "join", n=5),
        _layer("GRU", "gru", "repeat", units=2, return_sequences=True, **seq),
        _layer("TimeDistributed", "each", "gru", layer=dense),
    ]
    return {
        "class_name": "VAE",
        "config": {
            "encoder": _graph(encoder, ["x", "c"], ["mu", "lv"]),
            "decoder": _graph(decoder, ["z", "c"], ["each"]),
        },
    }


_ARRAYS = {
    "encoder/layers/lstm/cell": ((3, 8), (2, 8), (8,)),
    "encoder/layers/dense": ((6, 2), (2,)),
    "encoder/layers/dense_1": ((6, 2), (2,)),
    "decoder/layers/gru/cell": ((6, 6), (2, 6), (2, 6)),
    "decoder/layers/time_distributed/layer": ((2, 3), (3,)),
}


def made_sequence(path: Path) -> None:
    """Write the configuration of a recurrent VAE."""
    path.write_text(json.dumps(_sequence()))


def sequence(path: Path) -> None:
    """Read a file as the configuration in a Keras archive."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for group, shapes in _ARRAYS.items():
            for number, shape in enumerate(shapes):
                file[f"{group}/vars/{number}"] = np.ones(shape, "f4")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "m.keras"
        with zipfile.ZipFile(whole, "w") as archive:
            archive.writestr("config.json", path.read_bytes())
            archive.writestr("model.weights.h5", weights.getvalue())
        vae = load(whole, adapter="keras").anywhere()
        vae.decode(torch.zeros(1, vae.latent_size))
        if vae.encode is not None:
            vae.encode(torch.zeros(1, *vae.input_shape))
