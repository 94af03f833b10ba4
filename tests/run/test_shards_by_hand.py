"""Shards damaged by hand: a merge refuses them, a resumed run makes them again."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoprobe.cli import main
from isoprobe.results.shard import Shard
from isoprobe.run import shards as plans
from tests import bad_files
from tests.kills import contents_of

ROWS, BATCH = 80, 10
RUN = [
    *("analyze", "m.safetensors", "--data", "rows.npy", "--out", "r.h5", "--samples", "all"),
    *("--batch-size", str(BATCH), "--threads", "1", "--device", "cpu"),
    *("--analysis", "isometry", "--analysis", "anomaly"),
]


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def told(path: Path, change: Callable[[dict[str, Any]], None], *, summed: bool = True) -> None:
    """Change the index of a shard, its length and checksum as they then have to be."""
    data = path.read_bytes()
    size, _, _ = struct.unpack("<QIQ", data[-20:])
    index = json.loads(data[-20 - size : -20])
    change(index)
    text = json.dumps(index).encode()
    body = data[: -20 - size] + text
    check = zlib.crc32(text) if summed else 0
    path.write_bytes(body + struct.pack("<QIQ", len(text), check, len(body) + 20))


def first_sum(index: dict[str, Any]) -> None:
    name = next(iter(index["sums"]))
    index["sums"][name][0] ^= 1


def swapped(path: Path) -> None:
    other = next(p for p in sorted(path.parent.glob("*.shard")) if p != path)
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)


def another_way_round(index: dict[str, Any]) -> None:
    index["columns"] = dict(reversed(index["columns"].items()))


WAYS: dict[str, Callable[[Path], Any]] = {
    "removed": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"i"),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer by a byte": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "twice in one file": lambda path: path.write_bytes(path.read_bytes() * 2),
    "nothing but zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a hole in it": lambda path: path.write_bytes(
        path.read_bytes()[:500] + bytes(4096) + path.read_bytes()[4596:]
    ),
    "first line": lambda path: flipped(path, 3),
    "a column": lambda path: flipped(path, 100),
    "the state": lambda path: flipped(path, path.stat().st_size * 2 // 3),
    "the index": lambda path: flipped(path, path.stat().st_size - 60),
    "the last bytes": lambda path: flipped(path, path.stat().st_size - 2),
    "index unsummed": lambda path: told(path, lambda index: index, summed=False),
    "another's rows": swapped,
    "rows moved": lambda path: told(path, lambda i: i.update(rows=[r + 1 for r in i["rows"]])),
    "rows without end": lambda path: told(path, lambda i: i.update(rows=[0, 1 << 60])),
    "batches moved": lambda path: told(path, lambda i: i.update(ends=[e - 1 for e in i["ends"]])),
    "a sum": lambda path: told(path, first_sum),
    "columns another way round": lambda path: told(path, another_way_round),
    "no columns": lambda path: told(path, lambda i: i.update(columns={}, sums={})),
    "no state": lambda path: told(path, lambda i: i.update(state={})),
    "no record": lambda path: told(path, lambda i: i.update(record={})),
    "of another seed": lambda path: told(
        path, lambda i: i["record"]["identity"].update(seed=77)
    ),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a link to another": lambda path: (
        path.unlink(), path.symlink_to(sorted(path.parent.glob("*.shard"))[-1].name)
    ),
    "no index but a long one": lambda path: path.write_bytes(
        path.read_bytes()[:-20] + struct.pack("<QIQ", 1 << 62, 0, path.stat().st_size)
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the shards of a run, and the result that one process gives."""
    folder = tmp_path_factory.mktemp("sound")
    before = Path.cwd()
    os.chdir(folder)
    patch = pytest.MonkeyPatch()
    patch.setattr(plans, "_LEAST", 1)
    patch.setattr(plans, "_PIECES", 1000)
    try:
        bad_files.good_model(folder / "m.safetensors")
        np.save("rows.npy", np.random.default_rng(0).random((ROWS, 12), "f4"))
        assert main(RUN) == 0
        (folder / "r.h5").rename("one.h5")
        assert main([*RUN, "--shard", "1/1"]) == 0
        yield folder
    finally:
        os.chdir(before)
        patch.undo()


@pytest.mark.parametrize("way", WAYS)
def test_no_number_is_wrong(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, way: str
) -> None:
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shards = sorted(Path("r.h5.partial").glob("*.shard"), key=lambda p: int(p.stem.split("-")[1]))
    assert len(shards) > 3
    WAYS[way](shards[1])
    capsys.readouterr()
    files = [str(path) for path in shards]
    merged = main(["merge", "m.h5", *files])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(said) == merged, said
    assert Path("m.h5").exists() == (merged == 0)
    if merged == 0:  # by the rows that a shard says it has, whatever it is called
        assert way == "another's rows"
        assert contents_of(tmp_path / "m.h5") == contents_of(sound / "one.h5")
    code = main([*RUN, "--resume"])
    assert code in {0, 1}
    if code:
        assert not Path("r.h5").exists()
    else:
        assert contents_of(tmp_path / "r.h5") == contents_of(sound / "one.h5")


def test_a_sound_shard_is_read(sound: Path) -> None:
    """Counter-test."""
    for path in (sound / "r.h5.partial").glob("*.shard"):
        with Shard.open(path) as shard:
            shard.check()
