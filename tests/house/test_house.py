"""README, Makefile, constraints and packaging agree with the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import click
import pytest

from isoprobe.cli.group import cli
from tests.house import mutation

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def commands() -> list[str]:
    return cli.list_commands(click.Context(cli))


def test_readme_has_the_two_commands_before_the_tour() -> None:
    first = README.split("## A short tour")[0]
    assert re.findall(r"^make \w+", first, re.MULTILINE) == ["make demo", "make test"]


def test_readme_shows_the_known_models_that_were_measured() -> None:
    spec = importlib.util.spec_from_file_location("make_known", ROOT / "docs" / "make_known.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(made := importlib.util.module_from_spec(spec))
    table = made.table((ROOT / "docs" / "adapters.md").read_text("utf-8"))
    assert table.count("\n") >= 6
    assert made.BEGIN + table + made.END in README


def test_the_citation_has_the_version_of_the_project() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {PROJECT['project']['version']}\n" in citation


def test_readme_lists_exactly_the_commands_there_are() -> None:
    table = README.split("## Commands")[1].split("\n\n")[1]
    listed = re.findall(r"`isoprobe ([\w-]+)", table)
    assert sorted(listed) == commands()


def test_options_the_readme_shows_exist() -> None:
    known = {"--version", "--help"}
    for name in commands():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        known |= {option for parameter in command.params for option in parameter.opts}
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert shown <= known


def test_files_the_readme_links_exist() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_files_the_commands_of_the_readme_name_exist() -> None:
    named = re.findall(r"\b(?:examples|docs)/[\w./-]+\w", README)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_make_knows_every_target_the_documents_name() -> None:
    texts = README + (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / ".ci" / "run").read_text()
    named = set(re.findall(r"^make (\w+)", texts, re.MULTILINE))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets


def test_every_target_with_work_makes_the_environment_first() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipes = re.findall(r"^(\w+):(.*)\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    using = [name for name, needs, body in recipes if "$(BIN)" in body and "$(READY)" not in needs]
    assert recipes
    assert using == []


def test_make_runs_what_it_says() -> None:
    """A dry run of each target parses and names a command."""
    for target in ("demo", "test", "lint", "bench", "reproduce"):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert ".venv/bin/" in done.stdout


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_dependencies() -> set[str]:
    project = PROJECT["project"]
    lines = [*project["dependencies"]]
    for extra in ("data", "test", "dev"):
        lines += project["optional-dependencies"][extra]
    return {normal(re.split(r"[<>=!~ \[;]", line)[0]) for line in lines}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): pinned for name, pinned in pairs}


def test_constraints_pin_every_direct_dependency() -> None:
    assert direct_dependencies() - pins().keys() == set()


@pytest.mark.parametrize("name", sorted(pins()))
def test_no_pin_names_a_local_version(name: str) -> None:
    assert "+" not in pins()[name], "a local version cannot be had everywhere"


@pytest.mark.parametrize("name", sorted(pins().keys() & direct_dependencies()))
def test_the_tested_version_is_the_pinned_one(name: str) -> None:
    assert version(name).partition("+")[0] == pins()[name]


def test_the_installed_metadata_is_that_of_the_project() -> None:
    installed = {normal(re.split(r"[<>=!~ \[;]", line)[0]) for line in requires("isoprobe") or []}
    assert direct_dependencies() <= installed


def test_every_package_is_typed() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert [p for p in packages if not (ROOT / p / "py.typed").exists()] == []


def test_the_changelog_knows_what_is_unreleased() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_answer_to_where_is_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = text[text.index("## Where is ...") :].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        paths = re.findall(r"`((?:isoprobe|plugins|tests|trainers)/[^`]+)`", row)
        assert paths, row
        assert [path for path in paths if not (ROOT / path).exists()] == [], row


#: modules of the standard library that Windows does not have
UNIX_ONLY = {"crypt", "fcntl", "grp", "nis", "posix", "pty", "pwd", "resource", "spwd", "syslog"}
UNIX_ONLY |= {"termios", "tty"}


def at_the_top(tree: ast.Module) -> set[str]:
    """Modules that a file imports whenever it is imported, unguarded by ``try`` or ``if``."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_no_module_needs_unix_to_be_imported() -> None:
    files = [
        f for package in ("isoprobe", "plugins", "trainers") for f in (ROOT / package).rglob("*.py")
    ]
    assert len(files) > 100
    found = {str(f.relative_to(ROOT)): at_the_top(ast.parse(f.read_text("utf-8"))) for f in files}
    assert {name: has & UNIX_ONLY for name, has in found.items() if has & UNIX_ONLY} == {}
    assert at_the_top(ast.parse("import os.path\nfrom resource import getrusage")) & UNIX_ONLY


def test_changes_to_the_code_are_named_as_it_stands() -> None:
    """Those that must be noticed, and those that nothing can notice."""
    assert len(mutation.named()) == len(mutation.NAMED)
    assert mutation.unfounded() == []
    assert all(reason for *_, reason in mutation.EQUIVALENT)
