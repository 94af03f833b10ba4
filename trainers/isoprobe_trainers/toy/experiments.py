"""Repeat the paper's toy experiments: which models each needs, and what it says of them."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from isoprobe_trainers.common import tables
from isoprobe_trainers.common.isometric import SAMPLES, isometric
from isoprobe_trainers.common.plan import Work
from isoprobe_trainers.common.records import Record, origin, rounded, write
from isoprobe_trainers.common.training import pick_device, trained
from isoprobe_trainers.toy import ablation
from isoprobe_trainers.toy import figures as toy_figures
from isoprobe_trainers.toy.data import PAPER_VARIANCES
from isoprobe_trainers.toy.measure import measure
from isoprobe_trainers.toy.members import Member
from isoprobe_trainers.toy.source import parse
from isoprobe_trainers.toy.train import FULL, QUICK, checkpoint_path, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from isoprobe_trainers.commands.reproduce import Reproduction
    from isoprobe_trainers.common.training import Schedule
    from isoprobe_trainers.toy.measure import Measurement

#: name of these experiments in records
EXPERIMENT = "toy"
#: table or figure -> the models it is made of, in words; those of one condition are the same
CONDITIONS = {
    "table1": "square error, 3 latents",
    "fig10": "square error, 3 latents",
    "table2": "downward-convex, 3 latents",
    "fig3": "downward-convex, 3 latents",
    "table4": "square error, 5 latents",
    "fig25": "square error, 5 latents",
    "radogaga": "RaDOGAGA, 3 latents",
    "fig13-21": "ablation",
}
#: what a record keeps of a model
QUANTITIES = (
    *("active", "norm_mean", "norm_sd", "residual", "pullback_mean", "pullback_sd"),
    *("inverse_variance", "inverse_variance_ratio", "rough", "exact", "beta_recovered"),
    *("transform_loss", "coding_loss", "loss_ratio", "r_prior", "r_posterior", "r_objective"),
    *("r_scaled_posterior", "r_scaled_objective"),
)
#: rows of an epoch that one core gets through, of all models of an ensemble together
ROWS_A_SECOND = 200_000


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        title: what it is.
        members: models it needs, given the number of seeds.
        report: text to print, given the measurements, the figures' folder and a tolerance factor.
        many: whether it takes many models, of each of which fewer rows are analysed.
    """

    title: str
    members: Callable[[int], list[Member]]
    report: Callable[[Sequence[Measurement], Path, float], str]
    many: bool = False


@dataclass(frozen=True)
class Sizes:
    """Sizes of data and schedules.

    Attributes:
        full: the schedule of Appendix C.1.
        quick: the shortened one.
        rows: of each data set; as its spec says when None.
        samples: rows analysed of each model of the tables.
        samples_of_many: of each of the 90 models of the ablation.
    """

    full: Schedule = FULL
    quick: Schedule = QUICK
    rows: int | None = None
    samples: int = 50_000
    samples_of_many: int = 10_000

    def members(self, name: str, seeds: int) -> list[Member]:
        """Return the models of an experiment, each with as many rows as asked."""
        members = EXPERIMENTS[name].members(seeds)
        if self.rows is None:
            return members
        return [replace(m, data=f"{m.data},samples={self.rows}") for m in members]


SIZES = Sizes()


def reproduce(names: Sequence[str], settings: Reproduction, sizes: Sizes = SIZES) -> None:
    """Train or reuse what the experiments need, analyse it, and print every comparison.

    Args:
        names: keys of :data:`EXPERIMENTS`.
        settings: schedule, folder, seeds and device.
        sizes: of data and schedules.
    """
    schedule, folder = _schedule(settings, sizes)
    wanted = {name: sizes.members(name, settings.seeds) for name in names}
    _provide([m for members in wanted.values() for m in members], schedule, folder, settings)
    for name, members in wanted.items():
        with settings.attempts.item(name):
            experiment = EXPERIMENTS[name]
            samples = sizes.samples_of_many if experiment.many else sizes.samples
            measured = [
                _measured(member, folder, samples)
                for member in tqdm(members, f"analyse {name}", unit="model", disable=None)
            ]
            if settings.records is not None and name in CONDITIONS:
                _record(name, measured, schedule, sizes.full.epochs, folder, settings.records)
            click.echo(f"## {name}: {experiment.title}\n")
            slack = 2.0 if settings.quick else 1.0
            click.echo(experiment.report(measured, folder / "figures", slack) + "\n")


def work(names: Sequence[str], settings: Reproduction) -> list[Work]:
    """Models that the experiments need, and how long each takes.

    Args:
        names: keys of :data:`EXPERIMENTS`.
        settings: schedule, folder and seeds.

    Returns:
        The work of each.
    """
    schedule, folder = _schedule(settings, SIZES)
    works = []
    for name in names:
        members = SIZES.members(name, settings.seeds)
        seconds = {
            checkpoint_path(folder, m): schedule.epochs * parse(m.data).samples / ROWS_A_SECOND
            for m in members
        }
        works.append(Work(name, "toy", seconds))
    return works


def _schedule(settings: Reproduction, sizes: Sizes) -> tuple[Schedule, Path]:
    """Return the schedule and the folder of what is trained by it."""
    schedule = sizes.quick if settings.quick else sizes.full
    if settings.decay is None:
        return schedule, settings.folder
    folder = settings.folder.with_name(f"{settings.folder.name}-decay{settings.decay:g}")
    return replace(schedule, decay=settings.decay), folder


def _provide(
    members: Sequence[Member], schedule: Schedule, folder: Path, settings: Reproduction
) -> None:
    """Train, in one program, the members that have no checkpoint yet."""
    record = schedule.record()
    missing = [
        member
        for member in dict.fromkeys(members)
        if not trained(checkpoint_path(folder, member), schedule=record)
    ]
    if missing:
        click.echo(f"training {len(missing)} models into {folder}", err=True)
        device = pick_device(settings.device)
        train(missing, schedule, folder, device, resume=True, compile_step=settings.compile_step)


def _measured(member: Member, folder: Path, samples: int) -> Measurement:
    result = folder / "results" / f"{member.name}_{samples}.h5"
    result.parent.mkdir(parents=True, exist_ok=True)
    return measure(checkpoint_path(folder, member), member, result, samples)


def _record(
    name: str,
    models: Sequence[Measurement],
    schedule: Schedule,
    planned: int,
    folder: Path,
    records: Path,
) -> None:
    """Keep what was measured of the models of a condition, seed by seed."""
    if name == "radogaga":  # the VAEs beside it are those of Table 1
        models = [m for m in models if m.member.objective == name]
    checkpoints = [checkpoint_path(folder, m.member) for m in models]
    values: dict[str, Any] = {
        "members": [astuple(m.member) for m in models],
        **{q: [rounded(m.values(q)) for m in models] for q in QUANTITIES},
    }
    if name not in {"radogaga", "fig13-21"}:
        values["isometric"] = [isometric(checkpoint, 10 * SAMPLES) for checkpoint in checkpoints]
    record = Record(
        experiment=EXPERIMENT,
        model=CONDITIONS[name],
        seeds=tuple(dict.fromkeys(m.member.seed for m in models)),
        epochs=schedule.epochs,
        planned=planned,
        batch=schedule.batch,
        rate=schedule.lr,
        decay=schedule.decay,
        values=values,
        **origin(checkpoints),
    )
    words = CONDITIONS[name].lower().replace(", ", "_").replace(" ", "-")
    write(record, records, f"toy_{words}")


# --------------------------------------------------------------------------- conditions


def _condition(
    metric: str = "sse", latents: int = 3, objective: str = "plain"
) -> Callable[[int], list[Member]]:
    """Models that differ in the seed alone; each seed draws its own data."""

    def members(seeds: int) -> list[Member]:
        return [
            Member(f"toy/mix:seed={s}", metric, 100.0, s, latents, objective) for s in range(seeds)
        ]

    return members


def _control(seeds: int) -> list[Member]:
    return [*_condition()(seeds), *_condition(objective="radogaga")(seeds)]


# --------------------------------------------------------------------------- reports


def correlations(place: str, models: Sequence[Measurement], slack: float) -> str:
    """Return the correlations of a scatter plot, ours beside the paper's, and seed by seed.

    Args:
        place: ``fig3``, ``fig10`` or ``fig25``.
        models: of its condition.
        slack: factor on the tolerances.

    Returns:
        Markdown.
    """
    rows = [
        [label, " ".join(f"{getattr(m, name):.3f}" for m in models)]
        for label, name in _PANELS[place].items()
    ]
    seeds = tables.render([place, "R with p(x), by seed"], rows)
    return seeds if place == "fig25" else f"{compared(place, models, slack)}\n\n{seeds}"


def compared(place: str, models: Sequence[Measurement], slack: float) -> str:
    """Return ours beside the paper's; arguments as for :func:`correlations`."""
    return tables.compare(place, lambda quantity: [m.values(quantity) for m in models], slack)


def with_beyond(place: str, models: Sequence[Measurement], slack: float) -> str:
    """Return a table of the paper, and what it leaves out; arguments as there."""
    beyond = tables.beyond(models, PAPER_VARIANCES)
    return f"{compared(place, models, slack)}\n\n{beyond}"


def _table(place: str) -> Callable[[Sequence[Measurement], Path, float], str]:
    def report(models: Sequence[Measurement], figures: Path, slack: float) -> str:
        return with_beyond(place, models, slack)

    return report


#: panels of the scatter plots: label, and where a measurement has the correlation
_PANELS = {
    "fig3": {
        "p(μ)": "r_prior",
        "exp(-L/β)": "r_objective",
        "a^1.5 p(μ) Πσ": "r_scaled_posterior",
        "a^1.5 exp(-L/β)": "r_scaled_objective",
    },
    "fig10": {"p(μ)": "r_prior", "exp(-L/β)": "r_objective", "p(μ) Πσ": "r_posterior"},
    "fig25": {"exp(-L/β)": "r_objective"},
}


def _scatter(place: str, title: str) -> Callable[[Sequence[Measurement], Path, float], str]:
    def report(models: Sequence[Measurement], figures: Path, slack: float) -> str:
        first = models[0]
        d = first.densities
        panels = {
            label: (getattr(d, name.removeprefix("r_")), getattr(first, name))
            for label, name in _PANELS[place].items()
        }
        path = figures / f"{place}.png"
        toy_figures.scatter(path, d.exact, panels, title)
        return f"{correlations(place, models, slack)}\n\nfigure: {path}"

    return report


def _radogaga(models: Sequence[Measurement], figures: Path, slack: float) -> str:
    return control(models)


def control(models: Sequence[Measurement]) -> str:
    """Return how nearly constant D' and norms are, of VAEs and of RaDOGAGA, as a table."""
    rows = []
    for m in models:
        label = "RaDOGAGA" if m.member.objective == "radogaga" else "VAE"
        relative = m.pullback_sd / m.pullback_mean
        rows.append(
            [
                f"{label}, seed {m.member.seed}",
                tables.numbers(m.pullback_mean),
                tables.numbers(relative),
                tables.numbers(m.norm_mean),
                tables.numbers(m.norm_sd / m.norm_mean),
            ]
        )
    header = ["model", "D' mean", "D' SD / mean", "norm mean", "norm SD / mean"]
    return tables.render(header, rows)


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment("square error", _condition(), _table("table1")),
    "table2": Experiment("downward-convex loss", _condition("downward"), _table("table2")),
    "table4": Experiment("five latents", _condition(latents=5), _table("table4")),
    "fig3": Experiment(
        "densities, downward-convex loss",
        _condition("downward"),
        _scatter("fig3", "Figure 3: estimates against p(x), downward-convex loss"),
    ),
    "fig10": Experiment(
        "densities, square error",
        _condition(),
        _scatter("fig10", "Figure 10: estimates against p(x), square error"),
    ),
    "fig25": Experiment(
        "density, five latents",
        _condition(latents=5),
        _scatter("fig25", "Figure 25: estimate against p(x), five latents"),
    ),
    "radogaga": Experiment("RaDOGAGA as an isometric control", _control, _radogaga),
    **{
        name: Experiment(title, members, report, many=True)
        for name, (title, members, report) in ablation.EXPERIMENTS.items()
    },
}
