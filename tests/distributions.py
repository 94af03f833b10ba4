"""Distributions as pip leaves them in a folder: metadata, entry points, modules."""

from __future__ import annotations

from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from textwrap import dedent

METRIC = """
from isoprobe.contracts import Metric
from isoprobe.hookspecs import hookimpl

class Plain(Metric):
    name = "{name}"
    summary = "a metric called {name}"

    def distortion(self, x, x_hat):
        return (x - x_hat).square().flatten(1).sum(1)

@hookimpl
def isoprobe_metrics():
    return [Plain]
"""


def install(
    folder: Path, name: str, entries: dict[str, str], modules: dict[str, str], version: str = "1.0"
) -> None:
    """Put a distribution into a folder."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[isoprobe]", *lines, ""]))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(dedent(text))


def entry_points(folder: Path) -> list[EntryPoint]:
    """Entry points of the distributions in a folder."""
    found = [e for d in distributions(path=[str(folder)]) for e in d.entry_points]
    return [entry for entry in found if entry.group == "isoprobe"]
