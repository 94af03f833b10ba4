"""Say once the options that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isoprobe.cli import types
from isoprobe.cli.examples import examples
from isoprobe.errors import option_of
from isoprobe.run.settings import Opening, form
from isoprobe.show.terminal import width

if TYPE_CHECKING:
    from isoprobe.results.reader import Result
    from isoprobe.run.plan import Plan
    from isoprobe.show.trend import Trend

Command = TypeVar("Command", bound=Callable[..., Any])


def command(short: str, *shown: str, **more: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a command.

    Args:
        short: what it does, in the list of commands.
        shown: examples at the end of its help, as they are typed.
        more: as :func:`click.command` takes it.
    """
    return click.command(short_help=short, epilog=examples(*shown), **more)


def written(
    *names: str, metavar: str, help: str, folder: bool = False, required: bool = False
) -> Callable[[Command], Command]:
    """Return a decorator that adds an option with a file, or a folder, that is written."""
    place = click.Path(path_type=Path, dir_okay=folder, file_okay=not folder)
    return click.option(*names, type=place, metavar=metavar, help=help, required=required)


def count(
    *names: str, least: int = 1, show_default: bool = True, **more: Any
) -> Callable[[Command], Command]:
    """Return a decorator that adds an option with a whole number from ``least`` on."""
    shown = show_default and more.get("default") is not None
    return click.option(*names, type=click.IntRange(min=least), show_default=shown, **more)


def choice(*names: str, among: Sequence[str], **more: Any) -> Callable[[Command], Command]:
    """Return a decorator that adds an option with one of a few words, its default shown."""
    return click.option(*names, type=click.Choice(among), show_default=True, **more)


def overwriting(what: str = "file", *, several: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that adds ``--overwrite``."""
    which = f"existing {what}" if several else f"an existing {what}"
    return click.option("--overwrite", is_flag=True, help=f"Replace {which}.")


class WithFunction(click.Command):
    """A command and the Python function that does the same, found by ``isoprobe.NAME``.

    Attributes:
        function: takes what the command takes, and returns what it would print.
    """

    def __init__(self, *args: Any, function: Callable[..., Any], **more: Any) -> None:
        super().__init__(*args, **more)
        self.function = function


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
    elif said.parse is not None:
        more["callback"] = getattr(types, said.parse)
    elif said.least is not None:
        more["type"] = click.IntRange(said.least, 2**63 - 1)
    elif "float" in str(field.type):
        more["type"] = float
    if said.typed is not None:
        more |= {"default": said.typed, "show_default": True}
    if said.metavar is not None:
        more["metavar"] = said.metavar
    if "repeatable" in said.help:
        more["multiple"] = True
    return click.option(option_of(field.name), field.name, **more)


#: names of the options by which rows get to a model, and the machine they run on
LOADING = ("adapter", "options", "trust", "allow_random")
ROWS = ("samples", "batch_size", "resize", "pad", "scale", "condition")
MACHINE = ("device", "dtype", "memory", "threads")
adapter, adapter_options, trust, device, memory = (
    from_settings(Opening, name) for name in ("adapter", "options", "trust", "device", "memory")
)
model = click.argument("model", type=click.Path(path_type=Path))


def against_reference(rows: str) -> Callable[[Command], Command]:
    """Give a command a model, new rows and the result that they are compared with.

    Args:
        rows: help of ``--data``.

    Returns:
        A decorator.
    """
    data = click.option("--data", metavar="SPEC", required=True, help=rows)
    reference = click.option(
        "--reference",
        type=click.Path(path_type=Path),
        metavar="F.h5",
        required=True,
        help="Result of analyze --analysis anomaly on rows the model was not trained on.",
    )
    return lambda command: model(data(reference(command)))


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
cluster = click.option(
    "--cluster",
    metavar="ADDRESS|local:N",
    help="Have workers of dask.distributed make the shards: those of the scheduler at ADDRESS, or "
    "N on this machine. They must see the files under the same paths. Needs --out F.h5; one "
    "processor thread a shard, unless --threads says otherwise.",
)
plan = click.option(
    "--plan",
    is_flag=True,
    help="Print what the job costs on 1, 2, 4 and more workers, told from its first batches, which "
    "are done here; writes nothing.",
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
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    click.echo(summary.to_text(result, width(), unicode=unicode))


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Write what a job costs, or its JSON, to stdout."""
    click.echo(json.dumps(plan.to_json(), indent=2) if as_json else plan.to_text())


def show_plans(plans: Mapping[str | None, Plan], *, as_json: bool) -> None:
    """Write what the same costs on each of several data sets, by their specs, to stdout."""
    if len(plans) == 1:
        show_plan(*plans.values(), as_json=as_json)
    elif as_json:
        told = [{"data": spec, **one.to_json()} for spec, one in plans.items()]
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo("\n\n".join(f"{spec}:\n{one.to_text()}" for spec, one in plans.items()))


def show_trend(trend: Trend, *, as_json: bool) -> None:
    """Write a training's table, or its JSON, to stdout."""
    text = (
        json.dumps(trend.to_json(), indent=2, allow_nan=False)
        if as_json
        else trend.to_text(width())
    )
    click.echo(text)
