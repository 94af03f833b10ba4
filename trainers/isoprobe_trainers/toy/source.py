"""Open ``toy/mix``, ``toy/ramp``, ``toy/norm`` with exact densities beside the rows."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from isoprobe.contracts import Dataset, DataSource
from isoprobe.errors import DataError, nearest
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct, parse_spec
from isoprobe_trainers.toy.data import PAPER_VARIANCES, ToyRecipe, generate

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import VAE
    from isoprobe_trainers.toy.data import ToyData

KINDS = ("mix", "ramp", "norm")
_PAPER = "1/6+2/3+8/3"


class ToyDataset(Dataset):
    """Toy data as the engine reads it."""

    dtype = "float32"

    def __init__(self, data: ToyData) -> None:
        self.data = data
        self.name = data.recipe.spec()
        self.shape = (data.recipe.dim,)

    def __len__(self) -> int:
        return self.data.recipe.samples

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows, ``(len(indices), m)`` float32."""
        rows: np.ndarray = self.data.x[indices]
        return rows

    def log_density(self, indices: np.ndarray) -> np.ndarray:
        """Exact log p(x) of the rows on the plane of the data, ``(len(indices),)`` in nats."""
        return self.data.log_density(self.data.sources[indices])

    def fingerprint(self) -> str:
        """The recipe, which determines every bit."""
        return self.name


class ToySource(DataSource):
    """Opens ``toy/KIND[:seed=0,samples=50000,dim=16,variances=1/6+2/3+8/3,draw=0]``."""

    name = "toy"
    summary = "toy/mix, toy/ramp, toy/norm: the paper's toy data (Section 5.1, Appendix D.2)"

    def matches(self, spec: str) -> bool:
        """Return True for anything that begins with ``toy/``."""
        return spec.startswith("toy/")

    def open(self, spec: str, vae: VAE | None = None) -> ToyDataset:
        """Draw the data; nothing is read from disk."""
        return ToyDataset(generate(parse(spec)))


@dataclass(frozen=True)
class _Options:
    seed: int = 0
    samples: int = 50_000
    dim: int = 16
    draw: int = 0
    variances: str = _PAPER


def parse(spec: str) -> ToyRecipe:
    """Read a spec such as ``toy/mix:seed=3,samples=1000``.

    Args:
        spec: the text.

    Returns:
        The recipe it stands for.

    Raises:
        DataError: for an unknown set or a value out of range.
    """
    name, options = parse_spec(spec)
    kind = name.removeprefix("toy/")
    if kind not in KINDS:
        close = nearest(kind, list(KINDS))
        raise DataError(f"toy data is toy/mix, toy/ramp or toy/norm, not '{name}'{close}")

    chosen = construct(_Options, options, f"data '{name}'")
    given = chosen.variances
    variances = PAPER_VARIANCES if given == _PAPER else _variances(given)
    made = ToyRecipe(kind, chosen.seed, chosen.samples, chosen.dim, variances, chosen.draw)
    _check(made)
    return made


def _check(recipe: ToyRecipe) -> None:
    for name, least in (("seed", 0), ("samples", 1), ("draw", 0), ("dim", len(recipe.variances))):
        if getattr(recipe, name) < least:
            raise DataError(
                f"toy data needs {name} of at least {least} for {len(recipe.variances)} sources; "
                f"found {getattr(recipe, name)}"
            )


def _variances(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(Fraction(part)) for part in text.split("+"))
    except (ValueError, ZeroDivisionError):
        values = ()
    if not values or min(values) <= 0:
        raise DataError(
            f"toy data takes variances as positive numbers joined by +, such as 1/6+2/3+8/3; "
            f"found '{text}'"
        )
    return values


@hookimpl
def isoprobe_data_sources() -> list[type[DataSource]]:
    """The toy data."""
    return [ToySource]
