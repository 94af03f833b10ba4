"""Holds imports of our own inside functions to the places where they spare a library's start.

`isoprobe --help`, `plugins` and `inspect` load no torch, so commands and the heads of plugins
import what computes where they need it. Anywhere else an import stands at the top, where it can
be seen.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from tests.house.test_layers import PACKAGES, imports, modules

#: loaded by the list of commands, whatever is asked
FREE = sys.stdlib_module_names | {"click", "msgspec", "numpy", "pluggy"}
#: modules that every command loads, with what only their errors need
ERRORS_ONLY = {"isoprobe.registry.lookup"}


@cache
def parsed() -> dict[str, ast.Module]:
    """Syntax trees of every module, a package by its own name."""
    return {
        name.removesuffix(".__init__"): ast.parse(file.read_text())
        for package in PACKAGES
        for name, file in modules(package).items()
    }


def at_top(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """What a module imports when it is imported: what stands in functions left out."""
    bare = ast.parse(ast.unparse(tree))
    for node in ast.walk(bare):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    yield from imports(bare)


def in_functions(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """What is imported inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(ast.Module(node.body, []))


def own(names: tuple[str, ...]) -> str | None:
    """The module of ours that an import means, if it is one."""
    return next((name for name in names if name in parsed()), None)


@cache
def direct(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Modules of ours and libraries that a module imports at its top, its folders' included."""
    ours, libraries = set(), set()
    for names in at_top(parsed()[module]):
        target = own(names)
        if target is None:
            libraries.add(names[-1].split(".")[0])
        else:
            ours.update(_with_folders(target))
    return frozenset(ours), frozenset(libraries - FREE - PACKAGES.keys())


def _with_folders(module: str) -> Iterator[str]:
    parts = module.split(".")
    names = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    yield from (name for name in names if name in parsed())


@cache
def loads(module: str) -> frozenset[str]:
    """Libraries that importing a module loads."""
    waiting, seen, libraries = [module], set(), set()
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            ours, found = direct(here)
            libraries |= found
            waiting += ours
    return frozenset(libraries)


def is_command(module: str) -> bool:
    """Whether a module holds commands."""
    return module.startswith("isoprobe.cli") or ".commands" in module


def needless(module: str) -> list[str]:
    """Modules of ours that a module imports inside a function and could import at its top."""
    found = {target for names in in_functions(parsed()[module]) if (target := own(names))}
    return sorted(t for t in found if not loads(t) - loads(module))


def test_the_law_sees_what_an_import_would_load() -> None:
    assert "torch" in loads("isoprobe.probe.trials")
    assert "torch" not in loads("isoprobe.registry.lookup")
    assert list(in_functions(ast.parse("def f():\n    import isoprobe.api"))) == [("isoprobe.api",)]


@pytest.mark.parametrize("package", PACKAGES)
def test_own_imports_inside_functions_spare_a_library(package: str) -> None:
    found = {
        module: spared
        for module in parsed()
        if module.split(".")[0] == package and not is_command(module) and module not in ERRORS_ONLY
        if (spared := needless(module))
    }
    assert not found, "\n".join(f"{m}: {', '.join(t)} to the top" for m, t in found.items())
