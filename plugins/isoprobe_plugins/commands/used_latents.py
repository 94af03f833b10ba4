"""Drop idle latents from a native checkpoint, and measure what that costs in D."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

from isoprobe.checkpoints.native import load_weights, read_manifest, vae_from_networks, weights
from isoprobe.contracts import ACTIVE_NATS
from isoprobe.data.batches import prepare
from isoprobe.derivatives.memory import rows_forwards
from isoprobe.errors import CheckpointError
from isoprobe.registry.lookup import installed
from isoprobe.run.codes import posteriors
from isoprobe.run.opening import opened
from isoprobe.run.settings import CodeSettings
from isoprobe.run.settle import chosen_metric
from isoprobe.theory.formulas import kl_divergence
from isoprobe.theory.mixtures import standard_error

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from isoprobe.checkpoints.native import Manifest
    from isoprobe.contracts import VAE, Metric, Networks
    from isoprobe.data.batches import Prepared

#: rows that tell which latents are idle, and what they cost
ROWS = 10_000


@dataclass(frozen=True)
class Trimmed:
    """A checkpoint without its idle latents.

    Attributes:
        networks: smaller, with weights.
        manifest: of the smaller model.
        kept: numbers of the latents that are left, in the old model.
        dropped: numbers of those that are not.
        before: mean D(x, x_check) of the whole model; None where the metric is unknown.
        change: by how much it rose.
        change_se: standard error of that.
        rows: rows measured.
    """

    networks: Networks
    manifest: Manifest
    kept: np.ndarray
    dropped: np.ndarray
    before: float | None
    change: float
    change_se: float
    rows: int

    def describe(self) -> str:
        """What was dropped and what it cost, in words."""
        if not len(self.dropped):
            return f"all {len(self.kept)} latents are used; none dropped"
        said = f"dropped idle latents {', '.join(map(str, self.dropped))}"
        if self.before is None:
            return f"{said}; what that costs in D is not known without a metric"
        return (
            f"{said}: D(x, x_check) {self.before:.4g} changes by {self.change:+.2g} (s.e. "
            f"{self.change_se:.1g}) over {self.rows:,} rows"
        )


def trimmed(path: Path, data: str | None, **settings: Any) -> Trimmed:
    """Drop the latents whose mean KL is at most 0.01 nats over the data.

    A dropped latent is held at its mean over the data, which the decoder's first bias takes in.

    Args:
        path: native checkpoint.
        data: spec of the data; None for what the checkpoint names.
        **settings: ``metric``, and of :class:`isoprobe.run.settings.CodeSettings`.

    Returns:
        The smaller model.

    Raises:
        CheckpointError: for a model that is not native, has no first dense layer in its decoder,
            or uses no latent.
    """
    manifest = read_manifest(path)
    spec = settings.pop("metric", None)
    asked = CodeSettings(samples=ROWS, **settings)
    with opened(path, data, asked) as subject:
        if subject.vae.decode_parameters is not None:
            raise CheckpointError(
                f"{path} gives parameters of '{subject.vae.likelihood}'; latents are left out of "
                "models that give a mean alone"
            )
        if subject.vae.correlated:
            raise CheckpointError(
                f"{path}: latents are correlated in its posteriors; none can be left out alone"
            )
        if "prior" in manifest.config:
            raise CheckpointError(
                f"{path} has a prior of its own; latents are left out under N(0, I) alone"
            )
        if subject.vae.conditional is not None:
            raise CheckpointError(
                f"{path} is told {subject.vae.conditional.words} of each sample; latents are left "
                "out of models without a condition"
            )
        rows = prepare(
            subject.dataset, subject.vae, samples=ROWS, resize=asked.resize, scale=asked.scale
        )
        mean, kl = _means(subject.vae, rows, asked)
        used = kl > ACTIVE_NATS
        if not used.any():
            raise CheckpointError(
                f"{path}: no latent is used on {rows.name}; nothing would be left"
            )
        networks, smaller = _smaller(path, manifest, used, mean)
        metric = chosen_metric(subject.registry, spec, subject.vae)
        after = vae_from_networks(networks, subject.vae.facts)
        after.to(subject.vae.device, subject.vae.dtype)
        before, change, error = _cost(subject.vae, after, metric, rows, asked)
    return Trimmed(
        networks, smaller, np.flatnonzero(used), np.flatnonzero(~used), before, change, error,
        rows.samples,
    )  # fmt: skip


def _means(vae: VAE, rows: Prepared, asked: CodeSettings) -> tuple[np.ndarray, np.ndarray]:
    """Mean mu and mean KL of each latent, ``(n,)``."""
    sums = torch.zeros(2, vae.latent_size, dtype=torch.float64)
    for _, found, _ in posteriors(vae, rows, rows_forwards(vae, asked.memory)):
        kl = kl_divergence(found.mean.double(), found.std.double())
        sums += torch.stack([found.mean.double().sum(dim=0), kl.sum(dim=0)]).cpu()
    mean, kl_mean = (sums / rows.samples).numpy()
    return mean, kl_mean


def _smaller(
    path: Path, manifest: Manifest, used: np.ndarray, mean: np.ndarray
) -> tuple[Networks, Manifest]:
    architecture = installed().architecture(manifest.architecture)
    if "latent_size" not in manifest.config:
        raise CheckpointError(
            f"{path}: latents of architecture '{manifest.architecture}' cannot be dropped, only of "
            "those whose configuration has a latent_size, such as mlp and linear"
        )
    config = {**manifest.config, "latent_size": int(used.sum())}
    whole, networks = architecture.build(manifest.config), architecture.build(config)
    held = weights(path)
    load_weights(whole, held, str(path))
    name, layer = _first_dense(whole.decoder, len(used), path)
    if not used.all():
        idle = torch.as_tensor(~used)
        shift = layer.weight[:, idle].double() @ torch.as_tensor(mean)[idle]
        held[f"{name}.bias"] = (layer.bias.double() + shift).to(layer.bias.dtype).detach()
    shapes = {
        f"{part}.{key}": tensor.shape
        for part, module in (("encoder", networks.encoder), ("decoder", networks.decoder))
        for key, tensor in module.state_dict().items()
    }
    kept = torch.as_tensor(np.flatnonzero(used))
    cut = {key: _cut(tensor, shapes[key], kept) for key, tensor in held.items()}
    load_weights(networks, cut, str(path))
    training = {
        **manifest.training,
        "latents_kept": np.flatnonzero(used).tolist(),
        "latents_before": len(used),
    }
    changes = {"config": config, "latent_size": int(used.sum()), "training": training}
    return networks, msgspec.structs.replace(manifest, **changes)


def _first_dense(decoder: nn.Module, latents: int, path: Path) -> tuple[str, nn.Linear]:
    for name, module in decoder.named_modules():
        if isinstance(module, torch.nn.Linear):
            if module.in_features == latents and module.bias is not None:
                return f"decoder.{name}", module
            break
    raise CheckpointError(f"{path}: the decoder does not begin with a dense layer with a bias")


def _cut(tensor: Tensor, shape: torch.Size, kept: Tensor) -> Tensor:
    """Keep some latents along the axis whose length has to change."""
    for axis, (old, new) in enumerate(zip(tensor.shape, shape, strict=True)):
        if old != new:
            return tensor.index_select(axis, kept).contiguous()
    return tensor


def _cost(
    vae: VAE, smaller: VAE, metric: Metric | None, rows: Prepared, asked: CodeSettings
) -> tuple[float | None, float, float]:
    """Mean D(x, x_check), its rise and the standard error of that."""
    if metric is None or vae.encode is None or smaller.encode is None:
        return None, float("nan"), float("nan")
    batch, pairs = rows_forwards(vae, asked.memory), []
    for start in range(0, rows.samples, batch):
        x, _ = rows.batch(start, min(start + batch, rows.samples), vae.device, vae.dtype)
        with torch.no_grad():
            both = [
                metric.distortion(x, model.decode(model.encode(x).mean)).double().cpu()
                for model in (vae, smaller)
                if model.encode is not None
            ]
        pairs.append(torch.stack(both, dim=1))
    before, after = torch.cat(pairs).numpy().T
    rise = after - before
    return float(before.mean()), float(rise.mean()), float(standard_error(rise[:, None])[0])
