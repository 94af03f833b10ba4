"""Serve every trainer: schedule, device, random streams, log, resume file."""

from __future__ import annotations

import json
import math
import pickle
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.checkpoints.native import read_manifest
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.results.whole import replacing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: passes over the data; rows that fill no batch are left out, others each time.
        batch: rows of a step.
        lr: learning rate of Adam.
        decay: share of the epochs, the last ones, in which the rate falls to 0 along a half
            cosine; 0 keeps it constant.
    """

    epochs: int
    batch: int
    lr: float = 1e-3
    decay: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.lr > 0:
            raise OptionError(
                f"a schedule needs positive epochs, batch and rate; found epochs {self.epochs}, "
                f"batch {self.batch}, rate {self.lr}"
            )
        if not 0 <= self.decay <= 1:
            raise OptionError(f"a schedule's decay is a share from 0 to 1; found {self.decay}")

    def rate(self, epoch: int) -> float:
        """Learning rate during an epoch, counted from 0."""
        falling = self.decay * self.epochs
        past = epoch + 0.5 - (self.epochs - falling)
        if past <= 0 or falling == 0:
            return self.lr
        return self.lr * (1 + math.cos(math.pi * past / falling)) / 2

    def record(self) -> dict[str, Any]:
        """The schedule as plain values."""
        return asdict(self)


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name; ``auto`` prefers cuda, then mps, then the CPU.

    Raises:
        OptionError: when there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device '{name}' cannot be used: {reason}; try --device auto") from error
    return device


def generator(seed: int, stream: int) -> torch.Generator:
    """Return a CPU generator of its own for each purpose of each seed.

    Random numbers come from the CPU on every device, so that a seed means the same everywhere.
    """
    words = np.random.SeedSequence([seed, stream]).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def versions() -> dict[str, str]:
    """Versions that a training record keeps."""
    return {"isoprobe": version("isoprobe"), "torch": str(torch.__version__)}


class Clock:
    """Wall time and processor time of a training, across interruptions.

    Args:
        before: what :meth:`spent` gave when it was interrupted.
    """

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        earlier = before or {"seconds": 0.0, "cpu_seconds": 0.0}
        self._wall = time.monotonic() - earlier["seconds"]
        self._cpu = time.process_time() - earlier["cpu_seconds"]

    def spent(self) -> dict[str, float]:
        """Seconds so far by the wall clock, and of all threads on the processor."""
        wall, cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        return {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}


def trained(checkpoint: Path, **expected: object) -> bool:
    """Return whether a checkpoint is there, trained as expected.

    Args:
        checkpoint: native checkpoint.
        expected: what its training record has to say.

    Returns:
        True to use it again, False to train it.

    Raises:
        CheckpointError: when one that is there was trained otherwise.
    """
    if not checkpoint.exists():
        return False
    record = read_manifest(checkpoint).training
    if any(record.get(name) != value for name, value in expected.items()):
        raise CheckpointError(
            f"{checkpoint} was trained on another schedule; choose another --out, or remove it"
        )
    return True


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all; what was there before stays until then.

    Args:
        path: the file.

    Yields:
        A path beside it, to write to.

    Raises:
        CheckpointError: when it cannot be written: a full disk, say.
    """
    try:
        with replacing(path) as partial:
            yield partial
    except (OSError, RuntimeError) as error:
        raise CheckpointError(_unwritable(path, error)) from error


def _unwritable(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0]
    return f"cannot write {path}: {reason}; make room and go on with --resume"


# --------------------------------------------------------------------------- resume file


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a resume file, whole or not at all.

    Raises:
        CheckpointError: when it cannot be written.
    """
    with whole(path) as partial:
        torch.save(dict(state), partial)


def load_state(path: Path) -> dict[str, Any]:
    """Return what a resume file holds; only tensors and plain values are accepted.

    Raises:
        CheckpointError: when it is damaged or holds anything else.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no readable resume file; remove it to train from the start"
        ) from error
    return state


# --------------------------------------------------------------------------- log


class JsonLog:
    """One JSON object a line, one line an epoch and member.

    Args:
        path: file to append to.
        begun: first epoch to write; that and later ones are dropped, being from before an
            interruption.
        members: whose lines are about to be written, when those of others are to be left alone.
    """

    def __init__(self, path: Path, begun: int, members: Collection[str] | None = None) -> None:
        self.path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _stays(line, begun, members)]
        with whole(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records.

        Raises:
            CheckpointError: when they cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
        except OSError as error:
            raise CheckpointError(_unwritable(self.path, error)) from error


def _stays(line: str, begun: int, members: Collection[str] | None) -> bool:
    try:
        record = json.loads(line)
        another = members is not None and record["member"] not in members
        return another or bool(record["epoch"] < begun)
    except (ValueError, KeyError, TypeError):
        return False  # a line cut short by a kill
