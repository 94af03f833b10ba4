"""Pickles read without unpickling: tensors are rebuilt, every other object is an inert record.

The opcodes are interpreted here, one by one, on plain lists and dictionaries. No class named by
the file is imported, no function it names is called, and whatever is built takes memory in
proportion to the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from isoprobe.checkpoints.pickles import SCAN_OPCODES


@dataclass(eq=False)
class Record:
    """An object of the file that was not built.

    Attributes:
        name: ``module.class`` of what the pickle asked for.
        arguments: what it would have been called with.
        state: what would have become its attributes.
        items: what would have been appended or set in it.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def get(self, attribute: str) -> Any:
        """Return an attribute of the object that was saved, or None."""
        return self.state.get(attribute) if isinstance(self.state, dict) else None


@dataclass(frozen=True)
class Name:
    """A class or function the pickle mentions."""

    name: str


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's elements lie.

    Attributes:
        dtype: name of torch's dtype.
        key: of the storage.
        numel: of the storage.
        offset: in elements.
        size: shape.
        stride: in elements.
    """

    dtype: str
    key: str
    numel: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_IGNORED = {"PROTO", "FRAME"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_records(stream: BinaryIO) -> Any:
    """Interpret the pickle at a stream's position.

    Args:
        stream: opened at the first opcode; it is left behind the last one.

    Returns:
        Plain containers, :class:`StoredTensor` for tensors, :class:`Record` for the rest.

    Raises:
        ValueError: when the pickle is damaged or uses an opcode torch never writes.
    """
    machine = _Machine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > SCAN_OPCODES:
            raise ValueError("the pickle is too long")
        if opcode.name == "STOP":
            return machine.pop()
        try:
            machine.step(opcode.name, argument)
        except (IndexError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"opcode {opcode.name} does not fit: {error}") from error
    raise ValueError("the pickle has no end")


class _Machine:
    """The pickle virtual machine, without imports and calls."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("the pickle's stack is empty")
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif (action := getattr(self, f"_{name.lower()}", None)) is not None:
            action(argument)
        elif _is_literal(name):
            self.stack.append(argument)
        else:
            raise ValueError(f"opcode {name} is not expected here")

    # what was put aside

    def _put(self, index: Any) -> None:
        self.memo[int(index)] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    _binget = _long_binget = _get

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _pop(self, _: Any) -> None:
        self.pop()

    # containers

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _marked(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        place = next(i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _pop_mark(self, _: Any) -> None:
        self._marked()

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def _list(self, _: Any) -> None:
        self.stack.append(self._marked())

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(self._marked()))

    def _append(self, _: Any) -> None:
        item = self.pop()
        self._extend([item])

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _additems(self, _: Any) -> None:
        items = self._marked()
        self.stack[-1].update(items)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Record) else target).extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def _setitems(self, _: Any) -> None:
        self._update(self._marked())

    def _update(self, items: list[Any]) -> None:
        pairs = list(zip(items[::2], items[1::2], strict=True))
        target = self.stack[-1]
        if isinstance(target, Record):
            target.items.extend(pairs)
        else:
            target.update(pairs)

    # names and what would be built

    def _global(self, argument: Any) -> None:
        self.stack.append(Name(str(argument).replace(" ", ".", 1)))

    def _stack_global(self, _: Any) -> None:
        attribute, module = self.pop(), self.pop()
        self.stack.append(Name(f"{module}.{attribute}"))

    def _reduce(self, _: Any) -> None:
        arguments, callee = self.pop(), self.pop()
        self.stack.append(_build(callee, arguments))

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        keywords, arguments, callee = self.pop(), self.pop(), self.pop()
        self.stack.append(Record(_name_of(callee), (*arguments, keywords)))

    def _inst(self, argument: Any) -> None:
        self.stack.append(Record(str(argument).replace(" ", ".", 1), tuple(self._marked())))

    def _obj(self, _: Any) -> None:
        callee, *arguments = self._marked()
        self.stack.append(Record(_name_of(callee), tuple(arguments)))

    def _build(self, _: Any) -> None:
        state = self.pop()
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state

    def _binpersid(self, _: Any) -> None:
        """Leave a storage's description in its place; legacy files wrap classes likewise."""
        described = self.pop()
        self.stack.append(described[1] if described[0] == "module" else described)


def _is_literal(name: str) -> bool:
    kinds = ("INT", "LONG", "FLOAT", "STRING", "UNICODE", "BYTES")
    return name != "EXT" and any(kind in name for kind in kinds)


def _name_of(callee: Any) -> str:
    return callee.name if isinstance(callee, Name) else type(callee).__name__


def _build(callee: Any, arguments: tuple[Any, ...]) -> Any:
    """Rebuild a tensor or plain container; make a record of anything else."""
    name = _name_of(callee)
    if name in {"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"}:
        return _stored_tensor(*arguments[:4])
    if name.startswith("torch._utils._rebuild_parameter"):
        return arguments[0]
    if name == "collections.OrderedDict":
        return dict(*arguments)
    if name in {"__builtin__.set", "builtins.set"}:
        return {item for item in arguments[0] if isinstance(item, Hashable)} if arguments else set()
    return Record(name, arguments)


def _stored_tensor(storage: Any, offset: int, size: Any, stride: Any) -> StoredTensor:
    _, kind, key, _, numel = storage[:5]
    dtype = _STORAGES[kind.name.removeprefix("torch.")]
    numbers = (numel, offset, *size, *stride)
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(size) != len(stride):
        raise ValueError("a tensor has a forged shape")
    return StoredTensor(dtype, str(key), numel, offset, tuple(size), tuple(stride))
