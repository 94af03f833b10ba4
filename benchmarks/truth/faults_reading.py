"""Deform how a model's heads and layers are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.truth.subject import Deformation, Fits, Subject, encoder_of, encoding, part
from isoprobe import Posterior

if TYPE_CHECKING:
    from benchmarks.truth.recipes import Recipe


def _raw(s: Subject) -> Callable[[Tensor], Tensor]:
    """What the scale head gave before it became sigma."""
    if s.recipe.head == "logvar":
        return lambda std: 2 * std.log()
    if s.recipe.head == "logstd":
        return torch.log
    return lambda std: std + torch.log(-torch.expm1(-std))


def _softplus_for_exp(s: Subject) -> Subject:
    raw = _raw(s)
    return encoding(lambda p: Posterior(p.mean, functional.softplus(raw(p.std))))(s)


def _heads_swapped(s: Subject) -> Subject:
    raw = _raw(s)
    return encoding(lambda p: Posterior(raw(p.std), (p.mean / 2).exp()))(s)


def _interleaved(s: Subject) -> Subject:
    """Read a head of halves (means first) as mean and log variance in turns."""
    raw = _raw(s)

    def read(p: Posterior) -> Posterior:
        both = torch.cat([p.mean, raw(p.std)], dim=1)
        return Posterior(both[:, 0::2], (both[:, 1::2] / 2).exp())

    return encoding(read)(s)


def _head(*forms: str) -> Fits:
    return lambda recipe, _entry: recipe.head in forms and recipe.net != "affine"


# --------------------------------------------------------------------------- reading the decoder

_EXCHANGE: dict[type[nn.Module], type[nn.Module]] = {
    nn.ReLU: nn.Tanh,
    nn.ELU: nn.ReLU,
    nn.SiLU: nn.Tanh,
    nn.Tanh: nn.ReLU,
}


class BatchStatistics(nn.Module):
    """Batch norm that uses the statistics of the batch it sees, as in training."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the batch."""
        centered = x - x.mean(0, keepdim=True)
        scaled = centered / (centered.square().mean(0, keepdim=True) + self.norm.eps).sqrt()
        return scaled * self.norm.weight + self.norm.bias


def exchange(module: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace submodules in place where ``make`` gives another one."""
    for name, child in module.named_children():
        other = make(child)
        if other is None:
            exchange(child, make)
        else:
            setattr(module, name, other)


def _other_activation(s: Subject) -> Subject:
    exchange(
        part(s.vae, "decoder"),
        lambda m: _EXCHANGE[type(m)]() if type(m) in _EXCHANGE else None,
    )
    return s


def _training_norm(s: Subject) -> Subject:
    exchange(
        part(s.vae, "decoder"),
        lambda m: BatchStatistics(m) if isinstance(m, nn.BatchNorm1d) else None,
    )
    return s


def _zeroed_bias(s: Subject) -> Subject:
    """Zero the bias of the decoder's layer where that hurts the reconstruction most."""
    decoder = part(s.vae, "decoder")
    biases = [p for n, p in decoder.named_parameters() if n.endswith("bias")]
    x = torch.from_numpy(s.rows[:256].copy())
    with torch.no_grad():
        z = encoder_of(s.vae)(x).mean
        harm = []
        for bias in biases:
            kept = bias.clone()
            bias.zero_()
            harm.append(float((decoder(z) - x).square().sum()))
            bias.copy_(kept)
        biases[harm.index(max(harm))].zero_()
    return s


def _without_output(s: Subject) -> Subject:
    logits = s.vae.decode_logits
    return replace(s, vae=replace(s.vae, decode=logits or s.vae.decode, decode_logits=None))


def _sigmoid_twice(s: Subject) -> Subject:
    decode = s.vae.decode
    twice = replace(s.vae, decode=lambda z: decode(z).sigmoid(), decode_logits=decode)
    return replace(s, vae=twice)


def _sigmoid(recipe: Recipe, _entry: dict[str, Any]) -> bool:
    return recipe.output == "sigmoid"


def _activated(recipe: Recipe, _entry: dict[str, Any]) -> bool:
    return recipe.activation != "identity"


# --------------------------------------------------------------------------- the list


def reading() -> list[Deformation]:
    """Return faults of reading, first the encoder's."""
    encoder, decoder = "reading of the encoder", "reading of the decoder"
    head, read = frozenset({"head"}), frozenset({"decoder"})
    squared = encoding(lambda p: Posterior(p.mean, p.std.square()))
    rooted = encoding(lambda p: Posterior(p.mean, p.std.sqrt()))
    return [
        Deformation("log variance as log deviation", encoder, head, squared, _head("logvar")),
        Deformation("log deviation as log variance", encoder, head, rooted, _head("logstd")),
        Deformation(
            "softplus for exp", encoder, head, _softplus_for_exp, _head("logvar", "logstd")
        ),
        Deformation("heads swapped", encoder, head, _heads_swapped, _head("logvar")),
        Deformation("interleaved for halves", encoder, head, _interleaved, _head("logvar")),
        Deformation("another activation", decoder, read, _other_activation, _activated),
        Deformation("no output activation", decoder, read, _without_output, _sigmoid),
        Deformation("output activation twice", decoder, read, _sigmoid_twice, _sigmoid),
        Deformation(
            "batch norm in training mode", decoder, read | {"random"}, _training_norm,
            models=("digits-bn-bce-1", "fashion-bn-sse-0.5", "toy-bn-sse-0.1"),
        ),
        Deformation("a layer's bias zeroed", decoder, read, _zeroed_bias, _activated),
    ]  # fmt: skip
