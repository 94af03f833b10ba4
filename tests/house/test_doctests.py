"""What docstrings show is what happens."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "isoprobe", ROOT / "plugins" / "isoprobe_plugins")


def with_examples() -> list[str]:
    """Names of the modules that show something in a docstring."""
    found = []
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            if "\n        >>> " in path.read_text("utf-8"):
                parts = path.relative_to(package.parent).with_suffix("").parts
                found.append(".".join(parts).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", with_examples())
def test_examples_in_docstrings_come_true(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted > 0
    assert outcome.failed == 0
