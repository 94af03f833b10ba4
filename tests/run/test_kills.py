"""Analysis, scoring and training survive SIGKILL at any moment, and end in the same numbers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.processes import python

ROOT = Path(__file__).resolve().parents[2]
#: with ISOPROBE_KILLS=100 a hundred of the analysis, fifty of scoring, fifty of the training
KILLS = int(os.environ.get("ISOPROBE_KILLS", "5"))
FORBIDDEN = ("unreadable", "differing", "leftovers", "refused")


@pytest.mark.skipif(sys.platform != "linux", reason="reads processor time from /proc")
def test_killed_commands_are_completed_by_resume() -> None:
    kills = {"analyze": KILLS, "score": max(2, KILLS // 2), "train": max(2, KILLS // 2)}
    wanted = [f"{kind}={count}" for kind, count in kills.items()]
    done = python("-m", "tests.kills", "7", *wanted, cwd=ROOT)
    for kind, seen in json.loads(done.stdout).items():
        assert seen["killed"] == kills[kind]
        assert seen["completed"] > 0
        assert {name: seen[name] for name in FORBIDDEN} == dict.fromkeys(FORBIDDEN, 0), done.stderr
    assert sum(seen["resumed"] for seen in json.loads(done.stdout).values()) > 0
