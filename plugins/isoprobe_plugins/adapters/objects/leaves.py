"""List every tensor in what a user's function returned, each with the name it has there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoprobe.errors import OptionError
from isoprobe_plugins.adapters.objects.posteriors import FULL, FULL_FORM


@dataclass(frozen=True)
class Leaf:
    """One tensor of an answer.

    Attributes:
        name: its place, such as ``1`` or ``mu``; empty where the answer is a tensor.
        tensor: the tensor.
        form: how its values stand for a scale, where the answer itself says so.
    """

    name: str
    tensor: Tensor
    form: str | None = None


def leaves(answer: Any, name: str = "", depth: int = 3) -> list[Leaf]:
    """Return the tensors in an answer.

    Args:
        answer: a tensor, distribution, tuple, mapping, dataclass, or object with attributes.
        name: of the answer.
        depth: how deep to look.

    Returns:
        Each tensor with the first axis of samples or without; in the answer's order.

    Raises:
        OptionError: for a distribution that is no normal one.
    """
    if isinstance(answer, Tensor):
        return [Leaf(name, answer)]
    if isinstance(answer, torch.distributions.Distribution):
        return _of_distribution(answer, name)
    if answer is None or isinstance(answer, str | bytes | int | float | bool) or depth == 0:
        return []
    if hasattr(answer, "latent_dist"):
        return leaves(answer.latent_dist, name, depth)
    found = [leaf for key, value in _parts(answer) for leaf in leaves(value, key, depth - 1)]
    return [dataclasses.replace(leaf, name=_joined(name, leaf.name)) for leaf in found]


def _joined(outer: str, inner: str) -> str:
    return ".".join(part for part in (outer, inner) if part)


def _parts(answer: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(answer, Mapping):
        yield from ((str(key), value) for key, value in answer.items())
    elif isinstance(answer, tuple) and hasattr(answer, "_asdict"):
        yield from answer._asdict().items()
    elif isinstance(answer, tuple | list):
        yield from ((str(place), value) for place, value in enumerate(answer))
    elif isinstance(getattr(answer, "root", None), Tensor):
        whole = FULL[0](answer.mean, scale_tril=answer.root, validate_args=False)
        yield "posterior", whole
    elif dataclasses.is_dataclass(answer):
        yield from ((f.name, getattr(answer, f.name)) for f in dataclasses.fields(answer))
    elif isinstance(getattr(answer, "mean", None), Tensor):
        yield "mean", answer.mean
        if isinstance(getattr(answer, "std", None), Tensor):
            yield "std", torch.distributions.Normal(answer.mean, answer.std, validate_args=False)
    else:
        yield from getattr(answer, "__dict__", {}).items()


def _of_distribution(answer: torch.distributions.Distribution, name: str) -> list[Leaf]:
    base = answer.base_dist if isinstance(answer, torch.distributions.Independent) else answer
    if isinstance(base, torch.distributions.Normal):
        return [
            Leaf(_joined(name, "loc"), base.loc),
            Leaf(_joined(name, "scale"), base.scale, form="std"),
        ]
    if isinstance(base, FULL):
        return [
            Leaf(_joined(name, "loc"), base.loc, form=FULL_FORM),
            Leaf(_joined(name, "scale_tril"), base.scale_tril, form=FULL_FORM),
        ]
    if isinstance(base, torch.distributions.Bernoulli | torch.distributions.ContinuousBernoulli):
        return [Leaf(_joined(name, "mean"), base.probs)]
    raise OptionError(
        f"the distribution {type(base).__name__} is returned; a Normal or MultivariateNormal "
        "posterior is needed"
    )
