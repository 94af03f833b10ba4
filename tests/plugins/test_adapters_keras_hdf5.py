"""Keras models in HDF5 files, whole or in two, give Keras' own numbers; code is refused."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from isoprobe import api
from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.errors import CheckpointError
from isoprobe.registry.lookup import installed
from tests.plugins import test_adapters_keras as made  # skips without Keras

pytestmark = pytest.mark.filterwarnings("ignore:::keras")


@pytest.fixture(scope="module")
def model():
    """Encoder and decoder with a convolution, a norm and the sampling layer everybody writes."""
    keras = made.keras
    layers = keras.layers
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 1))
    h = layers.Conv2D(3, 3, strides=2, padding="same", activation="relu")(x)
    h = layers.Flatten()(layers.BatchNormalization()(h))
    heads = [layers.Dense(2, name="z_mean")(h), layers.Dense(2, name="z_log_var")(h)]
    encoder = keras.Model(x, [*heads, made.Sampling()(heads)], name="encoder")
    z = keras.Input((2,))
    h = layers.Reshape((3, 3, 2))(layers.Dense(18, activation="relu")(z))
    h = layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid")(h)
    decoder = keras.Model(z, h, name="decoder")
    rng = np.random.default_rng(0)
    for part in (encoder, decoder):
        part.set_weights([rng.uniform(0.1, 0.5, w.shape) for w in part.get_weights()])
    return keras.Model(x, decoder(encoder(x)[2]), name="vae"), encoder, decoder


def save(way, model, folder):
    """Save it in a way; return the path to give, and its options."""
    whole, encoder, decoder = model
    suffix = ".keras" if "archive" in way else ".h5"
    if "whole" in way:
        whole.save(folder / f"vae{suffix}")
        return folder / f"vae{suffix}", {}
    encoder.save(folder / f"encoder{suffix}")
    decoder.save(folder / f"decoder{suffix}")
    if "folder" in way:
        return folder, {}
    return folder / f"encoder{suffix}", {"decoder": str(folder / f"decoder{suffix}")}


WAYS = ("whole", "pair", "folder", "whole archive", "pair of archives", "folder of archives")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:.*HDF5 file.*:UserWarning")
def test_equal_numbers_in_every_form(tmp_path, model, way):
    _, encoder, decoder = model
    path, options = save(way, model, tmp_path)
    vae = api.load(path, options={**options, "metric": "bce", "beta": "1"})
    assert (vae.adapter, vae.input_shape, vae.latent_shape) == ("keras", (6, 6, 1), (2,))
    x = torch.rand(4, 6, 6, 1, generator=torch.Generator().manual_seed(0))
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    mean, raw, _ = (made.plain(t) for t in encoder(x.numpy(), training=False))
    assert torch.allclose(vae.encode(x).mean, mean, rtol=1e-4, atol=1e-5)
    assert torch.allclose(vae.encode(x).std, (raw / 2).exp(), rtol=1e-4)
    assert torch.allclose(vae.decode(z), made.plain(decoder(z.numpy())), rtol=1e-4, atol=1e-5)
    assert installed().adapter_for(Source(path)).describe(Source(path))["architecture"]


@pytest.fixture
def encoder_file(tmp_path, model):
    save("pair", model, tmp_path)
    return tmp_path / "encoder.h5"


@pytest.mark.filterwarnings("ignore:.*HDF5 file.*:UserWarning")
class TestFiles:
    def load(self, path):
        return api.load(path, options={"decoder": str(path.parent / "decoder.h5")})

    def test_names_as_tensorflow_writes_them_are_read(self, encoder_file):
        before = self.load(encoder_file)
        with h5py.File(encoder_file, "a") as file:
            group = file["model_weights/z_mean/z_mean"]
            for name in list(group):
                group.move(name, f"{name}:0")
        after = self.load(encoder_file)
        x = torch.rand(2, 6, 6, 1)
        assert torch.equal(before.encode(x).mean, after.encode(x).mean)

    def test_a_lambda_layer_on_the_way_is_refused(self, encoder_file):
        with h5py.File(encoder_file, "a") as file:
            config = json.loads(file.attrs["model_config"])
            dense = next(e for e in config["config"]["layers"] if e["class_name"] == "Dense")
            dense["class_name"] = "Lambda"
            file.attrs["model_config"] = json.dumps(config)
        with pytest.raises(CheckpointError, match="Lambda .*custom code"):
            self.load(encoder_file)

    def test_weights_without_an_architecture_are_said(self, encoder_file):
        with h5py.File(encoder_file, "a") as file:
            del file.attrs["model_config"]
            file.attrs["layer_names"] = ["dense"]
        with pytest.raises(CheckpointError, match="weights and no architecture"):
            api.load(encoder_file)

    def test_another_hdf5_file_is_not_keras(self, tmp_path):
        with h5py.File(tmp_path / "data.h5", "w") as file:
            file["x"] = np.zeros(3)
        assert Source(tmp_path / "data.h5").kind is FileKind.HDF5
        with pytest.raises(CheckpointError, match="no adapter reads"):
            api.load(tmp_path / "data.h5")

    def test_links_out_of_the_file_are_not_followed(self, encoder_file, tmp_path):
        with h5py.File(tmp_path / "victim.h5", "w") as file:
            file["secret"] = np.ones((27, 2), np.float32)
        with h5py.File(encoder_file, "a") as file:
            group = file["model_weights/z_mean/z_mean"]
            del group["kernel"]
            group["kernel"] = h5py.ExternalLink(str(tmp_path / "victim.h5"), "secret")
        with pytest.raises(CheckpointError, match="does not fit|missing|link that may lead"):
            self.load(encoder_file)

    def test_one_function_asks_for_the_other(self, encoder_file):
        with pytest.raises(CheckpointError, match="'decoder': 'FILE'"):
            api.load(encoder_file)

    def test_groups_that_hold_each_other_end(self, encoder_file):
        with h5py.File(encoder_file, "a") as file:
            file["model_weights/z_mean/loop"] = file["model_weights"]
        assert self.load(encoder_file).latent_shape == (2,)
