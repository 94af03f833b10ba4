"""Kills workers and schedulers of a cluster at random moments, and has runs completed by --resume.

One process imports everything and forks scheduler, workers and the asking command, as
:mod:`tests.kills` does: ``python -m tests.cluster_kills 7 25`` kills 25 of each, seed first;
with ``worker`` or ``scheduler`` behind, of that kind alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import distributed

from isoprobe.cli import main
from tests.kills import contents_of, ended, import_all, model_and_data

COUNTS = (
    "worker", "scheduler", "completed", "refused", "differing", "remade", "resumed", "leftovers",
)  # fmt: skip
#: seconds that a command may take, on a machine that does other things
LONGEST = 1200.0
ARGUMENTS = [
    *("analyze", "m.safetensors", "--data", "rows.npy", "--out", "out/r.h5"),
    *("--batch-size", "50", "--samples", "all", "--threads", "1"),
    *("--analysis", "isometry", "--analysis", "anomaly", "--analysis", "importance"),
]


def forked(folder: Path, log: str, work: Callable[[], int]) -> int:
    """Run something in a process of its own; return its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.chdir(folder)
        out = os.open(folder / log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = work()
    finally:
        os._exit(code)


def scheduler(port: int) -> int:
    async def run() -> None:
        async with distributed.Scheduler(
            host="127.0.0.1", port=port, dashboard_address=":0"
        ) as one:
            await one.finished()

    asyncio.run(run())
    return 0


def worker(address: str, folder: Path) -> int:
    async def run() -> None:
        async with distributed.Worker(
            address, nthreads=1, local_directory=str(folder / "scratch"), dashboard_address=":0"
        ) as one:
            await one.finished()

    asyncio.run(run())
    return 0


def killed(pid: int) -> None:
    """Kill a child of ours, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


class Cluster:
    """A scheduler and two workers, each a process that may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = forked(folder, "scheduler.txt", lambda: scheduler(port))
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        self.workers = [self.worker() for _ in range(2)]

    def worker(self) -> int:
        log = f"worker-{time.monotonic_ns()}.txt"
        return forked(self.folder, log, lambda: worker(self.address, self.folder))

    def close(self) -> None:
        for pid in (*self.workers, self.scheduler):
            killed(pid)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster for a while."""
    one = Cluster(folder)
    try:
        yield one
    finally:
        one.close()


def asked(folder: Path, address: str, *more: str) -> int:
    """Start the command; return its process."""
    return forked(folder, "log.txt", lambda: main([*ARGUMENTS, "--cluster", address, *more]))


def waited(pid: int, until: Callable[[], bool] = lambda: False) -> int | None:
    """Wait for a command, or for something else to be so; return its exit code if it ended."""
    limit = time.monotonic() + LONGEST
    while not ended(pid) and time.monotonic() < limit:
        if until():
            return None
        time.sleep(0.002)
    if not ended(pid):
        killed(pid)
        raise RuntimeError("the command hangs")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def stamps(folder: Path) -> dict[str, int]:
    """When each finished shard was written."""
    found = {}
    for path in (folder / "out" / "r.h5.partial").glob("*.shard"):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = path.stat().st_mtime_ns
    return found


def fresh(folder: Path) -> None:
    """Empty the output folder."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    for path in sorted(out.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def one_run(folder: Path, kind: str, chance: random.Random, seen: dict[str, int]) -> None:
    """Kill a worker or the scheduler when some shards are there, and see the run completed."""
    fresh(folder)
    shards = chance.randint(0, 14)
    pause = chance.uniform(0, 0.05)
    before: dict[str, int] = {}
    with cluster(folder) as lent:
        pid = asked(folder, lent.address)
        code = waited(pid, lambda: len(stamps(folder)) >= shards and bool(stamps(folder)))
        time.sleep(pause)
        if kind == "worker":
            place = chance.randrange(2)
            killed(lent.workers[place])
            lent.workers[place] = lent.worker()
        else:
            killed(lent.scheduler)
        seen[kind] += 1
        if code is None:
            code = waited(pid)
        before = stamps(folder)
    if code != 0 and kind == "scheduler":
        text = (folder / "log.txt").read_text()
        told = "Error: the scheduler at" in text and "--resume" in text
        if not told:
            print(text, file=sys.stderr)
        seen["refused"] += not told
        seen["resumed"] += 1
        with cluster(folder) as lent:
            pid = asked(folder, lent.address, "--resume")
            after: dict[str, int] = {}

            def watching() -> bool:
                after.update(stamps(folder))
                return False

            code = waited(pid, watching)
        seen["remade"] += sum(after.get(name, when) != when for name, when in before.items())
    if code != 0:
        print((folder / "log.txt").read_text(), file=sys.stderr)
    seen["refused"] += code != 0
    seen["completed"] += code == 0
    if code == 0:
        seen["differing"] += contents_of(folder / "out" / "r.h5") != contents_of(folder / "one.h5")
        seen["leftovers"] += [p.name for p in (folder / "out").iterdir()] != ["r.h5"]


def campaign(folder: Path, kills: int, seed: int, kinds: list[str]) -> dict[str, int]:
    """Kill as many workers and as many schedulers, each in a run of its own."""
    dask.config.set({"distributed.comm.timeouts.connect": "15s"})
    model_and_data(folder)
    fresh(folder)

    def alone() -> int:
        code = main(ARGUMENTS)
        (folder / "modules.json").write_text(json.dumps(sorted(sys.modules)))
        return code

    if waited(forked(folder, "log.txt", alone)) != 0:
        raise RuntimeError((folder / "log.txt").read_text())
    (folder / "out" / "r.h5").rename(folder / "one.h5")
    import_all(json.loads((folder / "modules.json").read_text()))
    seen = dict.fromkeys(COUNTS, 0)
    chance = random.Random(seed)
    for kind in kinds or ("worker", "scheduler"):
        for _ in range(kills):
            one_run(folder, kind, chance, seen)
            print(json.dumps(seen), file=sys.stderr, flush=True)
    return seen


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="cluster-kills-") as name:
        given = (int(sys.argv[2]), int(sys.argv[1]), sys.argv[3:])
        print(json.dumps(campaign(Path(name), *given)))
