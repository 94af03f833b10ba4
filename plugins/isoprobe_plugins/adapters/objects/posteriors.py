"""Read what users' encoders and decoders return as mean, deviation and reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoprobe.errors import OptionError
from isoprobe.theory.covariance import conditional_std
from isoprobe_plugins.heads import split_head, to_std

#: distributions of a full covariance, and how that is said
FULL = (torch.distributions.MultivariateNormal, torch.distributions.LowRankMultivariateNormal)
FULL_FORM = "full covariance"


@dataclass(frozen=True)
class ReadPosterior:
    """A posterior as an encoder returned it.

    Attributes:
        mean: in the encoder's own latent shape.
        std: likewise.
        form: how the scale was read, a key of :data:`isoprobe_plugins.heads.HEADS`.
        root: L of a full covariance, ``(B, n, n)``; None where latents are independent.
    """

    mean: Tensor
    std: Tensor
    form: str
    root: Tensor | None = None


def read_posterior(answer: Any, head: str | None, layout: str | None) -> ReadPosterior:
    """Read mean and standard deviation from whatever an encoder returned.

    Args:
        answer: a Posterior, a Normal, a MultivariateNormal, an object with ``latent_dist``, a pair
            (mean, scale), or one tensor of both where ``layout`` says how.
        head: form of the scale in a pair; the log variance when None.
        layout: order of mean and scale within one tensor.

    Returns:
        Mean, deviation, and how the scale was read.

    Raises:
        OptionError: for anything else.
    """
    answer = getattr(answer, "latent_dist", answer)
    if isinstance(answer, torch.distributions.Independent):
        answer = answer.base_dist
    if isinstance(answer, torch.distributions.Normal):
        return ReadPosterior(answer.loc, answer.scale, "std")
    if isinstance(answer, FULL) and answer.loc.ndim == 2:
        tril = answer.scale_tril
        return ReadPosterior(answer.loc, conditional_std(tril), FULL_FORM, tril)
    if isinstance(answer, torch.distributions.Distribution):
        raise OptionError(
            f"encode returns the distribution {type(answer).__name__}; a Normal or a "
            "MultivariateNormal is needed"
        )
    mean, std = getattr(answer, "mean", None), getattr(answer, "std", None)
    if isinstance(mean, Tensor) and isinstance(std, Tensor):
        root = getattr(answer, "root", None)
        return ReadPosterior(mean, std, "std" if root is None else FULL_FORM, root)
    return _read_pair(answer, head or "logvar", layout)


def _read_pair(answer: Any, form: str, layout: str | None) -> ReadPosterior:
    if isinstance(answer, Tensor) and layout is not None:
        answer = split_head(layout, answer)
    pair = tuple(answer) if isinstance(answer, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise OptionError(
            f"encode returns {in_words(answer)}; needed is a pair (mean, scale), a Normal, or "
            "one tensor of both with --option layout=halves"
        )
    mean, raw = pair
    if mean.shape != raw.shape:
        raise OptionError(
            f"encode gives a mean of shape {tuple(mean.shape)} and a scale of shape "
            f"{tuple(raw.shape)}; they must be alike"
        )
    return ReadPosterior(mean, to_std(form, raw), form)


def read_reconstruction(answer: Any) -> Tensor:
    """Return the reconstruction inside whatever a decoder returned.

    Args:
        answer: a tensor, an object with a tensor ``sample``, or a distribution (its mean).

    Returns:
        The reconstruction.

    Raises:
        OptionError: when there is no tensor.
    """
    if isinstance(answer, torch.distributions.Distribution):
        answer = answer.mean
    answer = getattr(answer, "sample", answer)
    if not isinstance(answer, Tensor):
        raise OptionError(f"decode returns {in_words(answer)}; needed is a tensor")
    return answer


def in_words(value: Any) -> str:
    """Say what a value is."""
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{len(value)} values ({', '.join(type(v).__name__ for v in value)})"
    return f"a {type(value).__name__}"
