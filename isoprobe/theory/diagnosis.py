"""A verdict with its evidence: what is wrong with a model, or that nothing is.

Rules on numbers alone, so that they can be read, tested, and disagreed with one by one. Residuals
are norm + sigma^2 - 1; a sound model has none, in used and collapsed dimensions alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from isoprobe.theory.formulas import norm_of, recovered_beta, unused_variance, variance_called_for
from isoprobe.theory.formulas import residual as residual_of
from isoprobe.theory.stated import stated

#: mean |residual| up to which a condition counts as met; weights trained by others, with their
#: loss on record, stay within 0.1
HOLDS = 0.15
#: |residual| beyond which one dimension is off; others' sound weights stay within 0.15
OFF = 0.3
#: relative difference beyond which two betas are not the same
DIFFERS = 0.2
#: total rate below which a model counts as collapsed, nats
COLLAPSED_NATS = 0.1
#: mean |E[mu^2 + sigma^2] - 1| beyond which the data, or the training, are not what they should be
CERTIFICATE = 0.25
#: a decoder that answers less than this share of what sigma < 1 calls for is dead there
DEAD = 0.02

LABELS = ("active", "mixed", "collapsed", "decoder-dead", "encoder-mismatched")


@dataclass(frozen=True)
class Evidence:
    """What the rules look at; per-latent arrays are ``(n,)``.

    Attributes:
        active: carries information.
        mixed: used by some samples only.
        rate: E[KL_j], nats.
        variance: E[sigma_j^2].
        stationary: E[sigma_j eps_j dD/dz_j], units of the metric.
        stationary_se: its standard error.
        scaled: E[2 sigma_j^2 g_jj], units of the metric; None without a metric tensor.
        second_moment: E[mu_j^2 + sigma_j^2].
        beta: in force; NaN when unknown.
        declared: by user or checkpoint, in units of the metric; None when unknown.
        metric: in use.
        readings: other readings of the scale head, by name: E[2 s^2 g_jj] and E[s^2] of each.
        table: gives beta recovered under each plausible metric, by spec; asked only where a
            declared beta does not hold.
    """

    active: np.ndarray
    mixed: np.ndarray
    rate: np.ndarray
    variance: np.ndarray
    stationary: np.ndarray
    stationary_se: np.ndarray
    scaled: np.ndarray | None
    second_moment: np.ndarray
    beta: float
    declared: float | None
    metric: str
    readings: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    table: Callable[[], Mapping[str, float]] = dict


@dataclass(frozen=True)
class Finding:
    """Something wrong, with its evidence and what to do.

    Attributes:
        code: short name: ``collapsed``, ``scale-head``, ``beta``, ``metric``, ``undertrained``,
            ``data``, ``curved``, ``decoder-dead``, ``encoder-mismatched``.
        evidence: the figures, a sentence.
        advice: what to do, a sentence.
    """

    code: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class Diagnosis:
    """The verdict.

    Attributes:
        findings: what is wrong, most fundamental first; empty for a sound model.
        labels: of each latent, from :data:`LABELS`.
    """

    findings: tuple[Finding, ...]
    labels: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


@stated("Verdict")
def diagnose(evidence: Evidence) -> Diagnosis:
    """Apply the rules.

    Args:
        evidence: the numbers.

    Returns:
        Findings and labels.
    """
    e = evidence
    if not e.active.any() or e.rate.sum() < COLLAPSED_NATS:
        return Diagnosis((_collapsed(e),), tuple("collapsed" for _ in e.active))
    reference = _reference_beta(e)
    if not reference > 0:
        return Diagnosis((_unresponsive(e),), tuple(_unresponsive_labels(e)))
    permuted = _permuted(e)
    least = DEAD * reference * unused_variance(e.variance)
    silent = e.stationary < least
    if e.scaled is not None:
        silent &= e.scaled < least  # other data can silence the first, only the decoder the second
    dead = e.active & (e.variance < 0.9) & silent & (not permuted)
    residual = residual_of(norm_of(e.stationary, reference), e.variance)
    certain = np.abs(residual) - 2 * e.stationary_se / reference
    mismatched = e.active & ~dead & (certain > OFF)
    single = _single(e, reference, dead, mismatched) or permuted
    if not single:
        mismatched = np.zeros_like(mismatched)
    labels = tuple(
        _label(bool(d), bool(m), bool(a), bool(x))
        for d, m, a, x in zip(dead, mismatched, e.active, e.mixed, strict=True)
    )
    misread = tuple(_scale_head(e))
    if misread:
        return Diagnosis(misread, labels)
    judged = e.active & ~dead & ~mismatched
    findings = [
        *_dimensions(e, dead, mismatched, residual),
        *([] if permuted else _agreement(e, reference, residual, judged)),
    ]
    return Diagnosis(tuple(findings), labels)


def _single(e: Evidence, reference: float, dead: np.ndarray, mismatched: np.ndarray) -> bool:
    """Return whether a few dimensions are off while the others agree with each other."""
    rest = e.active & ~dead & ~mismatched
    few = 0 < mismatched.sum() <= e.active.sum() / 2
    return bool(few and rest.any() and _disagreement(e, reference, rest) <= HOLDS)


def _disagreement(e: Evidence, reference: float, chosen: np.ndarray) -> float:
    """Mean relative difference of the chosen latents' betas from the reference, weighted."""
    each, weight = _betas(e, chosen)
    return float((weight * np.abs(each / reference - 1)).sum() / max(weight.sum(), 1e-12))


def _label(dead: bool, mismatched: bool, active: bool, mixed: bool) -> str:
    if dead:
        return "decoder-dead"
    if mismatched:
        return "encoder-mismatched"
    if not active:
        return "collapsed"
    return "mixed" if mixed else "active"


def _reference_beta(e: Evidence) -> float:
    """Return the beta most of the rate agrees on: the median weighted by 1 - sigma_j^2.

    A few damaged dimensions do not move it, and it does not rest on what is declared.
    """
    each, weight = _betas(e, e.active)
    order = np.argsort(each)
    share = np.cumsum(weight[order])
    return float(each[order][np.searchsorted(share, share[-1] / 2)])


def _betas(e: Evidence, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beta of each chosen latent by stationarity, and the weight of its word, |1 - sigma^2|."""
    used = unused_variance(e.variance[chosen])
    # Where sigma is 1 the condition says nothing: weight 0, whatever stands as its beta.
    safe = np.where(used == 0, 1.0, used)
    return e.stationary[chosen] / safe, np.abs(used)


def _collapsed(e: Evidence) -> Finding:
    return Finding(
        "collapsed",
        f"the rate is {e.rate.sum():.3g} nats over {len(e.active)} latents: the encoder gives "
        "the prior whatever it sees",
        "check the preprocessing and the reading of the scale head; if those are right, beta was "
        "too large for the data's variance (above 2 Var(y)), or training fell into collapse",
    )


def _unresponsive(e: Evidence) -> Finding:
    shown = _numbers_of(e.stationary[e.active])
    return Finding(
        "decoder-dead",
        f"noise in the active latents does not raise the distortion (E[sigma eps dD/dz] {shown}): "
        "the decoder does not use them, or decodes something else",
        "encoder and decoder do not belong together, or the data are not the model's: compare "
        "reconstructions with the inputs",
    )


def _unresponsive_labels(e: Evidence) -> Iterator[str]:
    for active, answer in zip(e.active, e.stationary, strict=True):
        yield "collapsed" if not active else "decoder-dead" if answer <= 0 else "encoder-mismatched"


def _scale_head(e: Evidence) -> Iterator[Finding]:
    """Another reading of the scale head under which the residuals vanish."""
    if e.scaled is None:
        return
    ours = _misfit(e.scaled, e.variance, e)
    best = min(
        ((name, _misfit(scaled, variance, e)) for name, (scaled, variance) in e.readings.items()),
        key=lambda item: item[1],
        default=None,
    )
    if best is not None and ours > OFF and best[1] < HOLDS and best[1] < ours / 3:
        yield Finding(
            "scale-head",
            f"mean |norm + sigma^2 - 1| is {ours:.2g} as read; {best[0]}, it is {best[1]:.2g}",
            "the scale head is misread: declare its form (--option head=..., or the adapter's)",
        )


def _misfit(scaled: np.ndarray, variance: np.ndarray, e: Evidence) -> float:
    """Mean |norm + s^2 - 1| over active dimensions, at the declared beta or the best-fitting."""
    scaled, variance = scaled[e.active], variance[e.active]
    beta = e.declared or scaled.sum() / max(unused_variance(variance).sum(), 1e-12)
    return float(np.abs(residual_of(norm_of(scaled, beta), variance)).mean())


def _agreement(
    e: Evidence, reference: float, residual: np.ndarray, judged: np.ndarray
) -> Iterator[Finding]:
    """Latents that disagree about beta: no optimum. Agreement on another beta: a wrong one."""
    if not judged.any():
        return
    disagree = _disagreement(e, reference, judged)
    open_by = float(np.abs(e.second_moment[judged] - 1).mean())
    if disagree > DIFFERS:
        yield Finding(
            "undertrained",
            f"the latents' betas differ by {disagree:.0%} on average, and E[mu^2 + sigma^2] is "
            f"off 1 by {open_by:.2g}: not at an optimum",
            "train longer or lower the learning rate; if training had converged, the objective "
            "was no beta-VAE of this metric, or the data are not the training's",
        )
    elif open_by > CERTIFICATE:
        yield Finding(
            "data",
            f"sigma fits the decoder, but E[mu^2 + sigma^2] is off 1 by {open_by:.2g} on average: "
            "these inputs do not fill the prior as the training's did",
            "give the training's data with its preprocessing (crop, scale); if these are they, "
            "training was not finished",
        )
    if disagree <= DIFFERS:
        yield from _beta_or_metric(e, reference)
    yield from _curved(e, residual, judged)


def _dimensions(
    e: Evidence, dead: np.ndarray, mismatched: np.ndarray, residual: np.ndarray
) -> Iterator[Finding]:
    if dead.any():
        yield Finding(
            "decoder-dead",
            f"in latents {_numbers(dead)} sigma^2 is {_numbers_of(e.variance[dead])}, yet the "
            "decoder does not respond to them",
            "their weights are lost or zeroed: compare the decoder's first layer with the original",
        )
    if mismatched.any():
        yield Finding(
            "encoder-mismatched",
            f"in latents {_numbers(mismatched)} norm + sigma^2 - 1 is "
            f"{_numbers_of(residual[mismatched])}: sigma there does not fit the decoder",
            "encoder and decoder do not belong together in these dimensions: outputs of the "
            "heads may be permuted, or layers mixed between checkpoints",
        )


def _permuted(e: Evidence) -> bool:
    """Return whether the decoder calls for the encoder's deviations in another order.

    At an optimum sigma^2 = 1 / (1 + 2 g / beta); compared in the order given, and sorted.
    """
    if e.scaled is None:
        return False
    given = e.variance[e.active]
    slope = e.scaled[e.active] / given
    beta = e.declared or np.median(recovered_beta(e.scaled[e.active], given))
    called_for = variance_called_for(slope / 2, beta)
    in_order = np.abs(np.log(called_for / given)).mean()
    reordered = np.abs(np.log(np.sort(called_for) / np.sort(given))).mean()
    return bool(in_order > 2 * OFF and reordered < in_order / 3)


def _beta_or_metric(e: Evidence, reference: float) -> Iterator[Finding]:
    if e.declared is None or abs(reference / e.declared - 1) <= DIFFERS:
        return
    near = {
        spec: beta
        for spec, beta in e.table().items()
        if spec != e.metric and abs(beta / e.declared - 1) <= DIFFERS
    }
    if near:
        spec = next(iter(near))  # the commonest of those that fit, as the table is in that order
        yield Finding(
            "metric",
            f"beta {e.declared:.3g} is declared; under {e.metric} the weights show "
            f"{reference:.3g}, under {spec} {near[spec]:.3g}",
            f"the model was trained with {spec} rather than {e.metric}: use --metric {spec}",
        )
        return
    yield Finding(
        "beta",
        f"beta {e.declared:.3g} is declared; the latents agree on {reference:.3g} "
        f"({reference / e.declared:.3g} times as much)",
        "a wrong declaration or other units (a mean instead of a sum, a factor 0.5): use --beta "
        "auto, or correct the declaration",
    )


def _curved(e: Evidence, residual: np.ndarray, judged: np.ndarray) -> Iterator[Finding]:
    if e.scaled is None:
        return
    stationary = float(np.abs(residual[judged]).mean())
    pulled_beta = e.scaled[judged].sum() / unused_variance(e.variance[judged]).sum()
    norms = norm_of(e.scaled[judged], pulled_beta)
    pulled = float(np.abs(residual_of(norms, e.variance[judged])).mean())
    if stationary <= HOLDS and pulled > 2 * HOLDS:
        yield Finding(
            "curved",
            f"mean |norm + sigma^2 - 1| is {stationary:.2g} by stationarity and {pulled:.2g} by "
            "the pullback",
            "the decoder bends within one sigma, or reconstructs far from x: trust the "
            "stationary figures; expansions at a point (volumes, cosines) are rough here",
        )


def _numbers(mask: np.ndarray) -> str:
    return ", ".join(str(i) for i in np.flatnonzero(mask))


def _numbers_of(values: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{value:.2g}" for value in values)
