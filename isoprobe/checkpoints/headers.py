"""Read what stands at the start or end of a file, with a limit on every read."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from isoprobe.errors import CheckpointError
from isoprobe.files.documents import parse_json

if TYPE_CHECKING:
    from pathlib import Path

HEADER_LIMIT = 16 << 20

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64, "C128": 128,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
}  # fmt: skip


def read_safetensors_header(path: Path, size: int) -> dict[str, Any]:
    """Parse and check the header of a safetensors file: every tensor lies within the file.

    Args:
        path: the file.
        size: its length in bytes.

    Returns:
        Tensor name -> dtype, shape, data_offsets; ``__metadata__`` where there is some.

    Raises:
        CheckpointError: when the header is cut short, forged, or no JSON.
    """
    if size < 8:
        raise CheckpointError(f"{path} is cut short: it has {size} bytes")
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        data = stream.read(length) if length <= HEADER_LIMIT else b""
    if length > HEADER_LIMIT:
        raise CheckpointError(
            f"{path} declares a header of {length} bytes, more than any model has: "
            "it is damaged or not safetensors"
        )
    if size < 8 + length:
        raise CheckpointError(
            f"{path} is cut short: its header needs {8 + length} bytes, "
            f"the file has {size}; fetch it again"
        )
    header = parse_json(data, f"{path}: its header")
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its header is not a table of tensors")
    _check_header(header, size - 8 - length, path)
    return header


def _check_header(header: dict[str, Any], available: int, path: Path) -> None:
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: its metadata is not a table of texts")
    for name, entry in header.items():
        if name != "__metadata__":
            _check_tensor(name, entry, available, path)


def _check_tensor(name: str, entry: Any, available: int, path: Path) -> None:
    """Raise CheckpointError unless shape, type and offsets agree and lie within the file."""
    entry = entry if isinstance(entry, dict) else {}
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    bits = DTYPE_BITS.get(str(entry.get("dtype")))
    if bits is None or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{path}: the header's entry for {name!r} is damaged")
    start, end = offsets
    if end > available:
        raise CheckpointError(
            f"{path} is cut short: tensor {name!r} ends at byte {end} of the data, "
            f"the file has {available}; fetch it again"
        )
    elements = 1
    for length in shape:
        elements *= length
        if elements > 8 * available:
            break
    if elements * bits != 8 * (end - start):
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {shape} does not fill bytes {start} to {end}"
        )


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value
    )


def is_text(data: bytes) -> bool:
    """Return True for UTF-8 without control characters; the end may be cut inside a letter."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:
            return False
        text = data[: error.start].decode()
    return all(c.isprintable() or c in "\r\n\t\f\ufeff" for c in text)


#: field number -> wire type of a serialised ONNX ModelProto
_ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


def is_onnx(path: Path, size: int) -> bool:
    """Return True when the protocol buffer's top-level fields are those of ONNX."""
    seen: set[int] = set()
    with path.open("rb") as stream:
        for _ in range(10_000):
            if stream.tell() >= size:
                break
            tag = _read_varint(stream)
            if _ONNX_FIELDS.get(tag >> 3) != tag & 7:
                return False
            seen.add(tag >> 3)
            value = _read_varint(stream)
            if tag & 7 == 2:
                stream.seek(min(value, size + 1), 1)
        return {1, 7} <= seen and stream.tell() == size


def _read_varint(stream: BinaryIO) -> int:
    """Return the variable-length number at the stream; at the end of the file, what there is."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        value |= (byte[0] & 0x7F) << shift if byte else 0
        if not byte or byte[0] < 0x80:
            break
    return value
