"""Judge sigma of each latent against the decoder's response to noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.theory.judge.answers import Answer, Condition, Finding, failing, weigh
from isoprobe.theory.judge.words import listed, numbers, residual_words
from isoprobe.theory.tolerances import TOLERANCES

if TYPE_CHECKING:
    from isoprobe.theory.judge.evidence import Evidence

#: deviations of latents that differ by less, relatively, are one number
ALIKE = 1e-3
#: the largest variance with odds
MOST = 0.999999


def responses(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """sigma against the decoder, latent by latent."""
    if e.beta is None or not e.beta.value.item() > 0:
        return [], [_unresponsive(e)]
    deviation = e.deviation("residual")
    condition = weigh("residual", deviation, e.degrees(), samples=e.samples)
    if condition.answer is not Answer.FAILS:
        return [condition], []
    mask = np.zeros_like(e.used)
    mask[e.used] = failing("residual", deviation, e.degrees())
    few = mask.sum() <= e.used.sum() / 2
    alike = float(np.ptp(e.variance[e.used])) < ALIKE * float(e.variance[e.used].max())
    if e.fixed_scale and (alike or not few):
        return [condition], [_fixed_scale(e, mask)]
    if reordered(e):
        return [condition], [_exchanged(e, mask)]
    if few:
        return [condition], [_odd(e, mask)]
    return [condition], [_disagreement(e, mask)]


def reordered(e: Evidence) -> bool:
    """Whether the decoder calls for the deviations in hand in another order."""
    given, answer = e.variance[e.used], e.answer.value[e.used]
    if len(given) < 3 or not (answer > 0).all():
        return False
    in_order, reordered = _disorder(given, answer)
    return in_order > TOLERANCES["order"].value and reordered < in_order / 3


def _disorder(given: np.ndarray, answer: np.ndarray) -> tuple[float, float]:
    """Mean |log| of the variances called for over those in hand: in their order, and sorted.

    At an optimum norm = 1 - sigma^2, and norm is sigma^2 times what the decoder answers: given any
    sigma^2, it calls for the one whose odds sigma^2 : 1 - sigma^2 are sigma^2 : norm. Another beta
    is a factor of all odds, taken out by their median.

    Returns:
        In their order; both sorted.
    """
    odds = given / answer
    known = np.sort(given).clip(max=MOST)
    scale = np.exp(np.median(np.log(known / (1 - known)) - np.log(np.sort(odds))))
    called = scale * odds / (1 + scale * odds)
    in_order = np.abs(np.log(called / given))
    reordered = np.abs(np.log(np.sort(called) / np.sort(given)))
    return float(in_order.mean()), float(reordered.mean())


def _exchanged(e: Evidence, mask: np.ndarray) -> Finding:
    return Finding(
        "encoder-mismatched",
        ("mismatch", "permuted"),
        f"{residual_words(e, mask)}, but the same deviations in another order fit: scale heads "
        "are exchanged between latents",
        "outputs of the scale head are permuted against those of the mean: compare their order "
        "with the training code",
        tuple(int(i) for i in np.flatnonzero(mask)),
    )


def _odd(e: Evidence, mask: np.ndarray) -> Finding:
    dead = mask & (e.answer.value < TOLERANCES["dead"].value * (1 - e.variance))
    which = numbers(mask)
    indices = tuple(int(i) for i in np.flatnonzero(mask))
    if dead.sum() == mask.sum() and (e.variance[mask] > TOLERANCES["odd_variance"].value).all():
        return Finding(
            "decoder-dead",
            ("decoder-dead", "mismatch"),
            f"noise in latents {which} does not raise the distortion (norm "
            f"{listed(e.answer.value[mask])} where {listed(1 - e.variance[mask])} is called for)",
            "their decoder weights are lost or zeroed: compare the decoder's first layer with the "
            "original",
            indices,
        )
    return Finding(
        "encoder-mismatched",
        ("mismatch", "sigma", "own-beta"),
        f"{residual_words(e, mask)}: either sigma of latents {which} ({e.width} "
        f"{listed(e.variance[mask])}) does not fit the decoder, or these latents were trained "
        "with a weight of their own; the others agree on beta",
        "compare the scale head of these latents with the original; their 1/sigma^2 says nothing "
        "of importance",
        indices,
    )


def _disagreement(e: Evidence, mask: np.ndarray) -> Finding:
    each = e.beta_each.value[e.used]
    if e.capacity is not None or e.free_bits is not None:
        return Finding(
            "disagreement",
            ("objective",),
            f"the latents disagree about beta ({each.min():.3g} to {each.max():.3g}): "
            f"{residual_words(e, mask)}",
            f"the objective is {e.objective}, and it weighs the KL of single rows or latents each "
            "in its own way, so no one beta describes it: rates and distortions stand, norms and "
            "importances have no common unit",
        )
    data = "" if e.own_draws else ", or the inputs are not the training's"
    known = f" ({e.objective})" if e.objective else ""
    return Finding(
        "disagreement",
        ("objective", "training", "metric", "data"),
        f"the latents disagree about beta ({each.min():.3g} to {each.max():.3g}): "
        f"{residual_words(e, mask)}",
        f"either the objective was no beta-VAE of metric {e.metric}{known} (capacity, free bits, "
        f"total correlation, another loss), or training had not reached an optimum{data}",
    )


def _unresponsive(e: Evidence) -> Finding:
    return Finding(
        "decoder-dead",
        ("decoder-dead", "mismatch", "data"),
        "noise in the used latents does not raise the distortion (stationary answer "
        f"{listed(e.answer.value[e.used])}): the decoder does not use them, or decodes "
        "something else",
        "encoder and decoder do not belong together, or the data are not the model's: compare "
        "reconstructions with the inputs",
        tuple(int(i) for i in np.flatnonzero(e.used)),
    )


def _fixed_scale(e: Evidence, mask: np.ndarray) -> Finding:
    """A posterior scale that no row changes, and that does not fit the decoder."""
    return Finding(
        "fixed-scale",
        ("fixed-scale", "objective"),
        "sigma is the same for every row and does not fit the decoder "
        f"({residual_words(e, mask)}): it was fixed in training, or its head was lost",
        "beta, importance and densities rest on a sigma that was trained; with a fixed one none of "
        "them can be read off",
    )
