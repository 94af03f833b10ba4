"""Compare the numbers of two trees: the same models, rows and draws, array by array.

A run of all rows takes them in their order and draws by that order in every tree, so what is
analysed are the first rows of the data, all of them.

In each tree: ``python before_after.py record OUT NAME=MODEL,DATA[,RESIZE[,ROWS]] ...``, then
``python before_after.py compare BEFORE AFTER``. Every case runs in float32 and in float64; what
is in both results must agree to 1e-6 and 1e-12, relative to the size of its array.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TOLERANCES = {"float32": 1e-6, "float64": 1e-12}
ROWS = 300
ANALYSES = (
    "isometry",
    "importance",
    "diagnosis",
    "coordinates",
    "density",
    "anomaly",
    "rate-distortion",
    "traversal:latents=3,steps=5",
)


@dataclass(frozen=True)
class Case:
    """A model on data.

    Attributes:
        name: of the case.
        model: path of a checkpoint.
        data: ``FILE.npy``, ``FILE.npz:NAME`` or ``prior``; empty for all of the checkpoint's own.
        resize: images to this size; 0 as they are.
        rows: how many, from the first on.
    """

    name: str
    model: str
    data: str
    resize: int
    rows: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read ``NAME=MODEL,DATA[,RESIZE[,ROWS]]``."""
        name, _, rest = text.partition("=")
        model, data, resize, rows = (*rest.split(","), "", "", "")[:4]
        return cls(name, model, data, int(resize or 0), int(rows or ROWS))

    def first(self) -> np.ndarray | str | None:
        """Return what is analysed, whole."""
        path, _, name = self.data.partition(":")
        if path in {"", "prior"}:
            return f"{path}:{self.rows}" if path else None
        found = np.load(path)
        whole: np.ndarray = found[name] if name else found
        return whole[: self.rows]


def record(out: Path, cases: list[Case]) -> None:
    """Run every case in this tree and keep all numbers."""
    arrays = {}
    for case in cases:
        for dtype in TOLERANCES:
            arrays |= dict(_arrays(case, dtype))
    np.savez(out, **arrays)


def _arrays(case: Case, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    import isoprobe

    with isoprobe.analyze(
        case.model,
        case.first(),
        analyses=ANALYSES,
        samples=None,
        seed=0,
        resize=case.resize or None,
        dtype=dtype,
        device="cpu",
        pullback="exact",
    ) as result:
        for group in result.groups():
            for name, variable in result[group].items():
                values = np.asarray(variable.values)
                if values.dtype.kind in "fiub":
                    yield f"{case.name}/{dtype}/{group}/{name}", values
        for name, value in result.attrs.items():
            if name.startswith("beta") and not isinstance(value, str):
                yield f"{case.name}/{dtype}/attributes/{name}", np.asarray(value)


def compare(before: Path, after: Path) -> bool:
    """Print how far what is in both differs, a line a case, and what is in one alone."""
    sound = True
    with np.load(before) as old, np.load(after) as new:
        shared = [name for name in old.files if name in new.files]
        for prefix in dict.fromkeys("/".join(n.split("/")[:2]) for n in shared):
            tolerance = TOLERANCES[prefix.split("/")[1]]
            names = [n for n in shared if n.startswith(f"{prefix}/")]
            far = sorted(((_distance(old[n], new[n]), n) for n in names), reverse=True)
            print(
                f"{prefix}: {len(names)} arrays, largest difference {far[0][0]:.2g} ({far[0][1]})"
            )
            for distance, name in far:
                if not distance <= tolerance:
                    print(f"  beyond {tolerance:g}: {name} differs by {distance:.2g}")
                    sound = False
        for text, names in (
            ("before alone", set(old.files) - set(new.files)),
            ("after alone", set(new.files) - set(old.files)),
        ):
            print(f"{text}:", *sorted({n.split("/", 2)[2] for n in names}))
    return sound


def _distance(one: np.ndarray, two: np.ndarray) -> float:
    """Largest difference relative to the array's largest entry; infinite for another shape."""
    if one.shape != two.shape:
        return np.inf
    one, two = one.astype(float), two.astype(float)
    finite = np.isfinite(one)
    if not (finite == np.isfinite(two)).all() or not np.array_equal(
        one[~finite], two[~finite], equal_nan=True
    ):
        return np.inf
    if not finite.any():
        return 0.0
    size = max(float(np.abs(one[finite]).max()), 1e-300)
    return float(np.abs(one - two)[finite].max()) / size


def main() -> int:
    """Record or compare, as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("cases", nargs="+", type=Case.parse)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    asked = parser.parse_args()
    if asked.command == "record":
        record(asked.out, asked.cases)
        return 0
    return 0 if compare(asked.before, asked.after) else 1


if __name__ == "__main__":
    sys.exit(main())
