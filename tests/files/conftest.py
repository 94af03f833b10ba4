"""Commands typed in a folder of files, and what they say."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from isoprobe.cli import main

Said = tuple[int, str, str]


@pytest.fixture
def typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Run a command in a folder; returns exit code, stdout, stderr."""

    def run(folder: Path, *arguments: str) -> Said:
        monkeypatch.chdir(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main(list(arguments))
        return code, *capsys.readouterr()

    return run
