"""Work out which beta each model shows under each metric (``python -m benchmarks.truth.implied``).

Stationarity, E[sigma eps dD/dz] = beta (1 - sigma^2), gives a beta under any metric. A wrong metric
declared with the right number for beta is a fault that weights can tell only where the two differ;
other pairs are no cases. The figures stand in ``models/betas.json``.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.truth import data, losses
from benchmarks.truth.recipes import SOUND, Recipe
from benchmarks.truth.train import MODELS, read_manifest
from isoprobe import VAE, load

BETAS = MODELS / "betas.json"
ROWS, PAIRS = 1000, 8
#: betas that differ by this factor can be told apart
APART = 1.5


def _l2(x: Tensor, y: Tensor) -> Tensor:
    norm: Tensor = (x - y).flatten(1).norm(dim=1)
    return norm


def _bce(x: Tensor, y: Tensor) -> Tensor:
    y = y.clamp(1e-6, 1 - 1e-6)
    return -(x * y.log() + (1 - x) * (1 - y).log()).flatten(1).sum(1)


#: metric spec -> D from the reconstruction
METRICS: dict[str, losses.Distortion] = {
    **{name: losses.LOSSES[name][1] for name in ("sse", "mse", "l1")},
    "gaussian": lambda x, y: losses.LOSSES["sse"][1](x, y) / 2,
    "l2": _l2,
    "bce": _bce,
    "ssim": losses.LOSSES["ssim"][1],
}


def implied_beta(vae: VAE, x: Tensor, distort: losses.Distortion) -> float:
    """Return the pooled beta by stationarity.

    Args:
        vae: the model.
        x: rows, ``(N, *shape)``.
        distort: the metric.

    Returns:
        Sum over rows and latents of sigma eps dD/dz over that of 1 - sigma^2.

    Raises:
        ValueError: for a model without an encoder.
    """
    if vae.encode is None:
        raise ValueError(f"{vae.name} has no encoder")
    with torch.no_grad():
        posterior = vae.encode(x)
    torch.manual_seed(0)
    pulled = torch.zeros(())
    for _ in range(PAIRS):
        eps = torch.randn_like(posterior.std)
        for shift in (posterior.std * eps, -posterior.std * eps):
            z = (posterior.mean + shift).requires_grad_()
            (gradient,) = torch.autograd.grad(distort(x, vae.decode(z)).sum(), z)
            pulled = pulled + (shift * gradient).sum()
    return float(pulled / (2 * PAIRS) / (1 - posterior.std.square()).sum())


def of_model(recipe: Recipe) -> dict[str, float]:
    """Return the betas of one model by metric, where the metric takes its rows."""
    vae = load(MODELS / f"{recipe.name}.safetensors")
    rows = data.rows(recipe.data)
    x = torch.from_numpy(rows.train[:ROWS].copy())
    found = {}
    for spec, distort in METRICS.items():
        if spec == "bce" and not (rows.unit and recipe.output == "sigmoid"):
            continue
        if spec == "ssim" and (x.ndim != 3 or min(x.shape[1:]) < 11):
            continue
        found[spec] = float(f"{implied_beta(vae, x, distort):.4g}")
    return found


@cache
def betas() -> dict[str, dict[str, float]]:
    """Return the committed betas: model, then metric."""
    found: dict[str, dict[str, float]] = json.loads(BETAS.read_text())
    return found


def tells(recipe: Recipe, spec: str) -> bool:
    """Return whether weights can tell that ``spec`` was declared with this model's own beta."""
    shown: dict[str, Any] = betas().get(recipe.name, {})
    if spec not in shown:
        return False
    ratio = shown[spec] / recipe.beta
    return not 1 / APART < ratio < APART


def main() -> None:
    """Work out and write the betas of all sound models that are trained."""
    trained = read_manifest()
    found = {r.name: of_model(r) for r in SOUND if r.name in trained}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in found.items())
    BETAS.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
