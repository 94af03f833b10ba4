"""Share the batches of one training among several processes.

Launched by torchrun. Every process draws the whole batch and its noise from the seed and takes its
own rows of both, so that any number of them trains the same model, up to the order of additions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed

from isoprobe.errors import OptionError
from isoprobe.run.processes import Process

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    """The processes of one training, as one of them sees it.

    Attributes:
        rank: of this process, from 0; the first one writes the files.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoint, log and resume file."""
        return self.rank == 0

    def check(self, batch: int) -> None:
        """Raise OptionError unless a batch can be shared evenly."""
        if batch % self.count:
            raise OptionError(
                f"a batch of {batch} cannot be shared evenly by {self.count} processes; choose a "
                "multiple of their number"
            )

    def share(self, batch: Tensor) -> Tensor:
        """Return this process' rows of a batch, ``(B, ...) -> (B / count, ...)``."""
        return batch[self.rank :: self.count]

    def average(self, parameters: Sequence[nn.Parameter], parts: Tensor) -> Tensor:
        """Replace gradients by their means over the processes, in place.

        Args:
            parameters: with gradients.
            parts: values to average as well, ``(P,)``.

        Returns:
            The means of the values.
        """
        if self.count == 1:
            return parts
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([parts, *(g.flatten() for g in gradients)])
        distributed.all_reduce(flat)
        flat /= self.count
        values, *means = torch.split(flat, [len(parts), *(g.numel() for g in gradients)])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return values


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Join the other processes for as long as a training lasts; alone without torchrun.

    Args:
        device: where this process trains, which decides how gradients travel.

    Yields:
        The team.
    """
    process = Process.of(os.environ)
    if process is None:
        yield Team()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(process.rank, process.count)
    finally:
        distributed.destroy_process_group()
