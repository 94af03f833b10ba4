"""Settings are said once: options, signatures and records agree with the fields."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import click
import numpy as np
import pytest

import isoprobe
from isoprobe.cli.analyze import analyze as analyze_command
from isoprobe.cli.merge import merge as merge_command
from isoprobe.cli.score import score as score_command
from isoprobe.errors import OptionError, ResultError
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
from tests.processes import python

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
    python("-c", script)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("samples", "100", "samples must be an integer or 'auto' of at least 1; found '100'"),
        ("samples", 2.5, "samples must be an integer or 'auto' of at least 1; found 2.5"),
        ("samples", 0, "found 0"),
        ("batch_size", 0, "batch_size must be an integer of at least 1; found 0"),
        ("memory", "lots", "memory must be bytes, or a size such as '2GiB'; found 'lots'"),
        ("memory", -1, "found -1"),
        ("threads", True, "threads must be an integer of at least 1; found True"),
        ("seed", 1.5, "seed must be an integer of at least 0; found 1.5"),
        ("dtype", "float16", "dtype must be 'float32' or 'float64'; found 'float16'"),
        ("resize", "32", "resize must be an integer or a pair; found '32'"),
        ("beta", "1", "beta must be a number or 'auto'; found '1'"),
        ("analyses", "isometry", "analyses must be a list; found 'isometry' (write ['isometry'])"),
        ("no_rows", "yes", "no_rows must be True or False; found 'yes'"),
    ],
)
def test_a_value_that_no_setting_may_have_is_one_clear_line(name, given, words):
    with pytest.raises(OptionError) as caught:
        RunSettings(**{name: given})
    assert words in str(caught.value)


def test_numbers_of_numpy_and_sizes_in_words_are_taken():
    asked = RunSettings(samples=np.int64(7), beta=np.float32(0.5), memory="2GiB", resize=[8, 8])
    assert (asked.samples, asked.beta, asked.memory, asked.resize) == (7, 0.5, 2 << 30, (8, 8))
    assert type(asked.samples) is int
