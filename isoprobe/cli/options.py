"""Options that several commands share, each said once."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

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
trust = click.option(
    "--trust",
    is_flag=True,
    help="Let code inside the checkpoint run, as you, where only that can build the model.",
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


def show(result: Result, *, as_json: bool) -> None:
    """Write a result's summary, or its JSON, to stdout."""
    from isoprobe.show import summary

    if as_json:
        click.echo(json.dumps(summary.to_json(result), indent=2, allow_nan=False))
        return
    width = min(shutil.get_terminal_size().columns, 110)
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    click.echo(summary.to_text(result, width, unicode=unicode))
