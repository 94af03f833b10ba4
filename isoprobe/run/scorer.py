"""Score batches wherever an engine holds them: an object that travels, and loads where it arrives.

Dask, Ray Data and Spark take it as the function that they map over partitions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.contracts import VAE
from isoprobe.data.batches import prepare
from isoprobe.data.held import Held
from isoprobe.data.padding import padded, wanted
from isoprobe.errors import DataError, OptionError, nearest
from isoprobe.registry.lookup import installed
from isoprobe.results.flat import flatten
from isoprobe.run.lending import lent
from isoprobe.run.opening import conditioned, load, place, processor_threads
from isoprobe.run.scoring import Reference, Scores, Scoring, check_settings, gathered, read_alike
from isoprobe.run.settings import ScoreSettings
from isoprobe.run.settle import tried

if TYPE_CHECKING:
    from isoprobe.data.batches import Prepared

#: settings of scores that make no sense for batches of an engine
_LEFT_OUT = frozenset({"samples", "by_input", "fdr", "by"})
#: models held at once in a process, for engines that send a scorer anew with each batch
_HELD = 4


class Scorer:
    """Scores batches as ``isoprobe score`` does, to the same bytes.

    It holds names until its first batch: it is made, pickled and sent without loading anything,
    and a process loads model and reference once, however often a scorer of them arrives.

    Args:
        model: the reference's model: path of a checkpoint, seen wherever batches are scored, or a
            model in memory.
        reference: result file of ``analyze`` with the analysis ``anomaly``, likewise.
        columns: which columns of a table are the model's inputs, in order; None for all.
        **settings: as for :func:`isoprobe.score`, but ``samples`` and ``by_input``, and but ``fdr``
            and ``by``, which need all rows or columns beside them.

    Raises:
        OptionError: for a setting that there is not, or that cannot be.
    """

    def __init__(
        self,
        model: VAE | str | Path,
        reference: str | Path,
        *,
        columns: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        known = [f.name for f in fields(ScoreSettings) if f.name not in _LEFT_OUT]
        for name in settings.keys() - set(known):
            raise OptionError(f"a scorer has no setting '{name}'{nearest(name, known)}")
        self._asked = ScoreSettings(**settings)
        check_settings(self._asked)
        self._model, self._reference = model, reference
        self._inputs = None if columns is None else list(columns)

    def __call__(self, batch: Any) -> Any:
        """Score a batch.

        Args:
            batch: rows as an array ``(B, ...)``; a mapping of arrays by column, a pandas data
                frame, an Arrow table or record batch; or an iterator of these. B may be 0.

        Returns:
            A mapping of columns for an array; otherwise the batch with ``score``, its parts
            ``distortion``, ``transform`` (decomposed loss alone) and ``rate`` in units of the
            metric, ``p_value`` and a flag for each rule behind its own columns; an iterator of
            such for an iterator.

        Raises:
            DataError: when rows do not fit the model, or a column has the name of a new one.
            ResultError: when the reference has no scores, or belongs to another model.
        """
        if isinstance(batch, Iterator):
            return map(self, batch)
        if isinstance(batch, np.ndarray):
            return self._scored(batch)
        if isinstance(batch, Mapping):
            return {**batch, **self._more(list(batch), lambda name: np.asarray(batch[name]))}
        origin = type(batch).__module__.partition(".")[0]
        if origin == "pandas":
            names = list(batch.columns)
            return batch.assign(**self._more(names, lambda name: _stacked(batch[name].to_numpy())))
        if origin == "pyarrow":
            return self._arrow(batch)
        raise DataError(
            f"expected a batch as an array, a mapping of arrays, a pandas data frame or an Arrow "
            f"table; found a {type(batch).__name__}"
        )

    def _arrow(self, batch: Any) -> Any:
        more = self._more(batch.column_names, lambda name: _of_arrow(batch.column(name)))
        for name, values in more.items():
            batch = batch.append_column(name, _as_arrow(values))
        return batch

    def _more(
        self, names: Sequence[str], column: Callable[[str], np.ndarray]
    ) -> dict[str, np.ndarray]:
        """New columns of a table."""
        wanted = names if self._inputs is None else self._inputs
        for name in wanted:
            if name not in names:
                raise DataError(
                    f"the batch has no column '{name}'{nearest(name, list(map(str, names)))}"
                )
        arrays = [column(name) for name in wanted]
        if len(arrays) == 1 and arrays[0].ndim > 1:
            rows = arrays[0]
        else:
            rows = np.stack([_number(n, a) for n, a in zip(wanted, arrays, strict=True)], axis=1)
        found = flatten(self._scored(rows))
        taken = next((name for name in found if name in names), None)
        if taken is not None:
            raise DataError(
                f"the batch has a column '{taken}' already; drop it, or give it another name"
            )
        return found

    def _scored(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        held = self._engine()
        with held.lock, lent(held.scores.vae.module), processor_threads(self._asked.threads):
            found = held.scored(rows)
        del found["row"]  # an engine's batches know not where they lie
        return found

    def _engine(self) -> _Engine:
        if not isinstance(self._model, VAE):
            model, reference = Path(self._model), Path(self._reference)
            stamps = (_stamp(model), _stamp(reference))
            return _held(_Wanted(model, reference, stamps, repr(self._asked), self._asked))
        if "_own" not in self.__dict__:
            self._own = _Engine(self._model, self._reference, self._asked)
        return self._own

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_own"}


class _Engine:
    """A loaded model beside its reference, which scores one batch at a time."""

    def __init__(self, model: VAE | Path, reference: str | Path, asked: ScoreSettings) -> None:
        against = Reference.read(reference, asked.contamination, trim=asked.trim, score=asked.score)
        metric = against.metric(asked.metric)
        self.asked = replace(asked, metric=metric, dtype=asked.dtype or against.dtype)
        asked = read_alike(asked, against.attrs)
        if isinstance(model, Path):
            model = load(model, adapter=asked.adapter, options=asked.options, trust=asked.trust)
        vae = place(model, asked.device, self.asked.dtype)
        vae, _ = conditioned(installed(), vae, asked.condition, opened=False)
        against.check_model(vae)
        self.scores, self.metric = Scores(vae, metric, against, self.asked), metric
        self.lock = threading.Lock()
        self._tried = False

    def scored(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Score rows ``(B, ...)``."""
        vae = self.scores.vae
        if not len(rows):
            none = torch.zeros((0, *vae.input_shape), dtype=vae.dtype, device=vae.device)
            return self.scores.columns(none, np.empty(0, np.int64), "the batch")
        data = self._prepared(rows)
        if not self._tried:
            tried(vae, self.metric, data, self.asked, [], differentiated=False)
            self._tried = True
        return gathered(Scoring(self.scores, data))

    def _prepared(self, rows: np.ndarray) -> Prepared:
        held = Held(rows, "the batch")
        return prepare(
            padded(held, self.asked.pad or wanted(self.scores.vae, held)),
            self.scores.vae,
            resize=self.asked.resize,
            scale=self.asked.scale,
            metric=self.metric,
        )


@dataclass(frozen=True)
class _Wanted:
    """What tells one engine from another: the files, their times and sizes, and the settings."""

    model: Path
    reference: Path
    stamps: tuple[object, ...]
    shown: str
    asked: ScoreSettings = field(compare=False)


@lru_cache(maxsize=_HELD)
def _held(wanted: _Wanted) -> _Engine:
    """Return what a process holds for every scorer of the same files and settings."""
    return _Engine(wanted.model, wanted.reference, wanted.asked)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # whoever opens it says so
    return found.st_mtime_ns, found.st_size


# --------------------------------------------------------------------------- columns of a table


def _stacked(values: np.ndarray) -> np.ndarray:
    """Return the arrays that a column of Python objects holds, as one array."""
    if values.dtype != object or not len(values) or not isinstance(values[0], np.ndarray):
        return values
    try:
        return np.stack(list(values))
    except ValueError as error:
        raise DataError("rows of the batch have inputs of different shapes") from error


def _of_arrow(column: Any) -> np.ndarray:
    """Return a column of numbers, or of lists or tensors of one length."""
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunk
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.FixedShapeTensorArray):
        tensor: np.ndarray = array.to_numpy_ndarray()
        return tensor
    if isinstance(array, pa.FixedSizeListArray):
        flat = array.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(array), -1)
    return _stacked(np.asarray(array.to_numpy(zero_copy_only=False)))


def _as_arrow(values: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(values)


def _number(name: object, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf" or values.ndim != 1:
        raise DataError(
            f"column '{name}' of the batch holds {values.dtype}; expected numbers: name the inputs "
            "with columns=[...]"
        )
    return values
