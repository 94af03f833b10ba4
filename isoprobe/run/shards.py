"""Shards: what each of several processes makes of its share of the samples, and whether they fit.

A shard holds the rows of its samples and the state of every analysis after them, nothing derived:
beta, results and whatever rests on them belong to all samples together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from isoprobe.errors import OptionError, ResultError
from isoprobe.results import netcdf
from isoprobe.results.journal import difference
from isoprobe.results.reader import SHARD, Result, readable
from isoprobe.results.writer import STATE, ResultWriter

if TYPE_CHECKING:
    import numpy as np

_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")
#: group of a shard that holds what the run settled before its first batch
_RUN = "run"


@dataclass(frozen=True)
class Part:
    """One process' share of the samples: a contiguous range, so that rows keep their order.

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

    def rows(self, samples: int) -> range:
        """Return the positions of this part's samples among all of them."""
        start = samples * (self.number - 1) // self.count
        return range(start, samples * self.number // self.count)

    def path(self, out: Path) -> Path:
        """Return where this part of a result lies: beside it."""
        return out.with_name(f"{out.stem}.shard-{self.number}-of-{self.count}{out.suffix}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class Shard(Result):
    """A shard, open for reading; rows and columns are those of its own samples."""

    form: ClassVar[str] = SHARD

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on, all but which samples these are."""
        identity: dict[str, Any] = self._attribute("identity", dict)
        return identity

    @property
    def rows(self) -> range:
        """Positions of the samples in the whole run."""
        start: int = self._attribute("first", int)
        return range(start, start + self.sizes["sample"])

    @property
    def notes(self) -> list[str]:
        """What the probe has to say of how it worked."""
        notes: list[str] = self._attribute("probe_notes", list)
        return notes

    @property
    def active(self) -> np.ndarray:
        """Dimensions that the pilot found active, ``(n,)`` bool."""
        return self[_RUN]["active"].values

    def state(self) -> dict[str, np.ndarray]:
        """Return what the analyses accumulated, by ``analysis/name``."""
        with readable(self.path):
            return netcdf.read_arrays(self._file, STATE)

    def _attribute(self, name: str, kind: type) -> Any:
        value = self.attrs.get(name)
        if not isinstance(value, kind):
            raise ResultError(f"{self.path} is damaged: it has no '{name}'; make the shard again")
        return value


def write_shard(
    writer: ResultWriter,
    rows: range,
    active: np.ndarray,
    state: Mapping[str, np.ndarray],
    attrs: Mapping[str, Any],
) -> None:
    """Finish a shard whose rows the writer holds.

    Args:
        writer: of this shard.
        rows: positions of its samples in the whole run.
        active: dimensions that the pilot found active.
        state: of every analysis.
        attrs: ``identity`` and ``probe_notes``, and whatever else is to be kept.
    """
    from isoprobe.contracts import Variable

    pilot = Variable(("latent",), active, "mean KL above the threshold over a pilot")
    writer.write_group(_RUN, {"active": pilot})
    writer.finish_shard({**attrs, "first": rows.start}, state)


def in_order(shards: Sequence[Shard]) -> list[Shard]:
    """Return the shards of one run in the order of their samples.

    Raises:
        ResultError: when they belong to different runs, share samples, or lack some.
    """
    first = shards[0]
    for shard in shards[1:]:
        found = difference(first.identity, shard.identity)
        if found is None and (shard.active != first.active).any():
            found = "the pilot found other latents active"
        if found is not None:
            raise ResultError(
                f"{shard.path} is of another run than {first.path}: {found}; give shards of one run"
            )
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
    samples = first.identity.get("samples")
    if done != samples:
        raise ResultError(_missing(done, samples))
    return ordered


def _missing(start: int, stop: Any) -> str:
    return f"no shard holds samples {start} up to {stop}; give every shard, or make the one missing"
