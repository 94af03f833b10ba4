"""A result survives SIGKILL: at any line of the writer, and at any moment.

Run as a script this file is the victim: it forks a run, counts the lines it executes inside
the writer, and kills itself at a chosen one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isoprobe.contracts import Variable
from isoprobe.data.order import Order
from isoprobe.errors import ResultError
from isoprobe.results.reader import Result
from isoprobe.results.working import Working
from isoprobe.results.writer import ResultWriter
from isoprobe.run.shards import Columns, ShardFolder

SAMPLES, LATENT, BATCH = 60, 3, 7
WRITER = tuple(f"isoprobe/results/{name}.py" for name in ("writer", "shard", "working", "netcdf"))


def rows(start: int, stop: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SAMPLES, LATENT))[start:stop]


def run(path: Path, pause: float = 0.0) -> None:
    """Sum rows shard by shard, going on from whatever an earlier run left."""
    begun = path.with_name(path.name + ".partial").exists()
    with Working.open(path, {"seed": 0}, resume=True, overwrite=not begun) as working:
        folder = ShardFolder(working, {"seed": 0})
        order = Order(SAMPLES, SAMPLES)
        ranges = [range(a, min(a + BATCH, SAMPLES)) for a in range(0, SAMPLES, BATCH)]
        for part in folder.missing(ranges, order):
            batch = rows(part.start, part.stop)
            with folder.writer(part, order, LATENT) as shard:
                shard.append(len(batch), {"mean": Variable(("sample", "latent"), batch, "mean")})
                shard.finish(folder.record(), {"total": batch.sum(0)})
            time.sleep(pause)
        with (
            folder.opened(ranges, order) as shards,
            ResultWriter(working, samples=SAMPLES, latent=LATENT) as writer,
        ):
            total = sum(shard.state()["total"] for shard in shards)
            for part in ranges:
                writer.append(part.start, Columns(shards).read(part.start, part.stop))
            writer.write_group("sums", {"total": Variable(("latent",), total, "sum")})
            writer.finish({"seed": 0}).close()


def contents(path: Path) -> tuple[list[float], list[float]]:
    with Result.open(path) as result:
        return result["sums"]["total"].values.tolist(), result.samples()["mean"].ravel().tolist()


def traced_run(path: Path, fatal: int) -> int:
    """Run, dying at line ``fatal`` of the writer (0: never); return the lines executed."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(WRITER):
            return None
        if event == "line":
            lines += 1
            if lines == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        run(path)
    finally:
        sys.settrace(None)
    return lines


def killed_in_fork(path: Path, fatal: int) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            traced_run(path, fatal)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def readable(path: Path) -> str:
    try:
        return "whole" if contents(path) == contents(path.with_name("reference.h5")) else "differs"
    except ResultError as error:
        return "unfinished" if "unfinished" in str(error) or "not exist" in str(error) else "broken"


def torture(path: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill runs at random lines until ``kills`` died, resuming each to its end."""
    chance = random.Random(seed)
    total = traced_run(path.with_name("reference.h5"), 0)
    seen = dict.fromkeys(["killed", "whole", "unfinished", "differs", "broken", "leftover"], 0)
    while seen["killed"] < kills:
        if killed_in_fork(path, chance.randrange(1, total)):
            seen["killed"] += 1
            seen[readable(path)] += 1
            continue
        seen["differs"] += readable(path) != "whole"
        seen["leftover"] += path.with_name(path.name + ".partial").exists()
        path.unlink()
    return seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_kills_at_random_lines_leave_nothing_unreadable_and_change_no_number(tmp_path):
    target = tmp_path / "r.h5"
    kills = int(os.environ.get("ISOPROBE_KILLS", "25"))
    command = [sys.executable, __file__, str(target), str(kills), "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["killed"] == kills
    assert seen["unfinished"] > 0  # most kills hit the run, not its last lines
    assert (seen["broken"], seen["differs"], seen["leftover"]) == (0, 0, 0)


def test_kills_from_outside_at_random_moments(tmp_path):
    target = tmp_path / "r.h5"
    run(tmp_path / "reference.h5")
    partial = tmp_path / "r.h5.partial"
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, __file__, str(target)])
        while not list(partial.glob("*.shard")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(random.Random(attempt).uniform(0, 0.05))
        process.kill()
        process.wait()
        assert readable(target) in {"unfinished", "whole"}
    run(target)
    assert contents(target) == contents(tmp_path / "reference.h5")
    assert not partial.exists()


def test_an_older_result_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "r.h5"
    run(target)
    before = target.read_bytes()
    with (
        pytest.raises(ZeroDivisionError),
        Working.open(target, {"seed": 0}, overwrite=True) as working,
    ):
        folder = ShardFolder(working, {"seed": 0})
        with folder.writer(range(2), Order(4, 4), 1) as shard:
            shard.append(2, {"mean": Variable(("sample", "latent"), np.ones((2, 1)), "mean")})
            shard.finish(folder.record(), {})
        raise ZeroDivisionError
    assert target.read_bytes() == before
    assert (tmp_path / "r.h5.partial").is_dir()  # and the new one can be completed


if __name__ == "__main__":
    if len(sys.argv) == 2:
        run(Path(sys.argv[1]), pause=0.01)
    else:
        print(json.dumps(torture(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
