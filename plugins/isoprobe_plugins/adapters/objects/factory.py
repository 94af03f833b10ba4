"""Take any model a user can build, by a function named on the command line.

What the function returns needs ``encode`` and ``decode``.
This is the one adapter that runs code, and only code the user names.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from isoprobe.contracts import VAE, Adapter
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.objects.calling import call_target, resolve
from isoprobe_plugins.adapters.objects.options import ModelOptions
from isoprobe_plugins.heads import check_head

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source


@dataclass(frozen=True, kw_only=True)
class FactoryOptions(ModelOptions):
    """Options of ``factory``; every other one is passed to the function.

    Attributes:
        target: ``module:function`` or ``file.py:function``.
    """

    target: str


_OWN = frozenset(field.name for field in fields(FactoryOptions))


class Factory(Adapter):
    """Calls a function and wraps what it returns."""

    name = "factory"
    summary = "any object with encode and decode: --option target=module:function"

    def matches(self, source: Source) -> bool:
        """Return False: it is only used when named, since it runs code."""
        return False

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Call the function and check that what it returns behaves like a VAE.

        Args:
            source: the checkpoint, whose path the function gets when it has a parameter ``path``.
            options: fields of :class:`FactoryOptions`; others go to the function.

        Returns:
            The wrapped object.

        Raises:
            OptionError: for a wrong option, a function that cannot be had or fails, or an
                object that does not fit.
        """
        from isoprobe_plugins.adapters.objects.wrapping import vae_from_object

        own = {k: v for k, v in options.items() if k in _OWN}
        passed = {k: _value(v) for k, v in options.items() if k not in _OWN}
        settings = construct(FactoryOptions, own, f"adapter '{self.name}'")
        if settings.head is not None:
            check_head(settings.head)
        label = f"target '{settings.target}'"
        function = resolve(settings.target)
        opens = "path" in passed or _takes_path(function)
        if not opens and _is_module_class(function):
            return self._filled(source, settings, passed, label)
        built = call_target(function, settings.target, source.path, passed)
        vae = vae_from_object(built, settings, label, source, adapter=self.name)
        if not opens:  # what is never opened is never signed
            vae.sha256 = ""
            note = f"{settings.target} takes no path: {source.path.name} was not opened"
            return vae.with_facts(assumptions=(*vae.facts.assumptions, note))
        return vae

    def _filled(
        self, source: Source, settings: FactoryOptions, passed: Mapping[str, Any], label: str
    ) -> VAE:
        """Fill a module class, which opens no file itself, with the file's weights."""
        from isoprobe_plugins.adapters.objects.filling import filled
        from isoprobe_plugins.adapters.objects.wrapping import vae_from_object

        texts = {name: json.dumps(value) for name, value in passed.items()}
        module, notes = filled(settings.target, source, texts)
        vae = vae_from_object(module, settings, label, source, adapter=self.name)
        return vae.with_facts(assumptions=(*notes, *vae.facts.assumptions))


def _takes_path(function: Callable[..., Any]) -> bool:
    """Say whether a function is handed the checkpoint's path."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return "path" in parameters


def _is_module_class(function: Callable[..., Any]) -> bool:
    """Say whether a target is a class of torch modules; asked of a class alone, loads torch."""
    if not inspect.isclass(function):
        return False
    from torch import nn

    return issubclass(function, nn.Module)


def _value(text: str) -> Any:
    """Read numbers, true, false, null and JSON as what they are, anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Factory]
