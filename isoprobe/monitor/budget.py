"""Keep what a monitor costs within a share of the training's time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: measurements of which the shortest tells what the next one takes; the others were disturbed
_RECENT = 3


@dataclass
class Budget:
    """Time that went into the training, and into what was measured between its ends.

    Attributes:
        share: of the training's time that measurements may take; None for no limit.
        clock: seconds, from any beginning.
        began: when the training began, by the clock.
        spent: seconds that measurements took since, the one last taken among them.
        last: seconds of that one.
    """

    share: float | None
    clock: Callable[[], float] = time.perf_counter
    began: float = field(init=False)
    spent: float = 0.0
    last: float = 0.0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def training(self) -> float:
        """Seconds of training so far, without what was measured."""
        return self.clock() - self.began - self.spent

    @property
    def expected(self) -> float:
        """Seconds that the next measurement is expected to take."""
        return min(self._recent, default=0.0)

    def affords(self) -> bool:
        """Say whether one more measurement keeps within the share."""
        if self.share is None:
            return True
        return self.spent + self.expected <= self.share * self.training

    def try_out(self, seconds: float) -> None:
        """Note what a measurement took that counts as no part of the training."""
        self._recent.append(seconds)
        self.began = self.clock()

    def charge(self, seconds: float) -> None:
        """Count a measurement."""
        self.spent += seconds
        self.last = seconds
        self._recent.append(seconds)
