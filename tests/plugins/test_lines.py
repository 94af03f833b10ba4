"""Lines of a text file come by number as a plain split gives them, whatever is read at once."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from isoprobe.errors import DataError
from isoprobe_plugins.data import lines
from isoprobe_plugins.data.columns import Roles
from isoprobe_plugins.data.lines import Lines, TextBlock
from isoprobe_plugins.data.text import TextDataset

ROLES = Roles.parse(None, "table.csv")
#: what lines are made of: blank ones, white space before text, returns, marks, letters of two bytes
PARTS = ("", " ", "\t", "\r", "a,b", " 1;2", "\ufeff3", "é\u2028x", '"q"', "\x0b", "\x1f", "4\r")


def made(seed: int, rows: int) -> bytes:
    rng = np.random.default_rng(seed)
    picked = ["".join(rng.choice(PARTS, rng.integers(0, 4))) for _ in range(rows)]
    data = "\n".join(picked) + "\n" * int(rng.integers(0, 2))
    return data.encode() + b"\xff\xc3\n" * (seed % 2)


def split(data: bytes) -> list[str]:
    whole = [line for line in data.split(b"\n") if line.strip()]
    return [line.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r") for line in whole]


@pytest.mark.parametrize("piece", [1, 5, 64, 1 << 20])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zipped", [False, True])
def test_lines_are_those_of_a_plain_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, seed: int, zipped: bool
) -> None:
    monkeypatch.setattr(lines, "_PIECE", piece)
    monkeypatch.setattr(lines, "BLOCK", 8)
    data = made(seed, 150)
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(data) if zipped else data)
    seen: dict[int, str] = {}
    found = Lines(path, seen.update)
    expected = split(data)
    assert [seen[i] for i in range(len(seen))] == expected
    assert len(found) == len(expected) > 50
    rng = np.random.default_rng(seed)
    for count in (len(expected), 1, 7, 30, 3):
        chosen = np.sort(rng.choice(len(expected), count, replace=False))
        assert found.at(chosen) == [expected[i] for i in chosen]
    found.close()


def test_a_block_counts_in_each_line() -> None:
    block = TextBlock(3, b",a,,\n\n \nb\n,\xc3\xa9,")
    assert (len(block), block.blank) == (3, 2)
    assert block.count(",").tolist() == [3, 0, 2]
    assert list(block) == [(3, ",a,,"), (4, "b"), (5, ",é,")]


@pytest.mark.parametrize("piece", [16, 1 << 20])
def test_a_row_of_another_width_is_named_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(lines, "_PIECE", piece)
    path = tmp_path / "table.csv"
    good = [f"{i},{i + 1}" for i in range(40)]
    for at, bad in ((0, "1"), (7, "1,2,3"), (39, '1,"2,3",4')):
        rows = [*good[:at], bad, *good[at:]]
        path.write_text("a,b\n" + "\n".join(rows))
        with pytest.raises(DataError, match=rf"row {at} of .* has {1 if at == 0 else 3} columns"):
            TextDataset(path, ROLES)
    path.write_text("a,b\n" + "\n".join([*good, '"1","2"']))
    table = TextDataset(path, ROLES)
    assert table.read(np.array([40])).tolist() == [[1.0, 2.0]]
    table.close()


def test_a_line_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    monkeypatch.setattr(lines, "_PIECE", 30)
    path = tmp_path / "table"
    for before in (b"", b"1,2\n" * 50, b"1,2\n" * 50 + b"3"):
        path.write_bytes(before + b"4" * 99)
        Lines(path, lambda block: None).close() if not before.endswith(b"3") else None
        path.write_bytes(before + b"4" * 131 + b"\n1,2\n")
        with pytest.raises(DataError, match="a line of over 100 bytes"):
            Lines(path, lambda block: None)


def test_a_file_that_has_become_shorter_is_said(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text("1,2\n" * 1000)
    found = Lines(path, lambda block: None)
    path.write_text("1,2\n" * 600)
    assert len(found.at(np.arange(500, 600))) == 100
    with pytest.raises(DataError, match="ends before its line 600"):
        found.at(np.arange(550, 601))
    found.close()
