"""Say on stderr how far a long run is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(
    total: int | None, done: int, label: str, *, shown: bool, unit: str = "sample"
) -> Iterator[Callable[[int], object]]:
    """A progress bar that appears only on a terminal and after two seconds.

    Args:
        total: samples in all; None where nobody knows.
        done: of these, before the start.
        label: what is being done.
        shown: False for none at all.
        unit: what is counted, where that is no samples.

    Yields:
        A function that takes how many more are done.
    """
    from tqdm import tqdm

    with tqdm(
        total=total,
        initial=done,
        desc=label,
        unit=unit,
        delay=2,
        file=sys.stderr,
        leave=False,
        disable=None if shown else True,
    ) as shown_bar:
        yield shown_bar.update


def say(note: str) -> None:
    """Write a note, without breaking a bar that is shown."""
    from tqdm import tqdm

    tqdm.write(note, file=sys.stderr)
