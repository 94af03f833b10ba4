"""Compute equal rows once, with weights in place of repetitions.

Of 1,024 rows of KDDCup99 to train on, 340 differ, so that most of the work on a batch would be done
several times over. What is deterministic stays exactly what it was; rows that share a computation
share its random draws too, which leaves every expectation over draws as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def shared(rows: Tensor, *, merge: bool = True) -> tuple[Tensor, Tensor]:
    """Return row numbers and the share of each: weights of a mean over the rows.

    Args:
        rows: numbers ``(N,)``, equal ones for equal rows.
        merge: give each number once, in ascending order, rather than as often as it is there.

    Returns:
        Numbers and shares, ``(D,)`` each; the shares add up to 1.
    """
    if not merge:
        return rows, torch.full((len(rows),), 1 / max(len(rows), 1), device=rows.device)
    numbers, counts = torch.unique(rows, return_counts=True)
    return numbers, counts.float() / len(rows)


def by_row(score: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Score every row by scoring each different one once.

    Args:
        score: gives ``(D,)`` scores of row numbers ``(D,)``, each by itself.
        rows: numbers ``(N,)``, equal ones for equal rows.

    Returns:
        Scores, ``(N,)``.
    """
    numbers, places = torch.unique(rows, return_inverse=True)
    return score(numbers)[places]
