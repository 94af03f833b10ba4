"""Find a user's own function by name and call it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.errors import OptionError, nearest

if TYPE_CHECKING:
    from types import ModuleType


def resolve(target: str) -> Callable[..., Any]:
    """Find the function ``module:function`` or ``file.py:function`` names.

    Args:
        target: as typed; modules are looked for in the working folder too.

    Returns:
        The function.

    Raises:
        OptionError: when the module or the function is missing, or the module fails.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise OptionError(f"option 'target' is written module:function; found '{target}'")
    try:
        with working_folder_first():
            module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way
        raise OptionError(f"target '{target}': {place} does not import: {said(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise OptionError(
            f"target '{target}': {place} has no function '{name}'{nearest(name, public)}"
        )
    result: Callable[..., Any] = function
    return result


def call_target(
    function: Callable[..., Any], target: str, path: Path, options: Mapping[str, Any]
) -> Any:
    """Call the user's function.

    Args:
        function: the function.
        target: its name, for errors.
        path: the checkpoint, passed when the function has a parameter ``path``.
        options: further keyword arguments.

    Returns:
        What it returns.

    Raises:
        OptionError: when an option fits no parameter, or the function fails.
    """
    arguments = dict(options)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        if "path" in signature.parameters and "path" not in arguments:
            arguments["path"] = path
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise OptionError(
                f"target '{target}' takes {signature}: {error}; give it with --option name=value"
            ) from error
    try:
        with working_folder_first():
            return function(**arguments)
    except (Exception, SystemExit) as error:  # a user's function may fail in any way
        raise OptionError(f"target '{target}' failed: {said(error)}") from error


def _load_module(name: str) -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # registered while it runs, as dataclasses and typing expect of a module
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def working_folder_first() -> Iterator[None]:
    """Let imports see the working folder, as ``python -m`` does."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def said(error: BaseException) -> str:
    """Return type and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
