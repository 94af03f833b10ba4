"""Describe one toy model as a value: what it is trained on, with which loss, from which seed."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from isoprobe.errors import OptionError, nearest
from isoprobe_trainers.toy.source import parse

METRICS = ("sse", "downward", "upward")
OBJECTIVES = ("plain", "decomposed", "radogaga")


@dataclass(frozen=True)
class Member:
    """A model to train.

    Attributes:
        data: data spec, such as ``toy/mix:seed=0``.
        metric: ``sse``, ``downward`` (Eq. 24) or ``upward`` (Eq. 96).
        lam: weight of the distortion beside the KL; beta = 1 / lam (Eq. 95).
        seed: of weights, order of the data and noise.
        latent_size: number of latents n.
        objective: ``plain`` (Eq. 95), ``decomposed`` (Section 5.3) or ``radogaga`` (Section 3).
    """

    data: str = "toy/mix:seed=0"
    metric: str = "sse"
    lam: float = 100.0
    seed: int = 0
    latent_size: int = 3
    objective: str = "plain"

    def __post_init__(self) -> None:
        _known("metric", self.metric, METRICS)
        _known("objective", self.objective, OBJECTIVES)
        # one spelling of each data set, so that equal members are equal
        object.__setattr__(self, "data", parse(self.data).spec())
        if not (self.lam > 0 and math.isfinite(self.lam)):
            raise OptionError(f"lambda must be a positive number; found {self.lam}")
        if self.seed < 0 or self.latent_size < 1:
            raise OptionError(
                "a member needs a seed of at least 0 and a latent at least; found seed "
                f"{self.seed}, latent size {self.latent_size}"
            )

    @property
    def beta(self) -> float:
        """KL weight in the units of the metric."""
        return 1 / self.lam

    @property
    def name(self) -> str:
        """File name without its suffix, different for different members."""
        data = re.sub(r"[^a-z0-9.+]", "", self.data.removeprefix("toy/").replace(":", "."))
        tail = "" if self.objective == "plain" else f"_{self.objective}"
        return f"{data}_{self.metric}_lam{self.lam:g}_n{self.latent_size}_seed{self.seed}{tail}"

    def record(self) -> dict[str, Any]:
        """The member as plain values."""
        return asdict(self)


def _known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise OptionError(
            f"unknown {what} '{name}'{nearest(name, list(known))}; known: {', '.join(known)}"
        )
