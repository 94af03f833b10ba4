"""Drift: quiet where nothing moved, loud and precise where one column did, and what to do then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

import isoprobe
from isoprobe.cli import main
from isoprobe.data.held import Held
from isoprobe.errors import OptionError
from isoprobe.run.drift import REFIT_MODEL, REFIT_REFERENCE, drift
from isoprobe.theory.drift import ks_p_value, ks_statistic, mean_shift
from isoprobe_trainers.table.train import LinearVae

if TYPE_CHECKING:
    from isoprobe.contracts import VAE

COLUMNS, RUNS, ROWS = 10, 200, 500
NAMES = [f"c{place}" for place in range(COLUMNS)]


def rows(count: int, seed: int) -> np.ndarray:
    """Ten columns of variance 1 and correlation 0.3."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(count, 1))
    found: np.ndarray = (
        np.sqrt(0.7) * generator.normal(size=(count, COLUMNS)) + np.sqrt(0.3) * common
    )
    return found


@pytest.fixture(scope="module")
def vae() -> VAE:
    """The linear VAE of these columns: one latent, noise 0.7."""
    from isoprobe_trainers.table.train import as_vae, started

    direction = np.full((COLUMNS, 1), 1 / np.sqrt(COLUMNS))
    linear = LinearVae(np.zeros(COLUMNS), direction, np.array([3.7]), 0.7)
    networks, _ = started(linear, COLUMNS, 0)
    return as_vae(networks, linear.beta, {})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, vae: VAE) -> Path:
    out = tmp_path_factory.mktemp("drift") / "r.h5"
    isoprobe.analyze(vae, rows(2000, 0), analyses=["anomaly"], out=out).close()
    return out


def test_quiet_where_nothing_moved(vae: VAE, reference: Path) -> None:
    alarms = [drift(vae, rows(ROWS, seed), reference).alarm for seed in range(1, RUNS + 1)]
    assert np.mean(alarms) <= 0.05


def test_loud_where_one_column_of_ten_moved_by_one_sd(vae: VAE, reference: Path) -> None:
    """200 blocks of 500 rows in one run, which shares its level among them all."""
    data = np.concatenate([rows(ROWS, seed) for seed in range(1, RUNS + 1)])
    data[:, 6] += 1
    found = drift(vae, Held(data, columns=NAMES), reference, block=ROWS)
    assert len(found.blocks) == RUNS
    assert np.mean([block.alarm for block in found.blocks]) >= 0.95
    named = [(block.moved[0].kind, block.moved[0].name) for block in found.blocks if block.moved]
    assert sum(one == ("input", "c6") for one in named) >= 0.95 * RUNS


def test_what_to_do_depends_on_the_distortion(vae: VAE, reference: Path) -> None:
    within = rows(ROWS, 5) + 0.5  # along the latent, which the model describes
    beyond = rows(ROWS, 5)
    beyond[:, 0] += 2
    assert drift(vae, within, reference).blocks[0].advice == REFIT_REFERENCE
    assert drift(vae, beyond, reference).blocks[0].advice == REFIT_MODEL
    moved = drift(vae, within, reference).blocks[0].moved
    assert ("latent", "0") in [(one.kind, one.name) for one in moved]


def test_statistics_are_those_of_other_implementations() -> None:
    generator = np.random.default_rng(0)
    for count in (40, 300):
        new, old = generator.normal(0.2, 1, count), generator.normal(size=500)
        theirs = stats.ks_2samp(new, old, method="asymp")
        assert ks_statistic(new, old) == pytest.approx(theirs.statistic)
        ours = ks_p_value(theirs.statistic, count, 500)
        assert ours == pytest.approx(stats.ks_2samp(new, old, method="exact").pvalue, rel=0.1)
        welch = stats.ttest_ind(new, old, equal_var=False).statistic
        shift = mean_shift(new.mean(), new.std(ddof=1), count, old.mean(), old.std(ddof=1), 500)
        assert float(shift) == pytest.approx(welch)


def test_p_values_of_the_distance_are_uniform_or_above_with_ties() -> None:
    generator = np.random.default_rng(1)
    for tied in (False, True):
        found = []
        for _ in range(600):
            new, old = generator.normal(size=100), generator.normal(size=300)
            if tied:
                new, old = np.round(new), np.round(old)
            found.append(ks_p_value(ks_statistic(new, old), 100, 300))
        for level in (0.05, 0.2, 0.5):
            error = np.sqrt(level * (1 - level) / 600)
            assert np.mean(np.array(found) <= level) <= level + 3 * error


def test_blocks_follow_time_and_out_of_order_is_refused(vae: VAE, reference: Path) -> None:
    data = rows(210, 3)
    data[120:, 2] += 3
    days = np.array([f"2024-05-{1 + place // 10:02d}" for place in range(210)])
    found = drift(vae, Held(data, carried={"day": days}), reference, block=60, time="day")
    assert [block.rows for block in found.blocks] == [60, 60, 90]
    assert [block.alarm for block in found.blocks] == [False, False, True]
    assert (found.blocks[2].first, found.blocks[2].last) == ("2024-05-13", "2024-05-21")
    with pytest.raises(OptionError, match="not in the order of 'day'; sort them"):
        drift(vae, Held(data, carried={"day": days[::-1]}), reference, block=60, time="day")
    with pytest.raises(OptionError, match="at least 30 rows; found 29"):
        drift(vae, data[:29], reference)


def test_the_command_says_it_and_draws_it(
    tmp_path: Path, vae: VAE, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from isoprobe_trainers.table.train import fit, write

    cells = {name: rows(300, 1)[:, place] for place, name in enumerate(NAMES)}
    trained = fit(cells)
    model = tmp_path / "m.safetensors"
    write(model, trained.networks, trained.config, trained.beta, trained.record)
    for name, seed, shift in (("old", 2, 0.0), ("new", 3, 3.0)):
        data = rows(300, seed)
        data[150:, 4] += shift
        np.savetxt(
            tmp_path / f"{name}.csv", data, delimiter=",", header=",".join(NAMES), comments=""
        )
    result = ["--analysis", "anomaly", "--out", str(tmp_path / "r.h5")]
    assert main(["analyze", str(model), "--data", str(tmp_path / "old.csv"), *result]) == 0
    capsys.readouterr()
    arguments = ["--data", str(tmp_path / "new.csv"), "--reference", str(tmp_path / "r.h5")]
    plot = ["--block", "150", "--plot", str(tmp_path / "d.svg")]
    assert main(["drift", str(model), *arguments, *plot]) == 0
    out = capsys.readouterr().out
    assert "rows 0 to 149: quiet" in out and "rows 150 to 299: ALARM" in out
    assert "input c4" in out
    assert (tmp_path / "d.svg").read_text().count("<svg") == 1
