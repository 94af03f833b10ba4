"""Open what a run needs: the model in its place, its data, and the result it writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.checkpoints.source import Source
from isoprobe.contracts import VAE, Dataset
from isoprobe.errors import CheckpointError, DataError, IsoprobeError, OptionError, nearest
from isoprobe.registry.lookup import installed
from isoprobe.run.settle import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.registry.lookup import Registry
    from isoprobe.run.settings import Opening

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
    source = Source(Path(path), trusted=trust)
    reader = installed().adapter_for(source, adapter)
    try:
        vae = reader.load(source, options or {})
    except IsoprobeError:
        raise
    except Exception as error:  # whatever a file makes a reader do, it is said in one line
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(
            f"{path} cannot be read by adapter '{reader.name}': {what}"
        ) from error
    vae.path = str(path)
    return vae


@contextmanager
def opened(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray | None,
    settings: Opening,
) -> Iterator[Subject]:
    """Load a model, put it in its place, and open its data.

    Args:
        model: as :func:`analyze` takes it.
        data: as :func:`analyze` takes it.
        settings: adapter, device and floating type.

    Yields:
        Model and data; the data is closed afterwards.
    """
    registry = installed()
    if not isinstance(model, VAE):
        model = load(
            model, adapter=settings.adapter, options=settings.options, trust=settings.trust
        )
    vae = place(model, settings.device, settings.dtype)
    notes: list[str] = []
    dataset = open_data(registry, data, vae, notes)
    try:
        yield Subject(registry, vae, dataset, notes)
    finally:
        dataset.close()


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
        bad = ~weight.detach().isfinite()
        if bool(bad.any()):
            value = weight.detach()[bad][0]
            raise CheckpointError(
                f"{vae.name}: weight '{name}' has {int(bad.sum())} of {bad.numel()} numbers that "
                f"are not finite, the first {value:g}; expected finite numbers. Training may have "
                "diverged, or the file is damaged."
            )


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


class _Rows(Dataset):
    """Rows already in memory."""

    def __init__(self, rows: np.ndarray) -> None:
        self.name = "array in memory"
        self.rows = rows
        self.shape = tuple(rows.shape[1:])
        self.dtype = rows.dtype.name

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at the indices."""
        rows: np.ndarray = self.rows[indices]
        return rows

    def fingerprint(self) -> str:
        """Hash of all bytes."""
        return hashlib.sha256(np.ascontiguousarray(self.rows).tobytes()).hexdigest()[:16]


def open_data(
    registry: Registry,
    data: str | Dataset | Tensor | np.ndarray | None,
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
        return _Rows(data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else data)
    named = vae.facts.dataset
    if named is None:
        notes.append("no data was given and the checkpoint names none: probed with prior samples")
        return registry.data("prior", vae)
    try:
        return registry.data(_beside(named, vae.path), vae)
    except DataError:
        notes.append(
            f"the checkpoint's data set '{named}' cannot be had: probed with prior samples"
        )
        return registry.data("prior", vae)


def _beside(spec: str, checkpoint: str) -> str:
    """Return the spec of a checkpoint's data, in the checkpoint's own folder where it lies there.

    A name with a folder in it is left alone: a stranger's file may not point anywhere it likes.

    Raises:
        DataError: for a name that leads out of the current folder.
    """
    name = spec.partition(":")[0]
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"the checkpoint's data set '{spec}' lies elsewhere; give it with --data")
    beside = Path(checkpoint).parent / name
    if checkpoint and Path(name).name == name and beside.is_file():
        return str(beside.parent / spec)
    return spec
