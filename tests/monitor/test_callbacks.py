"""The monitor inside other people's trainers: Lightning's and Hugging Face's, and two processes."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from isoprobe.monitor import monitor as monitors
from isoprobe.monitor.stopping import Stopping
from isoprobe.show.trend import trend_of
from tests.monitor.test_monitor import analysed, monitor, same
from tests.monitor.toy import BETA, Toy, begun, loss, rows

X = rows(256)
#: every measurement that is due is made
OPTIONS: dict[str, Any] = {"metric": "sse", "every": 4, "share": None, "table": False}

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl
    from transformers import Trainer, TrainingArguments

    from isoprobe.monitor import lightning as in_lightning
    from isoprobe.monitor import transformers as in_transformers


class Module(pl.LightningModule):
    """A LightningModule that holds a VAE."""

    def __init__(self, *, broken_from: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Toy()
        self.broken_from = broken_from

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        value = loss(self.net(batch[0]), batch[0])
        if self.broken_from is not None and self.global_step >= self.broken_from:
            value = value * float("nan")
        return value

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 5e-3)


class Logger(pl.loggers.logger.DummyLogger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.told.append((step, metrics))


def fit(model: Module, folder: Path, callbacks: list[Any], logger: Any = False) -> Any:
    torch.manual_seed(1)
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X), batch_size=64, shuffle=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=3, logger=logger, callbacks=callbacks, default_root_dir=folder,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            accelerator="cpu", devices=1, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(model, data)
    return trainer


def test_a_lightning_training_is_watched_and_is_none_the_worse(tmp_path: Path) -> None:
    alone, watched = Module(), Module()
    fit(alone, tmp_path, [])
    logger = Logger()
    callback = in_lightning.MonitorCallback(X, beta=BETA, **OPTIONS)
    fit(watched, tmp_path, [callback], logger)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name
    assert callback.monitor is not None
    assert [found.step for found in callback.monitor.points] == [0, 4, 8, 12]
    same(callback.monitor.points[-1], analysed(watched.net, data=X))
    told = [(step, m) for step, m in logger.told if "isoprobe/rate" in m]
    assert [step for step, _ in told] == [0, 4, 8, 12]
    assert told[-1][1]["isoprobe/beta"] == BETA
    (log,) = tmp_path.glob("isoprobe-monitor-*.jsonl")
    assert list(trend_of(log).points) == callback.monitor.points


@pytest.mark.parametrize("stop", [True, False])
def test_a_lightning_training_ends_on_an_alarm_where_asked(stop: bool, tmp_path: Path) -> None:
    callback = in_lightning.MonitorCallback(
        X, model=lambda module: module.net, stop=stop, out=None, **OPTIONS
    )
    trainer = fit(Module(broken_from=5), tmp_path, [callback])
    assert trainer.global_step == (8 if stop else 12)
    assert callback.monitor is not None and callback.monitor.alarm is not None
    assert callback.monitor.alarm.kind == "not finite"


def test_a_lightning_training_that_breaks_off_leaves_a_whole_log(tmp_path: Path) -> None:
    class Breaks(Module):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            if self.global_step == 6:
                raise RuntimeError("out of something")
            return super().training_step(batch, index)

    path = tmp_path / "log.jsonl"
    callback = in_lightning.MonitorCallback(X, out=path, **OPTIONS)
    with pytest.raises(RuntimeError, match="out of something"):
        fit(Breaks(), tmp_path, [callback])
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines if "used" in line] == [0, 4]
    assert lines[-1]["end"] == 6


# ------------------------------------------------------------------ Hugging Face


class Wrapped(nn.Module):
    """As a Trainer takes it: inputs by name, a loss among the outputs."""

    def __init__(self, broken_from: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.vae = Toy()
        self.calls, self.broken_from = 0, broken_from

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        value = loss(self.vae(x), x)
        self.calls += 1
        broken = self.broken_from is not None and self.calls > self.broken_from
        return {"loss": value * float("nan") if broken else value}


def hugging(model: Wrapped, folder: Path, make: Any = None) -> Any:
    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"x": X[index]}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=12, per_device_train_batch_size=64, seed=3,
            report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=100,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=Rows())
        callback = None if make is None else make(trainer)
        if callback is not None:
            trainer.add_callback(callback)
        trainer.train()
    return trainer, callback


def test_a_training_of_hugging_face_is_watched_and_is_none_the_worse(tmp_path: Path) -> None:
    alone, watched = Wrapped(), Wrapped()
    hugging(alone, tmp_path)
    trainer, callback = hugging(
        watched,
        tmp_path,
        lambda trainer: in_transformers.MonitorCallback(X, log=trainer.log, **OPTIONS),
    )
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name]), name
    assert [found.step for found in callback.monitor.points] == [0, 4, 8, 12]
    same(callback.monitor.points[-1], analysed(watched.vae, data=X))
    told = [entry for entry in trainer.state.log_history if "isoprobe/rate" in entry]
    assert [entry["step"] for entry in told] == [0, 4, 8, 12]
    assert told[-1]["isoprobe/rate"] == callback.monitor.points[-1].rate
    assert len(list(tmp_path.glob("isoprobe-monitor-*.jsonl"))) == 1


def test_a_training_of_hugging_face_ends_on_an_alarm_where_asked(tmp_path: Path) -> None:
    trainer, callback = hugging(
        Wrapped(broken_from=5),
        tmp_path,
        lambda _: in_transformers.MonitorCallback(
            X, model=lambda model: model.vae, stop=True, out=None, **OPTIONS
        ),
    )
    assert trainer.state.global_step == 8
    assert callback.monitor.alarm.kind == "not finite"


# ------------------------------------------------------------------ two processes


def ddp(rank: int, folder: str, watched: bool) -> None:
    """One of two processes that train together; what it ended in goes to a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{watched}", rank=rank, world_size=2
    )
    model, _ = begun()
    both = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(both.parameters(), 5e-3)
    seen = monitor(both, X, every=4) if watched else None
    stopping = None if seen is None else Stopping(seen)
    torch.manual_seed(rank)
    ended = 0
    for step in range(1, 13):
        batch = X[torch.randint(len(X), (32,))]
        optimizer.zero_grad()
        loss(both(batch), batch).backward()
        optimizer.step()
        ended = step
        if seen is not None and stopping is not None:
            if step == 8 and rank == 0:
                seen.alarm = monitors.Alarm("collapse", 8, "made up for this test")
                seen._due = 1000
            else:
                seen.step(step)
            if stopping.after(step):
                break
        elif step == 8:
            break
    points = [] if seen is None else [found.step for found in seen.points]
    end = {"state": model.state_dict(), "points": points, "ended": ended}
    torch.save(end, f"{folder}/{rank}-{watched}.pt")
    torch.distributed.barrier()
    # gloo's destructor may wait for ever on a thread that waits for the interpreter: leave without
    os._exit(0)


def test_the_first_of_two_processes_measures_alone_and_both_stop(tmp_path: Path) -> None:
    for watched in (False, True):
        torch.multiprocessing.spawn(ddp, (str(tmp_path), watched), nprocs=2)
    ends = {
        (rank, watched): torch.load(tmp_path / f"{rank}-{watched}.pt")
        for rank in (0, 1)
        for watched in (False, True)
    }
    assert [ends[rank, True]["points"] for rank in (0, 1)] == [[0, 4], []]
    assert [ends[rank, True]["ended"] for rank in (0, 1)] == [8, 8]
    for rank in (0, 1):
        before, after = (ends[rank, watched]["state"] for watched in (False, True))
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
