"""``isoprobe check``: every kind, what it prints, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoprobe.cli import main
from isoprobe.testing import Law, LawError

LINEAR = '{"input_shape": [6], "latent_size": 2}'


@pytest.mark.parametrize(
    "arguments",
    [
        ["metric.gaussian:sigma2=0.5"],
        ["metric.sse", "--shape", "3x2", "--shape", "5"],
        ["analysis.importance", "--metric", "sse"],
        ["architecture.linear", "--config", LINEAR],
        ["data-source.arrays", "--data", "x.npy"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_built_in_plugin_holds(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((5, 2)))
    assert main(["check", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 5
    assert all(line.startswith("holds ") for line in lines)


def test_an_adapter_is_tried_on_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(__file__).resolve().parents[2] / "examples" / "digits.safetensors"
    assert main(["check", "adapter.native", "--model", str(model), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"law": "model is in eval mode", "broken": None} in rows


def test_a_broken_law_is_shown_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks() -> None:
        raise LawError("2 where 1\nwas expected")

    laws = [Law("one is one", lambda: None), Law("two is one", breaks)]
    monkeypatch.setattr("isoprobe.testing.check_metric", lambda *_: laws)
    assert main(["check", "metric.sse"]) == 1
    out, err = capsys.readouterr()
    assert out == "holds  one is one\nbroken two is one\n         2 where 1 was expected\n"
    assert err == "Error: metric.sse breaks 1 of 2 laws\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["metrc.sse"], "did you mean 'metric'?"),
        (["sse"], "a plugin is named metric.NAME"),
        (["metric.ssee"], "no metric 'ssee'"),
        (["adapter.native"], "give --model"),
        (["data-source.arrays"], "give --data"),
        (["architecture.linear"], "give --config"),
        (["architecture.linear", "--config", "{"], "--config is no JSON"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_is_missing_is_asked_for(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
