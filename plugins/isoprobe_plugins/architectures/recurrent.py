"""Run recurrent layers and attention in plain operations; importing this imports torch.

torch's own recurrent kernels have no forward-mode derivative and no rule for vmap, which exact
norms need; these have, and take the same weights by the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from isoprobe_plugins.architectures import steps
    from isoprobe_plugins.architectures.chain import Chain

Shape = tuple[int, ...]
#: rows of a weight, in units of the hidden size
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class Recurrent(nn.Module):
    """A recurrent network, fed as its step says.

    Args:
        step: what it is.
        shape: of what comes in: a sequence ``(steps, width)`` or a vector.
        out: from a state to the output that is fed back.

    Attributes:
        shape: of what it gives.

    Raises:
        ValueError: when the step does not fit the shape.
    """

    def __init__(self, step: steps.RecurrentStep, shape: Shape, out: Chain) -> None:
        super().__init__()
        self.kind = str(step.__struct_config__.tag)
        self.step, self.out = step, out
        width = self._input_width(shape)
        gates, hidden = GATES[self.kind] * step.hidden, step.hidden
        for layer in range(step.layers):
            for side in ("", "_reverse") if step.bidirectional else ("",):
                place = f"l{layer}{side}"
                incoming = width if layer == 0 else hidden * (1 + step.bidirectional)
                self._parameter(f"weight_ih_{place}", gates, incoming)
                self._parameter(f"weight_hh_{place}", gates, hidden)
                for name in ("bias_ih", "bias_hh") if step.bias else ():
                    self._parameter(f"{name}_{place}", gates)
        self.steps = step.steps or (shape[0] if len(shape) == 2 else 0)
        self.shape: Shape = (self.steps, out.size) if step.give == "all" else (out.size,)

    def _parameter(self, name: str, *shape: int) -> None:
        self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    def _input_width(self, shape: Shape) -> int:
        step = self.step
        sequence = step.feed == "sequence"
        if (len(shape) == 2) != sequence:
            wanted = "a sequence (steps, width)" if sequence else "a vector"
            raise ValueError(f"feed {step.feed!r} takes {wanted}, got shape {shape}")
        if not sequence and step.steps is None:
            raise ValueError(f"feed {step.feed!r} needs steps, the length of the sequence")
        if step.feed in {"beside", "own", "state"} and step.bidirectional:
            raise ValueError(f"feed {step.feed!r} cannot be bidirectional")
        if step.feed in {"state", "own"} and shape[0] != step.hidden:
            raise ValueError(f"a first state has {step.hidden} values, got shape {shape}")
        if step.feed in {"beside", "own"} and self.out.size != step.width:
            raise ValueError(f"{self.out.size} values are fed back, width says {step.width}")
        if step.give == "cell" and self.kind != "lstm":
            raise ValueError(f"{self.kind} has no cell to give")
        added = {"sequence": shape[-1], "repeat": shape[0], "beside": shape[0] + step.width}
        return added.get(step.feed, step.width)

    def forward(self, x: Tensor) -> Tensor:
        """Run it; returns ``(B, *shape)``."""
        step = self.step
        if step.feed in {"beside", "own"}:
            return self._fed_back(x)
        first = None
        if step.feed == "repeat":
            x = x[:, None].expand(-1, self.steps, -1)
        elif step.feed == "state":
            first, x = x, x.new_zeros(len(x), self.steps, step.width)
        last = cell = x
        for layer in range(step.layers):
            x, last, cell = self._layer(x, layer, first)
        result: Tensor = self.out({"all": x, "last": last, "cell": cell}[step.give])
        return result

    def _layer(self, x: Tensor, layer: int, first: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of one layer at every step, its last state and its last cell."""
        found = self._along(x, f"l{layer}", first)
        if not self.step.bidirectional:
            return found
        back, *rest = self._along(x.flip(1), f"l{layer}_reverse", first)
        every = torch.cat([found[0], back.flip(1)], -1)
        last, cell = (torch.cat(pair, -1) for pair in zip(found[1:], rest, strict=True))
        return every, last, cell

    def _along(self, x: Tensor, place: str, first: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        zeros = x.new_zeros(len(x), self.step.hidden)
        state = (zeros if first is None else first, zeros)
        given = []
        for moment in x.unbind(1):
            state = self._cell(moment, state, place)
            given.append(state[0])
        return torch.stack(given, 1), *state

    def _fed_back(self, z: Tensor) -> Tensor:
        step = self.step
        last = z.new_zeros(len(z), step.width)
        zeros = z.new_zeros(len(z), step.hidden)
        states = [(z if step.feed == "own" else zeros, zeros)] * step.layers
        given = []
        for _ in range(self.steps):
            both = [z, last] if step.z_first else [last, z]
            x = torch.cat(both, 1) if step.feed == "beside" else last
            for layer in range(step.layers):
                states[layer] = self._cell(x, states[layer], f"l{layer}")
                x = states[layer][0]
            last = self.out(x)
            given.append(last)
        return torch.stack(given, 1) if step.give == "all" else last

    def _cell(self, x: Tensor, state: tuple[Tensor, Tensor], place: str) -> tuple[Tensor, Tensor]:
        """One step: hidden state and cell, each ``(B, hidden)``."""
        hidden, cell = state
        by_input = nn.functional.linear(
            x, self._weight("weight_ih", place), self._bias("ih", place)
        )
        by_state = nn.functional.linear(
            hidden, self._weight("weight_hh", place), self._bias("hh", place)
        )
        if self.kind == "rnn":
            return torch.tanh(by_input + by_state), cell
        if self.kind == "gru":
            (r, u, n), (hr, hu, hn) = by_input.chunk(3, 1), by_state.chunk(3, 1)
            kept = torch.sigmoid(u + hu)
            new = torch.tanh(n + torch.sigmoid(r + hr) * hn)
            return (1 - kept) * new + kept * hidden, cell
        i, f, g, o = (by_input + by_state).chunk(4, 1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    def _weight(self, name: str, place: str) -> Tensor:
        weight: Tensor = getattr(self, f"{name}_{place}")
        return weight

    def _bias(self, side: str, place: str) -> Tensor | None:
        return self._weight(f"bias_{side}", place) if self.step.bias else None


class Attention(nn.Module):
    """Self-attention over a sequence, ``(B, steps, width) -> (B, steps, width)``.

    Args:
        width: of the sequence.
        heads: number of heads.
        bias: whether there are biases.
    """

    def __init__(self, width: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width)) if bias else None
        self.out_proj = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return what every step gathers from all."""
        rows, steps, width = x.shape
        both = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = both.reshape(rows, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
        result: Tensor = self.out_proj((weights @ v).transpose(1, 2).reshape(rows, steps, width))
        return result
