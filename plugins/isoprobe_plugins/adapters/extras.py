"""Import optional dependencies when needed, and name the extra where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from isoprobe.errors import CheckpointError


def need(module: str, extra: str, what: str) -> Any:
    """Import an optional dependency.

    Args:
        module: to import.
        extra: of this project, that installs it.
        what: needs it, in words.

    Returns:
        The module.

    Raises:
        CheckpointError: when it is not installed or does not import.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CheckpointError(
            f"{what} needs {module.partition('.')[0]}, which is not here ({error}): "
            f"pip install 'isoprobe[{extra}]'"
        ) from error
