"""Tell a graph of two inputs what it takes beside x and z: a class, a one-hot code, a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from isoprobe.errors import CheckpointError
from isoprobe.files.meter import Meter

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.onnx.graph import OnnxGraph
    from isoprobe_plugins.adapters.onnx.runtime import RuntimeGraph

#: rows of a batch that a one-hot code is thought to be made for
ROWS = 256


@dataclass(frozen=True)
class SecondInput:
    """A second input.

    Attributes:
        name: of the input.
        count: classes it tells; 0 for a number.
        index: it takes the class' number and not a one-hot code.
        axes: of the tensor, 1 or 2.
    """

    name: str
    count: int
    index: bool
    axes: int

    @property
    def classes(self) -> tuple[int, ...]:
        """As the contract has it."""
        return (self.count,)

    @property
    def words(self) -> str:
        """What it is."""
        return f"input '{self.name}'"

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the graph does not say of it, in words."""
        if self.index or not self.count:
            return ()
        return (f"{self.words} of {self.count} numbers is read as a one-hot code",)

    def value(self, c: Tensor, x: Tensor) -> Tensor:
        """The tensor for rows x, ``c (B or 1, 1)``."""
        column = c[:, 0].expand(len(x))
        if self.index:
            column = column.long()
        elif self.count:
            blank = torch.zeros(len(x), self.count, dtype=x.dtype, device=x.device)
            return blank.scatter(1, column.long()[:, None], 1)
        else:
            column = column.to(x)
        return column if self.axes == 1 else column[:, None]


class AtCondition(nn.Module):
    """Encoder and decoder at conditions.

    Args:
        pair: both, each called with its input and, where it takes one, the condition.
        condition: what that is.
        c: ``(B or 1, 1)``.
        encoder: the encoder's graph, which says whether it takes the condition.
    """

    def __init__(
        self, pair: Any, condition: SecondInput, c: Tensor, encoder: OnnxGraph | RuntimeGraph | None
    ) -> None:
        super().__init__()
        self.pair, self._condition, self._c = pair, condition, c
        self._encoder_told = encoder is not None and len(encoder.inputs) > 1
        if encoder is not None:
            self.encode = self._encode

    def _encode(self, x: Tensor) -> Any:
        told = (self._condition.value(self._c, x),) if self._encoder_told else ()
        return self.pair.encode(x, *told)

    def decode(self, z: Tensor) -> Any:
        """Decode latents."""
        return self.pair.decode(z, self._condition.value(self._c, z))


def condition_of(graphs: Sequence[OnnxGraph | RuntimeGraph], source: Source) -> SecondInput | None:
    """Find what graphs take beside x and z.

    Args:
        graphs: of encoder and decoder; that of the decoder last.
        source: their file, for an error.

    Returns:
        The condition; None where the decoder takes z alone.

    Raises:
        CheckpointError: for one that is told the encoder alone, that both take in another form, or
            of which it is not told how many classes there are.
    """
    found = [g.condition for g in graphs if len(g.inputs) > 1]
    if not found:
        return None
    if len(graphs[-1].inputs) < 2:
        raise CheckpointError(
            f"{source.path}: the encoder takes '{graphs[0].inputs[1]}' beside x, and the decoder "
            "z alone; expected one that both are told, or one input each"
        )
    told = found[-1]
    if told is None:
        raise CheckpointError(
            f"{source.path}: the input '{graphs[-1].inputs[1]}' is no class of an embedding, "
            "one-hot code or number of each row"
        )
    if any(f is None or (f.count, f.index) != (told.count, told.index) for f in found):
        raise CheckpointError(
            f"{source.path}: encoder and decoder take conditions of other forms; expected the same"
        )
    return told


def second_input(graph: Any, source: Source) -> SecondInput | None:
    """Read what the second input of a parsed graph is; None where that is not told.

    Args:
        graph: of the parsed model.
        source: its file.

    Returns:
        The input; None for one of another kind, and where there is none.

    Raises:
        FileError: for a code of a width out of proportion to the file, as no weight bears it out.
    """
    weights = {t.name: tuple(t.dims) for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    if len(inputs) < 2:
        return None
    kind = inputs[1].type.tensor_type
    dims = [d.dim_value for d in kind.shape.dim]
    name = inputs[1].name
    if not 1 <= len(dims) <= 2:
        return None
    if kind.elem_type in {6, 7}:  # int32, int64
        rows = _embedded(graph, name, weights)
        return SecondInput(name, rows, True, len(dims)) if rows and dims[1:] in ([], [1]) else None
    if kind.elem_type != 1 or (len(dims) == 2 and dims[1] < 1):
        return None
    width = dims[1] if len(dims) == 2 else 1
    Meter(source.path, source.size).check(8 * ROWS * width, f"'{name}' of {width} numbers a row")
    return SecondInput(name, width if width > 1 else 0, False, len(dims))


def _embedded(graph: Any, name: str, weights: dict[str, tuple[int, ...]]) -> int:
    """Rows of the table that numbers of classes are looked up in; 0 where there is none."""
    reached = {name}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[1] in reached:
            return weights.get(node.input[0], (0,))[0]
        if reached.intersection(node.input):
            reached |= set(node.output)
    return 0
