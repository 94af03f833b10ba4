"""Walk between two rows: along the shortest path of M, or straight in y or in z."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from isoprobe.data.batches import prepare
from isoprobe.data.padding import padded, wanted
from isoprobe.derivatives.memory import plan, rows_forwards
from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe.derivatives.surface import surface
from isoprobe.errors import DataError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.run.codes import isometric_map, posteriors
from isoprobe.run.opening import open_data, opened
from isoprobe.run.settings import CodeSettings
from isoprobe.run.settle import chosen_metric, declared_beta
from isoprobe.theory.geodesics import THOROUGH, equal_steps, geodesics, path_length, straight
from isoprobe.theory.isometric import IsometricMap, straight_in_y

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Dataset, Metric
    from isoprobe.data.batches import Prepared
    from isoprobe.registry.lookup import Registry
    from isoprobe.theory.geodesics import Surface

PATHS = ("geodesic", "y", "z")
#: rows that the map z -> y is made from
_ROWS = 10_000


@dataclass(frozen=True)
class Walk:
    """Decoded points of a path, equally far apart in M = J'GJ + (beta/2) I.

    Attributes:
        z: latents, ``(steps, n)``; the ends are the means of the two rows.
        images: decoded, ``(steps, *input_shape)``.
        length: of the path, in the square root of the metric's units.
        error: how far off its segments may leave it.
        converged: for the shortest path, that a further step would save less than 1 %.
    """

    z: np.ndarray
    images: np.ndarray
    length: float
    error: float
    converged: bool


def interpolate(
    model: VAE | str | Path,
    a: int | Tensor | np.ndarray,
    b: int | Tensor | np.ndarray,
    steps: int = 11,
    path: Literal["geodesic", "y", "z"] = "geodesic",
    *,
    data: str | Dataset | Tensor | np.ndarray | None = None,
    metric: str | Metric | None = None,
    beta: float | None = None,
    memory: int = 1 << 30,
    **opening: Any,
) -> Walk:
    """Walk from one row to another.

    Args:
        model: a model in memory, or the path of a checkpoint.
        a: first row, ``(*input_shape)`` as the data stores rows, or its number in the data.
        b: last row.
        steps: points, ends included, equally far apart in the metric.
        path: ``geodesic`` for the shortest, ``y`` or ``z`` for a straight line.
        data: rows that a and b are numbers of, and that the map z -> y is made from; as for
            :func:`isoprobe.analyze`, the checkpoint's own or the prior's when None.
        metric: spec or instance; the declared one when None.
        beta: KL weight in units of the metric; the declared one when None.
        memory: bytes that layers and derivatives may take at once.
        **opening: ``adapter``, ``options``, ``trust``, ``resize``, ``pad``, ``scale``,
            ``device``, ``dtype``, ``threads`` as for :func:`isoprobe.analyze`.

    Returns:
        The walk.

    Raises:
        OptionError: for a path or number of steps that cannot be, or where metric or beta are not
            known.
        DataError: for a row that is not there.
    """
    if path not in PATHS or steps < 2:
        raise OptionError(
            f"a path is {', '.join(PATHS)} with at least 2 steps; found '{path}' and {steps}"
        )
    if isinstance(a, int) != isinstance(b, int):
        raise OptionError("the ends are both numbers of rows, or both rows")
    asked = CodeSettings(beta=beta, memory=memory, **opening)
    with opened(model, data, asked) as subject:
        vae = subject.vae
        chosen = chosen_metric(subject.registry, metric, vae)
        weight = _beta(subject.registry, vae, chosen, beta)
        if chosen is None or weight is None:
            raise OptionError(
                f"{vae.name} does not say its {'metric' if chosen is None else 'beta'}, which give "
                "distances their unit; give --metric and --beta"
            )
        if vae.prior is not None:
            raise OptionError(
                f"distances hold beta / 2 times the curvature of N(0, I), and the prior of "
                f"{vae.name} is {vae.prior.words}; walks along it are not judged"
            )
        if vae.conditional is not None:
            raise OptionError(
                f"{vae.name} is told {vae.conditional.wanted} of each sample, and a walk has one "
                "decoder: hold it with --condition VALUE"
            )
        every = prepare(subject.dataset, vae, resize=asked.resize, scale=asked.scale, metric=chosen)
        ends = _ends(vae, every, (a, b), asked)
        sizes = plan(vae, output_metric(chosen, vae).decode, memory, gram=True)
        seen = surface(output_metric(chosen, vae), vae, weight, sizes)
        isometric = None
        if path != "z":
            few = prepare(
                subject.dataset, vae, samples=min(_ROWS, len(subject.dataset)),
                resize=asked.resize, scale=asked.scale,
            )  # fmt: skip
            isometric = isometric_map(vae, few, weight, rows_forwards(vae, memory))
        return walk(vae, seen, ends, steps, isometric, shortest=path == "geodesic")


def walk(
    vae: VAE,
    seen: Surface,
    ends: np.ndarray,
    steps: int,
    isometric: IsometricMap | None,
    *,
    shortest: bool,
) -> Walk:
    """Walk between two latents.

    Args:
        vae: the model.
        seen: its decoder and metric.
        ends: ``(2, n)``.
        steps: points wanted.
        isometric: the map z -> y; None for the straight line in z.
        shortest: search for the shortest path, else straight in y where there is a map.

    Returns:
        The walk.
    """
    first, last = (torch.as_tensor(end)[None].double() for end in ends)
    lines = [straight(first, last)]
    if isometric is not None:
        lines.append(torch.from_numpy(straight_in_y(isometric, ends[None], lines[0].shape[1])))
    nodes, converged = lines[-1], True
    if shortest:
        found = geodesics(seen, lines, THOROUGH)
        nodes, converged = found.points, bool(found.converged[0])
    length, error = path_length(seen, nodes)
    z = equal_steps(seen, nodes, steps)[0]
    with torch.no_grad():
        images = vae.decode(z.to(vae.device, vae.dtype)).cpu().numpy()
    return Walk(z.numpy(), images, float(length[0]), float(error[0]), converged)


def _beta(registry: Registry, vae: VAE, metric: Metric | None, given: float | None) -> float | None:
    if given is not None:
        if not given > 0:
            raise OptionError(f"--beta is a positive number; found {given:g}")
        return given
    if metric is None:
        return None
    declared = declared_beta(registry, vae, metric, [])
    return declared.value if declared is not None and declared.comparable else None


def _ends(vae: VAE, data: Prepared, ends: Sequence[Any], asked: CodeSettings) -> np.ndarray:
    """Posterior means ``(2, n)`` of rows, or of rows by their numbers."""
    numbered = all(isinstance(end, int) for end in ends)
    stored = [
        _row(data, end) if numbered else np.asarray(torch.as_tensor(end).cpu()) for end in ends
    ]
    given = open_data(installed(), np.stack(stored), vae, [])
    given = padded(given, asked.pad or wanted(vae, given))
    rows = prepare(given, vae, resize=asked.resize, scale=asked.scale)
    if numbered:  # as the data's other rows are: their type may be lost in reading
        rows = replace(rows, fits=data.fits, limits=data.limits)
    held = [found.mean for _, found, _ in posteriors(vae, rows, 2)]
    means: np.ndarray = torch.cat(held).double().cpu().numpy()
    return means


def _row(data: Prepared, row: int) -> np.ndarray:
    if not 0 <= row < len(data.dataset):
        raise DataError(f"{data.name} has rows 0 to {len(data.dataset) - 1}; there is no row {row}")
    stored: np.ndarray = data.dataset.read(np.array([row]))[0]
    return stored
