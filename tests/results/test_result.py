from __future__ import annotations

import h5py
import numpy as np
import pytest

from isoprobe.contracts import Variable
from isoprobe.errors import ResultError
from isoprobe.results.reader import Result
from isoprobe.results.writer import ResultWriter
from tests.processes import python


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "r.h5"
    with ResultWriter.open(path, samples=4, latent=2) as writer:
        mean = np.arange(8.0).reshape(4, 2)
        writer.append(0, {"mean": Variable(("sample", "latent"), mean, "mean")})
        norm = Variable(("latent",), np.ones(2), "norm <b>")
        writer.write_group("isometry", {"norm": norm})
        writer.finish({"model": "<script>"}).close()
    return path


def test_it_says_what_it_holds(path):
    with Result.open(path) as result:
        assert result.groups() == ["isometry", "samples"]
        assert "isometry" in result
        assert "density" not in result
        assert result.sizes == {"sample": 4, "latent": 2}
        assert "4 samples, 2 latents" in repr(result)
        assert "isometry: norm" in repr(result)
        assert "norm" in repr(result["isometry"])
    assert "closed" in repr(result)


def test_unknown_names_get_the_nearest(path):
    with Result.open(path) as result:
        with pytest.raises(ResultError, match="did you mean 'isometry'"):
            result["isometri"]
        with pytest.raises(ResultError, match="did you mean 'mean'"):
            result.samples(names=["maen"])
        with pytest.raises(KeyError):
            result["isometry"]["nothing"]
        with pytest.raises(ResultError, match="has no '/isometry/norn'; did you mean 'norm'"):
            result["isometry"]["norn"]
        assert result["isometry"].get("nothing") is None


def damage(path, how):
    if how == "text":
        path.write_text("not a result")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:3000])
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "missing":
        path.unlink()
    elif how == "unfinished":
        path.unlink()
        path.with_name(path.name + ".partial").mkdir()
    else:
        with h5py.File(path, "a") as file:
            if how == "foreign":
                del file.attrs["format"]
            elif how == "newer":
                file.attrs["format_version"] = 99
            elif how == "incomplete":
                del file.attrs["complete"]
            elif how == "attribute":
                file.attrs["model"] = "{"
                file.attrs["json_attributes"] = '["model"]'


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("text", "no HDF5 file"),
        ("empty", "no HDF5 file"),
        ("truncated", "no whole HDF5 file"),
        ("folder", "not a file"),
        ("missing", "does not exist"),
        ("unfinished", "--resume"),
        ("foreign", "no isoprobe result"),
        ("newer", "newer isoprobe"),
        ("incomplete", "not complete"),
        ("attribute", "no JSON"),
    ],
)
def test_what_is_no_result_gets_one_line(path, how, message):
    damage(path, how)
    with pytest.raises(ResultError, match=message) as caught:
        Result.open(path)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_an_error_or_whole(path):
    whole = path.read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:size])
        with pytest.raises(ResultError):
            Result.open(path)


def test_flipped_bytes_never_escape_as_another_error(path):
    whole = path.read_bytes()
    chance = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in chance.integers(0, len(data), 8):
            data[place] ^= 1 << int(chance.integers(8))
        path.write_bytes(bytes(data))
        try:
            with Result.open(path) as result:
                for group in result.groups():
                    for name in result[group]:
                        result[group][name]
        except ResultError:
            refused += 1
    assert refused > 0


def link(file, other, secret):
    file["isometry/link"] = h5py.ExternalLink(other.name, "/secret")


def soft(file, other, secret):
    file["isometry/link"] = h5py.SoftLink("/elsewhere")
    file["elsewhere"] = h5py.ExternalLink(other.name, "/secret")


def group(file, other, secret):
    file["elsewhere"] = h5py.ExternalLink(other.name, "/group")


def raw(file, other, secret):
    file["isometry"].create_dataset("raw", (8,), "f8", external=[(str(secret), 0, 64)])


def virtual(file, other, secret):
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", (8,))
    file["isometry"].create_virtual_dataset("virtual", layout)


def long_text(file, other, secret):
    parent = file.require_group("long_attributes")
    parent.create_dataset("notes", (1,), "S64", external=[(str(secret), 0, 64)])


@pytest.mark.parametrize("way", [link, soft, group, raw, virtual, long_text])
def test_a_result_cannot_reach_into_other_files(path, tmp_path, way):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 64)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(8)
        file.create_group("group")
    with h5py.File(path, "a") as file:
        way(file, other, secret)
    with pytest.raises(ResultError, match="not followed|does not lie in the file"):  # noqa: SIM117
        with Result.open(path) as result:
            for name in result.groups():
                dict(result[name])


def test_an_array_too_large_to_be_true_is_not_read(path):
    with h5py.File(path, "a") as file:
        file["isometry"].create_dataset("huge", (1 << 40,), "f8", chunks=(1 << 20,))
    with Result.open(path) as result, pytest.raises(ResultError, match="in slices"):
        result["isometry"]["huge"]


def test_opening_a_result_needs_no_torch(path):
    code = (
        "import sys; from isoprobe.results.reader import Result; r = Result.open(sys.argv[1]);"
        "assert 'h5py' in sys.modules; assert 'torch' not in sys.modules"
    )
    python("-c", code, path)


def test_importing_the_reader_needs_no_h5py():
    code = "import sys, isoprobe.results.writer; assert 'h5py' not in sys.modules"
    python("-c", code)
