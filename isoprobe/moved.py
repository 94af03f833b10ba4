"""Keep old import paths working for one version, each with a warning that names the new one."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: modules of version 0.1 that the documentation showed, and where they are now
MOVED = {
    "isoprobe.calibration": "isoprobe.probe.beta",
    "isoprobe.checkpoint": "isoprobe.checkpoints.native",
    "isoprobe.compare": "isoprobe.show.compare",
    "isoprobe.diagnosis": "isoprobe.theory.judge",
    "isoprobe.formulas": "isoprobe.theory.formulas",
    "isoprobe.hdf5": "isoprobe.results.writer",
    "isoprobe.isometric": "isoprobe.theory.isometric",
    "isoprobe.matching": "isoprobe.show.matching",
    "isoprobe.plots": "isoprobe.show.plots",
    "isoprobe.pullback": "isoprobe.derivatives.exact",
    "isoprobe.report": "isoprobe.show.report",
    "isoprobe.result": "isoprobe.results.reader",
    "isoprobe.sharding": "isoprobe.run.merging",
    "isoprobe.shards": "isoprobe.run.shards",
    "isoprobe.source": "isoprobe.checkpoints.source",
    "isoprobe.tensors": "isoprobe.derivatives.metric_tensor",
    "isoprobe_trainers.bench": "isoprobe_trainers.toy.bench",
    "isoprobe_trainers.toy_source": "isoprobe_trainers.toy.source",
}
_GOES = "the old path goes with version 0.3"


class _Moved(ModuleType):
    """An old module whose name is a public function's today: it can be called as that."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        package, _, name = self.__name__.rpartition(".")
        return sys.modules[package].__getattr__(name)(*args, **more)


class _Finder(MetaPathFinder, Loader):
    """Find a moved module under its old name."""

    def __init__(self, moved: Mapping[str, str]) -> None:
        self.moved = moved

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for the old names alone."""
        return ModuleSpec(fullname, self) if fullname in self.moved else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return an empty module."""
        return _Moved(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Give the old name everything that stands under the new one."""
        new = self.moved[module.__name__]
        warnings.warn(f"{module.__name__} is now {new}; {_GOES}", DeprecationWarning, stacklevel=2)
        found = vars(importlib.import_module(new))
        vars(module).update({k: v for k, v in found.items() if not k.startswith("__")})


def install() -> None:
    """Let old names be found, after everything that is really there."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder(MOVED))


def names_of(module: str, package: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package that used to be one module.

    Args:
        module: where its names are now.
        package: the package.

    Returns:
        A function that finds a name there and warns.
    """

    def lookup(name: str) -> Any:
        found = getattr(importlib.import_module(module), name, None)
        if name.startswith("_") or found is None:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        warnings.warn(
            f"{package}.{name} is now {module}.{name}; {_GOES}", DeprecationWarning, stacklevel=2
        )
        return found

    return lookup
