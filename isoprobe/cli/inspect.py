"""Run ``isoprobe inspect``: what a checkpoint is, known and unknown; runs nothing of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from isoprobe.cli import options as shared
from isoprobe.errors import CheckpointError
from isoprobe.registry.looking import look
from isoprobe.show.terminal import table, words

#: lines of tensors that are printed at most
SHOWN = 40
#: what an analysis would like to know, and what to do where a checkpoint does not say
WANTED = {
    "metric": "give --metric",
    "beta": "it is recovered, or give --beta",
    "dataset": "give --data, or samples of the prior are used",
    "input_range": "values are taken as they are",
}


@shared.command(
    "Tell what a checkpoint is, without loading it.",
    "isoprobe inspect model.safetensors",
    "isoprobe inspect folder/ --json | jq .declared",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--adapter", metavar="NAME", help="Ask this adapter rather than the one that matches."
)
@click.option(
    "--trust", is_flag=True, help="Tell who would read it if its code may run; runs nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def inspect(*, model: Path, adapter: str | None, trust: bool, as_json: bool) -> None:
    """Tell what a checkpoint is, which adapter reads it, what is known and what is not.

    Nothing in the file is run, and no weights are loaded. Tensors are listed whoever reads the
    file, and the last line is the command that is most likely right.
    """
    facts = look(model, adapter=adapter, trust=trust)
    click.echo(json.dumps(facts, indent=2) if as_json else _text(facts))
    _refuse(facts["refused"])


def _refuse(reason: str | None) -> None:
    """Raise CheckpointError once there is nothing left to show."""
    if reason is not None:
        raise CheckpointError(reason)


def _text(facts: dict[str, Any]) -> str:
    declared = _flat({k: v for k, v in facts["declared"].items() if k != "next"})
    size = f", {facts['bytes']:,} bytes" if facts["bytes"] else ""
    lines = [
        click.style(facts["model"], bold=True),
        f"  {facts['file']}{size}, sha256 {facts['sha256'][:12]}",
        f"  {facts['damage']}",
        f"  read by adapter {facts['adapter']}" if facts["adapter"] else "  read by no adapter",
    ]
    if facts["adapter"]:
        lines.append("")
    known = {name: value for name, value in declared.items() if value not in {None, ""}}
    rows: list[list[Any]] = [[name, words(value)] for name, value in known.items()]
    rows += [
        [name, words(f"unknown; {remedy}", "yellow")]
        for name, remedy in WANTED.items()
        if facts["adapter"] and not any(key.rpartition(".")[2] == name for key in known)
    ]
    if rows:
        lines += table(rows, left=(0, 1), heading=False, indent="  ")
    following = [] if not facts["next"] else ["", click.style(facts["next"], bold=True)]
    return "\n".join([*lines, *_tensor_lines(facts["tensors"]), *following])


def _tensor_lines(tensors: Mapping[str, list[int]]) -> list[str]:
    """Names and shapes in columns; the middle of a long list is left out."""
    if not tensors:
        return []
    rows = [[name, " x ".join(map(str, shape))] for name, shape in tensors.items()]
    lines = list(table(rows, left=(0, 1), heading=False, indent="  "))
    if len(lines) > SHOWN:
        half = SHOWN // 2
        left_out = f"  ... {len(lines) - 2 * half} more, all of them with --json"
        lines = [*lines[:half], left_out, *lines[-half:]]
    return ["", f"{len(tensors)} tensors", *lines]


def _flat(declared: Mapping[str, Any], prefix: str = "") -> dict[str, str | None]:
    """Nested facts by dotted name, each in words, None where unknown."""
    flat: dict[str, str | None] = {}
    for name, value in declared.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value))
        else:
            flat[f"{prefix}{name}"] = None if value is None else str(value)
    return flat
