"""Tell what a pretrained VAE learned: isometry, importance, density, read off its weights.

``isoprobe.analyze`` is the whole of it for most uses, and ``dir(isoprobe)`` lists the rest; plugins
import :mod:`isoprobe.contracts` and :data:`isoprobe.hookimpl`. Names are loaded when first used,
so that ``import isoprobe`` costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe import moved
from isoprobe.errors import IsoprobeError

if TYPE_CHECKING:
    from isoprobe.api import analyze, compare, convert, doctor, inspect, load, report, wrap
    from isoprobe.api import open as open
    from isoprobe.contracts import (
        VAE,
        Adapter,
        Analysis,
        Architecture,
        DataSource,
        Facts,
        Metric,
        Posterior,
        Variable,
    )
    from isoprobe.hookspecs import hookimpl
    from isoprobe.monitor.monitor import Monitor
    from isoprobe.run.codes import decode, encode, sample
    from isoprobe.run.scorer import Scorer
    from isoprobe.run.scoring import score
    from isoprobe.run.walking import interpolate
    from isoprobe.show.result import Result

    __version__: str

__all__ = [
    "VAE",
    "Adapter",
    "Analysis",
    "Architecture",
    "DataSource",
    "Facts",
    "IsoprobeError",
    "Metric",
    "Monitor",
    "Posterior",
    "Result",
    "Scorer",
    "Variable",
    "__version__",
    "analyze",
    "compare",
    "convert",
    "decode",
    "doctor",
    "encode",
    "hookimpl",
    "inspect",
    "interpolate",
    "load",
    "report",
    "sample",
    "score",
    "wrap",
]

moved.install()

#: ``open`` has a home and is not in ``__all__``, so that ``*`` hides no builtin
_HOMES = {
    "analyze": "isoprobe.api",
    "compare": "isoprobe.api",
    "convert": "isoprobe.api",
    "doctor": "isoprobe.api",
    "inspect": "isoprobe.api",
    "load": "isoprobe.api",
    "open": "isoprobe.api",
    "report": "isoprobe.api",
    "wrap": "isoprobe.api",
    "score": "isoprobe.run.scoring",
    "encode": "isoprobe.run.codes",
    "decode": "isoprobe.run.codes",
    "sample": "isoprobe.run.codes",
    "interpolate": "isoprobe.run.walking",
    "Monitor": "isoprobe.monitor.monitor",
    "Result": "isoprobe.show.result",
    "Scorer": "isoprobe.run.scorer",
    "VAE": "isoprobe.contracts",
    "Facts": "isoprobe.contracts",
    "Posterior": "isoprobe.contracts",
    "Metric": "isoprobe.contracts",
    "Adapter": "isoprobe.contracts",
    "Analysis": "isoprobe.contracts",
    "Architecture": "isoprobe.contracts",
    "DataSource": "isoprobe.contracts",
    "Variable": "isoprobe.contracts",
    "hookimpl": "isoprobe.hookspecs",
}
#: brought by a plugin, under the command named
_BROUGHT = {"Detector": "train"}


def __getattr__(name: str) -> Any:
    """Return a public name, imported from its home when it is first used (PEP 562).

    Raises:
        AttributeError: for any other name.
    """
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        return version("isoprobe")
    if name in _BROUGHT:
        home = importlib.import_module("isoprobe.api").home_of(_BROUGHT[name], name)
        return getattr(importlib.import_module(home), name)
    if name not in _HOMES:
        raise AttributeError(f"module 'isoprobe' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, so that completion shows what there is."""
    return sorted([*__all__, *_BROUGHT, "open"])
