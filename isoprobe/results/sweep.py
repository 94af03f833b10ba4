"""Keep what became of each of many checkpoints, and read off their names which step they are of.

``sweep.json`` lies in the folder of the results: a record for each checkpoint and each data set, of
success or of failure, so that one file that fails takes nothing from the others.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
    """What became of one checkpoint on one data set.

    Attributes:
        model: path of the checkpoint, as it was given.
        steps: how far its training was, by kind, as contents and name tell; see :data:`KINDS`.
        result: name of its result in the folder; None where it failed.
        error: why it failed; None where it did not.
        seconds: that it took.
        sha256: of the checkpoint; empty where it could not be read.
        request: what tells whether the same is asked for again; empty where nothing can.
        data: spec of the data, as it was given; empty for the checkpoint's own.
    """

    model: str
    steps: dict[str, float] = {}
    result: str | None = None
    error: str | None = None
    seconds: float = 0.0
    sha256: str = ""
    request: str = ""
    data: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        """Checkpoint and data, of which a table has one record."""
        return self.model, self.data


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


def result_names(
    models: Sequence[Path], data: Sequence[str] = (), held: Collection[str] = ()
) -> list[str]:
    """Name the results of checkpoints after their files: with folders where names are the same.

    Args:
        models: paths of the checkpoints.
        data: names of the data sets that each of them is analysed on; none where there is one.
        held: file names that none of them may have.

    Returns:
        A file name for each checkpoint, or for each data set of each, all different.
    """
    names = shortest([(stem(path), in_folder(path)) for path in models])
    if data:
        names = [f"{name}-{short}" for name in names for short in data]
    return [f"{name}.h5" for name in apart(names, [name.removesuffix(".h5") for name in held])]


def shortest(forms: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the first form of each name that no other has, or its last.

    Args:
        forms: of each name, the shortest first; as many of each.
    """
    columns = [Counter(column) for column in zip(*forms, strict=True)]
    return [
        next((one for one, met in zip(own, columns, strict=True) if met[one] == 1), own[-1])
        for own in forms
    ]


def apart(names: Sequence[str], held: Collection[str] = ()) -> list[str]:
    """Return names with numbers where they are the same, as systems see it that fold capitals.

    Args:
        names: to be told apart.
        held: names that none of them may have.
    """
    met = Counter(name.casefold() for name in names)
    shut = {name.casefold() for name in held}
    taken = shut | {name for name, count in met.items() if count == 1}
    found = []
    for place, name in enumerate(names, start=1):
        own = name
        doubled = met[name.casefold()] > 1 or name.casefold() in shut
        while doubled and (own == name or own.casefold() in taken):
            own = f"{own}-{place}"
        taken.add(own.casefold())
        found.append(own)
    return found


def in_folder(path: Path) -> str:
    """Return a file's name without its ending, behind that of its folder."""
    return f"{path.resolve().parent.name}-{stem(path)}"


def stem(path: Path) -> str:
    """Name without the ending, and only that: ``epoch=3-loss=0.5.ckpt`` keeps its fraction."""
    return path.stem if path.suffix[1:2].isalpha() else path.name
