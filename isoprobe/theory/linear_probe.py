"""Read labels off the latents' means by a linear probe, scored on rows it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.theory.mixtures import standard_error
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from torch import Tensor

#: weight of the data against |w|^2 / 2, as scikit-learn's C
_C = 1e3
_STREAM = 2002_10689


@dataclass(frozen=True)
class ProbeCurve:
    """How well k latents together tell a label, linearly.

    Attributes:
        counts: k of each entry, ``(R,)``.
        accuracy: share of held-out rows told right.
        accuracy_low: lower end of its 95 % Wilson interval.
        accuracy_high: upper end.
        bits: usable bits: held-out cross entropy of the label's shares less the probe's.
        bits_se: its standard error.
        majority: accuracy of always naming the commonest class: the floor.
        tested: held-out rows.
    """

    counts: np.ndarray
    accuracy: np.ndarray
    accuracy_low: np.ndarray
    accuracy_high: np.ndarray
    bits: np.ndarray
    bits_se: np.ndarray
    majority: float
    tested: int


@stated("Labels and factors (beyond)")
def probe_curve(
    mean: np.ndarray,
    codes: np.ndarray,
    order: np.ndarray,
    counts: Sequence[int] | None = None,
    *,
    train: np.ndarray | None = None,
    seed: int = 0,
) -> ProbeCurve:
    """Fit a multinomial logistic regression on the first k latents of ``order``, for several k.

    Args:
        mean: mu, ``(N, n)``; scaled to standard deviation 1 before the fit.
        codes: class of each row, ``(N,)``, from 0.
        order: latents, most informative first.
        counts: k of each fit; all up to 8, then powers of two and n, when None.
        train: rows to fit on, ``(N,)`` bool; a random half when None.
        seed: of that half.

    Returns:
        Accuracy and usable bits (V-information, Xu et al. 2020) on the other rows.
    """
    if train is None:
        shuffled = np.random.default_rng((seed, _STREAM)).permutation(len(mean))
        train = np.zeros(len(mean), dtype=bool)
        train[shuffled[: (len(mean) + 1) // 2]] = True
    counts = default_counts(len(order)) if counts is None else counts
    classes = int(codes.max()) + 1
    seen = np.bincount(codes[train], minlength=classes) + 0.5  # a class the half may lack
    test = codes[~train]
    floor = -np.log2(seen / seen.sum())[test]
    scale = mean[train].std(axis=0)
    scaled = (mean - mean[train].mean(axis=0)) / np.where(scale > 0, scale, 1)
    results = []
    for k in counts:
        predict = fit_logistic(scaled[train][:, order[:k]], codes[train], classes)
        log_odds = predict(scaled[~train][:, order[:k]])
        right = log_odds.argmax(axis=1) == test
        gained = floor + log_odds[np.arange(len(test)), test] / math.log(2)
        low, high = wilson(int(right.sum()), len(test))
        results.append((right.mean(), low, high, gained.mean(), float(standard_error(gained))))
    accuracy, above, below, bits, error = np.array(results).T
    majority = float((test == seen.argmax()).mean())
    return ProbeCurve(np.array(counts), accuracy, above, below, bits, error, majority, len(test))


def default_counts(size: int) -> list[int]:
    """All up to 8, then powers of two, and ``size`` itself."""
    powers = [2**p for p in range(4, size.bit_length())]
    return sorted({*range(1, min(size, 8) + 1), *powers, size})


def fit_logistic(
    features: np.ndarray, codes: np.ndarray, classes: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a multinomial logistic regression with an L2 penalty |w|^2 / 2 against C = 1000.

    Args:
        features: ``(N, k)``, scaled.
        codes: class of each row, ``(N,)``.
        classes: number of classes.

    Returns:
        Features ``(M, k)`` to log probabilities ``(M, C)``.
    """
    import torch
    from torch.nn.functional import cross_entropy

    x, target = torch.from_numpy(np.ascontiguousarray(features)), torch.from_numpy(codes)
    with torch.enable_grad():
        weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=1000,
            tolerance_grad=1e-5,
            tolerance_change=1e-9,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            solver.zero_grad()
            penalty = 0.5 * weight.square().sum() / (_C * len(x))
            value = cross_entropy(x @ weight + bias, target) + penalty
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
    fitted, offset = weight.detach(), bias.detach()

    def predict(rows: np.ndarray) -> np.ndarray:
        logits = torch.from_numpy(np.ascontiguousarray(rows)) @ fitted + offset
        answer: np.ndarray = logits.log_softmax(dim=1).numpy()
        return answer

    return predict


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Confidence interval of a share (Wilson 1927).

    Args:
        hits: successes.
        count: trials, at least one.
        z: quantile of the normal distribution; 95 % by default.

    Returns:
        Its ends, within 0 and 1.
    """
    share = hits / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + (z / count / 2) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)
