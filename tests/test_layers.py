"""Imports go one way: layers without cycles, and a core that knows no plugin."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
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
#: each module imports only from its own line and those above; a new module gets its place here
LAYERS = (
    "errors files progress",
    "contracts hookspecs specs",
    "formulas headers pickles source statistics regression randomness tensors memory forward"
    " routes pullback random_pullback"
    " isometric fitting diagnosis quality objective finite",
    "checkpoint contents data datafiles",
    "planner probe spectrum calibration recovery untrained selfcheck",
    "netcdf journal result hdf5 shards",
    "anomaly_summary verdict summary matching compare plots report",
    "discovery registry",
    "engine jobs enough api sharding processes scoring score_files testing scaffold",
    "cli __main__ __init__",
)
RANK = {name: rank for rank, line in enumerate(LAYERS) for name in line.split()}


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


def layer(module: str) -> str:
    """The part of a core module's name that has a place among the layers."""
    return module.split(".")[1]


def violations(edges: Mapping[str, set[str]]) -> list[str]:
    """Imports that go against the layers."""
    return [
        f"{module} imports {target}"
        for module, targets in edges.items()
        for target in targets
        if RANK[layer(target)] > RANK[layer(module)]
    ]


def cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, if any do."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_core_module_has_a_place_among_the_layers() -> None:
    assert {layer(name) for name in modules("isoprobe")} - RANK.keys() == set()


def test_layers_name_only_modules_that_exist() -> None:
    assert RANK.keys() - {layer(name) for name in modules("isoprobe")} == set()


def test_core_imports_go_one_way() -> None:
    assert violations(graph("isoprobe")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_cycles(package: str) -> None:
    assert cycle(graph(package)) == []


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


def test_a_cycle_is_found() -> None:
    assert set(cycle({"a": {"b"}, "b": {"a"}})) == {"a", "b"}
