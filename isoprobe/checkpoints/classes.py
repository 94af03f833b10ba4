"""Find the class that weights were saved from among the Python files at hand, running none."""

from __future__ import annotations

import ast
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

#: files that are looked at, of a folder and of the folders in it, and how long one may be
_FILES = 200
_BYTES = 256 << 10
#: parts of a name that wrappers put before others
_WRAPPERS = frozenset({"module", "_orig_mod"})
#: how deep in a file the weights of a class may lie, and the least share of its tensors they are
_DEPTH = 4
_SHARE = 0.4


def class_of(names: Iterable[str], folders: Sequence[Path]) -> tuple[Path, str] | None:
    """Find the class whose parts have the names that weights begin with.

    Args:
        names: of the tensors, wrapping keys included.
        folders: where to look, those in them too.

    Returns:
        The file and the name of the class; None where none has a part for each name.
    """
    split = [[part for part in name.split(".") if part not in _WRAPPERS] for name in names]
    split = [parts for parts in split if not any("optim" in part for part in parts)]
    wanted = _heads(split)
    best: tuple[int, int, Path, str] | None = None
    for file in _python_files(folders):
        for name, parts in classes_in(file).items():
            held = [count for heads, count in wanted if len(heads) > 1 and heads <= parts]
            if held and max(held) >= _SHARE * len(split):
                found = (max(held), -len(parts), file, name)
                best = found if best is None or found[:2] > best[:2] else best
    return None if best is None else (best[2], best[3])


def classes_in(file: Path) -> dict[str, set[str]]:
    """Read which classes a Python file defines, and the names of what each puts into ``self``.

    Args:
        file: the file; nothing of it is run.

    Returns:
        Names by class, those of its bases in the same file too; none where it is no Python.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(_BYTES + 1)
        if len(text) > _BYTES:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return {name: _parts(name, classes, frozenset()) for name in classes}


def _parts(name: str, classes: dict[str, ast.ClassDef], above: frozenset[str]) -> set[str]:
    """What a class and its bases in the same file put into ``self``."""
    node = classes[name]
    found = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes.keys() - above - {name}:
            found |= _parts(base.id, classes, above | {name})
    return found


def _heads(names: Sequence[Sequence[str]]) -> list[tuple[set[str], int]]:
    """What comes first in the names under every prefix, and how many names that is."""
    under: dict[tuple[str, ...], list[str]] = {}
    for parts in names:
        for depth in range(min(len(parts), _DEPTH)):
            under.setdefault(tuple(parts[:depth]), []).append(parts[depth])
    return [(set(heads), len(heads)) for heads in under.values()]


def _python_files(folders: Sequence[Path]) -> Iterator[Path]:
    seen = dict.fromkeys(folder.resolve() for folder in folders)
    found = (
        f
        for folder in seen
        for f in itertools.chain(folder.glob("*.py"), folder.glob("[!.]*/*.py"))
    )
    yield from sorted(itertools.islice((f for f in found if f.is_file()), _FILES))
