"""Measure what each latent tells of labels or factors, in bits, with intervals.

I(v; z_j) = sum_c p_c KL(q_jc || q_j), where q_jc mixes the posteriors of class c on the grid of
:mod:`isoprobe.theory.mixtures`: the code as the decoder sees it, with its noise. The plug-in value
lies above the truth, the same with every row's own posterior left out below it; both are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from isoprobe.theory.mixtures import Mixture, log_where_positive, mixture, standard_error
from isoprobe.theory.stated import stated

#: classes a continuous factor is cut into, at its quantiles
QUANTILES = 10
#: distinct numbers beyond which a factor counts as continuous
MOST_CLASSES = 100
#: bits by its lower bound from which a latent is informative
INFORMATIVE_BITS = 0.05
#: shares of the prior in the left-out posterior; plain leave-one-out diverges on narrow codes
_PRIOR_SHARES = (0.001, 0.01, 0.1)
_PERMUTATIONS = 5
_STREAM = 2305_18378


@dataclass(frozen=True)
class Factor:
    """What is known of every row besides x: a label or a factor of variation.

    Attributes:
        name: of the column.
        codes: class of each row, ``(N,)``, from 0.
        classes: number of classes.
        quantiles: True where a continuous factor was cut into classes, which loses some bits.
    """

    name: str
    codes: np.ndarray
    classes: int
    quantiles: bool = False

    @property
    def shares(self) -> np.ndarray:
        """p_c of these rows, ``(C,)``."""
        return np.bincount(self.codes, minlength=self.classes) / len(self.codes)

    @property
    def entropy(self) -> float:
        """H(v) in bits."""
        shares = self.shares[self.shares > 0]
        return float(-(shares * np.log2(shares)).sum())


@stated("Labels and factors (beyond)")
def factor(values: np.ndarray, name: str = "label") -> Factor:
    """Read a column as classes.

    Args:
        values: of each row, ``(N,)``, numbers or words. Fractions of more than ten distinct
            values, and more than a hundred distinct numbers, are cut at their ten-quantiles.
        name: of the column.

    Returns:
        The classes in the order of their values.

    Raises:
        ValueError: when a value is missing (not a number).
    """
    values = np.asarray(values)
    number = values.dtype.kind in "iuf"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"factor '{name}' has values that are not finite")
    distinct, codes = np.unique(values, return_inverse=True)
    whole = values.dtype.kind != "f" or bool((distinct == np.round(distinct)).all())
    if number and len(distinct) > (MOST_CLASSES if whole else QUANTILES):
        edges = np.quantile(values, np.arange(1, QUANTILES) / QUANTILES)
        cut = np.searchsorted(np.unique(edges), values, side="right")
        return Factor(name, np.unique(cut, return_inverse=True)[1], len(np.unique(cut)), True)
    return Factor(name, codes, len(distinct))


@dataclass(frozen=True)
class LatentInformation:
    """I(v_k; z_j) of K factors and n latents, in bits.

    Attributes:
        bits: middle of the two estimates, ``(K, n)``.
        plug_in: from all rows, at or above the truth on average.
        lower: own row left out, at or below it.
        low: two standard errors below ``lower``.
        high: two standard errors above ``plug_in``.
        permuted: the plug-in with labels shuffled, mean of five: what chance gives.
        gap: (largest - second) / H(v_k), ``(K,)``; NaN for one latent or one class.
        gap_se: its standard error, from differences row by row.
        first: latent that tells most, ``(K,)``.
        second: the next; -1 for a single latent.
        widened: rows of each latent too narrow for the grid, ``(n,)``.
    """

    bits: np.ndarray
    plug_in: np.ndarray
    lower: np.ndarray
    low: np.ndarray
    high: np.ndarray
    permuted: np.ndarray
    gap: np.ndarray
    gap_se: np.ndarray
    first: np.ndarray
    second: np.ndarray
    widened: np.ndarray

    @property
    def informative(self) -> np.ndarray:
        """Whether a latent tells of any factor more than 0.05 bits for sure, ``(n,)``."""
        clear: np.ndarray = np.max(self.lower, axis=0) > INFORMATIVE_BITS
        return clear

    @property
    def modularity(self) -> np.ndarray:
        """Whether a latent tells of one factor only, ``(n,)``: 1 of one, 0 of all alike.

        (max_k I / sum_k I - 1/K) / (1 - 1/K) (Hsu et al. 2023); NaN where the latent is not
        informative, and everywhere for a single factor.
        """
        count, size = self.bits.shape
        if count < 2:
            return np.full(size, np.nan)
        bits = self.bits.clip(0)
        total = np.where(self.informative, bits.sum(axis=0), np.nan)
        ratio: np.ndarray = (bits.max(axis=0) / total - 1 / count) / (1 - 1 / count)
        return ratio


@dataclass
class _Leaders:
    """The two latents that tell most of one factor, with their row values."""

    found: list[tuple[float, int, np.ndarray]] = field(default_factory=list)

    def offer(self, bits: float, latent: int, rows: np.ndarray) -> None:
        self.found.append((bits, latent, rows))
        self.found.sort(key=lambda entry: (-entry[0], entry[1]))
        del self.found[2:]

    def gap(self) -> tuple[float, float]:
        if len(self.found) < 2:
            return np.nan, np.nan
        rows = self.found[0][2] - self.found[1][2]
        return float(rows.mean()), float(standard_error(rows))


@stated("Labels and factors (beyond)")
def latent_information(
    mean: np.ndarray, std: np.ndarray, factors: Sequence[Factor], seed: int = 0
) -> LatentInformation:
    """Measure I(v_k; z_j) for every factor and latent.

    Args:
        mean: mu, ``(N, n)``.
        std: sigma, ``(N, n)``, positive.
        factors: K factors of the same rows.
        seed: of the shuffled labels.

    Returns:
        The matrix with its bounds, and the gap of each factor.
    """
    generator = np.random.default_rng((seed, _STREAM))
    shuffles = [generator.permutation(len(mean)) for _ in range(_PERMUTATIONS)]
    real = np.concatenate([_indicators(one) for one in factors], axis=1)
    weights = np.concatenate([real, *(real[order] for order in shuffles)], axis=1)
    size = mean.shape[1]
    table = {name: np.zeros((len(factors), size)) for name in ("plug_in", "lower", "low", "high")}
    bits, permuted = np.zeros_like(table["low"]), np.zeros_like(table["low"])
    leaders = [_Leaders() for _ in factors]
    widened = np.zeros(size, dtype=np.int64)
    for j in range(size):
        code = mixture(mean[:, j], std[:, j])
        widened[j] = code.widened
        sums = np.split(code.mixed(weights), 1 + _PERMUTATIONS)
        for k, (one, part) in enumerate(_parts(factors)):
            above = _row_values(code, one, sums[0][part])
            below = _left_out_values(code, one, sums[0][part])
            bits[k, j] = 0.5 * (above.mean() + below.mean())
            table["plug_in"][k, j], table["lower"][k, j] = above.mean(), below.mean()
            table["low"][k, j] = below.mean() - 2 * standard_error(below)
            table["high"][k, j] = above.mean() + 2 * standard_error(above)
            permuted[k, j] = np.mean([_divergence(code, one, other[part]) for other in sums[1:]])
            leaders[k].offer(float(bits[k, j]), j, 0.5 * (above + below))
    entropy = np.array([one.entropy or np.nan for one in factors])
    gaps = np.array([best.gap() for best in leaders]) / entropy[:, None]
    ranked = np.array([[entry[1] for entry in best.found] + [-1] for best in leaders])
    return LatentInformation(
        bits=bits, permuted=permuted, gap=gaps[:, 0], gap_se=gaps[:, 1],
        first=ranked[:, 0], second=ranked[:, 1], widened=widened, **table,
    )  # fmt: skip


def _indicators(one: Factor) -> np.ndarray:
    indicators: np.ndarray = one.codes[:, None] == np.arange(one.classes)
    return indicators


def _parts(factors: Sequence[Factor]) -> Iterator[tuple[Factor, slice]]:
    """Where the classes of each factor lie among the stacked indicators.

    Yields:
        The factor and its slice.
    """
    start = 0
    for one in factors:
        yield one, slice(start, start + one.classes)
        start += one.classes


def _log_ratios(one: Factor, sums: np.ndarray) -> np.ndarray:
    """log2 q_jc / q_j on the grid, ``(C, G)``."""
    counts = np.bincount(one.codes, minlength=one.classes)[:, None]
    density, total = sums / counts.clip(1), sums.sum(axis=0) / counts.sum()
    ratios: np.ndarray = (log_where_positive(density) - log_where_positive(total)) / np.log(2)
    return ratios


def _divergence(code: Mixture, one: Factor, sums: np.ndarray) -> float:
    """sum_c p_c KL(q_jc || q_j) on the grid, bits."""
    return float(code.step * (sums * _log_ratios(one, sums)).sum() / len(code.mean))


def _row_values(code: Mixture, one: Factor, sums: np.ndarray) -> np.ndarray:
    """int q_n log2(q_jc / q_j) dz of each row n of class c, ``(N,)``."""
    ratios = _log_ratios(one, sums)
    values: np.ndarray = code.expected(ratios)[np.arange(len(one.codes)), one.codes]
    return values


def _left_out_values(code: Mixture, one: Factor, sums: np.ndarray) -> np.ndarray:
    """Row values with p(c | z) from the other rows.

    Returns:
        ``(N,)``, a lower bound on average, as any guess of c from z gives one (Barber and Agakov
        2003); the others' posterior is mixed with e p_c, and the e that serves best is taken.
    """
    share = one.shares[one.codes]
    values = np.zeros((len(share), len(_PRIOR_SHARES) + 1))  # the last with the prior alone
    total = sums.sum(axis=0)
    for rows, window, density in code.windows():
        everyone, prior = total[window], share[rows, None]
        others = everyone - density
        same = sums[one.codes[rows], window] - density
        # where the row stands alone the difference is rounding, and the others say nothing
        known = others > 1e-9 * everyone
        guess = np.divide(same, others, out=np.broadcast_to(prior, same.shape).copy(), where=known)
        guess /= prior
        for column, e in enumerate(_PRIOR_SHARES):
            values[rows, column] = code.step * (density * np.log2((1 - e) * guess + e)).sum(axis=1)
    return values[:, int(values.mean(axis=0).argmax())]
