"""Replace a model's own normal draws by a chosen constant, which shows how it uses them.

With z = mu + eps sigma, a forward pass at eps = 0 and one at eps = 1 give mu and sigma exactly, in
whatever form the scale head is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLED = {torch.randn_like, torch.randn}


class Noise(TorchFunctionMode):
    """Every standard normal draw inside is ``eps``.

    Args:
        eps: the value.

    Attributes:
        draws: how many were replaced.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps, self.draws = eps, 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call what was called, a normal draw with another answer."""
        kwargs = dict(kwargs or {})
        if func in _FILLED:
            self.draws += 1
            drawn: Tensor = func(*args, **kwargs)
            return torch.full_like(drawn, self.eps)
        if func is torch.Tensor.normal_:
            mean, std = _place(args, kwargs, 1, "mean", 0.0), _place(args, kwargs, 2, "std", 1.0)
            self.draws += 1
            return args[0].copy_(torch.zeros_like(args[0]) + mean + std * self.eps)
        if func is torch.normal:
            mean, std = _place(args, kwargs, 0, "mean", 0.0), _place(args, kwargs, 1, "std", 1.0)
            self.draws += 1
            like = func(*args, **kwargs)
            return torch.zeros_like(like) + mean + std * self.eps
        return func(*args, **kwargs)


def _place(args: Any, kwargs: Mapping[str, Any], index: int, name: str, default: Any) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)
