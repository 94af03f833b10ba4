"""Options that several commands share, each said once."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import types

if TYPE_CHECKING:
    from isoprobe.results.reader import Result

adapter = click.option("--adapter", metavar="NAME", help="Adapter. [default: the one that matches]")
adapter_options = click.option(
    "--option",
    "options",
    metavar="KEY=VALUE",
    multiple=True,
    help="Option of the adapter; repeatable.",
)
own_class = click.option(
    "--class",
    "own_class",
    metavar="FILE.py:CLASS",
    help="Your own class, filled with the weights of MODEL. Runs FILE.py, since you name it here; "
    "nothing inside MODEL runs, so it needs no --trust.",
)
class_arguments = click.option(
    "--class-arg",
    "class_arguments",
    metavar="NAME=VALUE",
    multiple=True,
    help="Argument of the class; repeatable. [default: read from the file or off its shapes]",
)
trust = click.option(
    "--trust",
    is_flag=True,
    help="Let code inside the checkpoint run, as you, where only that can build the model.",
)
allow_random = click.option(
    "--allow-random",
    is_flag=True,
    help="Go on with a model that answers the same row differently, by chance or by its batch.",
)
batch_size = click.option(
    "--batch-size",
    metavar="auto|N",
    callback=types.auto_or_count,
    default="auto",
    show_default=True,
    help="Samples at once; auto keeps to --memory.",
)
memory = click.option(
    "--memory",
    metavar="SIZE",
    callback=types.size_in_bytes,
    default="1GiB",
    show_default=True,
    help="Limit of what layers and derivatives may take at once.",
)
resize = click.option(
    "--resize",
    metavar="PIXELS",
    callback=types.height_and_width,
    help="Resize images, as in 32 or 28x32.",
)
scale = click.option(
    "--scale",
    metavar="LOW:HIGH",
    callback=types.low_and_high,
    help="Data values that stand for the ends of the model's input range, as in 0:255.",
)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of the summary.")


def with_class(
    settings: dict[str, Any], own_class: str | None, class_arguments: tuple[str, ...]
) -> None:
    """Put a class and its arguments among the settings of a run, as the adapter ``class``.

    Raises:
        OptionError: for arguments without a class, or a class beside another adapter.
    """
    from isoprobe.errors import OptionError
    from isoprobe.registry.specs import parse_options

    if own_class is None:
        if class_arguments:
            raise OptionError("--class-arg needs --class FILE.py:CLASS")
        return
    if settings.get("adapter") not in {None, "class"}:
        raise OptionError(f"--class and --adapter {settings['adapter']} exclude each other")
    settings["adapter"] = "class"
    arguments = parse_options(class_arguments, of="--class-arg")
    settings["options"] = {
        **settings["options"],
        "class": own_class,
        **{f"arg.{name}": value for name, value in arguments.items()},
    }


def show(result: Result, *, as_json: bool) -> None:
    """Write a result's summary, or its JSON, to stdout."""
    from isoprobe.show import summary

    if as_json:
        click.echo(json.dumps(summary.to_json(result), indent=2, allow_nan=False))
        return
    width = min(shutil.get_terminal_size().columns, 110)
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    click.echo(summary.to_text(result, width, unicode=unicode))
