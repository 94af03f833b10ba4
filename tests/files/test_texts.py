"""Texts of HDF5 files are read where honest libraries put them, whatever their heads look like."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from isoprobe.errors import FileError
from isoprobe.files.hdf5 import Hdf5File
from isoprobe.files.heaps import check_attribute
from isoprobe.files.meter import Meter
from isoprobe.registry.lookup import installed
from tests.files.test_corpus import cells

CHUNKS = {
    "contiguous": {},
    "chunks": {"chunks": (16,)},
    "packed": {"chunks": (16,), "compression": "gzip", "shuffle": True},
}


def read(path: Path, name: str = "t") -> list[str]:
    file = Hdf5File(path)
    try:
        return list(file.read(file.child(file.file, name)))
    finally:
        file.close()


def heads_like_records(blob: bytes) -> list[int]:
    """Where the head of a text on a heap begins that has a heap's address for a number."""
    heaps = [found.start() for found in re.finditer(b"GCOL\x01\0\0\0", blob)]
    sizes = [struct.pack("<Q", size) for size in range(6, 9)]
    heads = [struct.pack("<Q", heap) + size for heap in heaps for size in sizes]
    return [found.start() for head in heads for found in re.finditer(re.escape(head), blob)]


def test_thousands_of_cells_have_names_and_kinds(tmp_path: Path) -> None:
    """The end of one text and the head of the next, of a number like a heap's address, are none."""
    path = tmp_path / "c.h5ad"
    with h5py.File(path, "w") as file:
        cells(file, 5000)
        file["X/indptr"] = np.minimum(np.arange(5001), 40)
        file["obs/kind/codes"] = np.arange(5000, dtype="i1") % 2
        file["obs/kind/categories"] = ["a", "b"]
    assert heads_like_records(path.read_bytes())  # or the file would not show it
    data = installed().data(f"{path}:X,kind")
    assert list(data.labels(np.arange(5000))) == ["a", "b"] * 2500
    data.close()
    assert read(path, "obs/_index") == [f"obs{k}" for k in range(5000)]


@pytest.mark.parametrize("block", [0, 512, 4096])
@pytest.mark.parametrize("way", CHUNKS)
def test_a_forged_length_is_refused_wherever_it_is_stored(
    tmp_path: Path, way: str, block: int
) -> None:
    path = tmp_path / "t.h5"
    rows = [f"row {k}" for k in range(64)]
    with h5py.File(path, "w", userblock_size=block) as file:
        file.create_dataset("t", data=rows, dtype=h5py.string_dtype(), **CHUNKS[way])
    assert read(path) == rows
    if way == "packed":  # where the corpus has a case
        return
    with h5py.File(path) as file:
        data = file["t"].id
        place = data.get_offset() if way == "contiguous" else data.get_chunk_info(0).byte_offset
    blob = bytearray(path.read_bytes())
    blob[place : place + 4] = struct.pack("<I", 1 << 30)
    path.write_bytes(blob)
    with pytest.raises(FileError, match="a text"):
        read(path)


def test_records_among_the_texts_themselves_are_seen(tmp_path: Path) -> None:
    """A data set whose place is in a heap: what is there looks like a text and the next one's head.

    Only there, as nothing but its place tells it from the honest file above.
    """
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        cells(file, 16_000)
        file["few"] = np.array(["x"], h5py.string_dtype())
    with h5py.File(path) as file:
        few = file["few"].id.get_offset()
    blob = path.read_bytes()
    head = next(h for h in heads_like_records(blob) if blob[h - 1])
    told = struct.pack("<QQ", few, 16)
    assert blob.count(told) == 1
    path.write_bytes(blob.replace(told, struct.pack("<QQ", head - 4, 16)))
    with pytest.raises(FileError, match="a text"):
        read(path, "few")


@pytest.mark.parametrize("more", [{}, {"shuffle": True}, {"fletcher32": True}])
def test_noise_that_lzf_makes_no_shorter_is_read(tmp_path: Path, more: dict) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 64)).astype("u1")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=noise, chunks=(64, 64), compression="lzf", **more)
        assert file["x"].id.get_chunk_info(0).filter_mask
    data = installed().data(str(path))
    assert np.array_equal(data.read(np.arange(400)), noise)
    data.close()


@pytest.mark.parametrize("library", ["earliest", "v110"])
def test_texts_and_numbers_under_one_name_are_read(tmp_path: Path, library: str) -> None:
    """Only what stands for texts of any length is taken for such."""
    path, several = tmp_path / "a.h5", ["some", "more", "texts"]
    values = {
        "any": "anndata",
        "fixed": np.bytes_("csr_matrix"),
        "numbers": np.full(6, 1 << 30),
        "number": 2.5,
        "several": np.array(several, h5py.string_dtype()),
        "none": h5py.Empty(h5py.string_dtype()),
    }
    with h5py.File(path, "w", libver=library) as file:
        file["kind"] = h5py.string_dtype()
        for name, value in values.items():
            file.create_group(name).attrs["told"] = value
        file.create_group("named").attrs.create("told", "a type of its own", dtype=file["kind"])
    file = Hdf5File(path)
    found = {
        name: file.attribute(file.file[name], "told")
        for name in (*values, "named")
        if name != "none"
    }
    file.close()
    assert found["any"] == "anndata"
    assert found["named"] == "a type of its own"
    assert found["fixed"] == b"csr_matrix"
    assert found["number"] == 2.5
    assert list(found["numbers"]) == [1 << 30] * 6
    assert list(found["several"]) == several


@pytest.mark.parametrize("library", ["earliest", "v110"])
@pytest.mark.parametrize("count", [None, 3])
@pytest.mark.parametrize("own", [False, True])
def test_a_forged_length_in_an_attribute_is_refused(
    tmp_path: Path, library: str, count: int | None, own: bool
) -> None:
    """Of any shape and way of writing, on a heap that is none."""
    path = tmp_path / "a.h5"
    value = "textual" if count is None else np.array(["textual"] * count, object)
    with h5py.File(path, "w", libver=library) as file:
        file["kind"] = h5py.string_dtype()
        file.attrs["told"] = np.bytes_("beside it")
        kind = file["kind"] if own else h5py.string_dtype()
        file.create_group("g").attrs.create("told", value, dtype=kind)
    blob = path.read_bytes()
    record = struct.pack("<IQI", 7, blob.index(b"GCOL"), count or 1)
    assert blob.count(record) == 1
    check_attribute(blob, "told", count or 1, Meter(path, len(blob)))
    forged = blob.replace(record, struct.pack("<IQI", 0x7FFFFFFF, 1 << 60, 1))
    with pytest.raises(FileError, match="a text takes over"):  # HDF5's own sums could be made anew
        check_attribute(forged, "told", count or 1, Meter(path, len(blob)))
