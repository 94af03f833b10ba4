"""Read layouts so common that nobody should have to declare them, each told by a card.

A card is a TOML file in the folder ``cards``: which tensors tell the layout, and a declaration in
which sizes are read off these tensors. A new card is a new adapter, named as its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import make_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from isoprobe.checkpoints.contents import tensor_shapes
from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError, PluginError
from isoprobe.files.documents import parse_toml
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe_plugins.adapters.declared.adapter import beside, load_declared
from isoprobe_plugins.adapters.declared.declaration import parse_declaration
from isoprobe_plugins.adapters.declared.filled import Sizes, filled, held, numbered
from isoprobe_plugins.adapters.weights.names import tensor_names
from isoprobe_plugins.adapters.weights.state import read_state

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.weights.state import State

FOLDER = Path(__file__).parent / "cards"


class Doubling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from"}):
    """A size that each of some numbered layers doubles.

    Attributes:
        start: the size before them.
        by: what stands before the layers' numbers.
    """

    start: int
    by: str


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An option of a card's adapter.

    Attributes:
        words: what it says.
        field: field of the declaration that it fills with a number, such as ``loss.beta``.
        hold: it holds the codes that rows are otherwise told, for all rows.
    """

    words: str
    field: str = ""
    hold: bool = False


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layout.

    Attributes:
        summary: one line on what it is.
        tensors: tensors that tell it, each with its shape: numbers, or letters that are the same
            size wherever they stand.
        declaration: of the model; ``$m`` stands for the size of a letter, and
            ``{ each = "convs", steps = [...] }`` for its steps at each layer ``convs.N``.
        only: files with other tensors are other models.
        folder: a folder is read too that holds these files, the weights first.
        doubled: sizes beside those of letters.
        options: of the adapter.
        architecture: in words.
        beta: in words, where the KL weight is not known from the weights.
        condition: in words.
        assumptions: what the weights do not say.
        notes: what a result should say of the reading.
    """

    summary: str
    tensors: dict[str, list[int | str]]
    declaration: dict[str, Any]
    only: bool = False
    folder: list[str] = []
    doubled: dict[str, Doubling] = {}
    options: dict[str, Choice] = {}
    architecture: str = ""
    beta: str = ""
    condition: str = ""
    assumptions: list[str] = []
    notes: list[str] = []

    def fits(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Return whether shapes are those of the card, as far as they are known."""
        return self._sizes(shapes) is not None

    def _sizes(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int] | None:
        sizes: dict[str, int] = {}
        for name, wanted in self.tensors.items():
            found = shapes.get(name)
            if found is None:
                continue
            if len(found) != len(wanted):
                return None
            for letter, size in zip(wanted, found, strict=True):
                known = letter if isinstance(letter, int) else sizes.setdefault(letter, size)
                if known != size:
                    return None
        return sizes

    def sizes(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """Return the size of each letter, and what is doubled.

        Raises:
            CheckpointError: when the shapes are not those of the card.
        """
        sizes = self._sizes(shapes)
        if sizes is None:
            raise CheckpointError(f"its shapes are not those of {self.summary}")
        more = {n: d.start * 2 ** len(numbered(shapes, d.by)) for n, d in self.doubled.items()}
        return {**sizes, **more}


class Preset(Adapter):
    """An adapter that a card describes."""

    card: Card

    def matches(self, source: Source) -> bool:
        """Return True for weights, or a folder of them, with the card's tensors undeclared."""
        weights = self._weights(source)
        if weights is None or beside(weights).is_file():
            return False
        names, told = tensor_names(weights), self.card.tensors.keys()
        if names != told if self.card.only else not names >= told:
            return False
        return self.card.fits(_shapes(weights, told))

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Read the weights as the card declares them.

        Args:
            source: weights, or a folder that holds them.
            options: the card's.

        Returns:
            The model.

        Raises:
            CheckpointError: when these are other weights.
        """
        given = vars(construct(self._options(), options, f"adapter '{self.name}'"))
        weights = self._weights(source)
        if weights is None:
            raise CheckpointError(
                f"{source.path} is {source.description}, not the weights of {self.name}"
            )
        state = self._state(weights)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.tensors.items()}
        fields = filled(self.card.declaration, Sizes(self.card.sizes(shapes), shapes))
        notes = list(self.card.notes)
        for name, choice in self.card.options.items():
            value = given[name]
            if value is not None and choice.hold:
                fields, notes = held(fields, value, f"option '{name}' of adapter '{self.name}'")
            elif value is not None:
                *path, last = choice.field.split(".")
                place = fields
                for part in path:
                    place = place.setdefault(part, {})
                place[last] = value
        return load_declared(
            parse_declaration(fields, self.name),
            replace(state, notes=(*state.notes, *notes)),
            weights,
            adapter=self.name,
            where=f"the layout {self.name}",
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return what the card implies."""
        card, loss = self.card, self.card.declaration.get("loss", {})
        said = {
            "architecture": card.architecture,
            "objective": {"metric": loss.get("metric"), "beta": None, "beta_source": card.beta},
            "condition": card.condition,
            "assumptions": card.assumptions,
        }
        return {name: value for name, value in said.items() if value}

    def _weights(self, source: Source) -> Source | None:
        if not source.is_folder:
            return source
        files = self.card.folder
        return source.child(files[0]) if files and source.has(*files) else None

    def _state(self, weights: Source) -> State:
        """Read weights that hold the card's tensors; it may have been named for others."""
        state = read_state(weights)
        missing = sorted(self.card.tensors.keys() - state.tensors.keys())
        if missing:
            raise CheckpointError(
                f"{weights.path} has no tensor '{missing[0]}', which adapter '{self.name}' reads; "
                "leave --adapter out"
            )
        return state

    def _options(self) -> type:
        fields = [
            (name, str | None if choice.hold else float | None, None)
            for name, choice in self.card.options.items()
        ]
        return make_dataclass(f"{type(self).__name__}Options", fields, frozen=True)


def _shapes(source: Source, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors, whatever stands before their names; none of a file that holds objects."""
    every = tensor_shapes(source)
    return {
        name: shape
        for name in names
        for full, shape in every.items()
        if full == name or full.endswith(f".{name}")
    }


def preset(path: Path) -> type[Preset]:
    """Make an adapter of a card.

    Args:
        path: the card; its file's name is the adapter's.

    Returns:
        The adapter.

    Raises:
        PluginError: for a card with a field that is unknown or wrong.
    """
    try:
        card = msgspec.convert(parse_toml(path.read_bytes(), f"card {path}"), Card)
    except msgspec.ValidationError as error:
        raise PluginError(f"card {path}: {error}") from error
    words = {"name": path.stem, "summary": card.summary, "card": card, "__doc__": card.summary}
    return type("".join(part.title() for part in path.stem.split("-")), (Preset,), words)


@lru_cache(maxsize=1)
def presets() -> tuple[type[Preset], ...]:
    """Return the adapters of all cards, by name."""
    return tuple(preset(path) for path in sorted(FOLDER.glob("*.toml")))


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return an adapter for each card."""
    return list(presets())
