"""Fill a user's own class with the weights of a file, both named on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from isoprobe.contracts import VAE, Adapter, FirstRows, Live
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.adapters.objects.options import read_shape

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

#: what ``--class-arg NAME=VALUE`` becomes among the options
ARGUMENT = "arg."


class OwnClass(Adapter):
    """Builds a class that the user names and loads the file's weights into it, strictly."""

    name = "class"
    summary = "a class of your own and its state dict: --class net.py:VAE"

    def matches(self, source: Source) -> bool:
        """Return False: it is only used when a class is named, since it runs its code."""
        return False

    def build(self, source: Source, options: Mapping[str, str]) -> Live:
        """Build the class and fill it.

        Args:
            source: the file of the weights.
            options: ``class`` (``FILE.py:CLASS``), ``arg.NAME`` for its constructor, ``weights``
                to choose among several sets, and those of a live model.

        Returns:
            The module, to be read on the first rows of the data.

        Raises:
            OptionError: for an option that is missing or wrong, or a class that does not build.
            CheckpointError: for a file without weights, or whose weights are not of this class.
        """
        from isoprobe_plugins.adapters.objects.filling import filled
        from isoprobe_plugins.adapters.objects.living import LiveOptions

        given = dict(options)
        target = given.pop("class", None)
        if target is None:
            raise OptionError("adapter 'class' needs the class: --class FILE.py:CLASS")
        weights = given.pop("weights", None)
        arguments = {k: given.pop(k) for k in list(given) if k.startswith(ARGUMENT)}
        known = {field.name for field in fields(LiveOptions)}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise OptionError(
                f"adapter 'class' has no option '{unknown[0]}'; it takes weights, "
                f"{', '.join(sorted(known))}; --class-arg is for the constructor"
            )
        named = {k.removeprefix(ARGUMENT): v for k, v in arguments.items()}
        module, notes = filled(target, source, named, weights)
        return Live(module, given, source.path.stem, source.sha256(), tuple(notes), self.name)

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read the class without data, on rows of the shape that the option ``input_shape`` says.

        Returns:
            The model.

        Raises:
            OptionError: where the shape is not said.
        """
        import torch

        from isoprobe_plugins.adapters.objects.living import read_live

        given = dict(options)
        shape = given.pop("input_shape", None)
        if shape is None:
            raise OptionError(
                "the shape of a row is not known without data; add --option input_shape=..., as in "
                "784 or 1x28x28"
            )
        live = self.build(source, given)
        rows = torch.rand(
            64, *read_shape(shape, "input_shape"), generator=torch.Generator().manual_seed(0)
        )
        return read_live(live, FirstRows(rows, None))


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [OwnClass]
