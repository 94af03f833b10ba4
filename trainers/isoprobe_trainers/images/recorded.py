"""Take the steps of a :class:`~isoprobe_trainers.images.trainer.Trainer` an epoch at a time.

Order and noise of every step are those that the plain trainer draws, so that both train the same
model, up to the order of additions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from isoprobe_trainers.common.graphs import adam, load_adam, recorded, set_rate, together
from isoprobe_trainers.common.training import generator
from isoprobe_trainers.images.trainer import FIRST_NOISE, Run, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from isoprobe_trainers.images.trainer import Rows


class RecordedTrainer(Trainer):
    """A trainer alone with its card: what the steps up to the end of an epoch need lies there.

    Args:
        run: what to train.
        rows: gives inputs by row number; takes numbers on the device.
        count: how many rows there are.
        device: where to train.
    """

    def __init__(self, run: Run, rows: Rows, count: int, device: torch.device) -> None:
        super().__init__(run, rows, count, device)
        self.optimizer = adam(self.module.parameters(), run.rate, device)
        latents = math.prod(self.networks.latent_shape)
        self._orders = torch.zeros(self.per_epoch, run.batch, dtype=torch.int64, device=device)
        self._noise = torch.zeros(self.per_epoch, run.batch, latents, device=device)
        self._rates = torch.zeros(self.per_epoch, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._sums: dict[str, Tensor] = {}
        self._together = together(self.per_epoch)
        self._takes: tuple[Callable[[], None], Callable[[], None]] | None = None

    def advance(self) -> dict[str, float]:
        """Take the steps that are left of an epoch; return the parts of the loss, averaged."""
        place = self.step % self.per_epoch
        steps = min(self.per_epoch - place, self.run.iterations - self.step)
        many, single = self._takes or self._recorded()
        self._fill(steps)
        for _ in range(steps // self._together):
            many()
        for _ in range(steps % self._together):
            single()
        self.step += steps
        return {name: total.item() / steps for name, total in self._sums.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, of a plain trainer too."""
        self.module.load_state_dict(state["weights"])
        load_adam(self.optimizer, state["adam"], self.device)
        self.step, self.totals = int(state["step"]), dict(state["totals"])
        self._takes = None

    def _recorded(self) -> tuple[Callable[[], None], Callable[[], None]]:
        self._fill(1)
        with torch.no_grad():
            x = self.rows(self._orders[0])
            self._sums = {
                name: torch.zeros((), device=self.device) for name in self.parts(x, self._noise[0])
            }
        touched = [self._place, *self._sums.values()]
        many = recorded(self._one, self.optimizer, touched, self._together)
        self._takes = many, recorded(self._one, self.optimizer, touched)
        return self._takes

    def _fill(self, steps: int) -> None:
        """Put order, noise and rates of the next steps where the recorded step reads them."""
        begun = self.step
        orders, noise = [], []
        for self.step in range(begun, begun + steps):
            orders.append(self._chosen())
            drawn = generator(self.run.seed, FIRST_NOISE + self.step)
            noise.append(torch.randn(self._noise.shape[1:], generator=drawn))
        rates = [self.schedule.rate(step) for step in range(begun, begun + steps)]
        self.step = begun
        self._orders[:steps].copy_(torch.stack(orders))
        self._noise[:steps].copy_(torch.stack(noise))
        self._rates[:steps].copy_(torch.tensor(rates))
        self._place.zero_()
        for total in self._sums.values():
            total.zero_()

    def _one(self) -> None:
        x = self.rows(self._orders.index_select(0, self._place)[0])
        noise = self._noise.index_select(0, self._place)[0]
        set_rate(self.optimizer, self._rates.index_select(0, self._place)[0])
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.parts(x, noise)
        torch.autograd.backward(torch.stack(list(parts.values())).sum())
        self.optimizer.step()
        self._project()
        for name, value in parts.items():
            self._sums[name] += value.detach()
        self._place.add_(1).remainder_(len(self._orders))
