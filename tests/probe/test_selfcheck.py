"""A checkpoint read in the wrong way is noticed on the first data it sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from isoprobe import api
from isoprobe.probe.selfcheck import FEW, mean_input_distortion
from isoprobe.registry.lookup import installed
from isoprobe.show.summary import to_text
from isoprobe_plugins.architectures.linear import linear_vae

COVARIANCE = np.diag([4.0, 2.0, 1.0, 0.5])


def rows(count: int) -> torch.Tensor:
    scale = torch.as_tensor(np.sqrt(np.diag(COVARIANCE)))
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(0)).double() * scale


def test_the_mean_input_of_gaussian_rows_leaves_their_variance():
    x = rows(20_000)
    baseline = mean_input_distortion(installed().metric("sse"), x)
    assert baseline == pytest.approx(np.trace(COVARIANCE), rel=0.02)
    # of N rows the mean of the others is 1 + 1/(N - 1) variances away, and the own row is not in it
    few = [mean_input_distortion(installed().metric("sse"), part) for part in x.split(FEW)]
    expected = np.trace(COVARIANCE) * (1 + 1 / (FEW - 1))
    assert np.mean(few) == pytest.approx(expected, rel=0.02)


def test_too_few_rows_say_nothing():
    assert mean_input_distortion(installed().metric("sse"), rows(FEW - 1)) is None


@pytest.mark.parametrize("wrong", [False, True])
def test_a_wrong_reading_is_said_and_a_right_one_is_not(wrong):
    vae = linear_vae(torch.as_tensor(COVARIANCE), 0.2, 2)
    if wrong:  # mean and scale swapped, as a head read in the wrong order would be
        right = vae.encode

        def swapped(x: torch.Tensor):
            posterior = right(x)
            return replace(posterior, mean=5 + posterior.std, std=posterior.mean.abs() + 0.1)

        vae = replace(vae, encode=swapped)
    with api.analyze(vae, rows(64).numpy(), metric="sse", analyses=["diagnosis"]) as result:
        text = " ".join(to_text(result).split())
        assert float(result["conditions"]["mean_distortion"].values) > 0
    assert ("Not sound" in text) == wrong
    assert ("isoprobe doctor" in text) == wrong
