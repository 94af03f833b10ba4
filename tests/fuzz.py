"""Change files at random and read them: ``python -m tests.fuzz --count 2000``.

Each mutant is read in a child process, which may end neither by an exception that is not ours, nor
by a signal, nor take over ten seconds of processor time or a gigabyte. Where a form has checksums,
a mutant that is read gives the same numbers as the sound file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch

from isoprobe.checkpoints.native import weights
from isoprobe.checkpoints.source import Source
from isoprobe.errors import IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result
from isoprobe.show.trend import trend_of
from tests import bad_files, parquet, said
from tests.files import test_corpus as corpus
from tests.made import made_result

#: of processor time, and at most so many on a machine that does other things
SECONDS, WAITED, BYTES = 10, 300, 1 << 30
DECLARED = 'input_shape = [4]\nencoder = [{ linear = "fc1" }, "relu"]\ndecoder = ["relu"]\n'


def _csv(path: Path) -> None:
    import gzip

    path.write_bytes(gzip.compress(b"a,b\n" + b"1.5,2\n" * 50, mtime=0))


def _rows_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones((40, 12), "f4"), chunks=(8, 12), compression="gzip")


def _chunk(path: Path) -> None:
    path.write_bytes(numcodecs.Zstd(checksum=True).encode(np.ones((40, 12), "f4")))


def _cells(path: Path) -> None:
    with h5py.File(path, "w") as file:
        corpus.cells(file)
        file["X/indptr"] = np.arange(41)


def _labelled(path: Path) -> None:
    _cells(path)
    with h5py.File(path, "a") as file:
        file["obs/kind/codes"] = np.zeros(40, "i1")
        file["obs/kind/categories"] = ["a", "b"]


#: numbers, and texts by their places in a dictionary, some missing
_TEXTS = pa.table({"x": np.ones(50), "t": ["a", None] * 25})


def _scvi(path: Path) -> None:
    saved = Path(__file__).parent / "plugins" / "scvi" / "scvi_nb" / "model.pt"
    path.write_bytes(saved.read_bytes())


def _keras_h5(path: Path) -> None:
    corpus.hdf5(
        path, "model.h5", lambda file, place: file.__setitem__(place, np.ones((2, 1), "f4"))
    )


#: points of a monitor, as its log holds them
_POINT = {"step": 5, "used": 1, "latents": 2, "rate": 1.5, "kl": [1.5, None], "active": [0]}


def _sweep(path: Path) -> None:
    model = {"model": "a.pt", "steps": {"step": 4}, "result": "a.h5"}
    path.write_text(json.dumps([model, {"model": "b.pt", "error": "damaged"}]))


def _log(path: Path) -> None:
    lines = [{"monitor": 1, "metric": "sse"}, _POINT, {**_POINT, "step": 7}, {"end": 7}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


MAKE: dict[str, Callable[[Path], Any]] = {
    **{name: lambda path, name=name: corpus.sound(path, name) for name in corpus.ARCHIVES},
    "legacy.pt": lambda path: path.write_bytes(corpus.saved(corpus.STATE, legacy=True)),
    "weights.safetensors": lambda path: safetensors.torch.save_file(corpus.STATE, path),
    "native.safetensors": bad_files.good_model,
    "graph.onnx": lambda path: corpus.onnx_graph(
        path, [corpus.helper.make_node("Tanh", ["z"], ["y"])]
    ),
    "model.h5": _keras_h5,
    "rows.h5": _rows_h5,
    "cells.h5ad": _cells,
    "scvi.pt": _scvi,
    "rows.npy": lambda path: np.save(path, np.ones((40, 12), "f4")),
    "rows.csv.gz": _csv,
    "rows.parquet": lambda path: pq.write_table(pa.table({"x": np.ones(50)}), path),
    "part.parquet": lambda path: pq.write_table(pa.table({"x": np.ones(50)}), path),
    "texts.parquet": lambda path: pq.write_table(_TEXTS, path, row_group_size=30),
    "pages.parquet": lambda path: parquet.write(path, parquet.Column(parquet.numbers())),
    "texts.csv": lambda path: path.write_text("x,t\n" + "1.5,a\n2,bc\n" * 20),
    "labels.h5ad": _labelled,
    "zarr.json": lambda path: path.write_text(json.dumps(corpus.ZARR)),
    "chunk.zstd": _chunk,
    "result.h5": lambda path: made_result(path).close(),
    "model.toml": lambda path: path.write_text(DECLARED),
    "sweep.json": _sweep,
    "log.jsonl": _log,
    **said.DECLARATIONS,
    "card.toml": lambda path: path.write_text(said.CARD),
    "told.npz": said.made_conditions,
    "weights.npz": lambda path: np.savez(path, **{k: v.numpy() for k, v in corpus.STATE.items()}),
    "sequence.json": said.made_sequence,
}
READ = {
    **corpus.READERS,
    "pages.parquet": corpus.READERS["rows.parquet"],
    "weights.safetensors": corpus.READERS["zip.pt"],
    "sweep.json": lambda path: trend_of(path.parent).to_text(),
    "log.jsonl": lambda path: trend_of(path).to_text(),
    **dict.fromkeys(said.DECLARATIONS, said.declared),
    "card.toml": said.card,
    "told.npz": said.conditions,
    "weights.npz": corpus.READERS["zip.pt"],
    "sequence.json": said.sequence,
}


def _tensors(path: Path) -> dict[str, Any]:
    vae = installed().adapter_for(Source(path), "tutorial-mlp").load(Source(path), {})
    return {k: v.numpy() for k, v in vae.module.state_dict().items()}


def _numbers(path: Path) -> dict[str, Any]:
    with Result.open(path) as result:
        return {
            f"{group}/{name}": variable.values
            for group in result.groups()
            for name, variable in result[group].items()
            if variable.values.dtype.kind in "fiub"
        }


def _array(path: Path) -> dict[str, Any]:
    opened = installed().data(str(path))
    try:
        return {"x": opened.read(np.arange(len(opened)))}
    finally:
        opened.close()


#: forms with checksums, and the numbers that they keep
KEPT: dict[str, Callable[[Path], dict[str, Any]]] = {
    "zip.pt": _tensors,
    "rows.npz": _array,
    "weights.npz": _tensors,
    "images.zip": _array,
    "native.safetensors": lambda path: {k: v.numpy() for k, v in weights(path).items()},
    "result.h5": _numbers,
}


def digests(values: dict[str, Any]) -> dict[str, str]:
    """A hash of each array, by name."""
    found = {}
    for name, value in values.items():
        array = np.ascontiguousarray(value)
        told = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        found[name] = hashlib.sha256(told).hexdigest()
    return found


def mutated(blob: bytes, draw: random.Random) -> bytes:
    """A file with bytes flipped, cut out, doubled, or set to what lengths are made of."""
    data = bytearray(blob)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        place = draw.randrange(len(data) or 1)
        kind = draw.randrange(6)
        if kind <= 2 and data:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 3:
            data[place : place + 4] = draw.choice((b"\xff" * 4, bytes(4), b"\0\0\0\x7f"))
        elif kind == 4:
            del data[place : place + draw.randrange(1, 64)]
        else:
            data[place:place] = data[place : place + draw.randrange(1, 64)]
    return bytes(data)


def outcome(kind: str, path: Path, sound: dict[str, str]) -> str:
    """Read a mutant: ``refused``, ``read``, or what is wrong."""
    try:
        READ[kind](path)
        if kind in KEPT:
            found = digests(KEPT[kind](path))
            if any(found[name] != sound.get(name) for name in found):
                return "silent change"
    except IsoprobeError as error:
        return "refused" if "\n" not in str(error) else f"lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def try_kind(kind: str, count: int, seed: int, folder: Path) -> Counter[str]:
    """Read so many mutants of a kind; return how often what happened."""
    path = folder / kind
    MAKE[kind](path)
    blob = path.read_bytes()
    sound = digests(KEPT[kind](path)) if kind in KEPT else {}
    seen: Counter[str] = Counter()
    done = 0
    while done < count:
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which torch keeps idle
            child = os.fork()
        if child == 0:
            os.close(read)
            _child(kind, path, blob, sound, range(done, count), seed, write)
        os.close(write)
        with os.fdopen(read) as told:
            for line in told:
                seen[json.loads(line)] += 1
                done += 1
        status = os.waitpid(child, 0)[1]
        if status:
            seen[f"ended by signal {os.WTERMSIG(status)}, mutant {done} of seed {seed}"] += 1
            done += 1
    return seen


def _child(
    kind: str, path: Path, blob: bytes, sound: dict[str, str], which: range, seed: int, out: int
) -> None:
    for ending in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(ending, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for number in which:
            path.write_bytes(mutated(blob, random.Random(f"{kind} {seed} {number}")))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(WAITED)
            said = outcome(kind, path, sound)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 > BYTES:
                said = f"over a gigabyte, mutant {number}"
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if said not in {"refused", "read"}:
                said = f"{said[:160]} (mutant {number})"
            os.write(out, json.dumps(said).encode() + b"\n")
    finally:
        os._exit(0)


def main() -> int:
    """Try every kind, print a line each; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("kinds", nargs="*", default=sorted(MAKE))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wrong = 0
    for kind in given.kinds:
        with tempfile.TemporaryDirectory() as folder:
            seen = try_kind(kind, given.count, given.seed, Path(folder))
        bad = {k: n for k, n in seen.items() if k not in {"refused", "read"}}
        wrong += sum(bad.values())
        told = f"{seen['refused']:>6} refused {seen['read']:>6} read"
        print(f"{kind:<20} {told}  {bad or ''}", flush=True)
    print(f"{given.count * len(given.kinds)} mutants of {len(given.kinds)} kinds, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
