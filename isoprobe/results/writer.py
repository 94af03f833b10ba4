"""Writes a result file: journaled batch by batch, published whole by a rename."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from isoprobe.errors import IsoprobeError, ResultError
from isoprobe.files.hdf5 import created
from isoprobe.results import netcdf
from isoprobe.results.journal import Journal, difference, saved_record
from isoprobe.results.reader import FORMAT, FORMAT_VERSION, SHARD, Result
from isoprobe.results.whole import check_place

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Variable

SAMPLES = "samples"
#: group of a shard that holds what was accumulated
STATE = "state"
_SLICE_BYTES = 1 << 24


class ResultWriter:
    """Takes batches in, and hands a complete result file back at the end.

    Until then everything lies in ``<name>.partial`` beside the target, which a killed process
    leaves behind for ``resume``; an older file of that name stays as it is until the new one is
    whole. Use it as a context manager, or call :meth:`finish` or :meth:`abort`.
    """

    def __init__(
        self,
        journal: Journal,
        target: Path,
        sizes: Mapping[str, int],
        record: dict[str, Any],
        interval: float,
    ) -> None:
        self.path = target
        self._journal = journal
        self._sizes = dict(sizes)
        self._record = record
        self._interval = interval
        self._saved_at = time.monotonic()
        self._groups: dict[str, Mapping[str, Variable]] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._open = True

    @classmethod
    def open(
        cls,
        path: Path | None,
        *,
        samples: int,
        latent: int,
        overwrite: bool = False,
        resume: bool = False,
        identity: Mapping[str, Any] | None = None,
        interval: float = 5.0,
    ) -> ResultWriter:
        """Begin a result, or go on with an unfinished one.

        Args:
            path: the file to be; None for one in a temporary folder that goes away with the result.
            samples: length of dimension ``sample``.
            latent: length of dimension ``latent``.
            overwrite: replace an existing result, discard an unfinished one.
            resume: go on with an unfinished run of the same identity, if there is one.
            identity: whatever the numbers depend on (model, metric, data, seed, options), as JSON.
            interval: seconds between two saved states, at least.

        Returns:
            The writer, holding a lock on the target.

        Raises:
            ResultError: if the target exists, is being written, or was begun with another identity.
        """
        temporary = None
        if path is None:
            temporary = tempfile.TemporaryDirectory(prefix="isoprobe-")
            path = Path(temporary.name) / "result.h5"
        target = _check_target(path)
        sizes = {"sample": samples, "latent": latent}
        given = json.loads(json.dumps({**(identity or {}), **sizes}, default=str))
        with _explained(target):
            journal = Journal(_partial(target))
            try:
                record = _begin(journal, target, given, overwrite=overwrite, resume=resume)
            except BaseException:
                journal.close() if journal.saved else journal.remove()
                raise
        writer = cls(journal, target, sizes, record, interval)
        writer._temporary = temporary
        return writer

    # ------------------------------------------------------------------ batches

    def append(self, start: int, columns: Mapping[str, Variable]) -> None:
        """Store rows ``[start, start + B)`` of per-sample columns, new or known.

        Raises:
            PluginError: if a column changes its type or shape, or runs past the last sample.
        """
        with _explained(self.path):
            for name, variable in columns.items():
                netcdf.check_group(SAMPLES, {name: variable}, self._batch_sizes(start, variable))
                self._journal.write(start, name, variable)

    def due(self) -> bool:
        """Return True when :meth:`checkpoint` would save."""
        return time.monotonic() - self._saved_at >= self._interval

    def checkpoint(
        self, next_index: int, state: Mapping[str, np.ndarray], *, force: bool = False
    ) -> None:
        """Save that every row before ``next_index`` is done; a no-op until the interval is over."""
        if force or self.due():
            with _explained(self.path):
                self._journal.save(next_index, state)
            self._saved_at = time.monotonic()

    def resume_point(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Return the first row still to do and the state there; None to begin at the first."""
        return self._journal.load()

    def names(self) -> list[str]:
        """Return the names of the stored columns."""
        return list(self._journal.columns)

    def columns(
        self, start: int, stop: int, names: list[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return rows ``[start, stop)`` of stored columns.

        Raises:
            PluginError: if a column is unknown or lacks some of these rows.
        """
        stop = min(stop, self._sizes["sample"])
        chosen = self.names() if names is None else names
        with _explained(self.path):
            return {name: self._journal.read(name, start, stop) for name in chosen}

    # ------------------------------------------------------------------ the end

    def write_group(self, name: str, variables: Mapping[str, Variable]) -> None:
        """Keep the named arrays of an analysis for the file.

        Raises:
            PluginError: naming the variable whose name, dimensions or type will not do.
        """
        netcdf.check_group(name, variables, self._sizes)
        self._groups[name] = dict(variables)

    def finish(self, attrs: Mapping[str, Any]) -> Result:
        """Assemble the file, put it in its place at once, and open it.

        Args:
            attrs: root attributes; only the format and its version are added, no time stamp.

        Returns:
            The complete result.

        Raises:
            ResultError: if the disk is full or the like; what was saved is kept.
        """
        self._publish({**attrs, "format": FORMAT})
        return Result.open(self.path, temporary=self._temporary)

    def finish_shard(self, attrs: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> None:
        """Assemble a shard instead: the rows so far, and what was accumulated over them.

        Args:
            attrs: root attributes.
            state: named arrays, kept in the group ``state``.

        Raises:
            ResultError: if the disk is full or the like; what was saved is kept.
        """
        self._publish({**attrs, "format": SHARD}, state)

    def _publish(
        self, attrs: Mapping[str, Any], state: Mapping[str, np.ndarray] | None = None
    ) -> None:
        assembled = self._journal.folder / "assembled.h5"
        with _explained(self.path):
            try:
                self._assemble(assembled, attrs, state)
                # from here on a resume may replace the target: it can only be our own
                self._journal.record({**self._record, "replace": True})
                assembled.replace(self.path)
            finally:
                assembled.unlink(missing_ok=True)
            self._open = False
            self._journal.remove()

    def abort(self, *, keep: bool = True) -> None:
        """Give up; what was saved stays for ``resume`` if ``keep``, otherwise nothing does."""
        if not self._open:
            return
        self._open = False
        if keep and self._journal.saved and self._temporary is None:
            self._journal.close()
        else:
            self._journal.remove()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # a mistake in the input will not go away by resuming; a full disk or Ctrl-C will
        mistake = isinstance(error, IsoprobeError) and not isinstance(error, ResultError)
        self.abort(keep=not mistake)

    def _batch_sizes(self, start: int, variable: Variable) -> dict[str, int]:
        rows = len(variable.values) if variable.values.ndim else 0
        last = self._sizes["sample"] - start
        return {"sample": min(rows, last), "latent": self._sizes["latent"]}

    def _assemble(
        self, path: Path, attrs: Mapping[str, Any], state: Mapping[str, np.ndarray] | None
    ) -> None:
        rows = self._sizes["sample"]
        with created(path) as file:
            netcdf.write_scales(file, self._sizes)
            for name, column in self._journal.columns.items():
                data = netcdf.create_column(file, SAMPLES, name, column, rows)
                step = max(1, _SLICE_BYTES // max(1, column.row_bytes))
                step += -step % (data.chunks[0] if data.chunks else 1)  # whole chunks: packed once
                for start in range(0, rows, step):
                    stop = min(start + step, rows)
                    data[start:stop] = self._journal.read(name, start, stop)
            for name, variables in self._groups.items():
                netcdf.write_group(file, name, variables)
            if state is not None:
                netcdf.write_arrays(file, STATE, state)
            ours = {"format_version": FORMAT_VERSION, "complete": True}
            netcdf.write_attributes(file, {**attrs, **ours})


def unfinished(path: Path) -> dict[str, Any] | None:
    """Return the identity of the unfinished run whose result ``path`` would be, if there is one."""
    record = saved_record(_partial(path.expanduser().resolve()))
    return None if record is None else dict(record["identity"])


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def _check_target(path: Path) -> Path:
    """Return the target, links followed.

    Raises:
        ResultError: if no file can come to lie there.
    """
    target = check_place(path, overwrite=True)  # whether it may be replaced, the journal tells
    partial = _partial(target)
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise ResultError(f"{partial} is in the way; it would hold the unfinished run. Move it")
    return target


def _begin(
    journal: Journal, target: Path, identity: dict[str, Any], *, overwrite: bool, resume: bool
) -> dict[str, Any]:
    """Settle whether to begin, go on or refuse.

    Returns:
        The run's record.

    Raises:
        ResultError: if something would be lost.
    """
    earlier = journal.run() if journal.saved else None
    record: dict[str, Any] = {"identity": identity, "replace": overwrite}
    if earlier is not None and resume:
        _same_identity(target, earlier["identity"], identity)
        record["replace"] = overwrite or bool(earlier["replace"])
    if target.exists() and not record["replace"]:
        raise ResultError(f"{target} exists already; add --overwrite to replace it")
    if earlier is not None and not resume and not overwrite:
        raise ResultError(
            f"{journal.folder} holds an unfinished run; go on with --resume, or add --overwrite to"
            " start over"
        )
    if earlier is not None and resume:
        journal.record(record)
        journal.load()
    else:
        journal.begin(record)
    return record


def _same_identity(target: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    found = difference(before, now)
    if found is not None:
        raise ResultError(
            f"cannot resume {target}: {found}; use the same options, or start over with --overwrite"
        )


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Turn the system's errors (disk full, no permission) into one line.

    Raises:
        ResultError: in place of OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResultError(f"cannot write {target}: {reason}") from error
