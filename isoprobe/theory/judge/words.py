"""Put the figures of the evidence into sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.theory.judge.answers import Answer, Condition, Level
from isoprobe.theory.tolerances import TOLERANCES

if TYPE_CHECKING:
    from isoprobe.theory.judge.evidence import Evidence


def numbers(mask: np.ndarray) -> str:
    """List the indices that a mask holds."""
    return ", ".join(str(i) for i in np.flatnonzero(mask))


def listed(values: np.ndarray) -> str:
    """List values with two digits, the first six of them."""
    shown = ", ".join(f"{value:.2g}" for value in values[:6])
    return shown + (", ..." if len(values) > 6 else "")


def _rounded(count: int) -> int:
    """A count with one leading digit, rounded up."""
    power: int = 10 ** (len(str(count)) - 1)
    return -(-count // power) * power


def residual_words(e: Evidence, mask: np.ndarray) -> str:
    """Say where among some latents norm + sigma^2 is the furthest from 1."""
    worst = int(np.argmax(np.abs(np.where(mask, e.residual.value, 0))))
    return (
        f"norm + {e.width} - 1 is off in {int(mask.sum())} of {int(e.used.sum())} used latents, by "
        f"{e.residual.value[worst]:+.2g} (+-{2 * e.residual.se[worst]:.1g}) in latent {worst}"
    )


def moment_words(e: Evidence) -> str:
    """Say how far the codes of the inputs are from filling the prior."""
    second, centre = e.second.value[e.used], e.centre.value[e.used]
    two, zero = int(np.argmax(np.abs(second - 1))), int(np.argmax(np.abs(centre)))
    numbers = np.flatnonzero(e.used)
    squares, mean = ("E[z s]", "E[s]") if e.prior else ("E[mu^2 + sigma^2]", "E[mu]")
    return (
        f"{squares} is {second.min():.2f} to {second.max():.2f} (1 at an optimum; latent "
        f"{numbers[two]}: +-{2 * e.second.se[numbers[two]]:.1g}), {mean} up to "
        f"{np.abs(centre).max():.2f} from 0 (latent {numbers[zero]})"
    )


def round_trip_words(e: Evidence, strong: np.ndarray) -> str:
    """How the decoder's own samples come back, in words."""
    assert e.round_trip is not None  # noqa: S101 - broken latents need it
    fit = e.fit()[strong]
    text = (
        "the encoder does not know the decoder's own samples (slopes of mu on z are "
        f"{fit.min():.2f} to {fit.max():.2f} of what they should be)"
    )
    matrix = np.abs(e.round_trip[np.ix_(strong, strong)])
    partner = matrix.argmax(axis=1)
    own = np.arange(len(matrix))
    moved = int((partner != own).sum())
    clear = matrix[own, partner] > 3 * np.median(matrix)
    if moved and len(set(partner)) == len(partner) and clear.all():
        text += f", and {moved} latents come back as others: they are permuted"
    return text


def residual_size(e: Evidence) -> str:
    """How far sigma is from fitting the decoder, in words."""
    size = np.abs(e.residual.value[e.used])
    if not np.isfinite(size).all():
        return "no beta can be read off sigma"
    worst = int(np.argmax(size))
    half = 2 * float(e.residual.se[e.used][worst])
    return (
        f"norm + {e.width} = 1, the norm by stationarity, holds to within {size[worst]:.0%} "
        f"(+-{half:.0%})"
    )


def summed_up(e: Evidence, level: Level, conditions: list[Condition]) -> str:
    """State how many latents are used and how well they fit, in one sentence."""
    used, n = int(e.used.sum()), len(e.used)
    said = f"{used} of {n} latents are used"
    if not used:
        return f"None of {n} latents is used."
    if level is Level.NOT_SOUND:
        return f"{said}. What was found comes before any reading of importance or density."
    sizes = f"{residual_size(e)} in each{_bend(e)}"
    if level is Level.UNDECIDED:
        open_ = [c for c in conditions if c.answer is Answer.CANNOT_TELL]
        needed = max(c.needed for c in open_)
        names = ", ".join(TOLERANCES[c.name].words for c in open_)
        more = f"about {_rounded(needed):,} rows" if needed < 10**8 else "many more rows"
        return f"{said}; {sizes}. {e.samples:,} rows cannot tell about {names}: {more} would."
    return f"{said}; {sizes}.{_like_pca(e)}"


def _bend(e: Evidence) -> str:
    """What the decoder's derivative at mu gives instead, where it differs by more than errors."""
    if e.beta is None or e.beta_pullback is None:
        return ""
    value, error = e.beta.value.item(), e.beta.se.item()
    other, doubt = e.beta_pullback.value.item(), e.beta_pullback.se.item()
    apart = other / value - 1
    half = 2 * float(np.hypot(error, doubt)) / value
    if not abs(apart) > max(half, 0.02):
        return ""
    side = "below" if apart < 0 else "above"
    return (
        f"; by the decoder's derivative at mu norms are {abs(apart):.0%} (+-{half:.0%}) {side} "
        "that, as the decoder bends within sigma"
    )


def _like_pca(e: Evidence) -> str:
    """Say whether importance reads like PCA's variances: by eigenvalues, not by norms."""
    if e.eigenvalues is None or e.isometric is None:
        return ""
    count = int(e.used.sum())
    found, expected = e.eigenvalues.value[:count], e.isometric[:count]
    off = float(np.abs(found - expected).max())
    if off <= TOLERANCES["isometric"].value:
        return (
            f" Eigenvalues of the scaled pullback are those of an isometric embedding to within "
            f"{off:.0%}: importance reads like PCA's variances."
        )
    return (
        f" Eigenvalues of the scaled pullback run from {found.max():.2f} to {found.min():.2f}, of "
        f"an isometric embedding from {expected.max():.2f} to {expected.min():.2f}: importances "
        "are those of single latents, whose directions mix."
    )
