"""Turn opened data into batches that fit a model, checked row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.data.fitting import Fit, Limit, Range, fit_shape, fit_values, resized_shape
from isoprobe.data.order import Order, Rest, round_numbers
from isoprobe.data.told import Told, told
from isoprobe.errors import DataError, OptionError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from isoprobe.contracts import VAE, Dataset, Metric


@dataclass(frozen=True)
class Prepared:
    """Samples of a data set as the model takes them, read batch by batch.

    Attributes:
        dataset: the data as stored.
        samples: number of samples used, N.
        fits: what is done to each sample, in order.
        limits: values that model and metric accept.
        notes: what was done, a sentence each.
        labelled: whether rows have labels.
        source: of what the model is told of each row, if it is told anything.
        beyond: samples that are left out, those of a shorter run: this is what it did not take.
    """

    dataset: Dataset
    samples: int
    fits: tuple[Fit, ...]
    limits: tuple[Limit, ...]
    notes: list[str]
    labelled: bool
    source: Told | None = None
    beyond: int = 0

    @property
    def name(self) -> str:
        """Name of the data set, for summaries."""
        return self.dataset.name

    @cached_property
    def fingerprint(self) -> str:
        """Short text that changes when the data does."""
        return self.dataset.fingerprint()

    @property
    def told(self) -> dict[str, str]:
        """What a result records of the conditions; nothing where there are none."""
        if self.source is None:
            return {}
        data = self.source.data
        mark = {} if data is None else {"conditions_fingerprint": data.fingerprint()}
        return {"conditions": self.source.note, **mark}

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Row numbers in the data set of samples start to stop, ``(stop - start,)`` int64."""
        return self.order.at(start, stop)

    @cached_property
    def order(self) -> Order | Rest:
        """Which row each sample is."""
        if self.beyond:
            return Rest(len(self.dataset), self.beyond, self.samples)
        return Order(len(self.dataset), self.samples)

    def spread(self, count: int) -> list[range]:
        """Positions of about ``count`` samples spread over the data, in short runs.

        Files read runs faster than rows. Of a run that a longer one may extend these are the same
        whatever its length.

        Returns:
            Ranges of positions, in order.
        """
        within = self.samples if self.order.whole else min(self.samples, next(round_numbers()))
        wanted = min(within, count)
        runs = max(wanted // 256, 1)
        starts = np.unique(np.arange(runs) * within // runs).tolist()
        return [range(a, min(a + math.ceil(wanted / runs), within)) for a in starts]

    def batch(
        self, start: int, stop: int, device: torch.device | str, dtype: torch.dtype
    ) -> tuple[Tensor, np.ndarray | None]:
        """Read samples start to stop.

        Args:
            start: first sample.
            stop: one past the last sample.
            device: where the inputs go.
            dtype: floating type of the inputs.

        Returns:
            Inputs ``(stop - start, *input_shape)``, and the rows' labels, if there are some.

        Raises:
            DataError: when a row cannot be read, is not finite, or lies outside what model or
                metric accept.
        """
        rows = self.indices(start, stop)
        place = np.argsort(rows)  # data sets read upwards; a batch may reach into the next stage
        x, labels = self._read(rows[place])
        if (np.diff(rows) < 0).any():
            back = np.argsort(place)
            x, labels = x[back], None if labels is None else labels[back]
        return x.to(dtype).to(device).contiguous(), labels

    def carried(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Columns that go along with samples start to stop, ``(stop - start,)`` each."""
        if not self.dataset.carried:
            return {}
        rows = self.indices(start, stop)
        place = np.argsort(rows)
        back = np.argsort(place)
        return {name: values[back] for name, values in self.dataset.carry(rows[place]).items()}

    def rows(self, start: int, stop: int, vae: VAE) -> tuple[VAE, Tensor, np.ndarray | None]:
        """Read samples start to stop, and bind the model to what it is told of them.

        Args:
            start: first sample.
            stop: one past the last sample.
            vae: the model, which says where inputs go and their type.

        Returns:
            The model for these rows, inputs ``(stop - start, *input_shape)``, and labels if any.

        Raises:
            DataError: as :meth:`batch`, and for a condition that the model does not take.
        """
        x, labels = self.batch(start, stop, vae.device, vae.dtype)
        if self.source is None:
            return vae, x, labels
        c = self.source.at(self.indices(start, stop), labels)
        return vae.on(x, None if c is None else c.to(x)), x, labels

    def _read(self, rows: np.ndarray) -> tuple[Tensor, np.ndarray | None]:
        """Inputs in double precision and labels of ascending rows."""
        x = _finite(self.dataset.read(rows), rows, self.name)
        for fit in self.fits:
            x = fit.apply(x)
        for limit in self.limits:
            x = limit.clip(x, rows, self.name)
        return x, self.dataset.labels(rows) if self.labelled else None


def prepare(
    dataset: Dataset,
    vae: VAE,
    *,
    samples: int | None = None,
    resize: int | Sequence[int] | None = None,
    scale: Range | None = None,
    metric: Metric | None = None,
    conditions: Dataset | None = None,
) -> Prepared:
    """Fit opened data to a model.

    Bytes are mapped from 0..255 to the model's input range; other values only by ``scale``. Shapes
    are changed without loss (channel axis, flattening); images are resized only by ``resize``.

    Args:
        dataset: the data as stored.
        vae: the model.
        samples: how many rows to use, spread evenly over the data; None: all.
        resize: height and width (one number: both) to resize images to, bilinearly.
        scale: stored values (low, high) mapped linearly to the ends of the model's input range,
            or to 0..1 where that is unknown.
        metric: distortion the inputs are for, whose range of values they must keep.
        conditions: what a conditional model is told of each row, where the data do not say.

    Returns:
        The samples, ready to be read in batches.

    Raises:
        DataError: when there are no rows, or their shape does not fit the model.
        OptionError: when samples, resize or scale cannot be.
    """
    rows = len(dataset)
    if rows == 0:
        raise DataError(f"{dataset.name} has no rows; expected at least one")
    if samples is not None and samples < 1:
        raise OptionError(f"--samples needs at least 1; found {samples}")
    _require_order(dataset, vae.facts.inputs)
    resize = _left_to_resize(dataset, resize)
    try:
        fits = _fits(
            dataset, vae, resize, scale, counted=metric is not None and metric.whole_numbers
        )
    except DataError as error:
        raise DataError(f"{dataset.name}: {error}") from error
    notes = [*dataset.notes, *(fit.note for fit in fits)]
    if samples is not None and samples > rows:
        notes.append(f"all {rows:,} rows used")
    labelled = dataset.labels(np.zeros(1, np.int64)) is not None
    source = told(vae, dataset, conditions, labelled=labelled)
    if source is not None:
        notes.append(source.note)
    return Prepared(
        dataset=dataset,
        samples=rows if samples is None else min(samples, rows),
        fits=tuple(fits),
        limits=tuple(_limits(vae.facts.input_range, metric)),
        notes=notes,
        labelled=labelled,
        source=source,
    )


def _left_to_resize(
    dataset: Dataset, resize: int | Sequence[int] | None
) -> int | Sequence[int] | None:
    """The size that rows are still to be brought to, where data do not bring them there."""
    if resize is None:
        dataset.resized(None)
        return None
    height, width = (resize, resize) if isinstance(resize, int) else resize
    return None if min(height, width) > 0 and dataset.resized((height, width)) else resize


def _require_order(dataset: Dataset, inputs: Sequence[str]) -> None:
    """Refuse named columns that are not the model's inputs in their order."""
    found = dataset.columns
    if not inputs or not found or tuple(found) == tuple(inputs):
        return
    lacking = [name for name in inputs if name not in set(found)]
    if lacking:
        raise DataError(
            f"{dataset.name} lacks {len(lacking)} of the {len(inputs)} inputs of the model, such "
            f"as {lacking[0]!r}; expected {', '.join(list(inputs)[:4])} ..."
        )
    at = next((i for i, n in enumerate(inputs) if i >= len(found) or found[i] != n), 0)
    raise DataError(
        f"{dataset.name} has {len(found)} columns in another order than the model's "
        f"{len(inputs)} inputs: {found[at]!r} stands where {inputs[at]!r} belongs; put them in the "
        "model's order"
    )


def first_rows(
    dataset: Dataset,
    count: int = 256,
    *,
    resize: int | Sequence[int] | None = None,
    scale: Range | None = None,
) -> Tensor:
    """Read a few rows in the shape in which they are held, before a model is known.

    Args:
        dataset: the data as stored.
        count: how many at most, evenly spaced.
        resize: height and width to resize images to.
        scale: stored values mapped to 0..1; bytes are unasked.

    Returns:
        ``(B, *stored shape)``, float64.

    Raises:
        DataError: when there are no rows, or one holds a number that is not finite.
    """
    resize = _left_to_resize(dataset, resize)
    rows = _spaced(dataset, count)
    x = _finite(dataset.read(rows), rows, dataset.name)
    values = fit_values(dataset.dtype, None, scale)
    x = x if values is None else values.apply(x)
    if resize is None:
        return x
    for fit in fit_shape(tuple(dataset.shape), resized_shape(tuple(dataset.shape), resize), resize):
        x = fit.apply(x)
    return x


def first_labels(dataset: Dataset, count: int = 256) -> Tensor | None:
    """Read the labels of the rows that :func:`first_rows` reads.

    Args:
        dataset: the data as stored.
        count: how many rows at most.

    Returns:
        ``(B,)``, float64; None where rows have no label, several, or one that is no number.
    """
    found = dataset.labels(_spaced(dataset, count))
    if found is None or found.ndim != 1 or found.dtype.kind not in "biuf":
        return None
    import torch

    return torch.as_tensor(found.astype(np.float64))


def _spaced(dataset: Dataset, count: int) -> np.ndarray:
    """Indices of a few rows, evenly spaced."""
    total = len(dataset)
    if total == 0:
        raise DataError(f"{dataset.name} has no rows; expected at least one")
    return np.arange(min(count, total), dtype=np.int64) * total // min(count, total)


def _fits(
    dataset: Dataset,
    vae: VAE,
    resize: int | Sequence[int] | None,
    scale: Range | None,
    *,
    counted: bool,
) -> list[Fit]:
    """What is done to each row; bytes that count something are left as they are."""
    values = None
    if scale is not None or not counted:
        values = fit_values(dataset.dtype, vae.facts.input_range, scale)
    wanted = tuple(vae.input_shape)
    shape = fit_shape(tuple(dataset.shape), wanted, resize, dataset.columns)
    return ([] if values is None else [values]) + shape


def _limits(input_range: Range | None, metric: Metric | None) -> list[Limit]:
    """Ranges to keep; the metric's comes first, as another metric may be the way out."""
    scaled = "Scale it (--scale LOW:HIGH)"
    limits = []
    wanted = None if metric is None else metric.input_range
    if metric is not None and wanted is not None:
        demand = f"metric '{metric.name}' needs values in {_interval(wanted)}"
        remedy = f"{scaled}, or use --metric sse."
        if input_range == wanted:
            demand, remedy = f"{demand}, and the model was trained on such", f"{scaled}."
        limits.append(Limit(*wanted, demand, remedy))
    if input_range is not None and input_range != wanted:
        demand = f"the model was trained on values in {_interval(input_range)}"
        limits.append(Limit(*input_range, demand, f"{scaled}."))
    return limits


def _interval(values: Range) -> str:
    return f"[{values[0]:g}, {values[1]:g}]"


def _finite(stored: np.ndarray, rows: np.ndarray, name: str) -> Tensor:
    """Return stored rows as a tensor in double precision, so that mapping them rounds once."""
    import torch

    x = np.ascontiguousarray(stored, dtype=np.float64)
    good = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not good.all():
        first = int(np.argmin(good))
        values = x[first].ravel()
        position = int(np.argmin(np.isfinite(values)))
        raise DataError(
            f"row {rows[first]} of {name} has {values[position]} at value {position} of "
            f"{values.size}; expected finite numbers: fill or leave out such rows"
        )
    return torch.from_numpy(x)
