"""Keras archives are translated layer by layer to the numbers Keras itself gives."""

from __future__ import annotations

import json
import os
import warnings
import zipfile

import h5py
import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what Keras imports
    keras = pytest.importorskip("keras")

from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.errors import CheckpointError, IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe_plugins.adapters.keras.adapter import Keras

pytestmark = pytest.mark.filterwarnings("ignore:::keras")


@keras.saving.register_keras_serializable("tests")
class Sampling(keras.layers.Layer):
    """The layer everybody writes."""

    def call(self, inputs):
        return inputs[0]


@keras.saving.register_keras_serializable("tests")
class Vae(keras.Model):
    """The model everybody subclasses."""

    def __init__(self, encoder, decoder, beta=1.0, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder, self.beta = encoder, decoder, beta

    def call(self, inputs):
        return self.decoder(self.encoder(inputs)[0])

    def get_config(self):
        part = keras.saving.serialize_keras_object
        return {"encoder": part(self.encoder), "decoder": part(self.decoder), "beta": self.beta}


def dense_model():
    layers = keras.layers
    x = keras.Input((6,))
    h = layers.Dropout(0.5)(layers.Dense(5, activation="swish")(x))
    h = layers.LeakyReLU(negative_slope=0.1)(layers.Dense(4, use_bias=False)(h))
    mean, raw = layers.Dense(2, name="mu")(h), layers.Dense(2, name="log_sigma")(h)
    encoder = keras.Model(x, [mean, raw, Sampling()([mean, raw])])
    decoder = keras.Sequential([
        keras.Input((2,)), layers.Dense(5, activation="tanh"),
        layers.BatchNormalization(scale=False), layers.Dense(6, activation="sigmoid"),
    ])  # fmt: skip
    return Vae(encoder, decoder, beta=0.5), (6,)


def image_model():
    layers = keras.layers
    x = keras.Input((9, 7, 2))
    h = layers.Conv2D(3, 3, strides=2, padding="same", activation="elu")(x)
    h = layers.BatchNormalization()(h)
    h = layers.Conv2D(4, (2, 3), padding="valid")(h)
    h = layers.Flatten()(layers.ReLU()(h))
    mean, raw = layers.Dense(3, name="z_mean")(h), layers.Dense(3, name="z_log_var")(h)
    encoder = keras.Model(x, [mean, raw, Sampling()([mean, raw])])
    z = keras.Input((3,))
    h = layers.Reshape((3, 2, 4))(layers.Dense(24, activation="relu")(z))
    h = layers.Conv2DTranspose(5, 4, strides=2, padding="same", activation="gelu")(h)
    h = layers.Conv2DTranspose(3, 3, strides=1, padding="same")(h)
    h = layers.Conv2DTranspose(2, (4, 4), strides=1, padding="valid")(h)
    return Vae(encoder, keras.Model(z, h)), (9, 7, 2)


def volume_model():
    layers = keras.layers
    x = keras.Input((8, 8, 8, 1))
    h = layers.Conv3D(2, 4, strides=1, padding="same", activation="elu")(x)
    h = layers.Conv3D(3, 4, strides=2, padding="same", activation="elu")(h)
    h = layers.Flatten()(h)
    mean, raw = layers.Dense(2, name="z_mean")(h), layers.Dense(2, name="z_log_var")(h)
    encoder = keras.Model(x, [mean, raw])
    z = keras.Input((2,))
    h = layers.Reshape((4, 4, 4, 3))(layers.Dense(192)(z))
    h = layers.Conv3DTranspose(2, 4, strides=2, padding="same", activation="elu")(h)
    h = layers.Conv3DTranspose(1, 4, strides=1, padding="same")(h)
    return Vae(encoder, keras.Model(z, layers.BatchNormalization()(h))), (8, 8, 8, 1)


MODELS = {"dense": dense_model, "image": image_model, "volume": volume_model}


def build(name, path):
    keras.utils.set_random_seed(0)
    model, shape = MODELS[name]()
    rng = np.random.default_rng(0)
    for part in (model.encoder, model.decoder):
        part.set_weights(
            [
                rng.uniform(0.1, 0.5, w.shape) * rng.choice([-1, 1])
                if w.ndim > 1
                else rng.uniform(0.5, 1.5, w.shape)
                for w in part.get_weights()
            ]
        )
    model(np.zeros((1, *shape), np.float32))
    model.save(path)
    return model, shape


def plain(tensor):
    return torch.as_tensor(tensor.detach().cpu().numpy())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_translation_gives_keras_own_numbers(tmp_path, name):
    path = tmp_path / "model.keras"
    model, shape = build(name, path)
    source = Source(path)
    assert source.kind is FileKind.KERAS
    adapter = installed().adapter_for(source)
    assert adapter.name == "keras"
    vae = adapter.load(source, {})
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    mean, raw, *_ = (plain(t) for t in model.encoder(x.numpy(), training=False))
    posterior = vae.encode(x)
    assert vae.input_shape == shape
    assert torch.allclose(posterior.mean, mean, rtol=1e-4, atol=1e-5)
    std = raw.exp() if name == "dense" else (raw / 2).exp()
    assert torch.allclose(posterior.std, std, rtol=1e-4)
    z = torch.randn(4, vae.latent_size, generator=torch.Generator().manual_seed(1))
    x_hat = plain(model.decoder(z.numpy(), training=False))
    assert torch.allclose(vae.decode(z), x_hat, rtol=1e-4, atol=1e-4)
    assert (vae.decode_logits is not None) == (name == "dense")
    assert vae.facts.beta == model.beta


def edit(path, change):
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config, members)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def layer(config, part, index):
    return config["config"][part]["config"]["layers"][index]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, _: layer(c, "decoder", 1).update(class_name="Lambda"), "Lambda .*custom code"),
        (lambda c, _: layer(c, "decoder", 1)["config"].update(activation="evil"), "evil"),
        (lambda c, _: layer(c, "decoder", 1)["config"].update(units=1 << 40), "units|width|shape"),
        (lambda c, _: layer(c, "encoder", 1)["config"].update(name="other"), "other|not fit"),
        (lambda c, _: c["config"].pop("decoder"), "no encoder and decoder"),
        (lambda c, _: c["config"]["decoder"].update(class_name="Mine"), "Mine is code"),
        (lambda c, _: c.update(config=3), "without a Keras model"),
        (lambda _, m: m.update({"model.weights.h5": b"junk"}), "no whole HDF5 file"),
        (lambda _, m: m.update({"model.weights.h5": m["model.weights.h5"][:9000]}), "."),
    ],
)
def test_what_cannot_be_translated_is_one_line(tmp_path, change, message):
    path = tmp_path / "model.keras"
    build("dense", path)
    edit(path, change)
    with pytest.raises(IsoprobeError, match=message) as caught:
        Keras().load(Source(path), {})
    assert "\n" not in str(caught.value)


def test_links_out_of_the_weights_file_are_not_followed(tmp_path):
    path, victim = tmp_path / "model.keras", tmp_path / "victim.h5"
    build("dense", path)
    with h5py.File(victim, "w") as file:
        file["secret"] = np.ones((2, 5))

    def link(_, members):
        inner = tmp_path / "inner.h5"
        inner.write_bytes(members["model.weights.h5"])
        with h5py.File(inner, "a") as file:
            group = file["decoder/layers/dense/vars"]
            del group["0"]
            group["0"] = h5py.ExternalLink(str(victim), "secret")
        members["model.weights.h5"] = inner.read_bytes()

    edit(path, link)
    with pytest.raises(CheckpointError, match="not followed"):
        Keras().load(Source(path), {})


@pytest.mark.shared
def test_a_real_archive_of_custom_classes_is_read(shared):
    source = Source(shared / "checkpoints/JacobTh98+3dIT/models/vae_beta.keras")
    vae = installed().adapter_for(source).load(source, {})
    assert (vae.input_shape, vae.latent_shape) == ((32, 32, 32, 1), (8,))
    assert vae.facts.beta == 1.05
    # voxels the decoder draws come back as the latents they were drawn from
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    x = (vae.decode(z) > 0.5).float()
    assert torch.isfinite(vae.encode(x).std).all()
    assert "decoder" in installed().adapter_for(source).describe(source)
