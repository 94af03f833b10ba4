"""Sequences, pools and conditions of Keras, from archives and HDF5 files, against Keras itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoprobe import api
from isoprobe.errors import CheckpointError
from tests.plugins import test_adapters_keras as made

keras = made.keras
pytestmark = pytest.mark.filterwarnings("ignore:::keras", "ignore:.*HDF5 file.*:UserWarning")
Made = tuple[Any, Any, tuple[int, ...], int]
STEPS, WIDTH, CLASSES = 5, 3, 4


def heads(h: Any, width: int = 2) -> list[Any]:
    return [keras.layers.Dense(width, name=name)(h) for name in ("z_mean", "z_log_var")]


def recurrent(kind: str, steps: int | None = STEPS, **more: Any) -> Made:
    """An encoder that reads to the last step, a decoder fed with z at each."""
    layers = keras.layers
    layer = getattr(layers, kind)
    x = keras.Input((steps, WIDTH))
    h = layer(4, **more)(layer(6, return_sequences=True, **more)(x))
    z = keras.Input((2,))
    out = layer(5, return_sequences=True, **more)(layers.RepeatVector(STEPS)(z))
    out = layers.TimeDistributed(layers.Dense(WIDTH, activation="tanh"))(out)
    return keras.Model(x, heads(h)), keras.Model(z, out), (STEPS, WIDTH), 0


def both_ways() -> Made:
    layers = keras.layers
    x = keras.Input((STEPS, WIDTH))
    h = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    h = layers.Bidirectional(layers.LSTM(3))(h)
    z = keras.Input((2,))
    out = layers.Reshape((STEPS, 2))(layers.Dense(STEPS * 2)(z))
    out = layers.LayerNormalization()(
        layers.Bidirectional(layers.LSTM(3, return_sequences=True))(out)
    )
    return keras.Model(x, heads(h)), keras.Model(z, layers.Dense(WIDTH)(out)), (STEPS, WIDTH), 0


def pooled() -> Made:
    layers = keras.layers
    x = keras.Input((8, 8, 2))
    h = layers.MaxPooling2D(2)(layers.Conv2D(3, 3, padding="same", activation="relu")(x))
    h = layers.AveragePooling2D(2, padding="same")(layers.ZeroPadding2D(((1, 1), (2, 0)))(h))
    h = layers.LayerNormalization()(layers.GaussianNoise(0.5)(h))
    h = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 2)(h))
    z = keras.Input((2,))
    out = layers.Reshape((2, 2, 3))(layers.Dense(12)(z))
    out = layers.UpSampling2D(2)(out)
    out = layers.UpSampling2D(3, interpolation="bilinear")(layers.Conv2D(4, 3, padding="same")(out))
    out = layers.Cropping2D(((1, 3), (2, 2)))(out)
    out = layers.Dense(2, activation="sigmoid")(out)
    return keras.Model(x, heads(h)), keras.Model(z, out), (8, 8, 2), 0


def conditional(width: int = CLASSES) -> Made:
    """The CVAE everybody writes: a one-hot code beside x, and before z."""
    layers = keras.layers
    x, c = keras.Input((6,), name="x"), keras.Input((width,), name="label")
    h = layers.Dense(5, activation="relu")(layers.Concatenate()([x, c]))
    z, again = keras.Input((2,), name="z"), keras.Input((width,), name="label")
    out = layers.Dense(5, activation="relu")(layers.Concatenate()([again, z]))
    out = layers.Dense(6, activation="sigmoid")(out)
    return keras.Model([x, c], heads(h)), keras.Model([z, again], out), (6,), width


MODELS = {
    "lstm": lambda: recurrent("LSTM"),
    "gru": lambda: recurrent("GRU"),
    "rnn without bias": lambda: recurrent("SimpleRNN", use_bias=False),
    "both ways": both_ways,
    "pooled": pooled,
    "one-hot": conditional,
    "number": lambda: conditional(1),
}


def saved(parts: Made, folder: Path, suffix: str) -> dict[str, Any]:
    encoder, decoder, *_ = parts
    rng = np.random.default_rng(0)
    for part, name in ((encoder, "encoder"), (decoder, "decoder")):
        part.set_weights([rng.uniform(-0.7, 0.7, w.shape) for w in part.get_weights()])
        part.save(folder / f"{name}{suffix}")
    return {"options": {"decoder": str(folder / f"decoder{suffix}")}}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_translation_gives_keras_own_numbers(tmp_path: Path, name: str, suffix: str) -> None:
    keras.utils.set_random_seed(0)
    parts = MODELS[name]()
    encoder, decoder, shape, width = parts
    vae = api.load(tmp_path / f"encoder{suffix}", **saved(parts, tmp_path, suffix))
    assert vae.input_shape == shape
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, *shape, generator=generator)
    z = torch.randn(4, 2, generator=generator)
    told = torch.tensor([[0.0], [3], [1], [1]]) if width > 1 else torch.rand(4, 1)
    code = np.eye(CLASSES, dtype=np.float32)[told[:, 0].long()] if width > 1 else told.numpy()
    more = [code] if width else []
    mean, raw = (made.plain(t) for t in encoder([x.numpy(), *more] if more else x.numpy()))
    expected = made.plain(decoder([z.numpy(), *more] if more else z.numpy()))
    bound = vae.on(x, told) if width else vae
    assert (vae.conditional is not None) == bool(width)
    assert bound.encode is not None
    posterior = bound.encode(x)
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.std, (raw / 2).exp(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bound.decode(z), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "pooled", "one-hot"])
def test_a_decoder_alone_is_read_as_such(tmp_path: Path, name: str) -> None:
    parts = MODELS[name]()
    saved(parts, tmp_path, ".keras")
    vae = api.load(tmp_path / "decoder.keras", options={"decoder": "self"})
    assert vae.encode is None
    assert vae.input_shape == parts[2]
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    code = np.eye(CLASSES, dtype=np.float32)[[2, 2, 2]]
    given = [z.numpy(), code] if parts[3] else z.numpy()
    held = vae.held(torch.tensor([2.0])) if parts[3] else vae
    expected = made.plain(parts[1](given))
    torch.testing.assert_close(held.decode(z), expected, rtol=1e-4, atol=1e-5)


def test_free_lengths_are_asked_for_and_taken(tmp_path: Path) -> None:
    parts = recurrent("LSTM", steps=None)
    given = saved(parts, tmp_path, ".keras")
    with pytest.raises(CheckpointError, match="'input_shape': 'AxB'"):
        api.load(tmp_path / "encoder.keras", **given)
    with pytest.raises(CheckpointError, match="input_shape says"):
        api.load(tmp_path / "encoder.keras", options={**given["options"], "input_shape": "5x4"})
    options = {**given["options"], "input_shape": f"{STEPS}x{WIDTH}"}
    vae = api.load(tmp_path / "encoder.keras", options=options)
    x = torch.rand(4, STEPS, WIDTH, generator=torch.Generator().manual_seed(0))
    assert vae.encode is not None
    mean = made.plain(parts[0](x.numpy())[0])
    torch.testing.assert_close(vae.encode(x).mean, mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "relu"}, "activation = relu"),
        ({"recurrent_activation": "hard_sigmoid"}, "recurrent_activation = hard_sigmoid"),
        ({"go_backwards": True}, "go_backwards = True"),
    ],
)
def test_what_torch_s_cells_do_not_do_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    given = saved(recurrent("GRU", **changes), tmp_path, ".keras")
    with pytest.raises(CheckpointError, match=words):
        api.load(tmp_path / "encoder.keras", **given)


def test_more_than_one_condition_is_refused(tmp_path: Path) -> None:
    layers = keras.layers
    inputs = [keras.Input((n,)) for n in (6, 2, 3)]
    encoder = keras.Model(inputs, heads(layers.Concatenate()(inputs)))
    z = keras.Input((2,))
    given = saved((encoder, keras.Model(z, layers.Dense(6)(z)), (6,), 0), tmp_path, ".keras")
    with pytest.raises(CheckpointError, match="takes 3 inputs"):
        api.load(tmp_path / "encoder.keras", **given)
