"""Train the models of one anomaly table on a card, an epoch's steps being one recorded step.

Rows are taken one by one, equal ones too, and each has a draw of its own, as the paper's loss has
it. Order and noise are drawn on the card, for all members from one stream, so that a member's
weights depend on the company it is trained in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from isoprobe_trainers.anomaly.ensemble import AnomalyEnsemble
from isoprobe_trainers.anomaly.recipes import BATCH
from isoprobe_trainers.common.graphs import adam, load_adam, recorded, set_rate, together
from isoprobe_trainers.common.training import generator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from isoprobe_trainers.anomaly.recipes import Recipe
    from isoprobe_trainers.anomaly.tables import Split, Table

_DRAWS = 30
#: steps drawn ahead at least
_AHEAD = 64


class Batches:
    """Row numbers of every step of some epochs, ``(steps, E, B)``, at one place in memory.

    Args:
        rows: numbers of each member's rows, ``(N_e,)``.
        starts: for each member where each step of an epoch begins among its rows, and where the
            last ends.

    Attributes:
        steps: of an epoch.
        epochs: drawn at once, so many that few short ones are drawn alone.
        share: weight of each row in a mean over its batch, ``(steps, E, B)``; 0 where a member has
            fewer rows than others.
    """

    def __init__(self, rows: Sequence[Tensor], starts: Sequence[Sequence[int]]) -> None:
        device = rows[0].device
        self.steps = len(starts[0]) - 1
        self.epochs = -(-_AHEAD // self.steps)
        bounds = torch.tensor(starts, device=device)
        sizes = bounds.diff(dim=1)
        place = torch.arange(int(sizes.max()), device=device)
        there = place < sizes[..., None]
        slots = (bounds[:, :-1, None] + place).where(there, 0)
        self._slots = slots.flatten(1)
        share = there / sizes.clamp(min=1)[..., None]
        self.share = share.movedim(0, 1).contiguous()
        self._rows = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        counts = torch.tensor([len(r) for r in rows], device=device)
        self._missing = torch.arange(self._rows.shape[1], device=device) >= counts[:, None]
        shape = (self.epochs * self.steps, *self.share.shape[1:])
        self._chosen = torch.zeros(shape, dtype=torch.int64, device=device)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self._left = 0
        self._before: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(steps, E, B)``, the steps being those of all epochs drawn at once."""
        steps, members, rows = self._chosen.shape
        return steps, members, rows

    def begin(self, draw: Callable[[], None], draws: torch.Generator) -> None:
        """Begin an epoch; where none is left, shuffle for the next ones and draw what they need.

        Args:
            draw: fills the other tensors that the steps read.
            draws: stream of the orders.
        """
        if self._left == 0:
            self._before = draws.get_state()
            keys = (self.epochs, *self._rows.shape)
            drawn = torch.rand(keys, generator=draws, device=self._rows.device)
            order = drawn.masked_fill_(self._missing, 2.0).argsort(-1)
            places = order.gather(-1, self._slots.expand(self.epochs, -1, -1))
            numbers = self._rows.expand(self.epochs, -1, -1).gather(-1, places)
            split = numbers.reshape(*numbers.shape[:2], self.steps, -1).movedim(2, 1)
            self._chosen.copy_(split.flatten(0, 1))
            draw()
            self.place.zero_()
            self._left = self.epochs
        self._left -= 1

    def state(self, draws: torch.Generator) -> dict[str, Any]:
        """What is needed to go on: the stream before the last draw, and the epochs left of it."""
        drawn = self._before is not None
        before = self._before if drawn else draws.get_state()
        return {"draws": before, "drawn": drawn, "left": self._left}

    def restore(
        self, state: Mapping[str, Any], draw: Callable[[], None], draws: torch.Generator
    ) -> None:
        """Draw again what was drawn last, and go on where it was left."""
        draws.set_state(state["draws"])
        self._left = 0
        if state["drawn"]:
            self.begin(draw, draws)
            self._left = int(state["left"])
            begun = (self.epochs - self._left) * self.steps
            self.place.fill_(begun % len(self._chosen))

    def next(self, *others: Tensor) -> list[Tensor]:
        """This step's numbers and shares ``(E, B)``, and slices of others; goes on to the next."""
        share = self.share.index_select(0, self.place.remainder(self.steps))[0]
        chosen, *found = [t.index_select(0, self.place)[0] for t in (self._chosen, *others)]
        self.place.add_(1).remainder_(len(self._chosen))
        return [chosen, share, *found]


class Pool:
    """The different rows of every member's table, one below the other.

    Args:
        rows: of each member, one object where it is the same, ``(D, m)``.
    """

    def __init__(self, rows: Sequence[Tensor]) -> None:
        tables = list({id(r): r for r in rows}.values())
        begins = dict(zip(map(id, tables), _begins(tables), strict=True))
        self._rows = torch.cat(tables)
        device = self._rows.device
        self._offsets = torch.tensor([begins[id(r)] for r in rows], device=device)[:, None]

    def take(self, chosen: Tensor) -> Tensor:
        """Rows by each member's own numbers, ``(E, B) -> (E, B, m)``."""
        flat = (chosen + self._offsets).reshape(-1)
        return self._rows.index_select(0, flat).view(*chosen.shape, -1)


class Steps:
    """Steps of an epoch, recorded when the first one is taken.

    Args:
        one: takes a step.
        optimizer: what it steps with.
        batches: of the epoch.
    """

    def __init__(
        self, one: Callable[[], None], optimizer: torch.optim.Optimizer, batches: Batches
    ) -> None:
        self._one, self._optimizer, self._batches = one, optimizer, batches
        self._together = together(batches.steps)
        self._take: Callable[[], None] | None = None

    def epoch(self, rate: float, draw: Callable[[], None], draws: torch.Generator) -> None:
        """Train once on every row of every member, the last batch being what is left over.

        Args:
            rate: learning rate of the epoch.
            draw: fills the tensors that the steps read beside the batches.
            draws: stream of the orders.
        """
        set_rate(self._optimizer, rate)
        self._batches.begin(draw, draws)
        if self._take is None:
            touched = [self._batches.place]
            self._take = recorded(self._one, self._optimizer, touched, self._together)
        for _ in range(self._batches.steps // self._together):
            self._take()

    def forget(self) -> None:
        """Record anew at the next step, as after the optimizer's tensors were replaced."""
        self._take = None


class RecordedEnsemble(AnomalyEnsemble):
    """Models of one recipe, as :class:`AnomalyEnsemble` has them.

    Args:
        recipe: network and losses; equal rows are not merged.
        seeds: one for each member.
        tables: the data of each member, one object where it is the same.
        splits: of each member.
        device: where to train.
    """

    def __init__(
        self,
        recipe: Recipe,
        seeds: Sequence[int],
        tables: Sequence[Table],
        splits: Sequence[Split],
        device: torch.device,
    ) -> None:
        super().__init__(recipe, seeds, tables, splits, device)
        self.optimizer = adam(self.parameters(), recipe.rate, device)
        self.batches = Batches(self.train, _fixed(list(map(len, self.train)), BATCH))
        self.pool = Pool(self.rows)
        self.draws = draws_of(seeds, device)
        self.noise_of = torch.zeros(*self.batches.shape, recipe.latents, device=device)
        self._steps = Steps(self._one, self.optimizer, self.batches)

    def run_epoch(self, epoch: int) -> None:
        """Train once on every row of every member, the last batch being what is left over.

        Args:
            epoch: counted from 0, for the learning rate.
        """
        self._steps.epoch(self.recipe.schedule.rate(epoch), self._draw, self.draws)

    def _draw(self) -> None:
        self.noise_of.normal_(generator=self.draws)

    def _one(self) -> None:
        chosen, share, noise = self.batches.next(self.noise_of)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.losses(self.pool.take(chosen), [noise])
        torch.autograd.backward((losses.total * share).sum())
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """What is needed to go on."""
        return {**super().state(), "batches": self.batches.state(self.draws)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for parameter, saved in zip(self.parameters(), state["weights"], strict=True):
            parameter.data.copy_(saved)
        load_adam(self.optimizer, state["adam"], self.device)
        self.batches.restore(state["batches"], self._draw, self.draws)
        self._steps.forget()


def draws_of(seeds: Sequence[int], device: torch.device) -> torch.Generator:
    """Return the stream of an ensemble's random numbers, on the card itself."""
    first = generator(seeds[0], _DRAWS).initial_seed()
    return torch.Generator(device).manual_seed(first)


def _fixed(counts: Sequence[int], batch: int) -> list[list[int]]:
    """Batches of one size, the last of each member being what is left over."""
    steps = -(-max(counts) // batch)
    return [[min(step * batch, count) for step in range(steps + 1)] for count in counts]


def _begins(tables: Sequence[Tensor]) -> list[int]:
    begins = [0]
    for table in tables:
        begins.append(begins[-1] + len(table))
    return begins[:-1]
