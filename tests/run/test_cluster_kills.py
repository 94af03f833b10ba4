"""Runs on a cluster survive SIGKILL of worker and scheduler, and end in the same numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.processes import python

ROOT = Path(__file__).resolve().parents[2]
#: of each kind; 25 in the night
KILLS = int(os.environ.get("ISOPROBE_CLUSTER_KILLS", "0"))
FORBIDDEN = ("refused", "differing", "remade", "leftovers")


@pytest.mark.skipif(not KILLS, reason="ISOPROBE_CLUSTER_KILLS=25 kills 25 workers and schedulers")
def test_killed_workers_and_schedulers_change_nothing() -> None:
    done = python("-m", "tests.cluster_kills", "7", str(KILLS), cwd=ROOT)
    seen = json.loads(done.stdout)
    assert (seen["worker"], seen["scheduler"], seen["completed"]) == (KILLS, KILLS, 2 * KILLS)
    assert {name: seen[name] for name in FORBIDDEN} == dict.fromkeys(FORBIDDEN, 0), done.stderr
