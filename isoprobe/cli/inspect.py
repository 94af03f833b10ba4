"""``isoprobe inspect``: what a checkpoint is, known and unknown; runs nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from isoprobe.cli.examples import examples
from isoprobe.registry import installed


@click.command(
    epilog=examples(
        "isoprobe inspect model.safetensors", "isoprobe inspect folder/ --json | jq .declared"
    ),
    short_help="Tell what a checkpoint is, without loading it.",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--adapter", metavar="NAME", help="Ask this adapter rather than the one that matches."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def inspect(*, model: Path, adapter: str | None, as_json: bool) -> None:
    """Tell what a checkpoint is, which adapter reads it, what is known and what is not.

    Nothing in the file is run, and no weights are loaded.
    """
    facts = look(model, adapter)
    click.echo(json.dumps(facts, indent=2) if as_json else _text(facts))


def look(model: Path, adapter: str | None = None) -> dict[str, Any]:
    """Look at a checkpoint.

    Args:
        model: file or folder.
        adapter: adapter to ask; the one that matches by default.

    Returns:
        The path, what the file is, its adapter, and what that adapter declares about it.
    """
    from isoprobe.source import Source

    source = Source(model)
    reader = installed().adapter_for(source, adapter)
    return {
        "model": str(model),
        "file": source.description,
        "bytes": source.size,
        "sha256": source.sha256(),
        "adapter": reader.name,
        "declared": dict(reader.describe(source)),
    }


def _text(facts: dict[str, Any]) -> str:
    declared = facts["declared"]
    lines = [
        click.style(facts["model"], bold=True),
        f"  {facts['file']}, {facts['bytes']:,} bytes, sha256 {facts['sha256'][:12]}",
        f"  read by adapter {facts['adapter']}",
    ]
    width = max((len(name) for name in declared), default=0)
    lines += [f"  {name:<{width}}  {_value(value)}" for name, value in declared.items()]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if value is None:
        return click.style("unknown", dim=True)
    return value if isinstance(value, str) else json.dumps(value)
