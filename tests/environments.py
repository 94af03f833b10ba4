"""Throw-away environments: real installations of small distributions on top of this one's."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

# A path file line that runs: the host's own path files (editable installs) count as well.
_HOST = "import site; site.addsitedir({site!r})\n"


class Environment:
    """A virtual environment that sees what this one has installed.

    Args:
        folder: where to make it.
    """

    def __init__(self, folder: Path) -> None:
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        self.python = folder / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = folder / "lib" / version / "site-packages"
        (site / "_host.pth").write_text(_HOST.format(site=sysconfig.get_paths()["purelib"]))

    def install(self, *projects: Path) -> None:
        """Build and install projects as pip does, without touching the network."""
        options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        self._call(
            [sys.executable, "-m", "pip", "--python", str(self.python), "install", *options]
            + [str(project) for project in projects]
        )

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run ``python ARGUMENTS`` and return its stdout."""
        return self._call([str(self.python), *arguments], cwd)

    @staticmethod
    def _call(command: Sequence[str], cwd: Path | None = None) -> str:
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON"))}
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, env=plain
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout
