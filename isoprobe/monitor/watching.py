"""Do what the callbacks of all frameworks do alike: watch a training, stop it, close its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe.monitor.log import AUTO, log_path
from isoprobe.monitor.monitor import Monitor
from isoprobe.monitor.stopping import Stopping

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Watching:
    """A monitor of the training that runs.

    Args:
        data: rows to measure, as for the monitor.
        model: takes the framework's model and gives the VAE in it; where it is the model itself, or
            its one part with encode and decode, that is found.
        stop: end the training on an alarm, in all processes.
        options: of the monitor.

    Attributes:
        monitor: of the training that runs, or ran last; None before.
    """

    def __init__(
        self,
        data: Any,
        *,
        model: Callable[[Any], Any] | None = None,
        stop: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.monitor: Monitor | None = None
        self._data, self._model, self._stop, self._options = data, model, stop, options

    def _begin(self, model: Any, step: int, folder: Path, **more: Any) -> None:
        """Measure the model before its first step; a log without a place lies in the folder."""
        options = {"out": AUTO, **more, **self._options}
        if options["out"] == AUTO:
            options["out"] = log_path(AUTO, folder)
        found = model if self._model is None else self._model(model)
        self.monitor = Monitor(found, self._data, start=step, **options)
        self._stopping = Stopping(self.monitor) if self._stop else None

    def _after(self, step: int) -> bool:
        """Measure where a measurement is due; return whether to stop the training."""
        if self.monitor is None:
            return False
        self.monitor.step(step)
        return self._stopping is not None and self._stopping.after(step)

    def _end(self, *, measured: bool = True) -> None:
        """Measure the trained model, and say what it cost; only close where it broke off."""
        if self.monitor is not None:
            self.monitor.close(measured=measured)
