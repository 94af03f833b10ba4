"""Score a folder of Parquet parts in one process and on local workers, beside what --plan told.

Run it with ``python -m benchmarks.bench_cluster [rows] [workers ...]``; it prints times of wall and
processor, the memory of each process, what a task and a shard cost, and whether bytes are the same.
What starting takes is told from a run of a few rows. As many processes without a cluster, each with
its share of the parts, say what the machine itself takes from each where several of them compute.
Times of the wall say something only where nothing else runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_score import make_reference
from isoprobe.run.plan import plan_scores
from isoprobe.run.settings import ScoreSettings

COLUMNS, PARTS, GROUP = 16, 20, 50_000
#: rows of a run that does little beside starting
FEW = 100
_TASKS = 500
#: of commands; as it is before dask sets how its workers allocate memory, here as well
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Cost(NamedTuple):
    """What a command took: seconds of the wall and of processors, and the most memory of a process.

    Attributes:
        wall: seconds.
        processor: seconds, of all its processes.
        peaks: MiB of its processes, the largest first.
    """

    wall: float
    processor: float
    peaks: list[int]


def make(folder: Path, rows: int) -> None:
    """Write a model, a reference, and rows in parts."""
    draw = make_reference(folder, COLUMNS, [8], 2, 10_000)
    (folder / "rows").mkdir()
    for part in range(PARTS):
        count = rows // PARTS
        columns = {f"c{k}": draw.standard_normal(count, dtype=np.float32) for k in range(COLUMNS)}
        pq.write_table(
            pa.table(columns), folder / "rows" / f"part-{part:02}.parquet", row_group_size=GROUP
        )


def descendants(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text().split():
            yield from descendants(int(child))


def run(folder: Path, *command: str) -> Cost:
    """Run a command of isoprobe; return its cost."""
    peaks: dict[int, int] = {}
    before, began = os.times(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "isoprobe", *command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        env=_ENVIRONMENT,
    )

    def watch() -> None:
        while process.poll() is None:
            try:
                for pid in descendants(process.pid):
                    told = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                    peaks[pid] = max(peaks.get(pid, 0), int(told[1]) >> 10 if told else 0)
            except OSError:
                pass  # it ended meanwhile
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.wait()
    watcher.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return Cost(time.perf_counter() - began, used, sorted(peaks.values(), reverse=True))


def nothing(number: int) -> None:
    """Take a number, as a task takes its rows."""


def a_task() -> float:
    """Processor seconds that a task takes of scheduler and asking process, both here."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(nothing, range(20), pure=False))
        began = time.process_time()
        client.gather(client.map(nothing, range(_TASKS), pure=False))
        return (time.process_time() - began) / _TASKS


def same(one: Path, two: Path) -> bool:
    """Whether two files of scores hold the same bytes in every column."""
    with h5py.File(one) as a, h5py.File(two) as b:
        return list(a["samples"]) == list(b["samples"]) and all(
            a["samples"][name][:].tobytes() == b["samples"][name][:].tobytes()
            for name in a["samples"]
        )


def beside(folder: Path, count: int, asked: list[str]) -> Cost:
    """Cost of as many processes at once, each with its share of the parts."""
    running = []
    before, began = os.times(), time.perf_counter()
    for place in range(count):
        rows = folder / f"share-{count}-{place}"
        rows.mkdir()
        for part in sorted((folder / "rows").iterdir())[place::count]:
            os.link(part, rows / part.name)
        out = f"{rows.name}.h5"
        words = [*asked[:3], rows.name, *asked[4:], "--threads", "1", "--out", out]
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "isoprobe", *words],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
            )
        )
    for process in running:
        if process.wait():
            raise SystemExit(process.returncode)
    wall, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    for place in range(count):
        shutil.rmtree(folder / f"share-{count}-{place}")
        (folder / f"share-{count}-{place}.h5").unlink()
    return Cost(wall, used, [])


def main() -> None:
    """Make the files, run each way, and print a line each."""
    rows = int(sys.argv[1]) if sys.argv[1:] else 10_000_000
    counts = [int(text) for text in sys.argv[2:]] or [1, 2]
    print(f"{rows:,} rows; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print(f"a task: {1000 * a_task():.1f} ms of processor time")
    with tempfile.TemporaryDirectory(prefix="bench-cluster-") as name:
        folder = Path(name)
        make(folder, rows)
        asked = ["score", "model.safetensors", "--data", "rows", "--reference", "reference.h5"]
        files = (folder / "model.safetensors", str(folder / "rows"), folder / "reference.h5")
        plan = plan_scores(*files, ScoreSettings(threads=1, device="cpu"), parts=False)
        shards = len(plan.ranges)
        print(f"--plan: one process {plan.alone():.0f} s in {shards} shards")
        few = ("--samples", str(FEW), "--threads", "1", "--overwrite", "--out", "few.h5")
        started = run(folder, *asked, *few)
        one = run(folder, *asked, "--threads", "1", "--out", "one.h5")
        print(f"one process: {one}; starting {started}", flush=True)
        for count in counts:
            out = f"on{count}.h5"
            on = ("--cluster", f"local:{count}")
            begun = run(folder, *asked, *few, *on)
            here = run(folder, *asked, "--threads", "1", "--out", out, *on)
            print(f"local:{count}: {here}; starting {begun}; --plan told {plan.on(count):.0f} s")
            more = here.processor - begun.processor - (one.processor - started.processor)
            print(f"  {1000 * more / shards:.0f} ms of processor time a shard beyond one process")
            worked = (one.wall - started.wall) / count / (here.wall - begun.wall)
            print(f"  efficiency by the wall {one.wall / count / here.wall:.2f}", end="")
            print(f", {worked:.2f} without starting")
            if count > 1:
                apart = beside(folder, count, asked)
                worked = (one.wall - started.wall) / count / (apart.wall - started.wall)
                more = apart.processor - count * started.processor
                more -= one.processor - started.processor
                print(f"  {count} processes side by side, a share each: {apart.wall:.1f} s", end="")
                print(f", efficiency {one.wall / count / apart.wall:.2f}, {worked:.2f} without")
                print(f"    starting; {1000 * more / shards:.0f} ms of processor time for each of")
                print("    these shards beyond one process, which no scheduler takes")
            print(f"  same bytes: {same(folder / 'one.h5', folder / out)}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
