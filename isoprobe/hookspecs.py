"""Specify the plugin surface: hooks return classes (or click commands) and do nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from isoprobe.contracts import Adapter, Analysis, Architecture, DataSource, Metric

#: version of the plugin surface; a module may state the one it was written for as
#: ``ISOPROBE_INTERFACE``. It changes only when existing plugins would stop working.
INTERFACE = 1

hookspec = pluggy.HookspecMarker("isoprobe")
hookimpl = pluggy.HookimplMarker("isoprobe")


@hookspec
def isoprobe_adapters() -> Iterable[type[Adapter]]:  # type: ignore[empty-body]
    """Return adapter classes, which turn checkpoints into models."""


@hookspec
def isoprobe_metrics() -> Iterable[type[Metric]]:  # type: ignore[empty-body]
    """Return metric classes, which give a distortion and perhaps its metric tensor."""


@hookspec
def isoprobe_analyses() -> Iterable[type[Analysis]]:  # type: ignore[empty-body]
    """Return analysis classes, which turn probed quantities into named arrays."""


@hookspec
def isoprobe_data_sources() -> Iterable[type[DataSource]]:  # type: ignore[empty-body]
    """Return data source classes, which open data by name or format."""


@hookspec
def isoprobe_architectures() -> Iterable[type[Architecture]]:  # type: ignore[empty-body]
    """Return architecture classes, which build the networks of native checkpoints."""


@hookspec
def isoprobe_commands() -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Return click commands to add to ``isoprobe``."""
