"""Commands that load no model load no torch; those that do, do."""

from __future__ import annotations

import json

import pytest

from tests.processes import python

HEAVY = ("torch", "h5py", "matplotlib", "scipy", "pandas", "pyarrow")
SCRIPT = """
import json, sys
from isoprobe.cli import main
code = main({arguments!r})
print(json.dumps([code, [name for name in {heavy!r} if name in sys.modules]]), file=sys.stderr)
"""


def loaded(*arguments: str) -> tuple[int, list[str]]:
    """Exit code of a command in a fresh process, and the heavy modules it imported."""
    script = SCRIPT.format(arguments=list(arguments), heavy=HEAVY)
    done = python("-c", script)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, modules


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("plugins",), ("plugins", "--json"), ("analyze", "--help")],
    ids=" ".join,
)
def test_listing_and_help_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert loaded(*arguments) == (0, [])


def test_shell_completion_loads_nothing_heavy() -> None:
    environment = {
        "_ISOPROBE_COMPLETE": "bash_complete",
        "COMP_WORDS": "isoprobe an",
        "COMP_CWORD": "1",
    }
    script = SCRIPT.format(arguments=[], heavy=HEAVY)
    done = python("-c", script, **environment)
    assert "analyze" in done.stdout
    assert json.loads(done.stderr.splitlines()[-1])[1] == []


def test_a_command_that_needs_a_model_does_load_torch() -> None:
    """Without this the tests above could pass by looking in the wrong place."""
    code, modules = loaded("analyze", "no-such-file")
    assert code == 1
    assert "torch" in modules
