"""Processes that share one analysis, each knowing its place from the environment alone.

Nothing is sent between them: each writes a shard into a folder that all of them see, and the first
one waits for the files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isoprobe.errors import OptionError, ResultError
from isoprobe.progress import say
from isoprobe.results.journal import is_held
from isoprobe.run.shards import Part

#: seconds between two looks at the folder
POLL = 0.5
#: a shard on which nothing has moved for so long, and which no living process holds, is given up
PATIENCE = 60.0
#: how long a shard may take to begin, model and data being loaded first
START = 600.0


@dataclass(frozen=True)
class Process:
    """A process' place among those that a launcher such as torchrun started.

    Attributes:
        rank: from 0, over all machines.
        count: how many there are.
        local: from 0, on this machine.
    """

    rank: int
    count: int
    local: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Process | None:
        """Return the place that RANK, WORLD_SIZE and LOCAL_RANK give; None for a lone process.

        Raises:
            OptionError: when they contradict themselves.
        """
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return None
        given = {k: environment.get(k, "0") for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        rank, count, local = (int(v) if v.isdecimal() else -1 for v in given.values())
        if min(rank, local) < 0 or rank >= count:
            shown = ", ".join(f"{k}={v}" for k, v in given.items())
            raise OptionError(
                f"the environment says {shown}; expected 0 <= RANK < WORLD_SIZE. Unset them for a "
                "single process"
            )
        return cls(rank, count, local) if count > 1 else None

    @property
    def part(self) -> Part:
        """The share of the samples that falls to it."""
        return Part(self.rank + 1, self.count)

    @property
    def parts(self) -> list[Part]:
        """The shares of all processes, in order."""
        return [Part(rank + 1, self.count) for rank in range(self.count)]

    def device(self, wanted: str) -> str:
        """Return the device of this process: one of the machine's accelerators, in turn."""
        import torch

        if wanted not in {"auto", "cuda"} or not torch.cuda.is_available():
            return wanted
        return f"cuda:{self.local % torch.cuda.device_count()}"


def await_shards(
    paths: Sequence[Path], is_done: Callable[[Path], bool], *, shown: bool = True
) -> None:
    """Wait until every shard is finished.

    Args:
        paths: where they will lie.
        is_done: whether a finished shard of this run lies there.
        shown: say on stderr what is being waited for.
    """
    watches = [Watch(path) for path in paths]
    told = 0
    while watches := [watch for watch in watches if not is_done(watch.path)]:
        if shown and len(watches) != told:
            told = len(watches)
            say(f"waiting for {', '.join(watch.path.name for watch in watches)}")
        for watch in watches:
            watch.check(time.monotonic())
        time.sleep(POLL)


class Watch:
    """Tells a shard that is still on its way from one that will never come.

    A process that dies lets go of its lock. Some network file systems keep locks to one machine,
    so that alone is no proof; nothing must have moved for a while either.

    Args:
        path: where the shard will lie.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self._seen: object = None
        self._since = time.monotonic()

    def check(self, now: float) -> None:
        """Look again.

        Args:
            now: seconds on the monotonic clock.

        Raises:
            ResultError: when the process that would write the shard has plainly ended.
        """
        seen = self._look()
        if seen != self._seen:
            self._seen, self._since = seen, now
        still = now - self._since
        begun = self.partial.is_dir()
        if begun and still > PATIENCE and not is_held(self.partial):
            raise ResultError(
                f"the process that was writing {self.path} has ended before it was done; run the "
                "same command again with --resume"
            )
        if not begun and still > START:
            raise ResultError(
                f"no process has begun {self.path} in {still:.0f} s; run all of them with a folder "
                "that all of them see"
            )

    def _look(self) -> object:
        """What would change while a process works: names, sizes and times of its files."""
        try:
            files = [*self.partial.iterdir(), self.path]
            return {f.name: (f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()}
        except OSError:
            return None
