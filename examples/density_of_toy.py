"""Estimate the density of toy data and compare it with the exact one.

The toy data are three independent sources with known densities, mixed linearly into sixteen
inputs. A small VAE was trained on them; its density of a point is read off the loss (Eq. 57), or
off the prior and the posterior's deviations alone (Eq. 19). Both have to rise and fall with the
exact density, and the prior alone does not. ``--out density.svg`` draws the first (as Figure 3).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import isoprobe
from isoprobe_trainers.toy.source import ToySource

HERE = Path(__file__).parent
DATA, SAMPLES = "toy/mix:samples=4000", 4000
COLUMNS = {
    "from the loss": "log_density_input",
    "from prior and sigmas": "log_density_input_sigmas",
    "from the prior alone": "log_density_prior",
}


def estimates() -> dict[str, np.ndarray]:
    """Log densities of each sample by each route, in nats, ``(SAMPLES,)`` each."""
    model = HERE / "toy_mix.safetensors"
    with isoprobe.analyze(model, DATA, analyses=["density"], samples=None) as result:
        columns = result.samples(names=list(COLUMNS.values()))
    return {route: columns[name] for route, name in COLUMNS.items()}


def draw(truth: np.ndarray, estimate: np.ndarray, path: Path) -> None:
    """Write a scatter of estimated against exact density."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from isoprobe.show.plots import density_scatter, styled

    with styled():
        figure, ax = plt.subplots(figsize=(3.4, 2.8), layout="constrained")
        density_scatter(truth, estimate, ax)
        figure.savefig(path, facecolor="white")
        plt.close(figure)


def main() -> None:
    """Estimate, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="figure to write (.svg, .png or .pdf)")
    out = parser.parse_args().out

    exact = np.exp(ToySource().open(DATA).log_density(np.arange(SAMPLES)))
    found = {route: np.exp(log_p) for route, log_p in estimates().items()}
    correlation = {route: np.corrcoef(exact, p)[0, 1] for route, p in found.items()}
    for route, r in correlation.items():
        print(f"correlation with the exact density, {route}: {r:.3f}")
    assert correlation["from the loss"] >= 0.9
    assert correlation["from prior and sigmas"] >= 0.9
    assert correlation["from the prior alone"] < 0.6
    if out is not None:
        draw(exact, found["from the loss"], out)
        print(f"wrote {out}")


if __name__ == "__main__":
    main()
