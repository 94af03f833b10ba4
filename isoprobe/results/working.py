"""Hold the working folder of an unfinished result: ``F.h5.partial``, beside the file to be.

In it lie the shards that are done, and a record of the run they are of. One run holds the folder at
a time; the processes that share a run hold it together. A killed process leaves it as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from isoprobe.errors import IsoprobeError, ResultError
from isoprobe.files.closing import Closing
from isoprobe.results.shard import SUFFIX, UNFINISHED, Shard
from isoprobe.results.whole import LOCK, check_place, hold_folder

RUN, SETTLED = "run.json", "settled.json"


class Working(Closing):
    """A working folder, held until it is closed.

    Attributes:
        target: the file to be, links followed.
        folder: where shards lie.
        together: several processes hold it.
        keeps: shards stay whatever goes wrong.
    """

    def __init__(
        self,
        target: Path,
        lock: IO[bytes],
        temporary: tempfile.TemporaryDirectory[str] | None,
        *,
        together: bool,
    ) -> None:
        self.target = target
        self.folder = partial(target)
        self.together = self.keeps = together
        self.temporary = temporary
        self._lock = lock
        self._open = True

    @classmethod
    def open(
        cls,
        path: Path | None,
        identity: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = False,
        resume: bool = False,
        together: bool = False,
    ) -> Working:
        """Begin a result, or go on with an unfinished one.

        Args:
            path: the file to be; None for one in a temporary folder that goes away with the result.
            identity: whatever the numbers depend on, as JSON.
            overwrite: replace an existing result, discard an unfinished one.
            resume: go on with an unfinished run of the same identity, if there is one.
            together: several processes do the run, and take each other's shards as their own.

        Returns:
            The folder, held.

        Raises:
            ResultError: if the target exists, is being written, or was begun with another identity.
        """
        temporary = None
        if path is None:
            temporary = tempfile.TemporaryDirectory(prefix="isoprobe-")
            path = Path(temporary.name) / "result.h5"
        target = _check_target(path)
        with explained(target):
            lock = hold_folder(partial(target), shared=together)
            working = cls(target, lock, temporary, together=together)
            try:
                working._begin(plain(identity or {}), overwrite=overwrite, resume=resume)
            except BaseException:
                working.close(keep=working.begun)
                raise
        return working

    # ------------------------------------------------------------------ the record

    @property
    def identity(self) -> dict[str, Any]:
        """Whatever the numbers depend on, as it was given."""
        return dict(self._record()["identity"])

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return any(self.folder.glob(f"*{SUFFIX}"))

    def settled(self) -> dict[str, Any] | None:
        """Return what the run settled on, None where it has not yet."""
        path = self.folder / SETTLED
        return _read_json(path) if path.exists() else None

    def settle(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settle for all processes and for good what does not follow from the identity.

        Returns:
            What holds: the values, or those of a process that was faster.
        """
        with explained(self.target):
            path = self.folder / SETTLED
            if not path.exists():
                _first(path, json.dumps(values).encode())
            settled: dict[str, Any] = _read_json(path)
        return settled

    def _begin(self, identity: dict[str, Any], *, overwrite: bool, resume: bool) -> None:
        """Settle whether to begin, go on or refuse.

        Raises:
            ResultError: if something would be lost.
        """
        there = (self.folder / RUN).exists() and (self.begun or self.together)
        earlier = self._record() if there else None
        going_on = earlier is not None and (resume or self.together)
        found = difference(earlier["identity"], identity) if earlier and going_on else None
        if found is not None and (resume or not overwrite):
            raise ResultError(
                f"cannot resume {self.target}: {found}; use the same options, or start over with"
                " --overwrite"
            )
        going_on = going_on and found is None
        replace = overwrite or bool(going_on and earlier and earlier["replace"])
        if self.target.exists() and not replace:
            raise ResultError(f"{self.target} exists already; add --overwrite to replace it")
        if earlier is not None and not going_on and not overwrite:
            raise ResultError(
                f"{self.folder} holds an unfinished run; go on with --resume, or add --overwrite to"
                " start over"
            )
        if not going_on:
            self._clear(identity, begun=earlier is not None)
        self._replace_record({"identity": identity, "replace": replace})

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = _read_json(self.folder / RUN)
        return record

    def _replace_record(self, record: Mapping[str, Any]) -> None:
        with replacing(self.folder / RUN) as file:
            file.write(json.dumps(record).encode())

    # ------------------------------------------------------------------ the end

    def publish(self, assembled: Path) -> None:
        """Put the finished file, or folder of files, in its place at once; end the working one."""
        with explained(self.target):
            flushed(assembled)
            # from here on a resume may replace the target: it can only be our own
            self._replace_record({"identity": self.identity, "replace": True})
            assembled.replace(self.target)
            self._let_go(keep=False)

    def close(self, *, keep: bool) -> None:
        """Let go of the folder; what is done stays for ``resume`` if ``keep``."""
        if self._open:
            self._let_go(keep=keep)
            if self.temporary is not None:
                self.temporary.cleanup()

    def _let_go(self, *, keep: bool) -> None:
        self._open = False
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def leave(self, error: BaseException | None) -> None:
        """Close, whatever ends the block."""
        self.close(keep=self.keeps or (self.begun and not is_mistake(error)))

    def _clear(self, identity: Mapping[str, Any], *, begun: bool) -> None:
        """Remove what another run left, but nothing that a process beside this one does."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif self.together and path.name.endswith(SUFFIX):
                if not _is_of(path, identity):
                    path.unlink(missing_ok=True)
            elif path.name != LOCK and (begun or not self.together):
                path.unlink(missing_ok=True)


class Visited:
    """A working folder that another process holds, to which shards are added.

    Args:
        target: the file to be, links followed.

    Attributes:
        target: the same.
        folder: where shards lie.
    """

    temporary = None

    def __init__(self, target: Path) -> None:
        self.target, self.folder = target, partial(target)


def is_mistake(error: BaseException | None) -> bool:
    """Whether it is in the input, and will not go away by resuming as a full disk or Ctrl-C will.

    Args:
        error: that ended a run.

    Returns:
        False where there was no error.
    """
    return isinstance(error, IsoprobeError) and not isinstance(error, ResultError)


def discard(target: Path) -> None:
    """Remove a working folder that nobody holds, though others may still be adding shards to it.

    Args:
        target: the file to be, links followed.
    """
    folder = partial(target)
    away = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}{UNFINISHED}")
    with contextlib.suppress(OSError):
        folder.rename(away)  # no shard comes to lie under the old name any more
        shutil.rmtree(away, ignore_errors=True)


def partial(target: Path) -> Path:
    """Return the working folder of a file to be."""
    return target.with_name(target.name + ".partial")


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as a file gives them back."""
    returned: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return returned


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first thing in which two runs' identities differ, in words; None if equal."""
    for name in [*now, *(name for name in before if name not in now)]:
        if before.get(name) != now.get(name):
            return f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
    return None


@contextlib.contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn the system's errors (disk full, no permission) into one line.

    Raises:
        ResultError: in place of OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResultError(f"cannot write {target}: {reason}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write under a name of its own, then put the file in its place at once.

    Yields:
        The file to write to.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flushed(path: Path) -> None:
    """Wait until a file, or every file of a folder, is on the disk."""
    for part in path.iterdir() if path.is_dir() else (path,):
        with part.open("rb") as file:
            os.fsync(file.fileno())


def _first(path: Path, data: bytes) -> None:
    """Write a file whole unless another process is faster."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        temporary.write_bytes(data)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_of(path: Path, identity: Mapping[str, Any]) -> bool:
    try:
        with Shard.open(path) as shard:
            return bool(shard.record.get("identity") == identity)
    except ResultError:
        return False


def _check_target(path: Path) -> Path:
    """Return the target, links followed.

    Raises:
        ResultError: if no file can come to lie there.
    """
    target = check_place(path, overwrite=True)  # whether it may be replaced, the record tells
    folder = partial(target)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ResultError(f"{folder} is in the way; it would hold the unfinished run. Move it")
    return target


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is damaged; start over with --overwrite") from error
