"""Zarr stores are read as zarr wrote them, and a store of strangers runs nothing."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import LZ4, Blosc, GZip, Zlib, Zstd
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from isoprobe.contracts import Dataset
from isoprobe.errors import DataError
from isoprobe.registry.lookup import installed

ROWS = np.random.default_rng(0).normal(size=(50, 3, 5))


def opened(spec: object) -> Dataset:
    return installed().data(str(spec))


def values(spec: object, indices: Any = None) -> np.ndarray:
    data = opened(spec)
    try:
        return data.read(np.arange(len(data)) if indices is None else np.asarray(indices))
    finally:
        data.close()


SECOND: list[dict[str, Any]] = [
    {"compressors": None},
    {"compressors": Blosc("lz4", shuffle=Blosc.SHUFFLE)},
    {"compressors": Blosc("zstd", shuffle=Blosc.BITSHUFFLE)},
    {"compressors": Zstd()},
    {"compressors": LZ4()},
    {"compressors": GZip()},
    {"compressors": Zlib()},
    {"compressors": Zlib(), "order": "F"},
    {"compressors": None, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
]
THIRD: list[dict[str, Any]] = [
    {"compressors": None},
    {"compressors": BloscCodec()},
    {"compressors": ZstdCodec()},
    {"compressors": GzipCodec()},
    {"compressors": ZstdCodec(), "chunk_key_encoding": {"name": "v2", "separator": "."}},
]


def written(path: Path, rows: np.ndarray, version: int, more: dict[str, Any]) -> None:
    chunks = (8, 2, 5)[: rows.ndim]
    array = zarr.create_array(
        str(path), shape=rows.shape, chunks=chunks, dtype=rows.dtype, zarr_format=version, **more
    )
    array[:] = rows


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "|u1", "<i8", "|b1", "<f2"])
def test_numbers_of_every_type_come_back(tmp_path: Path, dtype: str) -> None:
    rows = (ROWS * 100).astype(dtype)
    for version in (2, 3):
        store = tmp_path / f"{version}.zarr"
        written(store, rows, version, {})
        found = values(store)
        np.testing.assert_array_equal(found, rows)
        assert opened(store).dtype == np.dtype(dtype).name


@pytest.mark.parametrize(
    ("version", "more"), [*((2, more) for more in SECOND), *((3, more) for more in THIRD)]
)
def test_chunks_packed_in_any_way_come_back(
    tmp_path: Path, version: int, more: dict[str, Any]
) -> None:
    store = tmp_path / "rows.zarr"
    written(store, ROWS, version, more)
    np.testing.assert_array_equal(values(store), ROWS)
    chosen = [0, 7, 8, 9, 31, 49]  # across chunks, in order
    np.testing.assert_array_equal(values(store, chosen), ROWS[chosen])


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_of_a_group_are_named_as_those_of_hdf5(tmp_path: Path, version: int) -> None:
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w", zarr_format=version)
    group.create_array("train/x", shape=ROWS.shape, dtype="f8", chunks=(20, 3, 5))[:] = ROWS
    group.create_array("train/y", shape=(50,), dtype="i4", chunks=(50,))[:] = np.arange(50)
    data = opened(f"{tmp_path}/g.zarr:/train/x,/train/y")
    assert (len(data), data.shape, data.name) == (50, (3, 5), "g.zarr:/train/x,/train/y")
    labels = data.labels(np.array([3, 30]))
    assert labels is not None and labels.tolist() == [3, 30]
    data.close()
    with pytest.raises(DataError, match="holds 2 arrays"):
        opened(tmp_path / "g.zarr")
    with pytest.raises(DataError, match="no array 'z'"):
        opened(f"{tmp_path}/g.zarr:/z")


def test_the_fingerprint_is_of_the_chunks(tmp_path: Path) -> None:
    marks = []
    for place, rows in enumerate((ROWS, ROWS, ROWS + np.eye(5)[0])):
        store = tmp_path / f"{place}" / "rows.zarr"
        written(store, rows, 3, {})
        marks.append(opened(store).fingerprint())
    assert marks[0] == marks[1] != marks[2]


# ------------------------------------------------------------------ what is refused


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("it-ran",))


def test_a_codec_that_unpickles_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C",
        "fill_value": None, "compressor": None, "filters": [{"id": "pickle", "protocol": 5}],
    }  # fmt: skip
    store = tmp_path / "rows.zarr"
    store.mkdir()
    (store / "0").write_bytes(pickle.dumps(Runs()))
    for change in ({}, {"filters": None, "compressor": {"id": "pickle"}, "dtype": "<f4"}):
        (store / ".zarray").write_text(json.dumps(told | change))
        with pytest.raises(DataError, match="pickle|no numbers|objects"):
            values(store)
    assert not Path("it-ran").exists()
    pickle.loads((store / "0").read_bytes())  # counter-test: what the codec does
    assert Path("it-ran").exists()


@pytest.mark.parametrize("version", [2, 3])
def test_rows_never_written_are_refused(tmp_path: Path, version: int) -> None:
    store = tmp_path / "rows.zarr"
    array = zarr.create_array(
        str(store), shape=(50, 3), chunks=(8, 3), dtype="f4", zarr_format=version
    )
    array[:20] = 1
    with pytest.raises(DataError, match="lacks some of its 7 chunks"):
        opened(store)


def test_chunks_that_are_links_or_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.ones((8, 2, 5)).tobytes())
    for make in (lambda p: p.symlink_to(tmp_path / "secret"), os.mkfifo):
        store = tmp_path / make.__class__.__name__ / str(id(make)) / "rows.zarr"
        written(store, ROWS, 2, {"compressors": None})
        chunk = store / "0.0.0"
        chunk.unlink()
        make(chunk)
        with pytest.raises(DataError, match="no file of its own"):
            opened(store)


def test_shards_and_unknown_codecs_say_what_would_be_read(tmp_path: Path) -> None:
    store = tmp_path / "rows.zarr"
    array = zarr.create_array(str(store), shape=(64, 4), chunks=(8, 4), shards=(32, 4), dtype="f4")
    array[:] = 1
    with pytest.raises(DataError, match="codec 'sharding_indexed', which is not read"):
        opened(store)
