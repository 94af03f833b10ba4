"""Write Parquet files byte by byte, so that footer, heads of pages and pages need not agree."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
PLAIN, RLE, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 3, 7, 8
DOUBLE, BYTE_ARRAY, FIXED = 5, 6, 7
#: a field: its number, its type, its value; of a list the value is the type of what it holds and it
Field = tuple[int, int, Any]


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def folded(number: int) -> bytes:
    return varint(number << 1 ^ number >> 63)


def value(kind: int, content: Any) -> bytes:
    if kind in (I32, I64):
        return folded(content)
    if kind == BINARY:
        return varint(len(content)) + content
    if kind == LIST:
        inner, items, *count = content
        head = bytes([0xF0 | inner]) + varint(count[0] if count else len(items))
        return head + b"".join(value(inner, item) for item in items)
    return fields(content)


def fields(content: Sequence[Field]) -> bytes:
    """A structure in Thrift's compact protocol."""
    return (
        b"".join(
            bytes([kind]) + folded(number) + value(kind, what) for number, kind, what in content
        )
        + b"\0"
    )


def page(kind: int, packed: bytes, unpacked: int, values: int, encoding: int = PLAIN) -> bytes:
    """A page of data (0), a dictionary (2), or data in the second form (3), its head before it."""
    own: list[Field] = [(1, I32, values)]
    if kind == 3:
        own += [(2, I32, 0), (3, I32, values), (4, I32, encoding), (5, I32, 0), (6, I32, 0)]
    else:
        own.append((2, I32, encoding))
        own += [(3, I32, RLE), (4, I32, RLE)] if kind == 0 else []
    head: list[Field] = [(1, I32, kind), (2, I32, unpacked), (3, I32, len(packed))]
    return fields([*head, ({0: 5, 2: 7, 3: 8}[kind], STRUCT, own)]) + packed


def zeros(count: int) -> bytes:
    """So many zeros, packed."""
    return bytes(pa.compress(bytes(count), codec="zstd", asbytes=True))


def element(name: bytes, kind: int | None = None, children: int = 0, width: int = 0) -> list[Field]:
    """A line of the schema."""
    found: list[Field] = [] if kind is None else [(1, I32, kind)]
    found += [(2, I32, width)] if width else []
    found += [(3, I32, 0), (4, BINARY, name)]
    return found + ([(5, I32, children)] if children else [])


@dataclass
class Column:
    """Pages of a column, and what the footer says of it.

    Attributes:
        pages: each with its head, a dictionary first.
        name: of the column.
        kind: of its values.
        width: of values of fixed length.
        values: how many, as the footer says; as many as rows by default.
        dictionary: pages begin with one.
        ways: in which values are written, as the footer says.
        more: more fields of what is said of it, and those of its part.
    """

    pages: bytes
    name: bytes = b"x"
    kind: int = DOUBLE
    width: int = 0
    values: int | None = None
    dictionary: bool = False
    ways: Sequence[int] = (PLAIN, RLE)
    more: Sequence[Field] = ()
    part: Sequence[Field] = ()

    def told(self, start: int, rows: int) -> list[Field]:
        """What the footer says."""
        size = len(self.pages)
        said: list[Field] = [
            (1, I32, self.kind), (2, LIST, (I32, self.ways)), (3, LIST, (BINARY, [self.name])),
            (4, I32, 6), (5, I64, rows if self.values is None else self.values), (6, I64, size),
            (7, I64, size), (9, I64, start + self.dictionary),
        ]  # fmt: skip
        said += [(11, I64, start)] if self.dictionary else []
        return [*self.part, (2, I64, start), (3, STRUCT, [*said, *self.more])]


def write(
    path: Path,
    *columns: Column,
    rows: int = 50,
    schema: Sequence[list[Field]] | None = None,
    groups: int = 1,
    claimed: int | None = None,
    more: Sequence[Field] = (),
) -> None:
    """Write a file of one group of rows.

    Args:
        path: the file.
        columns: in order.
        rows: of the group, as the footer says.
        schema: lines of the schema, where it is not that of these columns.
        groups: how often the group is listed.
        claimed: how many groups the footer says there are.
        more: more fields of the footer.
    """
    lines = schema or [
        element(b"schema", None, len(columns)),
        *(element(one.name, one.kind, width=one.width) for one in columns),
    ]
    body, parts = b"PAR1", []
    for one in columns:
        parts.append(one.told(len(body), rows))
        body += one.pages
    group: list[Field] = [(1, LIST, (STRUCT, parts)), (2, I64, len(body)), (3, I64, rows)]
    count = groups if claimed is None else claimed
    footer = fields(
        [
            (1, I32, 2), (2, LIST, (STRUCT, lines)), (3, I64, rows * groups),
            (4, LIST, (STRUCT, [group] * groups, count)), *more,
        ]
    )  # fmt: skip
    path.write_bytes(body + footer + struct.pack("<I", len(footer)) + b"PAR1")


# ------------------------------------------------------------------ columns to write


def packed(content: bytes) -> bytes:
    """Bytes as pages hold them."""
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def numbers(count: int = 50, claimed: int | None = None) -> bytes:
    """A page of numbers."""
    content = struct.pack(f"<{count}d", *range(count))
    return page(0, packed(content), len(content), count if claimed is None else claimed)


def repeated(text: bytes, rows: int, place: int = 0) -> bytes:
    """A dictionary of one text, and a page in which it, or another place, stands in every row."""
    content = struct.pack("<I", len(text)) + text
    places = b"\4" + varint(rows << 1) + bytes([place])
    first = page(2, packed(content), len(content), 1)
    return first + page(0, packed(places), len(places), rows, RLE_DICTIONARY)


def prefixed(length: int, rows: int) -> bytes:
    """A page of a long text, and of as many that begin with all of it and end there."""

    def blocks(first: int, step: int) -> bytes:
        bits = 24
        head = varint(128) + varint(4) + varint(rows) + folded(first) + folded(min(step, 0))
        wide = step - min(step, 0)
        values = (wide if step > 0 else 0).to_bytes(bits // 8, "little")
        rest = (-min(step, 0)).to_bytes(bits // 8, "little") * (32 - 1)
        minis = bytes([bits, bits, bits, bits]) if step < 0 else bytes([bits, 0, 0, 0])
        body = values + rest + (-min(step, 0)).to_bytes(3, "little") * (96 if step < 0 else 0)
        return head + minis + body + (folded(0) + bytes(4)) * (-(-(rows - 1) // 128) - 1)

    content = blocks(0, length) + blocks(length, -length) + b"a" * length
    return page(0, packed(content), len(content), rows, DELTA_BYTE_ARRAY)
