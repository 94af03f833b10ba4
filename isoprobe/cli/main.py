"""Turn errors into exit codes, in one place.

0 done; 1 the input's or the user's mistake, one line and the
commands to type next; 2 wrong usage; 3 a verdict that --fail-on
names; 70 a defect of ours; 128 and the number of the signal when ended by one: 130 for Ctrl-C, 143
when told to end, 129 when hung up.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from click.shell_completion import shell_complete

from isoprobe.cli.doors import quieten, shown, shown_streams
from isoprobe.cli.group import COMMAND_LINE, DEBUG, cli
from isoprobe.errors import IsoprobeError, UnreadError, on_the_command_line
from isoprobe.files.meter import VARIABLE

INTERRUPTED = 130
#: a defect of ours, as sysexits.h has it
DEFECT = 70
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
    limit = os.environ.get(VARIABLE)
    with warnings.catch_warnings(), shown_streams(), on_the_command_line():
        warnings.showwarning = _show_warning
        try:
            with _ended_by_signals():
                return _run(given, meta)
        except click.ClickException as error:
            quieten(sys.stderr, quiet=False)
            error.show()
            return error.exit_code
        except (IsoprobeError, OSError) as error:
            return _failed(error, debug=_debug(meta))
        except (KeyboardInterrupt, click.Abort) as error:
            quieten(sys.stderr, quiet=False)
            with contextlib.suppress(OSError):  # a closed stderr, or a terminal that hung up
                click.echo(_interrupted(given), err=True)
            return getattr(error, "code", INTERRUPTED)
        except Exception as error:
            return _unforeseen(error, debug=_debug(meta))
        finally:
            _restore(limit)


def _interrupted(given: Sequence[str]) -> str:
    """What is said of an interrupted command, and how it goes on where shards were kept."""
    kept = given[:1] in (["analyze"], ["score"]) and any(
        a.partition("=")[0] == "--out" for a in given
    )
    return "Interrupted; the same command with --resume goes on." if kept else "Interrupted."


def _restore(limit: str | None) -> None:
    """Give the variable that ``--file-limit`` sets back as it was."""
    if limit is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = limit


class Ended(KeyboardInterrupt):
    """The process was told to end; what Ctrl-C cleans up is cleaned up.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, unless the caller has other plans."""

    def end(number: int, _: object) -> None:
        raise Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        # Windows has no hang-up
        for number in filter(None, (signal.SIGTERM, getattr(signal, "SIGHUP", None))):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _debug(meta: dict[str, object]) -> bool:
    return bool(meta.get(DEBUG))


def _unforeseen(error: Exception, *, debug: bool) -> int:
    """Say that the fault is ours, and where; that of too little memory is the machine's."""
    quieten(sys.stderr, quiet=False)
    if isinstance(error, MemoryError):
        reason = str(error) or "it takes more than this machine gives"
        return _failed(IsoprobeError(f"out of memory: {reason}"), debug=debug)
    if debug:
        traceback.print_exception(error)
        return DEFECT
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "isoprobe" in f.filename), frames[-1])
    where = f"{Path(place.filename).stem}.{place.name}, line {place.lineno}"
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    text = f"internal error in {where} ({what}); --debug shows it, please report"
    click.echo(f"Error: {shown(text)}", err=True)
    return DEFECT


def _run(arguments: list[str], meta: dict[str, object]) -> int:
    typed = _typed(arguments)
    try:
        plain = False if os.environ.get("NO_COLOR") else None  # https://no-color.org
        with cli.make_context("isoprobe", arguments, color=plain) as context:
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
    quieten(sys.stderr, quiet=False)
    if isinstance(error, BrokenPipeError):
        # the reader has seen enough, as in `isoprobe plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if debug:
        traceback.print_exception(error)
    else:
        lines = error.lines if isinstance(error, UnreadError) else (str(error),)
        click.echo(f"Error: {chr(10).join(map(_line, lines))}", err=True)
    return 1


def _line(text: str) -> str:
    """One line of what is said, with its indentation."""
    indent = text[: len(text) - len(text.lstrip(" "))]
    return indent + shown(" ".join(text.split()))


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"Warning: {shown(' '.join(str(message).split()))}", err=True)
