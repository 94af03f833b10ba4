"""Try a stranger's graph on one row first, and hold every tensor it makes to the file's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from isoprobe.files.meter import Meter

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source


class Bounded(nn.Module):
    """A graph that is tried on one row of each new shape before it is run on many.

    Args:
        graph: called with one tensor, or one and what is told of its rows.
        source: its file, whose size bounds every tensor that one row makes.
    """

    def __init__(self, graph: Any, source: Source) -> None:
        super().__init__()
        self.graph = graph
        self._source = source
        self._tried: set[tuple[tuple[int, ...], ...]] = set()

    def forward(self, x: Tensor, *others: Any) -> Any:
        """Run the graph."""
        told = [o for o in others if isinstance(o, Tensor) and o.shape[:1] == x.shape[:1]]
        shapes = tuple(tuple(each.shape[1:]) for each in (x, *told))
        if shapes not in self._tried and len(told) == len(others):
            self._try(*(
                torch.zeros(1, *each.shape[1:], dtype=each.dtype, device=each.device)
                for each in (x, *told)
            ))  # fmt: skip
            self._tried.add(shapes)
        return self.graph(x, *others)

    def _try(self, row: Tensor, *told: Tensor) -> None:
        meter = Meter(self._source.path, self._source.size)
        devices = [row.device] if row.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad(), _Sizes(meter):
            self.graph(row, *told)


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Asks for the size of every result, on a device without memory, before it is made."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._meter = meter

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        self._ask(function, args, given)
        return function(*args, **given)

    def _ask(self, function: Any, args: tuple[Any, ...], kwargs: Any) -> None:
        try:
            bare = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs))
            named = {k: torch.device("meta") if k == "device" else v for k, v in bare[1].items()}
            made = function(*bare[0], **named)
        # an operator without a form that only tells sizes says what is wrong when it is run
        except (NotImplementedError, RuntimeError, TypeError, ValueError, IndexError):
            return
        size = sum(t.numel() * t.element_size() for t in tree_leaves(made) if isinstance(t, Tensor))
        self._meter.check(size, f"operator {function} on one row")
