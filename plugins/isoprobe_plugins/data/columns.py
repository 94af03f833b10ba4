"""Which column of a table holds the labels."""

from __future__ import annotations

from collections.abc import Sequence

from isoprobe.errors import DataError, nearest


def label_column(wanted: str | None, names: Sequence[str], count: int, where: str) -> int | None:
    """Find the label column.

    Args:
        wanted: its name, or its number from 0; None when there is none.
        names: names of columns, in order; empty text where a column has none.
        count: number of columns.
        where: the table, for error messages.

    Returns:
        Its number from 0, or None.

    Raises:
        DataError: when there is no such column, or it is the only one.
    """
    if wanted is None:
        return None
    if count < 2:
        raise DataError(f"{where} has one column, so none is left beside the label '{wanted}'")
    if wanted in names:
        return list(names).index(wanted)
    if wanted.isdecimal() and int(wanted) < count:
        return int(wanted)
    known = [name for name in names if name]
    hint = nearest(wanted, known) or ";"
    listed = f" {', '.join(known[:20])}" if known else ""
    raise DataError(
        f"{where} has no column '{wanted}'{hint} name one of its {count} columns{listed}, "
        "or give its number from 0"
    )
