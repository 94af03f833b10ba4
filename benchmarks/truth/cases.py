"""Make the list of cases: models as they are and deformed, in two halves by a committed rule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.truth import data
from benchmarks.truth.deform import DEFORMATIONS
from benchmarks.truth.losses import LOSSES, OBJECTIVES, logcosh
from benchmarks.truth.native import Metric
from benchmarks.truth.recipes import RECIPES, Recipe, recipe
from benchmarks.truth.subject import Deformation, Subject
from benchmarks.truth.train import MODELS, read_manifest
from isoprobe import VAE, load

SPLIT = Path(__file__).parent / "split.json"
#: added to a triple before it is hashed; the first number with which either half has bce, sse, l1,
#: Gaussian, convolutional, biased and curved models and all data sets but Thyroid; it was taken
#: before any verdict was counted
SALT = "truth 3734"
#: models that each deformation is made on
MODELS_EACH = 3
#: what an objective other than the beta-VAE's may be called
OBJECTIVE_CAUSES = {
    "capacity": {"objective", "beta", "idle"},
    "free-bits": {"objective", "idle"},
    "own-beta": {"objective", "beta"},
    "fixed-sigma": {"objective", "head"},
}


@dataclass(frozen=True)
class Case:
    """Something to be judged.

    Attributes:
        name: of the case.
        model: name of the model.
        group: row of the table of kinds; ``sound`` for a model as it is.
        part: ``train`` or ``test`` rows.
        causes: what may be named, for a fault.
        harmless: "sound" is right as well.
        deformation: made on it, if any.
    """

    name: str
    model: str
    group: str
    part: str = "train"
    causes: frozenset[str] = frozenset()
    harmless: bool = False
    deformation: Deformation | None = None

    @property
    def half(self) -> int:
        """1 or 2."""
        return half(recipe(self.model).triple)


def half(triple: tuple[str, str, str]) -> int:
    """Return the half, 1 or 2, of a (data, architecture, loss)."""
    text = "|".join((SALT, *triple)).encode()
    return 1 + hashlib.sha256(text).digest()[0] % 2


def split() -> dict[str, int]:
    """Return the half of every triple, as the rule gives it."""
    return {"|".join(r.triple): half(r.triple) for r in RECIPES}


def write_split() -> None:
    """Write the list that is committed beside the rule."""
    SPLIT.write_text(json.dumps(split(), indent=1) + "\n")


# --------------------------------------------------------------------------- the list


def cases() -> list[Case]:
    """Return every case, whether its model and data are here or not."""
    found = []
    for r in RECIPES:
        if r.kind in {"sound", "biased"}:
            found += [Case(f"{r.name} on {part}", r.name, r.kind, part) for part in _PARTS]
        elif r.kind == "snapshot":
            found.append(Case(r.name, r.name, "training", causes=frozenset({"training"})))
        elif r.kind == "curved":
            curved = frozenset({"curved"})
            found.append(Case(r.name, r.name, "curved", causes=curved, harmless=True))
        elif r.kind == "objective":
            named = frozenset(OBJECTIVE_CAUSES.get(r.objective, {"objective"}))
            found.append(Case(r.name, r.name, "other objectives", causes=named))
    entries = read_manifest()
    for deformation in DEFORMATIONS:
        for model in models_of(deformation, entries):
            found.append(
                Case(
                    f"{deformation.name} on {model}",
                    model,
                    deformation.group,
                    causes=deformation.causes,
                    harmless=deformation.harmless,
                    deformation=deformation,
                )
            )
    return found


_PARTS = ("train", "test")


def models_of(deformation: Deformation, entries: dict[str, dict[str, Any]]) -> list[str]:
    """Choose the models that a deformation is made on.

    In the order of a hash, one of each half first, other data before data seen; nothing that is
    chosen depends on a verdict.

    Args:
        deformation: to be made.
        entries: of the manifest, by name.

    Returns:
        At most three names.
    """
    if deformation.models:
        return [name for name in deformation.models if name in entries]
    able = [
        r
        for r in RECIPES
        if r.kind == "sound" and r.name in entries and deformation.fits(r, entries[r.name])
    ]
    able.sort(key=lambda r: hashlib.sha256(f"{deformation.name}|{r.name}".encode()).digest())
    chosen: list[Recipe] = []
    while able and len(chosen) < MODELS_EACH:
        best = min(able, key=lambda r: (_seen_half(r, chosen), _seen_data(r, chosen)))
        chosen.append(best)
        able.remove(best)
    return [r.name for r in chosen]


def _seen_half(r: Recipe, chosen: Iterable[Recipe]) -> int:
    return sum(half(r.triple) == half(c.triple) for c in chosen)


def _seen_data(r: Recipe, chosen: Iterable[Recipe]) -> int:
    return sum(r.data == c.data for c in chosen)


# --------------------------------------------------------------------------- one case, ready


class LogCosh(Metric):
    """D = sum_i log cosh(x_i - x_hat_i): a metric that isoprobe does not bring."""

    name = "logcosh"
    summary = "log cosh of the error summed over inputs"
    reference = "a plugin of the bench"

    def distortion(self, x: Any, x_hat: Any) -> Any:
        """D of each sample, ``(B,)``."""
        return logcosh(x, x_hat)


def ready(case: Case) -> Subject:
    """Load a case's model and rows and deform them.

    Args:
        case: to be judged.

    Returns:
        Model, rows, and what is declared.

    Raises:
        MissingDataError: where its rows or its weights are not on this machine.
    """
    r = recipe(case.model)
    vae = _loaded(r.name)
    entry = read_manifest()[r.name]
    rows = data.rows(r.data)
    chosen = rows.train[: r.rows] if case.part == "train" else rows.test
    if case.group == "training" and r.rows:
        chosen = rows.train[r.rows :]  # trained on a few, read on others
    subject = Subject(vae, chosen, entry["metric"], r.beta, entry, r, _loaded)
    return case.deformation.change(subject) if case.deformation else subject


def _loaded(name: str) -> VAE:
    path = MODELS / f"{name}.safetensors"
    if not path.is_file():
        raise data.MissingDataError(f"{name} is not trained; python -m benchmarks.truth.train")
    return load(path)


def declared(subject: Subject) -> tuple[VAE, dict[str, Any]]:
    """Declare metric and beta, in the model's facts or, for a plugin's metric, to the call.

    Args:
        subject: as :func:`ready` gives it.

    Returns:
        The model, and more arguments for ``isoprobe.analyze``.
    """
    if subject.metric == LogCosh.name:
        return subject.vae, {"metric": LogCosh(), "beta": subject.beta}
    facts = replace(subject.vae.facts, metric=subject.metric, beta=subject.beta)
    return replace(subject.vae, facts=facts), {}


def check() -> None:
    """Raise ValueError when a recipe names a loss or objective that does not exist."""
    for r in RECIPES:
        if r.loss not in LOSSES or r.objective not in OBJECTIVES:
            raise ValueError(f"{r.name}: no such loss {r.loss} or objective {r.objective}")
