"""Watch a Lightning training: the monitor as a callback, its numbers in the trainer's loggers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.errors import IsoprobeError
from isoprobe.monitor.watching import Watching

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:  # the package of old has the same classes
    try:
        from pytorch_lightning import Callback
    except ModuleNotFoundError as error:
        raise IsoprobeError("Lightning is missing: pip install 'isoprobe[lightning]'") from error

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class MonitorCallback(Watching, Callback):  # type: ignore[misc]  # of a package that may be missing
    """A :class:`isoprobe.Monitor` in a Lightning trainer.

    Steps are the trainer's ``global_step``. Numbers go to all of the trainer's loggers; the lines
    of JSON lie in the folder of the first, where no other is named.

    Args and attributes are those of :class:`isoprobe.monitor.watching.Watching`, whose model is the
    LightningModule here.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the model before its first step."""
        folder = trainer.log_dir or trainer.default_root_dir  # asked of all processes together
        self._begin(pl_module, trainer.global_step, Path(folder), log=self._logger(trainer))

    @staticmethod
    def _logger(trainer: Trainer) -> Callable[[dict[str, float], int], object]:
        def log(values: dict[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)

        return log

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Measure where a measurement is due."""
        if self._after(trainer.global_step):
            trainer.should_stop = True

    def on_train_end(self, *_: Any) -> None:
        """Measure the trained model, and say what it cost."""
        self._end()

    def on_exception(self, *_: Any) -> None:
        """Close the log of a training that broke off."""
        self._end(measured=False)
