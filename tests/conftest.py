from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and checkpoints beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if folder.is_dir():
        return folder
    if os.environ.get("CI"):
        pytest.fail(f"CI needs the shared folder beside the checkout, and {folder} is missing")
    pytest.skip("the shared folder of data and checkpoints is not beside the checkout")
