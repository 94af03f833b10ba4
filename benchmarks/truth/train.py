"""Train the models of the bench, each from its seed: ``python -m benchmarks.truth.train``.

One thread, one model after the other; about 20 minutes of one core for all. Names given on the
command line train those alone; without ``--again`` what stands in ``models`` is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.truth import data, losses, native
from benchmarks.truth.recipes import RECIPES, Recipe, config

MODELS = Path(__file__).parent / "models"
MANIFEST = MODELS / "manifest.json"
#: rows and draws that the recorded losses are means over
RECORDED, DRAWS = 2000, 8
#: floor of a latent's rate under free bits, nats, by data set
FLOORS = {"toy": 1.0}
ACTIVATIONS = (nn.ReLU, nn.ELU, nn.SiLU, nn.Tanh)


def train(recipe: Recipe, rates: dict[str, float]) -> dict[str, Any]:
    """Train one model and write its checkpoint.

    Args:
        recipe: what to train.
        rates: total KL in nats of models trained already, by name.

    Returns:
        Its entry in the manifest.
    """
    started = time.process_time()
    torch.manual_seed(recipe.seed)
    rows = data.rows(recipe.data)
    x = torch.from_numpy(rows.train[: recipe.rows].copy())
    architecture, built = config(recipe)
    parts = native.networks(architecture, built)
    likelihood = losses.Gaussian() if recipe.loss == "gaussian" else None
    steps = _total_steps(recipe, len(x))
    if recipe.closed:
        _solve(recipe, parts, x)
    else:
        _loop(recipe, parts, likelihood, x, steps, rates)
    spec = _spec(recipe, likelihood)
    known = losses.LOSSES[recipe.loss][0] is not None
    record = _record(recipe, parts, likelihood, rows, steps)
    entry = {
        "name": recipe.name,
        "kind": recipe.kind,
        "data": recipe.data,
        "architecture": recipe.triple[1],
        "loss": recipe.loss,
        "metric": spec,
        "beta": recipe.beta,
        "latents": recipe.latents,
        "objective": recipe.objective,
        "of": recipe.of,
        "seed": recipe.seed,
        **record,
    }
    objective = (spec, recipe.beta) if known else None
    path = MODELS / f"{recipe.name}.safetensors"
    native.write(path, parts, architecture, built, objective, {**record, "loss": recipe.loss})
    print(f"{recipe.name}: {record} in {time.process_time() - started:.0f} s", flush=True)
    return entry


def _total_steps(recipe: Recipe, count: int) -> int:
    """Steps that are taken; a negative stop asks for one epoch."""
    if recipe.closed:
        return 0
    return math.ceil(count / recipe.batch) if recipe.stop < 0 else round(recipe.steps * recipe.stop)


def _spec(recipe: Recipe, likelihood: losses.Gaussian | None) -> str:
    spec = losses.LOSSES[recipe.loss][0] or recipe.loss
    if likelihood is None:
        return spec
    return f"{spec}:sigma2={float(likelihood.log_variance.exp()):.6g}"


# --------------------------------------------------------------------------- the loop


def _loop(
    recipe: Recipe,
    parts: tuple[nn.Module, nn.Module],
    likelihood: losses.Gaussian | None,
    x: Tensor,
    steps: int,
    rates: dict[str, float],
) -> None:
    """Adam at a rate that falls to zero by a cosine over ``recipe.steps``."""
    encoder, decoder = parts
    modules = [encoder, decoder, *([likelihood] if likelihood else [])]
    if recipe.objective == "fixed-sigma":
        _freeze_sigma(encoder)
    for module in modules:
        module.train()
    hooks = _dropout(modules, recipe.dropout)
    weights = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, recipe.rate, weight_decay=recipe.decay, fused=True)
    objective = losses.OBJECTIVES[recipe.objective]
    target = FLOORS.get(recipe.data, 2.0)
    if recipe.objective == "capacity":
        target = losses.CAPACITY_SHARE * rates[recipe.of]
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        progress = step / recipe.steps
        if recipe.falling:
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * 0.5 * (1 + math.cos(math.pi * progress))
        if len(order) < recipe.batch:
            order = torch.cat([order, torch.randperm(len(x))])
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        drawn = _draw(recipe, parts, likelihood, x[chosen], progress, target)
        optimizer.zero_grad()
        torch.autograd.backward(objective(drawn))
        optimizer.step()
    for hook in hooks:
        hook.remove()
    for module in modules:
        module.eval().requires_grad_(requires_grad=False)


def _draw(
    recipe: Recipe,
    parts: tuple[nn.Module, nn.Module],
    likelihood: losses.Gaussian | None,
    x: Tensor,
    progress: float,
    target: float,
) -> losses.Draw:
    encoder, decoder = parts
    mean, std = encoder(x)
    compare = likelihood or losses.LOSSES[recipe.loss][1]

    def distort(z: Tensor) -> Tensor:
        return compare(x, losses.decoded(decoder, z, recipe.loss))

    z = mean + std * torch.randn_like(std)
    return losses.Draw(mean, std, z, distort, recipe.beta, progress, target)


def _freeze_sigma(encoder: nn.Module) -> None:
    """Fix sigma by the bias of a scale head of log variances."""
    scale: nn.Linear = encoder.scale  # type: ignore[assignment]
    scale.requires_grad_(requires_grad=False)
    scale.weight.zero_()
    scale.bias.fill_(2 * math.log(losses.FIXED_SIGMA))


def _dropout(modules: list[nn.Module], share: float) -> list[Any]:
    """Leave out a share of hidden units in training; nothing of it stays in the weights."""
    if not share:
        return []

    def hook(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return nn.functional.dropout(output, share, training=module.training)

    hidden = [m for module in modules for m in module.modules() if isinstance(m, ACTIVATIONS)]
    return [module.register_forward_hook(hook) for module in hidden]


def _solve(recipe: Recipe, parts: tuple[nn.Module, nn.Module], x: Tensor) -> None:
    """Write the optimum of the linear VAE for the rows' own covariance into the networks."""
    encoder, decoder = parts
    rows = x.double()
    center = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - center).T @ (rows - center) / len(rows))
    spectrum, axes = values.flip(0)[: recipe.latents], vectors.flip(1)[:, : recipe.latents]
    water = recipe.beta / 2
    gain = (spectrum - water).clamp_min(0).sqrt()
    encode = (gain / spectrum)[:, None] * axes.T
    log_std = 0.5 * (water / spectrum).clamp_max(1).log()
    state = {"weight": encode, "bias": -encode @ center, "log_std": log_std}
    encoder.load_state_dict(state)
    decoder.load_state_dict({"out.weight": axes * gain, "out.bias": center})


# --------------------------------------------------------------------------- the record


@torch.no_grad()
def _record(
    recipe: Recipe,
    parts: tuple[nn.Module, nn.Module],
    likelihood: losses.Gaussian | None,
    rows: data.Rows,
    steps: int,
) -> dict[str, Any]:
    """How the training ended: E D + beta KL on both sets, and the rate of each latent."""
    found: dict[str, Any] = {"steps": steps, "of_steps": 0 if recipe.closed else recipe.steps}
    found["ended"] = _ended(recipe)
    encoder, decoder = (part.eval() for part in parts)
    compare = likelihood or losses.LOSSES[recipe.loss][1]
    for name, part in (("train", rows.train[: recipe.rows]), ("test", rows.test)):
        x = torch.from_numpy(part[:RECORDED].copy())
        torch.manual_seed(0)
        mean, std = encoder(x)
        kl = losses.Draw(mean, std, mean, compare, recipe.beta, 1.0, 0.0).kl().mean(0)
        drawn = (mean + std * torch.randn_like(std) for _ in range(DRAWS))
        distortions = [compare(x, losses.decoded(decoder, z, recipe.loss)).mean() for z in drawn]
        distortion = float(torch.stack(distortions).mean())
        found[f"loss_{name}"] = round(distortion + recipe.beta * float(kl.sum()), 5)
        if name == "train":
            found["distortion"], found["rate"] = round(distortion, 5), round(float(kl.sum()), 4)
            found["rates"] = [round(float(k), 3) for k in kl]
    return found


def _ended(recipe: Recipe) -> str:
    if recipe.closed:
        return "closed form"
    if not recipe.falling:
        return "constant rate"
    return "rate fell to zero" if recipe.stop == 1.0 else "stopped while the rate fell"


# --------------------------------------------------------------------------- the command


def read_manifest() -> dict[str, dict[str, Any]]:
    """Return the entries of all trained models by name."""
    if not MANIFEST.is_file():
        return {}
    return {entry["name"]: entry for entry in json.loads(MANIFEST.read_text())}


def _write_manifest(entries: dict[str, dict[str, Any]]) -> None:
    listed = [entries[recipe.name] for recipe in RECIPES if recipe.name in entries]
    lines = ",\n".join(json.dumps(entry) for entry in listed)
    MANIFEST.write_text(f"[\n{lines}\n]\n")


def main() -> None:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models to train; all when none is named")
    parser.add_argument("--again", action="store_true", help="also those that stand there already")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    MODELS.mkdir(exist_ok=True)
    entries = read_manifest()
    for recipe in RECIPES:
        if asked.names and recipe.name not in asked.names:
            continue
        if recipe.name in entries and not (asked.again or asked.names):
            continue
        try:
            rates = {name: entry["rate"] for name, entry in entries.items()}
            entries[recipe.name] = train(recipe, rates)
        except data.MissingDataError as missing:
            print(f"{recipe.name}: left out, {missing}", flush=True)
            continue
        _write_manifest(entries)


if __name__ == "__main__":
    main()
