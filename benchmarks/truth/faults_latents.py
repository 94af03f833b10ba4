"""Deform the fit of encoder and decoder, single latents, and the model's constancy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.truth.subject import (
    USED,
    Change,
    Deformation,
    Fits,
    Subject,
    dense_latents,
    encoder_of,
    encoding,
    giving,
    random_of,
    tables,
    taking,
)
from isoprobe import Posterior

if TYPE_CHECKING:
    from benchmarks.truth.recipes import Recipe


def _permuted(s: Subject) -> Subject:
    """Give the used latents in another order, each in the next one's place."""
    used = sorted(s.used)
    order = list(range(s.recipe.latents))
    for here, there in zip(used, used[1:] + used[:1], strict=True):
        order[here] = there
    return encoding(lambda p: Posterior(p.mean[:, order], p.std[:, order]))(s)


def rotation(s: Subject) -> Tensor:
    """Return a rotation of the used latents among each other, ``(n, n)`` orthogonal."""
    used = sorted(s.used)
    drawn = random_of(s, "rotation").standard_normal((len(used), len(used)))
    turned = torch.eye(s.recipe.latents)
    q = torch.from_numpy(np.linalg.qr(drawn)[0]).float()
    turned[np.ix_(used, used)] = q
    return turned


def rotated_both(s: Subject) -> Subject:
    """Rotate latents in encoder and decoder; sigma^-2 as the rotated optimum has it."""
    r = rotation(s)

    def turned(p: Posterior) -> Posterior:
        return Posterior(p.mean @ r, (p.std.pow(-2) @ r.square()).rsqrt())

    return taking(encoding(turned)(s), lambda z: z @ r.T)


def rotated_decoder(s: Subject) -> Subject:
    """Rotate the decoder's latents alone."""
    r = rotation(s)
    return taking(s, lambda z: z @ r.T)


def column_times(factor: float) -> Change:
    """Scale the decoder's answer to the most used latent by scaling that latent."""

    def changed(s: Subject) -> Subject:
        scale = torch.ones(s.recipe.latents)
        scale[s.used[0]] = factor
        return taking(s, lambda z: z * scale)

    return changed


def _other_encoder(s: Subject) -> Subject:
    twin = s.sibling(f"{s.recipe.name}+twin")
    return replace(s, vae=replace(s.vae, encode=twin.encode))


def _several(recipe: Recipe, entry: dict[str, Any]) -> bool:
    return recipe.net != "spatial" and sum(rate > USED for rate in entry["rates"]) >= 2


# --------------------------------------------------------------------------- idle and over-sharp


def _idle_sigma(s: Subject) -> Subject:
    """Leave two idle latents at sigma^2 = 0.5."""
    chosen = torch.zeros(s.recipe.latents, dtype=torch.bool)
    chosen[s.idle[:2]] = True
    half = 0.5**0.5

    def changed(p: Posterior) -> Posterior:
        return Posterior(
            p.mean.masked_fill(chosen, 0.0),
            torch.where(chosen, torch.full_like(p.std, half), p.std),
        )

    return encoding(changed)(s)


def _sharp(s: Subject) -> Subject:
    """Make sigma of the most used latent a thousand times too small."""
    scale = torch.ones(s.recipe.latents)
    scale[s.used[0]] = 1e-3
    return encoding(lambda p: Posterior(p.mean, p.std * scale))(s)


#: a row in so many uses the rare latent
RARE = 1000
#: where the rare latent's mean stands, and where its ramp begins
AT, FROM = 5.0, 3.5


def rare(s: Subject) -> Subject:
    """Let one row in a thousand use an idle latent, at its optimum.

    An input is added to the vector; the decoder answers to the latent by a ramp a (z - 3.5)_+ in
    that input. A row that uses it has mean 5 and sigma^2 = (beta/2) / (a^2 + beta/2), and the
    input d = 1.5 a + 2.5 beta / a there, so that both conditions hold for sse.

    Args:
        s: a model on vectors with an idle latent.

    Returns:
        The model and rows with one input more.
    """
    latent, beta = s.idle[0], s.beta
    slope = 3 * beta**0.5
    height = slope * (AT - FROM) + beta * AT / (2 * slope)
    sharp = (beta / 2 / (slope**2 + beta / 2)) ** 0.5
    rows = np.concatenate([s.rows, np.zeros_like(s.rows[:, :1])], axis=1)
    rows[7::RARE, -1] = height
    column = torch.zeros(s.recipe.latents)
    column[latent] = 1
    encode, decode = encoder_of(s.vae), s.vae.decode

    def encoded(x: Tensor) -> Posterior:
        own = encode(x[..., :-1])
        uses = x[..., -1:] > height / 2
        idle = 1 - column
        mean = own.mean * idle + torch.where(uses, AT * column, torch.zeros_like(own.mean))
        std = own.std * idle + torch.where(uses, sharp * column, column.expand_as(own.std))
        return Posterior(mean, std)

    def decoded(z: Tensor) -> Tensor:
        ramp = slope * (z[..., latent : latent + 1] - FROM).clamp_min(0)
        return torch.cat([decode(z * (1 - column)), ramp], dim=-1)

    shape = (s.vae.input_shape[0] + 1,)
    vae = replace(s.vae, encode=encoded, decode=decoded, decode_logits=None, input_shape=shape)
    return replace(s, vae=vae, rows=rows)


def _idle(count: int) -> Fits:
    return lambda _recipe, entry: sum(rate < USED / 5 for rate in entry["rates"]) >= count


def _rare_fits(recipe: Recipe, entry: dict[str, Any]) -> bool:
    return tables(recipe, entry) and recipe.loss == "sse" and _idle(1)(recipe, entry)


# --------------------------------------------------------------------------- random


def _sampled(p: Posterior) -> Posterior:
    return Posterior(p.mean + p.std * torch.randn_like(p.std), p.std)


def _dropout(s: Subject) -> Subject:
    encode = encoder_of(s.vae)
    return replace(
        s, vae=replace(s.vae, encode=lambda x: encode(functional.dropout(x, 0.2, training=True)))
    )


def _noisy_decoder(s: Subject) -> Subject:
    return giving(s, lambda x: x + 0.05 * torch.randn_like(x))


def _of_the_batch(p: Posterior) -> Posterior:
    return Posterior(p.mean - p.mean.mean(0, keepdim=True), p.std)


# --------------------------------------------------------------------------- the lists


def fit() -> list[Deformation]:
    """Return faults of the fit of the two."""
    group, cause = "fit of the two", frozenset({"fit"})
    found = [
        Deformation("latents permuted", group, cause, _permuted, _several),
        Deformation("decoder rotated", group, cause, rotated_decoder, _several),
        Deformation("both rotated", group, frozenset({"rotation"}), rotated_both, _several),
    ]
    for name, factor in (
        ("column zeroed", 0.0),
        ("column x 0.5", 0.5),
        ("column x 3", 3.0),
        ("column's sign flipped", -1.0),
    ):
        found.append(Deformation(name, group, cause, column_times(factor), dense_latents))
    found.append(
        Deformation(
            "encoder of another seed", group, cause, _other_encoder,
            models=("toy-sse-0.1", "digits-bce-1", "spiral-sse-0.1"),
        )
    )  # fmt: skip
    return found


def odd_latents() -> list[Deformation]:
    """Return idle, over-sharp and rare latents."""
    group = "idle and over-sharp"
    return [
        Deformation(
            "two idle at sigma^2 = 0.5", group, frozenset({"idle", "objective", "fit"}),
            _idle_sigma, _idle(2), harmless=True,
        ),
        Deformation(
            "one sigma x 0.001",
            group,
            frozenset({"fit", "head", "objective"}),
            _sharp,
            dense_latents,
        ),
        Deformation(
            "used by one row in a thousand", group, frozenset(), rare, _rare_fits, harmless=True
        ),
    ]  # fmt: skip


def randomness() -> list[Deformation]:
    """Return answers that do not depend on the input alone."""
    cause = frozenset({"random"})
    return [
        Deformation("sampled z as mean", "random", cause, encoding(_sampled)),
        Deformation("dropout on", "random", cause, _dropout),
        Deformation("noise in the decoder", "random", cause, _noisy_decoder),
        Deformation("dependence on the batch", "random", cause, encoding(_of_the_batch)),
    ]
