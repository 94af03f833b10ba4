"""Options that several commands share, each said once."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isoprobe.cli import types
from isoprobe.run.settings import Opening, form

if TYPE_CHECKING:
    from isoprobe.results.reader import Result

Command = TypeVar("Command", bound=Callable[..., Any])


def from_settings(kind: type[Opening], *names: str, **shown: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of a command's settings, each as its field says.

    Args:
        kind: the dataclass of the settings.
        names: which fields, in the order of the help; all but those of the command's own when
            none is named.
        shown: what stands for words in braces in a help.
    """
    known = {f.name: f for f in fields(kind)}

    def decorate(command: Command) -> Command:
        for name in reversed(names or tuple(known)):
            command = _option(known[name], shown)(command)
        return command

    return decorate


def _option(field: Field[Any], shown: Mapping[str, str]) -> Callable[[Command], Command]:
    said = form(field)
    more: dict[str, Any] = {"help": said.help.format(**shown)}
    if isinstance(field.default, bool):
        more["is_flag"] = True
    elif said.choices:
        more["type"] = click.Choice(said.choices)
    elif said.least is not None:
        more["type"] = click.IntRange(said.least, 2**63 - 1)
    elif said.parse is not None:
        more["callback"] = getattr(types, said.parse)
    elif "float" in str(field.type):
        more["type"] = float
    if said.typed is not None:
        more |= {"default": said.typed, "show_default": True}
    if said.metavar is not None:
        more["metavar"] = said.metavar
    if "repeatable" in said.help:
        more["multiple"] = True
    flag = said.flag or "--" + field.name.replace("_", "-")
    return click.option(flag, field.name, **more)


adapter, adapter_options, trust, device, memory = (
    from_settings(Opening, name) for name in ("adapter", "options", "trust", "device", "memory")
)
as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of the summary.")


def show(result: Result, *, as_json: bool) -> None:
    """Write a result's summary, or its JSON, to stdout."""
    from isoprobe.show import summary

    if as_json:
        click.echo(json.dumps(summary.to_json(result), indent=2, allow_nan=False))
        return
    width = min(shutil.get_terminal_size().columns, 110)
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    click.echo(summary.to_text(result, width, unicode=unicode))
