"""End a training on an alarm, at the same step in all of its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from isoprobe.monitor.monitor import Monitor


class Stopping:
    """Asks the process that measures whether it raised an alarm.

    The processes of a training have to leave it together, so all of them ask at the same steps:
    those at which a measurement is due, put off or not.

    Args:
        monitor: of this process.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._next = monitor.following(monitor.at)

    def after(self, step: int) -> bool:
        """Say whether the training ends after a step.

        Args:
            step: the same in all processes.

        Returns:
            Whether an alarm stands, as the first process knows.
        """
        alarmed = self._monitor.alarm is not None
        if not _together():
            return alarmed
        if step < self._next:
            return False
        self._next = self._monitor.following(step)
        told = [alarmed]
        torch.distributed.broadcast_object_list(told, src=0)
        return told[0]


def _together() -> bool:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size() > 1
