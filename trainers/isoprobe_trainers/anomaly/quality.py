"""Judge one method on one split: its figures, and the rows they become in Tables 3 and 6."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import isoprobe
from isoprobe.errors import ResultError
from isoprobe.theory.detection import auroc, average_precision, detect, upper_threshold
from isoprobe_trainers.anomaly.source import data_spec
from isoprobe_trainers.common.paper import printed
from isoprobe_trainers.common.training import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoprobe.contracts import Variable
    from isoprobe_trainers.anomaly.recipes import Recipe

_RULE = "contamination"


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a method finds on the test rows of one split.

    Attributes:
        precision: share of the flagged rows that are anomalies.
        recall: share of the anomalies that are flagged.
        f1: harmonic mean of the two.
        auroc: area under the ROC curve.
        average_precision: average precision.
        prevalence: share of the test rows that are anomalies.
        flagged: rows above the threshold.
        ties: rows at the threshold, which are not flagged.
    """

    precision: float
    recall: float
    f1: float
    auroc: float
    average_precision: float
    prevalence: float
    flagged: int
    ties: int


class CitedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row the paper prints: mean and deviation of each figure, None for one it has not."""

    data: str
    method: str
    precision: tuple[float, float | None]
    recall: tuple[float, float | None]
    f1: tuple[float, float | None]


@lru_cache(maxsize=1)
def cited_rows() -> tuple[CitedRow, ...]:
    """Every row of Table 6, which holds those of Table 3."""
    return printed("anomaly_numbers.json", CitedRow)


def quality(scores: np.ndarray, anomalous: np.ndarray, contamination: float) -> Quality:
    """Judge scores, the threshold being at a share of all rows.

    Args:
        scores: of the test rows, ``(N,)``.
        anomalous: which of them are anomalies, ``(N,)`` bool.
        contamination: at most this share lies above the threshold.

    Returns:
        The figures.
    """
    found = detect(scores, anomalous, upper_threshold(np.sort(scores), contamination))
    return Quality(
        precision=found.precision,
        recall=found.recall,
        f1=found.f1,
        auroc=auroc(scores, anomalous),
        average_precision=average_precision(scores, anomalous),
        prevalence=float(anomalous.mean()),
        flagged=found.flagged,
        ties=found.ties,
    )


def model_quality(
    checkpoint: Path, recipe: Recipe, seed: int, out: Path | None = None
) -> tuple[Quality, Quality]:
    """Analyse a checkpoint on the test rows of its split, as ``isoprobe analyze`` does.

    Args:
        checkpoint: native checkpoint.
        recipe: of its data set.
        seed: of its split.
        out: result file to write; None for one that is not kept.

    Returns:
        Figures of the trained model, and of the same network with parameters drawn anew.
    """
    with isoprobe.analyze(
        checkpoint,
        data=data_spec(recipe.name, seed, "test"),
        analyses=[f"anomaly:contamination={recipe.contamination}"],
        samples=None,
        device="cpu",
        out=out,
        overwrite=True,
    ) as result:
        group = result["anomaly"]
        return _figures(group, ""), _figures(group, "untrained_")


def _figures(group: Mapping[str, Variable], prefix: str) -> Quality:
    rule = [str(name) for name in group["rule"].values].index(_RULE)

    def figure(name: str) -> Any:
        values = np.asarray(group[name if name == "prevalence" else prefix + name].values)
        return (values[rule] if values.ndim else values).item()

    return Quality(**{name: figure(name) for name in Quality.__struct_fields__})


# --------------------------------------------------------------------------- kept figures


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Figures in a file, with what they depend on.

    Attributes:
        settings: of the method.
        quality: the figures.
    """

    settings: dict[str, Any]
    quality: Quality


def read_kept(path: Path, settings: Mapping[str, Any]) -> Quality | None:
    """Return figures kept for the same settings, or None.

    Raises:
        ResultError: when the file is damaged.
    """
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ResultError(f"{path} is damaged ({error}); remove it") from error
    return kept.quality if kept.settings == _plain(settings) else None


def keep(path: Path, settings: Mapping[str, Any], found: Quality) -> None:
    """Write figures, whole or not at all."""
    with whole(path) as partial:
        partial.write_bytes(msgspec.json.encode(Kept(_plain(settings), found)))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dict(settings)))
    return plain
