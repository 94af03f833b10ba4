"""The three plugins obey the laws of their kinds, and know what they should."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
from isoprobe_plugin_example.affine_json import AffineJson, write
from isoprobe_plugin_example.effective_size import EffectiveSize
from isoprobe_plugin_example.spectral import Spectral

import isoprobe
from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError
from isoprobe.testing import Law, check_adapter, check_analysis, check_metric

BETA, EIGENVALUES = 0.1, np.array([4.0, 2.0, 1.0, 0.3])
DATA = np.random.default_rng(0).standard_normal((300, 4)) * np.sqrt(EIGENVALUES)


def checkpoint() -> Path:
    """A linear VAE at its optimum."""
    gain = np.sqrt(EIGENVALUES - BETA / 2)
    log_std = 0.5 * np.log(BETA / 2 / EIGENVALUES)
    path = Path(mkdtemp()) / "model.json"
    encoder, decoder = np.diag(gain / EIGENVALUES), np.diag(gain)
    write(path, encoder.tolist(), log_std.tolist(), decoder.tolist(), BETA)
    return path


LAWS = [
    *check_metric(Spectral()),
    *check_metric(Spectral(power=2.5), [(5,), (1, 4, 6)]),
    *check_adapter(AffineJson(), checkpoint(), data=torch.from_numpy(DATA)),
    *check_analysis(EffectiveSize),
]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_law(law: Law) -> None:
    law()


def test_power_zero_is_the_squared_error() -> None:
    x, y = torch.rand(2, 5, 3, 6, 8, dtype=torch.float64)
    expected = (x - y).square().flatten(1).sum(1)
    assert torch.allclose(Spectral(power=0).distortion(x, y), expected)


def test_a_constant_error_costs_most() -> None:
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    flat, checked = torch.ones_like(x), torch.ones_like(x)
    checked[..., ::2, 1::2] = checked[..., 1::2, ::2] = -1
    assert Spectral().distortion(x, flat) > 3 * Spectral().distortion(x, checked)


def test_shapes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write(tmp_path / "odd.json", [[1.0, 0.0]], [0.0, 0.0], [[1.0], [0.0]])
    with pytest.raises(CheckpointError, match="odd.json: expected"):
        AffineJson().load(Source(tmp_path / "odd.json"), {})


def test_all_three_work_together() -> None:
    analyses = ("isometry", "effective-size")
    with isoprobe.analyze(
        checkpoint(), DATA, metric="spectral:power=0", beta=BETA, analyses=analyses
    ) as result:
        residuals = result["isometry"]["residual_mean"].values
        rate = result["overview"]["kl_mean"].values
        size = float(result["effective-size"]["effective_size"].values)
    assert np.abs(residuals).max() < 1e-6
    share = rate / rate.sum()
    assert size == pytest.approx(np.exp(-(share * np.log(share)).sum()))
