"""Files are told apart by content, cheaply, and nothing in them runs."""

from __future__ import annotations

import io
import json
import os
import pathlib
import pickle
import struct
import sys
import time
import zipfile

import pytest
import safetensors.torch
import torch

from isoprobe.checkpoints.pickles import scan_pickle
from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.data.files import first_bytes
from isoprobe.errors import CheckpointError, IsoprobeError
from isoprobe.run.opening import load
from tests.processes import python

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}


class Canary:
    """Unpickling it would create a file."""

    path = ""

    def __reduce__(self):
        return (os.system, (f"touch {Canary.path}",))


def archive(path, members):
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def onnx_bytes():
    graph = b"\x12\x04main"
    return b"\x08\x08" + b"\x12\x07pytorch" + b"\x3a" + varint(len(graph)) + graph


def make(kind, folder):
    """Write a small genuine file of a kind under a misleading name; return its path."""
    path = folder / "model.bin"
    folder_path = folder / "inner"
    if kind is FileKind.LFS_POINTER:
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n")
    elif kind is FileKind.SAFETENSORS:
        safetensors.torch.save_file(STATE, path)
    elif kind is FileKind.TORCH_ZIP:
        torch.save(STATE, path)
    elif kind is FileKind.TORCH_LEGACY:
        torch.save(STATE, path, _use_new_zipfile_serialization=False)
    elif kind is FileKind.LIGHTNING:
        torch.save({"pytorch-lightning_version": "2.4", "state_dict": STATE}, path)
    elif kind is FileKind.TORCH_EXPORT:
        archive(path, {"model/archive_format": "pt2", "model/models/model.json": "{}"})
    elif kind is FileKind.TORCHSCRIPT:
        pkl = pickle.dumps({}, 2)
        archive(path, {"m/data.pkl": pkl, "m/constants.pkl": pkl, "m/code/__torch__.py": ""})
    elif kind is FileKind.PICKLE:
        path.write_bytes(pickle.dumps([1, 2]))
    elif kind is FileKind.KERAS:
        archive(path, {"config.json": "{}", "metadata.json": "{}", "model.weights.h5": "x"})
    elif kind is FileKind.REFUSED:
        archive(path, {"a.txt": "a", "A.TXT": "b"})
    elif kind is FileKind.ZIP:
        archive(path, {"a.txt": "a"})
    elif kind is FileKind.HDF5:
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    elif kind is FileKind.ONNX:
        path.write_bytes(onnx_bytes())
    elif kind is FileKind.TEXT:
        path.write_text("notes, ümlaut\n" * 100)
    elif kind is FileKind.UNKNOWN:
        path.write_bytes(bytes(range(256)))
    else:
        folder_path.mkdir()
        (folder_path / "model.safetensors").write_bytes(b"")
        files = {
            FileKind.DIFFUSERS: {
                "config.json": {"_class_name": "AutoencoderKL", "_diffusers_version": "0.30"}
            },
            FileKind.PYTHAE: {"model_config.json": {"name": "VAEConfig"}},
            FileKind.HUB_MIXIN: {"config.json": {"latent": 3}},
            FileKind.FOLDER: {},
        }[kind]
        for name, content in files.items():
            (folder_path / name).write_text(json.dumps(content))
        return folder_path
    return path


@pytest.mark.parametrize("kind", list(FileKind))
def test_every_kind_is_told_by_content(kind, tmp_path):
    source = Source(make(kind, tmp_path))
    assert source.kind is kind
    assert source.description.startswith(kind.value)
    assert "\n" not in source.description


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_real_torchscript_archive_is_not_taken_for_a_state_dict(tmp_path):
    path = tmp_path / "m.pt"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    assert Source(path).kind is FileKind.TORCHSCRIPT


def test_the_description_counts_tensors_and_names_foreign_classes(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(STATE, path)
    assert Source(path).description == "a torch zip archive holding a state dict of 2 tensors"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert Source(path).description == "a legacy torch file holding a state dict of 2 tensors"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "objects of torch.nn.modules.linear.Linear" in Source(path).description
    safetensors.torch.save_file(STATE, path)
    assert Source(path).description == "a safetensors file of 2 tensors"


def test_looking_runs_nothing(tmp_path):
    Canary.path = str(tmp_path / "dead")
    for legacy in (True, False):
        path = tmp_path / f"{legacy}.pt"
        torch.save({"a": Canary()}, path, _use_new_zipfile_serialization=not legacy)
        source = Source(path)
        assert source.pickle.foreign == ("posix.system",)
        assert "posix.system" in source.description
    (tmp_path / "bare").write_bytes(pickle.dumps(Canary(), 4))
    assert Source(tmp_path / "bare").pickle.foreign == ("posix.system",)
    assert not pathlib.Path(Canary.path).exists()


def test_looking_imports_no_torch(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(STATE, path)
    code = (
        "import sys; from isoprobe.checkpoints.source import Source; "
        "print(Source(sys.argv[1]).description, 'torch' in sys.modules)"
    )
    out = python("-c", code, path)
    assert out.stdout.split()[-3:] == ["2", "tensors", "False"]


def test_header_is_checked_against_the_file(tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file(STATE, path, {"note": "x"})
    header = Source(path).header
    assert header["__metadata__"] == {"note": "x"}
    assert header["fc.weight"]["shape"] == [2, 3]
    data = path.read_bytes()
    for length in range(9, len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"cut short"):
            _ = Source(path).header


def safetensors_bytes(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<Q", 1 << 62) + b"{", "declares a header of"),
        (struct.pack("<Q", 1 << 23) + b"{", "cut short"),
        (safetensors_bytes(b'{"a":' * 100_000), "nested too deeply|not readable"),
        (safetensors_bytes(b'{"a": 1, "a": 2}'), "'a' stands twice"),
        (safetensors_bytes(b'{"a": NaN}'), "NaN"),
        (safetensors_bytes(b"{" + b'"\xff"'), "not readable JSON"),
        (safetensors_bytes({"a": {**TENSOR, "shape": [1 << 60]}}, bytes(8)), "does not fill"),
        (safetensors_bytes({"a": {**TENSOR, "shape": [2] * 5000}}, bytes(8)), "does not fill"),
        (safetensors_bytes({"a": {**TENSOR, "shape": [-2]}}, bytes(8)), "entry for 'a'"),
        (safetensors_bytes({"a": {**TENSOR, "dtype": "F33"}}, bytes(8)), "entry for 'a'"),
        (safetensors_bytes({"a": 3}), "entry for 'a'"),
        (safetensors_bytes({"a": TENSOR}, bytes(7)), "cut short"),
        (safetensors_bytes({"__metadata__": {"isoprobe": 3}}), "metadata"),
    ],
)
def test_forged_headers_are_refused_quickly(tmp_path, data, message):
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    start = time.process_time()
    source = Source(path)
    assert source.kind is FileKind.SAFETENSORS
    with pytest.raises(CheckpointError, match=message) as caught:
        _ = source.header
    assert "\n" not in str(caught.value)
    assert source.description == "a safetensors file, damaged"
    assert time.process_time() - start < 5


def test_a_huge_zip_directory_is_not_read(tmp_path):
    path = tmp_path / "m.zip"
    archive(path, {"a.txt": "a"})
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\x05\x06")
    data[end + 12 : end + 16] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(data)
    assert Source(path).names() == ()
    assert Source(path).kind is FileKind.ZIP


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("config.json", b" " * (64 << 20))
        out.writestr("model.weights.h5", b"x")
    with pytest.raises(CheckpointError, match="longer than"):
        Source(path).json("config.json")


def test_an_encrypted_or_damaged_member_is_one_line(tmp_path):
    path = tmp_path / "m.zip"
    archive(path, {"config.json": '{"a": 1}'})
    data = bytearray(path.read_bytes())
    place = data.find(b'{"a"')
    data[place] = ord("[")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        Source(path).json("config.json")
    with pytest.raises(CheckpointError, match="no member 'b'"):
        Source(path).read("b")


@pytest.mark.parametrize("name", ["../up.json", "/etc/hostname", "a/b.json", "..", "", "."])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    (tmp_path / "up.json").write_text("{}")
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(CheckpointError, match="not a file name"):
        Source(inner).json(name)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        Source(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="cannot look at|no such file"):
        Source("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="neither a file nor a folder"):
        Source(tmp_path / "pipe")
    (tmp_path / "empty").write_bytes(b"")
    assert Source(tmp_path / "empty").description.endswith("(it is empty)")


def test_hash_covers_names_and_bytes(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    first = Source(folder).sha256()
    assert Source(folder / "a").sha256() == (
        "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    )
    (folder / "a").rename(folder / "b")
    assert Source(folder).sha256() != first


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_scan_sees_what_a_pickle_imports(protocol):
    data = pickle.dumps({"x": Canary(), "y": [zipfile.ZipFile, 3]}, protocol)
    scan = scan_pickle(io.BytesIO(data))
    assert scan.whole
    assert set(scan.foreign) == {"posix.system", "zipfile.ZipFile"}
    assert not scan_pickle(io.BytesIO(data[:-1])).whole


def test_scan_is_quick_on_a_pickle_of_many_opcodes():
    bomb = b"\x80\x02]" + b"2" * (20 << 20) + b"."
    start = time.process_time()
    assert not scan_pickle(io.BytesIO(bomb)).whole
    assert time.process_time() - start < 5
    huge = b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x."
    assert not scan_pickle(io.BytesIO(huge)).whole


@pytest.mark.skipif(sys.platform != "linux", reason="files of the system without end are Linux'")
@pytest.mark.parametrize("name", ["model.pt", "config.json", "model_config.json", "w.toml"])
def test_a_link_to_a_file_of_the_system_is_not_waited_for(tmp_path, name):
    (tmp_path / name).symlink_to("/proc/self/mountinfo")
    assert Source(tmp_path / name).head() == b""
    assert first_bytes(tmp_path / name) == b""
    with pytest.raises(IsoprobeError):
        load(tmp_path)
