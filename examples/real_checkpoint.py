"""Analyse weights that somebody else trained, and see that they obey the theory.

Takes a folder of the disentangling-vae project (``model.pt`` with ``specs.json``, which states the
beta of the training) and its data, such as::

    python real_checkpoint.py VAE_mnist mnist.npz:x_train --resize 32

Nothing about the model has to be said: the adapter reads the network from the weights. At an
optimum norm + sigma^2 is 1 in every latent, used or not, and the weights give beta away.
A few hundred samples are needed to see it.
"""

from __future__ import annotations

import argparse

import numpy as np

import isoprobe
from isoprobe.theory.tolerances import TOLERANCES


def main() -> None:
    """Analyse, print latent by latent, compare with what the authors state."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder of the checkpoint")
    parser.add_argument("data", help="data spec of its training data")
    parser.add_argument("--resize", type=int, help="resize images to this size")
    parser.add_argument("--samples", type=int, default=2000)
    given = parser.parse_args()

    with isoprobe.analyze(
        given.folder,
        given.data,
        resize=given.resize,
        samples=given.samples,
        analyses=["isometry", "importance"],
    ) as result:
        overview, isometry = result["overview"], result["isometry"]
        order = result["importance"]["order"].values
        kl = overview["kl_mean"].values
        norm, residual = isometry["norm_mean"].values, isometry["residual_mean"].values
        stationary = isometry["stationary_residual_mean"].values
        error = isometry["norm_se"].values
        stationary_error = isometry["stationary_norm_se"].values
        declared, recovered = result.attrs["beta_declared"], result.attrs["beta_recovered"]
        low, high = result.attrs["beta_ci95"]

    print("latent   KL [nat]   norm   norm + sigma^2 - 1")
    for j in order:
        print(f"{j:6d} {kl[j]:10.3f} {norm[j]:6.3f} {residual[j]:+20.3f}")
    print(f"beta {recovered:.3f} (95 %: {low:.3f} to {high:.3f}); its authors say {declared:g}")
    # Two statements: by the decoder's derivatives (Eq. 23), and by the loss with no expansion.
    # Training by noisy steps leaves some per cent, and few samples blur the figures: a latent is
    # off when it is farther from 0 than the judge allows by three standard errors.
    holds = TOLERANCES["residual"].value
    for found, spread in ((residual, error), (stationary, stationary_error)):
        assert np.abs(found).mean() < holds
        assert (np.abs(found) - 3 * spread).max() < holds
    assert low < 1.1 * declared
    assert high > 0.9 * declared


if __name__ == "__main__":
    main()
