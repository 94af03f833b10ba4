"""Fill a declaration with sizes read off weights, and hold what rows are otherwise told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isoprobe.errors import CheckpointError, OptionError


@dataclass(frozen=True)
class Sizes:
    """What a declaration is filled with.

    Attributes:
        known: sizes by name.
        shapes: of the file's tensors.
        layer: the layer at hand, where one of several is.
    """

    known: Mapping[str, int]
    shapes: Mapping[str, Sequence[int]]
    layer: str = ""


def numbered(names: Mapping[str, Any], stem: str) -> list[str]:
    """List layers by number: ``stem.0``, ``stem.2`` ..."""
    found = {
        int(rest[0])
        for name in names
        if name.startswith(f"{stem}.")
        and len(rest := name.removeprefix(f"{stem}.").split(".")) == 2
        and rest[0].isdecimal()
        and rest[1] == "weight"
    }
    return [f"{stem}.{number}" for number in sorted(found)]


def filled(value: Any, sizes: Sizes) -> Any:
    """Write a declaration out.

    Args:
        value: of a card: ``"$m"`` is a size, ``"*"`` the layer at hand, and ``{ each = "convs",
            steps = [...], between = [...] }`` in a list stands for steps at each layer ``convs.N``.
        sizes: what stands for them.

    Returns:
        The same without any of these.

    Raises:
        CheckpointError: for a size that nothing tells.
    """
    if isinstance(value, Mapping):
        return {name: filled(inner, sizes) for name, inner in value.items()}
    if isinstance(value, list):
        return [one for inner in value for one in _repeated(inner, sizes)]
    if value == "*":
        return sizes.layer
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in sizes.known:
            raise CheckpointError(f"no tensor of the file tells the size {value}")
        return sizes.known[value[1:]]
    return value


def _repeated(value: Any, sizes: Sizes) -> list[Any]:
    """A step as it is, or those that it stands for."""
    if not isinstance(value, Mapping) or "each" not in value:
        return [filled(value, sizes)]
    steps: list[Any] = []
    for index, layer in enumerate(numbered(sizes.shapes, value["each"])):
        known = {**sizes.known, "index": index, "out": sizes.shapes[f"{layer}.weight"][0]}
        between = value.get("between", []) if index else []
        steps += filled([*between, *value["steps"]], Sizes(known, sizes.shapes, layer))
    return steps


def held(fields: dict[str, Any], text: str, what: str) -> tuple[dict[str, Any], list[str]]:
    """Hold the codes that a declaration tells each row, for all rows.

    Args:
        fields: of a declaration with a condition of classes.
        text: a class for each column, as in ``3,0``.
        what: the option in words.

    Returns:
        The declaration with the code appended to z, and what is to be said of it.

    Raises:
        OptionError: when the code does not fit the classes.
    """
    sizes = fields["condition"]["classes"]
    parts = [part.strip() for part in text.split(",")]
    fit = len(parts) == len(sizes) and all(
        part.isdecimal() and int(part) < size for part, size in zip(parts, sizes, strict=False)
    )
    if not fit:
        ranges = ",".join(f"0..{size - 1}" for size in sizes)
        raise OptionError(f"{what} is {ranges}; found '{text}'")
    code = [
        float(k == int(part)) for part, size in zip(parts, sizes, strict=True) for k in range(size)
    ]
    steps = [s for s in fields["decoder"] if not (isinstance(s, Mapping) and "condition" in s)]
    return {
        **fields,
        "decoder": [{"append": code}, *steps],
        "condition": f"discrete code {[i for i, v in enumerate(code) if v]}",
        "ignore": [*fields.get("ignore", []), *(f"{c}." for c in fields["condition"]["codes"])],
    }, [f"the discrete latents are held at {text} for all rows"]
