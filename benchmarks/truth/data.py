"""Make the rows that the bench's models are trained and judged on.

Everything is generated, or comes with scikit-learn, or is read from the shared folder of real data
beside the checkout (``ISOPROBE_SHARED`` names another place). Rows are float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

#: inputs of every generated set
WIDTH = 16
TRAIN, TEST = 10_000, 4_000
#: eigenvalues of the linear data; the rest of its inputs hold noise of variance NOISE
SPECTRUM = (40.0, 8.0, 2.0, 1.0, 0.5)
NOISE = 0.0025


class MissingDataError(Exception):
    """Rows, or a trained model, that this machine does not have."""


@dataclass(frozen=True)
class Rows:
    """A data set.

    Attributes:
        train: rows trained on, ``(N, *shape)`` float32.
        test: fresh rows.
        classes: class of each training row, ``(N,)``; None where there are none.
        unit: values lie in [0, 1], as images do.
    """

    train: np.ndarray
    test: np.ndarray
    classes: np.ndarray | None = None
    unit: bool = False


def shared() -> Path:
    """Return the folder of real data."""
    named = os.environ.get("ISOPROBE_SHARED")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared"


@cache
def rows(name: str) -> Rows:
    """Return a data set by name.

    Args:
        name: a key of :data:`SETS`.

    Returns:
        Its rows; the same arrays each time, not to be written to.

    Raises:
        MissingDataError: where its file is not on this machine.
    """
    made = SETS[name]()
    for array in (made.train, made.test):
        array.flags.writeable = False
    return made


# --------------------------------------------------------------------------- images


def _images(file: str) -> Rows:
    """14 x 14 images: means over 2 x 2 pixels, in [0, 1]."""
    path = shared() / "data" / file
    if not path.is_file():
        raise MissingDataError(f"{path} is missing")
    arrays = np.load(path)
    return Rows(
        _halved(arrays["x_train"][:20_000]),
        _halved(arrays["x_test"]),
        arrays["y_train"][:20_000],
        unit=True,
    )


def _halved(images: np.ndarray) -> np.ndarray:
    blocks = images.reshape(len(images), 14, 2, 14, 2).astype(np.float32)
    means: np.ndarray = blocks.mean(axis=(2, 4)) / np.float32(255)
    return means


def _digits() -> Rows:
    """8 x 8 digits that scikit-learn carries, in [0, 1]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(8).permutation(len(bunch.data))
    x = (bunch.data[order] / 16).astype(np.float32).reshape(-1, 8, 8)
    return Rows(x[:1400], x[1400:], bunch.target[order][:1400], unit=True)


# --------------------------------------------------------------------------- tables


def _thyroid() -> Rows:
    """Six measurements in units of their standard deviations; heavy tails."""
    path = shared() / "data" / "odds_thyroid.npz"
    if not path.is_file():
        raise MissingDataError(f"{path} is missing")
    arrays = np.load(path)
    x, y = arrays["x"], arrays["y"]
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    order = np.random.default_rng(6).permutation(len(x))
    split = 2400
    return Rows(x[order[:split]], x[order[split:]], y[order[:split]])


def _embedded(sources: Callable[[np.random.Generator], np.ndarray], seed: int) -> Rows:
    """Sources ``(N, k)`` along fixed orthonormal directions of 16 inputs, with a little noise."""
    k = sources(np.random.default_rng(0)).shape[1]
    drawn = np.random.default_rng([seed, 0]).standard_normal((WIDTH, WIDTH))
    directions = np.linalg.qr(drawn)[0][:k]
    parts = []
    for part in (1, 2):
        rng = np.random.default_rng([seed, part])
        s = sources(rng)
        noise = NOISE**0.5 * rng.standard_normal((len(s), WIDTH))
        parts.append((s @ directions + noise).astype(np.float32))
    return Rows(parts[0], parts[1][:TEST])


def _mix(rng: np.random.Generator) -> np.ndarray:
    """A triangle, a uniform and a ramp, of variances 1/6, 2/3 and 8/3."""
    u = rng.random((4, TRAIN))
    triangle = u[0] + u[1] - 1
    uniform = np.sqrt(2) * (2 * u[2] - 1)
    ramp = np.sqrt(48) * (np.sqrt(u[3]) - 2 / 3)
    return np.stack([triangle, uniform, ramp], axis=1)


def _spiral(rng: np.random.Generator) -> np.ndarray:
    """A spiral of one turn and a half that widens along its axis."""
    t = 3 * np.pi * rng.random(TRAIN)
    height = rng.standard_normal(TRAIN)
    return np.stack([t * np.cos(t), t * np.sin(t), 3 * height], axis=1) / 4


def _wave(rng: np.random.Generator) -> np.ndarray:
    """A curve that swings to and fro, to be coded coarsely: the decoder bends within a sigma."""
    t = 4 * rng.random(TRAIN) - 2
    return np.stack([2 * t, 0.8 * np.sin(4 * t)], axis=1)


def _gaussian(rng: np.random.Generator) -> np.ndarray:
    """Independent normals with the spectrum above."""
    scale = np.sqrt(np.array(SPECTRUM) - NOISE)
    return scale * rng.standard_normal((TRAIN, len(SPECTRUM)))


def _student(rng: np.random.Generator) -> np.ndarray:
    """Heavy tails: Student's t with 3 degrees of freedom, of scales 1, 1/2 and 1/4."""
    return np.array([1, 0.5, 0.25]) * rng.standard_t(3, (TRAIN, 3))


SETS: dict[str, Callable[[], Rows]] = {
    "mnist": lambda: _images("mnist.npz"),
    "fashion": lambda: _images("fashion_mnist.npz"),
    "digits": _digits,
    "thyroid": _thyroid,
    "toy": lambda: _embedded(_mix, 1),
    "spiral": lambda: _embedded(_spiral, 2),
    "linear": lambda: _embedded(_gaussian, 3),
    "heavy": lambda: _embedded(_student, 4),
    "wave": lambda: _embedded(_wave, 5),
}
