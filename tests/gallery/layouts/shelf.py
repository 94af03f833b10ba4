"""Keep the list of layouts: what each entry is called, which data it takes, what is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from tests.gallery.own import Own, seed

Maker = Callable[[Path], Own]

TWO = "two layers, mean and log variance"
#: readings that many layouts share
RELU = {"head": TWO, "encoder": "relu", "decoder": "relu"}
TO_UNIT = {**RELU, "output": "sigmoid"}
TO_LINE = {**RELU, "output": "linear"}


@dataclass(frozen=True)
class Layout:
    """One checkpoint: its file, its data, how it is read, and what may be said of it."""

    name: str
    file: str
    data: str
    like: str
    make: Maker
    reading: dict[str, str] = field(default_factory=dict)
    refused: tuple[tuple[str, ...], ...] = ()  # of each group one word must be in the refusal
    next_step: str = ""
    kl_tolerance: float = 2e-3
    wrong: str = ""  # what a wrong result would be mistaken for

    @property
    def command(self) -> str:
        """What a newcomer types first."""
        return f"isoprobe analyze {self.file} --data {self.data}"


LAYOUTS: dict[str, Layout] = {}


def layout(
    file: str, data: str, like: str, common: Mapping[str, str] | None = None, **facts: Any
) -> Callable[[Maker], Maker]:
    """Put a function on the shelf: it trains a network, writes `file` and tells its own reading.

    Random numbers are seeded by its name before it is called.

    Args:
        file: name of the file or folder, below the folder of layouts.
        data: data SPEC as a newcomer types it.
        like: the layout in words, and who uses it.
        common: a reading that others have too.
        facts: the other fields of `Layout`; head, encoder, decoder, output, note are the reading,
            each in the place of what is common.
    """
    parts = ("head", "encoder", "decoder", "output", "note")
    said = {**(common or {}), **{key: facts.pop(key) for key in parts if key in facts}}
    reading = {key: said[key] for key in parts if key in said}

    def put(make: Maker) -> Maker:
        @wraps(make)
        def seeded(folder: Path) -> Own:
            seed(make.__name__)
            return make(folder)

        name = make.__name__
        LAYOUTS[name] = Layout(name, file, data, like, seeded, reading, **facts)
        return seeded

    return put
