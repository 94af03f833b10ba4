"""``load`` and ``analyze``: the Python calls behind the commands, usable in a notebook."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from isoprobe.contracts import DEFAULT_ANALYSES, VAE, Analysis, Dataset, Metric
from isoprobe.data import prepare
from isoprobe.diagnosis import DIFFERS
from isoprobe.engine import Run, spread
from isoprobe.errors import (
    CheckpointError,
    DataError,
    IsoprobeError,
    MetricError,
    OptionError,
    nearest,
)
from isoprobe.hdf5 import ResultWriter
from isoprobe.probe import ProbeOptions
from isoprobe.recovery import PLAUSIBLE, recover_table
from isoprobe.registry import installed
from isoprobe.source import Source

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.data import Prepared
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
    samples: int | None = 10_000,
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
        samples: at most this many, evenly spaced; None for all.
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
    registry = installed()
    if not isinstance(model, VAE):
        model = load(model, adapter=adapter, options=options, trust=trust)
    vae = place(model, device, dtype)
    notes: list[str] = []
    dataset = open_data(registry, data, vae, notes)
    try:
        fit = partial(prepare, dataset, vae, samples=samples, resize=resize, scale=scale)
        chosen = _metric(registry, metric, vae)
        if chosen is None:
            unchecked = fit(metric=None)
            chosen = _metric_by_beta(registry, vae, unchecked, beta, notes)
        declared = _declared_beta(registry, vae, chosen, notes)
        prepared = fit(metric=chosen)
        notes += [*vae.facts.assumptions, *prepared.notes]
        steps = _analyses(registry, analyses)
        probing = ProbeOptions(
            pullback=pullback, pairs=pairs, seed=seed, memory=memory, batch_size=batch_size
        )
        attrs = _attributes(vae, chosen, prepared, steps, probing)
        writer = ResultWriter.open(
            None if out is None else Path(out),
            samples=prepared.samples,
            latent=vae.latent_size,
            overwrite=overwrite,
            resume=resume,
            identity={**attrs, "beta_given": beta, "fitted": prepared.notes},
        )
        with writer:
            run = Run(
                vae=vae,
                metric=chosen,
                data=prepared,
                analyses=steps,
                writer=writer,
                options=probing,
                given_beta=_given(beta),
                declared_beta=declared.value if declared else None,
                beta_comparable=beta != "auto" and declared is not None and declared.comparable,
                progress=progress,
            )
            return run.execute(
                {
                    **attrs,
                    "notes": notes,
                    "command": command,
                    "output": "" if out is None else str(out),
                    "complete": True,
                }
            )
    finally:
        dataset.close()


# --------------------------------------------------------------------------- model and metric


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


def _metric(registry: Registry, metric: str | Metric | None, vae: VAE) -> Metric | None:
    """The metric asked for, else the declared one, else None."""
    if isinstance(metric, Metric):
        return metric
    spec = vae.facts.metric if metric in {None, "auto"} else metric
    return None if spec is None else registry.metric(spec)


def _metric_by_beta(
    registry: Registry,
    vae: VAE,
    data: Prepared,
    beta: float | str | None,
    notes: list[str],
) -> Metric:
    """The metric whose recovered beta is the one declared; weights alone cannot tell (2b)."""
    active = np.ones(vae.latent_size, dtype=bool)
    known = registry.names("metric")
    metrics = [registry.metric(s) for s in PLAUSIBLE if s.partition(":")[0] in known]
    x = torch.cat(list(spread(data, 512, vae)))
    rows = recover_table(vae, metrics, x, active)
    declared = _given(beta) or vae.facts.beta
    shown = ", ".join(f"{row.metric} {row.beta:.3g}" for row in rows)
    if declared is None:
        raise MetricError(
            f"{vae.name} does not say which loss it was trained with, and weights alone cannot "
            f"tell: beta would be {shown}. Give --metric, or the --beta you know."
        )
    matching = [row for row in rows if abs(row.beta / declared - 1) <= DIFFERS]
    if not matching:
        raise MetricError(
            f"{vae.name}: no metric gives the declared beta {declared:g}; recovered: {shown}. "
            "Give --metric."
        )
    best, *others = matching
    notes.append(
        f"metric {best.metric} chosen: its beta {best.beta:.3g} fits {declared:g}"
        + "".join(f"; so would {row.metric}, {row.beta:.3g}" for row in others)
    )
    return registry.metric(best.metric)


@dataclass(frozen=True)
class _Declared:
    value: float
    comparable: bool


def _declared_beta(
    registry: Registry, vae: VAE, metric: Metric, notes: list[str]
) -> _Declared | None:
    """The checkpoint's beta in units of the metric in use, where a factor leads there."""
    facts = vae.facts
    if facts.beta is None:
        return None
    if facts.metric is None:
        return _Declared(facts.beta, comparable=True)
    trained = registry.metric(facts.metric)
    if trained.spec() == metric.spec():
        return _Declared(facts.beta, comparable=True)
    if metric.family and trained.family == metric.family:
        size = vae.input_size
        factor = trained.family_units(size) / metric.family_units(size)
        return _Declared(facts.beta * factor, comparable=True)
    notes.append(
        f"the declared beta {facts.beta:g} belongs to metric {trained.spec()}, not {metric.spec()}"
    )
    return _Declared(facts.beta, comparable=False)


def _given(beta: float | str | None) -> float | None:
    if beta is None or beta == "auto":
        return None
    try:
        value = float(beta)
    except ValueError as error:
        raise OptionError(f"--beta takes 'auto' or a number; found {beta!r}.") from error
    if not 0 < value < math.inf:
        raise OptionError(f"--beta must be positive and finite; found {beta}.")
    return value


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
    """
    name = spec.partition(":")[0]
    beside = Path(checkpoint).parent / name
    if checkpoint and Path(name).name == name and beside.is_file():
        return str(beside.parent / spec)
    return spec


# --------------------------------------------------------------------------- analyses and record


def _analyses(registry: Registry, wanted: Sequence[str | Analysis]) -> list[Analysis]:
    """Instances in an order in which each follows what it reads, each name once."""
    ordered: dict[str, Analysis] = {}

    def add(item: str | Analysis, chain: tuple[str, ...] = ()) -> None:
        analysis = registry.analysis(item) if isinstance(item, str) else item
        if analysis.name in chain:
            raise IsoprobeError(f"analyses wait for each other: {' -> '.join(chain)}.")
        for needed in analysis.after:
            if needed not in ordered and needed != "overview":
                add(needed, (*chain, analysis.name))
        if isinstance(item, str) and ":" not in item and analysis.name in ordered:
            return
        ordered[analysis.name] = analysis

    explicit = {str(getattr(w, "name", w)).partition(":")[0]: w for w in wanted}
    for item in explicit.values():
        add(item)
    return list(ordered.values())


def _attributes(
    vae: VAE,
    metric: Metric,
    data: Prepared,
    analyses: Sequence[Analysis],
    options: ProbeOptions,
) -> dict[str, Any]:
    """What the numbers depend on; recorded, and compared when a run is resumed."""
    from isoprobe import __version__

    return {
        "model": vae.name,
        "model_sha256": vae.sha256,
        "adapter": vae.adapter,
        "input_shape": list(vae.input_shape),
        "latent_shape": list(vae.latent_shape),
        "condition": vae.condition,
        "decomposed": bool(vae.facts.decomposed),
        "metric": metric.spec(),
        "logits": vae.decode_logits is not None and metric.logits_distortion is not None,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "samples": data.samples,
        "analyses": [analysis.name for analysis in analyses],
        "pullback": options.pullback,
        "pairs": options.pairs,
        "seed": options.seed,
        "device": str(vae.device),
        "dtype": str(vae.dtype).removeprefix("torch."),
        "isoprobe_version": __version__,
        "torch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "python_version": ".".join(map(str, sys.version_info[:3])),
    }
