"""Look at a checkpoint on disk without running or unpickling anything.

Only the standard library is used, and every read has a limit, so that a hostile file costs
neither memory nor time.
"""

from __future__ import annotations

import enum
import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from isoprobe.checkpoints.headers import (
    HEADER_LIMIT,
    is_onnx,
    is_text,
    read_safetensors_header,
)
from isoprobe.checkpoints.pickles import PickleScan, scan_pickle
from isoprobe.errors import CheckpointError, FileError
from isoprobe.files.archives import Archive, has_zip_directory, member_names
from isoprobe.files.documents import parse_json

JSON_LIMIT = 4 << 20

TORCH_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46")
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


class FileKind(enum.Enum):
    """What a path holds, told by content; the value is how to call it in a sentence."""

    LFS_POINTER = "a Git LFS pointer, not the file itself"
    SAFETENSORS = "a safetensors file"
    DIFFUSERS = "a diffusers model folder"
    PYTHAE = "a pythae model folder"
    HUB_MIXIN = "a hub folder of weights and constructor arguments"
    FOLDER = "a folder"
    LIGHTNING = "a Lightning checkpoint"
    TORCHSCRIPT = "a TorchScript archive"
    TORCH_EXPORT = "a torch.export archive"
    TORCH_ZIP = "a torch zip archive"
    TORCH_LEGACY = "a legacy torch file"
    PICKLE = "a bare pickle"
    KERAS = "a Keras archive"
    ZIP = "a zip archive of no known kind"
    REFUSED = "a zip archive that is not read"
    HDF5 = "an HDF5 file"
    ONNX = "an ONNX model"
    TEXT = "a text file"
    UNKNOWN = "a file of no known kind"


#: files that torch.save wrote, of any generation
TORCH_KINDS = frozenset({FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY, FileKind.LIGHTNING})
#: files of weights by name
WEIGHT_KINDS = TORCH_KINDS | {FileKind.SAFETENSORS}


class Source:
    """An opened look at a path.

    Args:
        path: file or folder.
        trusted: the user lets code inside the checkpoint run (``--trust``); looking runs none
            either way.

    Raises:
        CheckpointError: when the path is missing, unreadable, or neither file nor folder.
    """

    def __init__(self, path: str | Path, *, trusted: bool = False) -> None:
        self.path = Path(path)
        self.trusted = trusted
        try:
            self.is_folder = self.path.is_dir()
            if not self.is_folder and not self.path.exists():
                raise CheckpointError(f"no such file or folder: {self.path}")
            if not self.is_folder and not self.path.is_file():
                raise CheckpointError(f"{self.path} is neither a file nor a folder")
            self.size = 0 if self.is_folder else self.path.stat().st_size
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot look at {str(self.path)!r}: {error}") from error

    def __repr__(self) -> str:
        return f"Source({str(self.path)!r})"

    @cached_property
    def kind(self) -> FileKind:
        """What the path holds."""
        return self._folder_kind() if self.is_folder else self._file_kind()

    @cached_property
    def description(self) -> str:
        """One line for people: ``a torch zip archive holding 34 tensors``."""
        return self.kind.value + self._detail()

    @property
    def integrity(self) -> str:
        """Whether damage to the file would be noticed, in words."""
        if self.is_folder:
            return "of each file in it, its own form says whether damage is noticed"
        if self._members:
            return "damage is noticed: every member has a checksum, which is verified"
        if self.kind is FileKind.SAFETENSORS and self._has_hash():
            return "damage is noticed: it holds a hash of its tensors, which is verified"
        return "damage to its numbers would not be noticed: it holds no checksum of them"

    def _has_hash(self) -> bool:
        try:
            told = self.header.get("__metadata__", {}).get("isoprobe", "")
        except CheckpointError:
            return False
        return '"tensors_sha256":"' in told

    # ------------------------------------------------------------------ bytes

    def head(self, count: int = 512) -> bytes:
        """Return the first bytes of the file; of a folder none.

        Raises:
            CheckpointError: when the file cannot be read.
        """
        if self.is_folder or not self.size:
            return (
                b""  # a link of a stranger's folder may lead to a file of the system, without end
            )
        try:
            with self.path.open("rb") as stream:
                return stream.read(count)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from error

    def sha256(self) -> str:
        """Return the hash of the file's bytes; of a folder, of its files' names and bytes."""
        digest = hashlib.sha256()
        files = sorted(p for p in self.path.rglob("*") if p.is_file()) if self.is_folder else []
        for file in files or [self.path]:
            if self.is_folder:
                digest.update(file.relative_to(self.path).as_posix().encode() + b"\0")
            if file.is_file():
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
        return digest.hexdigest()

    # ------------------------------------------------------------------ members

    def names(self) -> tuple[str, ...]:
        """Return the names in a zip file or folder (one level), sorted; of another file none."""
        if self.is_folder:
            return tuple(sorted(p.name for p in self.path.iterdir()))
        return self._members

    def child(self, name: str) -> Source:
        """Return a look at a file of this folder.

        Raises:
            CheckpointError: when it is missing, or the name leads out of the folder.
        """
        if not name or Path(name).name != name or name in {".", ".."}:
            raise CheckpointError(f"{name!r} is not a file name inside {self.path}")
        return Source(self.path / name, trusted=self.trusted)

    @property
    def around(self) -> Source:
        """A look at the folder that a file lies in."""
        parent = self.path.parent
        return Source(parent if parent.name else parent.absolute(), trusted=self.trusted)

    def has(self, *names: str) -> bool:
        """Return True when every name is inside the zip file or folder."""
        return set(names) <= set(self.names())

    def read(self, name: str, limit: int = JSON_LIMIT) -> bytes:
        """Return the bytes of one member of a folder or zip file.

        Raises:
            CheckpointError: when it is missing, damaged, or longer than the limit.
        """
        data = self._read_file(name, limit) if self.is_folder else self._read_member(name, limit)
        if len(data) > limit:
            raise CheckpointError(f"{self.path}: {name} is longer than the {limit} bytes allowed")
        return data

    def json(self, name: str) -> Any:
        """Return the value of a small JSON member of a folder or zip file.

        Raises:
            CheckpointError: when it is missing, too long, or no JSON.
        """
        return parse_json(self.read(name), f"{self.path}: {name}")

    def _read_file(self, name: str, limit: int) -> bytes:
        return self.child(name).head(limit + 1)

    def _read_member(self, name: str, limit: int) -> bytes:
        with Archive(self.path) as archive:
            return archive.read(name, limit)

    @property
    def _members(self) -> tuple[str, ...]:
        return self._directory[0]

    @property
    def refusal(self) -> str | None:
        """Why the file is not read, whatever it was to be; None where nothing is known against."""
        return self._directory[1]

    @cached_property
    def _directory(self) -> tuple[tuple[str, ...], str | None]:
        """Names of a zip file's members, or why they are not read."""
        if self.is_folder or not has_zip_directory(self.path, self.size):
            return (), None
        try:
            return member_names(self.path), None
        except FileError as error:
            return (), str(error)

    # ------------------------------------------------------------------ safetensors

    @cached_property
    def header(self) -> dict[str, Any]:
        """Checked header of a safetensors file: every tensor lies within the file.

        Raises:
            CheckpointError: when the header is cut short, forged or no JSON.
        """
        return read_safetensors_header(self.path, self.size)

    # ------------------------------------------------------------------ pickles

    @cached_property
    def pickle(self) -> PickleScan | None:
        """What the file's main pickle would import, or None where there is none."""
        if self.kind in {FileKind.TORCH_ZIP, FileKind.LIGHTNING, FileKind.TORCHSCRIPT}:
            return self._scan_member()
        if self.kind in {FileKind.TORCH_LEGACY, FileKind.PICKLE}:
            with self.path.open("rb") as stream:
                return scan_pickle(stream, skip=3 if self.kind is FileKind.TORCH_LEGACY else 0)
        return None

    def _scan_member(self) -> PickleScan:
        name = next(n for n in self.names() if _base(n) == "data.pkl")
        try:
            with Archive(self.path) as archive, archive.open(name) as stream:
                return scan_pickle(stream)
        except FileError:
            return PickleScan((), 0, whole=False)

    # ------------------------------------------------------------------ kinds

    def _file_kind(self) -> FileKind:
        head = self.head()
        if head.startswith(b"version https://git-lfs"):
            return FileKind.LFS_POINTER
        if head[8:9] == b"{" and not is_text(head[:8]):
            return FileKind.SAFETENSORS
        if head.startswith(b"PK") and self.refusal is not None:
            return FileKind.REFUSED
        if head.startswith(b"PK\x03\x04") or (head.startswith(b"PK") and self._members):
            return self._zip_kind()
        return self._plain_kind(head)

    def _plain_kind(self, head: bytes) -> FileKind:
        if head.startswith(TORCH_LEGACY_MAGIC):
            return FileKind.TORCH_LEGACY
        if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
            return FileKind.PICKLE
        if head.startswith(HDF5_MAGIC):
            return FileKind.HDF5
        if is_onnx(self.path, self.size):
            return FileKind.ONNX
        return FileKind.TEXT if head and is_text(head) else FileKind.UNKNOWN

    def _zip_kind(self) -> FileKind:
        bases = {_base(name) for name in self._members}
        if "constants.pkl" in bases and any("/code/" in f"/{n}" for n in self._members):
            return FileKind.TORCHSCRIPT
        if "archive_format" in bases:
            return FileKind.TORCH_EXPORT
        if "data.pkl" in bases:
            return FileKind.LIGHTNING if self._is_lightning() else FileKind.TORCH_ZIP
        if {"config.json", "model.weights.h5"} <= set(self._members):
            return FileKind.KERAS
        return FileKind.ZIP

    def _is_lightning(self) -> bool:
        """Return True when the pickle mentions the key that Lightning always writes."""
        name = next(n for n in self._members if _base(n) == "data.pkl")
        try:
            with Archive(self.path) as archive, archive.open(name) as stream:
                return b"pytorch-lightning_version" in stream.read(HEADER_LIMIT)
        except FileError:
            return False

    def _folder_kind(self) -> FileKind:
        config = self._config("config.json")
        if "_class_name" in config and "_diffusers_version" in config:
            return FileKind.DIFFUSERS
        if str(self._config("model_config.json").get("name", "")).endswith("Config"):
            return FileKind.PYTHAE
        if config and "_class_name" not in config and self.has("model.safetensors"):
            return FileKind.HUB_MIXIN
        return FileKind.FOLDER

    def _config(self, name: str) -> dict[str, Any]:
        """Return a JSON object of the folder, empty where there is none."""
        if not (self.path / name).is_file():
            return {}
        try:
            config = self.json(name)
        except CheckpointError:
            return {}
        return config if isinstance(config, dict) else {}

    def _detail(self) -> str:
        if self.is_folder:
            names = self.names()
            return f" holding {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        if self.size == 0:
            return " (it is empty)"
        if self.kind is FileKind.SAFETENSORS:
            return self._safetensors_detail()
        return "" if self.pickle is None else _pickle_detail(self.pickle)

    def _safetensors_detail(self) -> str:
        try:
            header = self.header
        except CheckpointError:
            return ", damaged"
        metadata = header.get("__metadata__", {})
        ours = ", with isoprobe's description" if "isoprobe" in metadata else ""
        return f" of {sum(k != '__metadata__' for k in header)} tensors{ours}"


def _pickle_detail(scan: PickleScan) -> str:
    if not scan.whole:
        return ", cut short or too long to look through"
    if scan.foreign:
        more = len(scan.foreign) - 1
        others = f" and {more} other name{'s' if more > 1 else ''}" if more else ""
        return f" holding objects of {scan.foreign[0]}{others}, {scan.tensors} tensors"
    return f" holding a state dict of {scan.tensors} tensors"


def _base(name: str) -> str:
    return name.rsplit("/", 1)[-1]
