"""Kills whole commands at random moments, and has each completed with ``--resume``.

One process imports everything and then forks a victim for each attempt, since starting Python
anew would take longer than the run itself. As a script, seed first:
``python -m tests.kills 0 analyze=100 train=20``.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from isoprobe.cli import main
from isoprobe.errors import IsoprobeError

COUNTS = ("killed", "resumed", "completed", "unreadable", "differing", "leftovers", "refused")


@dataclass(frozen=True)
class Victim:
    """A command that is killed and resumed.

    Attributes:
        arguments: of the command, without those that say how to begin.
        pattern: of the names of the files it makes.
        contents: what of an output must be the same in the end; raises when it cannot be read.
        prepare: makes states be saved at every chance, so that a short run has many.
        log: file whose lines must be the same too once a run has ended.
    """

    arguments: list[str]
    pattern: str
    contents: Callable[[Path], object]
    prepare: Callable[[], None]
    log: str | None = None


def model_and_data(folder: Path) -> None:
    """Write a small model and its rows."""
    import numpy as np
    import torch

    from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
    from isoprobe_plugins.architectures.mlp import Mlp

    config = {
        "input_shape": [12],
        "encoder_widths": [8],
        "decoder_widths": [8],
        "latent_size": 3,
        "output": "sigmoid",
    }
    torch.manual_seed(0)
    networks = Mlp().build(config)
    manifest = Manifest(FORMAT_VERSION, "mlp", config, 3, Objective("bce", 1.0))
    write_checkpoint(
        folder / "m.safetensors", networks.encoder, networks.decoder, manifest, overwrite=True
    )
    rows = np.random.default_rng(0).random((1500, 12)).astype("float32")
    np.save(folder / "rows.npy", rows)


def contents_of(path: Path) -> object:
    """Every number and attribute of a result, but how it was asked for."""
    import h5py

    from isoprobe.results.reader import Result

    with Result.open(path) as result:
        attrs = {k: v for k, v in result.attrs.items() if k not in {"command", "output"}}
    arrays: dict[str, bytes] = {}

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()].tobytes() if item.dtype.kind != "O" else repr(item[()])

    with h5py.File(path) as file:
        file.visititems(take)
    return arrays, attrs


def analysis(folder: Path) -> Victim:
    """``analyze`` with every analysis that a report shows, in eight shards."""
    model_and_data(folder)
    arguments = ["analyze", "m.safetensors", "--data", "rows.npy", "--batch-size", "100"]
    for name in ("isometry", "importance", "anomaly", "density", "rate-distortion", "diagnosis"):
        arguments += ["--analysis", name]
    arguments += ["--out", "out/result.h5"]
    return Victim(arguments, "*.h5", contents_of, lambda: None)


def training(folder: Path) -> Victim:
    """``train toy`` of two models for some epochs."""
    del folder
    arguments = ["train", "toy", "--data", "toy/mix:samples=1000", "--quick", "--epochs", "12"]
    arguments += ["--seed", "0", "--seed", "1", "--out", "out"]

    def contents(path: Path) -> object:
        from isoprobe.checkpoints.native import read_manifest, weights

        manifest = read_manifest(path)
        tensors = {name: value.numpy().tobytes() for name, value in weights(path).items()}
        return tensors, manifest.training["last_epoch"]

    return Victim(arguments, "*.safetensors", contents, _save_every_epoch, "log.jsonl")


def scoring(folder: Path) -> Victim:
    """``score`` in a dozen shards, against a reference that is there."""
    model_and_data(folder)
    given = ["m.safetensors", "--data", "rows.npy"]
    reference = ["--analysis", "anomaly", "--out", "reference.h5", "--overwrite"]

    def prepare() -> None:
        if not Path("reference.h5").exists():
            main(["analyze", *given, *reference])

    arguments = ["score", *given, "--reference", "reference.h5", "--batch-size", "32"]
    arguments += ["--out", "out/scores.h5"]
    return Victim(arguments, "*.h5", lambda path: path.read_bytes(), prepare)


VICTIMS = {"analyze": analysis, "score": scoring, "train": training}


def _save_every_epoch() -> None:
    from isoprobe_trainers.toy import train as toy

    toy.SAVE_EVERY = -1.0


def attempt(
    victim: Victim, folder: Path, more: list[str], seconds: float | None = None
) -> tuple[int | None, float]:
    """Run the command in a fork; kill it once it has used so many seconds of processor time.

    Returns:
        Its exit code, None when it was killed, and the processor time it used.
    """
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.chdir(folder)
            log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            victim.prepare()
            code = main([*victim.arguments, *more])
            (folder / "modules.json").write_text(json.dumps(sorted(sys.modules)))
        finally:
            os._exit(code)
    while seconds is not None and not ended(pid):
        if used(pid) >= seconds:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.0005)
    _, status, usage = os.wait4(pid, 0)
    code = None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
    return code, usage.ru_utime + usage.ru_stime


def ended(pid: int) -> bool:
    """Whether a child has ended, leaving it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def used(pid: int) -> float:
    """Seconds of processor time of a process's first thread, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def import_all(names: list[str]) -> None:
    """Import what a victim has imported, so that later ones need not."""
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)


def fresh(folder: Path) -> Path:
    """Make the output folder anew."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    for path in sorted(out.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return out


@dataclass
class Campaign:
    """Runs of one victim, killed and resumed, and what came of them.

    Attributes:
        victim: what is run.
        folder: where.
        chance: of the moments.
        seen: numbers of :data:`COUNTS`.
    """

    victim: Victim
    folder: Path
    chance: random.Random
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))

    def __post_init__(self) -> None:
        self._undisturbed()
        import_all(json.loads((self.folder / "modules.json").read_text()))
        self.out, self.whole_run = self._undisturbed()
        self.usual = {p.name for p in self.out.rglob("*")}
        self.reference = {
            p.name: self.victim.contents(p) for p in self.out.glob(self.victim.pattern)
        }
        self.lines = self._lines()

    def _undisturbed(self) -> tuple[Path, float]:
        out = fresh(self.folder)
        code, seconds = attempt(self.victim, self.folder, [])
        if code != 0:
            raise RuntimeError((self.folder / "log.txt").read_text())
        return out, seconds

    def _lines(self) -> list[str]:
        if self.victim.log is None:
            return []
        return sorted((self.out / self.victim.log).read_text().splitlines())

    def run(self, kills: int) -> dict[str, int]:
        """Begin runs and kill them until so many have died; let the last one end."""
        while self.seen["killed"] < kills:
            self.one_run(kills)
        return self.seen

    def one_run(self, kills: int) -> None:
        """Begin anew, then kill and resume until every output is whole."""
        fresh(self.folder)
        more: list[str] = []
        code: int | None = None
        while code is None and not self.whole():
            going_on = any(p.name not in self.reference for p in self.out.rglob("*"))
            last = self.seen["killed"] >= kills
            moment = None if last else self.chance.uniform(0, self.whole_run)
            code, _ = attempt(self.victim, self.folder, more, moment)
            self.seen["killed"] += code is None
            self.seen["resumed"] += bool(more) and going_on
            more = ["--resume"]
        self.seen["completed"] += 1
        self.seen["refused"] += code not in {0, None}
        self.seen["differing"] += not self.whole()
        if code == 0:  # after a kill in the last moment a folder to be reused may stay
            self.seen["differing"] += self._lines() != self.lines
            self.seen["leftovers"] += len({p.name for p in self.out.rglob("*")} - self.usual)

    def whole(self) -> bool:
        """Whether every output is there and as it should be; counts those that are broken."""
        good = 0
        for name, expected in self.reference.items():
            if not (self.out / name).exists():
                continue
            try:
                same = self.victim.contents(self.out / name) == expected
            except (IsoprobeError, OSError, ValueError, KeyError):
                self.seen["unreadable"] += 1
                continue
            self.seen["differing"] += not same
            good += same
        return good == len(self.reference)


def campaign(kind: str, kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill a command until ``kills`` of its runs died; count what that did."""
    return Campaign(VICTIMS[kind](folder), folder, random.Random(seed)).run(kills)


def run(wanted: list[str], seed: int) -> dict[str, dict[str, int]]:
    """Run campaigns such as ``analyze=100`` one after the other."""
    found = {}
    for kind, _, kills in (text.partition("=") for text in wanted):
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            found[kind] = campaign(kind, int(kills), seed, Path(folder))
    return found


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[2:], int(sys.argv[1]))))
