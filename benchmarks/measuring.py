"""Times in turns and peaks of memory, as ratios with their range."""

from __future__ import annotations

import ctypes
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

#: something to time
Work = Callable[[], object]
_STATUS = Path("/proc/self/status")


def shown(lines: Iterable[str], page: Path | None) -> None:
    """Print lines as they come, and write them to a page where one is named."""
    kept = []
    for line in lines:
        print(line, flush=True)
        kept.append(line)
    if page is not None:
        page.write_text("\n".join(kept) + "\n")


def cpu_seconds(work: Work) -> float:
    """CPU time of one call, all threads of the process together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(ways: Mapping[str, Work], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each way, taken in turns after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            seconds = cpu_seconds(way)
            if turn:
                times[name].append(seconds)
    return times


def ratio(times: list[float], unit: float) -> str:
    """Median of times over a unit, with the range: ``0.95 (0.87 to 1.10)``."""
    parts = [seconds / unit for seconds in times]
    return f"{statistics.median(parts):.2f} ({min(parts):.2f} to {max(parts):.2f})"


def peak_mib(work: Work) -> float | None:
    """Resident memory that one call adds at its peak; None where the system does not tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed does not count as there
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        work()
        return max(_resident("VmHWM") - before, 0.0)
    except (OSError, AttributeError):
        return None


def _resident(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    return int(found[1]) / 1024 if found else 0.0
