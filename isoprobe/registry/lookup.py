"""Give plugins by kind and name: each question gets one plugin, or an error that says why."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from isoprobe.errors import (
    CheckpointError,
    DataError,
    IsoprobeError,
    MetricError,
    OptionError,
    PluginError,
    UnreadError,
    nearest,
)
from isoprobe.registry.discovery import KINDS, Discovery, Offer, Problem
from isoprobe.registry.guard import OURS, blamed, guard
from isoprobe.registry.specs import construct, parse_spec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import click

    from isoprobe.checkpoints.source import Source
    from isoprobe.contracts import (
        VAE,
        Adapter,
        Analysis,
        Architecture,
        Dataset,
        DataSource,
        Figure,
        Metric,
    )

#: analyses whose figures lead a report
_FIRST_DRAWN = ("importance", "isometry")
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
        """Names of a kind, of all plugins that work."""
        return sorted({offer.name for offer in self._discovery.offers(kind)})

    def declared(self) -> dict[str, list[str]]:
        """Names that entry points declare, by kind; imports nothing."""
        return {kind: self._discovery.names(kind) for kind in KINDS}

    def plugin(self, kind: str, name: str) -> Any:
        """The class (or click command) of that kind and name.

        Entry points that declare the name are imported first; the others of the kind only when
        those do not have it.

        Returns:
            What the plugin's hook returned.

        Raises:
            PluginError: when two distributions register the name.
            MetricError: for a metric nobody registers; OptionError, CheckpointError likewise.
        """
        offer = self._find(kind, name)
        if offer is None:
            raise self._unknown(kind, name)
        return offer.plugin

    def _construct(self, kind: str, name: str, options: Mapping[str, str]) -> Any:
        """An object of the plugin of that kind and name, blamed for whatever it raises."""
        offer = self._find(kind, name)
        if offer is None:
            raise self._unknown(kind, name)
        what, distribution = f"{kind} '{name}'", offer.origin.distribution
        try:
            return guard(construct(offer.plugin, options, what), what, distribution)
        except (Exception, SystemExit) as error:
            if isinstance(error, IsoprobeError) or distribution == OURS:
                raise
            raise blamed(error, f"{what} of {distribution}", "its constructor") from error

    def metric(self, spec: str) -> Metric:
        """Return the metric a spec such as ``gaussian:sigma2=0.1`` asks for.

        Raises:
            MetricError: for an unknown name.
            OptionError: for an option it does not take, or a value that does not fit.
        """
        name, options = parse_spec(spec)
        metric: Metric = self._construct("metric", name, options)
        return metric

    def analysis(self, spec: str) -> Analysis:
        """Return the analysis a spec asks for, options after a colon as for metrics.

        Raises:
            OptionError: for an unknown name, or an option or value it does not take.
        """
        name, options = parse_spec(spec)
        analysis: Analysis = self._construct("analysis", name, options)
        return analysis

    def figures(self) -> dict[str, Figure]:
        """Figures that analyses offer, by name.

        Returns:
            Those of the analyses of every run first, then by analysis. One whose name another has
            already, or could not be a file's, is reported and left out.
        """
        found: dict[str, Figure] = {}
        offers = {offer.name: offer for offer in self._offers("analysis")}
        first = [name for name in _FIRST_DRAWN if name in offers]
        for name in dict.fromkeys([*first, *sorted(offers)]):
            try:
                for figure in offers[name].plugin.figures():
                    _accept(figure, found)
            except Exception as error:
                reason = f"figures of '{name}': {type(error).__name__}: {error}"
                self._discovery.report(offers[name].origin, reason)
        return found

    def architecture(self, name: str) -> Architecture:
        """Return the architecture of that name.

        Raises:
            CheckpointError: for an unknown name.
        """
        architecture: Architecture = self._construct("architecture", name, {})
        return architecture

    def adapter_for(
        self, source: Source, name: str | None = None, typed: str | None = None
    ) -> Adapter:
        """The adapter that reads a checkpoint.

        Args:
            source: the checkpoint.
            name: adapter the user names, which then is not asked whether it matches.
            typed: options that name data and loss as the user did, for commands in an error.

        Returns:
            The only adapter that matches.

        Raises:
            CheckpointError: for a file that is refused whatever it was to be.
            UnreadError: when none matches, with commands to type next.
            PluginError: when several do.
        """
        if source.refusal is not None:
            raise CheckpointError(source.refusal)
        if name is not None:
            adapter: Adapter = self._construct("adapter", name, {})
            return adapter
        matching = self._matching("adapter", source)
        first = [offer for offer in matching if not offer.plugin.last_resort]
        self._send_to_folder(source, first, typed)
        matching = first or matching
        if len(matching) > 1:
            raise PluginError(
                f"{source.path}: adapters {_both(matching)} both read it; choose one with "
                "--adapter NAME"
            )
        if not matching:
            from isoprobe.registry.unread import unread  # errors only

            error = unread(source, typed)
            raise error
        found: Adapter = self._construct("adapter", matching[0].name, {})
        return found

    def _send_to_folder(self, source: Source, known: list[Offer], typed: str | None) -> None:
        """Refuse a file that no adapter knows where one reads the folder around it as a whole."""
        if known or source.is_folder or not source.path.is_file():
            return
        folder = source.around
        whole = [o for o in self._matching("adapter", folder) if not o.plugin.last_resort]
        if len(whole) == 1:
            raise UnreadError(
                f"{source.path} is a part of what adapter '{whole[0].name}' reads from the folder "
                "around it (--adapter weights takes the file alone)",
                f"isoprobe analyze {shlex.quote(str(folder.path))} {typed or '--data SPEC'}",
            )

    def adapter_of(self, model: object) -> Adapter:
        """Return the adapter that reads an object in memory.

        Returns:
            The only one that takes it.

        Raises:
            OptionError: when none takes it.
            PluginError: when several do.
        """
        matching = self._accepting("adapter", "takes", model)
        if len(matching) > 1:
            raise PluginError(
                f"a {type(model).__name__} is read by both adapters {_both(matching)}; uninstall "
                "one of them"
            )
        if not matching:
            raise OptionError(
                f"expected a path, a torch module or an isoprobe.VAE; found a "
                f"{type(model).__name__}, which no adapter reads"
            )
        found: Adapter = self._construct("adapter", matching[0].name, {})
        return found

    def data(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Return the data a spec names, opened.

        Raises:
            DataError: when no source opens it.
            PluginError: when several would.
        """
        matching = self._matching("data-source", spec)
        if len(matching) > 1:
            raise PluginError(
                f"data '{spec}': sources {_both(matching)} both open it; uninstall one of them"
            )
        if not matching:
            from isoprobe.data.files import unopened  # errors only: help need not load it

            raise DataError(unopened(spec, [o.plugin() for o in self._offers("data-source")]))
        offer = matching[0]
        source: DataSource = self._construct("data-source", offer.name, {})
        distribution = offer.origin.distribution
        return guard(source.open(spec, vae), f"data '{spec}'", distribution)

    def command_names(self) -> list[str]:
        """Names of commands that entry points declare; imports nothing."""
        return self._discovery.names("command")

    def command(self, name: str) -> click.Command | None:
        """Return the command of that name, or None; imports only what declares it.

        Raises:
            PluginError: when two distributions register it.
        """
        offer = self._find("command", name)
        return None if offer is None else offer.plugin

    def commands(self) -> Mapping[str, click.Command]:
        """Commands that plugins add, by name; one that two distributions register is left out."""
        offers = self._offers("command")
        return {o.name: o.plugin for o in offers if o.name not in _clashes(offers)}

    def listing(self) -> list[Listing]:
        """Every plugin, working or not, by kind and name."""
        rows = []
        for kind in KINDS:
            offers = self._offers(kind)
            clashes = _clashes(offers)
            rows += [_row(kind, offer, clashes.get(offer.name, "")) for offer in offers]
        return rows + [_problem_row(problem) for problem in self.problems]

    def _offers(self, kind: str, name: str | None = None) -> list[Offer]:
        return self._discovery.offers(kind, name)

    def _find(self, kind: str, name: str) -> Offer | None:
        """The plugin of a name, None where there is none; an error where there are two."""
        declared = [offer for offer in self._offers(kind, name) if offer.name == name]
        offers = declared or [offer for offer in self._offers(kind) if offer.name == name]
        if len(offers) > 1:
            raise PluginError(f"{kind} '{name}': {_clashes(offers)[name]}")
        return offers[0] if offers else None

    def _matching(self, kind: str, what: Source | str) -> list[Offer]:
        return self._accepting(kind, "matches", what)

    def _accepting(self, kind: str, question: str, what: object) -> list[Offer]:
        """Plugins of a kind that say yes; one that fails to say is reported, the others count."""
        matching = []
        for offer in self._offers(kind):
            try:
                if getattr(offer.plugin(), question)(what):
                    matching.append(offer)
            except (Exception, SystemExit) as error:
                reason = f"'{offer.name}' fails to match: {type(error).__name__}: {error}"
                self._discovery.report(offer.origin, reason)
        return matching

    def _unknown(self, kind: str, name: str) -> Exception:
        known = self.names(kind)
        broken = self._discovery.problem_of(kind, name)
        if broken is not None:
            return PluginError(str(broken))
        hint = nearest(name, known) or ";"
        error = _UNKNOWN.get(kind, OptionError)
        return error(f"there is no {kind} '{name}'{hint} known: {', '.join(known) or 'none'}")


def _accept(figure: Figure, found: dict[str, Figure]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", figure.name):
        raise PluginError(f"'{figure.name}' is no name of a file")
    if figure.name in found:
        raise PluginError(f"the name '{figure.name}' is taken; choose another")
    found[figure.name] = figure


@lru_cache(maxsize=1)
def installed() -> Registry:
    """The registry of the plugins installed in this environment, made once."""
    return Registry()


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


def _both(offers: Sequence[Offer]) -> str:
    return " and ".join(f"'{offer.name}' of {offer.origin.distribution}" for offer in offers)


def _row(kind: str, offer: Offer, error: str) -> Listing:
    origin = offer.origin
    return Listing(kind, offer.name, origin.distribution, origin.version, offer.summary, error)


def _problem_row(problem: Problem) -> Listing:
    origin = problem.origin
    return Listing(
        origin.kind or "", origin.name, origin.distribution, origin.version, error=problem.message
    )
