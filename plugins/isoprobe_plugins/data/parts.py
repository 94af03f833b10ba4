"""Open many files as one: a FOLDER of Parquet parts, in hive partitions or not, and patterns."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from glob import glob, has_magic
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from urllib.parse import unquote

import numpy as np

from isoprobe.contracts import Dataset, DataSource
from isoprobe.data.files import BLOCKS, check_file, fingerprint, short_digest, split_spec
from isoprobe.errors import DataError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.lookup import installed
from isoprobe_plugins.data.columns import Roles
from isoprobe_plugins.data.parquet import ParquetDataset

if TYPE_CHECKING:
    from isoprobe.contracts import VAE

SUFFIX = ".parquet"
#: what hive calls the partition of rows without a value
_NOTHING = "__HIVE_DEFAULT_PARTITION__"


class PartSource(DataSource):
    """Folders of Parquet files, and patterns of the shell; each part follows the one before."""

    name: ClassVar[str] = "parts"
    summary: ClassVar[str] = (
        "many files as one: a FOLDER of .parquet parts (hive keys KEY=VALUE/ may be label, id or "
        "kept), or a pattern such as 'FOLDER/*.npy'"
    )

    def matches(self, spec: str) -> bool:
        """Return True for a folder whose first files are Parquet, and a pattern."""
        path, _ = split_spec(spec)
        return holds_parquet(path) if path.exists() else has_magic(str(path))

    def open(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Return the parts opened as one; the footers of all are read.

        Raises:
            DataError: when there are none, one is damaged, or two do not fit each other.
        """
        path, member = split_spec(spec)
        if path.is_dir():
            names = _below(path)
            return _of_parquet(path, names, Roles.parse(member, path.name))
        found = sorted(Path(name) for name in glob(str(path), recursive=True))  # noqa: PTH207
        files = [file for file in found if file.is_file()]
        if not files:
            raise DataError(f"no file has a name like {path}; name a folder, or another pattern")
        root = Path(os.path.commonpath([file.parent for file in files]))
        if all(file.suffix == SUFFIX for file in files):
            names = [file.relative_to(root) for file in files]
            return _of_parquet(root, names, Roles.parse(member, str(path)))
        ending = "" if member is None else f":{member}"
        return Parts(str(path), files, lambda file: installed().data(f"{file}{ending}", vae))


class _Form(NamedTuple):
    """What all parts must have in common."""

    shape: tuple[int, ...]
    dtype: str
    columns: tuple[str, ...]
    factors: tuple[str, ...]
    carried: tuple[str, ...]
    folded: tuple[str, ...]

    @classmethod
    def of(cls, part: Dataset) -> _Form:
        return cls(*(getattr(part, name) for name in cls._fields))

    def __str__(self) -> str:
        named = f" in columns {', '.join(self.columns)}" if self.columns else ""
        beside = f" beside {', '.join(self.carried)}" if self.carried else ""
        return f"shape {self.shape} and type {self.dtype}{named}{beside}"


class Parts(Dataset):
    """Rows of several data sets of one form, one after the other; one of them is open at a time.

    Args:
        name: as shown in summaries.
        files: the parts, in order.
        open_one: opens a part.
        keys: columns that are the same for all rows of a part, by name.
        roles: which of these is the label, and which go along.

    Raises:
        DataError: when a part is damaged, or not of the form of the first.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        open_one: Callable[[Path], Dataset],
        keys: Mapping[str, np.ndarray] | None = None,
        roles: Roles | None = None,
    ) -> None:
        self.name, self._files, self._open_one = name, files, open_one
        self._keys, self._roles = keys or {}, roles or Roles()
        self._open: tuple[int, Dataset] | None = None
        counts = []
        for place, file in enumerate(files):
            part = self._part(place)
            form = _Form.of(part)
            if place == 0:
                first = form
            if form != first:
                self.close()
                raise DataError(
                    f"{file} has rows of {form}, and the first part of {first}; expected parts of "
                    "one form"
                )
            counts.append(len(part))
        self.shape, self.dtype, self.columns, self.factors, self.carried, self.folded = first
        self.carried += tuple(key for key in self._roles.kept if key in self._keys)
        self._ends = list(accumulate(counts))
        self.notes = (f"{len(files):,} parts, in the order of their names", *part.notes)
        left = sorted(self._keys.keys() - {self._roles.label, *self._roles.kept})
        if left:
            self.notes += (f"partition keys left out: {', '.join(left)}",)

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at ascending indices, ``(len(indices), *shape)``."""
        return np.concatenate([part.read(rows) for part, rows in self._in_parts(indices)])

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Labels of the rows, those of a partition from its name."""
        if self._roles.label is not None and self._roles.label in self._keys:
            return self._key(self._roles.label, indices)
        found = [part.labels(rows) for part, rows in self._in_parts(indices)]
        known = [labels for labels in found if labels is not None]
        return np.concatenate(known) if len(known) == len(found) else None

    def carry(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Columns that go along, those of a partition from its name."""
        found: dict[str, list[np.ndarray]] = {name: [] for name in self.carried}
        for part, rows in self._in_parts(indices):
            for name, values in part.carry(rows).items():
                found[name].append(values)
        return {
            name: self._key(name, indices) if name in self._keys else np.concatenate(values)
            for name, values in found.items()
        }

    def fingerprint(self) -> str:
        """Hash of names, sizes and sampled blocks of the parts, fewer of each the more parts."""
        digest = hashlib.sha256(repr(self._roles.spec).encode())
        blocks = max(2, BLOCKS // len(self._files))
        root = os.path.commonpath([file.parent for file in self._files])
        for file in self._files:
            told = (file.relative_to(root).as_posix(), fingerprint(file, blocks=blocks))
            digest.update(repr(told).encode())
        return short_digest(digest.digest())

    def close(self) -> None:
        """Close the part that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _part(self, place: int) -> Dataset:
        if self._open is None or self._open[0] != place:
            self.close()
            self._open = (place, self._open_one(self._files[place]))
        return self._open[1]

    def _in_parts(self, indices: np.ndarray) -> Iterator[tuple[Dataset, np.ndarray]]:
        """Yield the parts that hold some of ascending rows, each open, and the rows in each."""
        places = np.searchsorted(self._ends, indices, side="right")
        for place in np.unique(places).tolist():
            begin = self._ends[place - 1] if place else 0
            yield self._part(place), indices[places == place] - begin

    def _key(self, name: str, indices: np.ndarray) -> np.ndarray:
        values: np.ndarray = self._keys[name][np.searchsorted(self._ends, indices, side="right")]
        return values


def holds_parquet(folder: Path) -> bool:
    """Whether the first folder with files in it, this one or one below, has Parquet alone."""
    if not folder.is_dir():
        return False
    for _, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        shown = [name for name in names if not _is_hidden(name)]
        if shown:
            return all(name.endswith(SUFFIX) for name in shown)
    return False


def _below(root: Path) -> list[Path]:
    """Parquet files below a folder, by name; other engines pass the hidden ones over too."""
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        here = Path(place).relative_to(root)
        found += [here / n for n in names if n.endswith(SUFFIX) and not _is_hidden(n)]
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _of_parquet(root: Path, names: Sequence[Path], roles: Roles) -> Parts:
    """Open Parquet parts, the keys of hive partitions beside their own columns."""
    told = [dict(_hive(part) for part in name.parent.parts if "=" in part) for name in names]
    for name, own in zip(names, told, strict=True):
        if own.keys() != told[0].keys():
            raise DataError(
                f"{root / name} lies in partitions of {', '.join(own) or 'nothing'}, the first "
                f"part in partitions of {', '.join(told[0]) or 'nothing'}; expected the same"
            )
    keys = {key: _values([one[key] for one in told]) for key in told[0]}
    others = replace(
        roles,
        label=None if roles.label in keys else roles.label,
        kept=tuple(name for name in roles.kept if name not in keys),
    )
    inputs = [name for name in roles.columns or () if name in keys]
    if inputs:
        raise DataError(
            f"'{inputs[0]}' is a partition key of {root}, and the same for all rows of a part; it "
            "can be label, id or kept, no input"
        )

    def open_one(file: Path) -> Dataset:
        check_file(file)
        part = ParquetDataset(file, others)
        twice = sorted(keys.keys() & {*part.columns, *part.carried})
        if twice:
            part.close()
            raise DataError(f"{file} has a column '{twice[0]}', which its folder's name says too")
        return part

    shown = root.name if roles.spec is None else f"{root.name}:{roles.spec}"
    return Parts(shown, [root / name for name in names], open_one, keys, roles)


def _hive(folder: str) -> tuple[str, str]:
    key, _, value = folder.partition("=")
    return unquote(key), "" if value == _NOTHING else unquote(value)


def _values(texts: Sequence[str]) -> np.ndarray:
    """Values of a key, a part each: whole numbers where all are, else text."""
    try:
        return np.array([int(text) for text in texts], np.int64)
    except (ValueError, OverflowError):
        return np.array(texts, np.str_)


@hookimpl
def isoprobe_data_sources() -> Sequence[type[DataSource]]:
    """Return the source of parts."""
    return [PartSource]
