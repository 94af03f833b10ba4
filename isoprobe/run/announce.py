"""Announce what a long run will take, from its own first batches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: a run that takes longer is announced, seconds
LONG = 30.0
#: batches after the first that are enough to go by, or seconds that are
_BATCHES, _SECONDS = 3, 5.0
_GIB, _MIB = 1 << 30, 1 << 20


@dataclass
class Trial:
    """Times of the first batches; the very first one, which warms up, is left out.

    Attributes:
        samples: that were still to come before the first batch.
    """

    samples: int
    _counts: list[int] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)

    def add(self, count: int, seconds: float) -> None:
        """Take in a batch."""
        self._counts.append(count)
        self._seconds.append(seconds)

    @property
    def over(self) -> bool:
        """Whether there is enough to go by."""
        return len(self._counts) > _BATCHES or sum(self._seconds[1:]) > _SECONDS

    @property
    def per_sample(self) -> float:
        """Seconds a sample."""
        return sum(self._seconds[1:]) / sum(self._counts[1:])

    @property
    def total(self) -> float:
        """Seconds of the whole pass."""
        return self.per_sample * self.samples


def announcement(trial: Trial, decoding: float, memory: int, *, exact: bool) -> str | None:
    """Say what a long run will take, and what would make it shorter.

    Args:
        trial: its first batches.
        decoding: seconds that one plain decoder pass takes a sample.
        memory: peak so far, bytes; it does not grow with the samples.
        exact: the pullback is taken exactly, so that an estimate would be cheaper.

    Returns:
        A sentence or two; None for a run that is not long.
    """
    if trial.total <= LONG:
        return None
    shorter = ["--samples auto, or fewer samples"]
    if exact:
        shorter.insert(0, "--pullback probe")
    each = f"{trial.per_sample * 1e3:.3g} ms each"
    passes = f"as {trial.per_sample / decoding:.3g} plain decoder passes"
    held = f", in {bytes_told(memory)}" if memory else ""
    return (
        f"About {duration(trial.total)} for {trial.samples:,} samples: {each}, {passes}"
        f"{held}. Shorter: {'; '.join(shorter)}."
    )


def decoding_time(decode: Callable[[Tensor], Tensor], z: Tensor) -> float:
    """Return the seconds that one plain decoder pass takes a sample.

    Args:
        decode: the decoder.
        z: latents of a batch, ``(B, n)``.
    """
    import torch

    times = []
    for _ in range(2):  # the faster one: the first may warm up
        began = time.perf_counter()
        with torch.no_grad():
            decode(z).sum().item()  # which waits for an accelerator
        times.append(time.perf_counter() - began)
    return min(times) / len(z)


def peak_memory(device: str) -> int:
    """Return the most bytes held so far, on an accelerator or in this process."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def bytes_told(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    if count < _MIB:
        return f"{count / 1024:.1f} KiB"
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
