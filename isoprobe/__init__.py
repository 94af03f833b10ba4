"""What a pretrained VAE learned: isometry, importance, density, read off its weights.

``isoprobe.analyze`` and ``isoprobe.load`` are the whole of it for most uses; plugins import
:mod:`isoprobe.contracts` and :data:`isoprobe.hookspecs.hookimpl`. Names are loaded when first used,
so that ``import isoprobe`` costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe import moved
from isoprobe.errors import IsoprobeError

if TYPE_CHECKING:
    from isoprobe.api import analyze, load, wrap
    from isoprobe.contracts import VAE, Facts, Posterior
    from isoprobe.run.codes import decode, encode, sample
    from isoprobe.run.scorer import Scorer
    from isoprobe.run.scoring import score
    from isoprobe.run.walking import interpolate

    __version__: str

__all__ = [
    "VAE",
    "Facts",
    "IsoprobeError",
    "Posterior",
    "Scorer",
    "__version__",
    "analyze",
    "decode",
    "encode",
    "interpolate",
    "load",
    "sample",
    "score",
    "wrap",
]

moved.install()

_HOMES = {
    "analyze": "isoprobe.api",
    "load": "isoprobe.api",
    "score": "isoprobe.run.scoring",
    "wrap": "isoprobe.api",
    "encode": "isoprobe.run.codes",
    "decode": "isoprobe.run.codes",
    "sample": "isoprobe.run.codes",
    "interpolate": "isoprobe.run.walking",
    "Scorer": "isoprobe.run.scorer",
    "VAE": "isoprobe.contracts",
    "Facts": "isoprobe.contracts",
    "Posterior": "isoprobe.contracts",
}


def __getattr__(name: str) -> Any:
    """Return a public name, imported from its home when it is first used (PEP 562).

    Raises:
        AttributeError: for any other name.
    """
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("isoprobe")
    if name not in _HOMES:
        raise AttributeError(f"module 'isoprobe' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, so that completion shows what there is."""
    return __all__
