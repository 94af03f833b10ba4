"""Many files are read as one: folders of Parquet as other engines see them, and patterns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image

from isoprobe.contracts import Dataset
from isoprobe.errors import DataError
from isoprobe.registry.lookup import installed

COLUMNS = ["a", "b", "c"]


def rows(count: int, seed: int = 0) -> pandas.DataFrame:
    return pandas.DataFrame(np.random.default_rng(seed).random((count, 3)), columns=COLUMNS)


def parted(folder: Path, sizes: tuple[int, ...] = (5, 1, 30)) -> pandas.DataFrame:
    """Write a folder of parts; return all rows."""
    folder.mkdir()
    frames = [rows(size, seed) for seed, size in enumerate(sizes)]
    for place, frame in enumerate(frames):
        frame.to_parquet(folder / f"part-{place:02}.parquet", row_group_size=7, index=False)
    return pandas.concat(frames, ignore_index=True)


_OPEN: list[Dataset] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _OPEN:
        _OPEN.pop().close()


def opened(spec: object) -> Dataset:
    _OPEN.append(installed().data(str(spec)))
    return _OPEN[-1]


def refusal(spec: object) -> str:
    with pytest.raises(DataError) as caught:
        opened(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_are_those_of_the_parts_in_order(tmp_path: Path) -> None:
    expected = parted(tmp_path / "rows")
    data = opened(tmp_path / "rows")
    assert (len(data), data.shape, data.columns) == (36, (3,), tuple(COLUMNS))
    for indices in (np.arange(36), np.array([0, 4, 5, 6, 35]), np.array([5])):
        assert np.array_equal(data.read(indices), expected.to_numpy()[indices])
    assert data.labels(np.arange(2)) is None
    data.close()


def test_hidden_files_and_those_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    parted(tmp_path / "rows")
    for name in ("_SUCCESS", ".crc", "_delta.parquet"):
        (tmp_path / "rows" / name).write_text("no part")
    assert len(opened(tmp_path / "rows")) == 36


def test_hive_partitions_are_labels_or_go_along_and_are_no_inputs(tmp_path: Path) -> None:
    frame = rows(40)
    frame["class"] = np.arange(40) % 3
    frame["site"] = np.where(np.arange(40) % 2, "a b", "c/d")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    out = tmp_path / "rows"
    pyarrow.dataset.write_dataset(
        table, out, format="parquet", partitioning=["class", "site"], partitioning_flavor="hive"
    )
    seen = pyarrow.dataset.dataset(out, partitioning="hive").to_table().to_pandas()
    data = opened(f"{out}:label=class;keep=site")
    every = np.arange(40)
    order = np.lexsort(seen[COLUMNS].to_numpy().T)
    mine = np.lexsort(data.read(every).T)
    assert np.array_equal(data.read(every)[mine], seen[COLUMNS].to_numpy()[order])
    labels = data.labels(every)
    assert labels is not None
    assert labels.dtype == np.int64
    assert np.array_equal(labels[mine], seen["class"].to_numpy()[order].astype(int))
    assert data.carried == ("site",)
    assert data.carry(every)["site"][mine].tolist() == seen["site"].to_numpy()[order].tolist()
    plain = opened(out)
    assert plain.shape == (3,)
    assert "partition keys left out: class, site" in plain.notes
    assert "no input" in refusal(f"{out}:columns=a,b,class")


def test_patterns_join_files_of_any_source(tmp_path: Path) -> None:
    whole = np.arange(60.0).reshape(20, 3)
    for place, part in enumerate(np.split(whole, [3, 11])):
        np.save(tmp_path / f"x{place}.npy", part)
        np.savez(tmp_path / f"y{place}.npz", x=part, y=part[:, 0])
    assert np.array_equal(opened(tmp_path / "x*.npy").read(np.arange(20)), whole)
    data = opened(f"{tmp_path / 'y?.npz'}:x,y")
    assert np.array_equal(data.labels(np.arange(20)), whole[:, 0])
    parted(tmp_path / "rows")
    assert len(opened(tmp_path / "rows" / "*-0[01].parquet")) == 6
    assert len(opened(tmp_path / "**" / "*.parquet")) == 36


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x[1].npy", np.zeros((4, 3)))
    assert len(opened(tmp_path / "x[1].npy")) == 4


def test_a_fingerprint_tells_every_change_of_a_part(tmp_path: Path) -> None:
    parted(tmp_path / "rows")
    seen = {opened(tmp_path / "rows").fingerprint()}
    first = tmp_path / "rows" / "part-00.parquet"
    changes = [
        lambda: rows(5, 9).to_parquet(first, index=False),
        lambda: first.rename(first.with_name("part-99.parquet")),
        lambda: rows(1).to_parquet(first, index=False),
    ]
    for change in changes:
        change()
        seen.add(opened(tmp_path / "rows").fingerprint())
    assert len(seen) == 4
    assert opened(tmp_path / "rows").fingerprint() in seen
    (tmp_path / "rows").rename(tmp_path / "moved")
    assert opened(tmp_path / "moved").fingerprint() in seen


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    parted(tmp_path / "rows")
    bad = tmp_path / "rows" / "part-01.parquet"
    rows(3).rename(columns={"b": "z"}).to_parquet(bad, index=False)
    assert f"{bad} has rows of shape (3,)" in refusal(tmp_path / "rows")
    bad.write_bytes(bad.read_bytes()[:-9])
    assert f"{bad} is no whole Parquet file" in refusal(tmp_path / "rows")
    bad.write_bytes(b"")
    assert f"{bad} is an empty file" in refusal(tmp_path / "rows")
    assert "no file has a name like" in refusal(tmp_path / "z*.npy")
    uneven = tmp_path / "uneven"
    for place in ("k=1", "k=2/l=3"):
        (uneven / place).mkdir(parents=True)
        rows(3).to_parquet(uneven / place / "p.parquet", index=False)
    assert "lies in partitions of k, l, the first part in partitions of k" in refusal(uneven)
    twice = tmp_path / "twice" / "a=1"
    twice.mkdir(parents=True)
    rows(3).to_parquet(twice / "p.parquet", index=False)
    assert "has a column 'a', which its folder's name says too" in refusal(
        f"{tmp_path / 'twice'}:label=a"
    )


def test_folders_of_images_are_images_still(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "b.parquet")
    assert opened(tmp_path).dtype == "uint8"


def test_one_part_is_open_at_a_time(tmp_path: Path) -> None:
    parted(tmp_path / "rows", (2,) * 40)
    data = opened(tmp_path / "rows")
    data.read(np.arange(0, 80, 3))
    links = [p for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
    held = [link for link in links if "part-" in str(_target(link))]
    assert len(held) <= 1


def _target(link: Path) -> object:
    try:
        return link.readlink()
    except OSError:
        return ""
