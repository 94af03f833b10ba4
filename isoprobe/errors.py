"""Define errors that a user can act on: what was expected, what was found, and what to do."""

from __future__ import annotations


class IsoprobeError(Exception):
    """Base of every error that is the input's or the user's; commands turn it into exit 1."""


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
