"""Sphinx configuration: offline pages, figures and command help made while building."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gallery import gallery
from generate import commands_page, figures
from rendered import notebook_page

project = "isoprobe"
author = "the isoprobe authors"
copyright = "the isoprobe authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "declarations"]
html_theme = "furo"
html_title = "isoprobe"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
# contracts name each other's classes by short names; chapters of Evidence may be absent
suppress_warnings = ["ref.python", "toc.empty_glob"]
nitpicky = False
# quotes stay as typed, and --option keeps its two hyphens
smartquotes = False
html_extra_path = ["_generated/reports"]


def setup(app: object) -> None:
    """Make figures, reports, the notebook's page and that of commands before anything is read."""
    folder = Path(__file__).parent / "_generated"
    folder.mkdir(exist_ok=True)
    figures(folder)
    gallery(folder)
    (folder / "commands.md").write_text(commands_page(), "utf-8")
    (folder / "notebook.md").write_text(notebook_page(), "utf-8")
