"""Open what a run needs: the model in its place, its data, and the result it writes."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from isoprobe.checkpoints.native import refuse_not_finite
from isoprobe.checkpoints.remote import fetched
from isoprobe.checkpoints.source import Source
from isoprobe.contracts import VAE, Dataset, FirstRows, Live, Metric
from isoprobe.data.batches import first_labels, first_rows
from isoprobe.data.files import beside
from isoprobe.data.held import hold
from isoprobe.data.padding import padded, wanted
from isoprobe.data.recipe import Recipe, recorded_rows
from isoprobe.data.told import held_at, value_of
from isoprobe.errors import (
    CheckpointError,
    DataError,
    IsoprobeError,
    OptionError,
    UnreadError,
    nearest,
)
from isoprobe.registry.lookup import installed
from isoprobe.registry.unread import described, quoted
from isoprobe.run.lending import lent
from isoprobe.run.settle import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Adapter
    from isoprobe.registry.lookup import Registry
    from isoprobe.run.settings import Opening

_LOG = logging.getLogger(__name__)
#: values of the first rows that are read at most, where an adapter wants more than a few rows
_FIRST_VALUES = 4_000_000

_DTYPES = ("float32", "float64", "bfloat16", "float16")


def load(
    path: str | Path,
    *,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    trust: bool = False,
) -> VAE:
    """Load a checkpoint through the adapter that reads it.

    Args:
        path: file or folder.
        adapter: name of the adapter; the one that matches when None.
        options: of the adapter.
        trust: let code inside the checkpoint run, where only that can build the model.

    Returns:
        The model, on the CPU, in eval mode.

    Raises:
        CheckpointError: for a file that is missing, foreign, damaged or unsafe.
        IsoprobeError: of another kind for an unknown adapter, a wrong option, or a plugin's fault.
    """
    local, told = fetched(path, trusted=trust)
    source = Source(local, trusted=trust)
    vae = _loaded(installed().adapter_for(source, adapter), source, options or {})
    return _told(vae, told)


def _loaded(adapter: Adapter, source: Source, options: Mapping[str, str]) -> VAE:
    try:
        vae = adapter.load(source, options)
    except IsoprobeError:
        raise
    except Exception as error:  # whatever a file makes a reader do, it is said in one line
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(
            f"{source.path} cannot be read by adapter '{adapter.name}': {what}"
        ) from error
    if vae.module is not None:
        vae.module.eval().requires_grad_(requires_grad=False)
    vae.path = str(source.path)
    return vae


@contextmanager
def opened(model: Any, data: Any, settings: Opening) -> Iterator[Subject]:
    """Load a model or borrow the caller's, put it in its place, and open its data.

    Args:
        model: as :func:`isoprobe.analyze` takes it.
        data: as :func:`isoprobe.analyze` takes it.
        settings: adapter, device and floating type.

    Yields:
        Model and data; the data is closed and a caller's model given back as it was afterwards.
    """
    registry = installed()
    with ExitStack() as stack:
        found = _found(registry, model, data, settings)
        module = getattr(found, "module", None) if isinstance(found, VAE) else found.model
        stack.enter_context(lent(module if isinstance(module, nn.Module) else None))
        notes: list[str] = []
        if isinstance(found, VAE):
            vae = place(found, settings.device, settings.dtype)
            holds, _ = conditioned(registry, vae, settings.condition, opened=False)
            dataset = open_data(registry, data, holds, notes)
            stack.callback(dataset.close)
            dataset = padded(dataset, settings.pad or wanted(vae, dataset))
        else:
            dataset = _rows_for(registry, found, data)
            stack.callback(dataset.close)
            dataset = padded(dataset, settings.pad)
            vae = _read(registry, found, dataset, settings, _typed(data, settings))
        _LOG.info(
            "model %s: read by %s, input %s, %d latents, %s on %s",
            vae.name, vae.adapter, tuple(vae.input_shape), vae.latent_size, vae.dtype, vae.device,
        )  # fmt: skip
        _LOG.info("data %s: %d rows of %s", dataset.name, len(dataset), tuple(dataset.shape))
        vae, conditions = conditioned(registry, vae, settings.condition)
        if conditions is not None:
            stack.callback(conditions.close)
        yield Subject(registry, vae, dataset, notes, conditions)


def _found(registry: Registry, model: Any, data: Any, settings: Opening) -> VAE | Live:
    """A model that is ready, or an object that has to be tried on rows first."""
    if isinstance(model, VAE | Live):
        return model
    if not isinstance(model, str | Path):
        return Live(model, settings.options or {})
    local, told = fetched(model, trusted=settings.trust)
    source = Source(local, trusted=settings.trust)
    adapter = registry.adapter_for(source, settings.adapter, _typed(data, settings))
    built = adapter.build(source, settings.options or {})
    if built is not None:
        if adapter.last_resort and _no_rows(data):
            raise UnreadError(
                f"{described(source)}; it is read by trying it on rows, and no data was given",
                f"isoprobe analyze {quoted(source.path)} --data SPEC --metric NAME",
            )
        return replace(built, notes=(*([told] if told else []), *built.notes))
    return _told(_loaded(adapter, source, settings.options or {}), told)


def _told(vae: VAE, where: str) -> VAE:
    """Say where a model came from, if it was fetched."""
    return vae.with_facts(assumptions=(where, *vae.facts.assumptions)) if where else vae


def _rows_for(registry: Registry, live: Live, data: Any) -> Dataset:
    """Open the rows that a live model is tried on.

    Returns:
        The opened data set.

    Raises:
        DataError: where there are none: its shapes come from the data.
    """
    if _no_rows(data):
        raise DataError(
            f"{live.name or 'a ' + type(live.model).__name__} is read by trying it on rows, and no "
            "data was given: --data SPEC, or isoprobe.analyze(model, x, metric=...)"
        )
    if isinstance(data, Dataset):
        return data
    return registry.data(str(data)) if isinstance(data, str | Path) else hold(data)


def _no_rows(data: Any) -> bool:
    return data is None or (isinstance(data, str) and data == "prior")


def _typed(data: Any, settings: Opening) -> str:
    """Options that name rows and metric again on a command line."""
    words = ["--data", shlex.quote(str(data)) if isinstance(data, str | Path) else "SPEC"]
    for option, size in (("--resize", settings.resize), ("--pad", settings.pad)):
        if size is not None:
            words += [option, "x".join(map(str, size if isinstance(size, tuple) else (size,)))]
    if settings.scale is not None:
        words += ["--scale", ":".join(f"{end:g}" for end in settings.scale)]
    metric = getattr(settings, "metric", None)
    if isinstance(metric, str) and metric != "auto":
        words += ["--metric", shlex.quote(metric)]
    return " ".join(words)


def _read(registry: Registry, live: Live, dataset: Dataset, settings: Opening, typed: str) -> VAE:
    """Let the adapter that takes an object read it on the first rows, and put it in its place."""
    wanted = getattr(settings, "metric", None)
    metric = registry.metric(wanted) if isinstance(wanted, str) and wanted != "auto" else None
    metric = wanted if isinstance(wanted, Metric) else metric
    adapter = registry.adapter_of(live.model)
    if isinstance(live.model, nn.Module):
        blank = VAE(decode=_nothing, encode=None, input_shape=(), latent_shape=())
        blank.module, blank.name = live.model, live.name or type(live.model).__name__
        place(blank, settings.device, settings.dtype)
    count = min(adapter.rows, max(_FIRST_VALUES // max(math.prod(dataset.shape), 1), 256))
    x = first_rows(dataset, count, resize=settings.resize, scale=settings.scale)
    rows = FirstRows(x, metric, typed, first_labels(dataset, count))
    return place(adapter.read(live, rows), settings.device, settings.dtype)


def _nothing(z: Tensor) -> Tensor:
    return z


# --------------------------------------------------------------------------- the model


def place(vae: VAE, device: str, dtype: str | None) -> VAE:
    """Move a model in place to where it shall run.

    Args:
        vae: the model.
        device: ``auto`` takes an accelerator where there is one.
        dtype: the model's own when None, float32 at least.

    Returns:
        The same model.

    Raises:
        CheckpointError: for a weight that is not finite.
        OptionError: for a device or type that cannot be used here.
    """
    _refuse_damaged(vae)
    if dtype is not None and dtype not in _DTYPES:
        raise OptionError(
            f"--dtype takes {', '.join(_DTYPES)}; found {dtype!r}{nearest(dtype, list(_DTYPES))}"
        )
    kind = getattr(torch, dtype) if dtype else vae.dtype
    if dtype is None and kind.itemsize < torch.float32.itemsize:
        kind = torch.float32  # half precision is for storage; norms need more digits
    try:
        return vae.to(torch.device(_device(device)), kind)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"--device {device} cannot be used here: {reason}") from error


def _refuse_damaged(vae: VAE) -> None:
    """Raise CheckpointError, naming the tensor, for weights that are not finite."""
    if vae.module is None:
        return
    for name, weight in vae.module.named_parameters():
        refuse_not_finite(weight.detach(), name, vae.name)


def _device(name: str) -> str:
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def processor_threads(count: int | None) -> Iterator[None]:
    """Run with so many processor threads, and give back what was set."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


# --------------------------------------------------------------------------- data


def conditioned(
    registry: Registry, vae: VAE, condition: Any, *, opened: bool = True
) -> tuple[VAE, Dataset | None]:
    """Hold a model at one condition, or open the rows that tell it one each.

    Args:
        registry: knows the data sources.
        vae: the model.
        condition: a number or several, a spec, rows; None for what data and model say.
        opened: open what is no value; nothing is opened otherwise.

    Returns:
        The model, and the rows of conditions where some are named.

    Raises:
        OptionError: when the model takes none, or not this one.
    """
    if condition is None:
        return vae, None
    values = value_of(condition) if isinstance(condition, str) else None
    if isinstance(condition, int | float):
        values = [float(condition)]
    if values is not None:
        return held_at(vae, values), None
    if vae.conditional is None:
        raise OptionError(f"{vae.name} takes no condition; leave --condition out")
    if not isinstance(condition, str | Path | Dataset):
        condition = _column(condition)
    return vae, open_data(registry, condition, vae, []) if opened else None


def _column(values: Any) -> Any:
    """Labels as people hold them, ``(N,)``, as rows of one value; anything else as it is."""
    if isinstance(values, torch.Tensor):
        return values.reshape(len(values), -1)
    found = np.asarray(values)
    return found[:, None] if found.ndim == 1 and found.dtype.kind in "biuf" else values


def open_data(
    registry: Registry,
    data: Any,
    vae: VAE,
    notes: list[str],
) -> Dataset:
    """Open whatever stands for data.

    Args:
        registry: knows the data sources.
        data: a spec, an opened data set, rows, or None for what the checkpoint names.
        vae: the model.
        notes: takes what a reader of the result should know.

    Returns:
        The opened data set, the prior's samples where there is nothing else.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return registry.data(str(data), vae)
    if data is not None:
        recipe = Recipe.of(vae)
        return hold(data) if recipe is None else recorded_rows(data, recipe)
    named = vae.facts.dataset
    if named is None:
        notes.append("no data was given and the checkpoint names none: probed with prior samples")
        return registry.data("prior", vae)
    try:
        return registry.data(beside(named, vae.path), vae)
    except DataError:
        notes.append(
            f"the checkpoint's data set '{named}' cannot be had: probed with prior samples"
        )
        return registry.data("prior", vae)
