"""Say once the options that the training commands share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import options, types
from isoprobe.cli import options as shared
from isoprobe.errors import OptionError
from isoprobe.run.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Command = Callable[..., Any]

#: data sets of Section 5.3, said here too so that help needs no numpy
TABLES = ("kddcup99", "thyroid", "arrhythmia", "kddcup-rev")

seed = click.option("--seed", type=types.SEED, default=0, show_default=True)
decay = click.option(
    "--decay",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Last share of the iterations in which the rate falls to 0 along a half cosine.",
)
rate = click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Adam's rate.",
)
compile_step = click.option(
    "--compile", "compile_step", is_flag=True, help="Compile the loss (torch.compile)."
)
data_root = click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ISOPROBE_DATA",
    show_envvar=True,
    help="Folder of the data files.",
)
_resume = click.option(
    "--resume", is_flag=True, help="Go on where an interrupted training stopped."
)
_overwrite = shared.overwriting("checkpoints", several=True)


def out(default: str, what: str) -> Callable[[Command], Command]:
    """Option ``--out`` with its default folder, and what is written there."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(default),
        show_default=True,
        help=f"Folder for {what}.",
    )


@dataclass(frozen=True)
class Place:
    """Where a training runs and what it does with files that are there.

    Attributes:
        out: folder of checkpoints.
        device: where to train.
        resume: go on from the resume file, if there is one.
        overwrite: replace existing checkpoints.
        process: this process' place among those that torchrun started, None for a lone one.
    """

    out: Path
    device: torch.device
    resume: bool
    overwrite: bool
    process: Process | None = None

    def say(self, text: object) -> None:
        """Print once, however many processes there are."""
        if self.process is None or self.process.rank == 0:
            click.echo(text)

    @property
    def files(self) -> dict[str, Any]:
        """What to do with files that are there, as every trainer takes it."""
        return {"resume": self.resume, "overwrite": self.overwrite}


def placed(
    default: str, *, reads: bool = True, shares: bool = False
) -> Callable[[Command], Command]:
    """Give a command ``--data-root``, ``--out``, ``--device``, ``--resume`` and ``--overwrite``.

    Args:
        default: folder for checkpoints.
        reads: whether it reads data files, and so needs their folder.
        shares: whether processes started by torchrun share the work.

    Returns:
        A decorator; the command receives a :class:`Place` as ``place``.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def gathered(
            *,
            out: Path,
            device: str,
            resume: bool,
            overwrite: bool,
            data_root: Path | None = None,
            **own: Any,
        ) -> Any:
            from isoprobe_trainers.common.files import use_root
            from isoprobe_trainers.common.training import pick_device

            process = _process(shares=shares)
            use_root(data_root)
            place = Place(
                out,
                pick_device(device if process is None else process.device(device)),
                resume,
                overwrite,
                process,
            )
            return command(place=place, **own)

        folder = out(default, "checkpoints, the log and the resume file")
        given: Command = gathered
        for option in (_overwrite, _resume, options.device, folder):
            given = option(given)
        return data_root(given) if reads else given

    return decorate


def _process(*, shares: bool) -> Process | None:
    """Return this process' place among several.

    Raises:
        OptionError: when there are several and the work cannot be shared.
    """
    process = Process.of(os.environ)
    if process is not None and not shares:
        raise OptionError(
            f"this training runs in one process, and there are {process.count}; start it without "
            "torchrun"
        )
    return process
