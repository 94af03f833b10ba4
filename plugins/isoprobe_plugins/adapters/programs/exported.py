"""torch.export archives: the graph is interpreted here, operator by operator.

``torch.export.load`` unpickles sample inputs, evaluates expressions and looks operators up by any
dotted name, so that opening a stranger's archive runs what it says. Only the graph's JSON and the
raw bytes of its weights are read instead, and only operators of torch's own ``aten`` set are run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.contracts import VAE, Adapter, FirstRows, Live
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.objects.pairs import Pair, PairOptions


class Exported(Adapter):
    """Reads a pair of exported programs, encoder and decoder."""

    name = "torch-export"
    summary = "torch.export archives: encoder.pt2 with --option decoder=FILE, or a folder of both"

    def matches(self, source: Source) -> bool:
        """Return True for such an archive, or a folder of encoder.pt2 and decoder.pt2."""
        from isoprobe_plugins.adapters.objects.pairs import is_pair

        return source.kind is FileKind.TORCH_EXPORT or is_pair(source, FileKind.TORCH_EXPORT)

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read both graphs and wrap them.

        Args:
            source: the encoder's archive, or the folder.
            options: fields of :class:`~isoprobe_plugins.adapters.objects.pairs.PairOptions`.

        Returns:
            The model.
        """
        from isoprobe_plugins.adapters.objects.pairs import PairOptions
        from isoprobe_plugins.adapters.objects.wrapping import vae_from_object

        settings = construct(PairOptions, options, f"adapter '{self.name}'")
        pair = _pair(source, settings)
        return vae_from_object(pair, settings, str(source.path), source, adapter=self.name)

    def build(self, source: Source, options: Mapping[str, str]) -> Live | None:
        """Return both programs, whose shapes the data then tells.

        Returns:
            Them; None where the options tell the shapes, or there is no encoder.
        """
        from isoprobe_plugins.adapters.objects.pairs import PairOptions, Shapeless

        settings = construct(PairOptions, options, f"adapter '{self.name}'")
        return Shapeless.of(lambda: _pair(source, settings), settings, source, self.name)

    def takes(self, model: object) -> bool:
        """Return True for what :meth:`build` gives."""
        found = sys.modules.get("isoprobe_plugins.adapters.objects.pairs")
        own = found is not None and isinstance(model, found.Shapeless)
        return bool(own and self.matches(model.source))  # type: ignore[attr-defined]

    def read(self, live: Live, rows: FirstRows) -> VAE:
        """Read the entry points in the shape of the rows."""
        model: VAE = live.model.read(rows.x, self.name)
        return model

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the operators of the graph."""
        from isoprobe_plugins.adapters.programs.aten import graph_of

        if source.is_folder:
            return {"architecture": "a pair of exported programs"}
        nodes = graph_of(source)["graph_module"]["graph"]["nodes"]
        return {
            "architecture": "an exported program",
            "operators": sorted({str(node.get("target")) for node in nodes}),
        }


def _pair(source: Source, settings: PairOptions) -> Pair:
    from isoprobe_plugins.adapters.objects.pairs import EncoderFirst, Pair, sources_of
    from isoprobe_plugins.adapters.programs.aten import read_program
    from isoprobe_plugins.adapters.programs.bounded import Bounded

    encoder, decoder = sources_of(source, settings, FileKind.TORCH_EXPORT)
    encode = None
    if encoder is not None:
        encode = EncoderFirst(Bounded(read_program(encoder), encoder))
    return Pair(encode, Bounded(read_program(decoder), decoder))


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Exported]
