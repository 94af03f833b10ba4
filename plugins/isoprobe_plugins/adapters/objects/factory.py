"""Any model a user can build, by a function named on the command line.

What the function returns needs ``encode`` and ``decode``.
This is the one adapter that runs code, and only code the user names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
        built = call_target(resolve(settings.target), settings.target, source.path, passed)
        return vae_from_object(built, settings, label, source, adapter=self.name)


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
