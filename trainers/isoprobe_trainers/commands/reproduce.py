"""Run ``isoprobe reproduce``: the paper's tables and figures, ours beside its numbers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path

import click

from isoprobe.cli import options as core_options
from isoprobe.cli import options as shared
from isoprobe.cli.examples import examples
from isoprobe.hookspecs import hookimpl
from isoprobe_trainers.commands import options
from isoprobe_trainers.common.attempts import Attempts

ALL = "all"
#: prints the page of docs that is made from the records of finished trainings
PAGE = "page"

#: what can be reproduced -> what it is, and the module whose ``reproduce`` does it
ITEMS: dict[str, tuple[str, str]] = (
    {
        name: (about, "isoprobe_trainers.toy.experiments")
        for name, about in {
            "table1": "norms, D' and variances, square error",
            "table2": "the same with the downward-convex loss",
            "table4": "the same with five latents, of which two collapse",
            "fig3": "densities against p(x), downward-convex loss",
            "fig10": "densities against p(x), square error",
            "fig13-21": "the ablation: 3 data sets x 3 losses x 10 lambdas",
            "fig22": "variance ratios by data set and loss at lambda 100",
            "fig23": "coding loss against 3 beta / 2",
            "fig24": "transform over coding loss against 21 beta / 16",
            "fig25": "density against p(x), five latents",
            "radogaga": "control: an autoencoder that is isometric by construction",
        }.items()
    }
    | {
        name: (about, "isoprobe_trainers.anomaly.experiments")
        for name, about in {
            "table3": "anomaly detection: F1 on four data sets, with baselines",
            "table6": "anomaly detection: precision and recall too",
        }.items()
    }
    | {
        name: (about, "isoprobe_trainers.images.experiments")
        for name, about in {
            "fig4": "CelebA, 32 latents: norms of the latents",
            "fig5": "the same with the decomposed loss",
            "fig6": "CelebA, 32 latents, decomposed loss: walks of six latents",
            "fig26": "CelebA, 32 latents, both losses: walks of every latent",
            "fig27": "CelebA, 256 latents, both losses",
            "fig28": "MNIST, 32 and 64 latents: norms of the latents",
        }.items()
    }
)


@dataclass(frozen=True)
class Reproduction:
    """How to reproduce.

    Attributes:
        quick: the shortened schedule.
        out: folder for checkpoints, results and figures.
        seeds: how many models of each condition in the tables.
        device: where to train.
        compile_step: compile the losses.
        data_root: folder of the files of real data; None for what ISOPROBE_DATA names.
        decay: share of the toy models' epochs in which the rate falls; None for the schedule's.
        tables: data sets of the anomaly tables; none for all.
        records: folder that gets a record of each finished training; None for none.
        attempts: what failed so far.
    """

    quick: bool
    out: Path
    seeds: int
    device: str
    compile_step: bool
    data_root: Path | None = None
    decay: float | None = None
    tables: tuple[str, ...] = ()
    records: Path | None = None
    attempts: Attempts = field(default_factory=Attempts)

    @property
    def folder(self) -> Path:
        """Folder of this schedule."""
        return self.out / ("quick" if self.quick else "full")


def _names(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    from isoprobe.errors import nearest

    for name in given:
        if name not in {*ITEMS, ALL, PAGE}:
            hint = nearest(name, list(ITEMS)) or f"; there are {', '.join(ITEMS)}"
            raise click.BadParameter(f"'{name}' is not known{hint}.")
    if PAGE in given and len(given) > 1:
        raise click.BadParameter(f"'{PAGE}' stands alone.")
    return tuple(ITEMS) if ALL in given else tuple(dict.fromkeys(given))


def _listing() -> str:
    width = max(map(len, ITEMS))
    lines = [f"  {name:<{width}}  {about}" for name, (about, _) in ITEMS.items()]
    every = f"  {ALL:<{width}}  everything"
    page = f"  {PAGE:<{width}}  the page of finished trainings, from their records alone"
    return "\n".join(["\b", "What there is:", *lines, every, page])


@click.command(
    short_help="Reproduce tables and figures of the paper.",
    epilog=_listing()
    + "\n\n"
    + examples(
        "isoprobe reproduce table1 table2 --quick",
        "isoprobe reproduce table1 table2 table4 fig3 fig10 fig25 --out runs/paper",
        "isoprobe reproduce table3 table6 --quick --data thyroid --data-root data",
        "isoprobe reproduce all --plan     what is missing, and how long it takes",
        "isoprobe reproduce fig13-21 fig22 fig23 fig24 --quick     90 models in one program",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", callback=_names)
@click.option("--quick", is_flag=True, help="A schedule that reaches the same figures in minutes.")
@options.out("runs/reproduce", "checkpoints, results and figures; what is there is used again")
@shared.count(
    "--seeds", default=3, help="Models of each condition in the tables; the ablation has one."
)
@click.option(
    "--data",
    "tables",
    multiple=True,
    type=click.Choice(options.TABLES),
    help="Data sets of table3 and table6; repeatable. [default: all]",
)
@options.data_root
@click.option(
    "--decay",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Toy models: last share of the epochs in which the rate falls. [default: 0.1; 1 if quick]",
)
@core_options.device
@options.compile_step
@shared.written(
    "--records",
    folder=True,
    metavar="FOLDER",
    help="Write what was measured of each model there, as the page of finished trainings reads it.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Print what would be trained, and stop.")
def reproduce(names: tuple[str, ...], only_plan: bool, **given: object) -> None:
    """Train or reuse models, analyse them, and compare with the paper's numbers.

    Everything asked for in one call is trained together. Tables go to stdout as Markdown,
    figures to the folder, progress to stderr. An item that fails is named at the end, and the
    others go on; a second call does what is missing, from where a training stopped.
    """
    if names == (PAGE,):
        from isoprobe_trainers.page.whole import page

        click.echo(page(), nl=False)
        return
    from isoprobe_trainers.common.plan import plan

    settings = Reproduction(**given)  # type: ignore[arg-type]
    homes: dict[str, list[str]] = {}
    for name in names:
        homes.setdefault(ITEMS[name][1], []).append(name)
    modules = {importlib.import_module(home): names for home, names in homes.items()}
    if only_plan or len(names) == len(ITEMS):
        works = [work for module, names in modules.items() for work in module.work(names, settings)]
        click.echo(plan(works) + "\n", err=not only_plan)
    if only_plan:
        return
    for module, wanted in modules.items():
        with settings.attempts.item(" ".join(wanted)):
            module.reproduce(wanted, settings)
    settings.attempts.conclude()


@hookimpl
def isoprobe_commands() -> list[click.Command]:
    """Return ``reproduce``."""
    return [reproduce]
