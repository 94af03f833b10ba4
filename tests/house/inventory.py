"""List what a user was promised: commands with their help, plugins, variables, names in the docs.

``python -m tests.house.inventory`` writes ``inventory.json``; the test beside it compares what
there is now with that file, so that nothing promised goes without a line of reason.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("inventory.json")
#: made at run time: as many analyses as there are, on the checkpoint of the examples
MODEL = ROOT / "examples" / "digits.safetensors"
_DOTTED = r"\bisoprobe(?:_plugins|_trainers)?(?:\.[A-Za-z_]\w*)+"


def commands() -> dict[str, Any]:
    """Options and help of every command, subcommands as ``train toy``."""
    from isoprobe.cli.group import cli

    return dict(_commands(cli, ""))


def _commands(group: click.Group, before: str) -> Iterator[tuple[str, Any]]:
    context = click.Context(group, info_name="isoprobe")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        path = f"{before} {name}".strip()
        if isinstance(command, click.Group):
            yield from _commands(command, path)
        options = sorted(
            max(p.opts, key=len) for p in command.params if isinstance(p, click.Option)
        )
        arguments = [p.name for p in command.params if isinstance(p, click.Argument)]
        # a command keeps the help option it makes first, so it is made as the group would
        names = ["-h", "--help"]
        with click.Context(
            command, info_name=f"isoprobe {path}", terminal_width=100, help_option_names=names
        ) as own:
            text = command.get_help(own)
        yield path, {"options": options, "arguments": arguments, "help": text.splitlines()}


def plugins() -> dict[str, list[str]]:
    """Names of the built-in plugins by kind."""
    from isoprobe.registry.discovery import KINDS
    from isoprobe.registry.lookup import installed

    return {kind: installed().names(kind) for kind in sorted(KINDS)}


def variables(folder: Path) -> dict[str, list[str]]:
    """Every variable of a result of all analyses, ``group/name``, with its dimensions."""
    import isoprobe

    rows = np.load(ROOT / "examples" / "digits.npy")[:64]
    marked = folder / "rows.npz"
    np.savez(marked, x=rows, y=np.arange(len(rows)) % 5 == 0)
    found: dict[str, list[str]] = {}
    with isoprobe.analyze(
        MODEL, f"{marked}:x,y", analyses=plugins()["analysis"], samples=None, seed=0
    ) as result:
        for name in result.groups():
            group = result[name]
            for key in group:
                found[f"{name}/{key}"] = list(group[key].dims)
        found[""] = sorted(result.attrs)
    return dict(sorted(found.items()))


def shown() -> list[str]:
    """Dotted names of our packages in the docs and examples, and what is imported there."""
    found: set[str] = set()
    for path in _shown_files():
        text = path.read_text("utf-8")
        found |= set(re.findall(_DOTTED, text))
        for module, names in re.findall(r"from (isoprobe[\w.]*) import ([\w, ]+)", text):
            found |= {f"{module}.{name.strip()}" for name in names.split(",") if name.strip()}
        if path.suffix == ".py":
            found |= set(_imported(ast.parse(text)))
    return sorted(found)


def _shown_files() -> Iterator[Path]:
    yield ROOT / "README.md"
    for folder in ("docs", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".md", ".py", ".ipynb"} and "_build" not in path.parts:
                yield path


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("isoprobe"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def everything(folder: Path) -> dict[str, Any]:
    """The whole inventory; ``folder`` takes a passing file."""
    return {
        "commands": commands(),
        "plugins": plugins(),
        "variables": variables(folder),
        "shown": shown(),
    }


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        FILE.write_text(json.dumps(everything(Path(scratch)), indent=1, sort_keys=True) + "\n")
