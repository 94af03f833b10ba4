"""Runs a notebook without Jupyter: ``python -m tests.notebooks FILE`` in the notebook's folder.

Cells are executed in order in one scope, and the value that a cell ends in is shown as Jupyter
would ask for it: as HTML or PNG where the object offers that, and as text. The notebook keeps to
plain Python, so that nothing is missing by this.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any


def code_cells(path: Path) -> list[str]:
    """The code of a notebook, cell by cell."""
    notebook = json.loads(path.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def show(value: Any) -> str:
    """What Jupyter shows of a value; a figure is drawn."""
    from matplotlib.figure import Figure

    if isinstance(value, Figure):
        from isoprobe.show.plots import to_png

        return f"<figure of {len(to_png(value))} bytes>"
    rich = getattr(value, "_repr_html_", None)
    return repr(value) + ("" if rich is None else f"\n{rich()}")


def run(path: Path) -> None:
    """Execute every cell; print what each ends in."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(code_cells(path), start=1):
        tree = ast.parse(code)
        name = f"{path.name}, cell {number}"
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), scope)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), scope)
            if value is not None:
                print(f"[{number}] {show(value)}")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
