"""Figures 4, 5, 27 and 28: norms of the latents of CelebA and MNIST models, by importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import numpy as np

import isoprobe
from isoprobe.checkpoint import read_manifest
from isoprobe.errors import CheckpointError
from isoprobe_trainers.celeba import faces_run, train_faces
from isoprobe_trainers.datafiles.files import use_root
from isoprobe_trainers.mnist import PAPER, digits_run, train_digits
from isoprobe_trainers.tables import render
from isoprobe_trainers.training import pick_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from isoprobe_trainers.iterations import Run
    from isoprobe_trainers.reproduce_command import Settings

#: iterations of the quick schedules, and channels of the quick CelebA networks
QUICK_DIGITS, QUICK_FACES, QUICK_CHANNELS = 2_000, 1_000, 16
SAMPLES = 2_000
#: the paper's used dimensions in Appendix F
USED = 10.0
#: figure -> mean norm over used dimensions as printed, in the order of the runs
PRINTED: dict[str, tuple[str, ...]] = {
    "fig4": ("1.83",),
    "fig5": ("0.92",),
    "fig27": ("1.25", "0.95"),
    "fig28": ("close to 1", "close to 1"),
}


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


def runs_of(figure: str, *, quick: bool) -> list[Run]:
    """Trainings that a figure needs.

    Args:
        figure: key of :data:`PRINTED`.
        quick: shortened, and for CelebA with fewer channels.

    Returns:
        The trainings, in the order of the figure's panels.
    """
    if figure == "fig28":
        return [
            digits_run("mnist", n, lam, **({"iterations": QUICK_DIGITS} if quick else {}))
            for n, lam in PAPER
        ]
    latents = 256 if figure == "fig27" else 32
    losses = {"fig4": (False,), "fig5": (True,), "fig27": (False, True)}[figure]
    smaller = {"iterations": QUICK_FACES, "channels": QUICK_CHANNELS} if quick else {}
    return [faces_run(latents, decomposed=split, **smaller) for split in losses]


def reproduce(names: Sequence[str], settings: Settings) -> None:
    """Train or reuse the models of figures, analyse them, and print norms beside the paper's.

    Args:
        names: keys of :data:`PRINTED`.
        settings: schedule, folder, device and the folder of data files.
    """
    use_root(settings.data_root)
    folder = settings.out / ("quick" if settings.quick else "full") / "images"
    for name in names:
        click.echo(f"## {name}: norms of the latents\n")
        for run, printed in zip(runs_of(name, quick=settings.quick), PRINTED[name], strict=True):
            path = provide(run, folder, settings.device)
            result = folder / f"{run.name}.h5"
            click.echo(report(run, measure(path, result), printed))
            click.echo(f"\nresult: {result}\n")


def provide(run: Run, folder: Path, device: str) -> Path:
    """Return the checkpoint of a training, trained if it is not there.

    Args:
        run: the training.
        folder: of checkpoints.
        device: where to train.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: when one that is there was trained for another number of iterations.
    """
    path = folder / f"{run.name}.safetensors"
    if path.exists():
        if read_manifest(path).training.get("iterations") != run.iterations:
            raise CheckpointError(
                f"{path} was trained on another schedule; choose another --out, or remove it"
            )
        return path
    start: Callable[..., Path] = train_digits if run.architecture == "mlp" else train_faces
    return start(run, folder, pick_device(device), resume=True)


def measure(checkpoint: Path, result_path: Path) -> Latents:
    """Analyse a checkpoint on its own training data, as ``isoprobe analyze`` does.

    Args:
        checkpoint: native checkpoint.
        result_path: result file to write.

    Returns:
        Averages over at most 2,000 samples.
    """
    with isoprobe.analyze(
        checkpoint,
        analyses=("isometry", "importance"),
        samples=SAMPLES,
        out=result_path,
        overwrite=True,
    ) as result:
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
