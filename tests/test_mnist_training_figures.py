"""Figures 4, 5, 27 and 28: which models, what is averaged over which latents."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from isoprobe.cli.group import cli
from isoprobe.errors import CheckpointError
from isoprobe_trainers import latent_experiments, mnist
from isoprobe_trainers.latent_experiments import PRINTED, Latents, provide, report, runs_of
from isoprobe_trainers.mnist_source import DigitsDataset, DigitsSource


def test_each_figure_has_the_models_of_the_paper():
    described = {
        name: [
            (r.config["latent_size"], round(1 / r.beta, 6), r.decomposed, r.iterations)
            for r in runs_of(name, quick=False)
        ]
        for name in PRINTED
    }
    assert described == {
        "fig4": [(32, 1000, False, 300_000)],
        "fig5": [(32, 1000, True, 300_000)],
        "fig27": [(256, 10_000, False, 300_000), (256, 10_000, True, 300_000)],
        "fig28": [
            (32, pytest.approx(2000 / 784, abs=1e-6), False, 50_000),
            (64, pytest.approx(10_000 / 784, abs=1e-6), False, 50_000),
        ],
    }
    for name in PRINTED:
        pairs = zip(runs_of(name, quick=True), runs_of(name, quick=False), strict=True)
        assert all(short.iterations < full.iterations for short, full in pairs)


def test_the_report_averages_used_active_and_collapsed_latents_apart():
    found = Latents(
        inverse_variance=np.array([50.0, 20.0, 8.0, 1.0]),
        norm=np.array([0.9, 1.1, 0.7, 0.0]),
        residual=np.array([-0.02, 0.04, 0.01, 0.0]),
        active=np.array([True, True, True, False]),
    )
    text = report(runs_of("fig28", quick=True)[0], found, "close to 1")
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[2:5]]
    assert [row[1:] for row in cells] == [
        ["2", "1.000", "0.100", "+0.010"],
        ["1", "0.700", "0.000", "+0.010"],
        ["1", "0.000", "0.000", "+0.000"],
    ]


@pytest.fixture
def digits(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    made = DigitsDataset("mnist/train", images, np.zeros(40, dtype=np.uint8))
    monkeypatch.setattr(DigitsSource, "open", lambda self, spec, vae=None: made)
    monkeypatch.setattr(mnist, "BATCH", 8)
    monkeypatch.setattr(mnist, "WIDTHS", (16,))
    monkeypatch.setattr(mnist, "PAPER", ((3, 784.0), (2, 784.0)))
    monkeypatch.setattr(latent_experiments, "PAPER", ((3, 784.0), (2, 784.0)))
    monkeypatch.setattr(latent_experiments, "QUICK_DIGITS", 4)


def test_the_command_trains_analyses_and_reuses(digits, tmp_path):
    arguments = ["reproduce", "fig28", "--quick", "--device", "cpu", "--out", str(tmp_path)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("4 iterations; mean norm of the used latents") == 2
    path = tmp_path / "quick" / "images" / "mnist_lam784_n3_seed0.safetensors"
    written = path.stat().st_mtime_ns
    again = CliRunner().invoke(cli, arguments)
    assert again.stdout == done.stdout
    assert path.stat().st_mtime_ns == written


def test_a_checkpoint_of_another_schedule_is_not_passed_off(digits, tmp_path):
    run = runs_of("fig28", quick=True)[0]
    provide(run, tmp_path, "cpu")
    longer = latent_experiments.digits_run("mnist", 3, 784.0, iterations=9)
    with pytest.raises(CheckpointError, match="another schedule"):
        provide(longer, tmp_path, "cpu")
