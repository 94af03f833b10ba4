"""Know a process' place among those that share one analysis, from the environment alone.

Nothing is sent between them: each makes shards in a folder that all of them see, its own first and
then any that are still missing, so that nobody waits for one that died.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isoprobe.errors import OptionError
from isoprobe.run.shards import Part


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
        """The share of the shards that falls to it."""
        return Part(self.rank + 1, self.count)

    def device(self, wanted: str) -> str:
        """Return the device of this process: one of the machine's accelerators, in turn."""
        import torch

        if wanted not in {"auto", "cuda"} or not torch.cuda.is_available():
            return wanted
        return f"cuda:{self.local % torch.cuda.device_count()}"
