"""The tests on every supported Python, with the lowest, the pinned and the newest dependencies.

``nox`` runs whatever interpreters there are; ``nox -s "tests-3.11(versions='lowest')"`` runs one.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False
PROJECT = tomllib.loads((Path(__file__).parent / "pyproject.toml").read_text())["project"]
#: how pip is told which of the allowed versions to take
VERSIONS = ("lowest", "pinned", "newest")


def lowest(python: str) -> list[str]:
    """Return the lowest version each dependency is allowed to have, on one Python.

    torch stays at the pinned version, which may be the only one built for a machine; numpy has
    no release before 2.1 for Python 3.13.
    """
    bounds = [line.replace(">=", "==") for line in PROJECT["dependencies"]]
    kept = [line for line in bounds if not line.startswith("torch==")]
    if python == "3.13":
        kept = ["numpy==2.1.0" if line.startswith("numpy==") else line for line in kept]
    return kept


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("versions", VERSIONS)
def tests(session: nox.Session, versions: str) -> None:
    """Install one set of versions and run the tests on it."""
    pinned = ["-c", "constraints.txt"]
    session.install(*pinned, "torch")
    session.install(*(pinned if versions == "pinned" else []), "-e", ".[test]")
    if versions == "lowest":
        session.install(*lowest(str(session.python)))
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs)
