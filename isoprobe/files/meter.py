"""Count what is built from a file, so that no file takes memory out of proportion to its size.

Every reader of strangers' files charges the one meter of the file it reads. The limit stands here
and nowhere else; ``--file-limit`` and the variable ``ISOPROBE_FILE_LIMIT`` raise it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from isoprobe.errors import FileError, OptionError

if TYPE_CHECKING:
    import numpy as np

#: bytes that may be built from each byte of a file; dSprites, well compressed, holds 116
FACTOR = 128
#: bytes that may be built from any file
FLOOR = 64 << 20
#: environment variable that raises the limit, as in ``ISOPROBE_FILE_LIMIT=8GiB``
VARIABLE = "ISOPROBE_FILE_LIMIT"
#: about what Python takes for one object
OBJECT = 64

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*([KMG]?I?)B?", re.IGNORECASE)


def bytes_of(text: str) -> int | None:
    """Return the bytes of a size such as ``500MB`` or ``2GiB``, None for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None or not float(match[1]):
        return None
    return int(float(match[1]) * _UNITS[match[2].upper()])


def raised() -> int:
    """Return the limit a user has set for any file, 0 where there is none.

    Raises:
        OptionError: if the environment variable holds no size.
    """
    text = os.environ.get(VARIABLE, "")
    size = bytes_of(text) if text else 0
    if size is None:
        raise OptionError(f"{VARIABLE} is {text!r}; expected a size such as 8GiB")
    return size


def allowance(size: int) -> int:
    """Return how many bytes may be built from a file of so many bytes."""
    return max(FACTOR * size + FLOOR, raised())


class Meter:
    """What was built from one file so far.

    Args:
        where: how to name the file in an error.
        size: its length in bytes.
    """

    def __init__(self, where: object, size: int) -> None:
        self.where, self.size = str(where), size
        self.limit = allowance(size)
        self.built = 0

    def charge(self, count: float, what: str = "its content") -> None:
        """Count bytes that are about to be built.

        Raises:
            FileError: when all that was built is out of proportion to the file.
        """
        self.built += int(count)
        if self.built > self.limit:
            raise FileError(
                f"{self.where}: {what} takes over {self.limit} bytes, out of proportion to a file "
                f"of {self.size}; it is damaged or hostile. If you know it is neither, raise "
                "--file-limit"
            )

    def check(self, count: float, what: str) -> None:
        """Refuse something of so many bytes that is held for a moment only.

        Raises:
            FileError: when it alone is out of proportion to the file.
        """
        built, self.built = self.built, 0
        try:
            self.charge(count, what)
        finally:
            self.built = built

    def texts(self, cells: Iterable[object], what: str = "its text") -> np.ndarray:
        """Return cells as an array of texts, in which each takes as many bytes as the longest.

        Args:
            cells: texts, or what is to be one.
            what: how to name them in an error.

        Returns:
            ``(N,)``, of fixed width.

        Raises:
            FileError: when a long one among many is out of proportion to the file.
        """
        import numpy as np

        cells = list(cells)
        longest = max((len(c) for c in cells if isinstance(c, str | bytes)), default=0)
        self.check(4 * len(cells) * longest, what)
        return np.array([str(cell) for cell in cells], np.str_)
