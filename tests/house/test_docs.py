"""What the documentation shows works, and it leaves nothing out."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isoprobe.cli.group import COMMANDS
from isoprobe.show import plots
from tests.house.test_inventory import found
from tests.processes import python

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ["index", "quickstart", "reading-a-report", "theory", "result-file", "api"]


def blocks(page: str, mark: str, language: str) -> list[str]:
    """Fenced blocks that follow a comment ``<!-- mark -->``."""
    text = (DOCS / f"{page}.md").read_text("utf-8")
    found = re.findall(rf"<!-- {mark} -->\n```{language}\n(.*?)```", text, flags=re.DOTALL)
    assert found, (page, mark)
    return found


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """A folder with the files of the quick start."""
    (tmp_path / "models.py").write_text(blocks("quickstart", "file: models.py", "python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("models", None)  # of another test's folder
    yield tmp_path
    sys.modules.pop("models", None)


def test_the_quick_start_reaches_a_report_of_ones_own_model(newcomer):
    import torch
    from models import Model

    torch.manual_seed(0)
    torch.save(Model().state_dict(), "weights.pt")
    np.save("rows.npy", np.random.default_rng(0).normal(size=(64, 8)).astype("float32"))
    (shown,) = blocks("quickstart", "command: in the same folder", "console")
    command = shlex.split(shown.removeprefix("$ isoprobe "))
    python("-m", "isoprobe", *command)
    assert "<title>" in (newcomer / "report.html").read_text("utf-8")


def test_the_quick_start_adds_few_lines_to_a_model():
    (code,) = blocks("quickstart", "file: models.py", "python")
    added = code[code.index("def build") :]
    assert len(added.strip().splitlines()) < 15


def test_the_quick_starts_python_runs(newcomer, capsys):
    (code,) = blocks("quickstart", "run", "python")
    scope: dict[str, object] = {}
    exec(compile(code, "quickstart.md", "exec"), scope)
    scope["result"].close()
    assert capsys.readouterr().out.startswith("[")


def test_the_page_of_adapters_is_its_template_filled():
    """Its rows of files are taken as they stand: they are measured where those files lie."""
    sys.path.insert(0, str(DOCS))
    try:
        import make_adapters
    finally:
        sys.path.remove(str(DOCS))
    page = (DOCS / "adapters.md").read_text("utf-8")
    lines = page[page.index("| file | adapter |") :].splitlines()[2:]
    rows = [line.removeprefix("| ").removesuffix(" |") for line in lines if line.startswith("| ")]
    assert len(rows) == len(make_adapters.CASES)
    filled = make_adapters.page([[row] for row in rows])
    assert filled == page, "edit docs/adapters.template, and run docs/make_adapters.py"


def test_every_figure_function_is_shown_once():
    sys.path.insert(0, str(DOCS))
    try:
        import generate
    finally:
        sys.path.remove(str(DOCS))
    shown = [entry.draw.__name__ for entry in plots.catalogue().values()] + list(generate.ARRAYS)
    helpers = {"available", "catalogue", "figure", "save", "styled", "to_png", "to_svg"}
    assert sorted(shown) == sorted(set(plots.__all__) - helpers)


def test_the_page_of_commands_has_them_all():
    sys.path.insert(0, str(DOCS))
    try:
        from generate import commands_page
    finally:
        sys.path.remove(str(DOCS))
    page = commands_page()
    for name in COMMANDS:
        assert f"## isoprobe {name}\n" in page


@pytest.mark.parametrize("page", PAGES)
def test_modules_and_functions_named_in_the_pages_exist(page):
    text = (DOCS / f"{page}.md").read_text("utf-8")
    for name in set(re.findall(r"`(isoprobe(?:_plugins)?(?:\.\w+)+)`", text)):
        assert found(name)


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the docs extra")
def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text("utf-8")
        fetched = re.findall(r'<(?:script|img|link)\b[^>]*\b(?:src|href)="(https?:[^"]+)"', text)
        assert fetched == [], page.name
