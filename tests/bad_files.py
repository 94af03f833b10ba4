"""Files that are wrong in one way each, made beside good ones of the same kind."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import safetensors.torch
import torch

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe_plugins.architectures.mlp import Mlp
from tests import configs

PIXELS, LATENTS, ROWS = 12, 3, 40
CONFIG = configs.mlp(PIXELS, latents=LATENTS, output="sigmoid")
#: faults of model files that a look at the header alone cannot show
ONLY_WHEN_LOADED = frozenset(
    f"{name}.safetensors"
    for name in ("shape", "missing", "surplus", "architecture", "config", "widths")
)
#: models that load, and give numbers that are not finite
ONLY_WHEN_RUN = frozenset({"nan.safetensors", "inf.safetensors", "huge.safetensors"})


def good_model(path: Path, change: Callable[[dict[str, torch.Tensor]], None] | None = None) -> None:
    """Write a small native checkpoint, its weights changed where asked."""
    torch.manual_seed(0)
    networks = Mlp().build(CONFIG)
    for part in (networks.encoder, networks.decoder):
        if change is not None:
            change(dict(part.named_parameters()))
    manifest = Manifest(FORMAT_VERSION, "mlp", CONFIG, LATENTS, Objective("bce", 1.0))
    write_checkpoint(path, networks.encoder, networks.decoder, manifest, overwrite=True)


def header_and_body(data: bytes) -> tuple[dict, bytes]:
    """Split a safetensors file."""
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: object, body: bytes = b"") -> bytes:
    """Put a safetensors file together."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def with_manifest(data: bytes, **changes: object) -> bytes:
    """Change the description inside a native checkpoint."""
    header, body = header_and_body(data)
    manifest = {**json.loads(header["__metadata__"]["isoprobe"]), **changes}
    header["__metadata__"]["isoprobe"] = json.dumps(manifest)
    return with_header(header, body)


def with_tensor(data: bytes, name: str, **changes: object) -> bytes:
    """Change what the header says of one tensor."""
    header, body = header_and_body(data)
    header[name] = {**header[name], **changes}
    return with_header(header, body)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def saved(value: object) -> bytes:
    """A torch file."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    """An npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def bad_models(folder: Path) -> list[str]:
    """Write model files with one fault each; return their names."""
    good = (folder / "model.safetensors").read_bytes()
    header, body = header_and_body(good)
    tensors = safetensors.torch.load(good)
    first = next(name for name in header if name != "__metadata__")
    metadata = {"isoprobe": header["__metadata__"]["isoprobe"]}
    fewer = {name: value for name, value in tensors.items() if name != first}
    files = {
        "empty.safetensors": b"",
        "text.safetensors": b"these are no weights\n" * 9,
        "seven.safetensors": good[:7],
        "longheader.safetensors": struct.pack("<Q", 1 << 62) + b"{}",
        "nojson.safetensors": with_header(b"{" * 40, body),
        "list.safetensors": with_header([1, 2], body),
        "twice.safetensors": with_header(b'{"a": {}, "a": {}}'),
        "backwards.safetensors": with_tensor(good, first, data_offsets=[8, 0]),
        "beyond.safetensors": with_tensor(good, first, data_offsets=[0, 1 << 40]),
        "hugeshape.safetensors": with_tensor(good, first, shape=[1 << 40, 1 << 40]),
        "negative.safetensors": with_tensor(good, first, shape=[-8, -12]),
        "dtype.safetensors": with_tensor(good, first, dtype="F31"),
        "foreign.safetensors": safetensors.torch.save({"weight": torch.ones(2)}),
        "newer.safetensors": with_manifest(good, format_version=99),
        "unversioned.safetensors": with_manifest(good, format_version="one"),
        "unknownkey.safetensors": with_manifest(good, author="me"),
        "nolatents.safetensors": with_manifest(good, latent_size=0),
        "architecture.safetensors": with_manifest(good, architecture="os:system"),
        "config.safetensors": with_manifest(good, config={"input_shape": "wide"}),
        "widths.safetensors": with_manifest(good, config={**CONFIG, "encoder_widths": [-1]}),
        "objective.safetensors": with_manifest(good, objective={"metric": 3}),
        "nolist.safetensors": with_manifest(good, config=[1]),
        "shape.safetensors": with_manifest(good, config={**CONFIG, "encoder_widths": [9]}),
        "missing.safetensors": safetensors.torch.save(fewer, metadata),
        "surplus.safetensors": safetensors.torch.save({**tensors, "x": torch.ones(1)}, metadata),
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "module.pt": saved(torch.nn.Linear(2, 2)),
        "object.pkl": pickle.dumps(Path("x")),
        "number.pt": saved(3.5),
        "cut.pt": saved({"w": torch.ones(4)})[:-60],
        "bomb.pt": zipped({"a/data.pkl": bytes(20 << 20)}, zipfile.ZIP_DEFLATED),
        "outside.pt": zipped({"../../a/data.pkl": b"x"}),
        "stub.h5": b"\x89HDF\r\n\x1a\n" + bytes(80),
        "cut.onnx": b"\x08\x08\x3a\xff\xff\xff\x7f",
        "cut.keras": zipped({"config.json": b"{", "model.weights.h5": b"x"}),
    }
    for percent in (10, 50, 90, 99):
        files[f"cut{percent}.safetensors"] = good[: len(good) * percent // 100]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "nothing").mkdir()
    (folder / "junk").mkdir()
    (folder / "junk" / "readme.txt").write_text("junk")
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    for name, value in (("nan", np.nan), ("inf", np.inf), ("huge", 1e38)):
        good_model(folder / f"{name}.safetensors", lambda p, v=value: _spoil(p, v))
    more = ["nothing", "junk", "loop.safetensors", "nowhere.safetensors"]
    return [*files, *more, *sorted(ONLY_WHEN_RUN)]


def _spoil(parameters: dict[str, torch.Tensor], value: float) -> None:
    with torch.no_grad():
        next(iter(parameters.values())).view(-1)[0:5] = value


def bad_data(folder: Path) -> list[str]:
    """Write data files with one fault each; return the specs that name them."""
    good = np.load(folder / "good.npy")
    text = ",".join(f"c{i}" for i in range(PIXELS)) + "\n"
    line = ",".join(["0.5"] * PIXELS) + "\n"
    files = {
        "empty.npy": b"",
        "text.npy": b"no numbers at all\n",
        "cut.npy": npy(good)[:-100],
        "header.npy": npy(good)[:40],
        "evil.npy": npy(np.array([Path("x")], dtype=object), pickled=True),
        "wide.npy": npy(np.ones((ROWS, PIXELS + 1), "f4")),
        "deep.npy": npy(np.ones((ROWS, 3, 5, 5), "f4")),
        "norows.npy": npy(good[:0]),
        "nocolumns.npy": npy(good[:, :0]),
        "scalar.npy": npy(np.float32(3)),
        "words.npy": npy(np.array(["a", "b"])),
        "complex.npy": npy(good.astype("c8")),
        "dates.npy": npy(np.zeros((ROWS, PIXELS), "M8[s]")),
        "nan.npy": npy(np.where(np.arange(ROWS)[:, None] == 30, np.nan, good)),
        "inf.npy": npy(np.where(np.arange(ROWS)[:, None] == 7, np.inf, good)),
        "range.npy": npy(good * 5 - 1),
        "evil.npz": zipped({"x.npy": npy(np.array([Path("x")], dtype=object), pickled=True)}),
        "notarray.npz": zipped({"x.txt": b"hello"}),
        "cut.npz": zipped({"x.npy": npy(good)})[:-30],
        "empty.csv": b"",
        "header.csv": text.encode(),
        "ragged.csv": (text + line + "0.5,0.5\n").encode(),
        "words.csv": (text + line + line.replace("0.5", "half", 1)).encode(),
        "wide.csv": (text + line.replace("\n", ",1\n")).encode(),
        "bytes.csv": bytes(range(128, 255)) * 9,
        "gap.csv": (text + line.replace("0.5", "", 1)).encode(),
        "junk.parquet": b"PAR1" + bytes(40) + b"PAR1",
        "stub.h5": b"\x89HDF\r\n\x1a\n" + bytes(80),
        "junk.png": b"\x89PNG\r\n\x1a\n" + bytes(30),
        "junk.zip": zipped({"a.png": b"\x89PNG\r\n\x1a\n" + bytes(30)}),
        "text.zip": zipped({"a.txt": b"hello"}),
        "outside.zip": zipped({"../a.png": b"x"}),
        "cut.zip": zipped({"a.png": bytes(900)})[:300],
        "odd.xyz": b"what is this",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    np.savez(folder / "two.npz", x=good, y=good)
    with h5py.File(folder / "rows.h5", "w") as file:
        file["x"] = good
        file.create_group("group")
        file["link"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["dangling"] = h5py.SoftLink("/nowhere")
    (folder / "loop.npy").symlink_to("loop.npy")
    more = ["nowhere.npy", "loop.npy", "nothing", "two.npz:z", "two.npz:x,z", "rows.h5:/nowhere"]
    more += ["rows.h5:/group", "rows.h5:/link", "rows.h5:/dangling", "two.npz", "nosuchsource"]
    more += ["toy/nothing", "toy/mix:samples=none", "toy/mix:bogus=1", "prior:x=1", "mnist/never"]
    return [*files, *more]


def bad_results(folder: Path) -> list[str]:
    """Damage a result file in many ways; return the names."""
    good = (folder / "result.h5").read_bytes()
    for name, data in {
        "empty_result.h5": b"",
        "text_result.h5": b"this is no result\n",
        "zeros_result.h5": good[:8] + bytes(2000),
    }.items():
        (folder / name).write_bytes(data)
    for percent in (5, 50, 95):
        (folder / f"cut{percent}_result.h5").write_bytes(good[: len(good) * percent // 100])
    edits: dict[str, Callable[[h5py.File], None]] = {
        "foreign": lambda f: f.attrs.__setitem__("format", "someone else's"),
        "newer": lambda f: f.attrs.__setitem__("format_version", 99),
        "wordversion": lambda f: f.attrs.__setitem__("format_version", "one"),
        "unfinished": lambda f: f.attrs.__setitem__("complete", "false"),
        "nojson": lambda f: f.attrs.__setitem__("json_attributes", "{{"),
        "wordbeta": lambda f: f.attrs.__setitem__("beta", "large"),
        "wordnotes": lambda f: f.attrs.__setitem__("notes", "none"),
        "nothing": lambda f: [f.__delitem__(name) for name in list(f)],
    }
    for name, edit in edits.items():
        path = folder / f"{name}_result.h5"
        path.write_bytes(good)
        with h5py.File(path, "r+") as file:
            edit(file)
    (folder / "running.h5.partial").mkdir()
    (folder / "loop_result.h5").symlink_to("loop_result.h5")
    made = [f"{name}_result.h5" for name in edits]
    made += ["empty_result.h5", "text_result.h5", "zeros_result.h5", "loop_result.h5"]
    made += [f"cut{percent}_result.h5" for percent in (5, 50, 95)]
    return [*made, "running.h5", "running.h5.partial", "nowhere.h5", "nothing", "model.safetensors"]


DECLARATIONS = {
    "syntax": "input_shape = [12\n",
    "bytes": "\ufffd\x00",
    "nothing": "",
    "noshape": "encoder = []\ndecoder = []\n",
    "wordshape": 'input_shape = "12"\nencoder = []\ndecoder = []\n',
    "negative": "input_shape = [-12]\nencoder = []\ndecoder = []\n",
    "hugeshape": "input_shape = [1000000000000, 1000000000000]\nencoder = []\ndecoder = []\n",
    "unknownkey": "input_shape = [12]\nencoder = []\ndecoder = []\nauthor = 1\n",
    "unknownstep": 'input_shape = [12]\nencoder = ["fly"]\ndecoder = []\n',
    "noweight": 'input_shape = [12]\nencoder = [{linear = "nowhere"}]\ndecoder = []\n',
    "code": "input_shape = [12]\nencoder = [\"__import__('os')\"]\ndecoder = []\n",
    "output": 'input_shape = [12]\nencoder = []\ndecoder = []\noutput = "softmax"\n',
    "head": 'input_shape = [12]\nencoder = []\ndecoder = []\n[head]\nlayout = "left"\n',
    "form": 'input_shape = [12]\nencoder = []\ndecoder = []\n[head]\nform = "cubed"\n',
    "loss": "input_shape = [12]\nencoder = []\ndecoder = []\n[loss]\nbeta = 1\n",
    "nested": "input_shape = " + "[" * 300 + "]" * 300 + "\n",
}


def bad_declarations(folder: Path) -> list[str]:
    """Write weights with a wrong declaration beside each; return the weights' names."""
    weights = safetensors.torch.save({"e.weight": torch.ones(6, 12), "e.bias": torch.ones(6)})
    names = [f"{name}_declared.safetensors" for name in DECLARATIONS]
    for name, text in zip(names, DECLARATIONS.values(), strict=True):
        (folder / name).write_bytes(weights)
        (folder / name).with_suffix(".toml").write_text(text, errors="surrogateescape")
    return names


def make_folder(folder: Path) -> None:
    """Write the good files that bad ones are made from, and links and places to refuse."""
    good_model(folder / "model.safetensors")
    rows = np.random.default_rng(0).random((ROWS, PIXELS)).astype("f4")
    np.save(folder / "good.npy", rows)
    layers = {"fc1": (8, PIXELS), "fc21": (2, 8), "fc22": (2, 8), "fc3": (8, 2), "fc4": (PIXELS, 8)}
    weights = {f"{k}.weight": torch.ones(shape) / 9 for k, shape in layers.items()}
    weights |= {f"{k}.bias": torch.zeros(shape[0]) for k, shape in layers.items()}
    safetensors.torch.save_file(weights, folder / "weights.safetensors")
    (folder / "existing.h5").write_bytes(b"precious")
    (folder / "existing.html").write_bytes(b"precious")
    (folder / "existing.safetensors").write_bytes(b"precious")
    (folder / "existing.csv").write_bytes(b"precious")
    (folder / "file").write_text("a file where a folder is wanted")
    (folder / "isoprobe-taken").mkdir()
    os.mkfifo(folder / "pipe")
