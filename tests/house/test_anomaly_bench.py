"""The page of the anomaly bench, and what the README says of it, are made from its records."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from benchmarks.anomaly import page
from tests.house.inventory import ROOT


def test_the_page_is_that_of_the_records() -> None:
    assert page.PAGE.read_text("utf-8") == page.page(page.read())


def test_the_readme_says_what_the_records_say() -> None:
    assert page.claim(page.read()) in " ".join((ROOT / "README.md").read_text("utf-8").split())


def test_ranks_share_ties_and_failures_come_last() -> None:
    values = {
        "one": {"a": np.array([0.5]), "b": np.array([0.9]), "c": np.array([0.5])},
        "two": {"a": np.array([0.1, 0.3]), "b": np.array([0.3, 0.5])},
    }
    found = page.ranks(values, ["a", "b", "c"])
    assert found[0].tolist() == rankdata([-0.5, -0.9, -0.5]).tolist()
    assert found[1].tolist() == [2, 1, 3]


def test_a_loss_is_one_beyond_its_error() -> None:
    ours = np.array([0.5, 0.6, 0.55, 0.52])
    values = {
        "clear": {"isoprobe": ours, "other": ours + 0.1 + np.array([0.01, -0.01, 0, 0])},
        "noise": {"isoprobe": ours, "other": ours + np.array([0.3, -0.29, 0.1, -0.1])},
        "win": {"isoprobe": ours, "other": ours - 0.1},
    }
    assert [text.split()[0] for text in page.losses(values, "other")] == ["clear"]
    assert page.standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)
