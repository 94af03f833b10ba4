"""Be used in a ``with`` block, and know at its end whether an error ends it."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Closing(abc.ABC):
    """What a ``with`` block closes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave(error)

    @abc.abstractmethod
    def leave(self, error: BaseException | None) -> None:
        """Close; ``error`` is what ends the block, None where it ends by itself."""


class Closable(Closing):
    """What is closed in one way, by hand or by a ``with`` block, however that ends."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close."""

    def leave(self, error: BaseException | None) -> None:
        """Close, whatever ends the block."""
        self.close()
