"""Turn text into values of options that click has no type for, or into a usage error."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal

import click
from click.shell_completion import CompletionItem

from isoprobe.files.meter import bytes_of
from isoprobe.registry.lookup import installed

#: no count, size or number of pixels is larger
LARGEST = 1 << 48
MOST = 10**12
PIXELS = 1 << 16
_SHAPE = re.compile(r"[1-9]\d{0,8}(?:x[1-9]\d{0,8}){0,7}")
_PIXELS = re.compile(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?")


#: what torch and numpy take for a seed
SEED = click.IntRange(0, 2**63 - 1)

if TYPE_CHECKING:
    _Text = click.ParamType[str]
else:  # older releases of click have no types to fill in
    _Text = click.ParamType


class PluginName(_Text):
    """A text that begins with the name of a plugin, which a shell completes.

    Args:
        kinds: of plugin; several are offered as ``KIND.NAME``, and one as ``NAME``.
    """

    name = "text"

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return names that entry points declare, so that nothing is imported."""
        beside = "+" if incomplete.startswith("+") else ""  # +NAME runs an analysis beside others
        found = installed().declared()
        names = [
            beside + (name if len(self.kinds) == 1 else f"{kind}.{name}")
            for kind in self.kinds
            for name in found[kind]
        ]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Spec(_Text):
    """The spec of a data set, most often a file, which a shell completes."""

    name = "text"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Let the shell offer files."""
        return [CompletionItem(incomplete, type="file")]


#: what a shell offers for an option, whichever command has it
COMPLETED = {
    "--metric": PluginName("metric"),
    "--analysis": PluginName("analysis"),
    "--adapter": PluginName("adapter"),
    "--data": Spec(),
    "--against": Spec(),
}


def auto_or_positive(_: click.Context, __: click.Parameter, text: str | None) -> float | str | None:
    """Return ``auto``, or a positive number; None when not given.

    Raises:
        BadParameter: for anything else.
    """
    if text is None or text == "auto":
        return text
    number = _number(text)
    if number is None or number <= 0:
        raise click.BadParameter(f"expected auto or a positive number, found '{text}'.")
    return number


def all_or_count(_: click.Context, __: click.Parameter, text: str) -> int | None:
    """Return a count, None for ``all``.

    Raises:
        BadParameter: for anything else.
    """
    return _word_or_count(text, "all")


def all_auto_or_count(
    _: click.Context, __: click.Parameter, text: str
) -> int | Literal["auto"] | None:
    """Return a count, None for ``all``, or ``auto``.

    Raises:
        BadParameter: for anything else.
    """
    return "auto" if text == "auto" else _word_or_count(text, "all, auto", "all")


def auto_or_count(_: click.Context, __: click.Parameter, text: str) -> int | None:
    """Return a count, None for ``auto``.

    Raises:
        BadParameter: for anything else.
    """
    return _word_or_count(text, "auto")


def size_in_bytes(_: click.Context, __: click.Parameter, text: str) -> int:
    """Return the bytes of a size such as ``500MB`` or ``2GiB``.

    Raises:
        BadParameter: for anything else.
    """
    size = bytes_of(text)
    if size is None or size > LARGEST:
        raise click.BadParameter(f"expected a size such as 500MB or 2GiB, found '{text}'.")
    return size


def low_and_high(
    _: click.Context, __: click.Parameter, text: str | None
) -> tuple[float, float] | None:
    """Return the ends of a range such as ``0:255``; None when not given.

    Raises:
        BadParameter: for anything else.
    """
    if text is None:
        return None
    ends = [_number(part) for part in text.split(":")]
    if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
        raise click.BadParameter(f"expected LOW:HIGH, as in 0:255, found '{text}'.")
    return ends[0], ends[1]


def height_and_width(
    _: click.Context, __: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    """Return the pixels of a size such as ``32`` or ``28x32``; None when not given.

    Raises:
        BadParameter: for anything else.
    """
    if text is None:
        return None
    match = _PIXELS.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2] or 1)) > PIXELS:
        raise click.BadParameter(f"expected pixels, as in 32 or 28x32, found '{text}'.")
    return int(match[1]), int(match[2] or match[1])


def shapes(
    _: click.Context, __: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[int, ...], ...]:
    """Return shapes such as ``1x16x16``.

    Raises:
        BadParameter: for anything else.
    """
    for text in texts:
        if _SHAPE.fullmatch(text) is None:
            raise click.BadParameter(f"expected a shape such as 1x16x16, found '{text}'.")
    return tuple(tuple(map(int, text.split("x"))) for text in texts)


def image_shape(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, ...] | None:
    """Return the shape of a picture such as ``28x28``; None when not given.

    Raises:
        BadParameter: for anything else.
    """
    if text is None:
        return None
    (shape,) = shapes(context, parameter, (text,))
    if len(shape) not in {2, 3}:
        raise click.BadParameter(f"expected HxW or CxHxW, as in 28x28, found '{text}'.")
    return shape


def _word_or_count(text: str, words: str, none: str | None = None) -> int | None:
    if text == (none or words):
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 13 or not 1 <= int(text) <= MOST:
        raise click.BadParameter(f"expected {words} or a count from 1 to {MOST}, found '{text}'.")
    return int(text)


def _number(text: str) -> float | None:
    """Return the finite number a text stands for, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
