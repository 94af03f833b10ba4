"""Makes the evidence of a sound model, which tests change in one place at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from isoprobe.theory.judge import Evidence, Measured, OtherMetric

N = 3


def latents(value: float, se: float = 0.005, n: int = N) -> Measured:
    return Measured.of(np.full(n, value), se)


def sound(variance: Sequence[float] = (0.05, 0.1, 0.2), **changes: object) -> Evidence:
    """Everything as it should be, in as many latents as there are variances."""
    given, n = np.asarray(variance, dtype=float), len(variance)
    evidence = Evidence(
        samples=2000,
        own_draws=False,
        used=np.ones(n, dtype=bool),
        mixed=np.zeros(n, dtype=bool),
        spatial=False,
        rate=np.full(n, 2.0),
        rate_most=np.full(n, 6.0),
        variance=given,
        fixed_scale=False,
        beta=Measured.of(1.0, 0.005),
        beta_each=latents(1.0, n=n),
        beta_pullback=Measured.of(1.0, 0.005),
        declared=1.0,
        residual=latents(0.01, n=n),
        answer=Measured.of(1 - given, 0.005),
        gain=latents(0.01, n=n),
        second=latents(1.02, n=n),
        centre=latents(0.02, n=n),
        mixing=Measured.of(np.zeros((n, n)), 0.002),
        turn=Measured.of(np.zeros((n, n)), 0.002),
        round_trip=np.diag(1 - given),
        expected_trip=1 - given,
        eigenvalues=Measured.of(1 - given, 0.005),
        isometric=1 - given,
        distortion=Measured.of(10.0, 0.1),
        baseline=40.0,
        loss=Measured.of(16.0, 0.1),
        metric="sse",
        families={"sse": "square", "gaussian": "square", "l1": "", "bce": ""},
    )
    return replace(evidence, **changes)


def exact(*values: float) -> Measured:
    """Values without an error, for the two sides of a threshold."""
    return Measured.of(values)


def which(*latents_: int, n: int = N) -> np.ndarray:
    """The mask of some latents."""
    return np.isin(np.arange(n), latents_)


def others(**betas: float) -> dict[str, OtherMetric]:
    return {spec: OtherMetric(beta) for spec, beta in betas.items()}
