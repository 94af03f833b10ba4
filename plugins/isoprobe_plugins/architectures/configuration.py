"""Check configurations of architectures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from isoprobe.errors import CheckpointError

T = TypeVar("T", bound=msgspec.Struct)

Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
Widths = Annotated[list[Size], msgspec.Meta(max_length=256)]
Shape = Annotated[tuple[Size, ...], msgspec.Meta(min_length=1, max_length=8)]


def read_config(config: Mapping[str, Any], kind: type[T], architecture: str) -> T:
    """Check a configuration against the fields an architecture has.

    Args:
        config: as the manifest holds it.
        kind: struct of the fields.
        architecture: its name, for errors.

    Returns:
        The checked configuration.

    Raises:
        CheckpointError: naming the field that is missing, unknown or wrong.
    """
    try:
        return msgspec.convert(dict(config), kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"architecture '{architecture}': {error}") from error
