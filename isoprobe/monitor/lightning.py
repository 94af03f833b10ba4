"""Watch a Lightning training: the monitor as a callback, its numbers in the trainer's loggers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.errors import IsoprobeError
from isoprobe.monitor.log import AUTO, log_path
from isoprobe.monitor.monitor import Monitor
from isoprobe.monitor.stopping import Stopping

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:  # the package of old has the same classes
    try:
        from pytorch_lightning import Callback
    except ModuleNotFoundError as error:
        raise IsoprobeError("Lightning is missing: pip install 'isoprobe[lightning]'") from error

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class MonitorCallback(Callback):  # type: ignore[misc]  # of a package that may be missing
    """A :class:`isoprobe.Monitor` in a Lightning trainer.

    Steps are the trainer's ``global_step``. Numbers go to all of the trainer's loggers; the lines
    of JSON lie in the folder of the first, where no other is named.

    Args:
        data: rows to measure, as for the monitor.
        model: takes the LightningModule and gives the VAE in it; where it is the module itself, or
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the model before its first step."""
        options = {"out": AUTO, **self._options}
        folder = trainer.log_dir or trainer.default_root_dir  # asked of all processes together
        if options["out"] == AUTO:
            options["out"] = log_path(AUTO, Path(folder))
        options.setdefault("log", self._logger(trainer))
        model = pl_module if self._model is None else self._model(pl_module)
        self.monitor = Monitor(model, self._data, start=trainer.global_step, **options)
        self._stopping = Stopping(self.monitor) if self._stop else None

    @staticmethod
    def _logger(trainer: Trainer) -> Callable[[dict[str, float], int], object]:
        def log(values: dict[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)

        return log

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Measure where a measurement is due."""
        if self.monitor is None:
            return
        self.monitor.step(trainer.global_step)
        if self._stopping is not None and self._stopping.after(trainer.global_step):
            trainer.should_stop = True

    def on_train_end(self, *_: Any) -> None:
        """Measure the trained model, and say what it cost."""
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self, *_: Any) -> None:
        """Close the log of a training that broke off."""
        if self.monitor is not None:
            self.monitor.close(measured=False)
