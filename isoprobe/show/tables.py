"""Write the table of latents for papers and spreadsheets: CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from isoprobe.errors import OptionError
from isoprobe.results.flat import inert
from isoprobe.results.whole import check_place, replacing
from isoprobe.show.shown import TABLE, columns, said
from isoprobe.show.summary import by_importance, latent_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isoprobe.show.shown import Readable

FORMATS = (".csv", ".md", ".tex")
_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
          "^": r"\^{}", "{": r"\{", "}": r"\}", "~": r"\~{}"}  # fmt: skip


def write_latents(
    result: Readable, path: Path, *, overwrite: bool = False, inputs: Iterable[object] = ()
) -> None:
    """Write the latents, the most important first.

    Args:
        result: a complete result.
        path: a ``.csv`` with every column at full precision, or the table that everyone knows as
            ``.md`` or ``.tex`` (booktabs), in the digits of the summary.
        overwrite: replace an existing file.
        inputs: what was read, which it may not replace.

    Raises:
        OptionError: for another ending.
    """
    if path.suffix not in FORMATS:
        raise OptionError(f"latents are written as {', '.join(FORMATS)}; found '{path.name}'")
    check_place(path, overwrite=overwrite, inputs=inputs)
    text = {".csv": _csv, ".md": _markdown, ".tex": _latex}[path.suffix](result)
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


def _csv(result: Readable) -> str:
    table, stream = latent_table(result), io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(inert, table))
    writer.writerows([inert("" if cell is None else cell) for cell in row]
                     for row in zip(*table.values(), strict=True))  # fmt: skip
    return stream.getvalue()


def _cells(result: Readable) -> list[list[str]]:
    """Heading and rows of the known table, in words."""
    shown = columns(result)
    known = [one for one in shown if one.place in TABLE]
    rows = [[str(j), *(said(one.values[j], one.form) for one in known)]
            for j in by_importance(shown)]  # fmt: skip
    return [["latent", *(one.title for one in known)], *rows]


def _markdown(result: Readable) -> str:
    heading, *rows = ([cell.replace("|", r"\|") for cell in row] for row in _cells(result))
    lines = [heading, ["---:"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(result: Readable) -> str:
    heading, *rows = (["".join(_LATEX.get(c, c) for c in cell) for cell in row]
                      for row in _cells(result))  # fmt: skip
    lines = [" & ".join(row) + r" \\" for row in (heading, *rows)]
    return "\n".join([
        rf"\begin{{tabular}}{{{'r' * len(heading)}}}", r"\toprule", lines[0], r"\midrule",
        *lines[1:], r"\bottomrule", r"\end{tabular}", "",
    ])  # fmt: skip
