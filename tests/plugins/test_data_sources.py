"""Data sources: what they read equals what was written, and what is wrong with a file is said."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from isoprobe.contracts import VAE, Facts
from isoprobe.data.batches import prepare
from isoprobe.data.files import BLOCK_SIZE, BLOCKS, fingerprint, split_spec, unopened
from isoprobe.errors import DataError
from isoprobe_plugins.data import streams
from isoprobe_plugins.data.arrays import ArraySource
from isoprobe_plugins.data.images import ImageSource
from isoprobe_plugins.data.prior import PriorSource
from isoprobe_plugins.data.tables import TableSource
from tests.files.test_corpus import cells

SOURCES = [ArraySource(), ImageSource(), PriorSource(), TableSource()]
ROWS = np.array([0, 1, 2, 5, 9, 10, 250, 256, 300, 511, 512, 699])
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


def opened(spec, vae=None):
    matching = [source for source in SOURCES if source.matches(str(spec))]
    if not matching:
        raise DataError(unopened(str(spec), SOURCES))
    (source,) = matching
    return source.open(str(spec), vae)


@pytest.fixture
def table():
    return np.random.default_rng(0).normal(size=(700, 5))


@pytest.fixture
def labels():
    return (np.arange(700) % 3 == 0).astype(np.int64)


@pytest.fixture
def open_data():
    """Open specs, and close them at the end."""
    datasets = []

    def open_one(spec, vae=None):
        datasets.append(opened(spec, vae))
        return datasets[-1]

    yield open_one
    for dataset in datasets:
        dataset.close()


# ---------------------------------------------------------------------- every format


def write_npy(folder, x, y):
    np.save(folder / "d.npy", x)
    return "d.npy", None


def write_npy_by_columns(folder, x, y):
    np.save(folder / "d.npy", np.asfortranarray(x))
    return "d.npy", None


def write_npy_big_endian(folder, x, y):
    np.save(folder / "d.npy", x.astype(">f8"))
    return "d.npy", None


def write_npz(folder, x, y):
    np.savez(folder / "d.npz", x=x, y=y)
    return "d.npz:x,y", y


def write_npz_compressed(folder, x, y):
    np.savez_compressed(folder / "d.npz", x=x, y=y)
    return "d.npz:x,y", y


def write_hdf5(folder, x, y):
    with h5py.File(folder / "d.h5", "w") as file:
        file.create_dataset("a/x", data=x, chunks=(64, 5), compression="gzip")
        file["y"] = y
    return "d.h5:/a/x,/y", y


def write_csv(folder, x, y):
    frame = pd.DataFrame(x, columns=list("abcde")).assign(label=y)
    frame.to_csv(folder / "d.csv", index=False)
    return "d.csv:label=label", y


def write_csv_without_header(folder, x, y):
    names = np.where(y == 1, "odd one", "normal")
    pd.DataFrame(x).assign(label=names).to_csv(folder / "d.csv", index=False, header=False)
    return "d.csv:label=5", names


def write_tsv_gz(folder, x, y):
    pd.DataFrame(x).to_csv(folder / "d.tsv.gz", sep="\t", index=False)
    return "d.tsv.gz", None


def write_csv_by_hand(folder, x, y):
    lines = ["\ufeffa;b;c;d;e"] + [";".join(f'"{v!r}"' for v in row) for row in x.tolist()]
    lines.insert(40, "")
    (folder / "d.csv").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    return "d.csv", None


def write_parquet(folder, x, y):
    frame = pd.DataFrame(x, columns=list("abcde")).assign(label=np.where(y == 1, "odd", "even"))
    frame.to_parquet(folder / "d.parquet", index=False, row_group_size=100)
    return "d.parquet:label=label", np.where(y == 1, "odd", "even")


WRITERS = [value for name, value in sorted(globals().items()) if name.startswith("write_")]


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_read_is_what_was_written(write, tmp_path, table, labels, open_data):
    spec, marks = write(tmp_path, table, labels)
    data = open_data(tmp_path / spec)
    assert len(data) == 700
    assert data.shape == (5,)
    assert data.name == spec
    assert np.dtype(data.dtype) == np.float64
    for indices in (np.arange(700), ROWS, np.arange(3, 700, 7), ROWS[:1], ROWS[3:]):
        assert np.array_equal(data.read(indices), table[indices])
        read = data.labels(indices)
        assert (read is None) == (marks is None)
        assert marks is None or np.array_equal(read, marks[indices])


@pytest.mark.parametrize("write", WRITERS)
def test_the_fingerprint_follows_the_content_alone(write, tmp_path, table, labels, open_data):
    folders = [tmp_path / name for name in ("first", "same", "other")]
    changed = table.copy()
    changed[350, 2] += 1.0
    prints = []
    for folder, x in zip(folders, (table, table, changed), strict=True):
        folder.mkdir()
        spec, _ = write(folder, x, labels)
        os.utime(folder / spec.partition(":")[0], (len(prints) + 1, 1))
        prints.append(open_data(folder / spec).fingerprint())
    if "gz" not in spec:  # gzip, as pandas calls it, writes the time into the file
        assert prints[0] == prints[1]
    assert prints[0] != prints[2]


@pytest.mark.parametrize("write", WRITERS)
def test_half_a_file_is_said_to_be_damaged(write, tmp_path, table, labels):
    spec, _ = write(tmp_path, table, labels)
    path = tmp_path / spec.partition(":")[0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 - 3])
    if path.suffix == ".csv":
        return  # half a table of text is a table
    with pytest.raises(DataError) as caught:
        data = opened(tmp_path / spec)
        try:
            data.read(np.arange(len(data)))
        finally:
            data.close()
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("write", WRITERS)
def test_damage_anywhere_is_an_error_of_one_line_or_harmless(write, tmp_path, table, labels):
    spec, _ = write(tmp_path, table, labels)
    path = tmp_path / spec.partition(":")[0]
    content, random = path.read_bytes(), np.random.default_rng(0)
    for trial in range(30):
        damaged = np.frombuffer(content, np.uint8).copy()
        # headers stand at either end, so two thirds of the damage is done there
        reach = [len(damaged), 400, 400][trial % 3]
        places = random.integers(reach, size=4) % len(damaged)
        damaged[-1 - places if trial % 3 == 2 else places] = random.integers(256, size=4)
        path.write_bytes(damaged.tobytes())
        try:
            data = opened(tmp_path / spec)
        except DataError as error:
            assert "\n" not in str(error)
            continue
        with closing(data), suppress(DataError):
            data.read(np.arange(len(data)))
            data.labels(np.arange(len(data)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv", b'1,2\n"3"\r4,5\n'),
        ("d.npy", b"\x93NUMPY\x01\x00\x14\x00{'shape': (((((((((\n"),
    ],
)
def test_damage_that_parsers_answer_strangely(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="no table row|no numpy array"):
        opened(tmp_path / name)


def test_files_are_told_by_content_not_by_suffix(tmp_path, table, labels, open_data):
    write_npz(tmp_path, table, labels)
    (tmp_path / "d.npz").rename(tmp_path / "d.dat")
    assert np.array_equal(open_data(tmp_path / "d.dat:x").read(ROWS), table[ROWS])


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, open_data):
    peaks = []
    for rows in (2_000, 40_000):
        x = np.random.default_rng(0).random((rows, 64), np.float32)
        np.savez_compressed(tmp_path / f"{rows}.npz", x=x)
        data = open_data(tmp_path / f"{rows}.npz")
        tracemalloc.start()
        for start in range(0, rows, 500):
            data.read(np.arange(start, start + 500))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_damaged_archive_is_refused_each_time(tmp_path, open_data):
    """What was unpacked up to the damage is no array, however often it is asked for."""
    x = np.arange(200_000.0).reshape(20_000, 10)
    np.savez(tmp_path / "d.npz", x=x)
    data = bytearray((tmp_path / "d.npz").read_bytes())
    data[700_000] ^= 255
    (tmp_path / "d.npz").write_bytes(data)
    rows = open_data(tmp_path / "d.npz")
    assert np.array_equal(rows.read(np.arange(100, 110)), x[100:110])
    for _ in range(3):
        with pytest.raises(DataError, match="damaged"):
            rows.read(np.arange(3))


@pytest.mark.parametrize("kept", [True, False])
def test_an_archive_read_again_from_its_start_is_kept_if_small(
    tmp_path, open_data, monkeypatch, kept
):
    """Sweeps give the same rows either way, and memory grows by the array where it is kept."""
    x = np.random.default_rng(0).random((4_000, 64), np.float32)
    np.savez_compressed(tmp_path / "d.npz", x=x)
    monkeypatch.setattr(streams, "HELD", x.nbytes - (not kept))
    data = open_data(tmp_path / "d.npz")
    tracemalloc.start()
    peaks = []
    for _ in range(3):
        for start in range(0, 4_000, 500):
            rows = np.arange(start, start + 500, 3)
            assert np.array_equal(data.read(rows), x[rows])
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert (peaks[2] - peaks[0] > 0.9 * x.nbytes) is kept


# ---------------------------------------------------------------------- arrays


def test_the_only_array_needs_no_name(tmp_path, table, open_data):
    np.savez(tmp_path / "d.npz", only=table)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["deep/only"] = table
    assert open_data(tmp_path / "d.npz").name == "d.npz:only"
    assert open_data(tmp_path / "d.h5").name == "d.h5:/deep/only"


@pytest.mark.parametrize("write", [write_npz, write_hdf5])
def test_a_wrong_name_lists_the_right_ones(write, tmp_path, table, labels):
    spec, _ = write(tmp_path, table, labels)
    path = tmp_path / spec.partition(":")[0]
    with pytest.raises(DataError, match=r"holds 2 arrays.*it has: (a/)?x, y"):
        opened(path)
    with pytest.raises(DataError, match=r"has no array 'yy'; did you mean 'y'\? it has"):
        opened(f"{path}:yy")
    with pytest.raises(DataError, match="one label, or a row of them, for each of 2 rows"):
        np.savez(tmp_path / "odd.npz", x=table[:2], y=table)
        opened(f"{tmp_path / 'odd.npz'}:x,y")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickles_are_refused_and_never_run(suffix, tmp_path):
    array = np.array([Trap(tmp_path / "ran")], dtype=object)
    path = tmp_path / f"d{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, array, allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        opened(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.zeros(2, "M8[s]")])
def test_what_is_no_number_is_refused(array, tmp_path):
    np.save(tmp_path / "d.npy", array)
    with pytest.raises(DataError, match=r"has type .*expected an array of numbers"):
        opened(tmp_path / "d.npy")


def test_a_single_number_is_no_data(tmp_path):
    np.save(tmp_path / "d.npy", np.array(3.0))
    with pytest.raises(DataError, match="single number"):
        opened(tmp_path / "d.npy")


def test_a_forged_shape_is_refused_without_allocating(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4)}"
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(DataError, match="cut short: expected 32000000000128 bytes, found 128"):
        opened(tmp_path / "d.npy")


# ---------------------------------------------------------------------- files that are none


def test_a_missing_file_is_named_with_who_was_asked(tmp_path):
    with pytest.raises(
        DataError, match=r"none\.npz:x': no such file or folder.*arrays, images, prior, tables"
    ):
        opened(f"{tmp_path}/none.npz:x")


@pytest.mark.parametrize("name", ["d.npy", "d.npz:x", "d.h5:/x", "d.csv", "d.parquet", "d.zip"])
def test_a_pointer_is_called_one(name, tmp_path):
    (tmp_path / name.partition(":")[0]).write_bytes(LFS)
    with pytest.raises(DataError, match="Git LFS pointer.*git lfs pull"):
        opened(tmp_path / name)


@pytest.mark.parametrize("name", ["d.npy", "d.csv"])
def test_an_empty_file_is_called_one(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="is an empty file"):
        opened(tmp_path / name)


def test_text_in_the_clothes_of_an_array_is_called_text(tmp_path):
    (tmp_path / "d.npy").write_text("this is no array\n")
    with pytest.raises(DataError, match="is a text file, which no data source reads"):
        opened(tmp_path / "d.npy")


def test_a_path_may_hold_colons(tmp_path, table, open_data):
    np.savez(tmp_path / "a:b.npz", x=table, y=table)
    assert split_spec(f"{tmp_path}/a:b.npz:x") == (tmp_path / "a:b.npz", "x")
    assert len(open_data(f"{tmp_path}/a:b.npz:x")) == 700


def test_the_fingerprint_of_a_long_file_reads_both_its_ends(tmp_path):
    path = tmp_path / "long"
    content = bytearray(2 * BLOCKS * BLOCK_SIZE)
    prints = set()
    for position in (None, 0, len(content) - 1):
        changed = bytearray(content)
        if position is not None:
            changed[position] = 1
        path.write_bytes(changed)
        prints.add(fingerprint(path))
    assert len(prints) == 3
    assert fingerprint(path, "x") != fingerprint(path, "y")


# ---------------------------------------------------------------------- tables


def test_bad_cells_are_named(tmp_path, open_data):
    (tmp_path / "d.csv").write_text("a,b\n1,2\n3,x y\n")
    with pytest.raises(DataError, match=r"row 1, column 1 of .*found 'x y'.*':label=1'"):
        open_data(tmp_path / "d.csv").read(np.arange(2))
    (tmp_path / "e.csv").write_text("a,b\n1,2\n3,\n")
    with pytest.raises(DataError, match="row 1, column 1 of .*found nothing"):
        open_data(tmp_path / "e.csv").read(np.arange(2))


def test_true_and_false_are_one_and_nothing(tmp_path, open_data):
    """As in Parquet; a text beside them stays what it is, and is named."""
    (tmp_path / "d.csv").write_text('a,b,who\n1,True,"x, ""y"""\n2,FALSE,z\n3,0.5,\n')
    data = open_data(f"{tmp_path}/d.csv:id=who")
    assert np.array_equal(data.read(np.arange(3)), [[1, 1], [2, 0], [3, 0.5]])
    (tmp_path / "e.csv").write_text("True,1\nfalse,2\n")  # no header, for these are numbers
    assert np.array_equal(open_data(tmp_path / "e.csv").read(np.arange(2)), [[1, 1], [0, 2]])
    (tmp_path / "f.csv").write_text("a,b\nTrue,x\n")
    with pytest.raises(DataError, match=r"row 0, column 1 of .*found 'x'"):
        open_data(tmp_path / "f.csv").read(np.arange(1))


def test_a_comment_is_said_to_be_one(tmp_path):
    (tmp_path / "d.csv").write_text("# by an instrument\na,b\n1,2\n")
    with pytest.raises(DataError, match=r"a comment \('# by an instrument'\): take such lines out"):
        opened(tmp_path / "d.csv")


@pytest.mark.parametrize(("text", "said"), [("a;b\n1;2\n", True), ("some words\nmore\n", False)])
def test_a_table_by_another_suffix_is_told_its_name(text, said, tmp_path):
    (tmp_path / "d.txt").write_text(text)
    with pytest.raises(DataError, match="is a text file, which no data source reads") as caught:
        opened(tmp_path / "d.txt")
    assert ("name it d.csv" in str(caught.value)) == said


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (",a,b", "column 0 has no name, as a saved index has none: add ':id=0'"),
        ("a,b,", "column 2 has no name, as a saved index has none: add ':id=2'"),
        ("n,a,b", r"1 more column: name the inputs with ':columns=A,B'.*first is 'n'"),
    ],
)
def test_a_column_too_many_is_told_how_to_leave_it_out(header, words, tmp_path, open_data):
    (tmp_path / "d.csv").write_text(f"{header}\n0,1,2\n1,3,4\n")
    vae = VAE(decode=lambda z: z, encode=None, input_shape=(2,), latent_shape=(2,))
    with pytest.raises(DataError, match=words) as caught:
        prepare(open_data(tmp_path / "d.csv"), vae)
    if "add" in words:
        role = str(caught.value).rpartition("'")[0].rpartition("'")[2]
        assert prepare(open_data(f"{tmp_path}/d.csv{role}"), vae).samples == 2


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_the_array_that_fits_the_model_is_the_one_suggested(kind, tmp_path):
    arrays = {"ids": np.arange(5), "pictures": np.zeros((5, 3, 3)), "x": np.zeros((5, 2))}
    if kind == "npz":
        np.savez(tmp_path / "d.npz", **arrays)
    else:
        with h5py.File(tmp_path / "d.h5", "w") as file:
            for name, values in arrays.items():
                file[name] = values
            file["words"] = np.array([b"a"] * 5)
    for shape, name in ((2,), "x"), ((9,), "pictures"), ((1, 3, 3), "pictures"), ((7,), "ids"):
        vae = VAE(decode=lambda z: z, encode=None, input_shape=shape, latent_shape=(2,))
        with pytest.raises(DataError, match=f"as in d.{kind}:{name};"):
            opened(f"{tmp_path}/d.{kind}", vae)
    with pytest.raises(DataError, match=f"as in d.{kind}:pictures;"):
        opened(f"{tmp_path}/d.{kind}")


def test_ragged_rows_are_named(tmp_path):
    (tmp_path / "d.csv").write_text("a,b\n1,2\n3,4,5\n")
    with pytest.raises(DataError, match=r"row 1 of .* has 3 columns; expected 2"):
        opened(tmp_path / "d.csv")


def test_an_unknown_label_lists_the_columns(tmp_path):
    (tmp_path / "d.csv").write_text("first,second\n1,2\n")
    with pytest.raises(
        DataError, match=r"no column 'secnd'; did you mean 'second'\?.*its 2 columns first, second"
    ):
        opened(f"{tmp_path}/d.csv:label=secnd")
    with pytest.raises(DataError, match="expected d.csv:label=COLUMN, .* found 'd.csv:x'"):
        opened(f"{tmp_path}/d.csv:x")


@pytest.mark.parametrize(
    ("text", "rows"), [("1,2\n3,4\n", 2), ("a,b\n3,4\n", 1), ("0,1\n3,4\n", 1)]
)
def test_a_header_is_recognised(text, rows, tmp_path, open_data):
    (tmp_path / "d.csv").write_text(text)
    data = open_data(tmp_path / "d.csv")
    assert len(data) == rows
    assert np.array_equal(data.read(np.array([rows - 1])), [[3, 4]])


def test_a_table_with_nothing_but_a_header_is_empty(tmp_path, open_data):
    (tmp_path / "d.csv").write_text("a,b\n")
    data = open_data(tmp_path / "d.csv")
    vae = VAE(decode=lambda z: z, encode=None, input_shape=(2,), latent_shape=(2,))
    with pytest.raises(DataError, match="has no rows"):
        prepare(data, vae)


def test_ascending_reads_decompress_once(tmp_path, table, monkeypatch, open_data):
    spec, _ = write_tsv_gz(tmp_path, table, None)
    data = open_data(tmp_path / spec)
    data.read(np.array([0]))
    rewinds = []
    rewind = gzip._GzipReader._rewind
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda s: (rewinds.append(1), rewind(s)))
    for start in range(1, 699, 30):
        data.read(np.arange(start, start + 1))
        data.labels(np.arange(start, start + 1))
    assert not rewinds


def test_parquet_columns_of_text_are_named(tmp_path):
    pd.DataFrame({"a": [1.0], "b": ["x"]}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"column 'b' of .* has type (large_)?string; .*:label=b"):
        opened(tmp_path / "d.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    pd.DataFrame({"a": [1.0]}).to_parquet(tmp_path / "d.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'isoprobe\[data\]'"):
        opened(tmp_path / "d.parquet")


# ---------------------------------------------------------------------- images


def encoded(pixels, form="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), np.uint8)


def as_folder(root, files):
    for name, content in files.items():
        path = root / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "pictures"


def as_zip(root, files):
    with zipfile.ZipFile(root / "pictures.zip", "w") as archive:
        for name, content in reversed(files.items()):
            archive.writestr(name, content)
    return root / "pictures.zip"


@pytest.mark.parametrize("pack", [as_folder, as_zip])
@pytest.mark.parametrize("grey", [False, True])
def test_images_come_sorted_and_whole(pack, grey, tmp_path, pictures, open_data):
    if grey:
        pictures = pictures[..., 0]
    files = {f"{i % 2}/{i}.{'png' if i else 'PNG'}": encoded(p) for i, p in enumerate(pictures)}
    files |= {"index.csv": b"a,b", "1/._1.png": b"shadow", "notes.txt": b"x"}
    data = open_data(pack(tmp_path, files))
    order = [0, 2, 4, 1, 3]
    expected = pictures[order] if grey else pictures[order].transpose(0, 3, 1, 2)
    assert data.dtype == "uint8"
    assert data.shape == ((6, 8) if grey else (3, 6, 8))
    assert np.array_equal(data.read(np.arange(5)), expected)
    assert np.array_equal(data.read(np.array([1, 4])), expected[[1, 4]])


@pytest.mark.parametrize("pack", [as_folder, as_zip])
def test_images_of_two_kinds_are_refused(pack, tmp_path, pictures, open_data):
    sizes = pack(tmp_path, {"a.png": encoded(pictures[0]), "b.png": encoded(pictures[1][:5])})
    with pytest.raises(DataError, match=r"image b\.png of .* is 5x8 and the first is 6x8"):
        open_data(sizes).read(np.arange(2))


def test_images_of_two_colours_are_refused(tmp_path, pictures, open_data):
    files = {"a.png": encoded(pictures[0, ..., 0]), "b.png": encoded(pictures[1])}
    with pytest.raises(DataError, match="has colours and the first is grey"):
        open_data(as_zip(tmp_path, files)).read(np.arange(2))


def test_transparency_is_refused_unless_there_is_none(tmp_path, pictures, open_data):
    opaque = np.concatenate([pictures[0], np.full((6, 8, 1), 255, np.uint8)], axis=2)
    clear = opaque.copy()
    clear[2, 3, 3] = 7
    data = open_data(as_zip(tmp_path, {"a.png": encoded(opaque), "b.png": encoded(clear)}))
    assert np.array_equal(data.read(np.array([0]))[0], pictures[0].transpose(2, 0, 1))
    with pytest.raises(DataError, match="b.png of .* partly transparent"):
        data.read(np.array([1]))


def test_deep_pixels_are_read_from_0_to_65535(tmp_path, open_data):
    values = np.array([[0, 257], [60_000, 65_535]], np.uint16)
    data = open_data(as_zip(tmp_path, {"a.png": encoded(values)}))
    assert np.allclose(data.read(np.arange(1))[0], values / 257)
    assert any("65535" in note for note in data.notes)
    vae = VAE(decode=lambda z: z, encode=None, input_shape=(4,), latent_shape=(2,))
    x, _ = prepare(data, vae).batch(0, 1, "cpu", torch.float32)
    assert torch.allclose(x[0], torch.as_tensor(values.astype("f4") / 65_535).reshape(-1))


def test_pixels_of_other_types_are_refused(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(stream, "TIFF")
    with pytest.raises(DataError, match="pixels of type F, not bytes; store such images as .npy"):
        opened(as_zip(tmp_path, {"a.tiff": stream.getvalue()}))


def test_grey_in_three_channels_is_grey(tmp_path, pictures, open_data):
    thick = [np.repeat(p[..., :1], 3, 2) for p in pictures]
    path = as_folder(tmp_path, {f"{i}.png": encoded(p) for i, p in enumerate(thick)})
    one = VAE(decode=lambda z: z, encode=None, input_shape=(1, 6, 8), latent_shape=(2,))
    data = open_data(path, one)
    assert data.shape == (6, 8)
    assert np.array_equal(data.read(np.arange(5)), pictures[..., 0])
    assert any("three equal channels" in note for note in data.notes)
    for shape, found in (((3, 6, 8), (3, 6, 8)), ((1, 6, 8), (6, 8)), ((48,), (3, 6, 8))):
        vae = VAE(decode=lambda z: z, encode=None, input_shape=shape, latent_shape=(2,))
        assert opened(path, vae).shape == found
    assert opened(path).shape == (3, 6, 8)  # as stored, where no model says that it takes one
    (path / "1.png").write_bytes(encoded(pictures[1]))  # between those that are looked at
    with pytest.raises(DataError, match=r"image 1\.png of .* has colours and the first is grey"):
        opened(path, one).read(np.arange(5))


@pytest.mark.parametrize("pack", [as_folder, as_zip])
def test_images_of_several_sizes_are_resized_each(pack, tmp_path, pictures, open_data):
    files = {"a.png": encoded(pictures[0]), "b.png": encoded(pictures[1][:5])}
    data = open_data(pack(tmp_path, files))
    vae = VAE(decode=lambda z: z, encode=None, input_shape=(3, 4, 4), latent_shape=(2,))
    x, _ = prepare(data, vae, resize=4).batch(0, 2, "cpu", torch.float64)
    for row, picture in zip(x, (pictures[0], pictures[1][:5]), strict=True):
        alone = torch.as_tensor(picture.transpose(2, 0, 1) / 255.0)[None]
        right = torch.nn.functional.interpolate(alone, (4, 4), mode="bilinear", antialias=True)
        assert torch.allclose(row, right[0], atol=1e-12)
    with pytest.raises(DataError, match="expected one size: add resize"):
        prepare(data, replace(vae, input_shape=(3, 6, 8))).batch(0, 2, "cpu", torch.float64)


@pytest.mark.parametrize(
    "content", [b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_is_refused(content, tmp_path):
    with pytest.raises(DataError, match=r"image a\.png of pictures is no image"):
        opened(as_folder(tmp_path, {"a.png": content}))


def test_a_damaged_image_is_named(tmp_path, pictures, open_data):
    files = {"a.png": encoded(pictures[0]), "b.png": encoded(pictures[1])[:90]}
    data = open_data(as_folder(tmp_path, files))
    with pytest.raises(DataError, match=r"image b\.png of pictures is (damaged|no image)"):
        data.read(np.array([1]))


def test_pixel_bombs_are_refused_unopened(tmp_path):
    def chunk(kind, body):
        import zlib

        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    for side in (9_000, 12_000, 60_000):
        size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IEND", b"")
        with pytest.raises(DataError, match="too large"):
            opened(as_folder(tmp_path, {"a.png": bomb}))


def test_inflating_members_are_refused(tmp_path):
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes((1 << 26) + 1))
    with pytest.raises(DataError, match="far too large"):
        opened(path)


def test_no_member_leaves_the_archive(tmp_path, pictures, open_data):
    inner = tmp_path / "inner"
    inner.mkdir()
    files = {"../outside.png": encoded(pictures[0]), "/root.png": encoded(pictures[1])}
    data = open_data(as_zip(inner, files))
    assert data.read(np.arange(2)).shape == (2, 3, 6, 8)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inner", "pictures.zip"]


def test_links_out_of_the_folder_are_refused(tmp_path, pictures, open_data):
    (tmp_path / "secret.png").write_bytes(encoded(pictures[0]))
    folder = as_folder(tmp_path, {"a.png": encoded(pictures[0])})
    (folder / "b.png").symlink_to("a.png")
    assert len(open_data(folder)) == 2
    (folder / "c.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"link .*c\.png leads out of the folder"):
        opened(folder)


def test_no_images_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="holds no images"):
        opened(tmp_path)
    with pytest.raises(DataError, match="zip archive of no known kind, which no data source reads"):
        opened(as_zip(tmp_path, {"notes.txt": b"x"}))


@pytest.mark.parametrize("pack", [as_folder, as_zip])
def test_the_fingerprint_of_images_follows_their_content(pack, tmp_path, pictures, open_data):
    prints = []
    for name, changed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        pictures[3, 0, 0, 0] ^= changed
        files = {f"{i}.bmp": encoded(p, "BMP") for i, p in enumerate(pictures)}
        prints.append(open_data(pack(tmp_path / name, files)).fingerprint())
    assert prints[0] == prints[1] != prints[2]


# ---------------------------------------------------------------------- prior


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Unflatten(1, (1, 2, 3)))
    return VAE(
        decode=module, encode=None, input_shape=(1, 2, 3), latent_shape=(3,), module=module.double()
    )


def test_prior_rows_do_not_depend_on_the_batch(decoder, open_data):
    data = open_data("prior:1000,seed=3", decoder)
    whole = data.read(np.arange(1000))
    assert len(data) == 1000
    assert np.allclose(data.read(np.array([7, 600])), whole[[7, 600]], rtol=1e-13, atol=1e-13)
    assert not np.allclose(open_data("prior:1000", decoder).read(np.arange(1000)), whole)


def test_prior_rows_have_the_models_own_distribution(decoder, open_data):
    data = open_data("prior", decoder)
    x = data.read(np.arange(len(data))).reshape(10_000, 6)
    weight, bias = (p.detach().numpy() for p in decoder.module[0].parameters())
    assert np.allclose(x.mean(axis=0), bias, atol=0.05)
    assert np.allclose(np.cov(x.T), weight @ weight.T, atol=0.05)


def test_prior_keeps_the_declared_range_and_says_so(decoder, open_data):
    data = open_data("prior:50", decoder.with_facts(input_range=(0.0, 0.5)))
    x = data.read(np.arange(50))
    assert (x.min(), x.max()) == (0.0, 0.5)
    assert "clipped to [0, 0.5]" in data.notes[0]


def test_prior_fingerprint_follows_model_and_seed(decoder, open_data):
    first = open_data("prior", decoder).fingerprint()
    assert open_data("prior", decoder).fingerprint() == first
    assert open_data("prior:seed=1", decoder).fingerprint() != first
    decoder.module[0].bias.data[0] += 1
    assert open_data("prior", decoder).fingerprint() != first


@pytest.mark.parametrize("spec", ["prior:x", "prior:0", "prior:-3", "prior:seed=", "prior:sed=1"])
def test_wrong_priors_are_refused(spec, decoder):
    with pytest.raises(DataError, match="expected prior, prior:N or prior:N,seed=S; found"):
        opened(spec, decoder)


def test_prior_needs_a_model():
    with pytest.raises(DataError, match="draws samples from a model"):
        opened("prior")


# ---------------------------------------------------------------------- real data


@pytest.mark.shared
def test_mnist(shared, open_data):
    path = shared / "data" / "mnist.npz"
    data = open_data(f"{path}:x_train,y_train")
    with np.load(path) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    vae = VAE(
        decode=lambda z: z,
        encode=None,
        input_shape=(1, 32, 32),
        latent_shape=(10,),
        facts=Facts(input_range=(0.0, 1.0)),
    )
    prepared = prepare(data, vae, samples=600, resize=32)
    batch, labels = prepared.batch(100, 160, "cpu", torch.float32)
    rows = prepared.indices(100, 160)
    assert len(set(rows)) == 60
    images = torch.from_numpy(x[rows] / 255)[:, None]
    expected = torch.nn.functional.interpolate(images, (32, 32), mode="bilinear").float()
    assert torch.allclose(batch, expected, rtol=0, atol=1e-6)
    assert np.array_equal(labels, y[rows])


@pytest.mark.shared
def test_celeba(shared, open_data):
    data = open_data(shared / "data" / "celeba64_subset.zip")
    assert len(data) == 23_840
    assert data.shape == (3, 64, 64)
    mean = data.read(np.arange(0, 23_840, 40)).mean(axis=(0, 2, 3)) / 255
    assert np.allclose(mean, [0.505, 0.420, 0.375], atol=0.01)  # as the folder's README states


@pytest.mark.shared
def test_thyroid(shared, open_data):
    data = open_data(shared / "data" / "odds_thyroid.npz:x,y")
    assert len(data) == 3772
    assert data.shape == (6,)
    assert data.labels(np.arange(3772)).sum() == 93
    x = data.read(np.arange(3772))
    assert (x.min(), x.max()) == (0.0, 1.0)


def test_a_place_that_stands_twice_holds_the_sum_as_in_scipy(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    draw = np.random.default_rng(0)
    ends = np.append(0, np.cumsum(draw.integers(0, 7, 40)))
    places = draw.integers(0, 12, ends[-1])
    values = draw.normal(size=ends[-1]).astype("f4")
    path = tmp_path / "c.h5ad"
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        for name, array in (("data", values), ("indices", places), ("indptr", ends)):
            file[f"X/{name}"] = array
        file["X"].attrs["encoding-type"] = "csr_matrix"
        for table, count in (("obs", 40), ("var", 12)):
            file[f"{table}/_index"] = [f"{k}" for k in range(count)]
    expected = sparse.csr_matrix((values, places, ends), (40, 12)).toarray()
    rows = np.array([0, 1, 2, 9, 20, 21, 39])
    with closing(opened(path)) as data:
        assert np.allclose(data.read(rows), expected[rows], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "told", [[b"x", b"y"], [np.nan, np.nan], [40, 12, 1], 12, [40, 11], [40, 12], [40.0, 12.0]]
)
def test_a_shape_of_cells_is_two_numbers(tmp_path, told):
    path = tmp_path / "c.h5ad"
    with h5py.File(path, "w") as file:
        cells(file)
        file["X/indptr"] = np.arange(41)
        file["X"].attrs["shape"] = told
    if told == [40, 12]:
        with closing(opened(path)) as data:
            assert data.shape == (12,)
        return
    with pytest.raises(DataError, match="its rows do not fit its values"):
        opened(path)


def test_packed_numbers_are_said_to_be_read_as_stored(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.ones((4, 2), "i2")
    with closing(opened(path)) as data:
        assert data.notes == ()
    with h5py.File(path, "a") as file:
        file["x"].attrs["scale_factor"] = 0.1
    with closing(opened(path)) as data:
        assert "without its scale_factor" in data.notes[0]
