"""Train a group of toy models on a card, an epoch's steps being replays of one recorded step.

Order and noise are those that the plain group draws for each member.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from isoprobe_trainers.common.graphs import adam, recorded, set_rate, together
from isoprobe_trainers.toy.group import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from isoprobe_trainers.common.training import Schedule
    from isoprobe_trainers.toy.members import Member


class RecordedGroup(Group):
    """Members of one architecture and objective, as :class:`Group` has them.

    Args:
        members: equal in latent size, objective, and shape of their data.
        data: inputs of each data spec, ``(N, m)`` float32, on the device.
        schedule: epochs, batch and learning rate.
        compile_step: without effect: a recorded step needs no compiler.
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: Mapping[str, Tensor],
        schedule: Schedule,
        *,
        compile_step: bool = False,
    ) -> None:
        super().__init__(members, data, schedule)
        self.optimizer = adam(self.parameters(), schedule.lr, self.device)
        shape = (self.batches, len(self.members), schedule.batch)
        latents = self.members[0].latent_size
        self._chosen = torch.zeros(shape, dtype=torch.int64, device=self.device)
        self._noise_of = torch.zeros(*shape, latents, device=self.device)
        self._place = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._total = torch.zeros_like(self.objective.weights)
        self._together = together(self.batches)
        self._take: Callable[[], None] | None = None

    def run_epoch(self, epoch: int) -> Tensor:
        """Train for one epoch; return the parts averaged over its steps, ``(P, E)``."""
        self._chosen.copy_(self._by_step(self._shuffled()))
        self._noise_of.copy_(self._by_step(self._drawn_noise()))
        if self._take is None:
            touched = [self._place, self._total]
            self._take = recorded(self._one, self.optimizer, touched, self._together)
        set_rate(self.optimizer, self.schedule.rate(epoch))
        self._place.zero_()
        self._total.zero_()
        for _ in range(self.batches // self._together):
            self._take()
        return self._total / self.batches

    def restore(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from saved states of these members."""
        super().restore(states)
        self._take = None

    def _by_step(self, rows: Tensor) -> Tensor:
        """``(E, N, ...) -> (steps, E, B, ...)``, rows that fill no batch left out."""
        kept = rows[:, : self.batches * self.schedule.batch]
        steps = kept.reshape(len(kept), self.batches, self.schedule.batch, *kept.shape[2:])
        return steps.movedim(0, 1)

    def _one(self) -> None:
        chosen = self._chosen.index_select(0, self._place)[0]
        x = self.rows.index_select(0, chosen.reshape(-1)).view(*chosen.shape, -1)
        noise = self._noise_of.index_select(0, self._place)[0]
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.parts(x, noise)
        torch.autograd.backward(self.objective.total(parts).sum())
        self.optimizer.step()
        self._total += parts.detach()
        self._place.add_(1).remainder_(self.batches)
