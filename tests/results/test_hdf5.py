from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isoprobe.contracts import Variable
from isoprobe.errors import DataError, PluginError, ResultError
from isoprobe.results.writer import ResultWriter

MEAN = np.arange(30.0).reshape(10, 3) / 7


def column(values, *dims):
    return Variable(("sample", *dims), np.asarray(values), "a column", "nat", "Eq. 3")


def write(path, batches=((0, 4), (4, 10)), groups=None, attrs=None, **options):
    with ResultWriter.open(path, samples=10, latent=3, **options) as writer:
        for start, stop in batches:
            writer.append(start, {"mean": column(MEAN[start:stop], "latent")})
        for name, variables in (groups or {}).items():
            writer.write_group(name, variables)
        return writer.finish(attrs or {})


def test_rows_come_back_as_written(tmp_path):
    with write(tmp_path / "r.h5") as result:
        np.testing.assert_array_equal(result.samples()["mean"], MEAN)
        np.testing.assert_array_equal(result.samples(3, 7, ["mean"])["mean"], MEAN[3:7])


def test_the_finishing_pass_reads_rows_before_the_end(tmp_path):
    with ResultWriter.open(tmp_path / "r.h5", samples=10, latent=3) as writer:
        writer.append(0, {"mean": column(MEAN, "latent")})
        for start in (0, 5):
            mean = writer.columns(start, start + 5, ["mean"])["mean"]
            writer.append(start, {"twice": column(2 * mean, "latent")})
        with writer.finish({}) as result:
            np.testing.assert_array_equal(result.samples()["twice"], 2 * MEAN)


GROUP = {
    "norm": Variable(("latent",), np.array([0.9, 1.0, 0.1]), "pullback norm", "1", "Eq. 23"),
    "cosine": Variable(("latent", "latent_2"), np.eye(3), "cosine", "1", "Lemma 4"),
    "step": Variable(("step",), np.array([-2.0, 0.0, 2.0, 4.0]), "step in y"),
    "image": Variable(("step", "latent", "row"), np.ones((4, 3, 2), np.float16), "image"),
    "name": Variable(("latent",), np.array(["a", "ß", ""]), "name"),
    "active": Variable(("latent",), np.array([True, True, False]), "active"),
    "total": Variable((), np.array(3.5), "sum", "nat"),
    "nothing": Variable(("empty",), np.zeros(0), "an empty axis"),
}


def test_xarray_opens_every_group_with_its_dimensions_units_and_equations(tmp_path):
    write(tmp_path / "r.h5", groups={"isometry": GROUP}).close()
    with xarray.open_dataset(tmp_path / "r.h5", engine="h5netcdf", group="isometry") as data:
        for name, variable in GROUP.items():
            assert data[name].dims == variable.dims
            assert data[name].attrs["long_name"] == variable.long_name
            assert data[name].attrs["units"] == variable.units
            np.testing.assert_array_equal(data[name].values, variable.values)
        assert data["norm"].attrs["equation"] == "Eq. 23"
        assert data["active"].dtype == bool
        assert data["image"].dtype == np.float32  # netCDF has no half precision
        assert set(data.variables) == set(GROUP)  # bare dimensions do not show as variables
    with xarray.open_dataset(tmp_path / "r.h5", engine="h5netcdf", group="samples") as data:
        assert data["mean"].dims == ("sample", "latent")
    with xarray.open_dataset(tmp_path / "r.h5", engine="h5netcdf") as data:
        assert data.sizes == {"sample": 10, "latent": 3}


def test_every_axis_of_every_data_set_has_a_scale(tmp_path):
    write(tmp_path / "r.h5", groups={"isometry": GROUP}).close()
    bare = []

    def look(name, item):
        if isinstance(item, h5py.Dataset) and not item.is_scale:
            bare.extend(f"{name}[{i}]" for i, axis in enumerate(item.dims) if len(axis) != 1)

    with h5py.File(tmp_path / "r.h5") as file:
        file.visititems(look)
        assert file["samples/mean"].compression == "gzip"
        assert file["samples/mean"].shuffle
    assert bare == []


def test_the_result_reads_back_what_was_written(tmp_path):
    with write(tmp_path / "r.h5", groups={"isometry": GROUP}) as result:
        assert set(result["isometry"]) == set(GROUP)
        for name, variable in GROUP.items():
            read = result["isometry"][name]
            np.testing.assert_array_equal(read.values, variable.values)
            assert (read.dims, read.long_name, read.units, read.equation) == (
                variable.dims,
                variable.long_name,
                variable.units,
                variable.equation,
            )


numbers = st.one_of(
    *(hnp.floating_dtypes(endianness=e) for e in "<>"),
    *(hnp.integer_dtypes(endianness=e) for e in "<>"),
    hnp.unsigned_integer_dtypes(),
    hnp.boolean_dtypes(),
)


@given(values=hnp.arrays(numbers, hnp.array_shapes(min_dims=2, max_dims=3)), flip=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_numbers_in_any_layout_round_trip(values, flip):
    rows = values[::-1].T.swapaxes(0, -1) if flip else values
    dims = tuple(f"axis_{i}" for i in range(rows.ndim - 1))
    samples = len(rows)
    with ResultWriter.open(None, samples=samples, latent=1) as writer:
        writer.append(0, {"x": column(rows[: samples // 2], *dims)})
        writer.append(samples // 2, {"x": column(rows[samples // 2 :], *dims)})
        with writer.finish({}) as result:
            np.testing.assert_array_equal(result.samples()["x"], rows)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_precision_is_kept(tmp_path, kind):
    with ResultWriter.open(None, samples=10, latent=3) as writer:
        writer.append(0, {"mean": column(MEAN.astype(kind), "latent")})
        with writer.finish({}) as result:
            assert result.samples()["mean"].dtype == kind


ATTRIBUTES = {
    "text": "a ß",
    "no text": "",
    "number": 3,
    "huge": 2**70,
    "real": 0.25,
    "flag": True,
    "nothing": None,
    "numbers": [1.5, 2.0],
    "words": ["a", "b"],
    "mixed": [1, "a", None],
    "empty": [],
    "nested": {"a": {"b": [1, 2]}},
    "long": "x" * 200_000,
}


def test_attributes_round_trip(tmp_path):
    with write(tmp_path / "r.h5", attrs=ATTRIBUTES) as result:
        assert {k: result.attrs[k] for k in ATTRIBUTES} == ATTRIBUTES
        assert result.attrs["complete"] is True
    with h5py.File(tmp_path / "r.h5") as file:
        assert file.attrs["number"] == 3
        assert file.attrs["text"].decode() == "a ß"
    with xarray.open_dataset(tmp_path / "r.h5", engine="h5netcdf") as data:
        assert data.attrs["text"] == "a ß"


@pytest.mark.parametrize("text", ["a\0b", "\udcff name of a file"])
def test_text_that_hdf5_cannot_keep_does_not_lose_the_run(text):
    names = Variable(("sample",), np.array([text] * 10), "name")
    with ResultWriter.open(None, samples=10, latent=1) as writer:
        writer.write_group("labels", {"name": names})
        with writer.finish({"command": text, "nested": {"x": text}}) as result:
            assert "name" in result["labels"]
            assert len(result.attrs["command"]) == len(text)


def test_the_same_run_gives_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, groups={"isometry": GROUP}, attrs=ATTRIBUTES).close()
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_existing_output_is_refused_before_anything_is_written(tmp_path):
    write(tmp_path / "r.h5").close()
    before = (tmp_path / "r.h5").read_bytes()
    with pytest.raises(ResultError, match="overwrite=True"):
        ResultWriter.open(tmp_path / "r.h5", samples=10, latent=3)
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]
    assert (tmp_path / "r.h5").read_bytes() == before


def test_overwriting_replaces_it(tmp_path):
    write(tmp_path / "r.h5", attrs={"run": 1}).close()
    with write(tmp_path / "r.h5", attrs={"run": 2}, overwrite=True) as result:
        assert result.attrs["run"] == 2


def test_a_mistake_in_the_input_leaves_nothing_behind(tmp_path):
    with (
        pytest.raises(DataError),
        ResultWriter.open(tmp_path / "r.h5", samples=10, latent=3) as writer,
    ):
        writer.append(0, {"mean": column(MEAN[:4], "latent")})
        raise DataError("NaN in row 4")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_result_goes_away_with_its_reader():
    result = write(None)
    folder = result.path.parent
    assert result.path.exists()
    result.close()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([column(MEAN[:4], "latent"), column(MEAN[:4].astype("f4"), "latent")], "changed"),
        ([column(MEAN[:4], "latent"), column(MEAN[:4, :2], "other")], "changed"),
        ([column(MEAN[:4, :2], "latent")], "2 along 'latent' where 3"),
        ([Variable(("latent",), np.ones(3), "no rows")], "'sample' as its first"),
        ([column(np.array(["a", "b"]))], "needs numbers"),
        ([column(MEAN[:4])], "one dimension name for each axis"),
    ],
)
def test_a_wrong_column_is_named(tmp_path, batches, message):
    with (
        pytest.raises(PluginError, match="mean") as caught,
        ResultWriter.open(tmp_path / "r.h5", samples=10, latent=3) as writer,
    ):
        for start, variable in enumerate(batches):
            writer.append(4 * start, {"mean": variable})
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_rows_past_the_last_sample_are_refused(tmp_path):
    writer = ResultWriter.open(tmp_path / "r.h5", samples=10, latent=3)
    with pytest.raises(PluginError, match="along 'sample'"):
        writer.append(8, {"mean": column(MEAN[:4], "latent")})
    writer.abort()


@pytest.mark.parametrize(
    ("batches", "message"),
    [([(4, 10)], "lacks rows between 0 and 4"), ([(0, 4), (2, 6)], "has rows up to 4 already")],
)
def test_rows_come_in_order(tmp_path, batches, message):
    with pytest.raises(PluginError, match=message):
        write(tmp_path / "r.h5", batches=batches)
    assert list(tmp_path.iterdir()) == []


def test_a_column_with_missing_rows_is_no_result(tmp_path):
    with pytest.raises(PluginError, match="lacks rows"):
        write(tmp_path / "r.h5", batches=[(0, 4)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "variable", "message"),
    [
        ("x", Variable(("latent",), np.ones(4), "x"), "4 along 'latent' where 3"),
        ("x", Variable(("a", "a"), np.eye(2), "x"), "all different"),
        ("x", Variable(("a",), np.eye(2), "x"), "one dimension name for each axis"),
        ("x/y", Variable((), np.array(1.0), "x"), "no '/'"),
        ("x", Variable((), np.array(1j), "x"), "numbers or text"),
        ("a", Variable(("a", "b"), np.eye(2), "x"), "needs one axis"),
        ("x", Variable(("a b",), np.ones(2), "x"), "a plain word"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path, name, variable, message):
    writer = ResultWriter.open(tmp_path / "r.h5", samples=10, latent=3)
    with pytest.raises(PluginError, match=f"isometry/{name}") as caught:
        writer.write_group("isometry", {name: variable})
    assert message in str(caught.value)
    writer.abort()


def test_targets_that_cannot_be(tmp_path):
    for path, message in [
        (tmp_path / "no" / "r.h5", "no folder"),
        (tmp_path, "not a regular file"),
    ]:
        with pytest.raises(ResultError, match=message):
            ResultWriter.open(path, samples=1, latent=1)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isoprobe.results.netcdf.write_attributes", full)
    with pytest.raises(ResultError, match="No space left"):
        write(tmp_path / "r.h5")
    assert list(tmp_path.iterdir()) == []
