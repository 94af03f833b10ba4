"""List every form in which networks give the posterior's scale, in one place.

A wrong form loads without an error and only shows in the numbers, so it is always named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from isoprobe.errors import OptionError, nearest

if TYPE_CHECKING:
    from torch import Tensor


def _logvar(raw: Tensor) -> Tensor:
    return (0.5 * raw).exp()


def _logvar_clamped(raw: Tensor) -> Tensor:
    return (0.5 * raw.clamp(-30.0, 20.0)).exp()


def _logstd(raw: Tensor) -> Tensor:
    return raw.exp()


def _std(raw: Tensor) -> Tensor:
    return raw.abs()


def _variance(raw: Tensor) -> Tensor:
    return raw.sqrt()


def _softplus_std(raw: Tensor) -> Tensor:
    return _softplus(raw)


def _softplus_variance(raw: Tensor) -> Tensor:
    return (1e-7 + _softplus(raw)).sqrt()


def _softplus_logvar(raw: Tensor) -> Tensor:
    return (0.5 * _softplus(raw)).exp()


def _exp_variance(raw: Tensor) -> Tensor:
    return (raw.exp() + 1e-4).sqrt()


def _softplus(raw: Tensor) -> Tensor:
    from torch.nn.functional import softplus

    return softplus(raw)


#: form -> (what it means, raw head -> std)
HEADS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "logvar": ("log of the variance", _logvar),
    "logvar-clamped": ("log of the variance, clamped to [-30, 20]", _logvar_clamped),
    "logstd": ("log of the standard deviation, so that exp(head) is the std", _logstd),
    "std": ("the standard deviation itself, whatever its sign", _std),
    "variance": ("the variance itself", _variance),
    "softplus-std": ("std = softplus(head)", _softplus_std),
    "softplus-variance": ("std = sqrt(1e-7 + softplus(head))", _softplus_variance),
    "softplus-logvar": ("softplus(head) is the log of the variance", _softplus_logvar),
    "exp-variance": ("variance = exp(head) + 1e-4", _exp_variance),
}


def to_std(form: str, raw: Tensor) -> Tensor:
    """Turn a network's scale head into the posterior's standard deviation.

    Args:
        form: a key of :data:`HEADS`.
        raw: the head's output, any shape.

    Returns:
        sigma, same shape, positive.
    """
    return HEADS[check_head(form)][1](raw)


def to_root(form: str, raw: Tensor, below: Tensor | None, latents: int) -> Tensor:
    """Turn a network's numbers into L of a full covariance L L'.

    Args:
        form: of the diagonal of L, a key of :data:`HEADS`.
        raw: all of the lower triangle, ``(B, n (n + 1) / 2)`` row by row or ``(B, n n)`` of which
            the rest is not read; or the diagonal alone, ``(B, n)``, where ``below`` is given.
        below: what lies below the diagonal, ``(B, n (n - 1) / 2)`` or ``(B, n n)`` likewise.
        latents: n.

    Returns:
        ``(B, n, n)``, lower triangular with a positive diagonal.
    """
    import torch

    def triangle(values: Tensor, offset: int) -> Tensor:
        if values.shape[1] == latents**2:
            return values.reshape(-1, latents, latents).tril(offset)
        rows, columns = torch.tril_indices(latents, latents, offset, device=values.device)
        found = values.new_zeros(len(values), latents, latents)
        return found.index_put(
            (torch.arange(len(values), device=values.device)[:, None], rows, columns), values
        )

    whole = triangle(raw, 0) if below is None else triangle(below, -1)
    diagonal = whole.diagonal(0, -2, -1) if below is None else raw
    if form == "std":  # a column and its negative are one
        whole = whole * torch.where(diagonal < 0, -1.0, 1.0).to(whole)[:, None]
    return whole.tril(-1) + torch.diag_embed(to_std(form, diagonal))


def root_sizes(latents: int, *, below: bool) -> tuple[int, int]:
    """How many numbers make L, or what lies below its diagonal: row by row, or a whole matrix."""
    return latents * (latents - 1 if below else latents + 1) // 2, latents**2


def check_head(form: str) -> str:
    """Return the form when it is known.

    Raises:
        OptionError: naming the known forms.
    """
    if form not in HEADS:
        known = sorted(HEADS)
        raise OptionError(
            f"unknown scale head {form!r}{nearest(form, known)}; known: {', '.join(known)}"
        )
    return form


def split_head(layout: str, both: Tensor) -> tuple[Tensor, Tensor]:
    """Split one head of 2n values into mean and raw scale.

    Args:
        layout: ``halves`` (mean first), ``swapped`` (scale first), or ``interleaved`` (mean at
            even places).
        both: the head's output, ``(B, 2n, ...)``.

    Returns:
        mean and raw scale, each ``(B, n, ...)``.

    Raises:
        OptionError: for an odd number of values.
    """
    if both.ndim < 2 or both.shape[1] % 2:
        raise OptionError(f"a head of shape {tuple(both.shape)} cannot be split in two")
    if layout == "interleaved":
        return both[:, 0::2], both[:, 1::2]
    first, second = both.chunk(2, dim=1)
    return (first, second) if layout == "halves" else (second, first)
