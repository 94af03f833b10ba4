"""Idle latents are dropped from a native checkpoint, and what that costs in D is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.checkpoints.native import write_checkpoint
from isoprobe.cli import main
from isoprobe_plugins.architectures.linear import linear_networks
from isoprobe_plugins.commands.used_latents import trimmed
from tests.theory.test_linear_vae import BETA, KEPT, covariance, exact_moments

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits.safetensors"


def test_a_linear_vae_loses_nothing_but_its_idle_latents(tmp_path: Path) -> None:
    networks, manifest = linear_networks(torch.from_numpy(covariance()), BETA, 6)
    with torch.no_grad():  # an idle latent's column and mean, which the bias has to take in
        networks.encoder.bias[5] = 0.1
        networks.decoder.out.weight[:, 5] = torch.arange(6.0)
    whole, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_checkpoint(whole, networks.encoder, networks.decoder, manifest)
    np.save(tmp_path / "x.npy", exact_moments(covariance(), 300))
    found = trimmed(whole, str(tmp_path / "x.npy"))
    np.testing.assert_array_equal(found.kept, np.flatnonzero(KEPT))
    assert found.change == pytest.approx(0, abs=1e-12)
    given = [
        "convert",
        str(whole),
        str(out),
        "--latents",
        "used",
        "--data",
        str(tmp_path / "x.npy"),
    ]
    assert main(given) == 0
    small, large = isoprobe.load(out), isoprobe.load(whole)
    x = torch.from_numpy(exact_moments(covariance(), 20))
    assert small.latent_size == KEPT.sum()
    assert small.encode is not None and large.encode is not None
    mean = large.encode(x).mean
    torch.testing.assert_close(small.encode(x).mean, mean[:, torch.from_numpy(KEPT)])
    torch.testing.assert_close(small.encode(x).std, large.encode(x).std[:, torch.from_numpy(KEPT)])
    torch.testing.assert_close(small.decode(small.encode(x).mean), large.decode(mean))
    assert small.facts.training["latents_before"] == 6


def test_a_trained_model_says_what_it_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.safetensors"
    rows = str(ROOT / "examples" / "digits.npy")
    assert main(["convert", str(DIGITS), str(out), "--latents", "used", "--data", rows]) == 0
    said = capsys.readouterr().out
    assert "7 of 10 latents; dropped idle latents 0, 1, 8: D(x, x_check) 15.06" in said
    x = np.load(rows)[:200]
    codes = [isoprobe.encode(path, x) for path in (DIGITS, out)]
    kept = [2, 3, 4, 5, 6, 7, 9]
    np.testing.assert_allclose(codes[1]["mean"], codes[0]["mean"][:, kept], atol=1e-5)
    again = tmp_path / "again.safetensors"
    assert main(["convert", str(out), str(again), "--latents", "used", "--data", rows]) == 0
    assert "all 7 latents are used; none dropped" in capsys.readouterr().out


def test_what_cannot_be_trimmed_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.pt").write_bytes(b"no checkpoint")
    out = tmp_path / "b.safetensors"
    assert main(["convert", str(tmp_path / "x.pt"), str(out), "--latents", "used"]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["convert", str(DIGITS), str(out), "--data", "x.npy"]) == 2
    assert not out.exists()
