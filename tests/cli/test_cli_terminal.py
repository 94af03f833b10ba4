"""What a terminal and a program are told: verdicts as exit codes, versions, tables, colours."""

from __future__ import annotations

import csv
import json
import re
from contextlib import ExitStack
from pathlib import Path

import click
import pytest
from rich.cells import cell_len

from isoprobe.cli import main
from isoprobe.cli.analyze import FAILED, FAILING
from isoprobe.cli.doors import shown
from isoprobe.cli.group import cli, versions
from isoprobe.errors import OptionError
from isoprobe.show.compare import compare
from isoprobe.show.summary import SCHEMA, to_json, to_text
from isoprobe.show.tables import write_latents
from isoprobe.show.terminal import table
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


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_comparison_fits_breaks_no_name_and_keeps_its_columns(width: int) -> None:
    names = [f"a-model-with-hyphens-in-its-name-{k}" for k in range(4)]
    with ExitStack() as stack:
        results = [stack.enter_context(made_result(None)) for _ in names]
        text = compare(results, names).to_text(width)
    lines = click.unstyle(text).splitlines()
    assert max(map(len, lines)) <= width
    for name in names:
        assert any(name in line for line in lines)
    (block, *_) = "\n".join(lines).split("\n\n")
    assert len({len(line) for line in block.splitlines()[1:]}) == 1  # numbers end in one column


def test_a_table_too_wide_goes_on_below_itself() -> None:
    rows = [["name", "first", "second"], ["one", "11", "22"], ["two", "3" * 30, "4" * 30]]
    text = list(map(click.unstyle, table(rows, 50)))
    assert [line.split() for line in text if line] == [
        *(row[:2] for row in rows),
        *([row[0], row[2]] for row in rows),
    ]
    assert len(list(table(rows))) == 3


def test_letters_that_take_two_columns_keep_a_table_aligned() -> None:
    one, other = map(click.unstyle, list(table([["潜在変数", "1"], ["z", "1"]], heading=False)))
    assert cell_len(one) == cell_len(other)


def test_nothing_in_a_cell_is_markup() -> None:
    (line,) = table([["[bold]x[/bold]", ":smile:"]], heading=False)
    assert line.split() == ["[bold]x[/bold]", ":smile:"]


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
