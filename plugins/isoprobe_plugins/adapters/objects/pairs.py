"""Encoder and decoder that come as two files, or as one with two entry points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.objects.options import ModelOptions

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import FileKind


@dataclass(frozen=True, kw_only=True)
class PairOptions(ModelOptions):
    """Options of formats without a place for two functions.

    Attributes:
        decoder: file of the decoder, where the checkpoint is the encoder alone; or ``self`` to
            read the checkpoint as a decoder without an encoder.
    """

    decoder: str | None = None


class Pair(nn.Module):
    """Two loaded functions as one object.

    Args:
        encode: encoder, if there is one.
        decode: decoder.
        owner: module whose methods they are, where they are no modules themselves.
    """

    def __init__(
        self,
        encode: Callable[..., Any] | None,
        decode: Callable[..., Any],
        owner: nn.Module | None = None,
    ) -> None:
        super().__init__()
        owners = [m for m in (owner, encode, decode) if isinstance(m, nn.Module)]
        self.parts = nn.ModuleList(owners)
        if encode is not None:
            self.encode = encode
        self.decode = decode


class EncoderFirst(nn.Module):
    """An encoder whose outputs are mean, scale and perhaps more: only the first two are kept."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        """Return mean and scale."""
        answer = self.inner(x)
        return tuple(answer[:2]) if isinstance(answer, tuple | list) else answer


def sources_of(
    source: Source, settings: PairOptions, kind: FileKind
) -> tuple[Source | None, Source]:
    """Find the files of encoder and decoder.

    Args:
        source: the checkpoint: the encoder's file, the decoder's with ``decoder=self``, or a
            folder with one file named for each.
        settings: options in force.
        kind: what both files must be.

    Returns:
        The encoder's file, None where there is none, and the decoder's.

    Raises:
        CheckpointError: when a file is missing or of another kind.
    """
    if source.is_folder:
        encoder: Source | None = _named(source, "encoder")
        decoder = _named(source, "decoder")
    elif settings.decoder == "self":
        encoder, decoder = None, source
    elif settings.decoder is not None:
        encoder, decoder = source, Source(Path(settings.decoder), trusted=source.trusted)
    else:
        raise CheckpointError(
            f"{source.path} is one function; name the decoder's file with --option decoder=FILE, "
            "or read this one as a decoder with --option decoder=self"
        )
    for part in (encoder, decoder):
        if part is not None and part.kind is not kind:
            raise CheckpointError(f"{part.path} is {part.description}; expected {kind.value}")
    return encoder, decoder


def _named(folder: Source, stem: str) -> Source:
    names = [name for name in folder.names() if Path(name).stem == stem]
    if len(names) != 1:
        raise CheckpointError(f"{folder.path} has {len(names)} files named {stem}.*; expected one")
    return folder.child(names[0])


def is_pair(source: Source, kind: FileKind) -> bool:
    """Return True for a folder of two files named encoder and decoder, both of a kind."""
    if not source.is_folder:
        return False
    try:
        return all(_named(source, stem).kind is kind for stem in ("encoder", "decoder"))
    except CheckpointError:
        return False
