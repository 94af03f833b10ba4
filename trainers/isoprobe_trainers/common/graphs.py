"""Record the steps of a training as a CUDA graph, so that a card does not wait for Python.

A recorded step reads its inputs from tensors that stay where they are in memory; whoever replays it
fills them first. Off a card the step is called as it stands, so that what a card will do can be
tested without one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

#: calls before a recording, in which libraries choose their kernels and make room
_WARM_UP = 3
#: steps of a recording at most: a graph of too many kernels takes long to make
_LONGEST = 48
#: a recording must be alone among the threads that train on one card
_ALONE = threading.Lock()


@contextmanager
def alone(*, tf32: bool = False) -> Iterator[None]:
    """Keep recordings of other threads waiting, with or without TF32 in convolutions.

    For work that depends on what all threads share: that setting, and the generators of torch.

    Args:
        tf32: let convolutions round their inputs to 10 bits, as torch does by itself; analyses
            compare derivatives more closely than that.
    """
    with _ALONE:
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = tf32
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before


def adam(
    parameters: Iterable[Tensor], rate: float, device: torch.device, *, record: bool
) -> torch.optim.Adam:
    """Return Adam; its rate is a tensor where a recorded step is to read it anew every time.

    Args:
        parameters: to train.
        rate: at the start; :func:`set_rate` changes it.
        device: where they are.
        record: whether its steps are to be recorded.

    Returns:
        The optimiser.
    """
    kind = device.type
    return torch.optim.Adam(
        list(parameters),
        lr=torch.tensor(rate, device=device) if record else rate,
        fused=kind in {"cpu", "cuda"},
        capturable=record and kind == "cuda",
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Set the rate of every group, in its tensor where it has one."""
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], torch.Tensor):
            group["lr"] = rate
        elif isinstance(rate, torch.Tensor):
            group["lr"].copy_(rate)
        elif group.get("written") != rate:
            group["lr"].fill_(rate)
            group["written"] = rate


def load_adam(optimizer: torch.optim.Adam, state: dict[str, Any], device: torch.device) -> None:
    """Load a state of Adam saved on any device, with a rate of any kind.

    Args:
        optimizer: from :func:`adam`.
        state: of an Adam with the same parameters.
        device: where they are.
    """
    record = isinstance(optimizer.param_groups[0]["lr"], torch.Tensor)
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        rate = torch.as_tensor(group["lr"], dtype=torch.float32).to(device)
        group.update(
            lr=rate if record else float(group["lr"]),
            capturable=record and device.type == "cuda",
        )
        group.pop("written", None)


class Steps:
    """Take the steps of an epoch one by one, or on a card as replays of one recorded step.

    Args:
        step: one step of training: gradients set to None, a backward pass, the optimiser's step;
            takes its inputs and returns parts of the loss, detached.
        optimizer: from :func:`adam`.
        parts: zeros of the shape of what a step returns.
        count: steps of an epoch.
        record: whether to record; off a card a recording calls the step as it stands.
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        optimizer: torch.optim.Optimizer,
        parts: Tensor,
        count: int,
        *,
        record: bool,
    ) -> None:
        self.record, self._step, self._optimizer, self._count = record, step, optimizer, count
        self._total = torch.zeros_like(parts)
        self._place = torch.zeros(1, dtype=torch.int64, device=parts.device)
        self._held: list[Tensor] = []
        self._replays: dict[int, Callable[[], None]] = {}

    def take(self, *inputs: Sequence[Any] | Tensor) -> Tensor:
        """Take as many steps as the inputs are long, at most an epoch's.

        Args:
            inputs: of each step, ``(steps, ...)``.

        Returns:
            The parts, added up over the steps.
        """
        if not self.record:
            total = torch.zeros_like(self._total)
            for each in zip(*inputs, strict=True):
                total += self._step(*each)
            return total
        steps = self._hold(inputs)
        many = together(self._count)
        for size, times in ((many, steps // many), (1, steps % many)):
            for _ in range(times):
                self._replay(size)()
        return self._total

    def forget(self) -> None:
        """Record anew at the next step, as after the optimiser's tensors were replaced."""
        self._replays = {}

    def _hold(self, inputs: Sequence[Any]) -> int:
        """Put inputs where the recorded step reads them; return for how many steps they are."""
        given = [_stacked(each) for each in inputs]
        if not self._held:
            device = self._total.device
            self._held = [
                torch.zeros(self._count, *each.shape[1:], dtype=each.dtype, device=device)
                for each in given
            ]
        for held, each in zip(self._held, given, strict=True):
            held[: len(each)].copy_(each)
        self._place.zero_()
        self._total.zero_()
        return len(given[0])

    def _replay(self, size: int) -> Callable[[], None]:
        if size not in self._replays:
            touched = [self._place, self._total]
            self._replays[size] = recorded(self._one, self._optimizer, touched, size)
        return self._replays[size]

    def _one(self) -> None:
        self._total += self._step(*(held.index_select(0, self._place)[0] for held in self._held))
        self._place.add_(1).remainder_(self._count)


def _stacked(each: Sequence[Any] | Tensor) -> Tensor:
    if isinstance(each, torch.Tensor):
        return each
    whole = isinstance(each[0], torch.Tensor)
    return torch.stack(list(each)) if whole else torch.tensor(each)


def together(steps: int) -> int:
    """How many of an epoch's steps to record as one graph: the largest divisor up to a limit."""
    return max(k for k in range(1, min(steps, _LONGEST) + 1) if steps % k == 0)


def recorded(
    step: Callable[[], None],
    optimizer: torch.optim.Optimizer,
    touched: Sequence[Tensor] = (),
    count: int = 1,
) -> Callable[[], None]:
    """Return what takes ``count`` steps as one graph on a card; off a card, one after another.

    The recording takes steps of its own; parameters, moments and ``touched`` are given back as
    they were.

    Args:
        step: one step of training: gradients set to None, a backward pass, the optimiser's step.
        optimizer: from :func:`adam`.
        touched: other tensors that a step changes in place.
        count: steps of a call.

    Returns:
        What takes the steps on the current stream.
    """

    def steps() -> None:
        for _ in range(count):
            step()

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device
    if device.type != "cuda":
        return steps
    with alone(tf32=True), torch.no_grad():
        changed = [*parameters, *touched]
        kept = [tensor.detach().clone() for tensor in changed]
        moments = {p: _copied(state) for p, state in optimizer.state.items()}
        graph = _record(step, steps, device)
        for tensor, value in zip(changed, kept, strict=True):
            tensor.copy_(value)
        for parameter, state in optimizer.state.items():
            before = moments.get(parameter, {})
            for name, value in state.items():
                if name in before:
                    value.copy_(before[name])
                else:
                    value.zero_()
        torch.cuda.current_stream(device).synchronize()
    replay: Callable[[], None] = graph.replay
    return replay


def _record(
    step: Callable[[], None], steps: Callable[[], None], device: torch.device
) -> torch.cuda.CUDAGraph:
    here = torch.cuda.current_stream(device)
    # the default stream cannot be recorded; any other can, and torch has few of them to give
    side = here
    if here == torch.cuda.default_stream(device):
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(here)
    with torch.cuda.stream(side), torch.enable_grad():
        for _ in range(_WARM_UP):
            step()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with (
        torch.enable_grad(),
        torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"),
    ):
        steps()
    here.wait_stream(side)
    return graph


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
