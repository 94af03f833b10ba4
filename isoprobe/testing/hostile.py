"""Make files that nobody should accept, and files that run code in whoever unpickles them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from isoprobe.files.archives import packed


class Payload:
    """Touches a file when it is unpickled.

    Args:
        marker: the file.
    """

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def _bare_pickle(path: Path, payload: object) -> None:
    path.write_bytes(pickle.dumps(payload))


def _torch_zip(path: Path, payload: object) -> None:
    torch.save({"state_dict": payload}, path)


def _torch_legacy(path: Path, payload: object) -> None:
    torch.save({"state_dict": payload}, path, _use_new_zipfile_serialization=False)


def _object_array(path: Path, payload: object) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.array([payload], dtype=object), allow_pickle=True)


_CONTAINERS: dict[str, Callable[[Path, object], None]] = {
    "bare pickle": _bare_pickle,
    "torch zip": _torch_zip,
    "legacy torch file": _torch_legacy,
    "array of objects": _object_array,
}


def armed_copies(original: Path, folder: Path, marker: Path) -> Iterator[tuple[str, Path]]:
    """Yield copies of a checkpoint in which one file runs code when unpickled.

    Args:
        original: a checkpoint, file or folder; its names are kept.
        folder: where to put the copies.
        marker: the file that the code touches.

    Yields:
        What the armed file is, and the path of the copy.
    """
    members = [p for p in original.iterdir() if p.is_file()] if original.is_dir() else [original]
    for member in members:
        for container, write in _CONTAINERS.items():
            place = folder / f"{member.name}-{container.replace(' ', '-')}"
            place.mkdir()
            copy = place / original.name
            if original.is_dir():
                shutil.copytree(original, copy)
            target = copy / member.name if original.is_dir() else copy
            write(target, Payload(marker))
            yield f"{container} named {member.name}", copy


def foreign_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield files and a folder that are no checkpoint of any adapter, each with what it is."""
    contents: dict[str, bytes] = {
        "an empty file": b"",
        "a text": b"model\n" * 30,
        "noise": bytes(np.random.default_rng(0).integers(0, 256, 400, dtype=np.uint8)),
        "a JSON object": json.dumps({"model": 1}).encode(),
        "a pickled dictionary": pickle.dumps({"weight": [1.0]}),
        "an HDF5 signature and nothing more": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "the head of a safetensors file": (1 << 40).to_bytes(8, "little") + b'{"a":',
    }
    for number, (what, data) in enumerate(contents.items()):
        path = folder / f"foreign{number}.safetensors"
        path.write_bytes(data)
        yield what, path
    yield "a safetensors file of one tensor", _one_tensor(folder / "one.safetensors")
    yield "a zip archive of one text", _zipped_text(folder / "text.pt")
    (folder / "empty").mkdir()
    yield "an empty folder", folder / "empty"


def _one_tensor(path: Path) -> Path:
    safetensors.torch.save_file({"unrelated": torch.ones(2)}, path)
    return path


def _zipped_text(path: Path) -> Path:
    path.write_bytes(packed({"readme.txt": b"nothing"}))
    return path
