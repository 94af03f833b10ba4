"""Tell what a pickle would build from its opcodes: nothing is unpickled, imported or run."""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass
from typing import IO

SCAN_BYTES = 8 << 20
SCAN_OPCODES = 400_000
STRING_LENGTH = 200

#: names a plain state dict may mention, by prefix
PLAIN_GLOBALS = (
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_parameter",
    "torch.serialization._get_layout",
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
)

_STRINGS = {
    "SHORT_BINUNICODE", "BINUNICODE", "UNICODE", "BINUNICODE8",
    "SHORT_BINSTRING", "BINSTRING", "STRING",  # written under Python 2
}  # fmt: skip


@dataclass(frozen=True)
class PickleScan:
    """What the opcodes of one pickle mention.

    Attributes:
        names: every ``module.attribute`` the pickle would import, in order of appearance.
        tensors: number of tensors it would rebuild.
        strings: short texts in it, among them the names of its tensors.
        whole: False when the pickle is cut short, damaged, or too long to look through.
    """

    names: tuple[str, ...]
    tensors: int
    whole: bool
    strings: frozenset[str] = frozenset()

    @property
    def foreign(self) -> tuple[str, ...]:
        """Names that have no place among plain tensors and containers."""
        return tuple(n for n in self.names if not _is_plain(n))


def scan_pickle(stream: IO[bytes], *, skip: int = 0) -> PickleScan:
    """List what the pickle at the stream's position would import.

    Args:
        stream: opened at the first opcode; at most 8 MiB of it are read.
        skip: pickles to pass over first (three stand before a legacy torch file's object).

    Returns:
        The names, the number of tensors, and whether the end was reached.
    """
    buffer = io.BytesIO(stream.read(SCAN_BYTES))
    for _ in range(skip):
        if not _scan(buffer).whole:
            return PickleScan((), 0, whole=False)
    return _scan(buffer)


def _scan(buffer: io.BytesIO) -> PickleScan:
    names: dict[str, None] = {}
    strings: list[str] = []
    seen: set[str] = set()
    tensors, whole = 0, False
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(buffer)):
            if opcode.name in _STRINGS:
                text = str(argument)
                strings = [*strings[-1:], text]
                if len(text) <= STRING_LENGTH:
                    seen.add(text)
            elif opcode.name in {"GLOBAL", "INST"}:
                names[str(argument).replace(" ", ".", 1)] = None
            elif opcode.name == "STACK_GLOBAL":
                names[".".join(strings)] = None
            elif opcode.name in {"BINPERSID", "PERSID"}:
                tensors += 1
            whole = opcode.name == "STOP"
            if count >= SCAN_OPCODES:
                break
    except (ValueError, IndexError, OverflowError, EOFError):
        whole = False
    return PickleScan(tuple(names), tensors, whole, frozenset(seen))


def _is_plain(name: str) -> bool:
    storage = name.startswith("torch.") and name.endswith("Storage")
    dtype = name.startswith("torch.") and name.count(".") == 1 and name.islower()
    return storage or dtype or name.startswith(PLAIN_GLOBALS)
