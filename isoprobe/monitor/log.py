"""Write what a monitor finds: a line of JSON and a row of a table for each step."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from isoprobe.errors import ResultError
from isoprobe.progress import say
from isoprobe.show.trend import COLUMNS, cells

if TYPE_CHECKING:
    from isoprobe.show.trend import Point

#: name of a log that nobody named
AUTO = "auto"
_WIDTH = 8
#: titles that fit
_SHORT = {"rate [nat]": "rate", "distortion": "distort.", "recovered": "recover."} | {
    "eigenvalue": "eigenv."
}


def log_path(out: str | Path, folder: Path = Path()) -> Path:
    """Say where a log is written.

    Args:
        out: as asked; ``auto`` for a new name in the folder, from the time.
        folder: made where there is none.

    Returns:
        The path.

    Raises:
        ResultError: where the folder cannot be made.
    """
    if str(out) != AUTO:
        return Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    name = time.strftime("isoprobe-monitor-%Y%m%d-%H%M%S")
    names = (f"{name}{more}.jsonl" for more in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(folder / name for name in names if not (folder / name).exists())


class JsonLines:
    """A log, a line at a time, on disk at once.

    Args:
        path: the file.
        append: go on with an existing one.

    Attributes:
        path: the file.

    Raises:
        ResultError: if it exists already, or cannot be written.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self.path = path
        try:
            self._file: IO[str] = path.open("a" if append else "x", encoding="utf-8")
        except FileExistsError as error:
            raise ResultError(
                f"{path} exists already; name another file, or go on with it: resume=True"
            ) from error
        except OSError as error:
            raise ResultError(f"cannot write {path}: {error.strerror or error}") from error

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line."""
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class LiveTable:
    """Rows on stderr, as they come, without breaking a progress bar."""

    def __init__(self) -> None:
        self._begun = False

    def row(self, found: Point, seconds: float) -> None:
        """Show a point, and how long it took."""
        if not self._begun:
            self._begun = True
            titles = (_SHORT.get(title, title) for _, title, _ in COLUMNS)
            say(_line(["step", *titles, "seconds"]))
        say(_line([f"{found.step:g}", *cells(found), f"{seconds:.3f}"]))


def _line(words: list[str]) -> str:
    return " ".join(word.rjust(_WIDTH) for word in words)


def record_of(found: Point, **more: float) -> dict[str, Any]:
    """Return a point as a line of the log holds it."""
    return {**asdict(found), **more}
