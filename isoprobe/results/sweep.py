"""Keep what became of each of many checkpoints, and read off their names which step they are of.

``sweep.json`` lies in the folder of the results: a record for each checkpoint, of success or of
failure, so that one file that fails takes nothing from the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from isoprobe.errors import ResultError
from isoprobe.files.documents import parse_json
from isoprobe.results.whole import replacing

#: of the table, in the folder of the results
TABLE = "sweep.json"
#: longest table that is read, in bytes; ten thousand checkpoints take four million
_LIMIT = 64 << 20
#: what tells how far a training was, the surest first; ``number`` is the last one in a file's name
KINDS = ("global_step", "step", "steps", "iteration", "iter", "epoch", "checkpoint", "number")
_NAMED = re.compile(
    r"(?<![a-z])(global[_-]?step|steps?|iteration|iter|epoch|checkpoint)[=_-]?(\d{1,15})(?!\d)",
    re.IGNORECASE,
)
_LAST = re.compile(r"(?<!\d)(\d{1,15})(?!.*\d)")


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of one checkpoint.

    Attributes:
        model: path of the checkpoint, as it was given.
        steps: how far its training was, by kind, as contents and name tell; see :data:`KINDS`.
        result: name of its result in the folder; None where it failed.
        error: why it failed; None where it did not.
        seconds: that it took.
        sha256: of the checkpoint; empty where it could not be read.
        request: what tells whether the same is asked for again; empty where nothing can.
    """

    model: str
    steps: dict[str, float] = {}
    result: str | None = None
    error: str | None = None
    seconds: float = 0.0
    sha256: str = ""
    request: str = ""


def write_table(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the table of a folder, whole or not at all."""
    with replacing(folder / TABLE) as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(list(outcomes))))


def read_table(folder: Path) -> list[Outcome]:
    """Read the table of a folder.

    Args:
        folder: of the results.

    Returns:
        The records, in the order of the table; none where there is no table.

    Raises:
        ResultError: for a table that is damaged, or names a file outside its folder.
    """
    path = folder / TABLE
    if not path.exists():
        return []
    try:
        if path.stat().st_size > _LIMIT:
            raise ResultError(f"{path} is longer than the {_LIMIT} bytes a table may have")
        outcomes = msgspec.convert(parse_json(path.read_bytes(), str(path)), list[Outcome])
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror or error}") from error
    except msgspec.ValidationError as error:
        raise ResultError(f"{path} is no table of a sweep: {error}; make it again") from error
    for outcome in outcomes:
        if outcome.result is not None and Path(outcome.result).name != outcome.result:
            raise ResultError(f"{path} names a file outside its folder: {outcome.result!r}")
        if not all(map(math.isfinite, outcome.steps.values())):
            raise ResultError(f"{path} holds a step that is not finite")
    return outcomes


def steps_in_name(name: str) -> dict[str, float]:
    """Read how far a training was off the name of a checkpoint, its ending left out.

    Args:
        name: such as ``epoch=3-step=600``, ``model_0010`` or ``checkpoint-500``.

    Returns:
        Numbers by kind; none where there is no number.
    """
    found = {
        kind.lower().replace("globalstep", "global_step").replace("-", "_"): float(number)
        for kind, number in _NAMED.findall(name)
    }
    last = _LAST.search(name)
    return found if last is None else {**found, "number": float(last[1])}


def axis(steps: Sequence[Mapping[str, float]]) -> tuple[str, list[float]]:
    """Choose what the checkpoints of one training are ordered by: what all of them tell.

    Args:
        steps: of each checkpoint, by kind.

    Returns:
        The kind and each checkpoint's number; ``order``, and places in the order given, where no
        kind tells all of them apart.
    """
    for kind in KINDS:
        numbers = [told[kind] for told in steps if kind in told]
        if len(set(numbers)) == len(steps) > 0:
            return kind, numbers
    return "order", [float(place) for place in range(1, len(steps) + 1)]


def result_names(models: Sequence[Path]) -> list[str]:
    """Name the results of checkpoints after their files: with folders where names are the same.

    Args:
        models: paths of the checkpoints.

    Returns:
        A file name for each, all different.
    """
    stems = [stem(path) for path in models]
    names = [
        own if stems.count(own) == 1 else f"{path.resolve().parent.name}-{own}"
        for path, own in zip(models, stems, strict=True)
    ]
    return [
        f"{name}.h5" if names.count(name) == 1 else f"{name}-{place}.h5"
        for place, name in enumerate(names, start=1)
    ]


def stem(path: Path) -> str:
    """Name without the ending, and only that: ``epoch=3-loss=0.5.ckpt`` keeps its fraction."""
    return path.stem if path.suffix[1:2].isalpha() else path.name
