"""Two sets in one run, and two results side by side: differences with errors that hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.errors import OptionError
from isoprobe.results.reader import Result
from isoprobe.show.compare import compare
from isoprobe.show.differences import differences
from isoprobe.show.summary import to_json, to_text
from isoprobe.theory.differences import gap, paired_gap
from isoprobe_plugins.architectures.linear import linear_vae

BETA = 0.2
SPECTRUM = np.array([4.0, 1.0, 0.5, 0.1])


def model(beta: float = BETA):
    return linear_vae(torch.diag(torch.as_tensor(SPECTRUM)), beta, latent_size=3)


def rows(count: int, factor: float, seed: int) -> np.ndarray:
    return factor * np.random.default_rng(seed).normal(size=(count, 4)) * np.sqrt(SPECTRUM)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "test.npy", rows(1500, 1.2, 0))
    np.save(tmp_path / "train.npy", rows(900, 1.0, 1))
    return tmp_path


def test_the_second_set_is_measured_in_the_same_run(folder: Path) -> None:
    one, two = str(folder / "test.npy"), str(folder / "train.npy")
    with isoprobe.analyze(model(), one, beta=BETA, against=two, samples=None) as both:
        found = {name: float(v.values) for name, v in both["against"].items()}
        test = both.samples(names=["kl", "distortion"])
        assert both.attrs["against_samples"] == 900
        text = to_text(both)
        assert "elbo gap" in text and "95 %" in text
        assert to_json(both)["summary"]["against/rate_gap"] == pytest.approx(found["rate_gap"])
    with isoprobe.analyze(model(), two, beta=BETA, samples=None) as alone:
        train = alone.samples(names=["kl", "distortion"])
        assert found["rate_mean"] == pytest.approx(alone.attrs and train["kl"].mean(), rel=1e-9)
    np.testing.assert_allclose(found["rate_gap"], train["kl"].mean() - test["kl"].mean())
    spread = [np.var(set_["kl"], ddof=1) / len(set_["kl"]) for set_ in (test, train)]
    assert found["rate_gap_se"] == pytest.approx(np.sqrt(sum(spread)), rel=1e-9)
    # closed forms: rows that are 1.2 times as long, of which each latent keeps its share
    kept, more = SPECTRUM[:3], 1.2**2
    coded = (kept - BETA / 2) / kept * kept / kept
    rate = -(more - 1) * coded.sum() / 2
    lost = -(more - 1) * ((BETA / 2) ** 2 / kept).sum() - (more - 1) * SPECTRUM[3]
    for name, truth in (("rate", rate), ("distortion", lost), ("elbo", -lost / BETA - rate)):
        assert abs(found[f"{name}_gap"] - truth) < 4 * found[f"{name}_gap_se"]


def test_the_same_set_or_none_is_refused_before_the_run(folder: Path) -> None:
    one = str(folder / "test.npy")
    with pytest.raises(OptionError, match="the very rows"):
        isoprobe.analyze(model(), one, against=one)
    with pytest.raises(isoprobe.IsoprobeError, match="none.npy"):
        isoprobe.analyze(model(), one, against=str(folder / "none.npy"))


def test_intervals_hold_over_many_pairs_of_sets() -> None:
    rng = np.random.default_rng(0)
    held = {"gap": 0, "paired": 0}
    for _ in range(2000):
        ours, theirs = rng.normal(size=40), 0.3 + 2 * rng.normal(size=60)
        found = gap(ours, theirs)
        held["gap"] += bool(found.low <= 0.3 <= found.high)
        common = rng.normal(size=30)
        found = paired_gap(common, common + 0.3 + 0.1 * rng.normal(size=30))
        held["paired"] += bool(found.low <= 0.3 <= found.high)
    assert all(0.93 <= count / 2000 <= 0.97 for count in held.values())


def test_compare_pairs_rows_that_both_saw(folder: Path) -> None:
    data = str(folder / "test.npy")
    for name, vae in (("a", model()), ("b", model(0.22))):
        options = {"beta": BETA, "out": folder / f"{name}.h5", "samples": None}
        isoprobe.analyze(vae, data, **options).close()
    isoprobe.analyze(
        model(), str(folder / "train.npy"), beta=BETA, out=folder / "c.h5", samples=None
    ).close()
    with (
        Result.open(folder / "a.h5") as a,
        Result.open(folder / "b.h5") as b,
        Result.open(folder / "c.h5") as c,
    ):
        paired = {one.name: one for one in differences(a, b)}
        apart = {one.name: one for one in differences(a, c)}
        kl = [result.samples(names=["kl"])["kl"].astype(float) for result in (a, b)]
        text = compare([a, b, c]).to_text()
    each = kl[1] - kl[0]
    assert paired["rate"].value == pytest.approx(each.mean())
    assert paired["rate"].se == pytest.approx(each.std(ddof=1) / np.sqrt(1500))
    assert paired["rate"].paired and not apart["rate"].paired
    assert paired["rate"].se < 0.2 * apart["rate"].se
    assert set(paired) == set(apart) == {"rate", "distortion", "elbo"}
    assert "b less a: rate" in text and "95 %, paired" in text and "independent rows" in text


def test_elbos_under_other_betas_are_not_compared(folder: Path) -> None:
    data = str(folder / "test.npy")
    for name, beta in (("a", 0.2), ("b", 0.3)):
        isoprobe.analyze(model(beta), data, beta=beta, out=folder / f"{name}.h5").close()
    with Result.open(folder / "a.h5") as a, Result.open(folder / "b.h5") as b:
        assert [one.name for one in differences(a, b)] == ["rate", "distortion"]
