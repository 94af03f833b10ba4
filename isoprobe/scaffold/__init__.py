"""Make a plugin project from templates: it installs and passes its tests as it stands."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import isoprobe
from isoprobe.errors import OptionError

KINDS = ("metric", "adapter", "analysis", "data-source")
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def create(kind: str, name: str, into: Path) -> list[Path]:
    """Write a plugin project.

    Args:
        kind: one of :data:`KINDS`.
        name: name users will ask for: lower case letters, digits, hyphens.
        into: folder that will hold the project's folder, ``isoprobe-NAME``.

    Returns:
        The files written.

    Raises:
        OptionError: for another kind or name, or when the project's folder exists.
    """
    if kind not in KINDS:
        raise OptionError(f"a plugin project is one of {', '.join(KINDS)}; found '{kind}'")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise OptionError(
            f"a plugin's name is lower case letters, digits and hyphens, as in log-cosh; "
            f"found '{name}'"
        )
    project = into / f"isoprobe-{name}"
    if project.exists():
        raise OptionError(f"{project} exists already; choose another name or remove it")
    words = _words(kind, name)
    templates = files("isoprobe.scaffold") / "templates"
    written = []
    for folder in ("common", kind):
        for relative, text in _texts(templates / folder):
            target = project / Template(relative).substitute(words).removesuffix(".in")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(text).substitute(words), encoding="utf-8")
            written.append(target)
    return sorted(written)


def _words(kind: str, name: str) -> dict[str, str]:
    return {
        "kind": kind,
        "name": name,
        "module": f"isoprobe_{name.replace('-', '_')}",
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "version": isoprobe.__version__,
        "usage": _USAGE[kind].format(name=name),
    }


_USAGE = {
    "metric": "isoprobe analyze model.safetensors --metric {name}",
    "adapter": "isoprobe analyze model.npz --data images.npy",
    "analysis": "isoprobe analyze model.safetensors --analysis {name}",
    "data-source": "isoprobe analyze model.safetensors --data {name}/1000",
}


def _texts(folder: Traversable, prefix: str = "") -> list[tuple[str, str]]:
    """Relative paths and contents of the templates below a folder."""
    found: list[tuple[str, str]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _texts(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".in"):
            found.append((prefix + entry.name, entry.read_text(encoding="utf-8")))
    return found
