"""Judge a model from its numbers and their errors: one verdict, repeated by whoever speaks.

Rules are data: each reads named pieces of evidence, answers *fails*, *holds* or *cannot tell* by
the size of what it measures beside its tolerance, and carries a sentence of evidence and one of
advice. A condition fails when its size less its error is beyond the tolerance, and holds when its
size plus its error is within; significance alone decides nothing. That some latent fails is said
with intervals that are corrected for their number; that all hold needs no correction, since each
has to hold by itself. Findings on structure come before findings on beta and silence them, because
beta means nothing for a model that is read wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from isoprobe.statistics.quantiles import corrected
from isoprobe.theory.stated import stated
from isoprobe.theory.tolerances import TOLERANCES


class Answer(StrEnum):
    """What a rule says."""

    FAILS = "fails"
    HOLDS = "holds"
    CANNOT_TELL = "cannot tell"


class Level(StrEnum):
    """What all rules say together."""

    SOUND = "sound"
    UNDECIDED = "undecided"
    NOT_SOUND = "not sound"


@dataclass(frozen=True)
class Measured:
    """Values with their standard errors, ``(n,)`` or scalars as arrays of one."""

    value: np.ndarray
    se: np.ndarray

    @classmethod
    def of(cls, value: object, se: object = 0.0) -> Measured:
        """Take anything array-like."""
        v = np.atleast_1d(np.asarray(value, dtype=float))
        return cls(v, np.broadcast_to(np.asarray(se, dtype=float), v.shape))

    def at(self, chosen: np.ndarray) -> Measured:
        """The values at a mask or at indices."""
        return Measured(self.value[chosen], self.se[chosen])


@dataclass(frozen=True)
class Reading:
    """How well one reading of the posterior fits, on the same rows for all.

    Attributes:
        name: how the posterior is read; ``as read`` for the one in hand.
        distortion: mean D(x, Dec(mu)).
        disagreement: mean |beta_j / beta - 1| over used latents, weighted by 1 - sigma_j^2.
        moment: mean |E[mu_j^2 + sigma_j^2] - 1| over used latents.
        beta: pooled over used latents.
    """

    name: str
    distortion: float
    disagreement: float
    moment: float
    beta: float

    @property
    def misfit(self) -> float:
        """Both conditions together; 0 at an optimum."""
        return self.disagreement + self.moment


@dataclass(frozen=True)
class OtherMetric:
    """What another metric shows of the same model and rows.

    Attributes:
        beta: recovered by stationarity, pooled over used latents, in units of that metric.
        ratio: mean distortion of the reconstructions over that of the mean input; NaN where there
            is none.
    """

    beta: float
    ratio: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the rules look at; per-latent arrays are ``(n,)``, None where it was not measured.

    Attributes:
        samples: rows that were measured.
        own_draws: the inputs are the model's own samples, so that nothing is known of data.
        used: latents that do something, see :func:`used_latents`.
        mixed: latents that only some rows use.
        spatial: latents are maps, on which moments and shifts are not judged.
        rate: E[KL_j], nats.
        rate_most: KL_j of the row that uses the latent most, nats.
        variance: E[sigma_j^2].
        fixed_scale: sigma is the same for every row.
        beta: recovered by stationarity, pooled robustly over used latents.
        beta_each: the same of each latent.
        beta_pullback: recovered by the pullback.
        declared: beta that user or checkpoint state, in units of the metric.
        residual: norm by stationarity at the recovered beta, + sigma_j^2 - 1.
        answer: stationary norm at the recovered beta, the decoder's answer to noise in a latent.
        gain: relative excess of the decoder's response.
        second: E[mu_j^2 + sigma_j^2].
        centre: E[mu_j].
        mixing: share of a decoder column that another latent holds in excess, ``(n, n)``.
        turn: how far pairs of latents are turned in their plane, as a cosine, ``(n, n)``.
        round_trip: slope of mu_k(Dec(z)) on z_j, ``(n, n)``.
        eigenvalues: of the scaled pullback, mean by rank, ``(n,)``.
        isometric: what these are for an isometric embedding, 1 - sigma^2 in descending order.
        distortion: mean D(x, Dec(mu)) less D(x, x).
        baseline: the same of the mean input.
        loss: mean L_x at the recovered beta, less D(x, x).
        metric: spec of the metric in use.
        families: families of metrics by spec, where they have one.
        metrics: what the plausible metrics show, by spec, where it was asked for.
        expected_trip: its diagonal at an optimum, ``(n,)``.
        code_fit: the slope at posterior draws of the rows in place of draws of the prior, over what
            it should be, ``(n,)``; NaN where that is too little; where it was asked for.
        trials: readings of the posterior tried on the same rows, where they were asked for; the
            one in hand is named ``as read``.
        objective: words for an objective that is known to be no beta-VAE's, else empty.
    """

    samples: int
    own_draws: bool
    used: np.ndarray
    mixed: np.ndarray
    spatial: bool
    rate: np.ndarray
    rate_most: np.ndarray
    variance: np.ndarray
    fixed_scale: bool
    beta: Measured | None
    beta_each: Measured
    beta_pullback: Measured | None
    declared: float | None
    residual: Measured
    answer: Measured
    gain: Measured
    second: Measured
    centre: Measured
    mixing: Measured | None
    turn: Measured | None
    round_trip: np.ndarray | None
    expected_trip: np.ndarray
    eigenvalues: Measured | None
    isometric: np.ndarray | None
    distortion: Measured
    baseline: float | None
    loss: Measured
    metric: str
    families: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, OtherMetric] = field(default_factory=dict)
    code_fit: np.ndarray | None = None
    trials: tuple[Reading, ...] = ()
    objective: str = ""

    def degrees(self) -> int:
        """Degrees of freedom of the standard errors."""
        return max(min(self.samples, 64) - 1, 1)


@dataclass(frozen=True)
class Finding:
    """Something wrong, with its evidence and what to do.

    Attributes:
        code: short name, one of :data:`CODES`.
        causes: what may lie behind it, short names; several where the numbers cannot tell.
        evidence: the figures with their errors, a sentence.
        advice: what to do, a sentence.
        latents: which latents it concerns; empty for the whole model.
    """

    code: str
    causes: tuple[str, ...]
    evidence: str
    advice: str
    latents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Condition:
    """One rule's answer.

    Attributes:
        name: of the rule.
        answer: fails, holds, or cannot tell.
        size: the largest value, in the units of its tolerance.
        error: half width of its interval.
        tolerance: what it is compared with.
        needed: rows with which it could be told, where it cannot.
    """

    name: str
    answer: Answer
    size: float
    error: float
    tolerance: float
    needed: int = 0


@dataclass(frozen=True)
class Verdict:
    """The judgement.

    Attributes:
        level: sound, undecided or not sound.
        findings: what is wrong, most fundamental first.
        remarks: what is worth knowing and no defect, as findings.
        conditions: every rule's answer.
        labels: of each latent.
        meaning: one sentence that states sizes.
    """

    level: Level
    findings: tuple[Finding, ...]
    remarks: tuple[Finding, ...]
    conditions: tuple[Condition, ...]
    labels: tuple[str, ...]
    meaning: str


#: so many times the least variance needs no error to be believed
PLAINLY = 5.0
#: deviations of latents that differ by less, relatively, are one number
ALIKE = 1e-3
#: name of the reading in hand among those tried
AS_READ = "as read"
LABELS = ("active", "mixed", "collapsed", "rare", "decoder-dead", "encoder-mismatched")

#: short names of findings and remarks, with what each means
CODES = {
    "collapsed": "no latent carries information",
    "reconstruction": "reconstructs no better than the mean input",
    "own-samples": "the encoder does not know the decoder's own samples",
    "scale-head": "the posterior head is read in another form than it was trained in",
    "decoder-dead": "the decoder does not answer to a latent that the encoder fills",
    "encoder-mismatched": "sigma of a latent does not fit the decoder",
    "data": "the inputs do not fill the prior as the training's did",
    "prior": "the posterior fills another prior than N(0, 1)",
    "decoder": "the decoder's response is too strong or too weak",
    "rotated": "latents are turned against the decoder's axes",
    "disagreement": "the latents disagree about beta",
    "fixed-scale": "sigma is the same for every row",
    "beta": "the declared beta is not what the weights show",
    "metric": "another metric explains the declared beta",
    "curved": "the decoder bends within one sigma",
    "rare": "single rows use a latent that counts as idle",
}


# --------------------------------------------------------------------------- three answers


def weigh(
    name: str, measured: Measured, degrees: int, *, samples: int, count: int | None = None
) -> Condition:
    """Compare sizes with a tolerance; the largest decides.

    One that fails is looked for among all, so its interval is corrected for their number. All hold
    where each does, which the plain 95 % interval of each says.

    Args:
        name: of the tolerance.
        measured: deviations from what should be, with standard errors.
        degrees: of freedom of those errors.
        samples: rows that they rest on.
        count: how many intervals to correct for; as many as there are when None.

    Returns:
        The answer.
    """
    tolerance = TOLERANCES[name].value
    size = np.abs(measured.value)
    se = np.where(np.isfinite(measured.se), measured.se, np.inf)
    width = corrected(len(size) if count is None else count, degrees) * se
    low = size - width
    if np.any(low > tolerance):
        worst = int(np.argmax(low))
        answer = Answer.FAILS
    else:
        width = corrected(1, degrees) * se
        high = size + width
        worst = int(np.argmax(high))
        answer = Answer.HOLDS if np.all(high <= tolerance) else Answer.CANNOT_TELL
    needed = 0
    if answer is Answer.CANNOT_TELL:
        gap = abs(tolerance - float(size[worst]))
        share = float(width[worst]) / max(gap, 0.05 * tolerance)
        needed = int(min(np.ceil(samples * share**2), 10**9)) if np.isfinite(share) else 10**9
    return Condition(name, answer, float(size[worst]), float(width[worst]), tolerance, needed)


def failing(name: str, measured: Measured, degrees: int) -> np.ndarray:
    """Mask of the values that fail, each corrected for their number."""
    width = corrected(len(measured.value), degrees) * measured.se
    mask: np.ndarray = np.abs(measured.value) - width > TOLERANCES[name].value
    return mask


# --------------------------------------------------------------------------- the judgement


@stated("Verdict")
def judge(e: Evidence) -> Verdict:
    """Apply the rules.

    Args:
        e: the evidence.

    Returns:
        The verdict.
    """
    conditions: list[Condition] = []
    findings: list[Finding] = []
    labels = [
        "rare" if r else "collapsed" if not u else "mixed" if m else "active"
        for u, m, r in zip(e.used, e.mixed, _rarely_used(e), strict=True)
    ]
    if not e.used.any():
        findings.append(_collapsed(e))
        return _verdict(e, findings, [], conditions, labels)
    for rule in RULES:
        if findings and rule.silenced:
            continue
        condition, found = rule.apply(e)
        conditions += condition
        findings += found
    for finding in findings:
        if finding.code in LABELS:
            for latent in finding.latents:
                labels[latent] = finding.code
    remarks = [] if findings else list(_remarks(e))
    return _verdict(e, findings, remarks, conditions, labels)


@dataclass(frozen=True)
class Rule:
    """A rule as data.

    Attributes:
        name: of the rule.
        keys: evidence it reads.
        silenced: not asked once something more fundamental was found.
        apply: gives conditions and findings.
    """

    name: str
    keys: tuple[str, ...]
    silenced: bool
    apply: Callable[[Evidence], tuple[list[Condition], list[Finding]]]


def _verdict(
    e: Evidence,
    findings: list[Finding],
    remarks: list[Finding],
    conditions: list[Condition],
    labels: list[str],
) -> Verdict:
    undecided = any(c.answer is Answer.CANNOT_TELL for c in conditions)
    open_level = Level.UNDECIDED if undecided else Level.SOUND
    level = Level.NOT_SOUND if findings else open_level
    meaning = _meaning(e, level, conditions)
    return Verdict(
        level, tuple(findings), tuple(remarks), tuple(conditions), tuple(labels), meaning
    )


def _deviation(e: Evidence, name: str) -> Measured:
    """Deviation of a condition from what it should be, at used latents."""
    measured: Measured = getattr(e, name)
    if name == "second":
        measured = Measured(measured.value - 1, measured.se)
    return measured.at(e.used)


def _fit(e: Evidence) -> np.ndarray:
    """How well the encoder knows the decoder's samples: slope over 1 - sigma_j^2, ``(n,)``."""
    assert e.round_trip is not None  # noqa: S101 - callers have looked
    expected = np.maximum(e.expected_trip, 0.05)
    fit: np.ndarray = np.diag(e.round_trip) / expected
    return fit


# ----- structure


def _reconstruction(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Reconstructions and own samples: do data, encoder and decoder belong together."""
    conditions, reasons = [], []
    if e.baseline is not None and e.baseline > 0 and not e.own_draws:
        ratio = Measured(e.distortion.value / e.baseline, e.distortion.se / e.baseline)
        conditions.append(weigh("reconstruction", ratio, e.degrees(), samples=e.samples))
        if conditions[-1].answer is Answer.FAILS:
            c = conditions[-1]
            reasons.append(
                f"reconstructions are no better than the mean input (distortion {c.size:.3g} "
                f"(+-{c.error:.2g}) times that of the mean)"
            )
        elif e.loss.value.size:
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
    found = _structure(e, reasons, broken)
    return conditions, [] if found is None else [found]


def _strong(e: Evidence) -> np.ndarray:
    """Used latents whose posterior is narrow enough for gains and slopes to be judged."""
    room = (
        np.minimum(1 - e.variance, e.expected_trip) if e.round_trip is not None else 1 - e.variance
    )
    strong: np.ndarray = e.used & (room > TOLERANCES["strong"].value)
    return strong


def _broken(e: Evidence) -> np.ndarray:
    """Used latents that the encoder does not find again in the decoder's own samples."""
    if e.round_trip is None or e.spatial:  # positions share what they code
        return np.zeros_like(e.used)
    low, high = TOLERANCES["own_samples"].value, TOLERANCES["own_samples_high"].value
    fit = _fit(e)
    broken: np.ndarray = _strong(e) & ((fit < low) | (fit > high))
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
    second = failing("second", _deviation(e, "second"), e.degrees())
    centre = failing("centre", e.centre.at(e.used), e.degrees())
    return bool((second | centre).mean() > 1 / 3)


def _prior_elsewhere(e: Evidence, broken: np.ndarray) -> Finding:
    """Both sides know each other where the codes lie, which is not where N(0, 1) is."""
    assert e.code_fit is not None  # noqa: S101 - callers have looked
    at_prior, at_codes = _fit(e)[broken], e.code_fit[broken]
    return Finding(
        "prior",
        ("prior",),
        f"{_moment_words(e)}; the encoder knows what the decoder makes of the inputs' own codes "
        f"(slopes of mu on z are {at_codes.min():.2f} to {at_codes.max():.2f} of what they should "
        f"be), and not of draws of N(0, 1) ({at_prior.min():.2f} to {at_prior.max():.2f})",
        "the model was trained with another prior than N(0, 1), which the rates, norms and betas "
        "here do not know",
        tuple(int(i) for i in np.flatnonzero(broken)),
    )


def _structure(e: Evidence, reasons: list[str], broken: np.ndarray) -> Finding | None:
    """Say which of data, encoder and decoder is at fault, as far as it can be told."""
    strong, strange = _strong(e), _moments_fail(e)
    share = broken.sum() / max(strong.sum(), 1)
    reading = fitting_reading(e)
    if reading is not None and (strange or share > 0.3 or reasons):
        return _misread(e, reading, reasons)
    if 0 < share <= 0.5 and not strange:
        return _few_broken(e, broken, reasons)
    if reasons and strong.any() and share <= 0.3:
        if strange:
            return _other_data(e, reasons, strong, broken)
        return _either_side(e, reasons, broken)
    if share == 0:
        return None if not reasons else _either_side(e, reasons, broken)
    return _strangers(e, reasons, broken, strange=strange)


def _other_data(e: Evidence, reasons: list[str], strong: np.ndarray, broken: np.ndarray) -> Finding:
    known = int(strong.sum() - broken.sum())
    return Finding(
        "data",
        ("data",),
        f"{_join(reasons)}, and {_moment_words(e)}; yet the encoder knows the decoder's own "
        f"samples ({known} of {int(strong.sum())} latents come back): encoder and decoder belong "
        "together and are read alike",
        "the inputs are not what the model was trained on: compare preprocessing (range, "
        "inversion, crop, channel order, normalisation) and the data set itself",
    )


def _either_side(e: Evidence, reasons: list[str], broken: np.ndarray) -> Finding:
    """Bad reconstructions although both sides know each other and the moments hold."""
    better = _better_metrics(e)
    causes: tuple[str, ...] = ("data", "decoder", "mismatch")
    evidence = (
        f"{_join(reasons)}, though the inputs fill the prior and the encoder knows the decoder's "
        "own samples"
    )
    advice = (
        "either the inputs are not the training's (another set, range, normalisation), or the "
        "decoder's last layers are read in another way (output activation, bias, scale)"
    )
    if better:
        under = ", ".join(f"{spec} {e.metrics[spec].ratio:.2g}" for spec in better)
        causes = ("metric", *causes)
        evidence += f"; under other metrics they are better than the mean ({under} times)"
        advice = f"either the metric is {' or '.join(better)}, or {advice.removeprefix('either ')}"
    indices = tuple(int(i) for i in np.flatnonzero(broken))
    return Finding("reconstruction", causes, evidence, advice, indices)


def _better_metrics(e: Evidence) -> list[str]:
    """Other metrics under which reconstructions beat the mean input where ours do not."""
    if e.baseline is None or not e.distortion.value[0] > e.baseline:
        return []
    least = TOLERANCES["other_metric"].value
    better = [spec for spec in _of_other_families(e) if e.metrics[spec].ratio < least]
    near = [spec for spec in _other_metrics(e) if spec in better]
    return near or better


def _strangers(e: Evidence, reasons: list[str], broken: np.ndarray, *, strange: bool) -> Finding:
    """Encoder and decoder do not know each other."""
    shown = _round_trip_words(e, _strong(e))
    causes = ("encoder", "mismatch", "data") if strange else ("mismatch", "decoder", "permuted")
    blame = (
        "the encoder is read in another way (head, activation, normalisation), or encoder and "
        "decoder are of different trainings, or the inputs are not the training's"
        if strange
        else "the inputs are as familiar to the encoder as the training's (its moments hold), so "
        "it is the decoder that is read in another way (activations, batch norm, a layer), or it "
        "belongs to another encoder"
    )
    return Finding(
        "own-samples",
        causes,
        f"{_join([*reasons, shown])}: {blame}",
        "check activations, heads and layer order against the training code ('isoprobe doctor "
        "MODEL --data SPEC' tries readings), and that all weights come from one checkpoint",
        tuple(int(i) for i in np.flatnonzero(broken)),
    )


def _round_trip_words(e: Evidence, strong: np.ndarray) -> str:
    """How the decoder's own samples come back, in words."""
    assert e.round_trip is not None  # noqa: S101 - broken latents need it
    fit = _fit(e)[strong]
    text = (
        "the encoder does not know the decoder's own samples (slopes of mu on z are "
        f"{fit.min():.2f} to {fit.max():.2f} of what they should be)"
    )
    matrix = np.abs(e.round_trip[np.ix_(strong, strong)])
    partner = matrix.argmax(axis=1)
    own = np.arange(len(matrix))
    if len(matrix) > 1 and len(set(partner)) == len(partner) and (partner != own).any():
        clear = matrix[own, partner] > 3 * np.median(matrix)
        if clear.all():
            moved = int((partner != own).sum())
            text += f", and {moved} latents come back as others: they are permuted"
    return text


def _few_broken(e: Evidence, broken: np.ndarray, reasons: list[str]) -> Finding:
    """A few latents whose two sides do not fit, the rest fitting."""
    before = f"{_join(reasons)}; " if reasons else ""
    fit = _fit(e)
    silent = broken & (e.answer.value < TOLERANCES["dead"].value * (1 - e.variance))
    chosen = silent if silent.any() else broken
    which = _numbers(chosen)
    if silent.any():
        return Finding(
            "decoder-dead",
            ("decoder-dead", "mismatch"),
            f"{before}the decoder does not answer to latents {which} (norm "
            f"{_listed(e.answer.value[chosen])}), though the encoder fills them "
            f"(sigma^2 {_listed(e.variance[chosen])})",
            "their decoder weights are lost or zeroed: compare the decoder's first layer with the "
            "original",
            tuple(int(i) for i in np.flatnonzero(chosen)),
        )
    flipped = broken & (fit < 0)
    kind = (
        f"the sign of latents {_numbers(flipped)} is reversed between encoder and decoder"
        if flipped.any()
        else f"the decoder answers to latents {which} {_listed(1 / fit[chosen])} times as the "
        "encoder expects, or they are exchanged"
    )
    return Finding(
        "encoder-mismatched",
        ("mismatch", "scaled", "permuted", "sign", "decoder"),
        f"{before}of the decoder's own samples, latents {which} come back {_listed(fit[chosen])} "
        f"times as strong as they should, all others as they should: {kind}",
        "encoder and decoder do not belong together in these latents: heads permuted, a column "
        "scaled, a decoder layer read in another way, or layers mixed between checkpoints",
        tuple(int(i) for i in np.flatnonzero(chosen)),
    )


def fitting_reading(e: Evidence) -> Reading | None:
    """Find another reading of the posterior that fits where the one in hand does not.

    Args:
        e: the evidence, with trials.

    Returns:
        The best one; None where none is clearly better.
    """
    ours = next((t for t in e.trials if t.name == AS_READ), None)
    best: Reading | None = None
    for trial in e.trials:
        if trial.name == AS_READ or trial.misfit > TOLERANCES["reading"].value:
            continue
        if e.baseline is not None and trial.distortion > 0.98 * e.baseline:
            continue
        if ours is not None and trial.distortion > 1.05 * ours.distortion:
            continue
        better = ours is None or trial.misfit < TOLERANCES["reading_ratio"].value * ours.misfit
        if better and _closer(e, trial, best):
            best = trial
    return best


def _declaring_reading(e: Evidence) -> tuple[Reading, float] | None:
    """A reading that fits as well as the one in hand and shows the declared beta, and that beta."""
    ours = next((t for t in e.trials if t.name == AS_READ), None)
    if ours is None or e.declared is None or e.beta is None:
        return None
    found: list[tuple[float, Reading, float]] = []
    for trial in e.trials:
        # both were tried on the same few rows, so that their ratio is known better than either
        beta = float(e.beta.value[0]) * trial.beta / ours.beta
        off = abs(float(np.log(beta / e.declared)))
        fits = trial.misfit < ours.misfit and trial.distortion <= 1.05 * ours.distortion
        if trial.name != AS_READ and fits and off <= TOLERANCES["beta"].value:
            found.append((off, trial, beta))
    if not found:
        return None
    _, reading, beta = min(found, key=lambda f: f[0])
    return reading, beta


def _closer(e: Evidence, trial: Reading, best: Reading | None) -> bool:
    """Whether a reading is to be preferred to the best so far."""
    if best is None:
        return True

    def cost(reading: Reading) -> float:
        known = 0.0 if e.declared is None else abs(float(np.log(reading.beta / e.declared)))
        return reading.misfit + known

    return cost(trial) < cost(best)


def _misread(e: Evidence, reading: Reading, reasons: list[str]) -> Finding:
    ours = next((t for t in e.trials if t.name == AS_READ), None)
    first = _join(reasons) if reasons else "the posterior as read fits neither decoder nor prior"
    then = f"misfit {reading.misfit:.2g}" + (f" for {ours.misfit:.2g}" if ours else "")
    shown = f"beta {reading.beta:.3g}"
    if e.declared is not None:
        shown += f", {e.declared:.3g} declared"
    causes: tuple[str, ...] = ("scale-head",)
    advice = "the posterior head is misread: declare its form (--option head=..., or the adapter's)"
    if e.fixed_scale:
        causes = ("scale-head", "fixed-scale")
        first += ", and sigma is the same for every row"
        advice = f"either {advice}; or sigma was fixed in training"
    return Finding(
        "scale-head", causes, f"{first}; it fits if {reading.name} ({then}; {shown})", advice
    )


def _head(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Another reading of the head, where anything that rests on the head fails."""
    reading = fitting_reading(e)
    if reading is None:
        return [], []
    words: list[str] = []
    for name in ("residual", "second", "centre"):
        if name != "residual" and (e.spatial or e.own_draws):
            continue
        measured = _deviation(e, name)
        if weigh(name, measured, e.degrees(), samples=e.samples).answer is Answer.FAILS:
            mask = np.zeros_like(e.used)
            mask[e.used] = failing(name, measured, e.degrees())
            words.append(_residual_words(e, mask) if name == "residual" else _moment_words(e))
    return [], [_misread(e, reading, words[:1])] if words else []


# ----- per latent


def _responses(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """sigma against the decoder, latent by latent."""
    if e.beta is None or not e.beta.value[0] > 0:
        return [], [_unresponsive(e)]
    deviation = _deviation(e, "residual")
    condition = weigh("residual", deviation, e.degrees(), samples=e.samples)
    if condition.answer is not Answer.FAILS:
        return [condition], []
    mask = np.zeros_like(e.used)
    mask[e.used] = failing("residual", deviation, e.degrees())
    few = mask.sum() <= e.used.sum() / 2 and mask.sum() < e.used.sum()
    alike = float(np.ptp(e.variance[e.used])) < ALIKE * float(e.variance[e.used].max())
    if e.fixed_scale and (alike or not few):
        return [condition], [_fixed_scale(e, mask)]
    if _reordered(e):
        return [condition], [_exchanged(e, mask)]
    if few:
        return [condition], [_odd(e, mask)]
    return [condition], [_disagreement(e, mask)]


def _residual_words(e: Evidence, mask: np.ndarray) -> str:
    worst = int(np.argmax(np.abs(np.where(mask, e.residual.value, 0))))
    return (
        f"norm + sigma^2 - 1 is off in {int(mask.sum())} of {int(e.used.sum())} used latents, by "
        f"{e.residual.value[worst]:+.2g} (+-{2 * e.residual.se[worst]:.1g}) in latent {worst}"
    )


def _reordered(e: Evidence) -> bool:
    """Whether the decoder calls for the deviations in hand in another order."""
    # at an optimum sigma^2 = 1 / (1 + norm / sigma^2); compared in the order given, and sorted
    given, answer = e.variance[e.used], e.answer.value[e.used]
    if len(given) < 3 or not (answer > 0).all():
        return False
    called = 1 / (1 + answer / given)
    scale = np.exp(
        np.median(
            np.log(np.sort(given) / (1 - np.sort(given)).clip(1e-6))
            - np.log(np.sort(called) / (1 - np.sort(called)))
        )
    )
    called = scale * called / (1 - called + scale * called)
    in_order = np.abs(np.log(called / given)).mean()
    reordered = np.abs(np.log(np.sort(called) / np.sort(given))).mean()
    return bool(in_order > TOLERANCES["order"].value and reordered < in_order / 3)


def _exchanged(e: Evidence, mask: np.ndarray) -> Finding:
    return Finding(
        "encoder-mismatched",
        ("mismatch", "permuted"),
        f"{_residual_words(e, mask)}, but the same deviations in another order fit: scale heads "
        "are exchanged between latents",
        "outputs of the scale head are permuted against those of the mean: compare their order "
        "with the training code",
        tuple(int(i) for i in np.flatnonzero(mask)),
    )


def _odd(e: Evidence, mask: np.ndarray) -> Finding:
    dead = mask & (e.answer.value < TOLERANCES["dead"].value * (1 - e.variance))
    which = _numbers(mask)
    indices = tuple(int(i) for i in np.flatnonzero(mask))
    if dead.sum() == mask.sum() and (e.variance[mask] > TOLERANCES["odd_variance"].value).all():
        return Finding(
            "decoder-dead",
            ("decoder-dead", "mismatch"),
            f"noise in latents {which} does not raise the distortion (norm "
            f"{_listed(e.answer.value[mask])} where {_listed(1 - e.variance[mask])} is called for)",
            "their decoder weights are lost or zeroed: compare the decoder's first layer with the "
            "original",
            indices,
        )
    return Finding(
        "encoder-mismatched",
        ("mismatch", "sigma", "own-beta"),
        f"{_residual_words(e, mask)}: either sigma of latents {which} (sigma^2 "
        f"{_listed(e.variance[mask])}) does not fit the decoder, or these latents were trained "
        "with a weight of their own; the others agree on beta",
        "compare the scale head of these latents with the original; their 1/sigma^2 says nothing "
        "of importance",
        indices,
    )


def _disagreement(e: Evidence, mask: np.ndarray) -> Finding:
    each = e.beta_each.value[e.used]
    data = "" if e.own_draws else ", or the inputs are not the training's"
    known = f" ({e.objective})" if e.objective else ""
    return Finding(
        "disagreement",
        ("objective", "training", "metric", "data"),
        f"the latents disagree about beta ({each.min():.3g} to {each.max():.3g}): "
        f"{_residual_words(e, mask)}",
        f"either the objective was no beta-VAE of metric {e.metric}{known} (capacity, free bits, "
        f"total correlation, another loss), or training had not reached an optimum{data}",
    )


def _unresponsive(e: Evidence) -> Finding:
    return Finding(
        "decoder-dead",
        ("decoder-dead", "mismatch", "data"),
        "noise in the used latents does not raise the distortion (stationary answer "
        f"{_listed(e.answer.value[e.used])}): the decoder does not use them, or decodes "
        "something else",
        "encoder and decoder do not belong together, or the data are not the model's: compare "
        "reconstructions with the inputs",
        tuple(int(i) for i in np.flatnonzero(e.used)),
    )


# ----- moments, gains, axes


def _moments(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Does the data fill the prior: E[mu^2 + sigma^2] = 1 and E[mu] = 0."""
    if e.spatial or e.own_draws:
        return [], []
    second, centre = _deviation(e, "second"), e.centre.at(e.used)
    conditions = [
        weigh("second", second, e.degrees(), samples=e.samples),
        weigh("centre", centre, e.degrees(), samples=e.samples),
    ]
    if all(c.answer is not Answer.FAILS for c in conditions):
        return conditions, []
    alike = _alike(e)
    if alike:
        return conditions, [_other_prior(e)]
    return conditions, [
        Finding(
            "data",
            ("data", "prior", "training"),
            f"{_moment_words(e)}, while {_residual_size(e)}: these inputs do not fill the prior as "
            "the training's did",
            "give the training's data with its preprocessing (set, part, crop, scale, noise); if "
            "these are they, the prior was not N(0, 1) or the scale of the latents had not "
            "converged",
        )
    ]


def _moment_words(e: Evidence) -> str:
    second, centre = e.second.value[e.used], e.centre.value[e.used]
    two, zero = int(np.argmax(np.abs(second - 1))), int(np.argmax(np.abs(centre)))
    numbers = np.flatnonzero(e.used)
    return (
        f"E[mu^2 + sigma^2] is {second.min():.2f} to {second.max():.2f} (1 at an optimum; latent "
        f"{numbers[two]}: +-{2 * e.second.se[numbers[two]]:.1g}), E[mu] up to "
        f"{np.abs(centre).max():.2f} from 0 (latent {numbers[zero]})"
    )


def _alike(e: Evidence) -> bool:
    """Whether all used latents are off in the same way, as another prior would have it."""
    second, centre = e.second.value[e.used], e.centre.value[e.used]
    if len(second) < 2:
        return False
    spread = second - centre**2
    same_width = spread.std() < 0.25 * abs(spread.mean() - 1) and abs(spread.mean() - 1) > 0.3
    same_centre = np.abs(centre).std() < 0.25 * np.abs(centre).mean() and abs(centre.mean()) > 0.5
    return bool(same_width or same_centre)


def _other_prior(e: Evidence) -> Finding:
    second, centre = e.second.value[e.used], e.centre.value[e.used]
    width = float((second - centre**2).mean())
    return Finding(
        "prior",
        ("prior", "data"),
        f"{_moment_words(e)}, alike in all used latents, while {_residual_size(e)}: the codes "
        f"fill N({centre.mean():.2g}, {width:.2g}) rather than N(0, 1)",
        "either the model was trained with another prior, which the rates and norms here do not "
        "know, or these inputs are not the training's",
    )


def _gains(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Is the decoder's response to each latent as strong as it should be."""
    strong = _strong(e) & (1 - e.variance > TOLERANCES["strong_gain"].value)
    gain = e.gain.at(strong)
    if not len(gain.value):
        return [], []
    condition = weigh("gain", gain, e.degrees(), samples=e.samples)
    if condition.answer is not Answer.FAILS:
        return [condition], []
    mask = np.zeros_like(e.used)
    mask[strong] = failing("gain", gain, e.degrees())
    worst = int(np.argmax(np.abs(np.where(mask, e.gain.value, 0))))
    words = (
        f"the decoder's response is off by {e.gain.value[worst]:+.0%} "
        f"(+-{2 * e.gain.se[worst]:.0%}) in latent {worst}, beyond tolerance in "
        f"{int(mask.sum())} of {int(strong.sum())} latents"
    )
    if _turned(e):
        return [condition], [_rotated(e)]
    causes: tuple[str, ...] = ("decoder", "data") if not e.own_draws else ("decoder",)
    advice = "the decoder is read in another way (an activation, batch norm, a layer, a column)"
    others, off = _other_metrics(e), _beta_off(e)
    if others or off:
        causes = (*causes, "metric", "beta")
        named = " or ".join(others)
        advice += f", or the metric is {named}" if others else f", or the metric is not {e.metric}"
        words += "" if not off else f"; {off}"
    reading = _declaring_reading(e) if off else None
    if reading is not None:
        causes = (*causes, "scale-head")
        words += f", {reading[1]:.3g} if {reading[0].name}, which fits no worse"
        advice += ", or the posterior head is misread (--option head=..., or the adapter's)"
    if not e.own_draws:
        advice += ", or the inputs differ from the training's (noise, scale, a part of them)"
    advice += "; held-out rows of a model that knows its training rows by heart read the same"
    return [condition], [
        Finding("decoder", causes, words, f"either {advice}", tuple(map(int, np.flatnonzero(mask))))
    ]


def _uneasy(e: Evidence, *names: str) -> bool:
    """Whether something is off by half of its tolerance: too little to fail, too much to trust."""
    if e.own_draws or e.spatial:
        return False
    for name in names:
        mask = e.used if name != "gain" else _strong(e)
        measured: Measured = getattr(e, name).at(mask)
        value = measured.value - (1.0 if name == "second" else 0.0)
        if np.any(np.abs(value) - 2 * measured.se > TOLERANCES[name].value / 2):
            return True
    return False


def _turned(e: Evidence) -> bool:
    """Whether pairs of latents fail beyond tolerance and both sides know each other."""
    if e.mixing is None or int(e.used.sum()) < 2:
        return False
    return _axes_condition(e).answer is Answer.FAILS


def _axes_condition(e: Evidence) -> Condition:
    """The worse of two conditions on pairs: columns that mix, planes that are turned."""
    strong = _strong(e)
    off = ~np.eye(len(strong), dtype=bool)
    pairs = np.outer(strong, strong) & off
    found = [
        weigh(name, measured.at(chosen), e.degrees(), samples=e.samples)
        for name, measured, chosen in (
            ("mixing", e.mixing, pairs),
            ("turn", e.turn, np.triu(pairs)),
        )
        if measured is not None and chosen.any()
    ]
    failed = [c for c in found if c.answer is Answer.FAILS]
    nothing = Condition("mixing", Answer.HOLDS, 0.0, 0.0, TOLERANCES["mixing"].value)
    return max(failed or found or [nothing], key=lambda c: c.size / c.tolerance)


def _axes(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """Do latents lie along the decoder's axes."""
    if e.mixing is None or e.spatial or int(e.used.sum()) < 2:
        return [], []
    condition = _axes_condition(e)
    if condition.answer is not Answer.FAILS:
        # mixing is evidence against, its absence is not asked for in order to call a model sound
        return [], []
    return [condition], [_rotated(e)]


def _rotated(e: Evidence) -> Finding:
    c = _axes_condition(e)
    off = _beta_off(e)
    if off:
        metrics = " or ".join(_other_metrics(e))
        return Finding(
            "rotated",
            ("rotated", "mismatch", "metric", "beta"),
            f"turning latents into each other would lower the loss under {e.metric} "
            f"({TOLERANCES[c.name].words} are off by {c.size:.2g} +-{c.error:.1g}, as a share of a "
            f"column), and {off}",
            f"either the metric is {metrics or f'not {e.metric}'}, or beta is in other units, and "
            "the latents are turned against the decoder's axes",
        )
    if _uneasy(e, "second", "centre"):
        return Finding(
            "data",
            ("data", "rotated", "mismatch"),
            f"{_moment_words(e)}, and up to {c.size:.2g} (+-{c.error:.1g}) of a decoder column "
            "belongs to another latent",
            "either the inputs are not the training's (axes, channels, another set), or the "
            "latents are turned against the decoder's axes",
        )
    return Finding(
        "rotated",
        ("rotated", "mismatch"),
        f"turning latents into each other would lower the loss ({TOLERANCES[c.name].words} are off "
        f"by {c.size:.2g} +-{c.error:.1g}, as a share of a column): the latents are turned against "
        "the decoder's axes, so importances read off single latents mix",
        "read the eigenvalues of the conditions instead of single importances; if the weights were "
        "edited (rotated, permuted, merged), use the originals",
    )


def _fixed_scale(e: Evidence, mask: np.ndarray) -> Finding:
    """A posterior scale that no row changes, and that does not fit the decoder."""
    return Finding(
        "fixed-scale",
        ("fixed-scale", "objective"),
        "sigma is the same for every row and does not fit the decoder "
        f"({_residual_words(e, mask)}): it was fixed in training, or its head was lost",
        "beta, importance and densities rest on a sigma that was trained; with a fixed one none of "
        "them can be read off",
    )


# ----- beta


def _declared(e: Evidence) -> tuple[list[Condition], list[Finding]]:
    """The declared beta against what the weights show."""
    if e.declared is None or e.beta is None or not e.beta.value[0] > 0:
        return [], []
    ratio = e.beta.value[0] / e.declared
    deviation = Measured.of(np.log(ratio), e.beta.se[0] / e.beta.value[0])
    condition = weigh("beta", deviation, e.degrees(), samples=e.samples)
    if condition.answer is not Answer.FAILS:
        return [condition], []
    shown = (
        f"beta {e.declared:.3g} is declared; under {e.metric} the weights show "
        f"{e.beta.value[0]:.3g} (+-{2 * e.beta.se[0]:.1g}), {ratio:.3g} times as much"
    )
    code, causes = "beta", ["beta"]
    either = [
        f"beta is off by {ratio:.2g} or in other units (a mean for a sum, a factor 0.5; "
        "--beta auto takes what is shown)"
    ]
    metrics = _other_metrics(e)
    if metrics:
        code, causes = "metric", ["metric", "beta"]
        under = ", ".join(f"{spec} {e.metrics[spec].beta:.3g}" for spec in metrics)
        shown += f"; under other metrics they show: {under}"
        use = " or ".join(f"--metric {spec}" for spec in metrics)
        either.append(f"the metric is {' or '.join(metrics)} ({use})")
    reading = _declaring_reading(e)
    if reading is not None:
        code, causes = ("scale-head" if code == "beta" else code), [*causes, "scale-head"]
        shown += f"; {reading[1]:.3g}, and no worse a fit, if {reading[0].name}"
        either.append("the posterior head is misread (--option head=..., or the adapter's)")
    if code == "beta":
        causes += ["metric", "objective"]
        either += [
            "the metric is none of those tried",
            "the objective weighs the KL term in another way (capacity, free bits)",
        ]
    if _uneasy(e, "second", "centre", "gain"):
        causes.append("data")
        shown += f"; {_uneasy_words(e)}"
        either.append("the inputs differ from the training's (noise, scale, a part of them)")
    advice = f"either {', or '.join(either)}: the weights cannot tell these apart"
    return [condition], [Finding(code, tuple(causes), shown, advice)]


def _uneasy_words(e: Evidence) -> str:
    """What is off by more than half of its tolerance, in words."""
    if _uneasy(e, "second", "centre"):
        return _moment_words(e)
    worst = int(np.argmax(np.abs(np.where(_strong(e), e.gain.value, 0))))
    return (
        f"the decoder's response is off by {e.gain.value[worst]:+.0%} "
        f"(+-{2 * e.gain.se[worst]:.0%}) in latent {worst}"
    )


def _beta_off(e: Evidence) -> str:
    """The declared beta beside the recovered one, in words, where they differ by a half."""
    if e.declared is None or e.beta is None or not e.beta.value[0] > 0:
        return ""
    if abs(np.log(e.beta.value[0] / e.declared)) < np.log(1.5):
        return ""
    return f"beta {e.declared:.3g} is declared, {e.beta.value[0]:.3g} shown under {e.metric}"


def _of_other_families(e: Evidence) -> list[str]:
    """Metrics tried that are no scaling of the one in use."""
    ours = e.families.get(e.metric, "")
    return [
        spec
        for spec in e.metrics
        if spec != e.metric and not (ours and e.families.get(spec) == ours)
    ]


def _other_metrics(e: Evidence) -> list[str]:
    """Metrics of other families whose beta lies near the declared one, the nearest first."""
    if e.declared is None:
        return []
    off = {
        spec: abs(float(np.log(e.metrics[spec].beta / e.declared)))
        for spec in _of_other_families(e)
        if e.metrics[spec].beta > 0
    }
    near = [spec for spec in off if off[spec] <= TOLERANCES["beta"].value]
    return sorted(near, key=lambda spec: off[spec])


# ----- remarks and words


def _rarely_used(e: Evidence) -> np.ndarray:
    """Latents that count as idle and yet code single rows."""
    rare: np.ndarray = ~e.used & (e.rate_most - e.rate > TOLERANCES["rare_rate"].value)
    return rare


def _remarks(e: Evidence) -> Iterator[Finding]:
    rare = _rarely_used(e)
    if rare.any():
        yield Finding(
            "rare",
            ("rare",),
            f"latents {_numbers(rare)} count as idle, and yet single rows use them (up to "
            f"{_listed(e.rate_most[rare])} nats in a row, {_listed(e.rate[rare])} on average)",
            "look at those rows (samples/kl): pooled figures and importances leave these latents "
            "out, and fewer than 2,000 rows would not show them",
            tuple(int(i) for i in np.flatnonzero(rare)),
        )
    if e.beta is not None and e.beta_pullback is not None and e.beta.value[0] > 0:
        ratio = float(e.beta_pullback.value[0] / e.beta.value[0])
        high = TOLERANCES["curved"].value
        if ratio > high or ratio < 1 / high:
            yield Finding(
                "curved",
                ("curved",),
                f"beta by the pullback is {ratio:.2f} times beta by stationarity: the decoder "
                "bends within one sigma, or reconstructs far from the inputs",
                "trust the stationary figures; expansions at a point (norms, volumes, cosines) "
                "are rough here",
            )


def _collapsed(e: Evidence) -> Finding:
    idle = e.rate.sum() > TOLERANCES["idle_rate"].value
    causes = ("collapsed", "scale-head", "data")
    told = "the encoder gives the same answer whatever it sees"
    if idle:
        told += f", yet not the prior (sigma^2 {_listed(e.variance)})"
    return Finding(
        "collapsed",
        (*causes, "objective", "idle") if idle else causes,
        f"the rate is {e.rate.sum():.3g} nats over {len(e.used)} latents, and no latent's mean "
        f"moves: {told}",
        "check the preprocessing and the reading of the scale head ('isoprobe doctor MODEL --data "
        "SPEC' tries readings); if those are right, beta was too large for the data's variance "
        "(above 2 Var(y)), or training fell into collapse"
        + (", held off the prior by a capacity or free-bits term" if idle else ""),
    )


def _meaning(e: Evidence, level: Level, conditions: list[Condition]) -> str:
    used, n = int(e.used.sum()), len(e.used)
    said = f"{used} of {n} latents are used"
    if not used:
        return f"None of {n} latents is used."
    if level is Level.NOT_SOUND:
        return f"{said}. What was found comes before any reading of importance or density."
    sizes = f"{_residual_size(e)} in each{_bend(e)}"
    if level is Level.UNDECIDED:
        open_ = [c for c in conditions if c.answer is Answer.CANNOT_TELL]
        needed = max(c.needed for c in open_)
        names = ", ".join(TOLERANCES[c.name].words for c in open_)
        more = f"about {_rounded(needed):,} rows" if needed < 10**8 else "many more rows"
        return f"{said}; {sizes}. {e.samples:,} rows cannot tell about {names}: {more} would."
    return f"{said}; {sizes}.{_isometry(e)}"


def _residual_size(e: Evidence) -> str:
    """How far sigma is from fitting the decoder, in words."""
    size = np.abs(e.residual.value[e.used])
    if not np.isfinite(size).all():
        return "no beta can be read off sigma"
    worst = int(np.argmax(size))
    half = 2 * float(e.residual.se[e.used][worst])
    return (
        f"norm + sigma^2 = 1, the norm by stationarity, holds to within {size[worst]:.0%} "
        f"(+-{half:.0%})"
    )


def _bend(e: Evidence) -> str:
    """What the decoder's derivative at mu gives instead, where it differs by more than errors."""
    if e.beta is None or e.beta_pullback is None:
        return ""
    value, error = (float(np.ravel(part)[0]) for part in (e.beta.value, e.beta.se))
    other, spread = (
        float(np.ravel(part)[0]) for part in (e.beta_pullback.value, e.beta_pullback.se)
    )
    apart = other / value - 1
    half = 2 * float(np.hypot(error, spread)) / value
    if not abs(apart) > max(half, 0.02):
        return ""
    side = "below" if apart < 0 else "above"
    return (
        f"; by the decoder's derivative at mu norms are {abs(apart):.0%} (+-{half:.0%}) {side} "
        "that, as the decoder bends within sigma"
    )


def _isometry(e: Evidence) -> str:
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


def _rounded(count: int) -> int:
    """A count with one leading digit, rounded up."""
    power: int = 10 ** max(len(str(count)) - 1, 0)
    return -(-count // power) * power


def _numbers(mask: np.ndarray) -> str:
    return ", ".join(str(i) for i in np.flatnonzero(mask))


def _listed(values: np.ndarray) -> str:
    shown = ", ".join(f"{value:.2g}" for value in values[:6])
    return shown + (", ..." if len(values) > 6 else "")


def _join(reasons: list[str]) -> str:
    return "; ".join(reasons)


_TRIP = ("variance", "round_trip", "expected_trip")
_MOMENTS = ("second", "centre")
_BETA = ("declared", "beta", "metrics", "metric", "families", "trials")
_GAINS = ("gain", *_TRIP, *_BETA)
_AXES = ("mixing", "turn", *_TRIP, *_MOMENTS, *_BETA)
_RESPONSES = (
    "beta",
    "beta_each",
    "residual",
    "answer",
    "variance",
    "fixed_scale",
    "objective",
    "metric",
)
#: in the order in which they are asked; what is silenced is not asked once something was found
RULES: tuple[Rule, ...] = (
    Rule(
        "structure",
        ("distortion", "baseline", "loss", "answer", "code_fit", *_BETA, *_TRIP, *_MOMENTS),
        False,
        _reconstruction,
    ),
    Rule(
        "head",
        ("trials", "baseline", "residual", "fixed_scale", *_MOMENTS, "declared", "beta"),
        True,
        _head,
    ),
    Rule("moments", (*_MOMENTS, "residual"), True, _moments),
    Rule("responses", _RESPONSES, True, _responses),
    Rule("gains", (*_GAINS, *_AXES), True, _gains),
    Rule("axes", _AXES, True, _axes),
    Rule("declared beta", (*_GAINS, *_MOMENTS), True, _declared),
)


@stated("Verdict")
def used_latents(
    spread: Measured, answer: Measured, *, least: float = 0.01, beyond: float = 3.0
) -> np.ndarray:
    """Find the latents that do something: their means vary, or the decoder answers to them.

    Args:
        spread: Var(mu_j), ``(n,)``.
        answer: the decoder's answer, the stationary norm or 2 sigma_j^2 g_jj / beta, ``(n,)``.
        least: what either must exceed.
        beyond: by how many standard errors.

    Returns:
        ``(n,)`` bool.
    """
    # means that differ plainly between a few rows already are no error of a constant
    moves = (spread.value - beyond * spread.se > least) | (spread.value > PLAINLY * least)
    used: np.ndarray = moves | (answer.value - beyond * answer.se > least)
    return used
