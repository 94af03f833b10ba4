"""A message is written once: commands name options, Python names parameters."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

import isoprobe
from isoprobe.cli.group import cli
from isoprobe.cli.main import main
from isoprobe.errors import (
    OPTIONS,
    SWITCHES,
    OptionError,
    on_the_command_line,
    option_of,
    worded,
)
from isoprobe.run.settings import CodeSettings, Opening, RunSettings, ScoreSettings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digits.safetensors"
PACKAGES = ("isoprobe", "plugins/isoprobe_plugins", "trainers/isoprobe_trainers")
SETTINGS = [f for kind in (Opening, RunSettings, ScoreSettings, CodeSettings) for f in fields(kind)]


@pytest.mark.parametrize(
    ("typed", "python"),
    [
        ("--beta must be positive; found -1.", "beta must be positive; found -1."),
        ("use --metric sse.", "use metric='sse'."),
        ("--metric ssim:window=3, or", "metric='ssim:window=3', or"),
        ("give --condition VALUE.", "give condition=VALUE."),
        ("take --resize 32x48", "take resize=(32, 48)"),
        ("as in --samples 10000", "as in samples=10000"),
        ("add --overwrite to replace it", "add overwrite=True to replace it"),
        ("--map needs --out FILE.h5.", "by_input=True needs out='FILE.h5'."),
        ("with --option layout=halves", "with options={'layout': 'halves'}"),
        ("take --analysis anomaly:by=site", "take analyses=['anomaly:by=site']"),
        ("make it with 'isoprobe analyze M --out F.h5'", None),
        ("a shard is what 'analyze --shard' wrote", None),
        ("raise --file-limit", None),
        ("a -- b, x--y, e=--", None),
    ],
)
def test_options_are_parameters_in_python(typed: str, python: str | None) -> None:
    assert str(OptionError(typed)) == (typed if python is None else python)
    with on_the_command_line():
        assert str(OptionError(typed)) == typed
    assert worded(typed) == (typed if python is None else python)


def test_one_error_is_told_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match=r"^alpha lies between 0 and 1; found 2"):
        isoprobe.score(EXAMPLE, data="prior", reference="none.h5", alpha=2.0)
    arguments = ["--data", "prior", "--reference", "none.h5", "--alpha", "2", "--out", "s.csv"]
    assert main(["score", str(EXAMPLE), *arguments]) == 1
    assert capsys.readouterr().err.startswith("Error: --alpha lies between 0 and 1; found 2")
    assert str(OptionError("--alpha")) == "alpha"


def test_the_tables_hold_what_the_settings_are() -> None:
    assert {f.name for f in SETTINGS if isinstance(f.default, bool)} <= SWITCHES
    assert OPTIONS.keys() <= {f.name for f in SETTINGS}
    known = options()
    assert {option_of(f.name) for f in SETTINGS} <= known


def options() -> set[str]:
    """Return every option of every command."""
    context = click.Context(cli)
    commands = [cli, *(cli.get_command(context, name) for name in cli.list_commands(context))]
    groups = [c for c in commands if isinstance(c, click.Group) and c is not cli]
    commands += [c.get_command(context, name) for c in groups for name in c.list_commands(context)]
    return {option for c in commands if c is not None for p in c.params for option in p.opts}


def messages() -> Iterator[tuple[str, str]]:
    """Yield what errors of the packages say, and where: what stands in braces is left out."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Raise):
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    for part in ast.walk(node):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            yield part.value, where


def test_every_option_that_an_error_names_is_there() -> None:
    known = options()
    unknown = [
        (option, where)
        for text, where in messages()
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
        if option not in known
    ]
    assert unknown == []


def test_a_result_beside_the_model_is_replaced_without_naming_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.h5").write_text("an old one")
    few = ["analyze", str(EXAMPLE), "--samples", "20", "--analysis", "importance"]
    assert main([*few, "--out", "r.h5", "--overwrite"]) == 0
    isoprobe.open("r.h5").close()
