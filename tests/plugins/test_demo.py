"""The first command of a newcomer works after a bare install, and its model is sound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from isoprobe.cli.main import main
from isoprobe_plugins.commands.demo import FOLDER, IMAGES, MODEL


def test_the_demo_writes_its_report_and_says_where(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert str(tmp_path / "isoprobe-demo.html") in said.err
    assert "<html" in Path("isoprobe-demo.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["isoprobe-demo.html"]
    # trained at beta 1 under bce: what the weights say is what the file says
    assert result["metric"] == "bce"
    assert abs(result["beta"]["recovered"] - 1) < 0.15
    assert main(["demo"]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_what_comes_with_it_is_small_and_has_its_licence_beside_it():
    assert MODEL.stat().st_size <= 2_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_500_000
    assert "MIT License" in (FOLDER / "LICENSE-fashion-mnist.txt").read_text()
    with np.load(IMAGES) as arrays:
        assert arrays["x"].shape == (500, 28, 28)
        assert arrays["x"].dtype == np.uint8
