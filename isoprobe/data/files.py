"""See data files as data sources do: how a spec is split, what is wrong with a file, its hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.errors import CheckpointError, DataError
from isoprobe.files.archives import member_names
from isoprobe.results.sweep import apart, in_folder, shortest, stem

if TYPE_CHECKING:
    from isoprobe.contracts import DataSource

#: a fingerprint reads at most this many blocks of this size
BLOCKS = 64
BLOCK_SIZE = 1 << 16
#: what a short name has no place for, and the most letters of one
_UNFIT, _LONGEST = re.compile(r"[^\w.=+]+"), 80


def split_spec(spec: str) -> tuple[Path, str | None]:
    """Return the path of ``PATH`` or ``PATH:MEMBER``, and the member if there is one.

    A path may hold colons itself: the spec is split at the last colon with a file before it. Where
    there is no file at all, at the last colon.
    """
    if _exists(spec):
        return Path(spec), None
    cuts = [position for position, letter in enumerate(spec) if letter == ":"]
    for cut in reversed(cuts):
        if _exists(spec[:cut]):
            return Path(spec[:cut]), spec[cut + 1 :]
    path, colon, member = spec.rpartition(":")
    return (Path(path), member) if colon else (Path(spec), None)


def shown_name(path: Path, member: str | None) -> str:
    """Return a data set's name for people: the file's name, and what was asked of it."""
    return path.name if member is None else f"{path.name}:{member}"


def short_names(specs: Sequence[str]) -> list[str]:
    """Name data sets in a few letters: after their files, with more where these are the same.

    Args:
        specs: of the data.

    Returns:
        A name for each, all different, that can be part of a file's name.
    """
    forms = []
    for spec in specs:
        path, member = split_spec(spec)
        more = "" if member is None else f"-{member}"
        forms.append((stem(path), f"{stem(path)}{more}", f"{in_folder(path)}{more}"))
    found = [_UNFIT.sub("-", name)[:_LONGEST].strip("-.") for name in shortest(forms)]
    return apart([name or "data" for name in found])


def first_bytes(path: Path, count: int = 512) -> bytes:
    """Return the first bytes of a file; none where there is no readable file."""
    try:
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as stream:
                return stream.read(count)
    except (OSError, ValueError):
        pass
    return b""


def check_file(path: Path) -> None:
    """Check that a path is a file with data of its own in it.

    Raises:
        DataError: when it is missing, a folder, empty, unreadable, a damaged zip archive, or
            a Git LFS pointer.
    """
    source = _look(path)
    if source.is_folder:
        raise DataError(f"expected a file, found a folder: {path}; name a file in it")
    if source.size == 0:
        raise DataError(f"{path} is an empty file; fetch or write it again")
    if source.head(2) == b"PK":
        member_names(path)
    if source.kind is FileKind.LFS_POINTER:
        raise DataError(
            f"{path} is {source.description}; fetch the file itself with 'git lfs pull'"
        )


def fingerprint(path: Path, *details: str, blocks: int = BLOCKS) -> str:
    """Hash a file by its size and samples of its content.

    A file that is no longer than its blocks of 64 KiB together, 4 MiB by default, is read whole.
    Of a longer one these blocks are, evenly spaced from its first byte to its last: a change that
    keeps the size and touches none is not seen. Name and times of the file play no part.

    Args:
        path: the file.
        details: what was asked of the file, such as the name of an array.
        blocks: how many are read of a long file, at least 2.

    Returns:
        ``sha256:`` and 16 hexadecimal digits.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(repr((size, details)).encode())
    last = max(size - BLOCK_SIZE, 0)
    whole = size <= blocks * BLOCK_SIZE
    with path.open("rb") as stream:
        if whole:
            digest.update(stream.read())
        for block in range(0 if whole else blocks):
            stream.seek(last * block // (blocks - 1))
            digest.update(stream.read(BLOCK_SIZE))
    return short_digest(digest.digest())


def short_digest(digest: bytes) -> str:
    """Return a fingerprint's text for a SHA-256."""
    return f"sha256:{digest.hex()[:16]}"


def unopened(spec: str, sources: Iterable[DataSource]) -> str:
    """Return the message for a spec that no data source opens: what it is, and who was asked."""
    path, _ = split_spec(spec)
    asked = f"asked: {', '.join(source.name for source in sources)}; 'isoprobe plugins' says more"
    if not _exists(str(path)):
        return f"data '{spec}': no such file or folder, and no source knows it ({asked})"
    try:
        source = _look(path)
        if not source.is_folder:
            check_file(path)
    except DataError as error:
        return str(error)
    table = (
        ""
        if not _like_a_table(path)
        else (f"; its lines are a table's, which is read by its suffix: name it {path.stem}.csv")
    )
    return f"{path} is {source.description}, which no data source reads{table} ({asked})"


def _like_a_table(path: Path) -> bool:
    """Whether the first two lines of a text have as many of one delimiter, and some."""
    lines = first_bytes(path, 1 << 16).decode("utf-8", "replace").splitlines()[:2]
    return len(lines) > 1 and any(lines[0].count(d) == lines[1].count(d) > 0 for d in ",\t;")


def _look(path: Path) -> Source:
    try:
        return Source(path)
    except CheckpointError as error:
        raise DataError(str(error)) from error


def _exists(path: str) -> bool:
    try:
        return bool(path) and Path(path).exists()
    except (OSError, ValueError):
        return False


def beside(spec: str, checkpoint: str) -> str:
    """Return the spec of a checkpoint's data, in the checkpoint's own folder where it lies there.

    A name with a folder in it is left alone: a stranger's file may not point anywhere it likes.

    Args:
        spec: as the checkpoint names it.
        checkpoint: where the checkpoint lies.

    Returns:
        The spec to open.

    Raises:
        DataError: for a name that leads out of the current folder.
    """
    name = spec.partition(":")[0]
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"the checkpoint's data set '{spec}' lies elsewhere; give it with --data")
    near = Path(checkpoint).parent / name
    if checkpoint and Path(name).name == name and near.is_file():
        return str(near.parent / spec)
    return spec
