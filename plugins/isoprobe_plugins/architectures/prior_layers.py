"""Define a prior's parameters as modules; importing this imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isoprobe.errors import CheckpointError
from isoprobe_plugins.architectures.priors import TENSORS
from isoprobe_plugins.heads import check_head, to_std

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoprobe_plugins.architectures.priors import PriorConfig

Components = tuple[Tensor, Tensor, Tensor]


class Held(nn.Module):
    """Values under a name of their own.

    Args:
        shape: of them.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(shape))


class PriorLayers(nn.Module):
    """Means, scales and shares of a prior's components, or the pseudo-inputs that give them.

    Args:
        config: the configuration.
        latents: n.
        input_shape: shape of one input.

    Raises:
        CheckpointError: for a form or a number of components that cannot be.
    """

    def __init__(self, config: PriorConfig, latents: int, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        check_head(config.form)
        count = config.components
        one = count == 1 or config.by is not None
        if config.kind == "gaussian" and not (one and config.shares == "equal"):
            raise CheckpointError("architecture 'layers': a prior 'gaussian' has one component")
        shapes = {
            "means": (count, latents),
            "scales": (count, latents),
            "pseudo_inputs": (count, *input_shape),
            "shares": (count,),
        }
        for name in TENSORS[config.kind]:
            if name != "shares" or config.shares != "equal":
                self.add_module(name, Held(shapes[name]))
        self.config = config
        self._known: tuple[object, Components] | None = None

    def _value(self, name: str) -> Tensor:
        return self.get_parameter(f"{name}.value")

    def components(
        self, encode: Callable[[Tensor], tuple[Tensor, Tensor]], *, learning: bool = False
    ) -> Components:
        """Read logs of the shares ``(K,)``, means ``(K, n)`` and deviations ``(K, n)``.

        Args:
            encode: gives mean and deviation of pseudo-inputs.
            learning: whether gradients run through the parameters.

        Returns:
            The three, as the parameters stand; those of pseudo-inputs are kept between calls.
        """
        config = self.config
        if config.kind != "vamp":
            stds = to_std(config.form, self._value("scales"))
            return self._read(self._value("means"), stds, learning=learning)
        x = self._value("pseudo_inputs")
        squeezed = {"none": x, "sigmoid": x.sigmoid(), "clamp": x.clamp(0, 1)}[config.squeeze]
        if learning:
            means, stds = (part.flatten(1) for part in encode(squeezed))
            return self._read(means, stds, learning=True)
        state = (x.data_ptr(), x.dtype, x.device, x._version)
        if self._known is None or self._known[0] != state:
            with torch.no_grad():
                means, stds = (part.flatten(1) for part in encode(squeezed))
            self._known = state, self._read(means, stds, learning=False)
        return self._known[1]

    def _read(self, means: Tensor, stds: Tensor, *, learning: bool) -> Components:
        shares = means.new_zeros(len(means))
        if self.config.shares != "equal":
            shares = self._value("shares")
        if self.config.shares == "probabilities":
            shares = shares.log()
        if learning:
            return shares.log_softmax(0), means, stds
        return shares.detach().log_softmax(0), means.detach(), stds.detach()
