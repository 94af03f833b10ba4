"""Go through the epochs of an anomaly table on a card, their steps being one recorded step.

Rows are taken one by one, equal ones too, and each has a draw of its own, as the paper's loss has
it. Order and noise are drawn on the card, for all members from one stream, so that a member's
weights depend on the company it is trained in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from isoprobe_trainers.common.graphs import recorded, set_rate, together
from isoprobe_trainers.common.training import generator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

_DRAWS = 30
#: steps drawn ahead at least
AHEAD = 64


class Batches:
    """Row numbers of every step of some epochs, ``(steps, E, B)``, at one place in memory.

    Args:
        rows: numbers of each member's rows, ``(N_e,)``.
        starts: for each member where each step of an epoch begins among its rows, and where the
            last ends.
        ahead: steps drawn ahead at least.

    Attributes:
        steps: of an epoch.
        epochs: drawn at once, so many that few short ones are drawn alone.
        share: weight of each row in a mean over its batch, ``(steps, E, B)``; 0 where a member has
            fewer rows than others.
    """

    def __init__(
        self, rows: Sequence[Tensor], starts: Sequence[Sequence[int]], ahead: int = AHEAD
    ) -> None:
        device = rows[0].device
        self.steps = len(starts[0]) - 1
        self.epochs = -(-ahead // self.steps)
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


class CardEpochs:
    """Epochs whose rows, order and draws lie on the card, their steps being one recorded step.

    Args:
        step: takes a step on rows ``(E, B, m)``, their shares ``(E, B)`` and what is drawn.
        optimizer: what it steps with.
        rows: different rows of each member, ``(D, m)``, one object where it is the same.
        batches: of an epoch.
        seeds: of the members; the first one's stream is that of all draws.
        drawn: width of each tensor that is drawn for every row, and what fills it in place.
    """

    def __init__(
        self,
        step: Callable[..., None],
        optimizer: torch.optim.Adam,
        rows: Sequence[Tensor],
        batches: Batches,
        seeds: Sequence[int],
        drawn: Sequence[tuple[int, Callable[..., Tensor]]],
    ) -> None:
        self.batches, self.pool = batches, Pool(rows)
        device = rows[0].device
        first = generator(seeds[0], _DRAWS).initial_seed()
        self.draws = torch.Generator(device).manual_seed(first)
        self._fills = [fill for _, fill in drawn]
        self._drawn = [torch.zeros(*batches.shape, width, device=device) for width, _ in drawn]
        self._step, self._optimizer = step, optimizer
        self._together = together(batches.steps)
        self._take: Callable[[], None] | None = None

    def epoch(self, rate: float) -> None:
        """Train once on every row of every member, the last batch being what is left over.

        Args:
            rate: learning rate of the epoch.
        """
        set_rate(self._optimizer, rate)
        self.batches.begin(self._draw, self.draws)
        if self._take is None:
            touched = [self.batches.place]
            self._take = recorded(self._one, self._optimizer, touched, self._together)
        for _ in range(self.batches.steps // self._together):
            self._take()

    def _one(self) -> None:
        chosen, share, *drawn = self.batches.next(*self._drawn)
        self._step(self.pool.take(chosen), share, *drawn)

    def _draw(self) -> None:
        for held, fill in zip(self._drawn, self._fills, strict=True):
            fill(held, generator=self.draws)

    def state(self) -> dict[str, Any]:
        """What is needed to go on."""
        return self.batches.state(self.draws)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; record anew, as the optimizer's tensors were replaced."""
        self.batches.restore(state, self._draw, self.draws)
        self._take = None


def fixed(counts: Sequence[int], batch: int) -> list[list[int]]:
    """Cut rows into batches of one size, the last of each member being what is left over.

    Args:
        counts: rows of each member.
        batch: rows of a step.

    Returns:
        For each member where each step begins, and where the last ends.
    """
    steps = -(-max(counts) // batch)
    return [[min(step * batch, count) for step in range(steps + 1)] for count in counts]


def _begins(tables: Sequence[Tensor]) -> list[int]:
    begins = [0]
    for table in tables:
        begins.append(begins[-1] + len(table))
    return begins[:-1]
