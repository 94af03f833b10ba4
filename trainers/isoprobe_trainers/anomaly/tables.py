"""Read the four tables of Section 5.3 and Appendix H.1: rows, anomalies, and the split.

Every input is scaled to [0, 1] over the whole table; an input that is constant becomes 0. A random
half of the rows is for the test; of the other half only normal rows are trained on, less a tenth
of them that is held out to decide when to stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from isoprobe.errors import DataError, nearest
from isoprobe_trainers.common.files import read_arrays, read_gzip

NAMES = ("kddcup99", "thyroid", "arrhythmia", "kddcup-rev")
#: share of the normal rows of the training half that is held out
HELD_OUT = 0.1
#: share of attacks in KDDCup-rev
REVISED_SHARE = 0.2
#: columns of KDDCup99 that are categories: protocol_type, service, flag, land, logged_in,
#: is_host_login, is_guest_login (root_shell and su_attempted are counted as numbers)
_SYMBOLIC = (1, 2, 3, 6, 11, 20, 21)
_FEATURES = 41


@dataclass(frozen=True, eq=False)
class Table:
    """A data set.

    Attributes:
        name: one of :data:`NAMES`.
        x: inputs in [0, 1], ``(N, m)`` float32.
        anomalous: which rows are anomalies, ``(N,)`` bool.
    """

    name: str
    x: np.ndarray
    anomalous: np.ndarray

    @cached_property
    def groups(self) -> np.ndarray:
        """Number of each row, ``(N,)``: equal rows, and no others, have the same one."""
        width = self.x.dtype.itemsize * self.x.shape[1]
        rows = np.ascontiguousarray(self.x).view(np.dtype((np.void, width))).ravel()
        numbers: dict[bytes, int] = {}
        return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows])

    @cached_property
    def distinct(self) -> np.ndarray:
        """Inputs by those numbers: each different row once, ``(D, m)``."""
        rows: np.ndarray = self.x[np.unique(self.groups, return_index=True)[1]]
        return rows


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers in ascending order.

    Attributes:
        train: normal rows to train on.
        held_out: normal rows of the same half, for the stopping rule.
        test: the other half, normal rows and anomalies.
    """

    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, eq=False)
class SplitTable:
    """A table and its split, both as a seed has them.

    Attributes:
        seed: of the split, and of a model that is trained on it.
        table: the data.
        halves: its split.
    """

    seed: int
    table: Table
    halves: Split


@dataclass(frozen=True)
class Duplicates:
    """How much a table repeats itself.

    Attributes:
        rows: rows of the table.
        distinct: different rows among them.
        test_seen: share of the test rows that are also rows trained on.
        conflicting: different rows that stand both among the normal ones and the anomalies.
    """

    rows: int
    distinct: int
    test_seen: float
    conflicting: int


def load(name: str, seed: int = 0) -> Table:
    """Read a table.

    Args:
        name: one of :data:`NAMES`.
        seed: of the attacks that KDDCup-rev draws; without effect on the others.

    Returns:
        The table.

    Raises:
        DataError: for an unknown name, or a file that is missing or damaged.
    """
    if name not in NAMES:
        hint = nearest(name, list(NAMES))
        raise DataError(f"there is no table '{name}'{hint}; known: {', '.join(NAMES)}")
    if name == "kddcup99":
        return _kddcup99()
    if name == "kddcup-rev":
        return _revised(_kddcup99(), seed)
    return _odds(name)


def split(table: Table, seed: int) -> Split:
    """Halve a table at random and keep the normal rows of one half for training.

    Args:
        table: the table.
        seed: of the halves and of the rows held out.

    Returns:
        Row numbers.
    """
    order = _generator(seed, 0).permutation(len(table.x))
    half = len(order) // 2
    normal = order[:half][~table.anomalous[order[:half]]]
    kept = len(normal) - max(1, round(HELD_OUT * len(normal)))
    return Split(*(np.sort(rows) for rows in (normal[:kept], normal[kept:], order[half:])))


def drawn(name: str, seed: int) -> SplitTable:
    """Read a table and split it; arguments as for :func:`load`."""
    table = load(name, seed)
    return SplitTable(seed, table, split(table, seed))


def duplicates(table: Table, halves: Split) -> Duplicates:
    """Count equal rows.

    Args:
        table: the table.
        halves: its split.

    Returns:
        The counts.
    """
    groups = table.groups
    seen = np.isin(groups[halves.test], groups[halves.train])
    both = np.intersect1d(groups[table.anomalous], groups[~table.anomalous])
    return Duplicates(len(groups), int(groups.max()) + 1, float(seen.mean()), len(both))


# --------------------------------------------------------------------------- the tables


@lru_cache(maxsize=2)
def _odds(name: str) -> Table:
    arrays = read_arrays(name)
    return Table(name, _scaled(arrays["x"]).astype(np.float32), arrays["y"] == 1)


@lru_cache(maxsize=1)
def _kddcup99() -> Table:
    """Normal traffic is the minority here, so the attacks are what is trained on (H.1)."""
    lines: dict[bytes, int] = {}
    # most lines repeat an earlier one: each is read once
    index = np.array([lines.setdefault(e, len(lines)) for e in read_gzip("kddcup99").splitlines()])
    columns = np.array([line.split(b",") for line in lines]).T
    numeric = [j for j in range(_FEATURES) if j not in _SYMBOLIC]
    x = [_scaled(columns[numeric].T.astype(np.float64))]
    x += [columns[j][:, None] == np.unique(columns[j]) for j in _SYMBOLIC]
    distinct = np.concatenate(x, axis=1, dtype=np.float32)
    return Table("kddcup99", distinct[index], (columns[-1] == b"normal.")[index])


def _revised(table: Table, seed: int) -> Table:
    """All normal traffic and as many attacks as make a fifth, scaled as the whole table is."""
    normal, attacks = np.flatnonzero(table.anomalous), np.flatnonzero(~table.anomalous)
    count = int(len(normal) * REVISED_SHARE / (1 - REVISED_SHARE))
    drawn = _generator(seed, 1).choice(attacks, count, replace=False)
    rows = np.sort(np.concatenate([normal, drawn]))
    return Table("kddcup-rev", table.x[rows], ~table.anomalous[rows])


def _scaled(x: np.ndarray) -> np.ndarray:
    """Scale each column to [0, 1] by its least and greatest value; a constant one becomes 0."""
    least, span = x.min(0), np.ptp(x, axis=0)
    scaled: np.ndarray = (x - least) / np.where(span > 0, span, 1)
    return scaled


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, stream]))
