"""Read a model in memory as it is, tried on a few rows: no adapter of the user's own is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import VAE, Adapter, FirstRows, Live
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source


class LiveModel(Adapter):
    """Finds encoder, decoder and form of the posterior of an object by running it."""

    name = "live"
    summary = "a torch module in memory: isoprobe.analyze(model, x)"

    def matches(self, source: Source) -> bool:
        """Return False: it reads no files."""
        return False

    def takes(self, model: object) -> bool:
        """Return True for what can be called as a model: a module, or encode and decode."""
        methods = all(callable(getattr(model, name, None)) for name in ("encode", "decode"))
        return methods or (hasattr(model, "named_modules") and callable(model))

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Refuse a path.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(
            f"adapter '{self.name}' reads models in memory, and {source.path} is a path; "
            "--class FILE.py:CLASS builds one from its class"
        )

    def read(self, live: Live, rows: FirstRows) -> VAE:
        """Try the model on rows, and read it.

        Args:
            live: the model and what is said about it.
            rows: a few inputs as the data holds them, and the metric asked for.

        Returns:
            The model.

        Raises:
            OptionError: where it cannot be told how it is read, with lines to paste.
        """
        from isoprobe_plugins.adapters.objects.living import read_live

        return read_live(live, rows)


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [LiveModel]
