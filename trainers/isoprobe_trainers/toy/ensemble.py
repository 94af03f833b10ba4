"""Toy models trained together: a model alone is an ensemble of one.

Members that share an architecture and an objective form groups, whose matrices are batched. Members
never meet: each has its own data order, noise, weights and moments, so grouping is a matter of
speed. On the CPU groups are kept small enough for the cache and run in one thread each; on an
accelerator a group is as large as it can be.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from isoprobe_trainers.toy.data import generate
from isoprobe_trainers.toy.group import Group
from isoprobe_trainers.toy.recorded import RecordedGroup
from isoprobe_trainers.toy.source import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from isoprobe_trainers.common.training import Schedule
    from isoprobe_trainers.toy.members import Member

#: members of a group on the CPU, beyond which activations leave the cache
CPU_GROUP = 15


class Ensemble:
    """Any toy models, trained in one program.

    Args:
        members: models, all different.
        schedule: shared by all.
        device: where to train.
        compile_step: compile the losses.
    """

    def __init__(
        self,
        members: Sequence[Member],
        schedule: Schedule,
        device: torch.device,
        *,
        compile_step: bool = False,
    ) -> None:
        recipes = {m.data: parse(m.data) for m in members}
        self.workers = torch.get_num_threads() if device.type == "cpu" else 1
        data = {
            spec: torch.from_numpy(generate(recipe).x).to(device)
            for spec, recipe in recipes.items()
        }
        alike: dict[tuple[Any, ...], list[Member]] = defaultdict(list)
        for m in members:
            alike[m.latent_size, m.objective, data[m.data].shape].append(m)
        kind = Group if device.type != "cuda" else RecordedGroup
        self.groups = [
            kind(part, data, schedule, compile_step=compile_step)
            for same in alike.values()
            for part in _partition(same, self.workers, device)
        ]

    def run_epoch(self, epoch: int) -> dict[str, dict[str, float]]:
        """Train every member for one epoch; return its loss and parts by member name."""
        with _one_thread_each():
            parts = self._run_groups(epoch)
        return {
            name: record
            for group, mean in zip(self.groups, parts, strict=True)
            for name, record in _by_member(group, mean).items()
        }

    def _run_groups(self, epoch: int) -> list[Tensor]:
        if self.workers == 1 or len(self.groups) == 1:
            return [group.run_epoch(epoch) for group in self.groups]
        pool = ThreadPoolExecutor(self.workers)
        try:
            return list(pool.map(lambda group: group.run_epoch(epoch), self.groups))
        finally:
            # an interruption waits for the groups at work, not for those in the queue
            pool.shutdown(cancel_futures=True)

    def state(self) -> dict[str, dict[str, Any]]:
        """What every member needs to go on, by name."""
        return {name: state for group in self.groups for name, state in group.state().items()}

    def restore(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from saved states of the members, in whatever groups they were."""
        for group in self.groups:
            group.restore(states)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let groups share the cores between them; matrices this small gain nothing from threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _partition(members: list[Member], workers: int, device: torch.device) -> Iterator[list[Member]]:
    """Split members into groups of nearly equal size, a multiple of the workers in number."""
    if device.type != "cpu":
        yield members
        return
    count = -(-len(members) // CPU_GROUP)
    count = min(-(-count // workers) * workers, len(members))
    bounds = [len(members) * i // count for i in range(count + 1)]
    for start, stop in pairwise(bounds):
        yield members[start:stop]


def _by_member(group: Group, parts: Tensor) -> dict[str, dict[str, float]]:
    losses = group.objective.total(parts).tolist()
    columns = parts.T.tolist()
    return {
        m.name: {"loss": loss, **dict(zip(group.objective.parts, column, strict=True))}
        for m, loss, column in zip(group.members, losses, columns, strict=True)
    }
