"""What a terminal and a program are told: verdicts as exit codes, versions, tables, colours."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import click
import pytest

from isoprobe.cli import main
from isoprobe.cli.analyze import FAILED, FAILING
from isoprobe.cli.doors import shown
from isoprobe.cli.group import cli, versions
from isoprobe.errors import OptionError
from isoprobe.show.summary import SCHEMA, to_json, to_text
from isoprobe.show.tables import write_latents
from tests.made import ORDER, VARIANCES, made_result

DIGITS = str(Path(__file__).parents[2] / "examples" / "digits.safetensors")
PAGE = Path(__file__).parents[2] / "docs" / "result-file.md"


def test_a_verdict_that_is_named_is_an_exit_code(capsys) -> None:
    few = ["analyze", DIGITS, "--samples", "40", "--analysis", "diagnosis"]
    level = json.loads(said(capsys, [*few, "--json"]))["verdict"]["level"]
    for name, levels in FAILING.items():
        assert main([*few, "--fail-on", name]) == (FAILED if level in levels else 0)
    assert "sound" not in {level for levels in FAILING.values() for level in levels}


def said(capsys, arguments: list[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_versions_are_told_in_either_order(capsys) -> None:
    for arguments in (["--version", "--json"], ["--json", "--version"]):
        assert json.loads(said(capsys, arguments)) == versions()
    assert {"isoprobe", "python", "platform", "dependencies"} <= versions().keys()
    assert versions()["dependencies"]["torch"]


def test_the_documents_keys_are_the_documented_ones() -> None:
    with made_result(None) as result:
        document = to_json(result)
    table = PAGE.read_text("utf-8").split("## The JSON")[1].split("## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {key for cell in cells for key in re.findall(r"`(\w+)`", cell)} == document.keys()
    assert f"`schema` (now {SCHEMA})" in table


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_summary_fits_and_breaks_no_name(width: int) -> None:
    name = "a-very-long-name-of-a-model-with-hyphens-that-nobody-would-want-to-see-broken.h5"
    with made_result(None, notes=[f"read from {name}"]) as result:
        text = click.unstyle(to_text(result, width))
    assert name in text
    assert max(len(line) for line in text.splitlines() if name not in line) <= width


def test_what_is_dim_is_no_escape() -> None:
    for style in ({"dim": True}, {"fg": "bright_black"}, {"bold": True, "fg": "green"}):
        text = click.style("a", **style)
        assert shown(text) == text


def test_no_help_text_speaks_to_programmers() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert not re.search(r"^\s*(Args|Raises|Returns):", command.help or "", re.M), name


def test_latents_are_written_for_papers(tmp_path) -> None:
    with made_result(None) as result:
        for kind in ("csv", "md", "tex"):
            write_latents(result, tmp_path / f"l.{kind}")
        with pytest.raises(OptionError, match=".csv, .md, .tex"):
            write_latents(result, tmp_path / "l.xlsx")
    rows = list(csv.DictReader((tmp_path / "l.csv").read_text("utf-8").splitlines()))
    assert [int(row["latent"]) for row in rows] == ORDER.tolist()
    assert [float(row["importance_exact"]) for row in rows] == VARIANCES[ORDER].tolist()
    markdown = (tmp_path / "l.md").read_text("utf-8").splitlines()
    assert len(markdown) == 6 and {line.count("|") for line in markdown} == {9}
    latex = (tmp_path / "l.tex").read_text("utf-8")
    assert r"\toprule" in latex and r"80.0\%" in latex
    assert latex.count(r" \\") == 5
