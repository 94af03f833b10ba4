"""Plan a run as a list of shards, deal them out, and read the shards of a run as one.

The ranges follow from the number of samples and the settled batch size alone, so that neither
timing nor the number of processes decides a number; a longer run has a shorter one's ranges first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.data.order import Order, Rest, stages
from isoprobe.errors import OptionError, PluginError, ResultError
from isoprobe.results.shard import SUFFIX, Shard, ShardWriter
from isoprobe.results.working import Visited, Working, difference, explained, plain

if TYPE_CHECKING:
    from isoprobe.contracts import Variable

_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")
#: shards of a stage, at most, and samples of a shard, at least
_PIECES, _LEAST = 8, 128
#: shards of rows to score, about, and rows of one at most
_EVEN, _MOST = 256, 1 << 20


def planned(samples: int, batch: int) -> list[range]:
    """Return the positions of each shard, in order.

    Each shard is a whole number of batches where its stage of the order is long enough, and shards
    grow with the stages, so that their number stays reasonable.

    Args:
        samples: of the run.
        batch: samples at once.
    """
    ranges = []
    for stage in stages(samples):
        ranges += _pieces(stage, _full(stage), batch)
    return ranges


def even(rows: int, batch: int) -> list[range]:
    """Return the rows of each shard of a run that no longer one will extend, in order.

    All are of one length, a whole number of batches, so that the batches are those of one pass.

    Args:
        rows: of the run.
        batch: rows at once.
    """
    length = min(max(-(-rows // _EVEN), _LEAST), _MOST)
    step = -(-length // batch) * batch
    return [range(start, min(start + step, rows)) for start in range(0, rows, step)]


def sweep(start: int, stop: int, batch: int) -> list[range]:
    """Return the positions of each shard of samples that are taken in one sweep.

    Args:
        start: of the first.
        stop: past the last.
        batch: samples at once.
    """
    return _pieces(range(start, stop), stop - start, batch)


def _pieces(stage: range, full: int, batch: int) -> list[range]:
    length = max(-(-full // _PIECES), _LEAST)
    step = -(-length // batch) * batch
    starts = range(stage.start, stage.stop, step)
    return [range(start, min(start + step, stage.stop)) for start in starts]


def _full(stage: range) -> int:
    """Length of a stage before it was cut off."""
    return next(len(whole) for whole in stages(10 * stage.stop + 10) if whole.start == stage.start)


@dataclass(frozen=True)
class Part:
    """One process' share of the shards: neighbours, as many samples as the others have.

    Attributes:
        number: from 1 to ``count``.
        count: how many shares there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Return the part ``K/N``.

        Raises:
            OptionError: for anything else.
        """
        match = _PART.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            raise OptionError(f"--shard takes K/N with K from 1 to N, as in 2/4; found '{text}'.")
        return cls(int(match[1]), int(match[2]))

    def of(self, ranges: Sequence[range]) -> list[range]:
        """Return this part's shards: those whose middle falls into its share of the samples."""
        samples = ranges[-1].stop if ranges else 0
        return [
            rows
            for rows in ranges
            if (rows.start + rows.stop) * self.count // (2 * samples) == self.number - 1
        ]

    def first(self, ranges: Sequence[range]) -> list[range]:
        """Return all shards, this part's own first, then its neighbours', in turn."""
        own = self.of(ranges)
        start = ranges.index(own[0]) if own else len(ranges) * (self.number - 1) // self.count
        return [*ranges[start:], *ranges[:start]]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class ShardFolder:
    """The shards of one run in its working folder.

    Args:
        working: the folder, held here or by another process.
        identity: whatever the numbers depend on.

    Attributes:
        place: the folder.
        identity: the same as a file gives it back.
        settled: what must be the same for every shard beside.
    """

    def __init__(self, working: Working | Visited, identity: Mapping[str, Any]) -> None:
        self.identity = plain(identity)
        self.settled: dict[str, Any] = {}
        self.place = working
        self._good: set[Path] = set()

    def path(self, rows: range, order: Order | Rest) -> Path:
        """Return where a shard lies."""
        return self.place.folder / f"{order.name}-{rows.start}-{rows.stop}{SUFFIX}"

    def record(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what a shard says of itself."""
        return {"identity": self.identity, "settled": self.settled, **(more or {})}

    def missing(self, ranges: Sequence[range], order: Order | Rest) -> list[range]:
        """Return the shards that are not there, are damaged, or are another run's."""
        return [rows for rows in ranges if not self._is_good(self.path(rows, order), rows)]

    @contextmanager
    def writer(self, rows: range, order: Order | Rest, latent: int) -> Iterator[ShardWriter]:
        """Write a shard.

        Yields:
            Its writer.
        """
        path = self.path(rows, order)
        durable = self.place.temporary is None
        with (
            explained(self.place.target),
            ShardWriter(path, rows, latent, durable=durable) as writer,
        ):
            yield writer
            if writer.finished:
                self._good.add(path)

    @contextmanager
    def opened(self, ranges: Sequence[range], order: Order | Rest) -> Iterator[list[Shard]]:
        """Open shards.

        Yields:
            The shards, in the order of the ranges.
        """
        with ExitStack() as stack:
            paths = [self.path(rows, order) for rows in ranges]
            yield [stack.enter_context(Shard.open(path)) for path in paths]

    def _is_good(self, path: Path, rows: range) -> bool:
        """Whether the shard of some rows is there, of this run, and nothing of it damaged."""
        if path in self._good:
            return True
        try:
            with Shard.open(path) as shard:
                shard.check()
                same = shard.rows == rows and all(
                    difference(recorded(shard, name), getattr(self, name)) is None
                    for name in ("identity", "settled")
                )
        except ResultError:
            return False
        if same:
            self._good.add(path)
        return same


def found_in(paths: Sequence[Path]) -> list[Path]:
    """Return the shards that files and folders stand for.

    Raises:
        ResultError: when there are none.
    """
    found: list[Path] = []
    for path in paths:
        found += sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not found:
        named = ", ".join(map(str, paths))
        raise ResultError(f"{named} holds no shards; 'isoprobe analyze --shard K/N' writes them")
    return found


def in_order(shards: Sequence[Shard]) -> list[Shard]:
    """Return the shards of one run in the order of their samples.

    Raises:
        ResultError: when they belong to different runs, share samples, or lack some.
    """
    first = shards[0]
    if recorded(first, "identity").get("samples") == "auto":
        raise ResultError(
            f"{first.path} is of a run of --samples auto; complete it by the same command with "
            "--resume"
        )
    for shard in shards:
        require_same(shard, recorded(first, "identity"), f"of another run than {first.path}")
        found = difference(recorded(first, "settled"), recorded(shard, "settled"))
        if found is None and recorded(first, "active", list) != recorded(shard, "active", list):
            found = "the pilot found other latents active"
        if found is not None:
            raise ResultError(f"{shard.path} was not made as {first.path}: {found}; make it again")
    ordered = sorted(shards, key=lambda shard: (shard.rows.start, shard.rows.stop))
    done, last = 0, None
    for shard in ordered:
        if shard.rows.start < done:
            raise ResultError(
                f"{last} and {shard.path} both hold sample {shard.rows.start}; give each once"
            )
        if shard.rows.start > done:
            raise ResultError(_missing(done, shard.rows.start))
        done, last = shard.rows.stop, shard.path
    samples = recorded(first, "identity").get("samples")
    if done != samples:
        raise ResultError(_missing(done, samples))
    return ordered


def _missing(start: int, stop: Any) -> str:
    count = f" ({stop - start} rows)" if isinstance(stop, int) else ""
    return (
        f"no shard holds samples {start} up to {stop}{count};"
        " give every shard, or make the one missing"
    )


def recorded(shard: Shard, name: str, kind: type = dict) -> Any:
    """Return what a shard records under a name.

    Raises:
        ResultError: when there is nothing of that kind.
    """
    value = shard.record.get(name)
    if not isinstance(value, kind):
        raise ResultError(f"{shard.path} is damaged: it has no '{name}'; make the shard again")
    return value


def require_same(
    shard: Shard, identity: Mapping[str, Any], otherwise: str = "of another run"
) -> None:
    """Refuse a shard of another run.

    Raises:
        ResultError: naming what differs.
    """
    found = difference(recorded(shard, "identity"), identity)
    if found is not None:
        raise ResultError(f"{shard.path} is {otherwise}: {found}; give shards of one run")


class Columns:
    """The columns of successive shards, read as if they were one.

    Args:
        shards: open, in order.

    Raises:
        PluginError: when a column differs between two of them, or one of them has it alone.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        for before, after in pairwise(shards):
            for name in before.columns.keys() | after.columns.keys():
                if name not in before.columns or name not in after.columns:
                    lacking = after if name in before.columns else before
                    raise PluginError(
                        f"column '{name}' lacks rows between {lacking.rows.start} and "
                        f"{lacking.rows.stop}; an analysis must return it for every batch"
                    )
                before.columns[name].require_like(name, after.columns[name])

    def read(self, start: int, stop: int) -> dict[str, Variable]:
        """Return rows ``[start, stop)`` of every column."""
        inside = [s for s in self._shards if s.rows.start < stop and start < s.rows.stop]
        columns = {}
        for name, column in self._shards[0].columns.items():
            parts = [s.read(name, max(start, s.rows.start), min(stop, s.rows.stop)) for s in inside]
            columns[name] = column.variable(np.concatenate(parts))
        return columns
