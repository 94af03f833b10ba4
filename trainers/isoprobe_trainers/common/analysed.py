"""Write a checkpoint's result file once, and open it as long as it is of that checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import isoprobe
from isoprobe.results.reader import Result

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def analysed(
    checkpoint: Path,
    path: Path,
    analyses: Sequence[str],
    *,
    data: str | None = None,
    samples: int | None = None,
    device: str = "cpu",
) -> Result:
    """Analyse a checkpoint as ``isoprobe analyze`` does, or open the result of an earlier time.

    Args:
        checkpoint: native checkpoint.
        path: result file to write, or to open where it is of this checkpoint and data.
        analyses: analysis specs.
        data: data spec; None for the checkpoint's own training data.
        samples: at most this many; None for all.
        device: where to compute.

    Returns:
        The result, open.
    """
    if path.exists():
        result = Result.open(path)
        same = isoprobe.load(checkpoint).sha256 == result.attrs["model_sha256"]
        there = all(spec.partition(":")[0] in result for spec in analyses)
        if same and there and data in {None, result.attrs["data"]}:
            return result
        result.close()
    return isoprobe.analyze(
        checkpoint,
        data=data,
        analyses=tuple(analyses),
        samples=samples,
        device=device,
        expectation="two-point",  # as the paper's tables are made (A.6)
        out=path,
        overwrite=True,
    )
