"""The example notebook as a page: its cells are run when the site is built, outputs beside them."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


def notebook_page(path: Path = NOTEBOOK) -> str:
    """Run a notebook in a folder of its own beside its files, and return it as Markdown."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    scope: dict[str, Any] = {"__name__": "__main__"}
    parts = []
    with _beside(path.parent):
        for number, cell in enumerate(cells, start=1):
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(source)
                continue
            parts.append(f"```python\n{source}\n```")
            parts += _outputs(source, f"cell {number}", scope)
    return "\n\n".join(parts) + "\n"


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Work in a temporary folder that holds links to the files of another."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        for file in folder.iterdir():
            (Path(name) / file.name).symlink_to(file)
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)


def _outputs(source: str, name: str, scope: dict[str, Any]) -> Iterator[str]:
    """Run a cell; yield what it prints, and what it ends in as a notebook would show it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), scope)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), scope)
    if printed.getvalue():
        yield f"```text\n{printed.getvalue().rstrip()}\n```"
    if value is not None:
        yield _shown(value)


def _shown(value: Any) -> str:
    if hasattr(value, "_repr_png_"):
        data = base64.b64encode(value._repr_png_()).decode()
        html = f'<img alt="figure" src="data:image/png;base64,{data}">'
    elif hasattr(value, "_repr_html_"):
        html = value._repr_html_()
    else:
        return f"```text\n{value!r}\n```"
    return f'```{{raw}} html\n<div style="overflow-x:auto">{html}</div>\n```'
