"""Put an ONNX model's own functions in the places where they are called, if they are few enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

#: nodes of a graph once its functions are inlined
NODES = 50_000


def inlined(model: Any, source: Source) -> Any:
    """Return a model without functions of its own.

    Args:
        model: parsed ONNX model.
        source: its file.

    Returns:
        The model itself where it has none.

    Raises:
        CheckpointError: when a function calls itself, or the graph would have too many nodes.
    """
    if not len(model.functions):
        return model
    from onnx import inliner

    bodies = {(f.domain, f.name): [(n.domain, n.op_type) for n in f.node] for f in model.functions}
    sizes: dict[tuple[str, str], int | None] = {}

    def size(key: tuple[str, str]) -> int:
        if key not in bodies:
            return 1
        if key not in sizes:
            sizes[key] = None
            sizes[key] = sum(size(inner) for inner in bodies[key])
        found = sizes[key]
        if found is None or found > NODES:
            raise CheckpointError(
                f"{source.path}: its function {key[1]} calls itself, or runs over {NODES} steps; "
                "it is damaged or hostile"
            )
        return found

    total = sum(size((node.domain, node.op_type)) for node in model.graph.node)
    if total > NODES:
        raise CheckpointError(f"{source.path}: its graph has over {NODES} steps")
    return inliner.inline_local_functions(model)
