"""Define errors that a user can act on: what was expected, what was found, and what to do.

A message is written once, as whoever types commands reads it, ``--beta must be positive``. In
Python it names the parameter, ``beta must be positive``, since nobody can type an option there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

#: parameters whose option has another name
OPTIONS = {"analyses": "analysis", "by_input": "map", "by_latent": "parts", "options": "option"}
#: parameters that are True or False
SWITCHES = frozenset(
    ["allow_random", "by_input", "by_latent", "no_rows", "overwrite", "resume", "trust"]
)
#: options of commands that no function takes
_TYPED_ONLY = frozenset(
    ["class", "class-arg", "cluster", "file-limit", "json", "masks", "pictures", "plot", "shard"]
)
_PARAMETERS = {option: name for name, option in OPTIONS.items()}
#: a whole command, which is typed whoever reads of it
_NAMES = "isoprobe|analyze|doctor|merge|report|reproduce|score|train"
_COMMAND = rf"(['`])(?:{_NAMES})\b.*?\1(?=[\s;,.:)]|$)|isoprobe [^;]*"
_WORDS = "all|auto|exact|factory|finite-difference|iwae|probe|sse"
_VALUE = rf"([\dA-Z][\w:/]*(?:[.,][\w:/]+)*|\w+[:=][^\s;,)']+|{_WORDS})"
_SAID = re.compile(rf"{_COMMAND}|(?<![\w-])--([a-z][a-z-]*)(?: {_VALUE}(?=[\s;,.:)']|$))?")
_reader = SimpleNamespace(types_commands=False)


@contextmanager
def on_the_command_line() -> Iterator[None]:
    """Let messages name options for as long as a command runs."""
    before, _reader.types_commands = _reader.types_commands, True
    try:
        yield
    finally:
        _reader.types_commands = before


def worded(text: str) -> str:
    """Return a message with its options named as the reader gives them.

    Args:
        text: options with their dashes, whole commands in quotes.

    Returns:
        The same while a command runs; otherwise parameters in the options' place.

    Examples:
        >>> worded("--beta must be positive; use --metric sse, or --option layout=halves")
        "beta must be positive; use metric='sse', or options={'layout': 'halves'}"
        >>> worded("it exists; add --overwrite, or go on with 'analyze --resume'")
        "it exists; add overwrite=True, or go on with 'analyze --resume'"
    """
    return text if _reader.types_commands else _SAID.sub(_as_parameter, text)


def _as_parameter(found: re.Match[str]) -> str:
    _, option, value = found.groups()
    if option is None or option in _TYPED_ONLY:
        return found[0]
    name = _PARAMETERS.get(option, option.replace("-", "_"))
    if value is None:
        return f"{name}=True" if name in SWITCHES else name
    if name == "options":
        key, _, content = value.partition("=")
        return f"options={{{key!r}: {content!r}}}"
    if re.fullmatch(r"\d+x\d+", value):  # of an image
        return f"{name}=({value.replace('x', ', ')})"
    if name == "analyses":
        return f"{name}={[value]!r}"
    return f"{name}={value if value.isupper() or value.isdigit() else repr(value)}"


def option_of(parameter: str) -> str:
    """Return the option of a parameter, ``--batch-size`` of ``batch_size``."""
    return "--" + OPTIONS.get(parameter, parameter.replace("_", "-"))


class IsoprobeError(Exception):
    """Base of every error that is the input's or the user's; commands turn it into exit 1."""

    def __str__(self) -> str:
        return worded(super().__str__())


class CheckpointError(IsoprobeError):
    """A checkpoint that cannot be read: missing, foreign, damaged, or unsafe."""


class UnreadError(CheckpointError):
    """A checkpoint that is not read as it stands, with what to type next.

    Args:
        what: the file and why it is not read, in a sentence.
        commands: the one or two that will most likely do, the likeliest first.
    """

    def __init__(self, what: str, *commands: str) -> None:
        named = " or ".join(f"'{command}'" for command in commands)
        super().__init__(f"{what}; next: {named}" if named else what)
        self.what = what
        self.commands = commands

    @property
    def lines(self) -> tuple[str, ...]:
        """The error as a terminal shows it: a line each for the file and for every command."""
        first = f"{self.what}:" if self.commands else self.what
        return (first, *(f"  {command}" for command in self.commands))


class DataError(IsoprobeError):
    """Data that does not fit the model: shape, range, type, NaN, or nothing at all."""


class MetricError(IsoprobeError):
    """A metric that is unknown, badly configured, or lacks what an analysis needs."""


class PluginError(IsoprobeError):
    """A plugin that clashes, does not import, or does not keep its contract."""


class ResultError(IsoprobeError):
    """A result file that exists already, is unfinished, or is not ours."""


class FileError(CheckpointError, DataError, ResultError):
    """A file refused where it is opened, whatever it was to be: damaged, or out of proportion."""


class OptionError(IsoprobeError):
    """An option of a command or a plugin with a value it cannot take."""


def nearest(name: str, known: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
