"""Encode, decode and sample: rows to codes and back, streamed, in flat memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.contracts import VAE
from isoprobe.derivatives.memory import rows_forwards
from isoprobe.errors import CheckpointError, DataError, OptionError, ResultError
from isoprobe.probe.objective import rates_of
from isoprobe.probe.told import encoded
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result
from isoprobe.run.opening import conditioned, load, open_data, opened, place, processor_threads
from isoprobe.run.scoring import check_model, gathered, read_alike
from isoprobe.run.settings import CodeSettings
from isoprobe.theory.isometric import IsometricMap, ScaleTable, map_from_arrays

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Dataset, Posterior
    from isoprobe.data.batches import Prepared


class Encoding:
    """Rows to be encoded, batch by batch; iterate to get columns.

    Args:
        vae: the model, on its device.
        data: the rows.
        asked: settings.
        isometric: the map z -> y; None where beta is not known.

    Attributes:
        rows: how many there are.
    """

    def __init__(
        self, vae: VAE, data: Prepared, asked: CodeSettings, isometric: IsometricMap | None
    ) -> None:
        self.vae, self.data, self.isometric = vae, data, isometric
        self.rows = data.samples
        self.batch = asked.batch_size or rows_forwards(vae, asked.memory)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for start, posterior, labels in posteriors(self.vae, self.data, self.batch):
            mean, std = (part.cpu().numpy() for part in (posterior.mean, posterior.std))
            kl = rates_of(posterior, self.vae.prior).sum(axis=1)
            columns = {"row": self.data.indices(start, start + len(mean)), "mean": mean, "std": std}
            if self.isometric is not None:
                y = self.isometric.to_isometric(mean.astype(np.float64))
                columns["y"] = y.astype(mean.dtype)
            columns["kl"] = kl
            if labels is not None:
                columns["label"] = labels
            yield columns


def posteriors(
    vae: VAE, data: Prepared, batch: int
) -> Iterator[tuple[int, Posterior, np.ndarray | None]]:
    """Encode all rows.

    Args:
        vae: the model.
        data: the rows.
        batch: rows at once.

    Yields:
        Position of the first row of a batch, its posteriors, and its labels if there are some.

    Raises:
        CheckpointError: for a model without encoder, or a posterior that is not finite.
    """
    if vae.encode is None:
        raise CheckpointError(f"{vae.name} has no encoder with a variance; there is no posterior")
    for start in range(0, data.samples, batch):
        stop = min(start + batch, data.samples)
        told, x, labels = data.rows(start, stop, vae)
        with torch.no_grad():
            found = encoded(told, x)
        good = found.mean.isfinite() & found.std.isfinite() & (found.std > 0)
        if not bool(good.all()):
            row, latent = (int(i) for i in (~good).nonzero()[0])
            raise CheckpointError(
                f"{vae.name} gives row {data.indices(start, stop)[row]} of {data.name} the mean "
                f"{found.mean[row, latent]:g} and standard deviation {found.std[row, latent]:g} in "
                f"latent {latent}; expected finite numbers"
            )
        yield start, found, labels


def isometric_map(vae: VAE, data: Prepared, beta: float, batch: int) -> IsometricMap:
    """The map z -> y that ``analyze --analysis coordinates`` finds on the same rows.

    Args:
        vae: the model.
        data: the rows.
        beta: KL weight in units of the metric.
        batch: rows at once.

    Returns:
        The map.
    """
    scales = ScaleTable(vae.latent_size)
    for _, found, _ in posteriors(vae, data, batch):
        scales.update(found.mean.double().cpu().numpy(), found.std.double().cpu().numpy())
    return scales.isometric_map(beta)


@contextmanager
def open_encoding(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray | None,
    reference: str | Path | None = None,
    **settings: Any,
) -> Iterator[tuple[Encoding, list[str]]]:
    """Prepare to encode rows; use it in a ``with`` statement and iterate over the encoding.

    Args:
        model: a model in memory, or the path of a checkpoint.
        data: as for :func:`isoprobe.analyze`.
        reference: result with the analysis ``coordinates``, whose map z -> y is taken.
        **settings: as for :func:`encode`.

    Yields:
        The rows to be encoded, and notes on them.

    Raises:
        OptionError: for an option that cannot be.
        ResultError: when the reference belongs to another model, or has no coordinates.
    """
    asked = CodeSettings(**settings)
    if asked.beta is not None and not asked.beta > 0:
        raise OptionError(f"--beta is a positive number; found {asked.beta:g}")
    if reference is not None:
        with Result.open(reference) as result:
            asked = read_alike(asked, result.attrs)
    with opened(model, data, asked) as subject, processor_threads(asked.threads):
        vae = subject.vae
        prepared = subject.fitted(asked, asked.samples)
        notes = [*subject.notes, *prepared.notes]
        isometric = None
        beta = asked.beta or vae.facts.beta
        if reference is not None:
            isometric = _reference_map(vae, Path(reference))
        elif beta is not None:
            batch = asked.batch_size or rows_forwards(vae, asked.memory)
            isometric = isometric_map(vae, prepared, beta, batch)
        else:
            notes.append("beta is not known: y is left out; give --beta or --reference")
        yield Encoding(vae, prepared, asked, isometric), notes


def _reference_map(vae: VAE, path: Path) -> IsometricMap:
    with Result.open(path) as result:
        check_model(vae, path, result.attrs)
        if "coordinates" not in result:
            raise ResultError(
                f"{path} has no isometric coordinates; make it with "
                "'isoprobe analyze MODEL --analysis coordinates --out F.h5'"
            )
        knots, slopes = (result["coordinates"].numbers(name, 2) for name in ("knots", "slopes"))
    known = np.isfinite(knots)
    if knots.shape != slopes.shape or len(knots) != vae.latent_size or not known.any(axis=1).all():
        raise ResultError(
            f"{path} is damaged: its coordinates do not fit {vae.latent_size} latents; run "
            "'analyze' again"
        )
    return map_from_arrays(knots, slopes)


def encode(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray | None = None,
    reference: str | Path | None = None,
    *,
    beta: float | None = None,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    trust: bool = False,
    allow_random: bool = False,
    samples: int | None = None,
    batch_size: int | None = None,
    resize: int | tuple[int, int] | None = None,
    pad: int | tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    condition: Any = None,
    device: str = "auto",
    dtype: str | None = None,
    memory: int = 1 << 30,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Encode rows and keep their codes in memory; :func:`open_encoding` streams.

    Args:
        model: a model in memory, or the path of a checkpoint.
        data: as for :func:`isoprobe.analyze`.
        reference: result with the analysis ``coordinates``, whose map z -> y is taken; None for
            the map that these rows give.
        beta: KL weight in units of the metric, for y; the checkpoint's own when None.
        adapter: name of the adapter for a path.
        options: of the adapter.
        trust: let code inside the checkpoint run, as for :func:`isoprobe.load`.
        allow_random: go on with a model whose answers differ from call to call.
        samples: at most this many rows, spread evenly over the data; None for all.
        batch_size: rows at once; planned from ``memory`` when None.
        resize: images to this height and width.
        pad: images to this height and width with zeros; as the checkpoint says when None.
        scale: data values that stand for the ends of the model's input range.
        condition: what a conditional model is told of each row: a spec or rows, as many as there
            are, or a number for all; None for the data's labels, or what the model finds itself.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` ...
        dtype: ``float32`` or ``float64``; the model's own when None.
        memory: bytes that layers may take at once.
        threads: processor threads; as many as PyTorch takes when None.

    Returns:
        Columns by name: ``row``, ``(N,)``; ``mean``, ``std`` and ``y``, ``(N, n)``, y where beta
        is known; ``kl`` in nats, ``(N,)``; ``label`` where rows have some.

    Raises:
        IsoprobeError: whatever does not fit, in one line.
    """
    given = locals()
    asked = {f.name: given[f.name] for f in fields(CodeSettings)}
    with open_encoding(model, data, reference, **asked) as (encoding, _):
        return gathered(encoding)


# --------------------------------------------------------------------------- back


def code_columns(dataset: Dataset, latents: int) -> np.ndarray:
    """Which values of a row of codes are z.

    Args:
        dataset: an array ``(N, n)``, or a table that ``encode`` wrote, whose columns ``mean_0``,
            ``mean_1`` ... are taken.
        latents: n.

    Returns:
        Their places, ``(n,)``.

    Raises:
        DataError: when there are not n of them.
    """
    wanted = [f"mean_{j}" for j in range(latents)]
    if set(wanted) <= set(dataset.columns):
        return np.array([dataset.columns.index(name) for name in wanted])
    if tuple(dataset.shape) != (latents,):
        raise DataError(
            f"{dataset.name} has rows of shape {tuple(dataset.shape)}; expected {latents} latents "
            "a row, or columns mean_0, mean_1 ... as 'isoprobe encode' writes them (of an .npz or "
            ".h5 file name the array, as in codes.npz:mean)"
        )
    return np.arange(latents)


def decoded(vae: VAE, codes: Dataset, memory: int = 1 << 30) -> Iterator[np.ndarray]:
    """Decode all rows of codes.

    Args:
        vae: the model.
        codes: as :func:`code_columns` takes them.
        memory: bytes that layers may take at once.

    Yields:
        Reconstructions batch by batch, ``(B, *input_shape)``.

    Raises:
        DataError: for codes that are not finite.
    """
    places, batch = code_columns(codes, vae.latent_size), rows_forwards(vae, memory)
    for start in range(0, len(codes), batch):
        rows = np.arange(start, min(start + batch, len(codes)))
        z = codes.read(rows)[:, places]
        good = np.isfinite(z).all(axis=1)
        if not good.all():
            raise DataError(
                f"row {rows[np.argmin(good)]} of {codes.name} is not finite; expected numbers"
            )
        yield _decode(vae, torch.as_tensor(z))


def decode(
    model: VAE | str | Path,
    codes: np.ndarray | Tensor | str,
    *,
    device: str = "auto",
    memory: int = 1 << 30,
    **opening: Any,
) -> np.ndarray:
    """Decode latents.

    Args:
        model: a model in memory, or the path of a checkpoint.
        codes: z ``(N, n)``, or the spec of a file of them, such as ``codes.parquet``.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` ...
        memory: bytes that layers may take at once.
        **opening: ``adapter``, ``options`` and ``trust`` as for :func:`isoprobe.load`;
            ``condition``, a number, for a model that is told something.

    Returns:
        Reconstructions, ``(N, *input_shape)``.

    Raises:
        IsoprobeError: whatever does not fit, in one line.
    """
    vae = placed(model, device, **opening)
    dataset = open_data(installed(), codes, vae, [])
    try:
        return np.concatenate(list(decoded(vae, dataset, memory)))
    finally:
        dataset.close()


def drawn(
    vae: VAE, count: int, seed: int, memory: int = 1 << 30
) -> Iterator[dict[str, np.ndarray]]:
    """Draw from the prior, N(0, I) or the model's own, and decode.

    Args:
        vae: the model.
        count: how many.
        seed: of the draws, which do not depend on the size of batches.
        memory: bytes that layers may take at once.

    Yields:
        ``z (B, n)`` and ``x (B, *input_shape)`` batch by batch.

    Raises:
        OptionError: for a count below one.
    """
    if count < 1:
        raise OptionError(f"--count is at least 1; found {count}")
    generator, chooser = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    batch = rows_forwards(vae, memory)
    for start in range(0, count, batch):
        z = generator.standard_normal((min(batch, count - start), vae.latent_size))
        if vae.prior is not None:
            choice = torch.as_tensor(chooser.random(len(z)))
            z = vae.prior.draw(torch.as_tensor(z), choice).numpy()
        yield {"z": z, "x": _decode(vae, torch.as_tensor(z))}


def sample(
    model: VAE | str | Path,
    count: int = 16,
    *,
    seed: int = 0,
    device: str = "auto",
    memory: int = 1 << 30,
    **opening: Any,
) -> np.ndarray:
    """Draw from the prior and decode.

    Args:
        model: a model in memory, or the path of a checkpoint.
        count: how many.
        seed: of the draws.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` ...
        memory: bytes that layers may take at once.
        **opening: ``adapter``, ``options`` and ``trust`` as for :func:`isoprobe.load`;
            ``condition``, a number, for a model that is told something.

    Returns:
        Decoded draws, ``(count, *input_shape)``.

    Raises:
        IsoprobeError: whatever does not fit, in one line.
    """
    vae = placed(model, device, **opening)
    return gathered(drawn(vae, count, seed, memory))["x"]


def placed(model: VAE | str | Path, device: str, **opening: Any) -> VAE:
    """Return a model in its place, loaded where it is a path."""
    condition = opening.pop("condition", None)
    vae = place(model if isinstance(model, VAE) else load(model, **opening), device, None)
    return conditioned(installed(), vae, condition)[0]


def _decode(vae: VAE, z: Tensor) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = vae.decode(z.to(vae.device, vae.dtype)).cpu().numpy()
    return found
