"""Live modules as people write them, each with its own reading; `MODULES` lists them."""

from tests.gallery.modules import forwards, heads, methods, random_ones, wrapped
from tests.gallery.modules.shelf import MODULES, Entry

__all__ = ["MODULES", "Entry", "forwards", "heads", "methods", "random_ones", "wrapped"]
