"""Judge whether data, encoder and decoder belong together: reconstructions and own samples."""

from __future__ import annotations

import numpy as np

from isoprobe.theory.judge.answers import Answer, Condition, Finding, failing, weigh
from isoprobe.theory.judge.betas import of_other_families, other_metrics
from isoprobe.theory.judge.evidence import Evidence, Measured
from isoprobe.theory.judge.readings import fitting_reading, misread
from isoprobe.theory.judge.responses import reordered
from isoprobe.theory.judge.words import listed, moment_words, numbers, round_trip_words
from isoprobe.theory.tolerances import TOLERANCES


def reconstruction(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Reconstructions and own samples: do data, encoder and decoder belong together."""
    conditions, reasons = [], []
    if e.baseline is not None and e.baseline > 0 and not e.own_draws:
        ratio = Measured(e.distortion.value / e.baseline, e.distortion.se / e.baseline)
        c = weigh("reconstruction", ratio, e.degrees(), samples=e.samples)
        conditions.append(c)
        if c.answer is Answer.FAILS:
            reasons.append(
                f"reconstructions are no better than the mean input (distortion {c.size:.3g} "
                f"(+-{c.error:.2g}) times that of the mean)"
            )
        elif e.loss.value.size and not reordered(e):  # which costs more than it tells, and why
            share = Measured(e.loss.value / e.baseline, e.loss.se / e.baseline)
            loss = weigh("loss", share, e.degrees(), samples=e.samples)
            if loss.answer is Answer.FAILS:
                conditions.append(loss)
                reasons.append(
                    f"rate and distortion together cost {loss.size:.3g} (+-{loss.error:.2g}) times "
                    "what the mean input costs without any code"
                )
    broken = _broken(e)
    if _known_elsewhere(e, broken):
        if _moments_fail(e):
            return conditions, [_prior_elsewhere(e, broken)]
        broken = np.zeros_like(broken)  # the prior has holes, where nothing of the data lies
    if not reasons and not broken.any():
        return conditions, []
    return conditions, [_at_fault(e, reasons, broken)]


def _broken(e: Evidence) -> np.ndarray:
    """Used latents that the encoder does not find again in the decoder's own samples."""
    if e.round_trip is None or e.spatial:  # positions share what they code
        return np.zeros_like(e.used)
    low, high = TOLERANCES["own_samples"].value, TOLERANCES["own_samples_high"].value
    fit = e.fit()
    broken: np.ndarray = e.strong() & ((fit < low) | (fit > high))
    return broken


def _known_elsewhere(e: Evidence, broken: np.ndarray) -> bool:
    """Whether what fails at draws of the prior holds at the codes of the inputs."""
    if e.code_fit is None or not broken.any():
        return False
    low, high = TOLERANCES["own_samples"].value, TOLERANCES["own_samples_high"].value
    fit = e.code_fit[broken]
    return bool(((fit >= low) & (fit <= high)).all())  # NaN is neither


def _moments_fail(e: Evidence) -> bool:
    """Whether the inputs are strange to the encoder: a third of the latents fail their moments."""
    if e.spatial or e.own_draws:
        return False
    second = failing("second", e.deviation("second"), e.degrees())
    centre = failing("centre", e.centre.at(e.used), e.degrees())
    return bool((second | centre).mean() > 1 / 3)


def _prior_elsewhere(e: Evidence, broken: np.ndarray) -> Finding:
    """Both sides know each other where the codes lie, which is not where N(0, 1) is."""
    assert e.code_fit is not None  # noqa: S101 - callers have looked
    at_prior, at_codes = e.fit()[broken], e.code_fit[broken]
    return Finding(
        "prior",
        ("prior",),
        f"{moment_words(e)}; the encoder knows what the decoder makes of the inputs' own codes "
        f"(slopes of mu on z are {at_codes.min():.2f} to {at_codes.max():.2f} of what they should "
        f"be), and not of draws of N(0, 1) ({at_prior.min():.2f} to {at_prior.max():.2f})",
        "the model was trained with another prior than N(0, 1), which the rates, norms and betas "
        "here do not know",
        tuple(int(i) for i in np.flatnonzero(broken)),
    )


def _at_fault(e: Evidence, reasons: list[str], broken: np.ndarray) -> Finding:
    """Say which of data, encoder and decoder is at fault, as far as it can be told."""
    strong, strange = e.strong(), _moments_fail(e)
    share = broken.sum() / max(strong.sum(), 1)
    reading = fitting_reading(e)
    if reading is not None and (strange or share > 0.3 or reasons):
        return misread(e, reading, reasons)
    if 0 < share <= 0.5 and not strange:
        return _few_broken(e, broken, reasons)
    if reasons and strange and share <= 0.3 and _own_samples_known(e):
        return _other_data(e, reasons, strong, broken)
    if share == 0:
        return _either_side(e, reasons, strange=strange)
    return _strangers(e, reasons, broken, strange=strange)


def _own_samples_known(e: Evidence) -> bool:
    """Whether it was looked for broken latents where there may be some."""
    return e.round_trip is not None and not e.spatial and bool(e.strong().any())


def _other_data(e: Evidence, reasons: list[str], strong: np.ndarray, broken: np.ndarray) -> Finding:
    known = int(strong.sum() - broken.sum())
    return Finding(
        "data",
        ("data",),
        f"{'; '.join(reasons)}, and {moment_words(e)}; yet the encoder knows the decoder's own "
        f"samples ({known} of {int(strong.sum())} latents come back): encoder and decoder belong "
        "together and are read alike",
        "the inputs are not what the model was trained on: compare preprocessing (range, "
        "inversion, crop, channel order, normalisation) and the data set itself",
    )


def _either_side(e: Evidence, reasons: list[str], *, strange: bool) -> Finding:
    """Bad reconstructions although what else is known of the two sides holds."""
    better = _better_metrics(e)
    causes: tuple[str, ...] = ("data", "decoder", "mismatch")
    evidence = "; ".join(reasons)
    if strange:
        evidence += f", and {moment_words(e)}"
    holds = ["the inputs fill the prior"] if not (strange or e.spatial) else []
    if _own_samples_known(e):
        holes = _broken(e).any()
        made = (
            "what the decoder makes of the inputs' own codes"
            if holes
            else "the decoder's own samples"
        )
        holds.append(f"the encoder knows {made}")
    if holds:
        evidence += f", though {' and '.join(holds)}"
    advice = (
        "either the inputs are not the training's (another set, range, normalisation), or the "
        "decoder's last layers are read in another way (output activation, bias, scale)"
    )
    if better:
        under = ", ".join(f"{spec} {e.metrics[spec].ratio:.2g}" for spec in better)
        causes = ("metric", *causes)
        evidence += f"; under other metrics they are better than the mean ({under} times)"
        advice = f"either the metric is {' or '.join(better)}, or {advice.removeprefix('either ')}"
    return Finding("reconstruction", causes, evidence, advice)


def _better_metrics(e: Evidence) -> list[str]:
    """Other metrics under which reconstructions beat the mean input where ours do not."""
    assert e.baseline is not None  # noqa: S101 - reasons rest on it
    if not e.distortion.value.item() > e.baseline:
        return []
    least = TOLERANCES["other_metric"].value
    better = [spec for spec in of_other_families(e) if e.metrics[spec].ratio < least]
    near = [spec for spec in other_metrics(e) if spec in better]
    return near or better


def _strangers(e: Evidence, reasons: list[str], broken: np.ndarray, *, strange: bool) -> Finding:
    """Encoder and decoder do not know each other."""
    shown = round_trip_words(e, e.strong())
    if strange:
        causes, blame = (
            ("encoder", "mismatch", "data"),
            "the encoder is read in another way (head, activation, normalisation), or encoder and "
            "decoder are of different trainings, or the inputs are not the training's",
        )
    elif e.own_draws:
        causes, blame = (
            ("encoder", "decoder", "mismatch"),
            "one of them is read in another way (head, activation, batch norm, a layer), or they "
            "are of different trainings; the training's inputs would tell which",
        )
    else:
        causes, blame = (
            ("mismatch", "decoder", "permuted"),
            "the inputs are as familiar to the encoder as the training's (its moments hold), so "
            "it is the decoder that is read in another way (activations, batch norm, a layer), or "
            "it belongs to another encoder",
        )
    return Finding(
        "own-samples",
        causes,
        f"{'; '.join([*reasons, shown])}: {blame}",
        "check activations, heads and layer order against the training code ('isoprobe doctor "
        "MODEL --data SPEC' tries readings), and that all weights come from one checkpoint",
        tuple(int(i) for i in np.flatnonzero(broken)),
    )


def _few_broken(e: Evidence, broken: np.ndarray, reasons: list[str]) -> Finding:
    """A few latents whose two sides do not fit, the rest fitting."""
    before = f"{'; '.join(reasons)}; " if reasons else ""
    fit = e.fit()
    silent = broken & (e.answer.value < TOLERANCES["dead"].value * (1 - e.variance))
    chosen = silent if silent.any() else broken
    which = numbers(chosen)
    if silent.any():
        return Finding(
            "decoder-dead",
            ("decoder-dead", "mismatch"),
            f"{before}the decoder does not answer to latents {which} (norm "
            f"{listed(e.answer.value[chosen])}), though the encoder fills them "
            f"({e.width} {listed(e.variance[chosen])})",
            "their decoder weights are lost or zeroed: compare the decoder's first layer with the "
            "original",
            tuple(int(i) for i in np.flatnonzero(chosen)),
        )
    flipped = broken & (fit < 0)
    kind = (
        f"the sign of latents {numbers(flipped)} is reversed between encoder and decoder"
        if flipped.any()
        else f"the decoder answers to latents {which} {listed(1 / fit[chosen])} times as the "
        "encoder expects, or they are exchanged"
    )
    return Finding(
        "encoder-mismatched",
        ("mismatch", "scaled", "permuted", "sign", "decoder"),
        f"{before}of the decoder's own samples, latents {which} come back {listed(fit[chosen])} "
        f"times as strong as they should, all others as they should: {kind}",
        "encoder and decoder do not belong together in these latents: heads permuted, a column "
        "scaled, a decoder layer read in another way, or layers mixed between checkpoints",
        tuple(int(i) for i in np.flatnonzero(chosen)),
    )
