"""Hostile files made here: every reader times every kind of harm that a file of its form can do."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import resource
import shutil
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from isoprobe.checkpoints.contents import tensor_shapes
from isoprobe.checkpoints.source import Source
from isoprobe.errors import IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result
from isoprobe.run.opening import load
from isoprobe_plugins.adapters.declared.declaration import read_declaration
from tests import bad_files, parquet
from tests.made import made_result

SECONDS, MEGABYTES = 5.0, 400
HUGE = 1 << 40


# --------------------------------------------------------------------------- readers


def checkpoint(adapter: str, **options: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        tensor_shapes(Source(path))
        vae = load(path, adapter=adapter, options=options)
        some = next(vae.module.parameters(), torch.zeros(0)) if vae.module else torch.zeros(0)
        vae.anywhere().decode(torch.zeros(1, vae.latent_size, dtype=some.dtype))

    return read


def data(path: Path) -> None:
    opened = installed().data(str(path))
    try:
        opened.read(np.zeros(1, np.int64))
        opened.read(np.arange(max(len(opened) - 2, 0), len(opened)))
        opened.fingerprint()
        beside = np.arange(min(len(opened), 8192))
        opened.labels(beside)
        opened.carry(beside)
    finally:
        opened.close()


def part(path: Path) -> None:
    """Read a file as one part of several."""
    folder = path.with_name("parts")
    for name, content in (("k=a/0", None), ("k=b/1", path.read_bytes())):
        place = folder / f"{name}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            pq.write_table(pa.table({"x": np.ones(50)}), place)
        else:
            place.write_bytes(content)
    try:
        data(Path(f"{folder}:label=k"))
    finally:
        shutil.rmtree(folder)


ZARR = {
    "zarr_format": 3, "node_type": "array", "shape": [40, 12], "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [40, 12]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0, "attributes": {}, "codecs": [{"name": "bytes"}, {"name": "zstd"}],
}  # fmt: skip


def store(path: Path) -> None:
    """Read a file as the description of a zarr array, or as its only chunk."""
    folder = path.with_name("store.zarr")
    chunk = folder / "c" / "0" / "0"
    chunk.parent.mkdir(parents=True)
    try:
        (folder / "zarr.json").write_text(json.dumps(ZARR))
        chunk.write_bytes(numcodecs.Zstd().encode(np.ones((40, 12), "f4")))
        place = folder / "zarr.json" if path.suffix == ".json" else chunk
        place.unlink()
        shutil.copy(path, place, follow_symlinks=False)
        if path.with_name(".zarray").exists():
            shutil.copy(path.with_name(".zarray"), folder)
        data(folder)
    finally:
        shutil.rmtree(folder)


def result(path: Path) -> None:
    with Result.open(path) as opened:
        for name in opened.groups():
            _ = {key: variable.values for key, variable in opened[name].items()}


GRAPH = {"decoder": "self", "latent_shape": "2"}
READERS: dict[str, Callable[[Path], None]] = {
    "zip.pt": checkpoint("tutorial-mlp"),
    "foreign.pt": checkpoint("tutorial-mlp"),
    "scvi.pt": checkpoint("scvi"),
    "legacy.pt": checkpoint("tutorial-mlp"),
    "native.safetensors": checkpoint("native"),
    "script.pt": checkpoint("torchscript", input_shape="4", latent_shape="2"),
    "program.pt2": checkpoint("torch-export", **GRAPH),
    "graph.onnx": checkpoint("onnx", **GRAPH),
    "model.keras": checkpoint("keras", decoder="self"),
    "model.h5": checkpoint("keras", decoder="self"),
    "rows.h5": data,
    "cells.h5ad": data,
    "rows.npy": data,
    "rows.npz": data,
    "rows.csv.gz": data,
    "rows.parquet": data,
    "part.parquet": part,
    "texts.parquet": lambda path: data(Path(f"{path}:keep=t")),
    "texts.csv": lambda path: data(Path(f"{path}:keep=t")),
    "labels.h5ad": lambda path: data(Path(f"{path}:X,kind")),
    "images.zip": data,
    "zarr.json": store,
    "chunk.zstd": store,
    "result.h5": result,
    "model.toml": lambda path: read_declaration(path) and None,
}
ZIPS = ("zip.pt", "script.pt", "program.pt2", "model.keras", "rows.npz", "images.zip")
#: kinds of harm, and the readers whose files can do it
APPLIES = {
    "labels without end": ("scvi.pt",),
    "code of no weight": ("graph.onnx",),
    "shared references": ("zip.pt", "foreign.pt", "legacy.pt", "scvi.pt"),
    "keys without end": ("zip.pt", "foreign.pt", "legacy.pt", "scvi.pt"),
    "copies": ("foreign.pt", "legacy.pt", "program.pt2", "result.h5"),
    "zero strides": ("zip.pt", "legacy.pt", "scvi.pt", "script.pt", "program.pt2"),
    "beyond its bytes": (
        "zip.pt", "legacy.pt", "scvi.pt", "native.safetensors", "script.pt", "program.pt2",
    ),
    "expansion": ("graph.onnx", "script.pt", "program.pt2", "model.keras", "model.h5"),
    "slope beyond numbers": ("model.keras", "model.h5"),
    "nested functions": ("graph.onnx", "script.pt"),
    "loop": ("script.pt",),
    "file operator": ("script.pt", "program.pt2"),
    "memory operator": ("script.pt", "program.pt2"),
    "unknown operator": ("graph.onnx", "script.pt", "program.pt2"),
    "runs while loaded": ("script.pt", "zip.pt", "legacy.pt", "scvi.pt"),
    "members twice": ZIPS,
    "case alone": ZIPS,
    "checksum": (*ZIPS, "native.safetensors", "result.h5"),
    "deflated": ZIPS,
    "cycle": ("rows.h5", "model.h5", "result.h5", "legacy.pt"),
    "link outside": (
        "rows.h5", "model.h5", "result.h5", "model.keras", "cells.h5ad", "rows.parquet",
        "zarr.json",
    ),
    "storage outside": ("rows.h5", "model.h5", "result.h5", "model.keras", "cells.h5ad"),
    "virtual": ("rows.h5", "model.h5", "result.h5", "model.keras", "cells.h5ad"),
    "unwritten rows": (
        "rows.h5", "model.h5", "result.h5", "model.keras", "zarr.json", "cells.h5ad",
    ),
    "unwritten values": ("cells.h5ad",),
    "unwritten places": ("cells.h5ad",),
    "long row": ("cells.h5ad",),
    "large chunk": ("rows.h5", "result.h5", "zarr.json", "chunk.zstd", "cells.h5ad"),
    "codec that runs": ("zarr.json",),
    "described twice": ("zarr.json",),
    "other words": ("zarr.json",),
    "shorter than told": ("chunk.zstd",),
    "places outside": ("cells.h5ad", "texts.parquet"),
    "other width": ("cells.h5ad",),
    "no value but a type": ("cells.h5ad", "model.h5", "model.keras"),
    "several words": ("cells.h5ad",),
    "rows that go back": ("cells.h5ad",),
    "name no text": ("rows.h5", "result.h5"),
    "length of a text": ("model.h5",),
    "text on no heap": ("model.h5", "cells.h5ad"),
    "heap longer than its file": ("model.h5", "cells.h5ad"),
    "heap no library writes": ("model.h5", "cells.h5ad"),
    "texts in its head": ("result.h5",),
    "texts in records": ("result.h5",),
    "length behind a filter": ("result.h5",),
    "type without a like": ("rows.h5", "model.h5", "result.h5", "cells.h5ad"),
    "forged length": (
        "zip.pt", "legacy.pt", "native.safetensors", "rows.npy", "rows.npz", "rows.parquet",
        "part.parquet", "chunk.zstd",
    ),
    "page longer than told": ("rows.parquet", "part.parquet", "texts.parquet"),
    "dictionary longer than told": ("rows.parquet", "part.parquet", "texts.parquet"),
    "long list": ("rows.parquet", "part.parquet", "texts.parquet"),
    "long among many": ("texts.parquet", "texts.csv", "labels.h5ad"),
    "bad header": ("rows.npy", "rows.npz", "native.safetensors"),
    "complex": ("zip.pt", "legacy.pt", "native.safetensors", "rows.npy"),
    "integers": ("zip.pt", "native.safetensors"),
    "eight bits": ("zip.pt", "native.safetensors"),
    "empty lines": ("rows.csv.gz",),
    "nothing but blank": ("rows.csv.gz",),
    "endless line": ("rows.csv.gz",),
    "dotted keys": ("model.toml",),
    "nesting": ("rows.parquet", "model.toml", "native.safetensors", "zip.pt", "zarr.json"),
    "number of many digits": ("model.toml", "zarr.json"),
}  # fmt: skip
#: how a file of each kind is made, for each reader that it applies to
CASES: dict[tuple[str, str], Callable[[Path], None]] = {}


def case(kind: str, *readers: str):
    """Register how a file of a kind is made, for one or several readers."""

    def register(make):
        for reader in readers:
            assert (reader, kind) not in CASES
            CASES[reader, kind] = lambda path, reader=reader: make(path, reader)
        return make

    return register


# --------------------------------------------------------------------------- sound files

STATE = {
    f"fc{k}.{leaf}": torch.ones(shape if leaf == "weight" else shape[:1])
    for k, shape in {"1": (3, 4), "21": (2, 3), "22": (2, 3), "3": (3, 2), "4": (4, 3)}.items()
    for leaf in ("weight", "bias")
}


def helped(x: torch.Tensor) -> torch.Tensor:
    return x + 1


class Vae(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.d = torch.nn.Linear(4, 4), torch.nn.Linear(2, 4)

    def forward(self, x):
        return self.decode(self.encode(x)[0])

    @torch.jit.export
    def encode(self, x):
        h = self.e(x)
        return h[:, :2], h[:, 2:]

    @torch.jit.export
    def decode(self, z):
        return self.d(helped(z))


def members(blob: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return {i.filename: archive.read(i) for i in archive.infolist()}


def zipped(pairs, compression=zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        with zipfile.ZipFile(stream, "w", compression) as archive:
            for name, content in pairs:
                archive.writestr(name, content)
    return stream.getvalue()


def edited(blob: bytes, end: str, change) -> bytes:
    found = members(blob)
    assert any(name.endswith(end) for name in found)
    return zipped([(n, change(c) if n.endswith(end) else c) for n, c in found.items()])


def saved(value, legacy=False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def script() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Vae()), stream)
    return stream.getvalue()


def program() -> bytes:
    stream = io.BytesIO()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    found = torch.export.export(torch.nn.Linear(2, 3), (torch.rand(2, 2),), dynamic_shapes=dynamic)
    torch.export.save(found, stream)
    return stream.getvalue()


def layers(*more: tuple[str, dict[str, object]]) -> dict[str, object]:
    """A decoder of Keras' of one layer, and further ones without weights."""
    config = {"name": "d", "units": 1, "activation": "linear", "use_bias": False}
    layer = {
        "class_name": "Dense", "config": {**config, "batch_input_shape": [None, 2]},
        "inbound_nodes": [],
    }  # fmt: skip
    others = [
        {"class_name": kind, "config": {"name": f"l{k}", **own}, "inbound_nodes": []}
        for k, (kind, own) in enumerate(more)
    ]
    return {"class_name": "Sequential", "config": {"name": "m", "layers": [layer, *others]}}


def keras(weights: bytes, *more: tuple[str, dict[str, object]]) -> bytes:
    return zipped([("config.json", json.dumps(layers(*more))), ("model.weights.h5", weights)])


def kernel() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 1), "f4")
    return stream.getvalue()


def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stream, "PNG")
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.ones((40, 12), "f4"))
    return stream.getvalue()


ARCHIVES = {
    "zip.pt": lambda: saved(STATE),
    "script.pt": script,
    "program.pt2": program,
    "model.keras": lambda: keras(kernel()),
    "rows.npz": npz,
    "images.zip": lambda: zipped([("a.png", picture()), ("b.png", picture())]),
}
#: a member of each that its reader reads
READ = {
    "zip.pt": "data/0", "script.pt": "data/0", "program.pt2": "weight_0",
    "model.keras": "config.json", "rows.npz": "x.npy", "images.zip": "a.png",
}  # fmt: skip


def sound(path: Path, reader: str) -> None:
    path.write_bytes(ARCHIVES[reader]())


@pytest.mark.parametrize("reader", ARCHIVES)
def test_the_sound_file_is_read(tmp_path, reader):
    """Counter-test: or every file below would be refused for what it has in common with it."""
    sound(tmp_path / reader, reader)
    READERS[reader](tmp_path / reader)


# --------------------------------------------------------------------------- archives


@case("members twice", *ARCHIVES)
def _(path, reader):
    found = list(members(ARCHIVES[reader]()).items())
    path.write_bytes(zipped([*found, found[0]]))


@case("case alone", *ARCHIVES)
def _(path, reader):
    found = list(members(ARCHIVES[reader]()).items())
    path.write_bytes(zipped([*found, (found[0][0].swapcase(), found[0][1])]))


@case("checksum", *ARCHIVES)
def _(path, reader):
    blob = bytearray(ARCHIVES[reader]())
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(READ[reader]))
        name, extra = struct.unpack_from("<HH", blob, info.header_offset + 26)
    blob[info.header_offset + 30 + name + extra + info.compress_size - 1] ^= 4
    path.write_bytes(blob)


@case("deflated", *ARCHIVES)
def _(path, reader):
    found = members(ARCHIVES[reader]())
    key = next(n for n in found if n.endswith(READ[reader]))
    blank = {"images.zip": picture()}.get(reader, b"")
    if reader == "rows.npz":  # column by column, and so held whole
        stream = io.BytesIO()
        np.save(stream, np.zeros((1 << 13, 1 << 13), "f4", order="F"))
        blank = stream.getvalue()
    found[key] = blank if reader == "rows.npz" else blank + bytes(300 << 20)
    path.write_bytes(zipped(found.items(), zipfile.ZIP_DEFLATED))


# --------------------------------------------------------------------------- pickles

FOREIGN = b"cfoo.bar\nBaz\n0"  # a name that is not built, so that the inert reader is chosen


def pickled(body: bytes, reader: str) -> bytes:
    """A torch file whose pickle is: protocol, body, which leaves one object, and stop."""
    begun = b"\x80\x02" + (FOREIGN if reader == "foreign.pt" else b"")
    whole = begun + body + b"."
    if reader == "legacy.pt":
        blob = saved(STATE, legacy=True)
        head = saved({}, legacy=True)
        start = head.index(b"\x80\x02}")
        return blob[:start] + whole + b"\x80\x02]."
    return edited(saved(STATE), "data.pkl", lambda _: whole)


@case("shared references", "zip.pt", "foreign.pt", "legacy.pt", "scvi.pt")
def _(path, reader):
    body = b"}X\x01\x00\x00\x00aK\x01sq\x00"
    for i in range(60):
        a, b = bytes([i]), bytes([i + 1])
        body += b"0}(X\x01\x00\x00\x00ah" + a + b"X\x01\x00\x00\x00bh" + a + b"uq" + b
    path.write_bytes(pickled(body, reader))


@case("keys without end", "zip.pt", "foreign.pt", "legacy.pt", "scvi.pt")
def _(path, reader):
    body = b")q\x00"
    for i in range(60):
        body += b"0h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    path.write_bytes(pickled(b"}" + body + b"K\x01s", reader))


@case("copies", "foreign.pt", "legacy.pt")
def _(path, reader):
    pairs = b"".join(b"M" + struct.pack("<H", i) + b"N\x86" for i in range(30_000))
    body = b"](" + pairs + b"eq\x00" + b"".join(
        b"0ccollections\nOrderedDict\nh\x00\x85R" for _ in range(3_000))  # fmt: skip
    path.write_bytes(pickled(body, reader))


@case("cycle", "legacy.pt")
def _(path, reader):
    path.write_bytes(pickled(b"}q\x00X\x01\x00\x00\x00ah\x00s", reader))


@case("nesting", "zip.pt")
def _(path, reader):
    path.write_bytes(pickled(b"]" * 20_000 + b"a" * 19_999, reader))


def retold(path, reader, shape, strides, numel=None):
    """The sound file with another shape, strides, or length of the storage in one tensor."""
    n = numel if numel is not None else 12

    def numbers(values):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", v) for v in values) + b"t"

    tensor = b"".join((
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n",
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x08", struct.pack("<q", n), b"tQK\x00",
        numbers(shape), numbers(strides), b"\x89ccollections\nOrderedDict\n)RtR",
    ))  # fmt: skip
    body = b"}X\x0a\x00\x00\x00fc1.weight" + tensor + b"s"
    blob = pickled(body, reader)
    if reader == "legacy.pt":
        keys = b"\x80\x02]X\x01\x00\x00\x000a."
        blob = blob.removesuffix(b"\x80\x02].") + keys + struct.pack("<q", 12) + bytes(48)
    path.write_bytes(blob)


@case("zero strides", "zip.pt", "legacy.pt", "scvi.pt")
def _(path, reader):
    retold(path, reader, (1 << 26, 64), (0, 0))


@case("beyond its bytes", "zip.pt", "legacy.pt", "scvi.pt")
def _(path, reader):
    retold(path, reader, (2, 2), (40, 40))


@case("forged length", "zip.pt", "legacy.pt")
def _(path, reader):
    retold(path, reader, (12,), (1,), numel=HUGE)


class Runs:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


@case("runs while loaded", "scvi.pt")
def _(path, reader):
    parts = {"model_state_dict": STATE, "attr_dict": {"registry_": Runs()}, "var_names": Runs()}
    path.write_bytes(saved(parts))


@case("labels without end", "scvi.pt")
def _(path, reader):
    """A label of a second level takes 512 means, and one number of the file."""
    path.write_bytes(saved(scanvi(1 << 17)))


def scanvi(labels: int) -> dict[str, object]:
    """What scvi-tools saves of a SCANVI of three genes and two latents."""
    dense = {
        "z_encoder.encoder.fc_layers.Layer 0.0": (4, 3), "z_encoder.mean_encoder": (2, 4),
        "z_encoder.var_encoder": (2, 4), "decoder.px_decoder.fc_layers.Layer 0.0": (4, 2),
        "decoder.px_scale_decoder.0": (3, 4), "decoder.px_dropout_decoder": (3, 4),
        "decoder_z1_z2.decoder.fc_layers.Layer 0.0": (1, 2 + labels),
        "decoder_z1_z2.mean_decoder": (2, 1), "decoder_z1_z2.var_decoder": (2, 1),
    }  # fmt: skip
    state = {f"{k}.weight": torch.ones(shape) for k, shape in dense.items()}
    state |= {f"{k}.bias": torch.zeros(shape[0]) for k, shape in dense.items()}
    state |= {"px_r": torch.zeros(3), "y_prior": torch.full((1, labels), 1 / labels)}
    registry = {"model_name": "SCANVI", "scvi_version": "1.4.2", "field_registries": {}}
    about = {"registry_": registry, "init_params_": {}}
    return {"model_state_dict": state, "attr_dict": about, "var_names": ["a", "b", "c"]}


def test_a_scanvi_of_few_labels_is_read(tmp_path):
    """Counter-test: or the one above would be refused for another reason."""
    (tmp_path / "scvi.pt").write_bytes(saved(scanvi(3)))
    READERS["scvi.pt"](tmp_path / "scvi.pt")


@case("runs while loaded", "zip.pt", "legacy.pt")
def _(path, reader):
    path.write_bytes(saved({"fc1.weight": Runs()}, legacy=reader == "legacy.pt"))


@case("complex", "zip.pt", "legacy.pt")
def _(path, reader):
    state = {k: v.to(torch.complex64) for k, v in STATE.items()}
    path.write_bytes(saved(state, legacy=reader == "legacy.pt"))


@case("integers", "zip.pt")
def _(path, reader):
    path.write_bytes(saved({k: v.long() for k, v in STATE.items()}))


@case("eight bits", "zip.pt")
def _(path, reader):
    path.write_bytes(saved({k: v.to(torch.float8_e4m3fn) for k, v in STATE.items()}))


# --------------------------------------------------------------------------- safetensors


def header_of(path: Path):
    bad_files.good_model(path)
    return bad_files.header_and_body(path.read_bytes())


def retyped(path: Path, dtype: str, width: int) -> None:
    header, _ = header_of(path)
    place = 0
    for name, entry in header.items():
        if name != "__metadata__":
            size = int(np.prod(entry["shape"])) * width
            entry |= {"dtype": dtype, "data_offsets": [place, place + size]}
            place += size
    path.write_bytes(bad_files.with_header(header, bytes(place)))


for _kind, _dtype, _width in (
    ("complex", "C64", 8),
    ("integers", "I8", 1),
    ("eight bits", "F8_E4M3", 1),
):
    case(_kind, "native.safetensors")(lambda path, reader, d=_dtype, w=_width: retyped(path, d, w))


@case("checksum", "native.safetensors")
def _(path, reader):
    header, body = header_of(path)
    flipped = bytearray(body)
    flipped[-3] ^= 1
    path.write_bytes(bad_files.with_header(header, bytes(flipped)))


@case("beyond its bytes", "native.safetensors")
def _(path, reader):
    header, body = header_of(path)
    entry = next(v for k, v in header.items() if k != "__metadata__")
    entry["shape"] = [entry["shape"][0], HUGE]
    path.write_bytes(bad_files.with_header(header, body))


@case("forged length", "native.safetensors")
def _(path, reader):
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


@case("bad header", "native.safetensors")
def _(path, reader):
    many = ",".join(f'"{i}":0' for i in range(200_000))
    path.write_bytes(bad_files.with_header(f'{{{many},"199999":0}}'.encode(), b""))


@case("nesting", "native.safetensors")
def _(path, reader):
    path.write_bytes(bad_files.with_header(b'{"a":' * 100_000, b""))


# --------------------------------------------------------------------------- graphs

#: where TorchScript puts the functions of this file
HERE = "__torch__." + __name__


def rewritten(path: Path, change: Callable[[str], str]) -> None:
    """A scripted model whose code is changed as a text."""
    path.write_bytes(
        edited(script(), "test_corpus.py", lambda code: change(code.decode()).encode())
    )


def decoding(path: Path, line: str, before: str = "") -> None:
    """A scripted model that runs a line at the start of decode."""

    def change(code: str) -> str:
        head, mark, tail = code.partition("z: Tensor) -> Tensor:\n")
        assert mark
        return before + head + mark + f"    {line}\n" + tail

    rewritten(path, change)


#: what is made is used, or it would be left out of the graph
USED = "\n    z = torch.add(z, torch.sum(w), alpha=0)"
SCRIPTS = {
    "expansion": "w = torch.zeros([1000000, 1000000])" + USED,
    "file operator": 'w = torch.from_file("canary", True, 4)' + USED,
    "memory operator": "w = torch.as_strided(z, [100000000], [1])" + USED,
    "unknown operator": "w = torch.bincount(torch.zeros([1], dtype=4), None, 100000000000)" + USED,
    "loop": "q = 0\n    while True:\n      q = torch.add(q, 1)",
}
for _kind, _line in SCRIPTS.items():
    case(_kind, "script.pt")(lambda path, reader, line=_line: decoding(path, line))


@case("nested functions", "script.pt")
def _(path, reader):
    functions = "def f0(x: Tensor) -> Tensor:\n  return torch.add(x, x)\n"
    for i in range(40):
        functions += (
            f"def f{i + 1}(x: Tensor) -> Tensor:\n  _0 = {HERE}.f{i}\n  return _0(_0(x, ), )\n"
        )
    decoding(path, f"w = {HERE}.f40(z, )" + USED, functions)


@case("runs while loaded", "script.pt")
def _(path, reader):
    def change(code: str) -> str:
        return code.replace(
            "  def decode", f"  def __setstate__(self: {HERE}.Vae, x: Tensor) -> NoneType:\n"
            "    return None\n  def decode", 1)  # fmt: skip

    rewritten(path, change)


def script_tensor(path: Path, old: bytes, new: bytes) -> None:
    def change(code: bytes) -> bytes:
        assert old in code
        return code.replace(old, new, 1)

    path.write_bytes(edited(script(), "data.pkl", change))


@case("zero strides", "script.pt")
def _(path, reader):
    huge = b"\x8a\x05" + struct.pack("<q", 1 << 33)[:5]
    script_tensor(path, b"(K\x04K\x04t(K\x04K\x01t", b"(" + huge + b"K\x04t(K\x00K\x00t")


@case("beyond its bytes", "script.pt")
def _(path, reader):
    script_tensor(path, b"(K\x04K\x04t(K\x04K\x01t", b"(K\x40K\x40t(K\x40K\x01t")


LINEAR = b"torch.ops.aten.linear.default"


def operator(path: Path, name: bytes) -> None:
    path.write_bytes(edited(program(), "model.json", lambda d: d.replace(LINEAR, name)))


for _kind, _name in (
    ("file operator", b"torch.ops.aten.from_file.default"),
    ("memory operator", b"torch.ops.aten.as_strided.default"),
    ("unknown operator", b"torch.ops.mine.f.default"),
):
    case(_kind, "program.pt2")(lambda path, reader, name=_name: operator(path, name))


def weights_config(path: Path, change) -> None:
    def edit(text: bytes) -> bytes:
        found = json.loads(text)
        change(found["config"])
        return json.dumps(found).encode()

    path.write_bytes(edited(program(), "model_weights_config.json", edit))


@case("zero strides", "program.pt2")
def _(path, reader):
    def change(config):
        config["weight"]["tensor_meta"]["sizes"] = [{"as_int": 1 << 30}, {"as_int": 2}]
        config["weight"]["tensor_meta"]["strides"] = [{"as_int": 0}, {"as_int": 0}]

    weights_config(path, change)


@case("beyond its bytes", "program.pt2")
def _(path, reader):
    def change(config):
        config["weight"]["tensor_meta"]["storage_offset"] = {"as_int": 1 << 20}

    weights_config(path, change)


@case("copies", "program.pt2")
def _(path, reader):
    big = bytes(4 << 20)

    def edit(text: bytes) -> bytes:
        found = json.loads(text)
        meta = {**found["config"]["weight"]["tensor_meta"],
                "sizes": [{"as_int": 1 << 20}], "strides": [{"as_int": 1}]}  # fmt: skip
        entry = {**found["config"]["weight"], "tensor_meta": meta, "path_name": "big"}
        found["config"] |= {f"w{i}": entry for i in range(2_000)}
        return json.dumps(found).encode()

    found = members(edited(program(), "model_weights_config.json", edit))
    root = next(n for n in found if n.endswith("model_weights_config.json")).rpartition("/")[0]
    found[f"{root}/big"] = big
    path.write_bytes(zipped(found.items(), zipfile.ZIP_DEFLATED))


@case("expansion", "program.pt2")
def _(path, reader):
    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", torch.ones(40_000, 1))

        def forward(self, z):
            return z[:, :1] + (self.a * self.a.T).sum()

    stream = io.BytesIO()
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    small = _small(Wide())
    made = torch.export.export(small, (torch.rand(2, 2),), dynamic_shapes=dynamic)
    torch.export.save(made, stream)
    found = members(stream.getvalue())
    key = next(n for n in found if n.endswith("model_weights_config.json"))
    config = json.loads(found[key])
    meta = config["config"]["a"]["tensor_meta"]
    meta["sizes"][0]["as_int"], meta["strides"][0]["as_int"] = 40_000, 1
    found[key] = json.dumps(config).encode()
    root = key.rpartition("/")[0]
    found[f"{root}/{config['config']['a']['path_name']}"] = bytes(160_000)
    path.write_bytes(zipped(found.items()))


def _small(module):
    module.register_buffer("a", torch.ones(4, 1))
    return module


def onnx_graph(path: Path, nodes, initializers=(), functions=(), more=()) -> None:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 2]), *more],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], list(initializers),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    onnx.save(model, path)


@case("expansion", "graph.onnx")
def _(path, reader):
    shape = helper.make_tensor("s", TensorProto.INT64, [3], [1 << 28, 1, 2])
    nodes = [
        helper.make_node("Expand", ["z", "s"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["y"], axes=[0], keepdims=0),
    ]
    onnx_graph(path, nodes, [shape])


def with_code(path: Path, width: int) -> None:
    """A decoder that is told a code of a width that no weight has."""
    code = helper.make_tensor_value_info("c", TensorProto.FLOAT, ["n", width])
    nodes = [
        helper.make_node("Concat", ["z", "c"], ["both"], axis=1),
        helper.make_node("ReduceMean", ["both"], ["y"], axes=[1], keepdims=1),
    ]
    onnx_graph(path, nodes, more=[code])


@case("code of no weight", "graph.onnx")
def _(path, reader):
    with_code(path, 30_000_000)


def test_a_decoder_told_a_code_is_read(tmp_path):
    """Counter-test: or the one above would be refused for another reason."""
    with_code(tmp_path / "graph.onnx", 4)
    READERS["graph.onnx"](tmp_path / "graph.onnx")


@case("nested functions", "graph.onnx")
def _(path, reader):
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]

    def body(i):
        if i == 40:
            return [helper.make_node("Neg", ["a"], ["b"])]
        return [helper.make_node(f"F{i + 1}", [x], [y], domain="f") for x, y in ("at", "tb")]

    functions = [
        helper.make_function("f", f"F{i}", ["a"], ["b"], body(i), opset) for i in range(41)
    ]
    onnx_graph(path, [helper.make_node("F0", ["z"], ["y"], domain="f")], (), functions)


@case("unknown operator", "graph.onnx")
def _(path, reader):
    onnx_graph(path, [helper.make_node("Mine", ["z"], ["y"], domain="com.mine")])


def layered(path: Path, reader: str, *more: tuple[str, dict[str, object]]) -> None:
    """A decoder of Keras' in which further layers follow the one with weights."""
    path.write_bytes(keras(kernel(), *more))
    if reader == "model.h5":
        hdf5(path, reader, lambda file, place: file.__setitem__(place, np.ones((2, 1), "f4")))
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = json.dumps(layers(*more))


@case("expansion", "model.keras", "model.h5")
def _(path, reader):
    side = {"size": [20_000, 20_000]}
    shape = {"target_shape": [1, 1, 1]}
    layered(path, reader, ("Reshape", shape), ("UpSampling2D", side))


@case("slope beyond numbers", "model.keras", "model.h5")
def _(path, reader):
    layered(path, reader, ("LeakyReLU", {"negative_slope": 1e300}))


# --------------------------------------------------------------------------- HDF5


def hdf5(path: Path, reader: str, harm: Callable[[h5py.File, str], None]) -> None:
    """A file of the reader's form, harmed at the place its reader reads."""
    place = {
        "rows.h5": "x",
        "cells.h5ad": "X/indptr",
        "result.h5": "isometry/extra",
        "model.h5": "model_weights/d/d/kernel:0",
        "model.keras": "layers/dense/vars/0",
    }[reader]
    inner = path.with_name("inner.h5")
    if reader == "result.h5":
        made_result(inner).close()
    with h5py.File(inner, "a") as file:
        if reader == "model.h5":
            file.attrs["model_config"] = json.dumps(layers())
        if reader == "cells.h5ad":
            cells(file)
        file.require_group(place.rpartition("/")[0] or "/")
        harm(file, place)
    path.write_bytes(keras(inner.read_bytes()) if reader == "model.keras" else inner.read_bytes())


def outside(path: Path) -> Path:
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones((40, 12), "f4")
    return other


def cells(file: h5py.File, count: int = 40) -> None:
    """An AnnData file of some cells and 12 genes, without the ends of its rows."""
    file.attrs["encoding-type"] = "anndata"
    file["X/data"], file["X/indices"] = np.ones(40, "f4"), np.arange(40) % 12
    file["X"].attrs["encoding-type"] = "csr_matrix"
    for table, length in (("var", 12), ("obs", count)):
        file[f"{table}/_index"] = [f"{table}{i}" for i in range(length)]
        file[table].attrs["_index"] = "_index"


@case("places outside", "cells.h5ad")
def _(path, reader):
    def harm(file, place):
        file[place] = np.arange(41)
        file["X/indices"][...] = np.full(40, HUGE)

    hdf5(path, reader, harm)


def whole(file: h5py.File, length: int, ends: np.ndarray, **made: object) -> None:
    """Cells of so many values, of which the last row has most."""
    del file["X/data"], file["X/indices"]
    for name, kind in (("data", "f4"), ("indices", "i4")):
        own = {
            "data": np.zeros(length, kind),
            "chunks": (min(length, 1 << 20),),
            "compression": "gzip",
        }
        file.create_dataset(f"X/{name}", **(made.get(name) or own))
    file["X/indptr"] = ends


@case("unwritten values", "cells.h5ad")
def _(path, reader):
    never = {"shape": (40,), "dtype": "f4", "chunks": (8,)}
    hdf5(path, reader, lambda file, place: whole(file, 40, np.arange(41), data=never))


@case("unwritten places", "cells.h5ad")
def _(path, reader):
    never = {"shape": (40,), "dtype": "i4", "chunks": (8,)}
    values = {"data": np.ones(40, "f4")}
    hdf5(
        path, reader, lambda file, place: whole(file, 40, np.arange(41), data=values, indices=never)
    )


@case("long row", "cells.h5ad")
def _(path, reader):
    ends = np.append(np.arange(40), 1 << 26)
    hdf5(path, reader, lambda file, place: whole(file, 1 << 26, ends))


@case("other width", "cells.h5ad")
def _(path, reader):
    def harm(file, place):
        file[place] = np.arange(41)
        file["X"].attrs["shape"] = [40, 99]

    hdf5(path, reader, harm)


@case("several words", "cells.h5ad")
def _(path, reader):
    def harm(file, place):
        file[place] = np.arange(41)
        file["X"].attrs["encoding-type"] = np.array(["csr_matrix"] * 2, object)

    hdf5(path, reader, harm)


@case("no value but a type", "cells.h5ad", "model.h5", "model.keras")
def _(path, reader):
    hdf5(path, reader, lambda file, place: file.__setitem__(place, np.dtype("f4")))


@case("rows that go back", "cells.h5ad")
def _(path, reader):
    ends = np.arange(41)
    ends[20] = -HUGE
    hdf5(path, reader, lambda file, place: file.__setitem__(place, ends))


FORMS = ("rows.h5", "model.h5", "result.h5", "model.keras", "cells.h5ad")


@case("link outside", *FORMS)
def _(path, reader):
    link = h5py.ExternalLink(str(outside(path)), "/secret")
    hdf5(path, reader, lambda file, place: file.__setitem__(place, link))


@case("storage outside", *FORMS)
def _(path, reader):
    raw = [(str(outside(path)), 0, 1920)]
    hdf5(path, reader, lambda file, place: file.create_dataset(
        place, (40, 12), "f4", external=raw) and None)  # fmt: skip


@case("virtual", *FORMS)
def _(path, reader):
    layout = h5py.VirtualLayout((40, 12), "f4")
    layout[:] = h5py.VirtualSource(str(outside(path)), "secret", (40, 12))
    hdf5(path, reader, lambda file, place: file.create_virtual_dataset(place, layout) and None)


@case("unwritten rows", *FORMS)
def _(path, reader):
    hdf5(path, reader, lambda file, place: file.create_dataset(
        place, (HUGE, 12), "f4", chunks=(1024, 12)) and None)  # fmt: skip


@case("large chunk", "rows.h5", "result.h5", "cells.h5ad")
def _(path, reader):
    def harm(file, place):
        file.create_dataset(place, (1 << 27,), "f4", chunks=(1 << 27,), compression="gzip")

    hdf5(path, reader, harm)


@case("name no text", "rows.h5", "result.h5")
def _(path, reader):
    def harm(file, place):
        where = file[place.rpartition("/")[0] or "/"]
        where.id.links.create_soft(b"x\xff\xfe", b"/y")

    hdf5(path, reader, harm)


@case("cycle", "rows.h5", "model.h5", "result.h5")
def _(path, reader):
    def harm(file, place):
        where = file[place.rpartition("/")[0] or "/"]
        for i in range(40):
            where[f"again{i}"] = where
        if reader == "result.h5":
            link = h5py.SoftLink("/isometry")
            where["around"] = link

    hdf5(path, reader, harm)


@case("length of a text", "model.h5")
def _(path, reader):
    """The model's description says that it has 1 GiB."""
    hdf5(path, reader, lambda file, place: file.__setitem__(place, np.ones((2, 1), "f4")))
    with h5py.File(path) as file:
        length = len(file.attrs["model_config"])
    blob = path.read_bytes()
    record = struct.pack("<IQ", length, blob.index(b"GCOL"))
    assert blob.count(record) == 1
    path.write_bytes(blob.replace(record, struct.pack("<I", 1 << 30) + record[4:]))


def heaped(path: Path, reader: str) -> tuple[bytes, int]:
    """The sound file of a reader with a text as an attribute, and where its heap lies."""
    value = np.arange(41) if reader == "cells.h5ad" else np.ones((2, 1), "f4")
    hdf5(path, reader, lambda file, place: file.__setitem__(place, value))
    READERS[reader](path)
    blob = path.read_bytes()
    return blob, blob.index(b"GCOL")


@case("text on no heap", "model.h5", "cells.h5ad")
def _(path, reader):
    """Its length is looked at where it is stored: HDF5 takes memory for it before it looks."""
    blob, heap = heaped(path, reader)
    with h5py.File(path) as file:
        name = "model_config" if reader == "model.h5" else "encoding-type"
        length = len(file.attrs[name])
    record = struct.pack("<IQ", length, heap)
    assert record in blob
    path.write_bytes(blob.replace(record, struct.pack("<IQ", 0x7FFFFFFF, HUGE)))


@case("heap longer than its file", "model.h5", "cells.h5ad")
def _(path, reader):
    blob, heap = heaped(path, reader)
    told = struct.pack("<Q", 0x7FFFFFFF)
    path.write_bytes(blob[: heap + 8] + told + blob[heap + 16 :])


@case("heap no library writes", "model.h5", "cells.h5ad")
def _(path, reader):
    blob, heap = heaped(path, reader)
    told = b"GCOL\x01\0\0\7" + struct.pack("<Q", 0x7FFFFFFF)
    path.write_bytes(blob[:heap] + told + blob[heap + 16 :])


@case("texts in its head", "result.h5")
def _(path, reader):
    def harm(file, place):
        kind = h5py.h5t.py_create(h5py.string_dtype(), logical=True)
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2,))
        h5py.Dataset(h5py.h5d.create(file.id, place.encode(), kind, space, plan))[:] = ["a", "b"]

    hdf5(path, reader, harm)


@case("texts in records", "result.h5")
def _(path, reader):
    kind = np.dtype([("n", "i4"), ("t", h5py.string_dtype())])
    hdf5(path, reader, lambda file, place: file.__setitem__(place, np.array([(1, "a")], kind)))


@case("length behind a filter", "result.h5")
def _(path, reader):
    def harm(file, place):
        kind = h5py.string_dtype()
        data = file.create_dataset(place, (64,), kind, chunks=(64,), compression="gzip")
        data[:] = ["text"] * 64
        mask, raw = data.id.read_direct_chunk((0,))
        records = np.frombuffer(bytearray(zlib.decompress(raw)), "<u4").reshape(64, 4).copy()
        records[:, 0] = 1 << 30
        data.id.write_direct_chunk((0,), zlib.compress(records.tobytes()), mask)

    hdf5(path, reader, harm)


@case("type without a like", "rows.h5", "model.h5", "result.h5", "cells.h5ad")
def _(path, reader):
    def harm(file, place):
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_fields(31, 16, 15, 0, 16)
        kind.set_precision(32)
        space = h5py.h5s.create_simple((40, 12))
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        h5py.h5d.create(file.id, place.encode(), kind, space, plan)

    hdf5(path, reader, harm)


@case("copies", "result.h5")
def _(path, reader):
    def harm(file, place):
        kind = h5py.string_dtype()
        data = file.create_dataset(place, (1 << 20,), kind, chunks=(1 << 15,), compression="gzip")
        data[0:1] = ["x" * (1 << 20)]

    hdf5(path, reader, harm)


@case("checksum", "result.h5")
def _(path, reader):
    made_result(path).close()
    with h5py.File(path) as file:
        data = file["isometry/norm_mean"]
        where = data.id.get_chunk_info(0)
    blob = bytearray(path.read_bytes())
    blob[where.byte_offset + where.size // 2] ^= 1
    path.write_bytes(blob)


# --------------------------------------------------------------------------- tables and arrays


def npy(shape, header=None, body=bytes(1920)) -> bytes:
    text = header or f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body


def as_form(path: Path, reader: str, blob: bytes) -> None:
    path.write_bytes(blob if reader == "rows.npy" else zipped([("x.npy", blob)]))


@case("forged length", "rows.npy", "rows.npz")
def _(path, reader):
    as_form(path, reader, npy((HUGE, 12)))


@case("bad header", "rows.npy", "rows.npz")
def _(path, reader):
    header = "{'descr': '<f4,(', 'fortran_order': False, 'shape': (40, 12)}"
    as_form(path, reader, npy((), header))


@case("complex", "rows.npy")
def _(path, reader):
    np.save(path, np.ones((40, 12), "c8"))


@case("forged length", "rows.parquet", "part.parquet")
def _(path, reader):
    table = pa.table({"x": pa.array(np.zeros(1 << 26, "i1")).dictionary_encode().cast(pa.int8())})
    pq.write_table(table, path, row_group_size=1 << 26, compression="zstd")


PARQUET = ("rows.parquet", "part.parquet", "texts.parquet")


def columns(reader: str, pages: bytes, **more) -> list[parquet.Column]:
    """The column in question, beside one of numbers where it goes along."""
    if reader != "texts.parquet":
        return [parquet.Column(pages, **more)]
    return [parquet.Column(parquet.numbers()), parquet.Column(pages, b"t", **more)]


@case("page longer than told", *PARQUET)
def _(path, reader):
    page = parquet.page(0, parquet.zeros(1 << 29), 1 << 29, 50)
    parquet.write(path, *columns(reader, page))


@case("dictionary longer than told", *PARQUET)
def _(path, reader):
    page = parquet.page(2, parquet.zeros(80), 80, (1 << 31) - 1)
    parquet.write(path, *columns(reader, page + parquet.numbers(), dictionary=True))


@case("places outside", "texts.parquet")
def _(path, reader):
    page = parquet.repeated(b"abc", 50, 9)
    parquet.write(path, *columns(reader, page, kind=parquet.BYTE_ARRAY, dictionary=True))


@case("long list", *PARQUET)
def _(path, reader):
    parquet.write(path, *columns(reader, parquet.numbers()), claimed=1 << 20)


@case("nesting", "rows.parquet")
def _(path, reader):
    tower = [parquet.element(b"n", None, 1)] * 100_000
    parquet.write(path, *columns(reader, parquet.numbers()), schema=tower)


@case("link outside", "rows.parquet")
def _(path, reader):
    part = [(1, parquet.BINARY, b"other.parquet")]
    parquet.write(path, *columns(reader, parquet.numbers(), part=part))


@case("long among many", "texts.parquet")
def _(path, reader):
    many = parquet.repeated(b"a" * (1 << 20), 50)
    own = {"kind": parquet.BYTE_ARRAY, "dictionary": True}
    parquet.write(path, *columns(reader, many, **own))


@case("long among many", "texts.csv")
def _(path, reader):
    path.write_text("x,t\n" + "1,a\n" * 8191 + f"1,{'a' * 100_000}\n")


@case("long among many", "labels.h5ad")
def _(path, reader):
    with h5py.File(path, "w") as file:
        cells(file, 1 << 14)
        file["X/indptr"] = np.minimum(np.arange((1 << 14) + 1), 40)
        file["obs/kind/codes"] = np.zeros(1 << 14, "i1")
        file["obs/kind/categories"] = ["a" * (1 << 20)]


@case("empty lines", "rows.csv.gz")
def _(path, reader):
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(b"1,2\n")
        for _ in range(300):
            stream.write(b"\n" * (1 << 20))
        stream.write(b"1,2\n")


@case("nothing but blank", "rows.csv.gz")
def _(path, reader):
    path.write_bytes(gzip.compress(b"\r\n \n\n"))


@case("endless line", "rows.csv.gz")
def _(path, reader):
    with gzip.open(path, "wb", compresslevel=9) as stream:
        for _ in range(64):
            stream.write(b"1" * (1 << 20))


@case("dotted keys", "model.toml")
def _(path, reader):
    path.write_text(".".join(["a"] * 100_000) + " = 1\n")


@case("nesting", "model.toml")
def _(path, reader):
    path.write_text("encoder = " + "[" * 20_000 + "]" * 20_000)


@case("number of many digits", "model.toml")
def _(path, reader):
    path.write_text("latent_size = " + "9" * 5_000)


# --------------------------------------------------------------------------- zarr


def described(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**ZARR, **changes}))


def zstd(claimed: int) -> bytes:
    """A frame of a gigabyte of zeros, as blocks of one byte each, that says how long it is."""
    block = struct.pack("<I", 1 << 1 | (1 << 17) << 3)[:3] + b"\0"
    last = struct.pack("<I", 1 | 1 << 1 | (1 << 17) << 3)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", claimed) + block * 8191 + last


@case("unwritten rows", "zarr.json")
def _(path, reader):
    described(path, shape=[HUGE, 12])


@case("large chunk", "zarr.json")
def _(path, reader):
    grid = {"name": "regular", "configuration": {"chunk_shape": [1 << 28, 12]}}
    described(path, shape=[1 << 28, 12], chunk_grid=grid)


@case("large chunk", "chunk.zstd")
def _(path, reader):
    path.write_bytes(zstd(1 << 30))


@case("forged length", "chunk.zstd")
def _(path, reader):
    """A frame that says it has as many bytes as the chunk, and goes on for a gigabyte."""
    path.write_bytes(zstd(40 * 12 * 4))


@case("codec that runs", "zarr.json")
def _(path, reader):
    described(path, codecs=[{"name": "bytes"}, {"name": "numcodecs.pickle"}])


@case("nesting", "zarr.json")
def _(path, reader):
    path.write_text('{"a":' + "[" * 50_000 + "]" * 50_000 + "}")


@case("number of many digits", "zarr.json")
def _(path, reader):
    path.write_text('{"zarr_format": 3, "node_type": "array", "shape": [' + "9" * 5_000 + "]}")


@case("described twice", "zarr.json")
def _(path, reader):
    path.write_text(json.dumps(ZARR))
    second = {"zarr_format": 2, "shape": [40, 12], "chunks": [40, 12], "dtype": "<f4"}
    path.with_name(".zarray").write_text(json.dumps(second))


@case("link outside", "zarr.json")
def _(path, reader):
    path.with_name("secret.json").write_text(json.dumps(ZARR))
    path.symlink_to(path.with_name("secret.json"))


@case("other words", "zarr.json")
def _(path, reader):
    described(path, codecs=[{"name": "bytes", "configuration": {"endian": ["middle"]}}])


@case("shorter than told", "chunk.zstd")
def _(path, reader):
    path.write_bytes(numcodecs.Zstd().encode(np.ones((10, 12), "f4")))


# --------------------------------------------------------------------------- the table


def test_the_table_has_no_hole() -> None:
    wanted = {(reader, kind) for kind, readers in APPLIES.items() for reader in readers}
    assert set(CASES) == wanted
    assert set(READERS) == {reader for reader, _ in wanted}


#: what is read all the same, as nothing in it is followed, and gives the sound numbers
HARMLESS = {("rows.h5", "cycle"), ("model.h5", "cycle"), ("legacy.pt", "cycle")}


@pytest.mark.parametrize(("reader", "kind"), sorted(CASES))
def test_a_hostile_file_is_one_line(tmp_path, monkeypatch, reader, kind) -> None:
    monkeypatch.chdir(tmp_path)
    Path("canary").write_bytes(b"mine")
    path = tmp_path / reader
    CASES[reader, kind](path)
    before = {p.name for p in tmp_path.iterdir()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    said = None
    try:
        READERS[reader](path)
    except IsoprobeError as error:
        said = str(error)
    assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEGABYTES << 10
    assert said is not None or (reader, kind) in HARMLESS
    assert "\n" not in (said or "")
    assert {p.name for p in tmp_path.iterdir()} == before
    assert Path("canary").read_bytes() == b"mine"


def test_pickles_are_not_run(tmp_path) -> None:
    """Counter-test: the payload of the corpus does run where pickle is let to."""
    with pytest.raises(SystemExit, match="it ran"):
        pickle.loads(pickle.dumps(Runs()))
