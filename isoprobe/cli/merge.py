"""Run ``isoprobe merge``: shards that a job array made become the result of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from isoprobe.cli import options as shared
from isoprobe.cli.group import COMMAND_LINE
from isoprobe.run.settings import RunSettings


@shared.command(
    "Put the shards of a job array together.",
    "isoprobe merge result.h5",
    "isoprobe merge result.h5 here/ there/ --model /new/place/model.safetensors",
    "isoprobe merge result.h5 --adapter factory --option target=models.py:build",
)
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("shards", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="The checkpoint, where it has moved. [default: as the shards were made]",
)
@click.option("--data", metavar="SPEC", help="The data, where it has moved.")
@shared.from_settings(RunSettings, "adapter", "options", "trust", "device")
@shared.overwriting("result")
@shared.as_json
def merge(
    *,
    out: Path,
    shards: tuple[Path, ...],
    options: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Make of SHARDS, written by 'isoprobe analyze --shard K/N', the one result OUT.

    SHARDS are files or folders; by default the working folder beside OUT, OUT.partial. The result
    is that of a single process: shards hold sums and rows, and everything that rests on all samples
    is derived here. An adapter that was named for the shards is named again, since no
    file may say which code is run.
    """
    from isoprobe.registry.specs import parse_options
    from isoprobe.results.whole import check_place
    from isoprobe.run.merging import merge_files

    check_place(out, overwrite=settings["overwrite"], inputs=(*shards, settings["model"] or ""))
    settings["options"] = parse_options(options, of="--option")
    settings["command"] = click.get_current_context().meta.get(COMMAND_LINE, "")
    given = shards or (out.with_name(f"{out.name}.partial"),)
    with merge_files(given, out, progress=True, **settings) as result:
        shared.show(result, as_json=as_json)
