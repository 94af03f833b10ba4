"""Settings are said once: options, signatures and records agree with the fields."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from typing import Any

import click
import pytest

import isoprobe
from isoprobe.cli.analyze import analyze as analyze_command
from isoprobe.cli.merge import merge as merge_command
from isoprobe.cli.score import score as score_command
from isoprobe.errors import ResultError
from isoprobe.run.settings import (
    CodeSettings,
    Opening,
    RunSettings,
    ScoreSettings,
    form,
    remember,
    remembered,
)
from isoprobe_plugins.commands.codes import encode as encode_command

#: what the Python calls take beside the settings
BESIDE = {"model", "data", "reference", "out", "overwrite", "resume", "progress", "command"}
KINDS = [
    (RunSettings, isoprobe.analyze, analyze_command),
    (ScoreSettings, isoprobe.score, score_command),
    (CodeSettings, isoprobe.encode, encode_command),
]


@pytest.mark.parametrize(("kind", "call", "_"), KINDS)
def test_a_signature_is_that_of_the_fields(kind: type, call: Any, _: click.Command) -> None:
    parameters = inspect.signature(call).parameters
    assert parameters.keys() - BESIDE == {f.name for f in fields(kind)}
    for f in fields(kind):
        assert (parameters[f.name].default, parameters[f.name].annotation) == (f.default, f.type)
        assert f"        {f.name}: " in call.__doc__


@pytest.mark.parametrize(("kind", "_", "command"), KINDS)
def test_every_setting_is_an_option_and_gives_its_default(
    kind: type, _: Any, command: click.Command
) -> None:
    options = {o.name: o for o in command.params if isinstance(o, click.Option)}
    typed = ["m", "--data", "d"]
    for name, value in (("reference", "r.h5"), ("out", "o.csv")):
        typed += [f"--{name}", value] if name in options and options[name].required else []
    given = command.make_context("x", typed).params
    for f in fields(kind):
        option = options[f.name]
        assert option.help.startswith(form(f).help[:40])
        if f.name in {"options", "analyses"}:
            continue  # repeatable: the command puts in what stands for none
        assert given[f.name] == f.default, f.name


def test_merge_asks_for_what_no_file_may_say() -> None:
    asked = {o.name for o in merge_command.params if isinstance(o, click.Option)}
    assert {f.name for f in fields(Opening) if not form(f).remembered} <= asked


def test_a_shard_remembers_how_it_was_asked_for() -> None:
    asked = RunSettings(metric="bce", beta=2.0, analyses=("isometry",), resize=(3, 4), seed=5)
    told, again = remembered(remember("m", None, asked), "s")
    assert told == {"model": "m", "data": None, "adapted": False}
    assert again == asked


def test_a_shard_remembers_nothing_that_says_which_code_runs() -> None:
    asked = RunSettings(adapter="factory", options={"target": "models.py:build"}, trust=True)
    kept = remember("m", "d", asked)
    assert kept is not None
    assert kept["adapted"] is True
    assert kept.keys().isdisjoint({"adapter", "options", "trust", "device"})


def test_what_a_shard_says_is_checked() -> None:
    kept = remember("m", "d", RunSettings())
    assert kept is not None
    assert remember(object(), "d", RunSettings()) is None
    for wrong in ({"seed": "x"}, {"trust": True}, {"pairs": None}):
        with pytest.raises(ResultError, match="s is damaged: request"):
            remembered({**kept, **wrong}, "s")
    with pytest.raises(ResultError, match="was made in Python"):
        remembered(None, "s")


def test_settings_load_no_torch() -> None:
    script = (
        "import sys, isoprobe.run.settings, isoprobe.cli.options; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
