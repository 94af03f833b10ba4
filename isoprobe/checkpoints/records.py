"""Read pickles without unpickling: tensors are rebuilt, every other object is an inert record.

The opcodes are interpreted here, one by one, on plain lists and dictionaries. No class named by
the file is imported, no function it names is called, and whatever is built takes memory in
proportion to the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, BinaryIO, cast

from isoprobe.checkpoints.pickles import SCAN_OPCODES
from isoprobe.files.meter import OBJECT, Meter


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


#: what may be the key of a dictionary or the member of a set: to hash a tuple of tuples that are
#: all the same takes time without end
_KEYS = (str, bytes, int, float, bool, type(None))

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
}  # fmt: skip
#: bytes of one element, by the name of torch's dtype
ITEM_SIZES = {
    "float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "complex64": 8, "complex128": 16,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "uint16": 2, "uint32": 4, "uint64": 8, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
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


def read_records(stream: BinaryIO | mmap, meter: Meter) -> Any:
    """Interpret the pickle at a stream's position.

    Args:
        stream: opened at the first opcode; it is left behind the last one.
        meter: counts what is built.

    Returns:
        Plain containers, :class:`StoredTensor` for tensors, :class:`Record` for the rest.

    Raises:
        ValueError: when the pickle is damaged or uses an opcode torch never writes.
    """
    machine = _Machine(meter)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast("BinaryIO", stream))):
        if count > SCAN_OPCODES:
            raise ValueError("the pickle is too long")
        if opcode.name == "STOP":
            return machine.finished()
        try:
            machine.step(opcode.name, argument)
        except (LookupError, TypeError, AttributeError, StopIteration) as error:
            raise ValueError(f"opcode {opcode.name} does not fit: {error}") from error
    raise ValueError("the pickle has no end")


class _Machine:
    """The pickle virtual machine, without imports and calls."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("the pickle's stack is empty")
        return self.stack.pop()

    def finished(self) -> Any:
        """Return the one object that is left."""
        value = self.pop()
        if self.stack:
            raise ValueError("the pickle leaves more than one object")
        return value

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        self._count(argument)
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            if len(self.stack) < count:
                raise ValueError("the pickle's stack is empty")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif (action := getattr(self, f"_{name.lower()}", None)) is not None:
            action(argument)
        elif _is_literal(name):
            self.stack.append(argument)
        else:
            raise ValueError(f"opcode {name} is not expected here")

    def _count(self, argument: Any) -> None:
        length = len(argument) if isinstance(argument, str | bytes | bytearray) else 0
        self.meter.charge(OBJECT + length, "its pickle")

    def _copied(self, value: Any) -> Any:
        """Count a container that is about to be copied."""
        if isinstance(value, list | tuple | dict | set | frozenset):
            self.meter.charge(OBJECT * len(value), "what its pickle copies")
        return value

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
        self.stack.append(_dictionary(zip(items[::2], items[1::2], strict=True)))

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(_key(item) for item in self._marked()))

    def _append(self, _: Any) -> None:
        item = self.pop()
        self._extend([item])

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _additems(self, _: Any) -> None:
        items = self._marked()
        self.stack[-1].update(_key(item) for item in items)

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
            target.update(_dictionary(pairs))

    # names and what would be built

    def _global(self, argument: Any) -> None:
        self.stack.append(Name(str(argument).replace(" ", ".", 1)))

    def _stack_global(self, _: Any) -> None:
        attribute, module = self.pop(), self.pop()
        self.stack.append(Name(f"{module}.{attribute}"))

    def _reduce(self, _: Any) -> None:
        arguments, callee = self.pop(), self.pop()
        for argument in self._copied(arguments):
            self._copied(argument)
        self.stack.append(_build(callee, arguments))

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        keywords, arguments, callee = self.pop(), self.pop(), self.pop()
        self.stack.append(Record(_name_of(callee), (*self._copied(arguments), keywords)))

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


def _key(value: Any) -> Any:
    """Return what may be a key: a plain value, or a flat tuple of such.

    Raises:
        ValueError: for anything else.
    """
    plain = isinstance(value, _KEYS)
    if not plain and not (isinstance(value, tuple) and all(isinstance(v, _KEYS) for v in value)):
        raise ValueError(f"a key of a dictionary is a {type(value).__name__}")
    return value


def _dictionary(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _is_literal(name: str) -> bool:
    kinds = ("INT", "LONG", "FLOAT", "STRING", "UNICODE", "BYTES")
    return name != "EXT" and any(kind in name for kind in kinds)


def _name_of(callee: Any) -> str:
    return callee.name if isinstance(callee, Name) else type(callee).__name__


def _build(callee: Any, arguments: tuple[Any, ...]) -> Any:
    """Rebuild a tensor or plain container; make a record of anything else."""
    name = _name_of(callee)
    if name.startswith("torch._utils._rebuild_tensor"):
        dtype = _named_dtype(arguments[6]) if name.endswith("_v3") else None
        return _stored_tensor(arguments[:4], dtype)
    if name.startswith("torch._utils._rebuild_parameter"):
        return arguments[0]
    if name == "collections.OrderedDict":
        return _dictionary(_pairs(*arguments))
    if name in {"__builtin__.set", "builtins.set"}:
        return {_key(item) for item in arguments[0]} if arguments else set()
    if not isinstance(arguments, tuple):
        raise ValueError(f"{name} is called with a {type(arguments).__name__}")
    return tuple(*arguments) if name == "torch.Size" else Record(name, arguments)


def _pairs(items: Any = ()) -> Iterable[tuple[Any, Any]]:
    return items.items() if isinstance(items, dict) else ((key, value) for key, value in items)


def _named_dtype(value: Any) -> str:
    """Return the name of a dtype that a pickle mentions as ``torch.float8_e4m3fn``."""
    dtype = _name_of(value).removeprefix("torch.")
    if dtype not in ITEM_SIZES:
        raise ValueError(f"tensors of type {dtype} are not read")
    return dtype


def _stored_tensor(arguments: tuple[Any, ...], dtype: str | None) -> StoredTensor:
    storage, offset, size, stride = arguments
    _, kind, key, _, numel = storage[:5]
    if dtype is None:
        dtype = _STORAGES[kind.name.removeprefix("torch.").removeprefix("storage.")]
    else:
        numel //= ITEM_SIZES[dtype]  # an untyped storage counts bytes
    numbers = (numel, offset, *size, *stride)
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(size) != len(stride):
        raise ValueError("a tensor has a forged shape")
    return StoredTensor(dtype, str(key), numel, offset, tuple(size), tuple(stride))
