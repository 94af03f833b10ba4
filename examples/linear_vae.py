"""The linear VAE: the one model whose every figure is known, found again by isoprobe.

A covariance with known eigenvalues gives the optimal VAE in closed form. Analysed like any other
checkpoint, it must show: norms of 1 - sigma^2, importances equal to the PCA eigenvalues, the beta
it was built with, and log densities of the Gaussian itself. Run it; it says what it checked.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

import isoprobe
from isoprobe.checkpoints.native import write_checkpoint
from isoprobe_plugins.architectures.linear import linear_networks

BETA = 0.02
EIGENVALUES = np.array([3.0, 1.0, 0.3, BETA / 2, BETA / 2])
ACTIVE = EIGENVALUES > BETA / 2


def main() -> None:
    """Build, save, analyse, and compare with the closed form."""
    generator = np.random.default_rng(0)
    basis, _ = np.linalg.qr(generator.normal(size=(5, 5)))
    covariance = basis @ np.diag(EIGENVALUES) @ basis.T
    x = generator.multivariate_normal(np.zeros(5), covariance, size=4000)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "linear.safetensors"
        networks, manifest = linear_networks(torch.as_tensor(covariance), BETA, latent_size=5)
        write_checkpoint(path, networks.encoder, networks.decoder, manifest)
        # The file knows its metric and beta; only the data are given.
        result = isoprobe.analyze(
            path, x, analyses=["isometry", "importance", "density"], samples=None
        )

    with result:
        isometry, importance = result["isometry"], result["importance"]
        expected = np.where(ACTIVE, BETA / 2 / EIGENVALUES, 1.0)
        np.testing.assert_allclose(isometry["norm_mean"].values, 1 - expected, atol=1e-6)
        np.testing.assert_allclose(isometry["residual_mean"].values, 0, atol=1e-6)
        rough = importance["rough"].values[ACTIVE]
        np.testing.assert_allclose(rough, EIGENVALUES[ACTIVE], rtol=1e-6)
        low, high = result.attrs["beta_ci95"]
        assert low - 1e-6 < BETA < high + 1e-6  # a linear decoder leaves nothing but rounding
        gaussian = torch.distributions.MultivariateNormal(
            torch.zeros(5, dtype=torch.float64), torch.as_tensor(covariance)
        )
        log_p = gaussian.log_prob(torch.as_tensor(x)).numpy()
        found = result.samples(names=["log_density_absolute"])["log_density_absolute"]
        np.testing.assert_allclose(found, log_p, atol=1e-6)

    print("norms are 1 - sigma^2, residuals 0")
    print(f"importances are the eigenvalues: {np.round(rough, 6)}")
    print(f"beta {BETA} lies in the recovered interval {low:.4f} to {high:.4f}")
    print("log densities are those of the Gaussian, sample by sample")


if __name__ == "__main__":
    main()
