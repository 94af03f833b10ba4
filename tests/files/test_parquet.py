"""Parquet files are read as Arrow reads them, and no page or list outgrows its file."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isoprobe.errors import DataError
from isoprobe.files.meter import FLOOR
from isoprobe.files.parquet import ParquetFile
from isoprobe_plugins.data.columns import Roles
from isoprobe_plugins.data.parquet import ParquetDataset
from tests.parquet import (
    BINARY,
    BYTE_ARRAY,
    FIXED,
    I64,
    LIST,
    STRUCT,
    Column,
    element,
    numbers,
    page,
    prefixed,
    repeated,
    write,
    zeros,
)  # fmt: skip

ROWS = 3000
DRAW = np.random.default_rng(0)
NAMES = [f"name {k}" for k in range(7)]
TABLE = pa.table(
    {
        "a": DRAW.normal(size=ROWS),
        "b": pa.array(DRAW.integers(0, 5, ROWS), pa.int8(), mask=DRAW.random(ROWS) < 0.1),
        "half": DRAW.normal(size=ROWS).astype(np.float16),
        "flag": DRAW.random(ROWS) < 0.5,
        "name": DRAW.choice(NAMES, ROWS),
        "unique": [f"row {k} " + "x" * (k % 40) for k in range(ROWS)],
        "word": pa.array(DRAW.choice(["p", "q"], ROWS)).dictionary_encode(),
        "maybe": pa.array([None if k % 3 else f"v{k % 4}" for k in range(ROWS)]),
        "bytes": pa.array([b"z%d" % (k % 9) for k in range(ROWS)]),
        "day": pa.array(np.arange(ROWS).astype("M8[D]")),
        "list": [[float(k), 2.0] for k in range(ROWS)],
        "words": [[f"w{k % 3}"] * (k % 4) for k in range(ROWS)],
        "inner": [{"x": k, "y": {"z": str(k)}} for k in range(ROWS)],
        "dotted.name": np.arange(ROWS),
    }
)
WAYS = {
    "snappy": {},
    "zstd": {"compression": "zstd"},
    "plain": {"compression": "none", "use_dictionary": False},
    "second form": {"data_page_version": "2.0", "compression": "gzip"},
    "many groups": {"row_group_size": 17},
    "many pages": {"data_page_size": 256, "write_batch_size": 64, "write_page_index": True},
    "dictionaries given up": {"dictionary_pagesize_limit": 64, "data_page_size": 512},
    "checksums": {"write_page_checksum": True, "store_schema": False},
    "old": {"version": "1.0", "use_deprecated_int96_timestamps": True},
    "lengths": {
        "use_dictionary": False, "column_encoding": {"unique": "DELTA_LENGTH_BYTE_ARRAY"},
    },
    "prefixes": {
        "use_dictionary": False, "data_page_size": 1024, "write_batch_size": 64,
        "column_encoding": {"name": "DELTA_BYTE_ARRAY", "unique": "DELTA_BYTE_ARRAY",
                            "a": "BYTE_STREAM_SPLIT", "b": "DELTA_BINARY_PACKED"},
    },
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_libraries_write_is_read_as_it_is(tmp_path: Path, way: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path, **WAYS[way])
    beside = ("name", "unique", "word", "maybe", "bytes", "day", "words", "dotted.name")
    data = ParquetDataset(path, Roles("name", ("a", "b", "half", "flag"), beside[1:]))
    rows = np.unique(DRAW.integers(0, ROWS, 200))
    expected = [TABLE[name].to_numpy()[rows].astype(float) for name in ("a", "b", "half", "flag")]
    assert np.array_equal(data.read(rows), np.stack(expected, 1), equal_nan=True)
    found = {"name": data.labels(rows), **data.carry(rows)}
    for name in beside[:-2]:
        told = [str(value) for value in TABLE[name].to_numpy()[rows]]
        assert found[name].tolist() == told, name
    assert found["words"].shape == rows.shape
    assert np.array_equal(found["dotted.name"], rows)
    data.close()


def test_a_table_without_rows_is_read(tmp_path: Path) -> None:
    for name, empty in (("a", TABLE.slice(0, 0)), ("b", TABLE.schema.empty_table())):
        pq.write_table(empty, tmp_path / name)
        with ParquetFile(tmp_path / name) as file:
            assert sum(file.rows) == 0


# --------------------------------------------------------------------------- hostile files

SOUND = Column(numbers())
TWICE = [element(b"schema", None, 1), *[element(b"n", None, 1)] * 40, element(b"x", 5)]
HOSTILE = {
    "a page longer than told": ([Column(page(0, zeros(1 << 29), 1 << 29, 50))], {}),
    "a page of more values": ([Column(page(0, zeros(1 << 29), 1 << 29, 1 << 26))], {}),
    "the second form": ([Column(page(3, zeros(1 << 29), 1 << 29, 50))], {}),
    "a long dictionary": (
        [Column(page(2, zeros(1 << 29), 1 << 29, 9) + numbers(), dictionary=True)], {},
    ),
    "a dictionary that claims": (
        [Column(page(2, zeros(80), 80, (1 << 31) - 1) + numbers(), dictionary=True)], {},
    ),
    "fewer values": ([Column(numbers(49))], {}),
    "more values": ([Column(numbers(51))], {}),
    "values below 0": ([Column(numbers(50, -50))], {}),
    "a size below 0": ([Column(page(0, zeros(8), -8, 50))], {}),
    "a page beyond its column": ([Column(numbers()[:-3])], {}),
    "groups claimed": ([SOUND], {"claimed": 1 << 20}),
    "groups that lie on each other": ([SOUND], {"groups": 100}),
    "a tower of tables": ([SOUND], {"schema": TWICE}),
    "columns claimed": (
        [SOUND], {"schema": [element(b"schema", None, (1 << 31) - 1), element(b"x", 5)]},
    ),
    "rows claimed": ([SOUND], {"rows": 1 << 60}),
    "rows below 0": ([SOUND], {"rows": -1}),
    "structures of no bytes": ([SOUND], {"more": [(7, LIST, (STRUCT, [[]] * 200_000))]}),
    "another file": ([Column(numbers(), part=[(1, BINARY, b"other.parquet")])], {}),
    "said twice": ([Column(numbers(), more=[(5, I64, 1 << 40)])], {}),
    "long texts": ([Column(repeated(b"a" * (1 << 20), 1 << 20), kind=BYTE_ARRAY, dictionary=True)],
                   {"rows": 1 << 20}),
    "beginnings": ([Column(prefixed(1 << 20, 5000), kind=BYTE_ARRAY, ways=[7])], {"rows": 5000}),
    "long texts, another way told": (
        [Column(repeated(b"a" * 9999, 9999), kind=BYTE_ARRAY, dictionary=True, ways=[7])],
        {"rows": 9999},
    ),
    "beginnings, another way told": (
        [Column(prefixed(1 << 20, 5000), kind=BYTE_ARRAY)], {"rows": 5000}
    ),
    "fixed lengths": ([Column(numbers(), kind=FIXED, width=1 << 30)], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_outgrows_its_file_is_one_line(tmp_path: Path, name: str) -> None:
    columns, more = HOSTILE[name]
    path = tmp_path / "x.parquet"
    write(path, *columns, **more)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as caught:
        everything(path)
    assert "\n" not in str(caught.value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown << 10 < 2 * FLOOR


def everything(path: Path) -> None:
    data = ParquetDataset(path, Roles(None, (), ("x",)))
    data.carry(np.arange(min(len(data), 10_000)))


def test_the_sound_file_is_read(tmp_path: Path) -> None:
    """Counter-test: or all of these would be refused for what they have in common with it."""
    path = tmp_path / "x.parquet"
    write(path, SOUND)
    data = ParquetDataset(path, Roles())
    assert np.array_equal(data.read(np.arange(50))[:, 0], np.arange(50))
    for column in (
        Column(repeated(b"abc", 50), kind=BYTE_ARRAY, dictionary=True),
        Column(prefixed(3, 50), kind=BYTE_ARRAY, ways=[7]),
        Column(repeated(b"abc", 50), kind=BYTE_ARRAY, dictionary=True, ways=[7]),
    ):
        write(path, column)
        everything(path)


def test_fields_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write(path, SOUND, more=[(30, LIST, (I64, [1, 2])), (31, STRUCT, [(1, BINARY, b"x")])])
    with ParquetFile(path) as file:
        assert file.rows == [50]


def test_a_limit_that_is_raised_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": np.zeros(1 << 24)}), path, row_group_size=1 << 24)
    with pytest.raises(DataError, match="--file-limit"):
        ParquetFile(path)
    monkeypatch.setenv("ISOPROBE_FILE_LIMIT", "1GiB")
    with ParquetFile(path) as file:
        assert len(file.read(0, ["x"])) == 1 << 24
