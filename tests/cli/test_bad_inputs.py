"""Wrong commands: one line that names what is at fault, the right exit code, nothing left."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests import bad_inputs

#: a tenth of the commands in everyday tests; all of them with ISOPROBE_BAD_INPUTS=all
STEP = 1 if os.environ.get("ISOPROBE_BAD_INPUTS") == "all" else 10


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory):
    """A folder of good and bad files to work in, and every case."""
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("bad"))
    made = bad_inputs.make(Path())
    patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    yield made
    patch.undo()


def test_there_are_five_hundred(cases) -> None:
    assert len({case.arguments for case in cases}) >= 500


def test_a_wrong_command_says_what_is_wrong_and_leaves_nothing(cases) -> None:
    wrong = {}
    for case in cases[::STEP]:
        outcome = bad_inputs.run(case)
        faults = outcome.faults(case)
        if faults:
            wrong[" ".join(case.arguments)] = (*faults, outcome.err)
    assert wrong == {}


def test_the_watch_sees_a_good_command_as_wrong(cases) -> None:
    """Counter-test: a command that works, takes what was expected to fail, and leaves a file."""
    del cases
    good = bad_inputs.Case(("report", "result.h5", "-o", "new.html"), 1, ("nothing",))
    faults = " ".join(bad_inputs.run(good).faults(good))
    assert "exit code 0" in faults
    assert "new.html" in faults
    assert not Path("new.html").exists()
