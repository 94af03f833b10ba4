"""Trace one batch through the code and draw its way: which rooms call which, how often.

``python docs/draw_way.py`` writes ``docs/figures/way-of-a-batch.svg`` and prints how many modules
the batch passes and how many calls lead from one module into another.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "figures" / "way-of-a-batch.svg"
PACKAGES = ("isoprobe", "isoprobe_plugins", "isoprobe_trainers")


class Tracer:
    """Count calls from one module of ours into another."""

    def __init__(self) -> None:
        self.moves: Counter[tuple[str, str]] = Counter()
        self._stack: list[str] = []

    def __call__(self, frame: FrameType, event: str, _arg: Any) -> None:
        """Follow a call or a return."""
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".", maxsplit=1)[0] not in PACKAGES:
            return
        if event == "call":
            if self._stack and self._stack[-1] != module:
                self.moves[self._stack[-1], module] += 1
            self._stack.append(module)
        elif event == "return" and self._stack:
            self._stack.pop()

    @property
    def modules(self) -> set[str]:
        """Every module that was entered."""
        return {module for move in self.moves for module in move}


def trace() -> Tracer:
    """Analyse one batch of the example checkpoint under the tracer."""
    import isoprobe

    examples = ROOT / "examples"
    options: dict[str, Any] = {"samples": 256, "batch_size": 256, "seed": 0}
    model, data = examples / "digits.safetensors", str(examples / "digits.npy")
    isoprobe.analyze(model, data, **options).close()  # what is imported once is not its way
    tracer = Tracer()
    sys.setprofile(tracer)
    try:
        isoprobe.analyze(model, data, **options).close()
    finally:
        sys.setprofile(None)
    return tracer


def room(module: str) -> str:
    """The folder a module stands in, with the package for plugins and trainers."""
    package, *parts = module.split(".")
    if package == "isoprobe":
        return parts[0] if parts else "isoprobe"
    return f"{package.removeprefix('isoprobe_')}/{parts[0]}" if parts else package


def order() -> list[str]:
    """Rooms from those that call to those that are called, as the test of layers has them."""
    sys.path.insert(0, str(ROOT))
    from tests.house.test_layers import ROOMS

    core = [name for line in ROOMS["isoprobe"].split("\n") for name in line.split()]
    found = [*core[::-1]]
    for package in ("isoprobe_plugins", "isoprobe_trainers"):
        short = package.removeprefix("isoprobe_")
        names = [f"{short}/{n.split('.')[0]}" for n in ROOMS[package].split()]
        found += list(dict.fromkeys(names[::-1]))
    return found


def draw(tracer: Tracer, path: Path) -> None:
    """Draw who calls whom: a row for each room that calls, a column for each that is called."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("svg")
    from matplotlib import pyplot as plt

    between: Counter[tuple[str, str]] = Counter()
    for (caller, callee), count in tracer.moves.items():
        between[room(caller), room(callee)] += count
    seen = {name for pair in between for name in pair}
    rooms = [name for name in order() if name in seen]
    rooms += sorted(seen - set(rooms))
    table = np.array([[between[a, b] for b in rooms] for a in rooms])
    with plt.rc_context({"svg.hashsalt": "isoprobe", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(0.42 * len(rooms) + 2, 0.36 * len(rooms) + 1.6))
        axes.imshow(np.log1p(table), cmap="Blues", aspect="auto", vmax=np.log1p(table.max()) * 1.3)
        for (row, column), count in np.ndenumerate(table):
            if count:
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7)
        axes.set_xticks(range(len(rooms)), rooms, rotation=60, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(rooms)), rooms)
        axes.xaxis.tick_top()
        axes.set_ylabel("calls")
        axes.set_xlabel("is called")
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    found = trace()
    draw(found, FIGURE)
    print(f"{len(found.modules)} modules, {sum(found.moves.values())} moves between them")
