"""``isoprobe train mnist``."""

from __future__ import annotations

from pathlib import Path

import click

from isoprobe.cli.examples import examples


@click.command(
    short_help="The VAEs of Appendix F, on MNIST or Fashion-MNIST.",
    epilog=examples(
        "isoprobe train mnist --data-root data",
        "isoprobe train mnist --latents 64 --lam 10000 --resume",
        "isoprobe train mnist --data fashion-mnist --iterations 5000 --device cuda",
    ),
)
@click.option(
    "--data",
    type=click.Choice(["mnist", "fashion-mnist"]),
    default="mnist",
    show_default=True,
    help="Which images; 50,000 are trained on.",
)
@click.option("--latents", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--lam",
    type=float,
    default=2000.0,
    show_default=True,
    help="Weight of the cross entropy averaged over pixels; beta = 784 / lam.",
)
@click.option("--iterations", type=click.IntRange(min=1), default=50_000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ISOPROBE_DATA",
    show_envvar=True,
    help="Folder of the data files.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/mnist"),
    show_default=True,
    help="Folder for the checkpoint, the log and the resume file.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps ...")
@click.option("--resume", is_flag=True, help="Go on where an interrupted training stopped.")
@click.option("--overwrite", is_flag=True, help="Replace an existing checkpoint.")
def mnist(
    *,
    data: str,
    latents: int,
    lam: float,
    iterations: int,
    seed: int,
    data_root: Path | None,
    out: Path,
    device: str,
    resume: bool,
    overwrite: bool,
) -> None:
    """Train a dense VAE on images of 28 x 28 pixels; prints the path of the checkpoint."""
    from isoprobe.errors import OptionError
    from isoprobe_trainers.datafiles.files import use_root
    from isoprobe_trainers.mnist import digits_run, train_digits
    from isoprobe_trainers.training import pick_device

    use_root(data_root)
    if not lam > 0:
        raise OptionError(f"--lam must be a positive number; found {lam:g}")
    run = digits_run(data, latents, lam, iterations, seed)
    click.echo(train_digits(run, out, pick_device(device), resume=resume, overwrite=overwrite))
