"""Watch a training of Hugging Face's Trainer: the monitor as a callback, and its log.

``trainer.add_callback(MonitorCallback(x, log=trainer.log, metric="sse"))`` sends the numbers where
the trainer's own go: TensorBoard, Weights & Biases, MLflow, ``trainer_state.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.errors import IsoprobeError
from isoprobe.monitor.watching import Watching

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise IsoprobeError("transformers is missing: pip install 'isoprobe[transformers]'") from error

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class MonitorCallback(Watching, TrainerCallback):  # type: ignore[misc]  # of a package that may be missing
    """A :class:`isoprobe.Monitor` in a Trainer of Hugging Face.

    Steps are the trainer's ``global_step``; the lines of JSON lie in its output folder, where no
    other place is named.

    Args:
        data: rows to measure, as for the monitor.
        log: the trainer's own ``log``, or another function that takes the numbers by name.
        options: ``model``, ``stop`` and those of the monitor, as
            :class:`isoprobe.monitor.watching.Watching` takes them.
    """

    def __init__(
        self, data: Any, *, log: Callable[[dict[str, float]], object] | None = None, **options: Any
    ) -> None:
        super().__init__(data, **options)
        self._log = log

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Measure the model before its first step."""
        log = self._log
        more = {} if log is None else {"log": lambda values, step: log(values)}
        self._begin(model, state.global_step, Path(args.output_dir or "."), **more)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure where a measurement is due."""
        if self._after(state.global_step):
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the trained model, and say what it cost."""
        self._end()
