"""Repeat Figures 4 to 6 and 26 to 28: norms and walks of latents of CelebA and MNIST models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click
import numpy as np

from isoprobe.registry.lookup import installed
from isoprobe_trainers.common.analysed import analysed
from isoprobe_trainers.common.files import use_root
from isoprobe_trainers.common.isometric import PAIRS, isometric
from isoprobe_trainers.common.plan import Work
from isoprobe_trainers.common.records import Record, origin, rounded, write
from isoprobe_trainers.common.tables import render
from isoprobe_trainers.common.training import pick_device, trained
from isoprobe_trainers.images import figures as latent_figures
from isoprobe_trainers.images.train import (
    DIGITS_ITERATIONS,
    FACES_ITERATIONS,
    PAPER,
    digits,
    digits_run,
    faces,
    faces_run,
    train,
)
from isoprobe_trainers.images.walks import GROUPS, walks_of
from isoprobe_trainers.images.walks import report as report_walks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from isoprobe.results.reader import Result
    from isoprobe_trainers.commands.reproduce import Reproduction
    from isoprobe_trainers.images.train import Run

#: processor seconds of an iteration: MNIST's, and CelebA's for each image of its batch
DIGITS_SECONDS, FACE_SECONDS = 0.085, 0.018
#: names of these experiments in records
DIGITS, FACES = "fig28", "celeba"
#: the paper's used dimensions in Appendix F
USED = 10.0
#: figure -> mean norm over used dimensions as printed, in the order of the runs
PRINTED: dict[str, tuple[str, ...]] = {
    "fig4": ("1.83",),
    "fig5": ("0.92",),
    "fig27": ("1.25", "0.95"),
    "fig28": ("close to 1", "close to 1"),
}
#: figure -> the losses of its models, and places in the order of sigma^-2 that are tabled
WALKED: dict[str, tuple[tuple[bool, ...], Sequence[int]]] = {
    "fig6": ((True,), GROUPS),
    "fig26": ((False, True), range(1, 33)),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of models and schedules.

    Attributes:
        digits: latents and lambda of the two models of Figure 28.
        widths: hidden layers of these.
        batch: rows of their steps.
        channels: of the convolutions for faces.
        dense: widths of their dense layers; None for the paper's.
        samples: images analysed; each costs as many decoder passes as there are latents.
        quick_digits: iterations of the quick schedule for digits.
        quick_faces: the same for faces.
        quick_decay: last share of these at a falling rate.
        quick_batch: rows of a quick step for faces.
        quick_rate: with a quarter of the batch the paper's rate never leaves the mean face.
        quick_samples: images analysed in quick runs.
    """

    digits: Sequence[tuple[int, float]] = PAPER
    widths: Sequence[int] = (1024, 1024)
    batch: int = 256
    channels: int = 64
    dense: Sequence[int] | None = None
    samples: int = 2_000
    quick_digits: int = 5_000
    quick_faces: int = 3_000
    quick_decay: float = 0.3
    quick_batch: int = 16
    quick_rate: float = 3e-4
    quick_samples: int = 500


SIZES = Sizes()


@dataclass(frozen=True)
class Latents:
    """What a figure shows, by latent in descending order of E[sigma^-2].

    Attributes:
        inverse_variance: E[sigma_j^-2], ``(n,)``.
        norm: mean of (2/beta) sigma_j^2 D'_j (Eq. 23), ``(n,)``.
        residual: mean of norm + sigma^2 - 1, ``(n,)``.
        active: whether the mean KL is above the threshold, ``(n,)`` bool.
    """

    inverse_variance: NDArray[np.float64]
    norm: NDArray[np.float64]
    residual: NDArray[np.float64]
    active: NDArray[np.bool_]


def runs_of(figure: str, *, quick: bool, sizes: Sizes = SIZES) -> list[Run]:
    """Trainings that a figure needs.

    Args:
        figure: key of :data:`PRINTED` or :data:`WALKED`.
        quick: shortened, and for CelebA with a smaller batch and rate.
        sizes: of models and schedules.

    Returns:
        The trainings, in the order of the figure's panels.
    """
    if figure == "fig28":
        runs = [
            digits_run("mnist", n, lam, batch=sizes.batch, widths=sizes.widths)
            for n, lam in sizes.digits
        ]
        iterations = sizes.quick_digits
    else:
        latents = 256 if figure == "fig27" else 32
        panels = {"fig4": (False,), "fig5": (True,), "fig27": (False, True)}
        losses = panels[figure] if figure in panels else WALKED[figure][0]
        runs = [
            faces_run(latents, decomposed=split, channels=sizes.channels, dense=sizes.dense)
            for split in losses
        ]
        iterations = sizes.quick_faces
        if quick:
            runs = [replace(run, batch=sizes.quick_batch, rate=sizes.quick_rate) for run in runs]
    if not quick:
        return runs
    return [replace(run, iterations=iterations, decay=sizes.quick_decay) for run in runs]


def reproduce(names: Sequence[str], settings: Reproduction, sizes: Sizes = SIZES) -> None:
    """Train or reuse the models of figures, analyse them, draw, and print beside the paper.

    Args:
        names: keys of :data:`PRINTED` or :data:`WALKED`.
        settings: schedule, folder, device and the folder of data files.
        sizes: of models and schedules.
    """
    use_root(settings.data_root)
    for name in names:
        with settings.attempts.item(name):
            click.echo(f"## {name}: {'walks along' if name in WALKED else 'norms of'} latents\n")
            for panel, run in enumerate(runs_of(name, quick=settings.quick, sizes=sizes)):
                click.echo(_panel(name, panel, run, settings, sizes) + "\n")


def work(names: Sequence[str], settings: Reproduction) -> list[Work]:
    """Models that the figures need, and how long each takes.

    Args:
        names: keys of :data:`PRINTED` or :data:`WALKED`.
        settings: schedule and folder.

    Returns:
        The work of each.
    """
    works = []
    for name in names:
        runs = runs_of(name, quick=settings.quick)
        seconds = {
            settings.folder / "images" / f"{run.name}.safetensors": run.iterations * _cost(run)
            for run in runs
        }
        works.append(Work(name, "mnist" if name == "fig28" else "celeba", seconds))
    return works


def _cost(run: Run) -> float:
    """Processor seconds of an iteration."""
    return DIGITS_SECONDS if run.architecture == "mlp" else FACE_SECONDS * run.batch


def _panel(name: str, panel: int, run: Run, settings: Reproduction, sizes: Sizes) -> str:
    """Return the text of one model of a figure, the figure being drawn."""
    folder = settings.folder / "images"
    checkpoint = provide(run, folder, settings.device)
    samples = sizes.quick_samples if settings.quick else sizes.samples
    walked = name in WALKED
    path = folder / f"{run.name}_{'walks' if walked else 'norms'}{samples}.h5"
    shown = f"traversal:latents={run.config['latent_size']}" if walked else "isometry"
    with analysed(checkpoint, path, ("importance", shown), samples=samples) as result:
        drawing = settings.folder / "figures" / f"{name}_{run.name}"
        if walked:
            found = walks_of(result, installed().metric(run.metric), run.beta)
            text, drawn = (
                report_walks(run.name, found, WALKED[name][1]),
                drawing.with_name(f"{drawing.name}.png"),
            )
            latent_figures.walks(drawn, result, run.name)
        else:
            if settings.records is not None:
                _record(run, result, checkpoint, settings.records)
            text, drawn = (
                report(run, measure(result), PRINTED[name][panel]),
                drawing.with_name(f"{drawing.name}.svg"),
            )
            latent_figures.spectrum(drawn, result, run.name)
    return f"{text}\n\nfigure: {drawn}; result: {path}"


def _record(run: Run, result: Result, checkpoint: Path, records: Path) -> None:
    """Keep what was measured of a model's latents."""
    found, digits = measure(result), run.architecture == "mlp"
    kept = {
        name: rounded(getattr(found, name).tolist())
        for name in ("inverse_variance", "norm", "residual")
    }
    record = Record(
        experiment=DIGITS if digits else FACES,
        model=_words(run),
        seeds=(run.seed,),
        iterations=run.iterations,
        planned=DIGITS_ITERATIONS if digits else FACES_ITERATIONS,
        batch=run.batch,
        rate=run.rate,
        decay=run.decay,
        values={
            **kept,
            "active": found.active.tolist(),
            "samples": int(result.sizes["sample"]),
            "beta": run.beta,
            "beta_recovered": float(result.attrs["beta_recovered"]),
            "rate": float(result["overview"]["kl_mean"].values.sum()),
            "cosine": float(result["isometry"]["cosine_mean_abs"].values),
            # a shortest path under SSIM takes minutes
            "isometric": [isometric(checkpoint, pairs=PAIRS if digits else 0)],
        },
        **origin([checkpoint]),
    )
    write(record, records, run.name)


def _words(run: Run) -> str:
    """A training in words, as its record names it."""
    latents = f"{run.config['latent_size']} latents"
    if run.architecture == "mlp":
        return f"MNIST, {latents}"
    _, height, width = run.config["input_shape"]
    loss = "decomposed" if run.decomposed else "plain"
    return f"CelebA {height} x {width}, {latents}, {run.config['channels']} channels, {loss}"


def provide(run: Run, folder: Path, device: str) -> Path:
    """Return the checkpoint of a training, trained if it is not there.

    Args:
        run: the training.
        folder: of checkpoints.
        device: where to train.

    Returns:
        The checkpoint.
    """
    path = folder / f"{run.name}.safetensors"
    schedule = {"iterations": run.iterations, "batch": run.batch, "lr": run.rate}
    if trained(path, **schedule, decay=run.decay):
        return path
    place = pick_device(device)
    rows, count = digits(run, place) if run.architecture == "mlp" else faces(run, place)
    return train(run, rows, count, folder, place, resume=True)


def measure(result: Result) -> Latents:
    """Average over the samples of a result.

    Args:
        result: with ``isometry``.

    Returns:
        Averages, by latent in descending order of E[sigma^-2].
    """
    overview, isometry = result["overview"], result["isometry"]
    inverse = overview["inverse_variance_mean"].values
    order = np.argsort(-inverse, kind="stable")
    return Latents(
        inverse_variance=inverse[order],
        norm=isometry["norm_mean"].values[order],
        residual=isometry["residual_mean"].values[order],
        active=overview["active"].values.astype(bool)[order],
    )


def report(run: Run, found: Latents, printed: str) -> str:
    """Return a table of a model's latents in groups, and the paper's mean norm.

    Args:
        run: the training.
        found: its latents.
        printed: mean norm over used dimensions, as the paper has it.

    Returns:
        Markdown.
    """
    used = found.active & (found.inverse_variance > USED)
    groups = {
        f"used, E[sigma^-2] > {USED:g}": used,
        "active, below that": found.active & ~used,
        "collapsed": ~found.active,
    }
    rows = [[name, str(int(mask.sum())), *_means(found, mask)] for name, mask in groups.items()]
    header = [run.name, "latents", "norm mean", "norm SD over latents", "residual mean"]
    note = f"{run.iterations} iterations; mean norm of the used latents in the paper: {printed}"
    return f"{render(header, rows)}\n\n{note}"


def _means(found: Latents, mask: NDArray[np.bool_]) -> list[str]:
    if not mask.any():
        return ["-", "-", "-"]
    norm, residual = found.norm[mask], found.residual[mask]
    return [f"{norm.mean():.3f}", f"{norm.std():.3f}", f"{residual.mean():+.3f}"]
