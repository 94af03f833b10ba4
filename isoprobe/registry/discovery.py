"""Find plugins among the installed distributions, import only those asked for, and blame by name.

An entry point of group ``isoprobe`` is named ``KIND.NAME`` and names a module with hooks, or the
plugin's class itself. One without a known kind names a module, which may offer anything but
commands. Importing, hook validation and return types are checked here, so that one
broken plugin is reported with its distribution and the others work.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pluggy

from isoprobe import contracts, hookspecs
from isoprobe.errors import nearest

if TYPE_CHECKING:
    from types import ModuleType

GROUP = "isoprobe"
#: name a plugin module gives the version of the plugin surface it was written for
INTERFACE_ATTRIBUTE = "ISOPROBE_INTERFACE"


class PluginWarning(UserWarning):
    """A plugin that does not work, while the others do."""


@dataclass(frozen=True)
class Kind:
    """A kind of plugin.

    Attributes:
        name: as entry points and the command line write it.
        hook: hook that offers it.
        contract: class its plugins derive from; None for commands, which are click objects.
    """

    name: str
    hook: str
    contract: type | None


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("adapter", "isoprobe_adapters", contracts.Adapter),
        Kind("metric", "isoprobe_metrics", contracts.Metric),
        Kind("analysis", "isoprobe_analyses", contracts.Analysis),
        Kind("data-source", "isoprobe_data_sources", contracts.DataSource),
        Kind("architecture", "isoprobe_architectures", contracts.Architecture),
        Kind("command", "isoprobe_commands", None),
    )
}
HOOKS = tuple(kind.hook for kind in KINDS.values())


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from: an entry point of a distribution."""

    entry: EntryPoint

    @property
    def kind(self) -> str | None:
        """Kind the entry point declares, if it declares a known one."""
        prefix, dot, _ = self.entry.name.partition(".")
        return prefix if dot and prefix in KINDS else None

    @property
    def name(self) -> str:
        """Name within the kind."""
        return self.entry.name.partition(".")[2] if self.kind else self.entry.name

    @cached_property
    def distribution(self) -> str:
        """Name of the distribution that registers the entry point."""
        return self.entry.dist.name if self.entry.dist else "unknown distribution"

    @cached_property
    def version(self) -> str:
        """Version of that distribution."""
        return self.entry.dist.version if self.entry.dist else ""

    def offers(self, kind: str) -> bool:
        """Return True when plugins of that kind may come from here."""
        return self.kind == kind or (self.kind is None and kind != "command")

    def __str__(self) -> str:
        return f"'{self.entry.name}' of {self.distribution}"


@dataclass(frozen=True)
class Offer:
    """A plugin as its hook returned it.

    Attributes:
        kind: name of its kind.
        plugin: the class, or the click command.
        origin: the entry point it came through.
    """

    kind: str
    plugin: Any
    origin: Origin

    @property
    def name(self) -> str:
        """Name under which users ask for it."""
        return str(self.plugin.name)

    @property
    def summary(self) -> str:
        """One line on what it does."""
        if self.kind == "command":
            return str(self.plugin.get_short_help_str(limit=100))
        return str(getattr(self.plugin, "summary", ""))


@dataclass(frozen=True)
class Problem:
    """Something wrong with a plugin; the others work on."""

    origin: Origin
    message: str

    def __str__(self) -> str:
        return f"plugin {self.origin}: {self.message}"


class Discovery:
    """Entry points by kind, imported on demand.

    Args:
        entries: entry points to use; all installed ones of the group by default.
    """

    def __init__(self, entries: Iterable[EntryPoint] | None = None) -> None:
        found = importlib.metadata.entry_points(group=GROUP) if entries is None else entries
        self.origins = [Origin(entry) for entry in sorted(found, key=lambda e: (e.name, e.value))]
        self.problems: list[Problem] = []
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._modules: dict[str, ModuleType | type | None] = {}
        self._offers: dict[tuple[str, str], list[Any]] = {}

    def names(self, kind: str) -> list[str]:
        """Names of a kind that entry points declare; imports nothing."""
        return sorted({origin.name for origin in self.origins if origin.kind == kind})

    def offers(self, kind: str, name: str | None = None) -> list[Offer]:
        """Plugins of a kind, sorted by name and distribution.

        Args:
            kind: name of the kind.
            name: import only entry points that declare this name.

        Returns:
            The plugins that work; see :attr:`problems` for those that do not.
        """
        origins = [
            origin
            for origin in self.origins
            if origin.offers(kind) and (name is None or (origin.kind, origin.name) == (kind, name))
        ]
        offers = {
            (id(offer.plugin), offer.origin.distribution): offer
            for origin in reversed(origins)
            for offer in self._offers_of(origin, kind)
        }
        return sorted(offers.values(), key=lambda o: (o.name, o.origin.distribution))

    def problem_of(self, kind: str, name: str) -> Problem | None:
        """What is wrong with the module that should offer that plugin, if anything is."""
        values = {o.entry.value for o in self.origins if (o.kind, o.name) == (kind, name)}
        return next((p for p in self.problems if p.origin.entry.value in values), None)

    def _offers_of(self, origin: Origin, kind: str) -> Iterator[Offer]:
        module = self._module(origin)
        if module is None:
            return
        key = (origin.entry.value, kind)
        if key not in self._offers:
            self._offers[key] = list(
                self._checked([module], KINDS[kind], origin, "it names")
                if isinstance(module, type)
                else self._call(module, KINDS[kind], origin)
            )
        for plugin in self._offers[key]:
            yield Offer(kind, plugin, origin)

    def _module(self, origin: Origin) -> ModuleType | type | None:
        """The plugin's class or module, imported, validated, registered; None if that fails."""
        value = origin.entry.value
        if value not in self._modules:
            self._modules[value] = self._import(origin)
        return self._modules[value]

    def _import(self, origin: Origin) -> ModuleType | type | None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for data
                module: ModuleType | type = origin.entry.load()
        except (Exception, SystemExit) as error:
            # a plugin may fail in any way; it is reported, and the others work on
            self.report(origin, f"does not import: {type(error).__name__}: {error}")
            return None
        if isinstance(module, type):
            return self._named(module, origin)
        if self._outdated(module, origin):
            return None
        self._check_hook_names(module, origin)
        if self._manager.is_registered(module):  # two spellings of one entry point
            return module
        try:
            self._manager.register(module, name=origin.entry.value)
        except pluggy.PluginValidationError as error:
            self.report(origin, f"a hook does not fit its specification: {error}")
            return None
        return module

    def _named(self, plugin: type, origin: Origin) -> type | None:
        """A class that an entry point names; None where its kind or its interface is wrong."""
        if origin.kind is None:
            self.report(origin, f"names a class, so its own name begins with {', '.join(KINDS)}")
            return None
        return None if self._outdated(sys.modules[plugin.__module__], origin) else plugin

    def _outdated(self, module: ModuleType, origin: Origin) -> bool:
        written_for = getattr(module, INTERFACE_ATTRIBUTE, hookspecs.INTERFACE)
        if written_for == hookspecs.INTERFACE:
            return False
        self.report(
            origin,
            f"was written for plugin interface {written_for}; this isoprobe offers "
            f"{hookspecs.INTERFACE}. Install versions of the two that agree",
        )
        return True

    def _check_hook_names(self, module: ModuleType, origin: Origin) -> None:
        for name, value in vars(module).items():
            if not name.startswith("isoprobe_") or not inspect.isfunction(value):
                continue
            if name not in HOOKS:
                self.report(
                    origin,
                    f"has no effect by '{name}', which is no hook"
                    + (nearest(name, list(HOOKS)) or f"; hooks are {', '.join(HOOKS)}"),
                )
            elif not hasattr(value, f"{GROUP}_impl"):
                self.report(origin, f"'{name}' lacks the @hookimpl mark and is not called")

    def _call(self, module: ModuleType, kind: Kind, origin: Origin) -> Iterator[Any]:
        """What the module's hook of that kind returns, each entry checked."""
        caller = getattr(self._manager.hook, kind.hook)
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not module:
                continue
            if implementation.wrapper or implementation.hookwrapper:
                self.report(origin, f"{kind.hook} is a wrapper; hooks return values and no more")
                return
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    returned = list(implementation.function())
            except (Exception, SystemExit) as error:
                self.report(origin, f"{kind.hook} fails: {type(error).__name__}: {error}")
                return
            yield from self._checked(returned, kind, origin, f"{kind.hook} returns")

    def _checked(
        self, plugins: Iterable[Any], kind: Kind, origin: Origin, what: str
    ) -> Iterator[Any]:
        """Those of some plugins that are of the kind; the others are reported."""
        for plugin in plugins:
            wrong = _contract_breach(plugin, kind)
            if wrong:
                self.report(origin, f"{what} {plugin!r}, {wrong}")
            else:
                yield plugin

    def report(self, origin: Origin, message: str) -> None:
        """Note a problem once, and warn of it."""
        problem = Problem(origin, " ".join(message.split()))
        if problem not in self.problems:
            self.problems.append(problem)
            warnings.warn(str(problem), PluginWarning, stacklevel=2)


def _contract_breach(plugin: Any, kind: Kind) -> str:
    """What keeps a returned object from being a plugin of the kind, or an empty string."""
    if kind.contract is None:
        import click

        return (
            "" if isinstance(plugin, click.Command) and plugin.name else "which is no click command"
        )
    if not (isinstance(plugin, type) and issubclass(plugin, kind.contract)):
        return f"which is no class derived from isoprobe.contracts.{kind.contract.__name__}"
    if inspect.isabstract(plugin):
        missing = ", ".join(sorted(getattr(plugin, "__abstractmethods__", ())))
        return f"which does not define {missing}"
    if not isinstance(getattr(plugin, "name", None), str):
        return "which has no name"
    return ""
