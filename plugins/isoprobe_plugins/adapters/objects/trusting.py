"""Run code inside a checkpoint when the user says so, and never otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source


def require_trust(source: Source, what: str, instead: str) -> None:
    """Refuse to run a checkpoint's code unless the user trusts it.

    Args:
        source: the checkpoint.
        what: of it is code, in words.
        instead: what to do where it is not trusted.

    Raises:
        CheckpointError: when it is not trusted; names the flag and what the flag means.
    """
    if not source.trusted:
        raise CheckpointError(
            f"{source.path}: {what}, which is not run: {instead}; or, if you trust whoever wrote "
            "it, add --trust, which lets that code do whatever you may do on this machine"
        )
