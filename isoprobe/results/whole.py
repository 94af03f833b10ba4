"""Write files that are whole or not there, and never in the place of anything but a file.

What is written lies under a random name beside its target, made anew and never through a link,
until it takes the target's place at once. Two runs to one target exclude each other, and nothing
is ever written over what a run reads.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from isoprobe.errors import FileError

#: lies in every working folder: a folder without it is not ours, and is left as it is
LOCK = "lock"


def check_place(path: Path, *, overwrite: bool = False, inputs: Iterable[object] = ()) -> Path:
    """Refuse a place where no file can be written without a loss, before any work is done.

    Args:
        path: the file to be.
        overwrite: an existing file may be replaced.
        inputs: paths of what the run reads: files, and folders of files; others are passed over.

    Returns:
        The path, links followed.

    Raises:
        FileError: when it exists and may not be replaced, is no regular file or an input of the
            run, or has no folder.
    """
    try:
        target = path.expanduser().resolve()
        there = _status(target)
        folder = _status(target.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    except (RuntimeError, ValueError) as error:  # a link to itself, the home of nobody
        raise FileError(f"{path} leads nowhere: {error}; name another file") from error
    if folder is None or not stat.S_ISDIR(folder.st_mode):
        raise FileError(f"{path}: there is no folder {target.parent}; make it first")
    if there is None:
        return target
    if not stat.S_ISREG(there.st_mode):
        raise FileError(f"{path} is not a regular file; name a file to write")
    for source in inputs:
        if _is_in(target, there, source):
            raise FileError(f"{path} is read by this very run ({source}); name another file")
    if not overwrite:
        raise FileError(f"{path} exists already; add --overwrite to replace it")
    return target


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside a file that takes the file's place at once when all is written.

    Args:
        path: the file to be.

    Yields:
        Where to write: an empty file, made for this alone.

    Raises:
        FileError: when the place holds something else than a file, or another run writes there.
    """
    target = check_place(path, overwrite=True)
    with held(target):
        _remove_left(target)
        partial = new_beside(target)
        try:
            yield partial
            check_place(target, overwrite=True)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def new_beside(target: Path) -> Path:
    """Make an empty file beside another, under a name that nobody knows beforehand.

    Args:
        target: the other file.

    Returns:
        The new file, readable by whom the process's umask lets.
    """
    path = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
    return path


@contextmanager
def held(target: Path) -> Iterator[None]:
    """Hold a target against other runs, by a lock beside it that goes with the process.

    Args:
        target: the file to be, links followed.

    Yields:
        Nothing.

    Raises:
        FileError: when another run holds it.
    """
    path = target.with_name(f".{target.name}.lock")
    lock = _locked(path, shared=False)
    if lock is None:
        raise FileError(
            f"{target} is being written by another process; wait for it, or choose another output"
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.close()


def hold_folder(folder: Path, *, shared: bool = False) -> IO[bytes]:
    """Make a working folder, or take over the one that an earlier run of ours left.

    Args:
        folder: the folder.
        shared: several processes of one run hold it together.

    Returns:
        Its lock, which holds it until it is closed or the process dies.

    Raises:
        FileError: when another run holds it, or it is not ours.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        status = folder.lstat()
        entries = {p.name for p in folder.iterdir()} if stat.S_ISDIR(status.st_mode) else {"a file"}
        if entries and LOCK not in entries:
            raise FileError(f"{folder} is in the way, and no run of ours made it. Move it")
        with contextlib.suppress(FileNotFoundError):  # removed since by a run that ended
            lock = _locked(folder / LOCK, shared=shared)
            if lock is None:
                raise FileError(
                    f"{folder} is being written by another process; wait for it, or choose another"
                    " output"
                )
            return lock


def _locked(path: Path, *, shared: bool) -> IO[bytes] | None:
    """Return the file at a path, locked; None where another process has locked it."""
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        lock = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return None
        # a run that ended between the opening and the locking took the file away with it
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.lstat()):
                return lock
        lock.close()


def _remove_left(target: Path) -> None:
    """Remove what a killed run to this target left; its lock is ours now."""
    left = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{16}\.partial")
    for path in target.parent.iterdir():
        if left.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            path.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_in(target: Path, there: os.stat_result, source: object) -> bool:
    """Return True when a target is a source, or lies in the folder that is one."""
    try:
        path = Path(str(source)).expanduser().resolve()
        status = _status(path)
    except (OSError, RuntimeError, ValueError):
        return False
    if status is None:
        return False
    if stat.S_ISDIR(status.st_mode):
        return target.is_relative_to(path)
    return os.path.samestat(status, there)
