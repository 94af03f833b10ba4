"""Show what files and plugins say: no character of theirs steers a terminal.

Everything a command writes to stdout or stderr goes through here.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: what may steer a terminal or turn the order of letters around, but for line ends and tabs;
#: bold, colours and their end, which click writes, are let through
_STEERING = re.compile(
    "(\x1b\\[(?:[012]|[39][0-7])(?:;(?:[012]|[39][0-7]))*m)|"
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)


def shown(text: str) -> str:
    """Return a text with every character that steers a terminal written as an escape."""
    return _STEERING.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    if match[1]:
        return match[1]
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class _Shown:
    """A text stream on which nothing is written that steers a terminal.

    Args:
        stream: the stream below.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.quiet = False

    def write(self, text: str) -> int:
        """Write a text; one that begins a line anew, as progress bars do, may."""
        if self.quiet:
            return len(text)
        rest = text.lstrip("\r")
        begun = text[: len(text) - len(rest)]
        self._stream.write(begun + shown(rest))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def quieten(stream: Any, *, quiet: bool = True) -> None:
    """Let nothing through to a stream, or everything again.

    Args:
        stream: standard error while a command runs; another is left alone.
        quiet: False once there is an error to be told.
    """
    if isinstance(stream, _Shown):
        stream.quiet = quiet


@contextmanager
def shown_streams() -> Iterator[None]:
    """Let nothing reach the terminal that steers it, as long as a command runs.

    Yields:
        Nothing.
    """
    before = sys.stdout, sys.stderr
    for name, stream in (("stdout", before[0]), ("stderr", before[1])):
        # a process may be started with either of them closed
        setattr(sys, name, _Shown(stream) if stream is not None else _nowhere())
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _nowhere() -> Any:
    return io.StringIO()
