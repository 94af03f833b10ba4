"""Every module opens with a sentence that says what it does: its first word is a verb."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("isoprobe", "plugins/isoprobe_plugins", "trainers/isoprobe_trainers")
#: verbs that modules open with; a new one is added here
VERBS = frozenset(
    [
        "Add",
        "Analyse",
        "Announce",
        "Answer",
        "Apply",
        "Average",
        "Be",
        "Blame",
        "Borrow",
        "Bound",
        "Bring",
        "Build",
        "Check",
        "Choose",
        "Compare",
        "Compute",
        "Count",
        "Decide",
        "Declare",
        "Define",
        "Describe",
        "Detect",
        "Differentiate",
        "Do",
        "Draw",
        "Drop",
        "Encode",
        "End",
        "Estimate",
        "Fetch",
        "Fill",
        "Find",
        "Fit",
        "Fix",
        "Follow",
        "Gather",
        "Give",
        "Go",
        "Hand",
        "Hold",
        "Import",
        "Interpret",
        "Join",
        "Judge",
        "Keep",
        "Know",
        "Learn",
        "Let",
        "List",
        "Load",
        "Look",
        "Lower",
        "Make",
        "Map",
        "Match",
        "Measure",
        "Mix",
        "Name",
        "Normalise",
        "Offer",
        "Open",
        "Order",
        "Own",
        "Pack",
        "Parse",
        "Plan",
        "Pool",
        "Prove",
        "Push",
        "Put",
        "Rank",
        "Read",
        "Record",
        "Recover",
        "Refuse",
        "Rehearse",
        "Repeat",
        "Replace",
        "Rescale",
        "Run",
        "Sample",
        "Say",
        "Score",
        "See",
        "Serve",
        "Set",
        "Settle",
        "Share",
        "Shorten",
        "Show",
        "Solve",
        "Speak",
        "Specify",
        "State",
        "Store",
        "Take",
        "Tell",
        "Train",
        "Translate",
        "Try",
        "Turn",
        "Walk",
        "Watch",
        "Weigh",
        "Write",
    ]
)


def first_word(path: Path) -> str:
    words = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split()
    return words[0].rstrip(",:") if words else ""


@pytest.mark.parametrize("package", PACKAGES)
def test_a_module_opens_with_a_verb(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        said = first_word(path)
        assert said in VERBS, (
            f"{name} opens with '{said}': begin with a verb that says what the module does, and "
            "add the verb to VERBS where it is new"
        )


def test_the_search_sees_a_riddle(tmp_path: Path) -> None:
    """Counter-test."""
    path = tmp_path / "riddle.py"
    path.write_text('"""Files that are whole or not there."""\n')
    assert first_word(path) not in VERBS


#: class names that still mean two things in two rooms; none may join them
TWICE = frozenset(
    [
        "Column",
        "Declared",
        "Finding",
        "Group",
        "Held",
        "Measured",
        "Mixture",
        "Objective",
        "Outcome",
        "Pair",
        "Part",
        "Parts",
        "Plan",
        "Pool",
        "Radogaga",
        "Recipe",
        "Record",
        "Rows",
        "Run",
        "Sizes",
        "Source",
        "Split",
        "Trained",
        "Verdict",
        "Work",
    ]
)
#: class names that are one thing in each of several frameworks or files, as its API asks for
ALIKE = frozenset({"MonitorCallback", "NegativeBinomial", "Result"})


def test_a_class_name_means_one_thing() -> None:
    """`Settings` and `Reading` meant three and four things: a name is taken once in all rooms."""
    names = Counter(
        node.name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in names.items() if count > 1} <= TWICE | ALIKE
