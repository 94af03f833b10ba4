"""Tell numbers that are not finite by quantity, sample, latent and layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.derivatives.watched import watchable
from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from isoprobe.contracts import VAE

#: quantities in words, and whether their second axis is the latent
_WORDS = {
    "kl": ("KL divergence", True),
    "output": ("decoder's output at the posterior mean", False),
    "x_check": ("decoded posterior mean", False),
    "pullback": ("pullback norm of the decoder", True),
    "stationarity": ("derivative of the distortion", True),
    "gram": ("pullback of the decoder", True),
    "euclidean_gram": ("pullback of the decoder", True),
}


def require_finite(
    quantities: Mapping[str, Tensor],
    index: np.ndarray,
    vae: VAE,
    decode: Callable[[Tensor], Tensor],
    z: Tensor,
) -> None:
    """Refuse a batch with a number that is not finite.

    Args:
        quantities: by name, each ``(B, ...)``.
        index: positions of the samples in the run, ``(B,)``.
        vae: the model, to be named.
        decode: the decoder that was used.
        z: where it was used, ``(B, n)``, to find the layer.

    Raises:
        CheckpointError: naming quantity, sample, latent, and the first layer that is to blame.
    """
    for name, values in quantities.items():
        bad = ~values.isfinite()
        if not bool(bad.any()):
            continue
        row, *place = (int(i) for i in bad.nonzero()[0])
        words, by_latent = _WORDS.get(name, (name.replace("_", " "), False))
        latent = f" in latent {place[0]}" if by_latent else ""
        layer = first_bad_layer(vae.module, decode, z[row : row + 1])
        where = f"; {layer}" if layer else ""
        raise CheckpointError(
            f"{vae.name}: the {words} of sample {int(index[row])}{latent} is "
            f"{float(values[row, *place]):g}; expected a finite number{where}. The weights may be "
            "damaged, or the sample too far from what the model was trained on."
        )


def first_bad_layer(module: nn.Module | None, decode: Callable[[Tensor], Tensor], z: Tensor) -> str:
    """Name the first layer whose output or derivative is not finite though what it takes is.

    Args:
        module: whose layers are watched; None when the model is made of plain functions.
        decode: calls it.
        z: where, ``(B, n)``.

    Returns:
        A clause such as ``layer 'decoder.0' is the first ...``, empty where none is to blame.
    """
    parts = watchable(module)
    leaves = {name: part for name, part in parts.items() if not any(part.children())}
    found: list[str] = []

    def note(name: str, what: str, taken: Iterable[object], given: Iterable[object]) -> None:
        if not found and all(map(_finite, taken)) and not all(map(_finite, given)):
            found.append(f"layer '{name}' is the first whose {what} is not finite")

    hooks = []
    for name, part in leaves.items():
        hooks.append(
            part.register_forward_hook(
                lambda _, taken, given, n=name: note(n, "output", taken, (given,))
            )
        )

        def derived(_: nn.Module, given: Any, taken: Any, n: str = name) -> None:
            note(n, "derivative", taken, given)

        hooks.append(part.register_full_backward_hook(derived))
    try:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            torch.autograd.grad(decode(leaf).sum(), leaf, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def _finite(value: object) -> bool:
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())
