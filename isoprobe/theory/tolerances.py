"""Hold every tolerance of the judge in one table, each with what it was set on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """How far something may be off.

    Attributes:
        value: the largest size that counts as nothing.
        words: what it bounds, for a sentence.
        source: what it was set on.
    """

    value: float
    words: str
    source: str


_BENCH = "sound models of the first half of benchmarks/truth, train and test rows"
_WEIGHTS = "VAE_mnist, betaH_mnist, VAE_celeba, vae2, csinva and the digits example"

TOLERANCES: dict[str, Tolerance] = {
    "reconstruction": Tolerance(1.0, "the reconstruction", "the mean input itself"),
    "loss": Tolerance(1.05, "the loss", "the loss of a collapsed model is 1"),
    "residual": Tolerance(0.2, "norm + sigma^2 = 1", f"{_WEIGHTS}: at most 0.13; {_BENCH}: 0.08"),
    "second": Tolerance(0.4, "E[mu^2 + sigma^2] = 1", f"{_WEIGHTS}: at most 0.10; {_BENCH}: 0.29"),
    "centre": Tolerance(0.6, "E[mu] = 0", f"{_WEIGHTS}: at most 0.37; {_BENCH}: 0.13"),
    "gain": Tolerance(0.1, "the decoder's gain", f"{_WEIGHTS}: at most 0.032; {_BENCH}: 0.047"),
    "mixing": Tolerance(0.2, "the decoder's columns", f"{_WEIGHTS}: at most 0.062; {_BENCH}: 0.12"),
    "turn": Tolerance(0.2, "the latents' planes", f"{_WEIGHTS} and {_BENCH}: at most 0.1"),
    "beta": Tolerance(0.12, "the declared beta", f"log ratio; {_WEIGHTS}: 0.04; {_BENCH}: 0.044"),
    "own_samples": Tolerance(
        0.65, "the decoder's own samples", f"{_WEIGHTS}: from 0.8; {_BENCH}: 0.80"
    ),
    "own_samples_high": Tolerance(
        1.4, "the decoder's own samples", f"{_WEIGHTS}: to 1.05; {_BENCH}: 1.11"
    ),
    "reading": Tolerance(0.5, "another reading of the head", "true readings: at most 0.3"),
    "reading_ratio": Tolerance(0.4, "another reading of the head", "beside the one in hand"),
    "strong": Tolerance(0.3, "1 - sigma^2", "below it a latent is too weak to be judged by gain"),
    "strong_gain": Tolerance(
        0.5, "1 - sigma^2", "below it an excess of a tenth costs less than beta / 200 a row"
    ),
    "other_metric": Tolerance(
        0.9, "the reconstruction under another metric", "sound models, any metric: at most 0.79"
    ),
    "idle_rate": Tolerance(0.3, "the rate", "nats; beyond it idle latents rest off the prior"),
    "rare_rate": Tolerance(1.0, "a row's rate", "nats above the mean of an idle latent's rate"),
    "order": Tolerance(0.6, "the order of the deviations", "mean log ratio; optima have 0"),
    "dead": Tolerance(0.05, "the decoder's answer", "a zeroed column answers 0"),
    "odd_variance": Tolerance(1e-4, "sigma^2", "below it sigma, not the decoder, is at fault"),
    "isometric": Tolerance(0.15, "the eigenvalues", "linear and toy models stay below it"),
    "curved": Tolerance(1.3, "beta by the pullback over stationarity", f"{_BENCH}: 0.87 to 1.37"),
}
