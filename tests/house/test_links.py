"""Links between the pages of the project lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]
    if not path.name.startswith("_")
)
#: made while the site is built
GENERATED = {"figures.md", "commands.md", "notebook.md"}


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as its readers' tools make them."""
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def broken(page: Path) -> list[str]:
    """Targets on a page that are neither a file of the project nor a heading."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    bad = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else page.parent / name
        if file.parent.name == "_generated" and file.name in GENERATED:
            continue
        if not file.exists() or (
            anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8"))
        ):
            bad.append(target)
    return bad


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n[a](#one-heading) [b](#two) [c](gone.md) [d](page.md)\n")
    assert broken(page) == ["#two", "gone.md"]


def test_addresses_outside_are_written_in_full() -> None:
    for page in PAGES:
        for address in re.findall(r"<?(https?://[^\s)>]+)", page.read_text("utf-8")):
            assert re.fullmatch(r"https?://[\w.-]+\.[a-z]+(/[^\s]*)?", address), (page, address)
