"""Results that several tests of figures share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.results.reader import Result
from isoprobe_plugins.architectures.linear import linear_vae
from tests.theory.test_linear_vae import BETA, EIGENVALUES


@pytest.fixture(scope="module")
def parts_result(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    """A linear VAE of labelled rows with the KL in parts, information, truncation, distances."""
    generator = np.random.default_rng(0)
    label = np.arange(400) % 2
    rows = generator.normal(size=(400, 6)) * EIGENVALUES**0.5
    rows[:, 0] += 4.0 * label
    path = Path(tmp_path_factory.mktemp("parts") / "d.npz")
    np.savez(path, x=rows, y=label)
    found = isoprobe.analyze(
        linear_vae(torch.diag(torch.from_numpy(EIGENVALUES)), BETA, latent_size=6),
        f"{path}:x,y", metric="sse", beta=BETA, samples=None,
        analyses=(
            *("kl-parts", "information", "truncation", "geometry:pairs=8,pictures=2"),
            *("maps", "examples"),
        ),
    )  # fmt: skip
    with found:
        yield found
