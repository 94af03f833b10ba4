"""Run ``isoprobe plugins``: every plugin by kind, with its distribution and version."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, replace
from itertools import groupby
from typing import TYPE_CHECKING

import click

from isoprobe.cli import options as shared
from isoprobe.cli.group import COMMANDS
from isoprobe.registry.discovery import PluginWarning
from isoprobe.registry.lookup import Listing, installed
from isoprobe.show.terminal import table, words

if TYPE_CHECKING:
    from rich.text import Text


@shared.command(
    "List every plugin by kind, distribution and version.",
    "isoprobe plugins",
    "isoprobe plugins --json | jq '.[] | select(.kind == \"metric\").name'",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def plugins(*, as_json: bool) -> None:
    """List every plugin by kind, with its distribution and version.

    A plugin that does not work is listed with what is wrong; the others work all the same.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # what is wrong stands in the list itself
        rows = [_shadowed(row) for row in installed().listing()]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        click.echo(_table(rows))


def _shadowed(row: Listing) -> Listing:
    """Mark a plugin's command that one of isoprobe's own hides."""
    if row.kind != "command" or row.name not in COMMANDS or row.error:
        return row
    return replace(row, error="isoprobe has a command of that name, which is the one that runs")


def _table(rows: list[Listing]) -> str:
    lines: list[str] = []
    for kind, members in groupby(rows, key=lambda row: row.kind):
        lines += ["", click.style(kind or "unknown kind", bold=True)]
        cells: list[list[str | Text]] = [[row.name, _source(row), _about(row)] for row in members]
        lines += table(cells, left=(0, 1, 2), heading=False, indent="  ")
    return "\n".join(lines[1:])


def _about(row: Listing) -> Text:
    return words(f"broken: {row.error}", "red") if row.error else words(row.summary)


def _source(row: Listing) -> str:
    return f"{row.distribution} {row.version}"
