"""Find what a conditional model is told of each row: labels, a second set of rows, or one value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import DataError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Conditional, Dataset

_NUMBERS = re.compile(r"[-+0-9.eE]+(,[-+0-9.eE]+)*")


def value_of(text: str) -> list[float] | None:
    """Return the numbers that ``3`` or ``0.5,1`` are; None for anything else, such as a path."""
    if not _NUMBERS.fullmatch(text):
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def held_at(vae: VAE, values: list[float]) -> VAE:
    """Return a model with one condition for all rows.

    Args:
        vae: the model.
        values: of the columns of the condition.

    Raises:
        OptionError: when it takes none, or not these.
    """
    import torch

    if vae.conditional is None:
        raise OptionError(f"{vae.name} takes no condition; leave --condition out")
    try:
        c = vae.conditional.checked(torch.tensor([values], dtype=torch.float64))
    except DataError as error:
        raise OptionError(f"--condition: {error}") from error
    return vae.held(c[0])


@dataclass(frozen=True)
class Told:
    """Where the condition of a row comes from.

    Attributes:
        conditional: what the model takes.
        data: rows that it stands in; None for the labels of the data, or the model's own.
        labelled: it is the label.
        note: the same in a sentence.
    """

    conditional: Conditional
    data: Dataset | None
    labelled: bool
    note: str

    def at(self, rows: np.ndarray, labels: np.ndarray | None) -> Tensor | None:
        """Conditions of rows by their numbers, ``(B, k)``; None where the model finds them."""
        import torch

        if self.data is None and not self.labelled:
            return None
        place = np.argsort(rows)
        found = labels
        if self.data is not None:
            found = self.data.read(rows[place])[np.argsort(place)]
        values = self._numbered(np.asarray(found))
        if values.dtype.kind not in "biuf":
            raise DataError(
                f"the model is told {self.conditional.wanted} of each sample; found texts such as "
                f"{str(values.ravel()[0])!r}: give numbers with --condition SPEC"
            )
        return self.conditional.checked(torch.from_numpy(values.astype(np.float64)), rows)

    def _numbered(self, values: np.ndarray) -> np.ndarray:
        """Names of classes as their numbers, where the model has names for them."""
        names = self.conditional.names
        if values.dtype.kind not in "UO" or len(names) != 1:
            return values
        numbers = {name: number for number, name in enumerate(names[0])}
        texts = [str(value) for value in values.reshape(-1)]
        unknown = next((text for text in texts if text not in numbers), None)
        if unknown is not None:
            raise DataError(
                f"the model is told {self.conditional.words} and knows "
                f"{', '.join(names[0][:8])}; found {unknown!r}"
            )
        return np.array([numbers[text] for text in texts])


def told(vae: VAE, dataset: Dataset, conditions: Dataset | None, *, labelled: bool) -> Told | None:
    """Settle where conditions come from.

    Args:
        vae: the model.
        dataset: the rows.
        conditions: named for it; as many rows.
        labelled: the data have labels.

    Returns:
        The source; None for a model without conditions.

    Raises:
        DataError: when there is none, or not of as many rows.
    """
    conditional = vae.conditional
    if conditional is None:
        return None
    if conditions is not None:
        if len(conditions) != len(dataset):
            raise DataError(
                f"{conditions.name} has {len(conditions):,} conditions and {dataset.name} "
                f"{len(dataset):,} rows; expected one for each"
            )
        words = f"told {conditional.words} of each row from {conditions.name}"
        return Told(conditional, conditions, labelled=False, note=words)
    if conditional.infer is not None:
        words = f"told {conditional.words} of each row, which the model finds itself"
        return Told(conditional, None, labelled=False, note=words)
    if labelled:
        words = f"told {conditional.words} of each row: the label"
        return Told(conditional, None, labelled=True, note=words)
    raise DataError(
        f"{vae.name} is told {conditional.wanted} of each sample, and {dataset.name} has no "
        "labels: name them (FILE.npz:x,y), or give --condition SPEC of as many rows, or "
        "--condition VALUE for all"
    )
