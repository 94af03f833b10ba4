"""Read programs with entry points, in shapes that options or the first rows tell."""

from __future__ import annotations

import abc
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.objects.two_files import OfPairs, PairOptions

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe.contracts import VAE, FirstRows, Live


class Programs(OfPairs):
    """An adapter of programs that encode and decode, one of both or a pair."""

    @abc.abstractmethod
    def entries(self, source: Source, settings: PairOptions) -> Any:
        """Return the object that encodes and decodes."""

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Load the programs in the shapes that options tell.

        Args:
            source: the encoder's file, one of both, or the folder.
            options: fields of :class:`~isoprobe_plugins.adapters.objects.pairs.PairOptions`.

        Returns:
            The model.
        """
        from isoprobe_plugins.adapters.objects.wrapping import vae_from_object

        settings = construct(PairOptions, options, f"adapter '{self.name}'")
        built = self.entries(source, settings)
        return vae_from_object(built, settings, str(source.path), source, adapter=self.name)

    def build(self, source: Source, options: Mapping[str, str]) -> Live | None:
        """Return the entry points, whose shapes the data then tells.

        Returns:
            Them; None where the options tell the shapes, or there is no encoder.
        """
        from isoprobe_plugins.adapters.objects.pairs import Shapeless

        settings = construct(PairOptions, options, f"adapter '{self.name}'")
        return Shapeless.of(lambda: self.entries(source, settings), settings, source, self.name)

    def takes(self, model: object) -> bool:
        """Return True for what :meth:`build` gives."""
        found = sys.modules.get("isoprobe_plugins.adapters.objects.pairs")
        own = found is not None and isinstance(model, found.Shapeless)
        return bool(own and self.matches(model.source))  # type: ignore[attr-defined]

    def read(self, live: Live, rows: FirstRows) -> VAE:
        """Read the entry points in the shape of the rows."""
        model: VAE = live.model.read(rows.x, self.name)
        return model
