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


def adam(parameters: Iterable[Tensor], rate: float, device: torch.device) -> torch.optim.Adam:
    """Return Adam whose rate is a tensor, which a recorded step reads anew every time.

    Args:
        parameters: to train.
        rate: at the start; :func:`set_rate` changes it.
        device: where they are.

    Returns:
        The optimiser.
    """
    held = torch.tensor(rate, device=device)
    return torch.optim.Adam(list(parameters), lr=held, fused=True, capturable=device.type == "cuda")


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Write the rate of every group into its tensor."""
    for group in optimizer.param_groups:
        if isinstance(rate, float):
            if group.get("written") != rate:
                group["lr"].fill_(rate)
                group["written"] = rate
        else:
            group["lr"].copy_(rate)


def load_adam(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], device: torch.device
) -> None:
    """Load a state of Adam saved on any device, with a rate of any kind.

    Args:
        optimizer: from :func:`adam`.
        state: of an Adam with the same parameters.
        device: where they are.
    """
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        rate = torch.as_tensor(group["lr"], dtype=torch.float32)
        group.update(lr=rate.to(device), capturable=device.type == "cuda")


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
