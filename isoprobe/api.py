"""``load`` and ``analyze``: the Python calls behind the commands, usable in a notebook."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from isoprobe.contracts import DEFAULT_ANALYSES, VAE, Analysis, Dataset, Metric
from isoprobe.enough import Attempts
from isoprobe.errors import CheckpointError, DataError, OptionError, nearest
from isoprobe.hdf5 import ResultWriter, unfinished
from isoprobe.jobs import Job, Settings, Subject
from isoprobe.registry import installed
from isoprobe.source import Source

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.registry import Registry
    from isoprobe.result import Result


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
        OptionError: for an unknown adapter or a wrong option.
    """
    source = Source(Path(path), trusted=trust)
    vae = installed().adapter_for(source, adapter).load(source, options or {})
    vae.path = str(path)
    return vae


def analyze(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray | None = None,
    *,
    metric: str | Metric | None = None,
    beta: float | Literal["auto"] | None = None,
    analyses: Sequence[str | Analysis] = DEFAULT_ANALYSES,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    trust: bool = False,
    samples: int | Literal["auto"] | None = 10_000,
    tolerance: float | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    pullback: str = "exact",
    pairs: int = 2,
    seed: int = 0,
    resize: int | tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    memory: int = 1 << 30,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
) -> Result:
    """Analyse a model: what it learned, which latents matter, whether it can be trusted.

    Args:
        model: a model in memory, or the path of a checkpoint.
        data: a data spec, an opened data set, or rows ``(N, ...)``; None takes the data set the
            checkpoint names, or else samples decoded from the prior.
        metric: spec or instance; None or ``auto`` takes the declared one, or else the one whose
            recovered beta is the one given.
        beta: KL weight in units of the metric; ``auto`` recovers it from the model; None takes
            the declared one where there is one and otherwise recovers it.
        analyses: names, specs or instances; what they build on is run too.
        adapter: name of the adapter for a path.
        options: of the adapter.
        trust: let code inside the checkpoint run, as for :func:`load`.
        samples: at most this many, evenly spaced; None for all; ``auto`` for the first round number
            that gives every reported mean to within ``tolerance``.
        tolerance: relative standard error that is enough for ``auto``; 0.01 when None.
        batch_size: samples at once; planned from ``memory`` when None.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` ...
        dtype: ``float32`` or ``float64``; the model's own when None.
        pullback: ``exact``, ``probe`` (at most five passes a sample: random columns, or random
            signs for very many latents) or ``finite-difference``.
        pairs: antithetic pairs of posterior draws a sample for stationarity.
        seed: of everything random.
        resize: images to this height and width.
        scale: data values that stand for the ends of the model's input range.
        memory: bytes that tangents may take at once.
        out: result file; a temporary one when None.
        overwrite: replace an existing result.
        resume: go on with an unfinished result.
        progress: show a bar on stderr.
        command: the command line that asks for this, kept in the result; a call from Python has
            none.

    Returns:
        The result; its arrays are those of the file.

    Raises:
        IsoprobeError: whatever does not fit, in one line.
    """
    settings = Settings(
        metric=metric,
        beta=beta,
        analyses=analyses,
        adapter=adapter,
        options=options,
        trust=trust,
        samples=samples,
        tolerance=tolerance,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        pullback=pullback,
        pairs=pairs,
        seed=seed,
        resize=resize,
        scale=scale,
        memory=memory,
    )
    with opened(model, data, settings) as subject:
        earlier = unfinished(Path(out)) if resume and out is not None else None
        attempts = Attempts(settings, len(subject.dataset), earlier)
        while True:
            job = subject.job(attempts.settings(), progress=progress)
            job.identity.update(attempts.identity)
            with begin(job, out, overwrite=overwrite, resume=resume) as writer:
                gathered = job.run.gather(writer)
                context = job.run.resolve(gathered)
                if attempts.enough(context.results, gathered.setup.active):
                    job.notes.extend(attempts.notes)
                    return job.run.conclude(writer, gathered, context, job.labels(command, out))
                writer.abort(keep=False)


@contextmanager
def opened(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray | None,
    settings: Settings,
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


def begin(
    job: Job, out: str | Path | None, *, overwrite: bool = False, resume: bool = False
) -> ResultWriter:
    """Begin the result of a job, or go on with it."""
    return ResultWriter.open(
        None if out is None else Path(out),
        samples=job.run.data.samples,
        latent=job.run.vae.latent_size,
        overwrite=overwrite,
        resume=resume,
        identity=job.identity,
    )


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
