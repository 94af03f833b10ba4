"""Watch a model while it trains: has it collapsed, is beta right, has the decoder settled?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.errors import CheckpointError, IsoprobeError, OptionError
from isoprobe.files.closing import Closing
from isoprobe.monitor.budget import Budget
from isoprobe.monitor.log import AUTO, JsonLines, LiveTable, log_path, record_of
from isoprobe.monitor.subject import Trained, Weights
from isoprobe.progress import say
from isoprobe.run.processes import Process
from isoprobe.run.settings import RunSettings
from isoprobe.show.plots.trends import overview
from isoprobe.show.report import trend_page, write
from isoprobe.show.trend import Point, Trend, point, trend_of_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from isoprobe.contracts import Metric
    from isoprobe.run.measured import Measured

#: what is measured: all that is followed, and nothing that only the verdict asks for
ANALYSES = ("isometry", "conditions:trials=no")
#: successive points without a used latent, the untrained model's left out, that are a collapse
PATIENCE = 2
#: of a point, what goes to a logger
LOGGED = (
    *("used", "rate", "distortion", "beta", "beta_recovered"),
    *("residual", "gain", "eigenvalue"),
)
#: a measurement that is put off is tried again after this part of the steps between two
_SOONER = 10
#: a first measurement of fewer seconds, most of which go into settling, is repeated so many times:
#: what one costs has to be known beforehand
_SHORT, _TRIED = 10.0, 3


@dataclass(frozen=True)
class Alarm:
    """What went wrong in a training.

    Attributes:
        kind: ``collapse`` or ``not finite``.
        step: at which it was found.
        text: in a sentence.
    """

    kind: str
    step: int
    text: str


class Monitor(Closing):
    """Measures a model in training at some steps, with the probe and the formulas of an analysis.

    The first measurement is made at once, so that a mistake shows before the training; then one
    every so many steps, where it keeps within the share of time; the last by :meth:`close`. The
    model is given back exactly as it was each time: the next training step is the same, to the bit,
    as without a monitor. Under distributed training the first process measures alone.

    Args:
        model: any module, read by trying it on rows; what :func:`isoprobe.wrap` gives; or a VAE.
        data: rows ``(N, ...)`` as people hold them, or a data spec; those that are measured are
            read once and kept.
        every: steps from one measurement to the next.
        samples: rows to measure, spread evenly over the data.
        beta: KL weight in units of the metric: a number, or a function of the step that gives it.
        condition: what a conditional model is told, as for :func:`isoprobe.analyze`.
        metric: spec or instance; None takes the one that the model declares.
        log: called with the numbers by name and the step, as ``wandb.log`` and
            ``mlflow.log_metrics`` are.
        out: file of a JSON line for each point; ``auto`` takes a new name in the current folder,
            None writes none.
        table: show a row for each point on stderr.
        share: of the training's time that measurements may take beyond the first and the last; one
            that is due and does not fit is put off.
        weights: to look at in place of the model's own, such as their moving average: by name, as
            a module built alike, or a function that gives a context manager in which the model has
            them.
        start: step at which the training stands.
        resume: go on with an existing file ``out``.
        seed: of the posterior draws.
        pullback: as for :func:`isoprobe.analyze`; ``probe`` where latents are many.
        batch_size: samples at once; planned from ``memory`` when None.
        memory: bytes that derivatives may take at once.
        resize: images to this height and width.
        pad: images to this height and width with zeros; as the checkpoint says when None.
        scale: data values that stand for the ends of the model's input range.
        options: of the adapter that reads the model.

    Attributes:
        points: what was found so far, by step.
        at: step at which the training stands.
        alarm: of the last measurement, if it raised one: a collapse, or numbers that are not
            finite.
        failures: measurements that failed otherwise, step and reason; a training goes on.
        cost: share of the training's time that was spent beyond the first and the last measurement,
            once it is closed.
        watches: whether this process measures: the first, or the only one.

    Raises:
        OptionError: for an argument that cannot be.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        *,
        every: int = 500,
        samples: int = 256,
        beta: float | Callable[[int], float] | None = None,
        condition: Any = None,
        metric: str | Metric | None = None,
        log: Callable[[dict[str, float], int], object] | None = None,
        out: str | Path | None = AUTO,
        table: bool = True,
        share: float | None = 0.02,
        weights: Weights | None = None,
        start: int = 0,
        resume: bool = False,
        seed: int = 0,
        pullback: str = "exact",
        batch_size: int | None = None,
        memory: int = 1 << 30,
        resize: int | tuple[int, int] | None = None,
        pad: int | tuple[int, int] | None = None,
        scale: tuple[float, float] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        if every < 1 or samples < 2:
            raise OptionError(
                f"a monitor takes every >= 1 and samples >= 2; found {every} and {samples}"
            )
        if share is not None and not 0 < share <= 1:
            raise OptionError(
                f"share lies between 0 and 1, as in 0.02; found {share}; None sets no limit"
            )
        if data is None or (isinstance(data, str) and data.partition(":")[0] == "prior"):
            raise OptionError(
                "a monitor needs rows: those of the training, or held out; prior samples change "
                "with the model"
            )
        self.points: list[Point] = []
        self.failures: list[tuple[int, str]] = []
        self.alarm: Alarm | None = None
        self._every, self._beta, self._told = every, beta, log
        self.at, self._due = start, self.following(start)
        self._idle = self._late = 0
        self._closed = False
        self._metric = ""
        self.cost: float | None = None
        model = whole(model)
        self.watches = is_first()
        if not self.watches:
            return
        asked = RunSettings(
            condition=condition,
            metric=metric,
            analyses=ANALYSES,
            samples=samples,
            seed=seed,
            pullback=pullback,
            batch_size=batch_size,
            memory=memory,
            resize=resize,
            pad=pad,
            scale=scale,
            options=options,
        )
        self._trained = Trained(model, data, asked, weights)
        self._table = LiveTable() if table else None
        began = self._now()
        found, _ = self._trained.settle()
        seconds = self._now() - began
        self._file = None if out is None else JsonLines(log_path(out), append=resume)
        self._begin(found, asked, share)
        self._take(found, seconds)
        self._budget = Budget(share)
        self._budget.try_out(seconds)
        for _ in range(_TRIED if seconds < _SHORT else 0):
            began = self._now()
            self._trained.measure()
            self._budget.try_out(self._now() - began)

    # ------------------------------------------------------------------ in the training

    def step(self, step: int | None = None) -> Point | None:
        """Count a step of the training, and measure where one is due and affordable.

        Args:
            step: number of the step; one more than before when None.

        Returns:
            The point, if the model was measured.
        """
        self.at = self.at + 1 if step is None else step
        if self.at < self._due or self._closed:
            return None
        self._due = self.following(self.at)
        if not self.watches:
            return None
        if not self._budget.affords():
            self._due = min(self._due, self.at + max(self._every // _SOONER, 1))
            self._late += 1
            return None
        began = self._now()
        found = self._measured()
        seconds = self._now() - began
        taken = None if found is None else self._take(found, seconds)
        self._budget.charge(self._now() - began)
        return taken

    def following(self, step: int) -> int:
        """Return the step after another at which a measurement is due."""
        return (step // self._every + 1) * self._every

    def close(self, *, measured: bool = True) -> Point | None:
        """Measure the trained model, and say what the monitor cost.

        Args:
            measured: False leaves the last measurement out.

        Returns:
            The last point; None in all processes but the first, or where it could not be measured.
        """
        if self._closed or not self.watches:
            self._closed = True
            return self.points[-1] if self.points else None
        self._closed = True
        training = self._budget.training
        between = self._budget.spent
        if measured:
            between -= self._last(self._budget)
        self._end(training, between)
        return self.points[-1] if self.points and self.points[-1].step == self.at else None

    def leave(self, error: BaseException | None) -> None:
        """Close, whatever ends the block."""
        self.close(measured=error is None)

    # ------------------------------------------------------------------ shown

    @property
    def trend(self) -> Trend:
        """What was found so far, as a training is shown."""
        return trend_of_points(self.points, self._metric)

    def plot(self) -> Figure:
        """Draw the curves so far; a notebook shows the figure."""
        return overview(self.trend)

    def report(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the curves so far as one HTML page.

        Args:
            path: of the page.
            overwrite: replace an existing one.
        """
        write(trend_page(self.trend, "Training"), Path(path), overwrite=overwrite)

    def __repr__(self) -> str:
        if not self.points:
            return f"<Monitor at step {self.at}: watched by the first process>"
        last = self.points[-1]
        return f"<Monitor at step {self.at}: {len(self.points)} points, {last.used} used latents>"

    # ------------------------------------------------------------------ parts

    def _now(self) -> float:
        """The time, once everything that was asked of an accelerator is done."""
        if self._trained.device.type == "cuda":
            torch.cuda.synchronize(self._trained.device)
        return time.perf_counter()

    def _measured(self, settle: bool = False) -> Measured | None:
        """Measure; what goes wrong in a training that runs is said, and the training goes on."""
        try:
            if not settle:
                return self._trained.measure()
            found, changed = self._settled_anew()
        except CheckpointError as error:
            self._raise(Alarm("not finite", self.at, str(error)))
            return None
        except IsoprobeError as error:
            self.failures.append((self.at, str(error)))
            self._say(f"monitor: step {self.at} could not be measured: {error}")
            return None
        if changed:
            self._say(
                "monitor: the trained model is read otherwise than at the start, on which earlier "
                f"points rest: {changed}; isoprobe.wrap(model, head=...) says it once for all"
            )
        return found

    def _settled_anew(self) -> tuple[Measured, str]:
        """Measure as an analysis would that knows nothing of the start; else as at the start."""
        try:
            return self._trained.settle()
        except OptionError:  # trying the model on rows does not tell how it is read any more
            return self._trained.measure(), ""

    def _last(self, budget: Budget) -> float:
        """Make the last measurement; return the seconds of it that count as spent between."""
        if self.points and self.points[-1].step == self.at and not self._reads_otherwise():
            return budget.last  # it was due at this very step
        began = self._now()
        found = self._measured(settle=True)
        if found is not None:
            self._take(found, self._now() - began)
        return 0.0

    def _reads_otherwise(self) -> bool:
        """Whether the model, read by trying it, is now read otherwise than at the start."""
        try:
            return bool(self._trained.read_again())
        except IsoprobeError:
            return False

    def _begin(self, found: Measured, asked: RunSettings, share: float | None) -> None:
        self._metric = str(found.attrs["metric"])
        if self._file is not None:
            header = {
                "monitor": 1,
                "isoprobe": found.attrs["isoprobe_version"],
                "model": found.attrs["model"],
                "metric": self._metric,
                "data": found.attrs["data"],
                "samples": found.attrs["samples"],
                "every": self._every,
                "share": share,
                "seed": asked.seed,
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            }
            self._file.write(header)

    def _take(self, measured: Measured, seconds: float) -> Point:
        """Keep, write, show and log a point."""
        found = point(measured, self.at, beta=self._scheduled())
        if self.points and self.points[-1].step == found.step:
            self.points.pop()
        self.points.append(found)
        self.alarm = None
        training = self._budget.training if len(self.points) > 1 else 0.0
        if self._file is not None:
            more = {"seconds": round(seconds, 4), "training_seconds": round(training, 3)}
            self._file.write(record_of(found, **more))
        if self._table is not None:
            self._table.row(found, seconds)
        if self._told is not None:
            self._told(logged(found), self.at)
        self._idle = self._idle + 1 if found.used == 0 and len(self.points) > 1 else 0
        if self._idle >= PATIENCE:
            text = f"no latent is used at {self._idle} points in succession"
            self._raise(Alarm("collapse", self.at, text))
        return found

    def _scheduled(self) -> float | None:
        return float(self._beta(self.at)) if callable(self._beta) else self._beta

    def _raise(self, alarm: Alarm) -> None:
        self.alarm = alarm
        if self._file is not None:
            self._file.write({"alarm": asdict(alarm)})
        self._say(f"alarm: {alarm.kind} at step {alarm.step}: {alarm.text}")

    def _say(self, text: str) -> None:
        if self._table is not None:
            say(text)

    def _end(self, training: float, between: float) -> None:
        """Say what it cost, and close the log."""
        part = between / training if training > 0 else 0.0
        budget = self._budget
        late = f"; some came later than every {self._every} steps" if self._late else ""
        most = "" if budget.share is None else f" of at most {budget.share:.1%}"
        where = "" if self._file is None else f"; log: {self._file.path}"
        self.cost = part
        self._say(
            f"monitor: {len(self.points)} points, {between:.2f} s beyond the first and the last of "
            f"{training:.1f} s of training: {part:.1%}{most}{late}{where}"
        )
        if self._file is not None:
            self._file.write(
                {
                    "end": self.at,
                    "cost": round(part, 5),
                    "between_seconds": round(between, 4),
                    "training_seconds": round(training, 3),
                    "put_off": self._late,
                }
            )
            self._file.close()


def logged(found: Point) -> dict[str, float]:
    """Return what of a point goes to a logger, by name: known numbers alone."""
    values = {f"isoprobe/{name}": getattr(found, name) for name in LOGGED}
    return {name: float(value) for name, value in values.items() if value is not None}


def is_first() -> bool:
    """Whether this process is the first of its training, or the only one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    process = Process.of(os.environ)
    return process is None or process.rank == 0


def whole(model: Any) -> Any:
    """Return a model without what distributed training wraps it in.

    Args:
        model: as trained.

    Returns:
        The module inside, whose forward waits for no other process.

    Raises:
        OptionError: where no process holds all of its parameters.
    """
    parts = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    names = {type(part).__name__ for part in parts}
    sharded = any(type(p).__name__ == "DTensor" for part in parts for p in part.parameters(False))
    if sharded or any(name.startswith(("FullySharded", "FSDP")) for name in names):
        raise OptionError(
            "the parameters of the model are spread over processes, and a monitor looks at a whole "
            "model; gather them at some steps, and use isoprobe.analyze there"
        )
    if isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
        return model.module
    return model
