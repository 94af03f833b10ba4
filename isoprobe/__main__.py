"""Run the command line as ``python -m isoprobe``."""

from __future__ import annotations

import sys

from isoprobe.cli import main

if __name__ == "__main__":
    sys.exit(main())
