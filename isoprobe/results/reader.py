"""Read a result file: attributes, named arrays by group, per-sample rows in slices."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from isoprobe.errors import IsoprobeError, ResultError, nearest
from isoprobe.files.closing import Closable
from isoprobe.files.hdf5 import Hdf5File
from isoprobe.results import netcdf
from isoprobe.results.shard import is_shard
from isoprobe.results.versions import FORMAT_VERSION, elsewhere

if TYPE_CHECKING:
    import h5py
    import numpy as np

    from isoprobe.contracts import Variable

FORMAT = "isoprobe result"
_SAMPLES = "samples"
#: what h5py, and whoever relies on what is read, raise on files that are damaged or not ours
_ODD = (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError)
_TEXT, _NUMBER, _LIST = (str,), (int, float), (list,)
#: root attributes that others rely on, where they are there
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("model", "adapter", "metric", "data", "data_fingerprint", "dtype"), _TEXT),
    **dict.fromkeys(("command", "device", "beta_source", "model_sha256"), _TEXT),
    **dict.fromkeys(("isoprobe_version", "torch_version", "numpy_version", "output"), _TEXT),
    **dict.fromkeys(("pullback", "expectation"), _TEXT),
    **dict.fromkeys(("beta", "beta_declared", "beta_recovered", "samples"), _NUMBER),
    **dict.fromkeys(("beta_recovered_pullback", "pairs", "seed"), _NUMBER),
    **dict.fromkeys(("beta_ci95", "notes", "input_shape", "latent_shape"), _LIST),
    **dict.fromkeys(("beta_ci95_pullback", "analyses"), _LIST),
}


class MissingVariableError(ResultError, KeyError):
    """A variable that a group does not have: a KeyError to mappings, one line to people."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would quote it


class Attributes(dict[str, Any]):
    """Root attributes of a file; one that is missing is its fault, not the reader's.

    Args:
        values: by name.
        path: the file.
    """

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise MissingVariableError(f"{self._path} has no attribute '{name}'; 'analyze' writes one")


class Group(Mapping[str, "Variable"]):
    """The variables of one group, each read when asked for."""

    def __init__(self, file: Hdf5File, group: h5py.Group) -> None:
        self._file, self._group = file, group
        self._names = netcdf.variable_names(file, group)

    def __getitem__(self, name: str) -> Variable:
        if name not in self._names:
            with readable(self._file.path):
                moved = elsewhere(self._file, self._group, name)
            if moved is not None:
                return moved
            where = f"{self._file.path} has no '{self._group.name}/{name}'"
            raise MissingVariableError(f"{where}{nearest(name, self._names)}")
        with readable(self._file.path):
            return netcdf.read_variable(self._file, self._group, name)

    def numbers(self, name: str, axes: int) -> np.ndarray:
        """Return a variable's values where they are numbers along so many axes.

        Raises:
            ResultError: where there is none, or they are of another form.
        """
        return require_numbers(
            self[name].values, axes, f"{self._file.path}: {self._group.name}/{name}"
        )

    def shown(self) -> dict[str, str]:
        """Names of the variables to show, each a ``column`` or a ``tile``; reads no values."""
        with readable(self._file.path):
            how = {n: netcdf.shown(self._file, self._group, n) for n in self._names}
        return {name: kind for name, kind in how.items() if kind != "none"}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<{self._group.name.strip('/')}: {', '.join(self._names)}>"


class Result(Closable):
    """A complete result file, open for reading.

    ``result["isometry"]["norm_mean"].values`` reads one array; :meth:`samples` reads rows. It is
    a context manager; :meth:`close` closes the file, and removes it if it was temporary.

    Attributes:
        path: the file.
        attrs: root attributes.
        image_shape: as which flat inputs are drawn, ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``;
            None draws those that look like a square picture as one.
    """

    def __init__(
        self, file: Hdf5File, path: Path, temporary: TemporaryDirectory[str] | None = None
    ) -> None:
        self._file = file
        self._temporary = temporary
        self._names: list[str] | None = None
        self.image_shape: tuple[int, ...] | None = None
        self._groups: dict[str, Group] = {}  # looked through once: the file does not change
        if temporary is not None:
            # dropped without close(), the folder goes with the last who reads: a result or a group
            weakref.finalize(file, temporary.cleanup)
        self.path = path
        self.attrs = Attributes(netcdf.read_attributes(file), path)

    @classmethod
    def open(cls, path: str | Path, *, temporary: TemporaryDirectory[str] | None = None) -> Self:
        """Open a result file.

        Args:
            path: the file.
            temporary: a folder to remove with the result.

        Returns:
            The open result.

        Raises:
            ResultError: if it is missing, unfinished, damaged, of a newer version, or not ours.
        """
        import h5py

        path = Path(path)
        _check_path(path)
        with readable(path):
            if is_shard(path):
                raise ResultError(
                    f"{path} is a shard of a result; put all of them together with 'isoprobe merge'"
                )
            if not h5py.is_hdf5(path):
                raise ResultError(f"{path} is no HDF5 file; a result is what 'analyze' wrote")
            file = Hdf5File(path)
            try:
                _check_format(file, path)
                return cls(file, path, temporary)
            except BaseException:
                file.close()
                raise

    @classmethod
    def of(cls, result: Result) -> Self:
        """Return an open result as one of this class; both read the same open file."""
        return cls(result._file, result.path, result._temporary)

    def groups(self) -> list[str]:
        """Return the names of the groups: ``samples`` and one for each analysis."""
        if self._names is None:
            with readable(self.path):
                names = self._file.names()
                self._names = [n for n in names if netcdf.find_group(self._file, n) is not None]
        return list(self._names)

    def __contains__(self, group: object) -> bool:
        return group in self.groups()

    def __getitem__(self, group: str) -> Group:
        """Return the variables of a group.

        Raises:
            ResultError: if there is no such group.
        """
        if group in self._groups:
            return self._groups[group]
        known = self.groups()
        if group not in known:
            raise ResultError(
                f"{self.path} has no group '{group}'{nearest(group, known)}; it has"
                f" {', '.join(known)}. Run that analysis first"
            )
        with readable(self.path):
            found = Group(self._file, self._file.child(self._file.file, group))
            return self._groups.setdefault(group, found)

    def samples(
        self, start: int = 0, stop: int | None = None, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return rows ``[start, stop)`` of per-sample columns.

        Args:
            start: first row.
            stop: one past the last row; None for all.
            names: which columns; None for all.

        Returns:
            Arrays by name, the first axis being the sample.

        Raises:
            ResultError: if a column is not there.
        """
        return {name: v.values for name, v in self.columns(start, stop, names).items()}

    def columns(
        self, start: int = 0, stop: int | None = None, names: Sequence[str] | None = None
    ) -> dict[str, Variable]:
        """Return rows ``[start, stop)`` as :meth:`samples` does, with units and dimensions.

        Raises:
            ResultError: if a column is not there.
        """
        columns = self[_SAMPLES]
        for name in names or ():
            if name not in columns:
                raise ResultError(
                    f"{self.path} has no per-sample column '{name}'{nearest(name, list(columns))}"
                )
        with readable(self.path):
            group = self._file.child(self._file.file, _SAMPLES)
            chosen = list(columns) if names is None else names
            found = {n: netcdf.read_variable(self._file, group, n, start, stop) for n in chosen}
        lengths = {
            len(variable.values) if variable.values.ndim else -1 for variable in found.values()
        }
        if len(lengths) > 1 or -1 in lengths:
            raise ResultError(f"{self.path} is damaged: its columns differ in length")
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of the dimensions ``sample`` and ``latent``."""
        with readable(self.path):
            root = self._file.file
            return {dim: len(self._file.child(root, dim)) for dim in netcdf.SHARED}

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return not self._file.file

    def close(self) -> None:
        """Close the file; remove it if it was temporary."""
        self._names, self._groups = None, {}
        self._file.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __repr__(self) -> str:
        if self.closed:
            return f"<Result {self.path} (closed)>"
        sizes = self.sizes
        lines = [f"<Result {self.path}: {sizes['sample']} samples, {sizes['latent']} latents>"]
        lines += [f"  {name}: {', '.join(self[name])}" for name in self.groups()]
        return "\n".join(lines)


def _check_path(path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    if path.is_dir() and path.name.endswith(".partial"):
        raise ResultError(f"{path} is an unfinished run; complete it with 'analyze --resume'")
    if not path.exists() and partial.is_dir():
        raise ResultError(f"{path} is unfinished; complete it with 'analyze --resume'")
    if not path.exists():
        raise ResultError(f"{path} does not exist; a result is what 'analyze --out' wrote")
    if not path.is_file():
        raise ResultError(f"{path} is not a file; a result is what 'analyze --out' wrote")


def _check_format(file: Hdf5File, path: Path) -> None:
    attrs = netcdf.read_attributes(file)
    if attrs.get("format") != FORMAT:
        raise ResultError(f"{path} is HDF5, but no {FORMAT}; one is what 'analyze' wrote")
    version = int(attrs.get("format_version", 0))
    if version > FORMAT_VERSION:
        raise ResultError(
            f"{path} has format version {version}, this isoprobe reads up to {FORMAT_VERSION};"
            " use a newer isoprobe"
        )
    if version < 1 or attrs.get("complete") is not True:
        raise ResultError(f"{path} is not complete; run 'analyze' again")
    for name, kinds in _TYPES.items():
        if name in attrs and not isinstance(attrs[name], kinds):
            raise ResultError(
                f"{path} is damaged: its attribute '{name}' is {str(attrs[name])[:40]!r}, not "
                f"{' or '.join(kind.__name__ for kind in kinds)}; run 'analyze' again"
            )


def require_numbers(values: np.ndarray, axes: int, where: str) -> np.ndarray:
    """Return values of a file where they are numbers along so many axes.

    Args:
        values: as they were read.
        axes: how many there are to be.
        where: they stand, for the error.

    Raises:
        ResultError: where they are of another form.
    """
    if values.dtype.kind not in "fiub" or values.ndim != axes:
        raise ResultError(
            f"{where} is damaged: it has type {values.dtype} and shape {values.shape}, not numbers "
            f"along {axes} axes; run 'analyze' again"
        )
    return values


@contextlib.contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Blame a file for what goes wrong in the library that reads it, in one line.

    What is made of the values stands outside: its faults are ours.

    Args:
        path: the file.

    Raises:
        IsoprobeError: as it is, when it says what is wrong itself.
        ResultError: in place of other errors.
    """
    try:
        yield
    except IsoprobeError:
        raise
    except _ODD as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ResultError(f"cannot read {path}: {reason}") from error
