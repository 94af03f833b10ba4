"""Say which files the data sets are and where to get them; find, check and open one.

A checksum is of the content (the text, or the bytes of the arrays in their order), so that it does
not matter how a file was packed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isoprobe.errors import DataError
from isoprobe.files.archives import ZIP_ERRORS

#: environment variable that names the folder of data files
VARIABLE = "ISOPROBE_DATA"


@dataclass(frozen=True)
class DataFile:
    """One file of the data folder.

    Attributes:
        name: of the file in the folder.
        holds: the layout expected, in words.
        page: official address of the data.
        sha256: of the content; empty where there are many good versions.
        arrays: names of the arrays in an ``.npz``, in the order of the checksum.
    """

    name: str
    holds: str
    page: str
    sha256: str = ""
    arrays: tuple[str, ...] = ()


_ODDS = "http://odds.cs.stonybrook.edu"
_DIGITS = (
    "uint8 arrays x_train (60000, 28, 28), y_train (60000,), x_test (10000, 28, 28), "
    "y_test (10000,) in the official order"
)
_SPLITS = ("x_train", "y_train", "x_test", "y_test")
FILES: dict[str, DataFile] = {
    "kddcup99": DataFile(
        "kddcup.data_10_percent.gz",
        "494021 lines of 41 features and a label, gzipped",
        "https://kdd.ics.uci.edu/databases/kddcup99/kddcup99.html",
        "f8c8267ebcd9c0ed1fd7d6277fe5bfff8732e9b7db8e61b873542b2a534b6f9a",
    ),
    "thyroid": DataFile(
        "odds_thyroid.npz",
        "arrays x (3772, 6) float64 and y (3772,) uint8, the X and y of thyroid.mat",
        _ODDS,
        "27afa6f5f6f284cb45ce8ed1c7f02f10a9698544b91c336672e06cd82df9a64a",
        ("x", "y"),
    ),
    "arrhythmia": DataFile(
        "odds_arrhythmia.npz",
        "arrays x (452, 274) float64 and y (452,) uint8, the X and y of arrhythmia.mat",
        _ODDS,
        "3ec97ecf0b9e8e6db7efb27a897f292a59e34812f18f31e1d69c6627e84d850a",
        ("x", "y"),
    ),
    "mnist": DataFile(
        "mnist.npz",
        _DIGITS,
        "http://yann.lecun.com/exdb/mnist",
        "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
        _SPLITS,
    ),
    "fashion-mnist": DataFile(
        "fashion_mnist.npz",
        _DIGITS,
        "https://github.com/zalandoresearch/fashion-mnist",
        "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f",
        _SPLITS,
    ),
    "celeba64": DataFile(
        "celeba64_subset.zip",
        "index.csv (image_id, split) and 64 x 64 images NNNNNN.jpg",
        "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    ),
}


def use_root(folder: Path | None) -> None:
    """Look for data files in this folder from now on; None changes nothing."""
    if folder is not None:
        os.environ[VARIABLE] = str(folder)


def locate(name: str) -> Path:
    """Find the file of a data set.

    Args:
        name: key of :data:`FILES`.

    Returns:
        Its path.

    Raises:
        DataError: when no folder is named, or the file is not in it.
    """
    file = FILES[name]
    root = os.environ.get(VARIABLE, "")
    if not root:
        raise DataError(
            f"data set '{name}' is read from a folder of data files, and none is named; give "
            f"--data-root, or set {VARIABLE}, to a folder with {file.name} from {file.page}"
        )
    path = Path(root) / file.name
    if not path.is_file():
        raise DataError(
            f"{path} is missing; expected {file.holds}, made from the data at {file.page}"
        )
    return path


def read_arrays(name: str) -> dict[str, np.ndarray]:
    """Read the arrays of a data set and check them.

    Args:
        name: key of :data:`FILES`, of a file with arrays.

    Returns:
        Arrays by name.

    Raises:
        DataError: when the file is missing or damaged, or holds something else.
    """
    file, path = FILES[name], locate(name)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {key: np.ascontiguousarray(stored[key]) for key in file.arrays}
    except (*ZIP_ERRORS, KeyError) as error:
        raise DataError(
            f"{path} is damaged or another file ({_first_line(error)}); expected {file.holds}, "
            f"made from the data at {file.page}"
        ) from error
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(array.data)
    _compare(file, path, digest.hexdigest())
    return arrays


def read_gzip(name: str) -> bytes:
    """Read a gzipped text and check it.

    Args:
        name: key of :data:`FILES`, of a gzipped file.

    Returns:
        The text.

    Raises:
        DataError: when the file is missing or damaged, or holds something else.
    """
    file, path = FILES[name], locate(name)
    try:
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged ({_first_line(error)}); fetch it again from {file.page}"
        ) from error
    _compare(file, path, hashlib.sha256(text).hexdigest())
    return text


def _compare(file: DataFile, path: Path, found: str) -> None:
    if found != file.sha256:
        raise DataError(
            f"{path} has other content than {file.holds}: expected sha256 {file.sha256}, found "
            f"{found}; fetch it again from {file.page}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
