"""A long run is announced from its own first batches; a short one says nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isoprobe.api import analyze
from isoprobe.contracts import VAE
from isoprobe.run import announce as planner
from isoprobe.run.announce import Trial, announcement
from isoprobe_plugins.architectures.linear import linear_vae

ROWS = np.random.default_rng(0).normal(size=(50, 4))


def model() -> VAE:
    return linear_vae(torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5]).double()), 0.1, latent_size=3)


def told(total: float, *, exact: bool = True) -> str | None:
    """What is said of a run of 10,000 samples that takes so many seconds."""
    trial = Trial(10_000)
    for _ in range(5):
        trial.add(10, 10 * total / 10_000)
    return announcement(trial, total / 10_000 / 40, 3 << 29, exact=exact)


def test_what_is_said_of_a_long_run() -> None:
    assert told(29) is None
    said = told(600)
    assert said is not None
    assert "About 10 min for 10,000 samples: 60 ms each, as 40 plain decoder passes" in said
    assert "in 1.5 GiB" in said
    assert "Shorter: --pullback probe; --samples auto" in said
    assert "--pullback probe" not in str(told(600, exact=False))


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (3000, "50 min"), (9000, "2.5 h")])
def test_durations_read_as_one_would_say_them(seconds: float, text: str) -> None:
    assert f"About {text} for" in str(told(seconds))


def test_the_first_batch_only_warms_up() -> None:
    trial = Trial(1000)
    trial.add(10, 100.0)
    assert not trial.over
    for _ in range(3):
        trial.add(10, 0.2)
    assert trial.over
    assert trial.total == pytest.approx(20.0)


def test_slow_batches_need_not_be_many() -> None:
    trial = Trial(1000)
    trial.add(10, 9.0)
    trial.add(10, 9.0)
    assert trial.over


def run(monkeypatch: pytest.MonkeyPatch, limit: float, **options: object) -> np.ndarray:
    monkeypatch.setattr(planner, "LONG", limit)
    with analyze(
        model(), ROWS, metric="sse", beta=0.1, device="cpu", batch_size=5, **options
    ) as result:
        return result["isometry"]["stationary_norm_mean"].values


def test_a_run_announces_itself_once_where_progress_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = run(monkeypatch, 0.0)
    assert capsys.readouterr().err == ""  # a call from Python did not ask
    short = run(monkeypatch, 1e6, progress=True)
    assert capsys.readouterr().err == ""
    loud = run(monkeypatch, 0.0, progress=True)
    said = capsys.readouterr().err
    assert said.count("plain decoder passes") == 1
    assert "for 50 samples" in said
    np.testing.assert_array_equal(loud, silent)
    np.testing.assert_array_equal(short, silent)
