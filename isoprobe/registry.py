"""Plugins by kind and name: each question gets one plugin, or an error that says why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from isoprobe.datafiles import unopened
from isoprobe.discovery import KINDS, Discovery, Offer, Problem
from isoprobe.errors import (
    CheckpointError,
    DataError,
    MetricError,
    OptionError,
    PluginError,
    nearest,
)
from isoprobe.specs import construct, parse_spec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import click

    from isoprobe.contracts import VAE, Adapter, Analysis, Architecture, Dataset, DataSource, Metric
    from isoprobe.source import Source

#: error for a name nobody registers, by kind
_UNKNOWN = {"metric": MetricError, "adapter": OptionError, "architecture": CheckpointError}


@dataclass(frozen=True)
class Listing:
    """A row of ``isoprobe plugins``.

    Attributes:
        kind: kind of plugin; empty when a broken entry point does not say.
        name: name users ask for.
        distribution: distribution that registers it.
        version: version of that distribution.
        summary: one line on what it does.
        error: what is wrong with it, empty when nothing is.
    """

    kind: str
    name: str
    distribution: str
    version: str
    summary: str = ""
    error: str = ""


class Registry:
    """Every plugin installed, by kind and name.

    Args:
        entries: entry points to use; all installed ones of group ``isoprobe`` by default.
    """

    def __init__(self, entries: Iterable[EntryPoint] | None = None) -> None:
        self._discovery = Discovery(entries)

    @property
    def problems(self) -> Sequence[Problem]:
        """What is wrong with the plugins imported so far."""
        return tuple(self._discovery.problems)

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind, of all plugins that work.

        Raises:
            PluginError: when two distributions register one name.
        """
        return list(self._by_name(kind))

    def plugin(self, kind: str, name: str) -> Any:
        """The class (or click command) of that kind and name.

        Returns:
            What the plugin's hook returned.

        Raises:
            PluginError: when two distributions register the name.
            MetricError: for a metric nobody registers; OptionError, CheckpointError likewise.
        """
        declared = _unique(kind, self._discovery.offers(kind, name))
        offer = declared.get(name) or self._by_name(kind).get(name)
        if offer is None:
            raise self._unknown(kind, name)
        return offer.plugin

    def metric(self, spec: str) -> Metric:
        """Return the metric a spec such as ``gaussian:sigma2=0.1`` asks for.

        Raises:
            MetricError: for an unknown name.
            OptionError: for an option it does not take, or a value that does not fit.
        """
        name, options = parse_spec(spec)
        metric: Metric = construct(self.plugin("metric", name), options, f"metric '{name}'")
        return metric

    def analysis(self, spec: str) -> Analysis:
        """Return the analysis a spec asks for, options after a colon as for metrics.

        Raises:
            OptionError: for an unknown name, or an option or value it does not take.
        """
        name, options = parse_spec(spec)
        analysis: Analysis = construct(self.plugin("analysis", name), options, f"analysis '{name}'")
        return analysis

    def architecture(self, name: str) -> Architecture:
        """Return the architecture of that name.

        Raises:
            CheckpointError: for an unknown name.
        """
        architecture: Architecture = self.plugin("architecture", name)()
        return architecture

    def adapters(self) -> list[Adapter]:
        """Every adapter, by name."""
        return [offer.plugin() for offer in self._by_name("adapter").values()]

    def adapter_for(self, source: Source, name: str | None = None) -> Adapter:
        """The adapter that reads a checkpoint.

        Args:
            source: the checkpoint.
            name: adapter the user names, which then is not asked whether it matches.

        Returns:
            The only adapter that matches.

        Raises:
            CheckpointError: when none matches.
            PluginError: when several do.
        """
        if name is not None:
            adapter: Adapter = self.plugin("adapter", name)()
            return adapter
        adapters = self.adapters()
        matching = [adapter for adapter in adapters if adapter.matches(source)]
        if len(matching) > 1:
            names = " and ".join(f"'{adapter.name}'" for adapter in matching)
            raise PluginError(
                f"{source.path}: adapters {names} both read it; choose one with --adapter NAME"
            )
        if not matching:
            raise CheckpointError(_unread(source, [adapter.name for adapter in adapters]))
        return matching[0]

    def data(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Return the data a spec names, opened.

        Raises:
            DataError: when no source opens it.
            PluginError: when several would.
        """
        sources: list[DataSource] = [o.plugin() for o in self._by_name("data-source").values()]
        matching = [source for source in sources if source.matches(spec)]
        if len(matching) > 1:
            names = " and ".join(f"'{source.name}'" for source in matching)
            raise PluginError(
                f"data '{spec}': sources {names} both open it; remove one of the plugins"
            )
        if not matching:
            raise DataError(unopened(spec, sources))
        return matching[0].open(spec, vae)

    def command_names(self) -> list[str]:
        """Names of commands that entry points declare; imports nothing."""
        return self._discovery.names("command")

    def command(self, name: str) -> click.Command | None:
        """Return the command of that name, or None; imports only what declares it.

        Raises:
            PluginError: when two distributions register it.
        """
        offer = _unique("command", self._discovery.offers("command", name)).get(name)
        offer = offer or self._by_name("command").get(name)
        return None if offer is None else offer.plugin

    def commands(self) -> Mapping[str, click.Command]:
        """Every command that plugins add, by name."""
        return {name: offer.plugin for name, offer in self._by_name("command").items()}

    def listing(self) -> list[Listing]:
        """Every plugin, working or not, by kind and name."""
        rows = [_row(kind, offer) for kind in KINDS for offer in self._discovery.offers(kind)]
        clashes = {kind: _clashes(self._discovery.offers(kind)) for kind in KINDS}
        rows = [replace(row, error=clashes[row.kind].get(row.name, "")) for row in rows]
        return rows + [_problem_row(problem) for problem in self.problems]

    def _by_name(self, kind: str) -> dict[str, Offer]:
        return _unique(kind, self._discovery.offers(kind))

    def _unknown(self, kind: str, name: str) -> Exception:
        known = self.names(kind)
        broken = self._discovery.problem_of(kind, name)
        if broken is not None:
            return PluginError(str(broken))
        hint = nearest(name, known) or ";"
        error = _UNKNOWN.get(kind, OptionError)
        return error(f"there is no {kind} '{name}'{hint} known: {', '.join(known) or 'none'}")


@lru_cache(maxsize=1)
def installed() -> Registry:
    """The registry of the plugins installed in this environment, made once."""
    return Registry()


def _unique(kind: str, offers: Sequence[Offer]) -> dict[str, Offer]:
    clashes = _clashes(offers)
    if clashes:
        name, message = next(iter(clashes.items()))
        raise PluginError(f"{kind} '{name}': {message}")
    return {offer.name: offer for offer in offers}


def _clashes(offers: Sequence[Offer]) -> dict[str, str]:
    """Names registered more than once, each with an error that names the distributions."""
    by_name: dict[str, list[Offer]] = {}
    for offer in offers:
        by_name.setdefault(offer.name, []).append(offer)
    return {
        name: "registered by both "
        + " and ".join(offer.origin.distribution for offer in rivals)
        + "; uninstall one of them"
        for name, rivals in by_name.items()
        if len(rivals) > 1
    }


def _unread(source: Source, tried: Sequence[str]) -> str:
    """What the file is, who was asked, and what to do, for a file no adapter reads."""
    from isoprobe.source import FileKind

    factory = (
        "name a function that builds the model: --adapter factory --option target=module:function"
    )
    if source.kind is FileKind.LFS_POINTER:
        remedy = "fetch the file itself with 'git lfs pull'"
    elif source.pickle is not None and source.pickle.foreign:
        remedy = (
            "unpickling it would run code, so save its state_dict() where its class is at hand, "
            f"then {factory}"
        )
    else:
        remedy = factory
    asked = ", ".join(tried) or "none is installed"
    return f"{source.path} is {source.description}, which no adapter reads ({asked}); {remedy}"


def _row(kind: str, offer: Offer) -> Listing:
    origin = offer.origin
    return Listing(kind, offer.name, origin.distribution, origin.version, offer.summary)


def _problem_row(problem: Problem) -> Listing:
    origin = problem.origin
    return Listing(
        origin.kind or "", origin.name, origin.distribution, origin.version, error=problem.message
    )
