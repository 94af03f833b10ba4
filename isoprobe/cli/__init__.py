"""Offer the command line: ``isoprobe`` and ``python -m isoprobe``."""

from __future__ import annotations

from isoprobe.cli.main import main

__all__ = ["main"]
