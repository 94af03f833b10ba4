"""What a terminal and a program are told: verdicts as exit codes, versions, tables, colours."""

from __future__ import annotations

import csv
import json
import re
from contextlib import ExitStack
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
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


def test_quiet_keeps_errors_and_what_was_asked_for(capsys) -> None:
    few = ["analyze", DIGITS, "--samples", "40", "--json"]
    plain = said(capsys, few)
    assert main([*few, "-q"]) == 0
    assert capsys.readouterr() == (plain, "")
    assert main(["analyze", "no-such-file", "-q"]) == 1
    assert "no-such-file" in capsys.readouterr().err
    assert main(["analyze", DIGITS, "--samples", "none", "-q"]) == 2
    assert "--samples" in capsys.readouterr().err


def test_verbose_says_what_is_done_on_stderr_alone(capsys) -> None:
    few = ["analyze", DIGITS, "--samples", "40", "--json"]
    plain = said(capsys, few)
    for _ in range(2):  # and takes its handler away again
        assert main([*few, "-v"]) == 0
        out, err = capsys.readouterr()
        assert out == plain
        lines = [line for line in err.splitlines() if line.startswith("[")]
        assert len([line for line in lines if "model digits" in line]) == 1
        assert any("settled: batch_size" in line for line in lines)
        assert any("samples 0 to 40: probed" in line for line in lines)
    assert main(few) == 0
    assert "[" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["analyze", "--metric", "bc"], "bce"),
        (["score", "--metric", "ms_"], "ms_ssim"),
        (["spectrum", "--metric", "gaussian-"], "gaussian-heteroscedastic"),
        (["analyze", "--analysis", "coord"], "coordinates"),
        (["analyze", "--analysis", "+coord"], "+coordinates"),
        (["inspect", "--adapter", "nat"], "native"),
        (["check", "metric.bc"], "metric.bce"),
    ],
)
def test_names_of_plugins_are_completed(typed: list[str], offered: str) -> None:
    completing = ShellComplete(cli, {}, "isoprobe", "_ISOPROBE_COMPLETE")
    found = completing.get_completions(typed[:-1], typed[-1])
    assert [item.value for item in found] == [offered]


def test_data_is_completed_as_files() -> None:
    completing = ShellComplete(cli, {}, "isoprobe", "_ISOPROBE_COMPLETE")
    (found,) = completing.get_completions(["analyze", "m.pt", "--data"], "im")
    assert (found.value, found.type) == ("im", "file")


def test_a_pictures_shape_is_asked_for_where_pictures_are_drawn(tmp_path, capsys) -> None:
    few = ["analyze", DIGITS, "--samples", "20", "--analysis", "traversal", "-q"]
    assert main([*few, "--image-shape", "8x8"]) == 2
    assert "--report" in capsys.readouterr().err
    pages = []
    for shape in ("8x8", "4x16"):
        page, out = tmp_path / f"{shape}.html", tmp_path / f"{shape}.h5"
        assert main([*few, "--report", str(page), "--image-shape", shape, "--out", str(out)]) == 0
        pages.append(page.read_text("utf-8"))
    assert pages[0] != pages[1]
    results = [str(tmp_path / "8x8.h5"), str(tmp_path / "4x16.h5")]
    for shape in ("8x8", "4x16"):
        to = ["--html", str(tmp_path / f"both-{shape}.html"), "--image-shape", shape]
        assert main(["compare", *results, *to]) == 0
    assert len({(tmp_path / f"both-{s}.html").read_text("utf-8") for s in ("8x8", "4x16")}) == 2
    assert main(["compare", *results, "--image-shape", "8x8"]) == 2
