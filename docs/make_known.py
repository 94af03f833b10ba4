"""Write the README's table of known models from the table of ``docs/adapters.md``.

Run ``python docs/make_known.py`` after ``docs/make_adapters.py``, which measures them. Models that
were measured on data like their own and say their beta are listed.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- known models: docs/make_known.py -->\n", "<!-- end -->"
HEADING = (
    "| somebody's checkpoint | metric, data | KL [nat] | beta declared | beta recovered |\n"
    "|---|---|---|---|---|\n"
)


def table(adapters: str) -> str:
    """Return the table for the README, from the text of the page of adapters."""
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", adapters, re.M)
    lines = []
    for path, rest in rows:
        cells = rest.split(" | ")
        if len(cells) != 7:
            continue
        _, _, on, _, kl, recovered, declared = cells
        number = re.fullmatch(r"[\d.]+", recovered)
        if number and declared != "unknown" and not on.endswith("prior"):
            lines.append(f"| `{path}` | {on} | {kl} | {declared} | {recovered} |\n")
    return HEADING + "".join(lines)


def main() -> None:
    """Write."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text("utf-8").split(BEGIN)
    adapters = (ROOT / "docs" / "adapters.md").read_text("utf-8")
    readme.write_text(before + BEGIN + table(adapters) + rest[rest.index(END) :], "utf-8")


if __name__ == "__main__":
    main()
