"""Put tables and paragraphs into lines for a terminal of any width; no name is ever broken.

What comes out are lines of text with colours in them, which :func:`click.echo` takes off where
nobody wants them. Rich does the work, and is imported when the first table is drawn.
"""

from __future__ import annotations

import io
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

#: columns of a terminal below which nothing is narrowed any more, and up to which prose is filled
NARROWEST, WIDEST = 40, 110
#: blanks between the columns of a table
_GAP = 2
#: what a table pads its lines with, before the end of a style or at the end
_PADDING = re.compile(r" +((?:\x1b\[0m)?)$")


def width() -> int:
    """Return the columns that a summary takes in this terminal."""
    return min(shutil.get_terminal_size().columns, WIDEST)


def words(text: str, style: str = "") -> Text:
    """Return a text in a style, such as ``bold``, ``green`` or ``dim``; nothing in it is markup."""
    from rich.text import Text

    return Text(text, style=style)


def drawn(text: str, style: str) -> str:
    """Return one line in a style."""
    return "".join(_lines(words(text, style), len(text) + 1))


def paragraph(text: str, width: int = 80, first: str = "", rest: str = "") -> str:
    """Return a text as lines; a word that is longer than the line stays whole.

    Args:
        text: of one paragraph.
        width: columns of the terminal.
        first: what stands before the first line.
        rest: what stands before each other line.

    Returns:
        The lines. The standard library fills them: rich would cut or break a long name.
    """
    return textwrap.fill(
        text, max(width, NARROWEST), initial_indent=first, subsequent_indent=rest,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def table(
    rows: Sequence[Sequence[str | Text]],
    width: int | None = None,
    *,
    left: Sequence[int] = (0,),
    heading: bool = True,
    indent: str = "",
    again: int = 1,
) -> Iterator[str]:
    """Yield the lines of a table; one too wide for the terminal goes on below itself.

    Args:
        rows: as many cells each, the heading first.
        width: columns of the terminal; None for as many as the table needs.
        left: numbers of the columns that hold names; numbers stand to the right.
        heading: whether the first row is one.
        indent: what stands before each line.
        again: columns that tell rows apart, the first ones.

    Yields:
        A line. Where there are more columns than the terminal has room for, those that tell rows
        apart are repeated before those that follow.
    """
    rest = list(range(again, len(rows[0]) if rows else 0))
    room = None if width is None else max(width, NARROWEST) - len(indent)
    while True:
        taken = [*range(again), *rest]
        while room is not None and len(taken) > again + 1 and measured(rows, taken) > room:
            taken.pop()
        chosen = [[row[place] for place in taken] for row in rows]
        aligned = _table(chosen, [taken.index(j) for j in left if j in taken], heading=heading)
        for line in _lines(aligned, measured(rows, taken)):
            yield (indent + line).rstrip()
        rest = rest[len(taken) - again :]
        if not rest:
            return
        yield ""


def measured(rows: Sequence[Sequence[str | Text]], taken: Sequence[int] | None = None) -> int:
    """Return how many columns of a terminal a table needs, or some columns of it."""
    from rich.cells import cell_len

    taken = range(len(rows[0])) if taken is None else taken
    widest = (max(cell_len(str(row[place])) for row in rows) for place in taken)
    return sum(widest) + _GAP * (len(taken) - 1)


def _table(rows: Sequence[Sequence[str | Text]], left: Sequence[int], *, heading: bool) -> Table:
    from rich.table import Table

    made = Table(
        box=None, show_header=heading, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0)
    )
    for place, cell in enumerate(rows[0]):
        title = words(cell) if isinstance(cell, str) else cell
        made.add_column(title, justify="left" if place in left else "right", no_wrap=True)
    for row in rows[1:] if heading else rows:
        made.add_row(*(words(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def _lines(renderable: RenderableType, width: int) -> Iterator[str]:
    console = _console(width)
    with console.capture() as captured:
        console.print(renderable, soft_wrap=False, no_wrap=True, overflow="ignore", crop=False)
    for line in captured.get().splitlines():
        yield _PADDING.sub(r"\1", line)


def _console(width: int) -> Console:
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        force_jupyter=False,
        color_system="standard",
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
    )
