"""Interpret the graph of a torch.export archive, operator by operator.

``torch.export.load`` unpickles sample inputs, evaluates expressions and looks operators up by any
dotted name, so that opening a stranger's archive runs what it says. Only the graph's JSON and the
raw bytes of its weights are read instead, and only operators of torch's own ``aten`` set are run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.adapters.objects.two_files import PairOptions, sources_of
from isoprobe_plugins.adapters.programs.entries import Programs
from isoprobe_plugins.adapters.programs.graphs import graph_of

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe.contracts import Adapter
    from isoprobe_plugins.adapters.objects.pairs import Pair


class Exported(Programs):
    """Reads a pair of exported programs, encoder and decoder."""

    name = "torch-export"
    summary = "torch.export archives: encoder.pt2 with --option decoder=FILE, or a folder of both"
    kind = FileKind.TORCH_EXPORT

    def entries(self, source: Source, settings: PairOptions) -> Pair:
        """Read both graphs."""
        from isoprobe_plugins.adapters.objects.pairs import EncoderFirst, Pair
        from isoprobe_plugins.adapters.programs.aten import read_program
        from isoprobe_plugins.adapters.programs.bounded import Bounded

        encoder, decoder = sources_of(source, settings, self.kind)
        encode = None
        if encoder is not None:
            encode = EncoderFirst(Bounded(read_program(encoder), encoder))
        return Pair(encode, Bounded(read_program(decoder), decoder))

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the operators of the graph."""
        if source.is_folder:
            return {"architecture": "a pair of exported programs"}
        nodes = graph_of(source)["graph_module"]["graph"]["nodes"]
        return {
            "architecture": "an exported program",
            "operators": sorted({str(node.get("target")) for node in nodes}),
        }


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Exported]
