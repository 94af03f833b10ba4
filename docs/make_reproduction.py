"""Make the tables of docs/reproduction.md anew from the records of the shortened schedule."""

from __future__ import annotations

from pathlib import Path

from isoprobe_trainers.page.short import filled

PAGE = Path(__file__).with_name("reproduction.md")

if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
