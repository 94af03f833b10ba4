"""Modules that answer the same row differently each time, also in eval mode."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.gallery.modules.forwards import Body, made
from tests.gallery.modules.methods import EncodeDecode, of_parts
from tests.gallery.modules.shelf import Made, module

RANDOM = (("random", "draw", "sampl", "differ", "twice", "dropout", "determin"),)


class AlwaysSamples(Body):
    """The reparameterisation of the tutorials: no look at self.training."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.relu(self.inp(x))
        mu, logvar = self.to_mu(h), self.to_lv(h)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return torch.sigmoid(self.out(torch.relu(self.up(z)))), mu, logvar


@module(
    "forward alone, which samples in eval mode too", or_refused=RANDOM,
    wrong="a decoder that adds noise to z",
)  # fmt: skip
def forward_always_samples() -> Made:
    return made(AlwaysSamples())


class SampledMean(EncodeDecode):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = super().encode(x)
        return mu + torch.randn_like(mu) * (0.5 * logvar).exp(), logvar


@module("encode gives a sampled z where the mean belongs", refused=RANDOM, wrong="called sound")
def sampled_mean() -> Made:
    return of_parts(SampledMean())


class FunctionalDropout(EncodeDecode):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(functional.dropout(x, 0.2))


@module(
    "functional dropout left on in encode, in eval mode too", refused=RANDOM, wrong="called sound"
)
def functional_dropout() -> Made:
    return of_parts(FunctionalDropout())


class AcrossRows(EncodeDecode):
    """The input is standardised by the batch it comes in."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode((x - x.mean(0)) / (x.std(0) + 0.1))


@module(
    "standardises by the rows that come along", wrong="called sound",
    refused=(("batch", "other rows", "company", "alone"),),
)  # fmt: skip
def across_rows() -> Made:
    return of_parts(AcrossRows())
