"""Try several things in one call: one that fails is named at the end, the others go on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from isoprobe.errors import IsoprobeError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Attempts:
    """What failed so far, by item."""

    def __init__(self) -> None:
        self.failed: dict[str, IsoprobeError] = {}

    @contextmanager
    def item(self, name: str) -> Iterator[None]:
        """Go on after an error of the user's or the input's; anything else is a defect and stops.

        Args:
            name: of what is tried.

        Yields:
            Nothing.
        """
        try:
            yield
        except IsoprobeError as error:
            self.failed[name] = error
            click.echo(f"{name} failed: {error}", err=True)

    def conclude(self) -> None:
        """Raise what has failed, as one line.

        Raises:
            IsoprobeError: the error itself where there is one.
            OptionError: for several.
        """
        if len(self.failed) == 1:
            name, error = next(iter(self.failed.items()))
            raise type(error)(f"{name}: {error}") from error
        if self.failed:
            raise OptionError(
                f"{len(self.failed)} items failed ({', '.join(self.failed)}) as said above; "
                "remove the reasons and repeat the command, and it does what is missing"
            )
