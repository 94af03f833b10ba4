"""Every plausible reading of a skeleton, tried on data and ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.checkpoints.native import vae_from_networks
from isoprobe.errors import CheckpointError, IsoprobeError
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.registry.lookup import installed
from isoprobe.theory.formulas import norm_of, residual, unused_variance
from isoprobe_plugins.adapters.declared.declaration import parse_declaration
from isoprobe_plugins.adapters.weights.named import fill_layers
from isoprobe_plugins.doctor.skeleton import DECODER, ENCODER
from isoprobe_plugins.heads import HEADS

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE

ACTIVATIONS: tuple[Any, ...] = (
    "relu", {"leaky_relu": 0.01}, {"leaky_relu": 0.2}, "elu", "tanh", "silu", "gelu",
)  # fmt: skip
OUTPUTS = ("sigmoid", "linear", "tanh")
#: heads of one layer, and of two: name -> which layer is the mean
LAYOUTS_ONE = ("halves", "interleaved", "swapped")
LAYOUTS_TWO = ("separate", "separate, heads swapped")
#: readings whose scale is examined: the best few by reconstruction
FINALISTS = 4
#: forms whose deviations differ by less than this share are the same to any data
SAME = 0.02
#: samples on which layouts and activations are compared
QUICK = 96
#: readings within this much explained variance of the best are told apart by the residual
TIE = 0.005


@dataclass(frozen=True)
class Reading:
    """One way to read the weights, and how the data bears it out.

    Attributes:
        fields: the declaration.
        origin: skeleton and head layout it was made from.
        encoder: the encoder's activation.
        decoder: the decoder's activation.
        output: what squeezes the output.
        explained: share of the data's variance that the reconstruction at the mean explains.
        form: of the scale, once examined.
        kl: in nats a sample.
        beta: recovered by stationarity under ``metric``.
        residual: root mean square over latents of norm + sigma^2 - 1.
        metric: of beta and residual.
    """

    fields: Mapping[str, Any]
    origin: tuple[Mapping[str, Any], str]
    encoder: str
    decoder: str
    output: str
    explained: float
    form: str = "logvar"
    kl: float = float("nan")
    beta: float = float("nan")
    residual: float = float("nan")
    metric: str = "sse"

    @property
    def layout(self) -> str:
        """Where mean and scale sit, in words."""
        return self.origin[1]


def diagnose(
    skeletons: Sequence[Mapping[str, Any]],
    tensors: Mapping[str, Tensor],
    x: Tensor,
    progress: Callable[[Iterator[Any], int], Iterable[Any]] = lambda steps, _: steps,
) -> list[Reading]:
    """Rank the plausible readings of weights by what data says.

    First by the variance that the reconstruction at the mean explains, which depends on layers,
    layout and activations; then, among the best, by the residual of stationarity of sigma,
    which depends on the scale.

    Args:
        skeletons: from :func:`isoprobe_plugins.doctor.skeleton.skeletons`.
        tensors: of the file, by name.
        x: inputs, ``(B, *input_shape)``, in the model's range.
        progress: wraps the readings tried, told how many there are.

    Returns:
        Readings with their scale examined, the best first.

    Raises:
        CheckpointError: when no reading gives finite reconstructions.
    """
    few = x[:QUICK]
    layouts = [(skeleton, layout) for skeleton in skeletons for layout in _layouts(skeleton)]
    first: list[Reading] = []
    for skeleton, layout in progress(iter(layouts), len(layouts)):
        for activation in ACTIVATIONS:
            first += _reconstructions(skeleton, layout, activation, [activation], tensors, few)
    if not first:
        raise CheckpointError("no reading of these weights gives finite reconstructions")
    # where mean and scale sit shows with any one activation; then every pair of activations
    skeleton, layout = max(first, key=lambda reading: reading.explained).origin
    tried: list[Reading] = []
    for encoder in progress(iter(ACTIVATIONS), len(ACTIVATIONS)):
        tried += _reconstructions(skeleton, layout, encoder, ACTIVATIONS, tensors, few)
    best = sorted(tried, key=lambda reading: -reading.explained)[:FINALISTS]
    scored = [r for reading in best for r in _scales(reading, tensors, x)]
    top = max((r.explained for r in scored), default=0.0)
    return sorted(scored, key=lambda r: (round((top - r.explained) / TIE), r.residual))


def _layouts(skeleton: Mapping[str, Any]) -> tuple[str, ...]:
    return LAYOUTS_TWO if len(skeleton["heads"]) == 2 else LAYOUTS_ONE


# --------------------------------------------------------------------------- reconstruction


def _reconstructions(
    skeleton: Mapping[str, Any],
    layout: str,
    encoder: Any,
    decoders: Sequence[Any],
    tensors: Mapping[str, Tensor],
    x: Tensor,
) -> Iterator[Reading]:
    """Yield readings with one encoder and several decoders, their explained variance known."""
    fields = _fields(skeleton, layout, encoder, decoders[0], "linear")
    vae = build(fields, tensors)
    if vae.encode is None:
        return
    with torch.no_grad():
        mean = vae.encode(x).mean
    if not torch.isfinite(mean).all():
        return
    total = ((x - x.mean(0)) ** 2).sum()
    for decoder in decoders:
        raw_fields = _fields(skeleton, layout, encoder, decoder, "linear")
        with torch.no_grad():
            raw = build(raw_fields, tensors).decode(mean)
        for output in OUTPUTS:
            x_hat = _squeeze(raw, output)
            explained = float(1 - ((x - x_hat) ** 2).sum() / total)
            if np.isfinite(explained):
                words = (_word(encoder), _word(decoder), output)
                declared = {**raw_fields, "output": output}
                yield Reading(declared, (skeleton, layout), *words, explained)


def _squeeze(raw: Tensor, output: str) -> Tensor:
    return {"sigmoid": torch.sigmoid, "tanh": torch.tanh}.get(output, lambda t: t)(raw)


def _word(activation: Any) -> str:
    if isinstance(activation, str):
        return activation
    ((name, slope),) = activation.items()
    return f"{name}({slope})"


def _fields(
    skeleton: Mapping[str, Any], layout: str, encoder: Any, decoder: Any, output: str
) -> dict[str, Any]:
    """Fill the open places of a skeleton; the result is a declaration."""
    swap = {ENCODER: encoder, DECODER: decoder}
    chains = {
        name: [swap.get(step, step) if isinstance(step, str) else step for step in skeleton[name]]
        for name in ("encoder", "decoder")
    }
    places = list(skeleton["heads"])
    if len(places) == 1:
        chains["encoder"] = [*chains["encoder"], {"linear": places[0]}]
        head: dict[str, Any] = {"layout": layout}
    else:
        mean, scale = places if layout == "separate" else reversed(places)
        head = {"layout": "separate", "mean": mean, "scale": scale}
    return {
        "input_shape": skeleton["input_shape"],
        "latent_size": skeleton["latent_size"],
        **chains,
        "head": {**head, "form": "logvar"},
        "output": output,
    }


def build(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> VAE:
    """Build the model of a declaration and fill it; arguments as for the declared adapter."""
    declaration = parse_declaration(fields, "doctor")
    config = declaration.config(tensors, "doctor")
    networks = fill_layers(config, tensors, "doctor")
    return vae_from_networks(networks, declaration.facts(config, "doctor"))


# --------------------------------------------------------------------------- the scale


def _scales(reading: Reading, tensors: Mapping[str, Tensor], x: Tensor) -> Iterator[Reading]:
    """Yield the reading with every form of the scale that gives finite numbers."""
    inside = reading.output == "sigmoid" and float(x.min()) >= 0 and float(x.max()) <= 1
    metric = installed().metric("bce" if inside else "sse")
    seen: list[Tensor] = []
    for form in HEADS:
        fields = {**reading.fields, "head": {**reading.fields["head"], "form": form}}
        try:
            probe = Probe(
                build(fields, tensors), metric, {"std", "kl", "stationarity"}, ProbeOptions(seed=0)
            )
            batch = probe(np.arange(len(x)), x)
        except IsoprobeError:
            continue
        kl, std, pull = (batch[name].double().mean(0) for name in ("kl", "std", "stationarity"))
        variance = (batch["std"].double() ** 2).mean(0)
        active = kl > 0.01
        numbers = torch.stack([kl, std, pull, variance])
        if not torch.isfinite(numbers).all() or not active.any():
            continue
        beta = pull[active].sum() / unused_variance(variance[active]).sum()
        if not beta > 0 or any(torch.allclose(std, other, rtol=SAME) for other in seen):
            continue  # no objective has such a weight; or the same scale under another name
        seen.append(std)
        off = residual(norm_of(pull, beta), variance).square().mean().sqrt()
        yield replace(
            reading,
            fields=fields,
            form=form,
            kl=float(kl.sum()),
            beta=float(beta),
            residual=float(off),
            metric=metric.name,
        )
