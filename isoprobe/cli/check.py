"""Run ``isoprobe check``: hold a plugin to the laws of its kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import options as shared
from isoprobe.cli import types
from isoprobe.errors import OptionError, PluginError, nearest
from isoprobe.registry.lookup import installed
from isoprobe.registry.specs import parse_options, parse_spec

if TYPE_CHECKING:
    from isoprobe.testing import Law


#: kinds of plugin that have laws
CHECKED = ("metric", "analysis", "adapter", "data-source", "architecture")


@shared.command(
    "Hold a plugin to the laws of its kind.",
    "isoprobe check metric.bce",
    "isoprobe check metric.ssim --shape 1x16x16",
    "isoprobe check analysis.isometry --json",
    "isoprobe check adapter.native --model model.safetensors",
    "isoprobe check data-source.arrays --data images.npy",
    'isoprobe check architecture.linear --config \'{"input_shape": [6], "latent_size": 2}\'',
)
@click.argument("plugin", metavar="KIND.NAME[:k=v,...]", type=types.PluginName(*CHECKED))
@click.option(
    "--shape",
    "shapes",
    metavar="AxBxC",
    multiple=True,
    callback=types.shapes,
    help="Shape of a sample to try a metric with; repeatable. [default: 6 and 2x3x3]",
)
@click.option("--metric", metavar="NAME", help="Metric to try an analysis with. [default: bce]")
@click.option("--model", type=click.Path(path_type=Path), help="Checkpoint that an adapter reads.")
@click.option(
    "--option", "options", metavar="KEY=VALUE", multiple=True, help="Option of the adapter."
)
@click.option("--by-name", is_flag=True, help="The adapter is only used when it is named.")
@click.option("--data", metavar="SPEC", help="Spec that a data source opens.")
@click.option("--config", metavar="JSON", help="Configuration that an architecture builds.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def check(*, plugin: str, as_json: bool, **cases: Any) -> None:
    """Hold a plugin to the laws of its kind, on generated cases.

    Prints each law, and exits with 1 when one is broken.
    """
    kind, spec = _kind(plugin)
    outcomes = [(law.name, _broken(law)) for law in _LAWS[kind](spec, **cases)]
    if as_json:
        rows = [{"law": name, "broken": broken} for name, broken in outcomes]
        click.echo(json.dumps(rows, indent=2))
    else:
        for name, broken in outcomes:
            click.echo(_line(name, broken))
    _judge(plugin, outcomes)


def _kind(plugin: str) -> tuple[str, str]:
    kind, dot, spec = plugin.partition(".")
    if not dot or kind not in _LAWS:
        known = ", ".join(f"{name}.NAME" for name in _LAWS)
        hint = nearest(kind, list(_LAWS))
        raise OptionError(f"a plugin is named {known}; found '{plugin}'{hint}")
    return kind, spec


def _judge(plugin: str, outcomes: list[tuple[str, str | None]]) -> None:
    failed = sum(broken is not None for _, broken in outcomes)
    if failed:
        raise PluginError(f"{plugin} breaks {failed} of {len(outcomes)} laws")


def _broken(law: Law) -> str | None:
    """What is wrong, or None."""
    from isoprobe.testing import LawError

    try:
        law()
    except LawError as error:
        return " ".join(str(error).removeprefix(f"{law.name}: ").split())
    return None


def _line(name: str, broken: str | None) -> str:
    if broken is None:
        return f"{click.style('holds ', fg='green')} {name}"
    return f"{click.style('broken', fg='red')} {name}\n         {broken}"


def _metric(spec: str, *, shapes: tuple[tuple[int, ...], ...], **_: Any) -> list[Law]:
    from isoprobe.testing import check_metric

    metric = installed().metric(spec)
    return check_metric(metric, shapes) if shapes else check_metric(metric)


def _analysis(spec: str, *, metric: str | None, **_: Any) -> list[Law]:
    from isoprobe.testing import check_analysis

    chosen = None if metric is None else installed().metric(metric)
    installed().analysis(spec)  # an unknown one breaks no law: there is none
    return check_analysis(lambda: installed().analysis(spec), chosen)


def _adapter(
    spec: str, *, model: Path | None, options: tuple[str, ...], by_name: bool, **_: Any
) -> list[Law]:
    from isoprobe.testing import check_adapter

    if model is None:
        raise OptionError("an adapter is tried on a checkpoint it reads; give --model")
    adapter = installed().plugin("adapter", spec)()
    return check_adapter(adapter, model, parse_options(options, of="--option"), by_name=by_name)


def _data_source(
    spec: str, *, data: str | None, model: Path | None, options: tuple[str, ...], **_: Any
) -> list[Law]:
    from isoprobe.api import load
    from isoprobe.testing import check_data_source

    if data is None:
        raise OptionError("a data source is tried on data it opens; give --data")
    given = parse_options(options, of="--option")
    vae = None if model is None else load(model, options=given)
    return check_data_source(installed().plugin("data-source", spec)(), data, vae)


def _architecture(spec: str, *, config: str | None, **_: Any) -> list[Law]:
    from isoprobe.testing import check_architecture

    if config is None:
        raise OptionError("an architecture is tried on a configuration; give --config")
    try:
        built = json.loads(config)
    except json.JSONDecodeError as error:
        raise OptionError(f"--config is no JSON: {error}") from error
    return check_architecture(installed().architecture(parse_spec(spec)[0]), built)


_LAWS: dict[str, Callable[..., list[Law]]] = {
    "metric": _metric,
    "analysis": _analysis,
    "adapter": _adapter,
    "data-source": _data_source,
    "architecture": _architecture,
}
