"""Tables of Section 5.3: what they hold, the split, and files that are missing or damaged."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest

from isoprobe.errors import DataError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.run.opening import open_data
from isoprobe.testing.data_sources import check_data_source
from isoprobe_trainers.anomaly import tables as tabular
from isoprobe_trainers.anomaly.source import AnomalySource
from isoprobe_trainers.anomaly.tables import Table, duplicates, load, split
from isoprobe_trainers.common import files


@pytest.fixture
def root(shared, monkeypatch):
    monkeypatch.setenv(files.VARIABLE, str(shared / "data"))
    return shared / "data"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(files.VARIABLE, str(tmp_path))
    for reader in (tabular._odds, tabular._kddcup99):
        reader.cache_clear()
    yield tmp_path
    for reader in (tabular._odds, tabular._kddcup99):
        reader.cache_clear()


def lines(count, label):
    rng = np.random.default_rng(len(label))
    for _ in range(count):
        row = [str(v) for v in rng.integers(0, 9, 41)]
        row[1], row[19] = str(rng.choice(["tcp", "udp"])), "0"
        yield ",".join([*row, label]).encode()


@pytest.fixture
def kdd(folder, monkeypatch):
    """A file of the form of KDDCup99's with 40 attacks, 5 of them twice, and 12 normal rows."""
    attacks, normal = list(lines(40, "smurf.")), list(lines(12, "normal."))
    text = b"\n".join([*attacks, *normal, *attacks[:5]]) + b"\n"
    (folder / "kddcup.data_10_percent.gz").write_bytes(gzip.compress(text))
    real = files.FILES["kddcup99"]
    known = files.DataFile(real.name, real.holds, real.page, hashlib.sha256(text).hexdigest())
    monkeypatch.setitem(files.FILES, "kddcup99", known)
    return text.splitlines()


# --------------------------------------------------------------------------- the tables


def test_thyroid_and_arrhythmia_are_the_tables_of_the_paper(root):
    thyroid, arrhythmia = load("thyroid"), load("arrhythmia")
    assert (thyroid.x.shape, thyroid.anomalous.sum()) == ((3772, 6), 93)
    assert (arrhythmia.x.shape, arrhythmia.anomalous.sum()) == ((452, 274), 66)
    for table in (thyroid, arrhythmia):
        assert (table.x.min(), table.x.max(), table.x.dtype) == (0.0, 1.0, np.float32)
    spread = np.ptp(arrhythmia.x, axis=0)
    assert np.flatnonzero(spread == 0).tolist() == [
        *(14, 62, 64, 78, 126, 127, 134, 136, 138, 140, 146, 151, 152, 159, 199, 259, 269)
    ]
    assert set(spread[spread > 0]) == {np.float32(1.0)}
    assert duplicates(thyroid, split(thyroid, 0)).distinct == 3772 - 116


def test_categories_become_one_column_each_and_numbers_are_scaled(kdd):
    table = load("kddcup99")
    fields = np.array([line.split(b",") for line in kdd])
    symbolic = [1, 2, 3, 6, 11, 20, 21]
    numeric = [j for j in range(41) if j not in symbolic]
    assert table.x.shape == (57, 34 + sum(len(np.unique(fields[:, j])) for j in symbolic))
    for place, column in enumerate(numeric):
        values = fields[:, column].astype(float)
        span = np.ptp(values)
        expected = (values - values.min()) / span if span else 0 * values
        np.testing.assert_allclose(table.x[:, place], expected, rtol=1e-6)
    assert (table.x[:, 34:].sum(1) == len(symbolic)).all()
    protocol = np.flatnonzero(fields[:, 1] == b"udp")
    assert np.array_equal(np.flatnonzero(table.x[:, 35]), protocol)
    assert np.flatnonzero(table.anomalous).tolist() == list(range(40, 52))


def test_the_revised_table_has_all_normal_rows_and_a_fifth_attacks(kdd):
    whole, revised = load("kddcup99"), load("kddcup-rev", 3)
    assert (len(revised.x), revised.anomalous.sum()) == (12 + 3, 3)
    normal = whole.x[whole.anomalous]
    assert np.array_equal(np.sort(revised.x[~revised.anomalous], 0), np.sort(normal, 0))
    attacks = {row.tobytes() for row in whole.x[~whole.anomalous]}
    assert all(row.tobytes() in attacks for row in revised.x[revised.anomalous])
    again, other = load("kddcup-rev", 3), load("kddcup-rev", 4)
    assert np.array_equal(revised.x, again.x)
    assert not np.array_equal(revised.x, other.x)


def test_duplicates_are_counted():
    x = np.array([[0, 1], [1, 0], [0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)
    table = Table("thyroid", x, np.array([0, 0, 0, 0, 1, 0], dtype=bool))
    halves = tabular.Split(np.array([0, 1]), np.array([3]), np.array([2, 4, 5]))
    found = duplicates(table, halves)
    assert (found.rows, found.distinct, found.conflicting) == (6, 4, 1)
    assert found.test_seen == pytest.approx(2 / 3)


# --------------------------------------------------------------------------- the split


def test_the_split_halves_the_rows_and_keeps_anomalies_out_of_training():
    rng = np.random.default_rng(0)
    table = Table("thyroid", rng.random((1001, 2), dtype=np.float32), rng.random(1001) < 0.2)
    halves = split(table, 5)
    assert len(halves.test) == 501
    fitted = np.concatenate([halves.train, halves.held_out])
    assert not table.anomalous[fitted].any()
    normal_of_half = (~table.anomalous).sum() - (~table.anomalous[halves.test]).sum()
    assert len(np.unique(fitted)) == len(fitted) == normal_of_half
    assert not np.intersect1d(fitted, halves.test).size
    assert len(halves.held_out) == round(0.1 * len(fitted))
    assert np.array_equal(halves.test, split(table, 5).test)
    assert not np.array_equal(halves.test, split(table, 6).test)


def test_the_source_gives_each_part_with_its_labels(root):
    table = load("thyroid")
    opened = {
        part: open_data(installed(), f"anomaly/thyroid:seed=2,part={part}", None, [])
        for part in ("train", "held_out", "test", "all")
    }
    sizes = {part: len(data) for part, data in opened.items()}
    assert sizes["all"] == 3772
    assert sizes["test"] == 1886
    every = np.arange(sizes["test"])
    rows = split(table, 2).test
    assert np.array_equal(opened["test"].read(every), table.x[rows])
    assert np.array_equal(opened["test"].labels(every), table.anomalous[rows].astype(np.uint8))
    assert not opened["train"].labels(np.arange(sizes["train"])).any()


def test_the_source_keeps_the_laws_of_data_sources(root):
    for held in check_data_source(AnomalySource(), "anomaly/thyroid:seed=1,part=test"):
        held()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("anomaly/thyriod", "did you mean 'thyroid'"),
        ("anomaly/thyroid:seed=-1", "seed of at least 0"),
        ("anomaly/thyroid:part=tset", "did you mean 'test'"),
    ],
)
def test_a_wrong_spec_is_one_clear_line(root, spec, message):
    with pytest.raises((DataError, OptionError), match=message) as caught:
        open_data(installed(), spec, None, [])
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------- files


def test_without_a_folder_the_remedy_is_named(monkeypatch):
    monkeypatch.delenv(files.VARIABLE, raising=False)
    with pytest.raises(DataError, match="data_root, or set ISOPROBE_DATA") as caught:
        files.locate("thyroid")
    assert "http://odds.cs.stonybrook.edu" in str(caught.value)


def test_a_missing_file_names_layout_and_official_page(folder):
    with pytest.raises(DataError, match="494021 lines.*https://kdd.ics.uci.edu") as caught:
        load("kddcup99")
    assert "\n" not in str(caught.value)


def npz(path, **arrays):
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "flipped", "other arrays", "objects", "empty"])
def test_a_damaged_or_foreign_array_file_is_one_clear_line(folder, root, monkeypatch, damage):
    monkeypatch.setenv(files.VARIABLE, str(folder))
    path = folder / "odds_thyroid.npz"
    good = (root / "odds_thyroid.npz").read_bytes()
    written = {
        "cut": lambda: path.write_bytes(good[: len(good) // 2]),
        "flipped": lambda: path.write_bytes(good[:4000] + bytes([good[4000] ^ 1]) + good[4001:]),
        "other arrays": lambda: npz(path, x=np.zeros((3, 2))),
        "objects": lambda: npz(path, x=np.array([{}]), y=np.zeros(1)),
        "empty": lambda: path.write_bytes(b""),
    }
    written[damage]()
    with pytest.raises(DataError, match="damaged or another file.*odds.cs.stonybrook") as caught:
        load("thyroid")
    assert "\n" not in str(caught.value)


def test_other_content_is_told_by_its_checksum(folder):
    npz(folder / "odds_thyroid.npz", x=np.zeros((3, 2)), y=np.zeros(3, np.uint8))
    with pytest.raises(DataError, match="expected sha256 27afa6f5.*found [0-9a-f]{64}"):
        load("thyroid")


@pytest.mark.parametrize("damage", ["cut", "not gzip", "other text"])
def test_a_damaged_or_other_kddcup_file_is_one_clear_line(kdd, folder, damage):
    path = folder / "kddcup.data_10_percent.gz"
    good = path.read_bytes()
    path.write_bytes(
        {"cut": good[:-20], "not gzip": b"hello", "other text": gzip.compress(b"1,2,3\n")}[damage]
    )
    pattern = "other content" if damage == "other text" else "is damaged"
    with pytest.raises(DataError, match=f"{pattern}.*fetch it again") as caught:
        load("kddcup99")
    assert "\n" not in str(caught.value)
