"""Imports go one way: rooms without cycles, and a core that knows no plugin.

The rule is read from the folders: a room imports from its own folder and from rooms that stand
above it in the list of its package.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "isoprobe": ROOT / "isoprobe",
    "isoprobe_plugins": ROOT / "plugins" / "isoprobe_plugins",
    "isoprobe_trainers": ROOT / "trainers" / "isoprobe_trainers",
}
MAY_IMPORT = {
    "isoprobe": {"isoprobe"},
    "isoprobe_plugins": {"isoprobe", "isoprobe_plugins"},
    "isoprobe_trainers": {"isoprobe", "isoprobe_plugins", "isoprobe_trainers"},
}
#: rooms of each package from top to bottom, a line each: the file or folder of that name
ROOMS = {
    "isoprobe": """
        errors moved progress
        files
        contracts hookspecs
        statistics
        theory
        derivatives
        results
        checkpoints
        probe
        data
        registry
        show
        run
        monitor
        testing
        scaffold
        api
        cli
        __main__ __init__
    """,
    "isoprobe_plugins": """
        heads
        adapters.extras
        metrics
        data
        architectures
        analyses
        adapters.weights
        adapters.declared
        adapters.scvi
        adapters.objects
        adapters.keras
        adapters.programs
        adapters.onnx
        adapters.diffusers
        adapters.pythae
        adapters.native
        doctor
        commands
    """,
    "isoprobe_trainers": """
        common
        toy
        images
        anomaly
        table
        page
        commands
    """,
}


def ranks(package: str) -> dict[str, int]:
    """Place of each room of a package, counted from the top."""
    lines = ROOMS[package].strip().splitlines()
    return {room: place for place, line in enumerate(lines) for room in line.split()}


def imports(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """What a tree imports when it runs, each as the names it may go by, the longest first.

    ``from a import b`` is module ``a.b`` where there is one, and otherwise module ``a``.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for branch in node.orelse:  # what stands under it is for type checkers
                yield from imports(ast.Module([branch], []))
        elif isinstance(node, ast.Import):
            yield from ((alias.name,) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"relative import: {ast.unparse(node)}")
            yield from ((f"{node.module}.{a.name}", str(node.module)) for a in node.names)
        else:
            yield from imports(node)


def modules(package: str) -> dict[str, Path]:
    """Dotted names and files of a package."""
    folder = PACKAGES[package]
    return {
        ".".join([package, *file.relative_to(folder).with_suffix("").parts]): file
        for file in sorted(folder.rglob("*.py"))
    }


def graph(package: str) -> dict[str, set[str]]:
    """Which modules of a package import which, its lazy front door left out."""
    files = modules(package)

    def target(names: tuple[str, ...]) -> str | None:
        tried = (spelling for name in names for spelling in (name, f"{name}.__init__"))
        return next((spelling for spelling in tried if spelling in files), None)

    return {
        name: {
            found
            for names in imports(ast.parse(file.read_text()))
            if (found := target(names)) not in {None, name, f"{package}.__init__"}
        }
        for name, file in files.items()
    }


def room(module: str) -> str:
    """The room a module stands in: the longest listed folder or file that its name begins with."""
    package, _, rest = module.partition(".")
    known = sorted(ranks(package), key=len, reverse=True)
    found = (name for name in known if rest == name or rest.startswith(f"{name}."))
    return next(found, "")


def violations(edges: Mapping[str, set[str]]) -> list[str]:
    """Imports from a room that stands below."""
    return [
        f"{module} imports {target}"
        for module, targets in edges.items()
        for target in targets
        if ranks(target.split(".")[0])[room(target)] > ranks(module.split(".")[0])[room(module)]
    ]


def borrowed(tree: ast.AST, module: str) -> Iterator[str]:
    """Names with an underscore that a module imports from another room."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module.split(".")[0] not in PACKAGES or room(node.module) == room(module):
            continue
        private = (a.name for a in node.names if re.match(r"_(?!_)", a.name))
        yield from (f"{node.module}.{name}" for name in private)


def cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, if any do."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def rooms_of(package: str) -> set[str]:
    """Rooms a package has, its own front doors left out."""
    named = [n for n in modules(package) if not n.endswith(".__init__") or n.count(".") > 1]
    return {room(name) or f"none for {name}" for name in named if not _is_folder(name)}


def _is_folder(module: str) -> bool:
    """Whether it is the __init__ of a folder that holds rooms, and nothing else."""
    return module.endswith("adapters.__init__")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_stands_in_a_room_and_every_room_is_there(package: str) -> None:
    assert rooms_of(package) ^ ranks(package).keys() <= {"__init__"}


@pytest.mark.parametrize("found", [violations, cycle])
@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way_and_in_no_circle(package: str, found: Any) -> None:
    assert found(graph(package)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_room_uses_the_underscored_names_of_another(package: str) -> None:
    for name, file in modules(package).items():
        assert list(borrowed(ast.parse(file.read_text()), name)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_stands_below(package: str) -> None:
    for name, file in modules(package).items():
        found = {names[-1].split(".")[0] for names in imports(ast.parse(file.read_text()))}
        assert found & PACKAGES.keys() <= MAY_IMPORT[package], name


# ------------------------------------------------------------------ the check itself can fail


def test_an_import_inside_a_function_counts() -> None:
    tree = ast.parse("def f():\n    from isoprobe.cli import main\n")
    assert ("isoprobe.cli.main", "isoprobe.cli") in set(imports(tree))


def test_an_import_for_type_checkers_does_not_count() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    import isoprobe.cli\nelse:\n    import os\n")
    assert list(imports(tree)) == [("os",)]


def test_an_upward_import_is_found() -> None:
    assert violations({"isoprobe.errors": {"isoprobe.api"}}) == [
        "isoprobe.errors imports isoprobe.api"
    ]


def test_an_underscored_name_of_another_room_is_found() -> None:
    tree = ast.parse("from isoprobe.probe.beta import _pooled, pooled\n")
    assert list(borrowed(tree, "isoprobe.show.summary")) == ["isoprobe.probe.beta._pooled"]
    assert list(borrowed(tree, "isoprobe.probe.quantities")) == []


def test_a_cycle_is_found() -> None:
    assert set(cycle({"a": {"b"}, "b": {"a"}})) == {"a", "b"}
