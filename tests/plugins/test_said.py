"""Whatever values a declaration, a card or a graph holds: a model, or one line of why not."""

from __future__ import annotations

import copy
import json
import os
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isoprobe.errors import IsoprobeError
from tests import said

COUNT = 3000 if os.environ.get("ISOPROBE_FUZZ") == "nightly" else 40
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], None]]] = {
    **{name: (make, said.declared) for name, make in said.DECLARATIONS.items()},
    "card.toml": (lambda path: path.write_text(said.CARD), said.card),
    "sequence.json": (said.made_sequence, said.sequence),
}
ODD = (
    0, -1, 1, 2, 3, 7, 10**6, 10**12, 1.5, -0.5, float("nan"), True, False, "", "x", "relu",
    "softmax", "full", "c", [], [1], [0, 0], [[1, 2], [3]], [10**9], ["a"], [True], {}, {"a": 1},
)  # fmt: skip


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*before, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*before, key))


def changed(document: Any, draw: random.Random) -> Any:
    """A document with one value or two left out, doubled, or replaced."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 2))):
        *way, last = draw.choice(list(places(document)))
        at = document
        for key in way:
            at = at[key]
        kind = draw.randrange(4)
        if kind == 0 and isinstance(at, dict):
            at.pop(last)
        elif kind == 1 and isinstance(at, list):
            at.insert(last, copy.deepcopy(at[last]))
        else:
            at[last] = copy.deepcopy(draw.choice(ODD))
    return document


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and value != value:
        return "nan"
    return json.dumps(value)


def written(kind: str, document: Any) -> str:
    if kind.endswith(".json"):
        return json.dumps(document)
    lines = [f"{json.dumps(name)} = {toml(value)}" for name, value in document.items()]
    return "\n".join([*lines, "# 2" if kind == "told.toml" else "", ""])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_changed_values_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    make, read = KINDS[kind]
    path = tmp_path / kind
    make(path)
    read(path)
    text = path.read_text()
    document = json.loads(text) if kind.endswith(".json") else tomllib.loads(text)
    refused = 0
    for number in range(COUNT):
        path.write_text(written(kind, changed(document, random.Random(f"{kind} {number}"))))
        try:
            read(path)
        except IsoprobeError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 0 < refused < COUNT


@pytest.mark.parametrize("step", ["true", "1.5", "[1, 2]"])
def test_a_step_that_is_none_is_named(step: str, tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    said.DECLARATIONS["full.toml"](path)
    path.write_text(path.read_text().replace('"relu"]', f"{step}]", 1))
    with pytest.raises(IsoprobeError, match="a step is a word or a table, found"):
        said.declared(path)
