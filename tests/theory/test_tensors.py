"""Volume, condition and evenness of M against its eigenvalues, and truncation of a linear VAE."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isoprobe.theory.tensors import (
    condition_number,
    gram_eigenvalues,
    log_volume,
    relaxed_distortion,
)
from isoprobe.theory.truncation import curve, data_costs, latents_for, truncation_costs
from isoprobe_plugins.architectures.linear import linear_vae


def test_figures_of_a_tensor_are_those_of_its_determinant_and_traces() -> None:
    columns = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = columns.mT @ columns
    values = gram_eigenvalues(gram).numpy() + 0.25
    tensor = (gram + 0.25 * torch.eye(3, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(log_volume(values), 0.5 * np.log(np.linalg.det(tensor)))
    np.testing.assert_allclose(condition_number(values), np.linalg.cond(tensor))
    trace, square = np.trace(tensor, axis1=1, axis2=2), (tensor**2).sum(axis=(1, 2))
    np.testing.assert_allclose(relaxed_distortion(values), 3 * square / trace**2 - 1)


def test_a_decoder_that_answers_to_nothing_is_even() -> None:
    values = gram_eigenvalues(torch.zeros(1, 5, 5)).numpy() + 2.0
    assert relaxed_distortion(values) == 0
    assert condition_number(values) == 1
    assert log_volume(values) == pytest.approx(2.5 * np.log(2))


BETA = 0.2
EIGENVALUES = np.array([4.0, 2.0, 1.0, 0.5, 0.3, BETA / 4])


@pytest.mark.parametrize("kept", range(7))
def test_truncation_of_the_linear_vae(kept: int) -> None:
    """Distortion with the first latents kept is what the closed form says, for every k."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    covariance = basis @ np.diag(EIGENVALUES) @ basis.T
    vae = linear_vae(torch.as_tensor(covariance), BETA, latent_size=6)
    # rows whose second moments are the covariance's: plus and minus its scaled eigenvectors
    rows = torch.as_tensor(np.sqrt(6 * EIGENVALUES) * basis).T
    x = torch.cat([rows, -rows])
    assert vae.encode is not None
    z = vae.encode(x).mean
    order = z.var(dim=0).argsort(descending=True)
    z[:, order[kept:]] = 0
    found = vae.decode(z).detach()
    used = EIGENVALUES > BETA / 2
    whole = np.where(used, (BETA / 2) ** 2 / EIGENVALUES, EIGENVALUES).sum()
    for reference, expected in (
        (vae.decode(vae.encode(x).mean).detach(), curve(truncation_costs(EIGENVALUES, BETA))),
        (x, curve(data_costs(EIGENVALUES, BETA), whole)),
    ):
        measured = float((reference - found).square().sum(dim=1).mean())
        assert measured == pytest.approx(expected[kept], abs=1e-6)


def test_an_idle_latent_costs_nothing() -> None:
    np.testing.assert_array_equal(truncation_costs(np.array([0.1, 0.05, 0.0]), 0.2), 0)


@pytest.mark.parametrize(("share", "count"), [(0.5, 1), (0.9, 3), (0.99, 4), (1.0, 4), (0.0, 0)])
def test_latents_a_share_needs(share: float, count: int) -> None:
    # it rises again at k = 2, so 60 % are reached for good at k = 3 only
    found = np.array([10.0, 4.5, 5.0, 1.0, 0.0])
    assert latents_for(found, share) == count


def test_a_dip_does_not_count() -> None:
    assert latents_for(np.array([10.0, 3.0, 6.0, 0.0]), 0.6) == 3
