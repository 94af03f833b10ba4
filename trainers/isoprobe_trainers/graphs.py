"""Record the steps of a training as a CUDA graph, so that a card does not wait for Python.

A recorded step reads its inputs from tensors that stay where they are in memory; whoever replays it
fills them first. Off a card the step is called as it stands, so that what a card will do can be
tested without one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

#: calls before a recording, in which libraries choose their kernels and make room
_WARM_UP = 3
#: a recording must be alone among the threads that train on one card
_ALONE = threading.Lock()


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
    return torch.optim.Adam(
        list(parameters), lr=held, fused=True, capturable=device.type == "cuda"
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Write the rate of every group into its tensor."""
    for group in optimizer.param_groups:
        if isinstance(rate, float):
            group["lr"].fill_(rate)
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


def recorded(
    step: Callable[[], None], optimizer: torch.optim.Optimizer, touched: Sequence[Tensor] = ()
) -> Callable[[], None]:
    """Return a step that a card takes as one graph; off a card, the step itself.

    The optimiser is to have the state it will go on from: parameters, moments and ``touched`` are
    given back as they were, for the recording takes steps of its own. The first call of the
    optimiser may come later than that.

    Args:
        step: one step of training: gradients set to None, a backward pass, the optimiser's step.
        optimizer: from :func:`adam`.
        touched: other tensors that a step changes in place.

    Returns:
        What takes a step on the current stream.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device
    if device.type != "cuda":
        return step
    with _ALONE, torch.no_grad():
        changed = [*parameters, *touched]
        kept = [tensor.detach().clone() for tensor in changed]
        moments = {p: _copied(state) for p, state in optimizer.state.items()}
        graph = _record(step, device)
        for tensor, value in zip(changed, kept, strict=True):
            tensor.copy_(value)
        for parameter, state in optimizer.state.items():
            before = moments.get(parameter, {})
            for name, value in state.items():
                if name in before:
                    value.copy_(before[name])
                else:
                    value.zero_()
        torch.cuda.synchronize(device)
    replay: Callable[[], None] = graph.replay
    return replay


def _record(step: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
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
        step()
    here.wait_stream(side)
    return graph


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
