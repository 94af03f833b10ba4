"""The one place where errors become exit codes.

0 done; 1 the input's or the user's mistake, one line; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from isoprobe.cli.group import COMMAND_LINE, DEBUG, cli
from isoprobe.errors import IsoprobeError

INTERRUPTED = 130
#: set by the shell when it asks for completions
COMPLETE = "_ISOPROBE_COMPLETE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: as typed after ``isoprobe``; those of the process by default.

    Returns:
        The exit code.
    """
    if os.environ.get(COMPLETE):
        return shell_complete(cli, {}, "isoprobe", COMPLETE, os.environ[COMPLETE])
    given = list(sys.argv[1:] if arguments is None else arguments)
    meta: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _run(given, meta)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (IsoprobeError, OSError) as error:
            return _failed(error, debug=bool(meta.get(DEBUG)))
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted.", err=True)
            return INTERRUPTED


def _run(arguments: list[str], meta: dict[str, object]) -> int:
    typed = _typed(arguments)
    try:
        with cli.make_context("isoprobe", arguments) as context:
            context.meta[COMMAND_LINE] = typed
            try:
                cli.invoke(context)
            finally:
                meta.update(context.meta)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    return 0


def _typed(arguments: Sequence[str]) -> str:
    """The command as a shell takes it; bytes of a name that are no UTF-8 are written as escapes."""
    return shlex.join(["isoprobe", *arguments]).encode("utf-8", "backslashreplace").decode()


def _failed(error: Exception, *, debug: bool) -> int:
    if isinstance(error, BrokenPipeError):
        # the reader has seen enough, as in `isoprobe plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if debug:
        traceback.print_exception(error)
    else:
        click.echo(f"Error: {' '.join(str(error).split())}", err=True)
    return 1


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"Warning: {' '.join(str(message).split())}", err=True)
