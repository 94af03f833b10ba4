"""Run Python in a process of its own, for what must not be loaded, held or stopped in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def python(
    *arguments: str | Path,
    cwd: Path | None = None,
    check: bool = True,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run this interpreter on one thread, with more variables in its environment.

    Args:
        arguments: of the interpreter.
        cwd: where; here when None.
        check: whether it must succeed.
        environment: variables beside those of this process.

    Returns:
        What it said on both streams, and its exit code.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done
