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

from isoprobe.theory.judge.answers import (
    CODES,
    LABELS,
    Answer,
    Condition,
    Finding,
    Level,
    Verdict,
    weigh,
)
from isoprobe.theory.judge.betas import worst_moment
from isoprobe.theory.judge.evidence import (
    AS_READ,
    Evidence,
    Measured,
    OtherMetric,
    TriedReading,
    used_latents,
    worst_distortion,
)
from isoprobe.theory.judge.readings import fitting_reading
from isoprobe.theory.judge.rules import RULES, judge

__all__ = [
    "AS_READ",
    "CODES",
    "LABELS",
    "RULES",
    "Answer",
    "Condition",
    "Evidence",
    "Finding",
    "Level",
    "Measured",
    "OtherMetric",
    "TriedReading",
    "Verdict",
    "fitting_reading",
    "judge",
    "used_latents",
    "weigh",
    "worst_distortion",
    "worst_moment",
]
