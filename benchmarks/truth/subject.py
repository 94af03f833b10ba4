"""Say what is analysed and how a deformation changes it, through what a caller may hand over.

A deformation works through functions in place of ``encode`` and ``decode``, other rows, another
declared metric or beta. Causes are words of this bench, see :mod:`benchmarks.truth.judging`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.truth.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isoprobe import VAE, Posterior

#: a latent that carries more than this counts as used, nats
USED = 0.05


@dataclass(frozen=True)
class Subject:
    """What is analysed.

    Attributes:
        vae: the model.
        rows: judged on, ``(N, *shape)`` float32.
        metric: spec declared; a key of the bench's own losses where isoprobe knows none.
        beta: declared.
        entry: of the model in the manifest.
        recipe: of the model.
        sibling: loads another model of the bench by name.
    """

    vae: VAE
    rows: np.ndarray
    metric: str
    beta: float
    entry: dict[str, Any]
    recipe: Recipe
    sibling: Callable[[str], VAE]

    @property
    def used(self) -> list[int]:
        """Latents that carry something, the most first."""
        rates = self.entry["rates"]
        return [int(j) for j in np.argsort(rates)[::-1] if rates[j] > USED]

    @property
    def idle(self) -> list[int]:
        """Latents that carry nothing."""
        return [j for j in range(self.recipe.latents) if self.entry["rates"][j] < USED / 5]


Change = Callable[[Subject], Subject]
Fits = Callable[[Recipe, dict[str, Any]], bool]


def any_model(_recipe: Recipe, _entry: dict[str, Any]) -> bool:
    """Every model."""
    return True


@dataclass(frozen=True)
class Deformation:
    """A planted fault.

    Attributes:
        name: short.
        group: row of the table of kinds.
        causes: what may be named; one of them is enough.
        change: makes it.
        fits: which models can have it.
        harmless: nothing is wrong with the figures, so that "sound" is right as well.
        models: names of the models it is made on; chosen by rule when empty.
    """

    name: str
    group: str
    causes: frozenset[str]
    change: Change
    fits: Fits = any_model
    harmless: bool = False
    models: tuple[str, ...] = field(default=())


def random_of(subject: Subject, what: str) -> np.random.Generator:
    """Return numbers that depend on the model and the deformation alone."""
    text = f"{subject.recipe.name}|{what}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))


# --------------------------------------------------------------------------- parts of a model


def encoding(change: Callable[[Posterior], Posterior]) -> Change:
    """Change what the encoder gives."""

    def changed(s: Subject) -> Subject:
        encode = encoder_of(s.vae)
        return replace(s, vae=replace(s.vae, encode=lambda x: change(encode(x))))

    return changed


def encoder_of(vae: VAE) -> Callable[[Tensor], Posterior]:
    """Return the encoder of a model that has one."""
    if vae.encode is None:
        raise ValueError(f"{vae.name} has no encoder")
    return vae.encode


def taking(s: Subject, change: Callable[[Tensor], Tensor]) -> Subject:
    """Change the latents on their way into the decoder."""
    decode, logits = s.vae.decode, s.vae.decode_logits
    both = None if logits is None else (lambda z: logits(change(z)))
    return replace(s, vae=replace(s.vae, decode=lambda z: decode(change(z)), decode_logits=both))


def giving(s: Subject, change: Callable[[Tensor], Tensor]) -> Subject:
    """Change what the decoder gives; logits, where it had them, are lost."""
    decode = s.vae.decode
    changed = replace(s.vae, decode=lambda z: change(decode(z)), decode_logits=None)
    return replace(s, vae=changed)


def part(vae: VAE, name: str) -> nn.Module:
    """Return ``encoder`` or ``decoder`` of a model read from a native checkpoint."""
    if vae.module is None:
        raise ValueError(f"{vae.name} holds no module")
    return vae.module.get_submodule(name)


# --------------------------------------------------------------------------- which models can


def images(recipe: Recipe, _entry: dict[str, Any]) -> bool:
    """Whether rows are images."""
    return recipe.data in {"mnist", "fashion", "digits"}


def tables(recipe: Recipe, entry: dict[str, Any]) -> bool:
    """Whether rows are vectors."""
    return not images(recipe, entry)


def dense_latents(recipe: Recipe, _entry: dict[str, Any]) -> bool:
    """Whether latents are a vector rather than an image."""
    return recipe.net != "spatial"
