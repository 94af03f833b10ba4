"""Fitting data to a model: samples, shapes, values, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from isoprobe.contracts import VAE, Dataset, Facts, Metric
from isoprobe.data.batches import prepare
from isoprobe.errors import DataError, OptionError


class Memory(Dataset):
    """An array as a data set."""

    def __init__(self, array, labels=None, name="data.npy"):
        self.array, self.marks, self.name = np.asarray(array), labels, name
        self.shape, self.dtype = self.array.shape[1:], self.array.dtype.name

    def __len__(self):
        return len(self.array)

    def read(self, indices):
        return self.array[indices]

    def labels(self, indices):
        return None if self.marks is None else self.marks[indices]

    def fingerprint(self):
        return "memory"


class Bce(Metric):
    name = "bce"
    input_range = (0.0, 1.0)

    def distortion(self, x, x_hat):
        return (x - x_hat).flatten(1).sum(1)


def model(*shape, input_range=None):
    return VAE(
        decode=lambda z: z,
        encode=None,
        input_shape=shape,
        latent_shape=(2,),
        facts=Facts(input_range=input_range),
    )


def everything(prepared, dtype=torch.float64):
    return prepared.batch(0, prepared.samples, "cpu", dtype)[0]


# ---------------------------------------------------------------------- samples


@given(rows=st.integers(1, 400), samples=st.integers(1, 400), cut=st.integers(0, 400))
def test_rows_are_spread_evenly_whatever_the_batching(rows, samples, cut):
    prepared = prepare(Memory(np.zeros((rows, 3))), model(3), samples=samples)
    chosen = prepared.indices(0, prepared.samples)
    assert prepared.samples == min(rows, samples)
    assert len(np.unique(chosen)) == prepared.samples
    assert 0 <= chosen.min() <= chosen.max() < rows
    around = np.sort(chosen)
    gaps = np.diff(np.append(around, around[0] + rows))
    assert gaps.max() <= 2.5 * rows / prepared.samples
    if samples >= rows:
        assert np.array_equal(chosen, np.arange(rows))  # all rows come as they lie
    cut = min(cut, prepared.samples)
    parts = [prepared.indices(0, cut), prepared.indices(cut, prepared.samples)]
    assert np.array_equal(chosen, np.concatenate(parts))


def test_batches_carry_the_rows_and_their_labels():
    array, labels = np.arange(30.0).reshape(10, 3), np.arange(10) % 2
    prepared = prepare(Memory(array, labels), model(3), samples=5)
    x, marks = prepared.batch(1, 4, "cpu", torch.float32)
    assert prepared.labelled
    assert x.dtype == torch.float32
    rows = prepared.indices(1, 4)
    assert np.array_equal(x.numpy(), array[rows])
    assert np.array_equal(marks, labels[rows])


def test_asking_for_more_than_there_is_gives_all_and_says_so():
    prepared = prepare(Memory(np.zeros((4, 3))), model(3), samples=9)
    assert prepared.samples == 4
    assert not prepared.labelled
    assert prepared.notes == ["all 4 rows used"]


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match=r"data\.npy has no rows"):
        prepare(Memory(np.zeros((0, 3))), model(3))
    with pytest.raises(OptionError, match="samples needs at least 1; found 0"):
        prepare(Memory(np.zeros((2, 3))), model(3), samples=0)


# ---------------------------------------------------------------------- values


@pytest.mark.parametrize("input_range", [None, (0.0, 1.0), (-1.0, 1.0)])
def test_bytes_fill_the_models_range(input_range):
    stored = np.arange(256, dtype=np.uint8).reshape(1, 256)
    prepared = prepare(Memory(stored), model(256, input_range=input_range))
    low, high = input_range or (0.0, 1.0)
    expected = low + (high - low) * np.arange(256) / 255
    assert np.allclose(everything(prepared)[0], expected, rtol=0, atol=1e-15)
    assert prepared.notes == [f"bytes 0..255 read as {low:g}..{high:g}"]


def test_bytes_round_once():
    stored = np.arange(256, dtype=np.uint8).reshape(1, 256)
    x = everything(prepare(Memory(stored), model(256)), torch.float32)
    assert np.array_equal(x[0].numpy(), (np.arange(256) / 255).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.bool_])
def test_other_values_are_left_alone(dtype):
    stored = np.array([[0, 1, 1]], dtype=dtype)
    prepared = prepare(Memory(stored), model(3, input_range=(-1.0, 1.0)))
    assert np.array_equal(everything(prepared)[0], [0, 1, 1])
    assert prepared.notes == []


def test_scale_maps_linearly_to_the_models_range():
    stored = np.array([[10.0, 15.0, 20.0]])
    vae = model(3, input_range=(-1.0, 1.0))
    prepared = prepare(Memory(stored), vae, scale=(10.0, 20.0))
    assert np.array_equal(everything(prepared)[0], [-1, 0, 1])
    assert prepared.notes == ["values 10..20 read as -1..1"]


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan")), (0.0, np.inf)])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(OptionError, match="LOW below HIGH"):
        prepare(Memory(np.zeros((1, 3))), model(3), scale=scale)


def test_values_the_metric_cannot_take_are_named():
    stored = np.full((40, 2), 0.5)
    stored[17] = [-1.3, 4.1]
    prepared = prepare(Memory(stored), model(2), metric=Bce())
    expected = (
        "metric 'bce' needs values in [0, 1]; row 17 of data.npy has [-1.3, 4.1]. "
        "Scale it (scale=LOW:HIGH), or use metric='sse'."
    )
    with pytest.raises(DataError) as caught:
        prepared.batch(10, 20, "cpu", torch.float32)
    assert str(caught.value) == expected
    assert len(prepared.batch(18, 40, "cpu", torch.float32)[0]) == 22


@pytest.mark.parametrize("metric", [None, Bce()])
def test_values_the_model_was_not_trained_on_are_named(metric):
    stored = np.array([[0.5, 0.5], [0.5, 255.0]])
    prepared = prepare(Memory(stored), model(2, input_range=(0.0, 1.0)), metric=metric)
    with pytest.raises(DataError, match=r"trained on .*row 1 of data.npy has \[0.5, 255\].*scale"):
        everything(prepared)


def test_rounding_errors_are_clipped_away():
    stored = np.array([[-4e-7, 1 + 4e-7]])
    x = everything(prepare(Memory(stored), model(2), metric=Bce()))
    assert np.array_equal(x[0], [0.0, 1.0])
    beyond = prepare(Memory(stored * 10), model(2), metric=Bce())
    with pytest.raises(DataError, match="row 0"):
        everything(beyond)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_by_row(bad):
    stored = np.zeros((6, 2, 2))
    stored[4, 1, 0] = bad
    prepared = prepare(Memory(stored), model(1, 2, 2), samples=5)
    message = rf"row 4 of data\.npy has {bad} at value 2 of 4; expected finite"
    with pytest.raises(DataError, match=message):
        everything(prepared)


# ---------------------------------------------------------------------- shapes

RESHAPES = [
    ((28, 28), (1, 28, 28), lambda a: a[:, None]),
    ((1, 28, 28), (28, 28), lambda a: a[:, 0]),
    ((28, 28, 1), (1, 28, 28), lambda a: a[..., 0][:, None]),
    ((8, 6, 3), (3, 8, 6), lambda a: a.transpose(0, 3, 1, 2)),
    ((3, 8, 6), (8, 6, 3), lambda a: a.transpose(0, 2, 3, 1)),
    ((8, 6), (48,), lambda a: a.reshape(len(a), -1)),
    ((3, 8, 6), (144,), lambda a: a.reshape(len(a), -1)),
    ((48,), (1, 8, 6), lambda a: a.reshape(-1, 1, 8, 6)),
    ((), (1,), lambda a: a[:, None]),
]


@pytest.mark.parametrize(("shape", "wanted", "expected"), RESHAPES)
def test_lossless_reshapes(shape, wanted, expected):
    stored = np.random.default_rng(0).random((5, *shape))
    prepared = prepare(Memory(stored), model(*wanted))
    assert np.array_equal(everything(prepared), expected(stored))
    assert len(prepared.notes) == 1


def test_a_shape_that_fits_is_left_alone():
    stored = np.random.default_rng(0).random((5, 3, 3, 3))
    prepared = prepare(Memory(stored), model(3, 3, 3))
    assert np.array_equal(everything(prepared), stored)
    assert prepared.notes == []


REFUSED = [
    (
        (28, 28),
        (1, 32, 32),
        r"expected samples of shape \(1, 32, 32\), found \(28, 28\).*resize=32$",
    ),
    ((3, 64, 64), (3, 32, 48), r"resize=\(32, 48\)$"),
    ((64, 64, 3), (3, 32, 32), r"resize=32$"),
    ((28, 28), (1024,), r"resize=32$"),
    ((3, 64, 64), (1, 64, 64), "3 channels and the model takes 1"),
    ((6,), (16,), "choose data of the model's shape"),
    ((144,), (3, 8, 6), "choose data of the model's shape"),  # channels first or last?
]


@pytest.mark.parametrize(("shape", "wanted", "message"), REFUSED)
def test_shapes_that_do_not_fit_are_refused_with_the_remedy(shape, wanted, message):
    with pytest.raises(DataError, match=message) as caught:
        prepare(Memory(np.zeros((2, *shape))), model(*wanted))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "wanted"), [((28, 28), (32, 32)), ((64, 48), (24, 30))])
def test_resizing_is_pillows_bilinear(size, wanted):
    stored = np.random.default_rng(0).random((3, *size)).astype(np.float32)
    prepared = prepare(Memory(stored), model(1, *wanted), resize=wanted)
    for ours, original in zip(everything(prepared), stored, strict=True):
        theirs = Image.fromarray(original).resize(wanted[::-1], Image.Resampling.BILINEAR)
        assert np.allclose(ours[0], np.asarray(theirs), rtol=0, atol=1e-6)


def test_resizing_enlarges_as_torch_does():
    stored = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    prepared = prepare(Memory(stored), model(1, 32, 32), resize=32)
    images = torch.from_numpy(stored / 255)[:, None]
    expected = torch.nn.functional.interpolate(images, (32, 32), mode="bilinear")
    assert torch.allclose(everything(prepared), expected, rtol=0, atol=1e-12)
    assert prepared.notes == [
        "bytes 0..255 read as 0..1",
        "28x28 resized to 32x32",
        "(32, 32) read as (1, 32, 32)",
    ]


def test_channels_last_are_resized_like_channels_first():
    stored = np.random.default_rng(0).random((2, 3, 10, 12))
    first = prepare(Memory(stored), model(3, 7, 8), resize=(7, 8))
    last = prepare(Memory(stored.transpose(0, 2, 3, 1)), model(3, 7, 8), resize=(7, 8))
    assert torch.equal(everything(first), everything(last))


def test_resizing_is_refused_where_it_means_nothing():
    with pytest.raises(DataError, match=r"resize needs images.*\(6,\)"):
        prepare(Memory(np.zeros((2, 6))), model(6), resize=4)
    with pytest.raises(DataError, match=r"found \(16, 16\).*resize=32"):
        prepare(Memory(np.zeros((2, 28, 28))), model(1, 32, 32), resize=16)
    with pytest.raises(OptionError, match="at least 1"):
        prepare(Memory(np.zeros((2, 28, 28))), model(1, 32, 32), resize=0)


def test_resizing_to_the_size_there_is_changes_nothing():
    stored = np.random.default_rng(0).random((2, 1, 9, 9))
    prepared = prepare(Memory(stored), model(1, 9, 9), resize=9)
    assert np.array_equal(everything(prepared), stored)
    assert prepared.notes == []
