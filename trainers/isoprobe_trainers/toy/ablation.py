"""Repeat the ablation of Appendix D.2: 3 data sets, 3 losses, 10 lambdas (Figures 13 to 24)."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from isoprobe_trainers.common import tables
from isoprobe_trainers.toy import figures as toy_figures
from isoprobe_trainers.toy.members import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from isoprobe_trainers.toy.measure import Measurement

    Report = Callable[[Sequence[Measurement], Path, float], str]

KINDS = ("mix", "ramp", "norm")
METRICS = ("sse", "downward", "upward")
LAMBDAS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
FIRST_FIGURE = 13
_ESTIMATES = {
    "a^(3/2) p(mu) prod sigma": "r_scaled_posterior",
    "a^(3/2) exp(-L/beta)": "r_scaled_objective",
}


def _members(
    metrics: Sequence[str] = METRICS, lams: Sequence[float] = LAMBDAS
) -> Callable[[int], list[Member]]:
    """One model of each condition, whatever the number of seeds of the tables."""

    def members(_: int) -> list[Member]:
        return [Member(f"toy/{k}:seed=0", m, lam) for k, m, lam in product(KINDS, metrics, lams)]

    return members


def kind_of(model: Measurement) -> str:
    """Which data set a model is of."""
    return model.member.data.removeprefix("toy/").partition(":")[0]


def _curves(models: Sequence[Measurement], figures: Path, slack: float) -> str:
    sections = []
    for number, (kind, metric) in enumerate(product(KINDS, METRICS), FIRST_FIGURE):
        chosen = [m for m in models if (kind_of(m), m.member.metric) == (kind, metric)]
        path = figures / f"fig{number}.svg"
        title = f"Figure {number}: toy/{kind}, {metric} loss"
        toy_figures.ablation(path, chosen, title)
        sections.append(f"{title} ({path.name})\n\n{curve_table(chosen)}")
    return "\n\n".join([*sections, claims(models)])


def curve_table(models: Sequence[Measurement]) -> str:
    """Return the curves of one data set and loss, by lambda, as a table."""
    rows = [
        [
            f"{m.member.lam:g}",
            tables.numbers(m.norm_mean),
            tables.numbers(m.residual),
            tables.numbers(m.inverse_variance_ratio[1:]),
            *(f"{getattr(m, name):.3f}" for name in toy_figures.CORRELATIONS.values()),
        ]
        for m in models
    ]
    names = ["R p(mu)", "R e^-L", "R post.", "R a e^-L", "R a post."]
    return tables.render(["lambda", "norms", "residuals", "ratios", *names], rows)


def claims(models: Sequence[Measurement]) -> str:
    """What the paper says of the curves in words, checked."""
    far = [m for m in models if 50 <= m.member.lam <= 1000]
    norms = [float(v) for m in far for v in m.norm_mean]
    rows = [["norm of every latent, lambda 50 to 1000", f"{min(norms):.3f} to {max(norms):.3f}"]]
    near = [m for m in models if 20 <= m.member.lam <= 200]
    for kinds, (label, name) in product((("mix", "ramp"), ("norm",)), _ESTIMATES.items()):
        r = [getattr(m, name) for m in near if kind_of(m) in kinds]
        what = f"R of {label}, {' and '.join(kinds)}, lambda 20 to 200"
        rows.append([what, f"{min(r):.3f} to {max(r):.3f}"])
    return tables.render(["claim", "range here"], rows)


def _ratios(models: Sequence[Measurement], figures: Path, slack: float) -> str:
    ratios = _ratios_of(models)
    path = figures / "fig22.svg"
    toy_figures.bars(path, ratios, "Figure 22: variance ratios at lambda 100")
    return f"{ratio_table(models)}\n\nfigure: {path}"


def _ratios_of(models: Sequence[Measurement]) -> dict[str, dict[str, tuple[float, float]]]:
    ratios: dict[str, dict[str, tuple[float, float]]] = {kind: {} for kind in KINDS}
    for m in models:
        second, third = (float(v) for v in m.inverse_variance_ratio[1:])
        ratios[kind_of(m)][m.member.metric] = (second, third)
    return ratios


def ratio_table(models: Sequence[Measurement]) -> str:
    """Return the variance ratios at one lambda by data set and loss, as a table."""
    rows = [
        [kind, metric, f"{second:.2f}", f"{third:.2f}"]
        for kind, by_metric in _ratios_of(models).items()
        for metric, (second, third) in by_metric.items()
    ]
    return tables.render(["data", "loss", "Var(z_2)/Var(z_1)", "Var(z_3)/Var(z_1)"], rows)


def _against_beta(name: str, quantity: str, slope: float, title: str) -> Report:
    def report(models: Sequence[Measurement], figures: Path, slack: float) -> str:
        curves = {kind: [m for m in models if kind_of(m) == kind] for kind in KINDS}
        path = figures / f"{name}.svg"
        toy_figures.against_beta(path, curves, quantity, slope, title)
        return f"{beta_table(models, quantity, slope)}\n\nfigure: {path}"

    return report


def beta_table(models: Sequence[Measurement], quantity: str, slope: float) -> str:
    """Return a loss over what theory says of it, by lambda and data set, as a table.

    Args:
        models: of the square error.
        quantity: ``coding_loss`` or ``loss_ratio``.
        slope: theory's value over beta.

    Returns:
        The table.
    """
    rows = []
    for lam in LAMBDAS:
        by_kind = [
            next(m for m in models if kind_of(m) == kind and m.member.lam == lam) for kind in KINDS
        ]
        theory = slope / lam
        ratios = [getattr(m, quantity) / theory for m in by_kind]
        rows.append([f"{lam:g}", f"{theory:.3g}", *(f"{r:.3f}" for r in ratios)])
    header = ["lambda", f"theory {slope:g} beta", *(f"{k} / theory" for k in KINDS)]
    return tables.render(header, rows)


EXPERIMENTS: dict[str, tuple[str, Callable[[int], list[Member]], Report]] = {
    "fig13-21": ("the ablation", _members(), _curves),
    "fig22": ("variance ratios at lambda 100", _members(lams=(100.0,)), _ratios),
    "fig23": (
        "coding loss",
        _members(metrics=("sse",)),
        _against_beta("fig23", "coding_loss", 3 / 2, "Figure 23: coding loss"),
    ),
    "fig24": (
        "transform loss over coding loss",
        _members(metrics=("sse",)),
        _against_beta("fig24", "loss_ratio", 21 / 16, "Figure 24: transform / coding loss"),
    ),
}
