"""Find the two files of an encoder and a decoder; loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.contracts import Adapter
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.objects.options import ModelOptions


@dataclass(frozen=True, kw_only=True)
class PairOptions(ModelOptions):
    """Options of formats without a place for two functions.

    Attributes:
        decoder: file of the decoder, where the checkpoint is the encoder alone; or ``self`` to
            read the checkpoint as a decoder without an encoder.
    """

    decoder: str | None = None


class OfPairs(Adapter):
    """An adapter of files that may be a folder's two, one for each function.

    Attributes:
        kind: of the files.
    """

    kind: ClassVar[FileKind]

    def matches(self, source: Source) -> bool:
        """Return True for such a file, or a folder of an encoder's and a decoder's."""
        return source.kind is self.kind or is_pair(source, self.kind)


def sources_of(
    source: Source, settings: PairOptions, kind: FileKind
) -> tuple[Source | None, Source]:
    """Find the files of encoder and decoder.

    Args:
        source: the checkpoint: the encoder's file, the decoder's where its name or
            ``decoder=self`` says so, or a folder with one file named for each.
        settings: options in force.
        kind: what both files must be.

    Returns:
        The encoder's file, None where there is none, and the decoder's.

    Raises:
        CheckpointError: when a file is missing or of another kind.
    """
    stem = source.path.stem.lower()
    beside = source.path.with_name(source.path.name.replace("encoder", "decoder"))
    if source.is_folder:
        encoder: Source | None = _named(source, "encoder", kind)
        decoder = _named(source, "decoder", kind)
    elif settings.decoder == "self" or (settings.decoder is None and "decoder" in stem):
        encoder, decoder = None, source
    elif settings.decoder is not None:
        encoder, decoder = source, Source(Path(settings.decoder), trusted=source.trusted)
    elif beside != source.path and beside.is_file():
        encoder, decoder = source, Source(beside, trusted=source.trusted)
    else:
        raise CheckpointError(
            f"{source.path} is one function; name the decoder's file with --option decoder=FILE, "
            "or read this one as a decoder with --option decoder=self"
        )
    for part in (encoder, decoder):
        if part is not None and part.kind is not kind:
            raise CheckpointError(f"{part.path} is {part.description}; expected {kind.value}")
    return encoder, decoder


def _named(folder: Source, stem: str, kind: FileKind) -> Source:
    files = [name for name in folder.names() if (folder.path / name).is_file()]
    names = [name for name in files if Path(name).stem == stem]
    if not names:
        held = [name for name in files if stem in Path(name).stem.lower()]
        names = [name for name in held if folder.child(name).kind is kind]
    if len(names) != 1:
        raise CheckpointError(f"{folder.path} has {len(names)} files named {stem}.*; expected one")
    return folder.child(names[0])


def is_pair(source: Source, kind: FileKind) -> bool:
    """Return True for a folder of two files whose names say encoder and decoder, of a kind."""
    if not source.is_folder:
        return False
    try:
        return all(_named(source, stem, kind).kind is kind for stem in ("encoder", "decoder"))
    except CheckpointError:
        return False
