"""``isoprobe train celeba``."""

from __future__ import annotations

from pathlib import Path

import click

from isoprobe.cli.examples import examples


@click.command(
    short_help="The convolutional VAEs of Section 5.2, on CelebA.",
    epilog=examples(
        "isoprobe train celeba --data-root data --device cuda",
        "isoprobe train celeba --decomposed --latents 256 --resume",
        "isoprobe train celeba --channels 8 --batch-size 16 --iterations 500     a small trial",
    ),
)
@click.option(
    "--latents",
    type=click.Choice(["32", "256"]),
    default="32",
    show_default=True,
    help="Also sets lambda, 1000 or 10000, and the dense layers.",
)
@click.option("--decomposed", is_flag=True, help="Train on D(x, x_check) + D(x_check, x_hat).")
@click.option("--channels", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--iterations", type=click.IntRange(min=1), default=300_000, show_default=True)
@click.option("--samples", type=click.IntRange(min=1), help="Images to train on. [default: all]")
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
    default=Path("runs/celeba"),
    show_default=True,
    help="Folder for the checkpoint, the log and the resume file.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps ...")
@click.option("--resume", is_flag=True, help="Go on where an interrupted training stopped.")
@click.option("--overwrite", is_flag=True, help="Replace an existing checkpoint.")
def celeba(
    *,
    latents: str,
    decomposed: bool,
    channels: int,
    batch_size: int,
    iterations: int,
    samples: int | None,
    seed: int,
    data_root: Path | None,
    out: Path,
    device: str,
    resume: bool,
    overwrite: bool,
) -> None:
    """Train a VAE with GDN on faces of 64 x 64 pixels; prints the path of the checkpoint.

    The folder of data files holds the official img_align_celeba and list_eval_partition.txt, or the
    archive celeba64_subset.zip.
    """
    from isoprobe_trainers.celeba import faces_run, train_faces
    from isoprobe_trainers.datafiles.files import use_root
    from isoprobe_trainers.training import pick_device

    use_root(data_root)
    run = faces_run(
        int(latents),
        decomposed=decomposed,
        channels=channels,
        iterations=iterations,
        batch=batch_size,
        seed=seed,
    )
    chosen = pick_device(device)
    click.echo(train_faces(run, out, chosen, samples=samples, resume=resume, overwrite=overwrite))
