"""Read a torch.export graph from its JSON and run it operator by operator."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isoprobe.errors import CheckpointError
from isoprobe.files.meter import Meter
from isoprobe_plugins.adapters.programs.allowed import ATEN, IN_PLACE, refuse
from isoprobe_plugins.adapters.programs.graphs import graph_of

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

NODES = 50_000

#: numbers of torch's types in the archive's schema
_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64,
    6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_ATEN = re.compile(r"torch\.ops\.aten\.([a-z]\w*)\.(\w+)")
#: devices, layouts and memory formats are left to the tensors
_LITERALS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("as_none", "as_device", "as_layout", "as_memory_format"), lambda _: None),
    **dict.fromkeys(
        ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string"),
        lambda body: body,
    ),
    "as_scalar_type": lambda body: _DTYPES[body],
}
_OPERATORS = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "neg")
}


def read_program(source: Source) -> Program:
    """Read an exported program.

    Args:
        source: the archive.

    Returns:
        The program, as a module of one or more tensors.

    Raises:
        CheckpointError: for pickled weights, operators outside torch's own set, and damage.
    """
    graph = graph_of(source)["graph_module"]
    try:
        return Program(graph["graph"], graph["signature"], _weights(source), source)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{source.path}: its graph is damaged ({error})") from error
    except (RuntimeError, StopIteration, OverflowError) as error:
        raise CheckpointError(f"{source.path}: its graph is damaged ({error})") from error


def _weights(source: Source) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    meter = Meter(source.path, source.size)
    for folder in ("weights", "constants"):
        suffix = f"/data/{folder}/model_{folder}_config.json"
        for name in source.names():
            if name.endswith(suffix):
                root = name.removesuffix(f"model_{folder}_config.json")
                for key, entry in source.json(name)["config"].items():
                    found[key] = _weight(source, root, key, entry, meter)
    return found


def _weight(source: Source, root: str, key: str, entry: Mapping[str, Any], meter: Meter) -> Tensor:
    meta = entry.get("tensor_meta")
    if entry.get("use_pickle") or meta is None:
        raise CheckpointError(
            f"{source.path}: {key!r} is pickled, and unpickling runs code: export the model with "
            "plain tensors as weights"
        )
    sizes, strides = ([int(s["as_int"]) for s in meta[k]] for k in ("sizes", "strides"))
    offset, dtype = int(meta["storage_offset"]["as_int"]), _DTYPES[meta["dtype"]]
    flat = torch.frombuffer(
        bytearray(source.read(root + entry["path_name"], source.size)) or bytearray(8), dtype=dtype
    )
    last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    count = math.prod(sizes)
    if min([*sizes, *strides, offset], default=0) < 0 or (
        count and (last >= len(flat) or count > len(flat))
    ):
        raise ValueError(f"{key} reaches beyond its bytes")
    meter.charge(flat.nbytes + count * flat.element_size(), "its weights")
    return flat.as_strided(sizes, strides, offset).clone()


class Program(nn.Module):
    """Runs a graph; its weights are buffers, so that it moves and casts like any module."""

    def __init__(
        self,
        graph: Mapping[str, Any],
        signature: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        source: Source,
    ) -> None:
        super().__init__()
        where = str(source.path)
        self.inputs: list[str] = []
        self.constants: dict[str, str] = {}
        for index, spec in enumerate(signature["input_specs"]):
            ((kind, body),) = spec.items()
            if kind == "user_input":
                self.inputs.append(body["arg"]["as_tensor"]["name"])
                continue
            key = next(
                body[k]
                for k in ("parameter_name", "buffer_name", "tensor_constant_name")
                if k in body
            )
            self.register_buffer(f"tensor_{index}", tensors[key])
            self.constants[body["arg"]["name"]] = f"tensor_{index}"
        if len(self.inputs) != 1:
            raise CheckpointError(f"{where} takes {len(self.inputs)} inputs; expected one")
        if len(graph["nodes"]) > NODES:
            raise CheckpointError(f"{where}: its graph has over {NODES} steps")
        self.nodes = [(_resolve(node["target"], source), node) for node in graph["nodes"]]
        self.results = [
            spec["user_output"]["arg"]["as_tensor"]["name"]
            for spec in signature["output_specs"]
            if "user_output" in spec
        ]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the graph on one input."""
        values: dict[str, Any] = {self.inputs[0]: x}
        values |= {name: getattr(self, buffer) for name, buffer in self.constants.items()}
        for function, node in self.nodes:
            arguments = [
                (a.get("kind", 1), a["name"], _value(a["arg"], values)) for a in node["inputs"]
            ]
            positional = [value for kind, _, value in arguments if kind == 1]
            named = {name: value for kind, name, value in arguments if kind != 1}
            _bind(node["outputs"], function(*positional, **named), values)
        results = tuple(values[name] for name in self.results)
        return results[0] if len(results) == 1 else results


def _resolve(target: str, source: Source) -> Callable[..., Any]:
    """Find an operator of torch's own set that networks need, and nothing else."""
    function: Callable[..., Any]
    if target in _OPERATORS:
        function = _OPERATORS[target]
        return function
    match = _ATEN.fullmatch(target)
    if match is None or not hasattr(torch.ops.aten, match[1]):
        raise CheckpointError(
            f"{source.path}: operator {target!r} is none of torch's own; it is not run. Read the "
            "model with --adapter factory --option target=module:function"
        )
    if match[1] not in ATEN | IN_PLACE:
        refuse(source, f"aten::{match[1]}")
    packet = getattr(torch.ops.aten, match[1])
    function = getattr(packet, match[2])
    return function


def _value(argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Turn a serialised argument into a value."""
    ((kind, body),) = argument.items()
    if kind == "as_tensor":
        return values[body["name"]]
    if kind in {"as_tensors", "as_optional_tensors"}:
        return [None if "as_none" in b else values[b.get("as_tensor", b)["name"]] for b in body]
    if kind.startswith("as_sym_"):
        is_list = isinstance(body, list)
        return [_symbol(b, values) for b in body] if is_list else _symbol(body, values)
    if kind not in _LITERALS:
        raise CheckpointError(f"an argument of kind {kind!r} is not expected in a network's graph")
    return _LITERALS[kind](body)


def _symbol(body: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    ((kind, inner),) = body.items()
    return values[inner] if kind == "as_name" else inner


def _bind(outputs: list[Mapping[str, Any]], result: Any, values: dict[str, Any]) -> None:
    """Give results the names that later operators use."""
    if len(outputs) == 1 and "as_tensors" in outputs[0]:
        for body, value in zip(outputs[0]["as_tensors"], result, strict=True):
            values[body["name"]] = value
    elif len(outputs) == 1:
        ((kind, body),) = outputs[0].items()
        values[body["name"] if kind == "as_tensor" else body["as_name"]] = result
    else:
        for output, value in zip(outputs, result, strict=True):
            if "as_tensor" in output:
                values[output["as_tensor"]["name"]] = value
