"""Run ``isoprobe new-plugin``: a plugin project that installs and passes its tests at once."""

from __future__ import annotations

from pathlib import Path

import click

from isoprobe.cli import options as shared
from isoprobe.scaffold import KINDS, create


@shared.command(
    "Write a plugin project that installs and passes its tests.",
    "isoprobe new-plugin metric log-cosh",
    "isoprobe new-plugin adapter my-format --into plugins/",
    "cd isoprobe-log-cosh && pip install -e '.[test]' && pytest",
)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default=True,
    help="Folder that will hold the project's folder.",
)
def new_plugin(*, kind: str, name: str, into: Path) -> None:
    """Write a plugin project: entry point, module, tests by the kit of its kind, README, CI.

    The files written are listed on stdout, what to do next on stderr.
    """
    written = create(kind, name, into)
    for path in written:
        click.echo(path)
    project = into / f"isoprobe-{name}"
    click.echo(f"Next: cd {project} && pip install -e '.[test]' && pytest", err=True)
