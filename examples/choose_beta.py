"""Choose beta from a spectrum: what one trained model says about models at other betas.

A dimension stays active while its variance is above beta / 2 (reverse water-filling, Eq. 92), so
the spectrum of one model predicts how many dimensions, what rate and what distortion another beta
would give. This prints the predictions for a trained model of digits. Then it checks predictions
where that can be done to the last digit: for linear VAEs of the same digits, whose optimum is known
at every beta.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import isoprobe
from isoprobe_plugins.architectures.linear import linear_networks, linear_vae

if TYPE_CHECKING:
    from isoprobe.results.reader import Result

HERE = Path(__file__).parent
#: beta / 2 is below the thirty largest eigenvalues of the digits, so every latent is active
LOW_BETA, LATENTS = 0.02, 30
NAMES = ("other_beta", "predicted_active", "predicted_rate", "predicted_distortion")


def predictions(result: Result) -> list[tuple[float, int, float, float]]:
    """Each beta with the dimensions, the rate [nat] and the distortion predicted for it."""
    columns = [result["rate-distortion"][name].values.tolist() for name in NAMES]
    return list(zip(*columns, strict=True))


def digits() -> None:
    """Print what the spectrum of the trained digits model says about other betas."""
    with isoprobe.analyze(HERE / "digits.safetensors", analyses=["rate-distortion"]) as result:
        rows = predictions(result)
        collapse = result["rate-distortion"]["collapse_beta"].values
        active = int(result["overview"]["active"].values.sum())
        beta = result.attrs["beta"]
    print(f"digits.safetensors, trained at beta {beta:g}:")
    for other, dimensions, rate, _ in rows:
        if beta <= other:
            print(f"  at beta {other:5.4g}: {dimensions} dimensions, {rate:5.2f} nats")
    predicted = {other: dimensions for other, dimensions, _, _ in rows}
    assert predicted[beta] == active
    # A dimension collapses where beta / 2 reaches its variance: that is the range to choose from.
    low, high = np.sort(collapse)[[-4, -3]]
    print(f"  for three dimensions choose beta from {low:.2f} to {high:.2f}")
    assert {d for other, d in predicted.items() if low <= other < high} == {3}


def linear() -> None:
    """Predict from a linear VAE at one beta; retrain it at others; compare."""
    x = np.load(HERE / "digits.npy") / 255.0
    covariance, mean = torch.as_tensor(np.cov(x.T, bias=True)), torch.as_tensor(x.mean(axis=0))
    eigenvalues = np.linalg.eigvalsh(covariance.numpy())[::-1]
    left_out = eigenvalues[LATENTS:].sum()  # no latent stands for these: lost at every beta
    first = linear_vae(covariance, LOW_BETA, LATENTS, mean)
    with isoprobe.analyze(first, x, analyses=["rate-distortion"], samples=None) as result:
        rows = [row for row in predictions(result) if row[0] > LOW_BETA and row[1] > 0]

    checked = []
    for beta, dimensions, rate, distortion in rows:
        # The optimum at this beta in closed form: what training it anew would arrive at.
        networks, _ = linear_networks(covariance, beta, LATENTS, mean)
        used = networks.decoder.state_dict()["out.weight"].norm(dim=0) > 0
        assert dimensions == int(used.sum()) == int((eigenvalues > beta / 2).sum())
        again = linear_vae(covariance, beta, LATENTS, mean)
        with isoprobe.analyze(
            again, x, analyses=["isometry", "rate-distortion"], samples=None
        ) as result:
            found = result["rate-distortion"]
            overview = result["overview"]
            assert dimensions == int((overview["kl_mean"].values > 1e-9).sum())
            np.testing.assert_allclose(overview["rate_mean"].values, rate, rtol=1e-9)
            np.testing.assert_allclose(found["distortion"].values, distortion + left_out, rtol=1e-9)
        checked.append(f"{beta:g}: {dimensions}")
    assert len(checked) >= 5
    print(f"linear VAEs at other betas, dimensions as predicted at {LOW_BETA}: {checked}")
    print("their rates and distortions are those predicted, to nine digits")


def main() -> None:
    """Read a spectrum, then check such readings."""
    digits()
    linear()


if __name__ == "__main__":
    main()
