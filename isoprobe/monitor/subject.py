"""Measure a model that is being trained, as an analysis would, and give it back as it was.

Model, data and settings are settled once, which is most of what a short analysis costs; after that
a measurement is one pass over the same rows with the weights of the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from isoprobe.contracts import VAE, Live
from isoprobe.data import held
from isoprobe.data.order import Order
from isoprobe.errors import OptionError
from isoprobe.run.lending import lent
from isoprobe.run.measured import Measured, measure
from isoprobe.run.opening import opened, place

if TYPE_CHECKING:
    from isoprobe.contracts import Dataset
    from isoprobe.run.settings import RunSettings
    from isoprobe.run.settle import Job, Subject

#: rows on which two readings are compared
_FEW = 8
#: weights to look at in place of the model's own: by name, of a module built alike, or a function
#: that gives a context manager in which the model has them
Weights = nn.Module | Mapping[str, Tensor] | Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Settled:
    """What holds from one measurement to the next.

    Attributes:
        vae: the model as it was read.
        job: metric, rows and analyses.
        pass_: batch size and route.
    """

    vae: VAE
    job: Job
    pass_: Mapping[str, Any]


class Trained:
    """A model in training, and the rows that it is measured on.

    Args:
        model: a module, what :func:`isoprobe.wrap` gives, or a VAE; without the wrapper of
            distributed training.
        data: rows, or a spec.
        asked: metric, analyses and samples; the device is the model's own.
        weights: to look at in place of the model's own.

    Attributes:
        model: as given.
        module: that holds the parameters; None for a model of plain functions.
        rows: that it is measured on, held in memory once they are read.
    """

    def __init__(self, model: Any, data: Any, asked: RunSettings, weights: Weights | None) -> None:
        self.model = model
        self.module = _module_of(model)
        self._data, self._asked, self._weights = data, asked, weights
        self.rows: Dataset | None = None
        self._conditions: Dataset | None = None
        self._settled: Settled | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is; the CPU for a model without tensors."""
        tensors = () if self.module is None else (*self.module.parameters(), *self.module.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def settle(self) -> tuple[Measured, str]:
        """Read the model, choose its rows where none are chosen yet, and measure it.

        Returns:
            What was found, and how the model was read where that was otherwise before.
        """
        with self._opened() as subject:
            if self.rows is None:
                self.rows = _chosen(subject.dataset, self._asked.samples)
                if subject.conditions is not None:
                    self._conditions = _chosen(subject.conditions, self._asked.samples)
            kept = replace(subject, dataset=self.rows, conditions=self._conditions)
            job = kept.job(self._asked, None)
            changed = self._changed(subject.vae)
            found = measure(job)
            self._settled = Settled(subject.vae, job, found.settled)
        return found, changed

    def measure(self) -> Measured:
        """Measure the model as it is now.

        Returns:
            What was found.
        """
        if self._settled is None:
            return self.settle()[0]
        settled = self._settled
        with self._lent():
            place(settled.vae, str(self.device), self._asked.dtype)
            return measure(settled.job, settled.pass_)

    def read_again(self) -> str:
        """Read the model anew; return how, where that was otherwise before."""
        with self._opened() as subject:
            return self._changed(subject.vae)

    def _changed(self, vae: VAE) -> str:
        """Say how a model was read, if the reading before gives other answers to a few rows."""
        if self._settled is None:
            return ""
        before, data = self._settled.vae, self._settled.job.run.data
        with torch.no_grad():
            answers = [_answers(*data.rows(0, _FEW, v)[:2]) for v in (before, vae)]
        same = all(
            a.shape == b.shape and torch.allclose(a, b, equal_nan=True)
            for a, b in zip(*answers, strict=True)
        )
        return "" if same else "; ".join(vae.facts.assumptions)

    @contextmanager
    def _opened(self) -> Iterator[Subject]:
        """Lend the module, and read it on the rows.

        Yields:
            Model and data.
        """
        asked = replace(self._asked, device=str(self.device))
        if self._conditions is not None:
            asked = replace(asked, condition=self._conditions)
        data = self._data if self.rows is None else self.rows
        with self._lent(), opened(self.model, data, asked) as subject:
            yield subject

    @contextmanager
    def _lent(self) -> Iterator[None]:
        """The module, evaluated with the weights that are looked at.

        Yields:
            Nothing.
        """
        with ExitStack() as stack:
            stack.enter_context(lent(self.module))
            if self._weights is not None and self.module is not None:
                stack.enter_context(_with_weights(self.module, self._weights))
            yield


def _answers(vae: VAE, x: Tensor) -> list[Tensor]:
    if vae.encode is None:
        return []
    posterior = vae.encode(x)
    return [posterior.mean, posterior.std, vae.decode(posterior.mean)]


def _module_of(model: Any) -> nn.Module | None:
    inner = model.module if isinstance(model, VAE) else model
    inner = inner.model if isinstance(inner, Live) else inner
    return inner if isinstance(inner, nn.Module) else None


def _chosen(dataset: Dataset, samples: Any) -> Dataset:
    """Read the rows that a run of so many samples takes, in its order."""
    count = min(len(dataset), len(dataset) if samples is None else int(samples))
    rows = Order(len(dataset), count).at(0, count)
    place = np.argsort(rows)
    back, labels = np.argsort(place), dataset.labels(rows[place])
    chosen = held.Held(
        dataset.read(rows[place])[back],
        dataset.name,
        (*dataset.notes, f"{count} of {len(dataset)} rows, the same at each step"),
        None if labels is None else labels[back],
    )
    chosen.columns, chosen.factors = dataset.columns, dataset.factors
    return chosen


@contextmanager
def _with_weights(module: nn.Module, weights: Weights) -> Iterator[None]:
    """Give a lent module other weights; parameters are pointed at them, and nothing is copied.

    Yields:
        Nothing.
    """
    if not isinstance(weights, nn.Module | Mapping):
        with weights():
            yield
        return
    table = weights.state_dict() if isinstance(weights, nn.Module) else dict(weights)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.data = _like(parameter, _named(table, name), name)
        for name, buffer in module.named_buffers():
            if name in table or f"module.{name}" in table:
                buffer.copy_(_named(table, name))
    yield


def _named(table: Mapping[str, Tensor], name: str) -> Tensor:
    """The tensor of a name, also under the name that averaged models give it."""
    for spelling in (name, f"module.{name}"):
        if spelling in table:
            return table[spelling].detach()
    raise OptionError(
        f"weights= lacks '{name}'; give a tensor for each parameter of the model, by its name"
    )


def _like(parameter: Tensor, tensor: Tensor, name: str) -> Tensor:
    if tensor.shape != parameter.shape:
        raise OptionError(
            f"weights= has '{name}' of shape {tuple(tensor.shape)}, the model's has "
            f"{tuple(parameter.shape)}; give weights of the same model"
        )
    return tensor.to(parameter.device, parameter.dtype)
