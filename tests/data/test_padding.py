"""Images padded with zeros are what a network trained on padded images takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.data.held import Held
from isoprobe.data.padding import padded
from isoprobe.errors import DataError, OptionError


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [
        ((8, 8), 16, (16, 16)),
        ((8, 6), (9, 7), (9, 7)),
        ((3, 8, 6), (8, 9), (3, 8, 9)),
        ((8, 6, 3), 9, (9, 9, 3)),
    ],
)
def test_the_image_stays_in_the_middle_and_the_margin_is_zero(shape, size, wanted):
    rows = np.random.default_rng(0).integers(1, 255, (4, *shape)).astype("u1")
    data = padded(Held(rows, labels=np.arange(4)), size)
    found = data.read(np.array([0, 2]))
    assert found.shape == (2, *wanted) == (2, *data.shape)
    assert found.sum() == rows[[0, 2]].sum()
    spots = [np.nonzero(found.any(tuple(a for a in range(found.ndim) if a != k + 1)))[0]
             for k in range(len(wanted))]  # fmt: skip
    for k, held in enumerate(spots):
        assert held[0] == (wanted[k] - shape[k]) // 2
        assert len(held) == shape[k]
    assert data.labels(np.array([2])).tolist() == [2]
    assert data.fingerprint() != Held(rows).fingerprint()


def test_torch_pads_the_same():
    rows = np.random.default_rng(0).random((2, 28, 28), "f4")
    ours = padded(Held(rows), 32).read(np.arange(2))
    theirs = torch.nn.functional.pad(torch.from_numpy(rows), (2, 2, 2, 2))
    np.testing.assert_array_equal(ours, theirs)


def test_what_cannot_be_padded_is_said():
    square = Held(np.zeros((2, 8, 8), "f4"))
    assert padded(square, 8) is square
    assert padded(square, None) is square
    with pytest.raises(DataError, match="resize makes them smaller"):
        padded(square, 4)
    with pytest.raises(DataError, match="pad needs images"):
        padded(Held(np.zeros((2, 8), "f4")), 9)
    with pytest.raises(OptionError, match="at least 1"):
        padded(square, 0)


DECLARED = """
input_shape = [16]
encoder = []
head = { mean = "mu", scale = "scale" }
decoder = [{ linear = "out" }]
pad = 4
loss = { metric = "sse", beta = 1 }
"""


def test_a_declaration_and_the_option_pad_alike(tmp_path):
    torch.manual_seed(0)
    state = {"mu.weight": torch.randn(2, 16), "mu.bias": torch.zeros(2),
             "scale.weight": torch.zeros(2, 16), "scale.bias": torch.zeros(2),
             "out.weight": torch.randn(16, 2), "out.bias": torch.zeros(16)}  # fmt: skip
    torch.save(state, tmp_path / "vae.pt")
    x = np.random.default_rng(0).random((40, 2, 2), "f4")
    by_hand = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    (tmp_path / "vae.toml").write_text(DECLARED)
    found = [isoprobe.analyze(tmp_path / "vae.pt", rows, samples=None) for rows in (x, by_hand)]
    (tmp_path / "vae.toml").write_text(DECLARED.replace("pad = 4\n", ""))
    found.append(isoprobe.analyze(tmp_path / "vae.pt", x, samples=None, pad=4))
    rates = [np.asarray(result.columns()["kl"].values) for result in found]
    for result in found:
        result.close()
    np.testing.assert_array_equal(rates[0], rates[1])
    np.testing.assert_array_equal(rates[0], rates[2])
    with pytest.raises(DataError, match="pad=4 if the training did"):
        isoprobe.analyze(tmp_path / "vae.pt", x)
