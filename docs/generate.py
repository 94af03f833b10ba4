"""What the pages show that is made while building them: figures, and the help of every command."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import click
import numpy as np

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.safetensors"
ANALYSES = ["isometry", "importance", "rate-distortion", "density", "traversal", "examples"]
PARTS = ["kl-parts", "truncation", "geometry", "maps"]
#: functions that draw arrays, or several models, rather than one result
ARRAYS = (
    "ablation",
    "density_scatter",
    "score_histogram",
    "roc",
    "precision_recall",
    "spectra",
    "rate_distortion_points",
    "matched",
)


def figures(folder: Path) -> None:
    """Draw every figure of the package once, as SVG, and the page that lists them."""
    import isoprobe
    from isoprobe.show import plots

    labelled = folder / "labelled.npz"
    _with_odd_rows(labelled)
    with (
        isoprobe.analyze(EXAMPLE, samples=600, analyses=[*ANALYSES, *PARTS]) as result,
        isoprobe.analyze(
            EXAMPLE, f"{labelled}:x,odd", analyses=["anomaly", "information"]
        ) as scored,
    ):
        names = plots.available(result)
        plots.save(result, folder, names, "svg")
        of_scores = [name for name in plots.available(scored) if name not in names]
        plots.save(scored, folder, of_scores, "svg")
    _arrays(folder)
    _several(folder)
    labelled.unlink()
    sections = ["# Figures", _INTRODUCTION]
    sections += [_section(name, folder) for name in [*names, *of_scores, *ARRAYS]]
    (folder / "figures.md").write_text("\n\n".join(sections) + "\n", "utf-8")


def _with_odd_rows(path: Path) -> None:
    """Write digits with one in twelve turned upside down, and which those are."""
    x = np.load(EXAMPLE.with_suffix(".npy"))[:1200].copy()
    odd = np.arange(len(x)) % 12 == 0
    x[odd] = x[odd][:, ::-1]
    np.savez(path, x=x, odd=odd)


_INTRODUCTION = """\
One function each, taking a result (or arrays) and matplotlib axes, so that a figure fits into any
layout of yours:

```python
import matplotlib.pyplot as plt
from isoprobe.show import plots

with plots.styled():
    figure, axes = plt.subplots(figsize=(5, 3))
    plots.scree(result, axes)
```

`isoprobe report result.h5 --figures folder/ --format pdf` writes all that a result has the numbers
for. Colours are Okabe and Ito's; every curve also has a marker or dash of its own."""


def _section(name: str, folder: Path) -> str:
    from isoprobe.show import plots

    known = plots.catalogue()
    function = getattr(plots, known[name].draw.__name__ if name in known else name)
    said = inspect.getdoc(function).partition("\n")[0]
    image = f"![{said}]({name}.svg)" if (folder / f"{name}.svg").exists() else ""
    caption = known[name].caption if name in known else ""
    return f"## `plots.{function.__name__}`\n\n{said}\n\n{image}\n\n{caption}".rstrip()


def _several(folder: Path) -> None:
    """Figures of several models: linear VAEs of the digits, at two betas."""
    import torch

    import isoprobe
    from isoprobe.show import plots
    from isoprobe.show.compare import compare
    from isoprobe.show.matching import match
    from isoprobe_plugins.architectures.linear import linear_vae

    x = np.load(EXAMPLE.with_suffix(".npy")) / 255
    x = x - x.mean(0)
    covariance = torch.as_tensor(np.cov(x.T))
    with (
        isoprobe.analyze(
            linear_vae(covariance, 0.05, 10), x, analyses=ANALYSES, metric="sse"
        ) as low,
        isoprobe.analyze(
            linear_vae(covariance, 0.4, 10), x, analyses=ANALYSES, metric="sse"
        ) as high,
    ):
        named = zip(compare([low, high]).models, ("beta 0.05", "beta 0.4"), strict=True)
        models = [dataclasses.replace(model, name=name) for model, name in named]
        _save(folder / "spectra.svg", lambda ax: plots.spectra(models, ax))
        _save(
            folder / "rate_distortion_points.svg",
            lambda ax: plots.rate_distortion_points(models, ax),
        )
        _save(folder / "matched.svg", lambda ax: plots.matched(match(low, high), ax))


def _arrays(folder: Path) -> None:
    """Figures of arrays: drawn from known distributions."""
    from isoprobe.show import plots

    chance = np.random.default_rng(0)
    truth = chance.random(800)
    estimate = truth * np.exp(0.1 * chance.normal(size=800))
    odd = chance.random(2000) < 0.08
    scores = np.exp(chance.normal(size=2000) + 1.8 * odd)
    weights = np.geomspace(10, 1000, 6)
    norms = {"z1": 1 - 3 / weights, "z2": 1 - 1 / weights}
    spreads = {"z1": np.full(6, 0.05), "z2": np.full(6, 0.03)}
    draw = {
        "ablation": lambda ax: plots.ablation(weights, norms, ax, spreads=spreads, ideal=1),
        "density_scatter": lambda ax: plots.density_scatter(truth, estimate, ax),
        "score_histogram": lambda ax: plots.score_histogram(
            scores, ax, labels=odd, threshold=float(np.quantile(scores, 0.92))
        ),
        "roc": lambda ax: plots.roc(scores, odd, ax),
        "precision_recall": lambda ax: plots.precision_recall(scores, odd, ax),
    }
    for name, function in draw.items():
        _save(folder / f"{name}.svg", function)


def _save(path: Path, draw: object) -> None:
    from matplotlib.figure import Figure

    from isoprobe.show import plots

    with plots.styled():
        drawn = Figure(figsize=(5, 3.2))
        draw(drawn.add_subplot())
        drawn.savefig(path, facecolor="white", metadata={"Date": None})


def commands_page() -> str:
    """Return the help of every command, as it is printed."""
    from isoprobe.cli.group import cli

    # settings that commands inherit, such as -h; click keeps the help option it makes first
    settings = {**cli.context_settings, "max_content_width": 90}
    context = click.Context(cli, info_name="isoprobe", **settings)
    sections = ["# Commands", "The same as `-h` prints."]
    for name in ["", *cli.list_commands(context)]:
        title = f"isoprobe {name}".strip()
        command = cli.get_command(context, name) if name else cli
        with click.Context(command, parent=context, info_name=name) if name else context as own:
            text = command.get_help(own)
        sections.append(f"## {title}\n\n```text\n{text}\n```")
    return "\n\n".join(sections) + "\n"
