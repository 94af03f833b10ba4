"""Read the graph of a torch.export archive as JSON; loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe.errors import CheckpointError
from isoprobe.files.documents import parse_json

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

GRAPH_LIMIT = 16 << 20


def graph_of(source: Source) -> dict[str, Any]:
    """Return the graph's JSON.

    Raises:
        CheckpointError: when it is missing, too long or no graph.
    """
    names = [n for n in source.names() if n.endswith("/models/model.json")]
    if len(names) != 1:
        raise CheckpointError(f"{source.path} holds {len(names)} programs; expected one")
    graph = parse_json(source.read(names[0], GRAPH_LIMIT), f"{source.path}: {names[0]}")
    try:
        _ = graph["graph_module"]["graph"]["nodes"], graph["graph_module"]["signature"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{source.path}: {names[0]} is no exported graph") from error
    result: dict[str, Any] = graph
    return result
