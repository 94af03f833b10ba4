"""Processor time of what should feel instant: help, listings, 200 installed plugins."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.distributions import METRIC, install

STATE = "tests/gallery/layouts/files/vanilla_vae.pth"
DISCOVER = """
import time
before = time.process_time()
from isoprobe.registry.lookup import Registry
Registry().plugin("metric", "crowd-7")
print(time.process_time() - before)
"""


def cpu_seconds(*arguments: str) -> float:
    """Processor time of a command, its children included, median of five."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "isoprobe", *arguments], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return median(times)


def discovery_seconds(plugins: int) -> float:
    """Processor time to find that many installed plugins and import the one asked for."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(plugins):
            name, module = f"crowd-{number}", f"crowd_{number}"
            text = METRIC.format(name=name)
            install(Path(folder), name, {f"metric.{name}": module}, {module: text})
        environment = {**os.environ, "PYTHONPATH": folder}
        runs = [
            subprocess.run(
                [sys.executable, "-c", DISCOVER],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            for _ in range(5)
        ]
    return median(float(run.stdout) for run in runs)


def main() -> None:
    """Print each time beside its bar."""
    rows = [
        ("isoprobe --help", cpu_seconds("--help"), 0.3),
        ("isoprobe plugins", cpu_seconds("plugins"), None),
        ("isoprobe inspect, native", cpu_seconds("inspect", "examples/digits.safetensors"), 0.5),
        ("isoprobe inspect, state dict", cpu_seconds("inspect", STATE), 0.5),
        ("200 installed plugins, one imported", discovery_seconds(200), 0.2),
    ]
    for name, seconds, bar in rows:
        beside = "" if bar is None else f"   bar {bar} s"
        print(f"{name:<38}{seconds:6.3f} s{beside}")


if __name__ == "__main__":
    main()
