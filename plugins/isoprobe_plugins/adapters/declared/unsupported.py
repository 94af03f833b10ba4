"""Refuse models that are recognised and cannot be analysed: a reason beats a wrong number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.adapters.declared.adapter import beside
from isoprobe_plugins.adapters.weights.names import saved_by_scvi, tensor_names, why_unsupported

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source


class Unsupported(Adapter):
    """Recognises autoregressive, vector-quantised and deterministic models by their names."""

    name = "unsupported"
    summary = "recognises models that are no analysable VAE, and says why"

    def matches(self, source: Source) -> bool:
        """Return True for weights whose names betray such a model, unless declared."""
        told = beside(source).is_file() or saved_by_scvi(source)
        return not told and why_unsupported(tensor_names(source)) is not None

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Raise with the reason.

        Raises:
            CheckpointError: always.
        """
        reason = why_unsupported(tensor_names(source)) or f"{source.description}"
        raise CheckpointError(
            f"{source.path} is {reason}. A part of it that is a VAE can be wrapped with "
            "--adapter factory --option target=module:function"
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the reason."""
        return {"not analysable": why_unsupported(tensor_names(source))}


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Unsupported]
