"""Gather the commands: our own, each imported when it is run, and those of plugins."""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

import click

from isoprobe.cli import doors, types
from isoprobe.cli.examples import examples
from isoprobe.files import meter
from isoprobe.registry.lookup import installed

DEBUG = "isoprobe.debug"
AS_JSON = "isoprobe.as_json"
#: whose versions a report of a defect should name
DEPENDENCIES = ("torch", "numpy", "h5py", "click", "safetensors", "matplotlib", "msgspec")
#: sections of a docstring that are for whoever calls the function
_SECTION = re.compile(r"\n\s*\n\s*(?:Args|Raises|Returns|Yields):.*", re.DOTALL)
#: key of the context under which the whole command line stands, as typed
COMMAND_LINE = "isoprobe.command_line"

#: own commands: module and attribute, imported when asked for
COMMANDS = {
    "analyze": "isoprobe.cli.analyze:analyze",
    "check": "isoprobe.cli.check:check",
    "compare": "isoprobe.cli.compare:compare",
    "inspect": "isoprobe.cli.inspect:inspect",
    "merge": "isoprobe.cli.merge:merge",
    "new-plugin": "isoprobe.cli.new_plugin:new_plugin",
    "plugins": "isoprobe.cli.plugins:plugins",
    "report": "isoprobe.cli.report:report",
    "score": "isoprobe.cli.score:score",
}


class PluginGroup(click.Group):
    """Offers its own commands and those that plugins register."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command's name, sorted."""
        return sorted({*COMMANDS, *installed().commands()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported; a plugin is asked only for names that are not ours."""
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name].partition(":")
            command: click.Command | None = getattr(importlib.import_module(module), attribute)
        else:
            command = installed().command(cmd_name)
        return None if command is None else _with_debug(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command to run, or fail with the nearest name."""
        from isoprobe.errors import nearest

        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            hint = nearest(args[0], known) or f"; commands are {', '.join(known)}"
            ctx.fail(f"no such command '{args[0]}'{hint}")
        return super().resolve_command(ctx, args)


def _with_debug(command: click.Command) -> click.Command:
    """Give a command the options that all have, once, so that they stand after it."""
    if not any(parameter.name == "debug" for parameter in command.params):
        command.help = _SECTION.sub("", command.help or "")
        for parameter in command.params:
            for name in set(parameter.opts) & types.COMPLETED.keys():
                parameter.type = types.COMPLETED[name]
        command.params += [*_switches(), _limit_option()]
    return command


def _switches() -> Iterator[click.Option]:
    """Options that are told to this module rather than to a command."""
    for names, callback, said in (
        (["-q", "--quiet"], _quieten, "Write nothing to stderr but errors."),
        (["-v", "--verbose"], _log, "Say on stderr what is done, and when."),
        (["--debug"], _note_debug, "Show the traceback of an error."),
    ):
        yield click.Option(names, is_flag=True, expose_value=False, callback=callback, help=said)


def _quieten(_: click.Context, __: click.Parameter, value: bool) -> bool:
    if value:
        doors.quieten(sys.stderr)
    return value


def _log(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """Show what the loggers of isoprobe and its plugins say, as long as the command runs."""
    if value:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Since())
        log = logging.getLogger("isoprobe")
        before = log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        context.call_on_close(lambda: log.setLevel(before))
        context.call_on_close(lambda: log.removeHandler(handler))
    return value


class _Since(logging.Formatter):
    """A line of the log: seconds since the command began, and what is said."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = time.time()

    def format(self, record: logging.LogRecord) -> str:
        return f"[{record.created - self._begun:7.2f} s] {record.getMessage()}"


def _limit_option() -> click.Option:
    return click.Option(
        ["--file-limit"],
        metavar="SIZE",
        expose_value=False,
        callback=_raise_limit,
        help="Let a file build up to SIZE, as 8GiB. [default: 128 x its size and 64 MiB]",
    )


def _raise_limit(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Raise the limit for this process and those it starts."""
    if value is not None:
        if meter.bytes_of(value) is None:
            raise click.BadParameter(f"expected a size such as 8GiB, found '{value}'.")
        os.environ[meter.VARIABLE] = value
    return value


def _note_debug(context: click.Context, _: click.Parameter, value: bool) -> bool:
    if value:
        context.meta[DEBUG] = True
    return value


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        import isoprobe

        said = f"isoprobe {isoprobe.__version__}"
        click.echo(json.dumps(versions(), indent=2) if context.meta.get(AS_JSON) else said)
        context.exit()


def _note_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[AS_JSON] = value


def versions() -> dict[str, Any]:
    """Return what a report of a defect should name: versions, platform, distributions of plugins.

    Nothing is imported for it.
    """
    found = {name: version for name in DEPENDENCIES if (version := _version_of(name)) is not None}
    plugins = {entry.dist.name for entry in entry_points(group="isoprobe") if entry.dist}
    return {
        "isoprobe": _version_of("isoprobe"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "dependencies": found,
        "plugins": {name: _version_of(name) for name in sorted(plugins - {"isoprobe"})},
    }


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@click.group(
    cls=PluginGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "isoprobe analyze model.safetensors            with the metric, beta and data it declares",
        "isoprobe analyze model.safetensors --data x.npy --metric bce --out result.h5",
        "isoprobe inspect model.safetensors            what the file is; runs nothing",
        "isoprobe plugins                              every part that is installed",
    ),
    no_args_is_help=True,
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    callback=_version,
    help="Show the version; with --json those of Python, platform, dependencies and plugins too.",
)
@click.option(
    "--json",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_note_json,
    help="Write JSON, with --version.",
)
def cli(**_: Any) -> None:
    """What did this VAE learn, which latents matter, how likely is this point, can I trust it?"""
