"""Watch a training of Hugging Face's Trainer: the monitor as a callback, and its log.

``trainer.add_callback(MonitorCallback(x, log=trainer.log, metric="sse"))`` sends the numbers where
the trainer's own go: TensorBoard, Weights & Biases, MLflow, ``trainer_state.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.errors import IsoprobeError
from isoprobe.monitor.log import AUTO, log_path
from isoprobe.monitor.monitor import Monitor
from isoprobe.monitor.stopping import Stopping

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise IsoprobeError("transformers is missing: pip install 'isoprobe[transformers]'") from error

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class MonitorCallback(TrainerCallback):  # type: ignore[misc]  # of a package that may be missing
    """A :class:`isoprobe.Monitor` in a Trainer of Hugging Face.

    Steps are the trainer's ``global_step``; the lines of JSON lie in its output folder, where no
    other place is named.

    Args:
        data: rows to measure, as for the monitor.
        log: the trainer's own ``log``, or another function that takes the numbers by name.
        model: takes the trainer's model and gives the VAE in it; where it is the model itself, or
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
        log: Callable[[dict[str, float]], object] | None = None,
        model: Callable[[Any], Any] | None = None,
        stop: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.monitor: Monitor | None = None
        self._data, self._log, self._model = data, log, model
        self._stop, self._options = stop, options

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Measure the model before its first step."""
        options = {"out": AUTO, **self._options}
        if options["out"] == AUTO:
            options["out"] = log_path(AUTO, Path(args.output_dir or "."))
        log = self._log
        if log is not None:
            options["log"] = lambda values, step: log(values)
        found = model if self._model is None else self._model(model)
        self.monitor = Monitor(found, self._data, start=state.global_step, **options)
        self._stopping = Stopping(self.monitor) if self._stop else None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure where a measurement is due."""
        if self.monitor is None:
            return
        self.monitor.step(state.global_step)
        if self._stopping is not None and self._stopping.after(state.global_step):
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the trained model, and say what it cost."""
        if self.monitor is not None:
            self.monitor.close()
