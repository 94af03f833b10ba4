"""Load TorchScript archives: members looked at first, then every operator of every function.

Loading an archive executes no method but ``__setstate__``, so one that mentions it is refused
before; what it holds is then written anew, each member once, so that torch reads the very bytes
that were looked at. All functions of the archive are walked as torch has parsed them, whatever
their source looks like.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.records import ITEM_SIZES, Record, StoredTensor, read_records
from isoprobe.checkpoints.source import FileKind
from isoprobe.errors import CheckpointError
from isoprobe.files.archives import Archive, packed
from isoprobe_plugins.adapters.programs.allowed import (
    SCRIPT_ATEN,
    SCRIPT_PRIM,
    refuse,
)
from isoprobe_plugins.adapters.weights.torch_files import first_line

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

#: passes of a loop, and nodes that a call may run in all
PASSES, NODES = 10_000, 1_000_000
#: passes counted for a loop over a list
_LISTED = 64
#: members that running the graph does not need: examples of inputs, places in source files
_LEFT_OUT = re.compile(r"(^|/)traced_inputs(\.pkl|/)|\.debug_pkl$")
#: what torch would run, or build in C++, while it loads
_RUN_BY_LOADING = (b"__setstate__", b"__getstate__", b"torch.classes", b"torch.distributed")
#: lists that a call may join; each may double what there is
_JOINED = 8
#: elements that a call may append to lists
_APPENDED = 4096
#: types of the first argument with which sums and products are numbers
_NUMBERS = ("Tensor", "int", "float", "bool", "number", "Scalar", "complex")
#: what a loop's passes may be counted from
_LENGTHS = {"aten::len", "aten::dim"}
_COUNTED = {
    "aten::len",
    "aten::dim",
    "aten::__range_length",
    "aten::sub",
    "aten::add",
    "prim::Constant",
}


def load_script(source: Source) -> Any:
    """Load a TorchScript archive whose operators are all among those that networks need.

    Args:
        source: the archive; one that is trusted is loaded whatever it holds.

    Returns:
        The module, in eval mode.

    Raises:
        CheckpointError: for another kind of file, damage, or naming the operator.
    """
    if source.kind is not FileKind.TORCHSCRIPT:
        raise CheckpointError(f"{source.path} is {source.description}, not TorchScript")
    import torch

    data = source.path.read_bytes() if source.trusted else _looked_at(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
            unit: Any = torch._C.CompilationUnit()
            reader: Any = torch._C.import_ir_module_from_buffer  # its stubs lack two arguments
            module = reader(unit, data, torch.device("cpu"), {}, False)
            if not source.trusted:
                check_functions(unit.get_functions(), source)
            wrap: Any = torch.jit._recursive.wrap_cpp_module
            return wrap(module).eval()
    except CheckpointError:
        raise
    # whatever an archive is damaged at, torch's reader fails there in a way of its own
    except Exception as error:
        raise CheckpointError(f"{source.path} is damaged: {first_line(error)}") from error


def _looked_at(source: Source) -> bytes:
    """Return the archive written anew, each member read, checked and stored once.

    Raises:
        CheckpointError: for what loading would run, and for damage.
    """
    kept: dict[str, bytes] = {}
    with Archive(source.path) as archive:
        for name in (name for name in archive.names if not _LEFT_OUT.search(name)):
            data = archive.read(name)
            kept[name] = data
            mentioned = next((word for word in _RUN_BY_LOADING if word in data), None)
            if mentioned is not None and "/data/" not in f"/{name}":
                refuse(source, mentioned.decode(), "in its code runs while it is loaded")
        for name in kept:
            if name.endswith(".pkl"):
                _check_pickle(archive, name, kept, source)
    return packed(kept)


def _check_pickle(archive: Archive, name: str, kept: Mapping[str, bytes], source: Source) -> None:
    """Refuse a pickle whose tensors reach beyond their storages, or that builds too much."""
    folder = name.removesuffix(".pkl")
    try:
        tree = read_records(io.BytesIO(kept[name]), archive.meter)
        for tensor in _stored(tree, set()):
            last = tensor.offset + sum(
                (n - 1) * s for n, s in zip(tensor.size, tensor.stride, strict=True)
            )
            width = ITEM_SIZES[tensor.dtype]
            count = width
            for length in tensor.size:
                count *= length
            held = len(kept.get(f"{folder}/{tensor.key}", b""))
            if count and ((last + 1) * width > held or count > held):
                raise ValueError("a tensor reaches beyond its storage")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{source.path}: {name} is damaged: {error}") from error


def _stored(tree: Any, seen: set[int]) -> Iterator[StoredTensor]:
    """Yield the tensors of a pickle, each node of it once."""
    if isinstance(tree, StoredTensor):
        yield tree
    elif isinstance(tree, Record | Mapping | list | tuple) and id(tree) not in seen:
        seen.add(id(tree))
        parts = (tree.state, tree.arguments, tree.items) if isinstance(tree, Record) else tree
        for part in parts.values() if isinstance(parts, Mapping) else parts:
            yield from _stored(part, seen)


# --------------------------------------------------------------------------- functions


def check_functions(functions: Any, source: Source) -> None:
    """Refuse operators that networks do not need, and work without bound.

    Args:
        functions: of a compilation unit, methods included.
        source: their file.

    Raises:
        CheckpointError: naming the operator.
    """
    _Functions({f.qualified_name: f.graph for f in functions}, source).check()


class _Functions:
    """Functions by full name, and how many nodes a call of each runs."""

    def __init__(self, graphs: Mapping[str, Any], source: Source) -> None:
        self._graphs, self._source = graphs, source
        self._costs: dict[str, int | None] = {}
        #: arguments that say how often a loop of the function runs
        self._counts: set[tuple[str, int]] = set()
        self._current = ""
        #: True inside a loop over a list
        self._listing = False

    def check(self) -> None:
        for name in self._graphs:
            if self._cost(name) > NODES:
                refuse(self._source, name, f"runs over {NODES} steps")
        for name, graph in self._graphs.items():
            self._current = name
            for call in [*graph.findAllNodes("prim::CallFunction"), *_methods_called(graph)]:
                self._check_call(call)

    def _check_call(self, call: Any) -> None:
        """Refuse a call that lets a loop of the callee run without end."""
        callee = _callee(call)
        for place, value in enumerate(call.inputs()):
            # a function stands before its arguments; of a method, the object is the first of them
            index = place - (call.kind() == "prim::CallFunction")
            if (callee, index) in self._counts and self._times(value) is None:
                refuse(self._source, "prim::Loop", "may run without end")

    def _cost(self, name: str) -> int:
        if name not in self._costs:
            self._costs[name] = None
            graph = self._graphs.get(name)
            if graph is None:
                refuse(self._source, name, "is not in the file")
            before, self._current = self._current, name
            self._costs[name] = 0 if graph is None else self._block(graph)
            self._current = before
        cost = self._costs[name]
        if cost is None:
            refuse(self._source, name, "calls itself")
        return cost or 0

    def _block(self, block: Any) -> int:
        return sum(self._node(node) for node in block.nodes())

    def _node(self, node: Any) -> int:
        space, _, name = node.kind().partition("::")
        allowed = {"aten": SCRIPT_ATEN, "prim": SCRIPT_PRIM}.get(space, frozenset())
        if name not in allowed:
            refuse(self._source, node.kind())
        if name == "Loop":
            return self._loop(node)
        inside = sum(self._block(block) for block in node.blocks())
        if name in {"CallFunction", "CallMethod"}:
            return 1 + self._cost(_callee(node))
        return self._growth(node, name) + inside

    def _growth(self, node: Any, name: str) -> int:
        """Return what a step counts for: one that joins lists, which may double them, for many."""
        first = str(node.inputsAt(0).type()) if node.inputsSize() else ""
        if name in {"add", "mul"} and not first.startswith(_NUMBERS):
            if name == "mul" or not first.startswith("List"):
                refuse(self._source, node.kind(), f"on a {first} grows without bound")
            return NODES // _JOINED
        if name == "append":
            return NODES // _APPENDED
        if name == "format":
            uses = [use.user.kind() for output in node.outputs() for use in output.uses()]
            if any(kind not in {"prim::RaiseException", "aten::warn"} for kind in uses):
                refuse(self._source, node.kind())
        return 1

    def _loop(self, node: Any) -> int:
        """Return what a loop counts for; one over a list holds no other, nor a call of any."""
        passes = self._passes(node)
        outer = self._listing
        self._listing = outer or node.inputsAt(0).node().kind() != "prim::Constant"
        if self._listing:
            self._costs = {k: v for k, v in self._costs.items() if v is None}  # looked at anew
        inside = sum(self._block(block) for block in node.blocks())
        self._listing = outer
        return passes * (1 + inside)

    def _passes(self, node: Any) -> int:
        times = self._times(node.inputsAt(0))
        listed = node.inputsAt(0).node().kind() != "prim::Constant"
        if times is None or (listed and self._listing):
            refuse(self._source, "prim::Loop", "may run without end")
        return times or 0

    def _times(self, value: Any) -> int | None:
        """Return how often a loop runs at most that runs so many times; None if unknown."""
        node = value.node()
        if node.kind() == "prim::Constant":
            count = node.i("value") if node.hasAttribute("value") else PASSES + 1
            return max(0, int(count)) if count <= PASSES else None
        if node.kind() == "prim::Param":
            names = [v.debugName() for v in self._graphs[self._current].inputs()]
            if value.debugName() not in names:
                return None
            self._counts.add((self._current, names.index(value.debugName())))
            return _LISTED
        return _LISTED if _is_counted(node, 8) else None


def _methods_called(graph: Any) -> list[Any]:
    found: list[Any] = graph.findAllNodes("prim::CallMethod")
    return found


def _callee(call: Any) -> str:
    """Return the full name of the function that a node calls."""
    kind = str(call.inputsAt(0).type())
    return kind if call.kind() == "prim::CallFunction" else f"{kind}.{call.s('name')}"


def _is_counted(node: Any, depth: int) -> bool:
    """Return True for a number that is a list's length, give or take constants."""
    if depth == 0 or node.kind() not in _COUNTED:
        return False
    if node.kind() in _LENGTHS:
        return True
    if node.kind() == "prim::Constant":
        return bool(node.hasAttribute("value")) and abs(node.i("value")) <= PASSES
    return all(_is_counted(value.node(), depth - 1) for value in node.inputs())
