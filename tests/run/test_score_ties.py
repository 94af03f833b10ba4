"""Equal rows get equal scores and p-values, whatever the batch, their order and the threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.data.overlap import shared_rows
from isoprobe.results.reader import Result
from isoprobe.theory.detection import TIE, conformal_p_values, false_alarm_rate, upper_threshold
from tests.oracles import small_vae


def distinct(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 9)).astype(np.float32)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty different rows, each ten times."""
    out = tmp_path_factory.mktemp("ties") / "r.h5"
    data = np.random.default_rng(1).permutation(np.repeat(distinct(30), 10, axis=0))
    vae = small_vae(dtype=torch.float32)
    isoprobe.analyze(
        vae, data, metric="sse", beta=0.4, analyses=["anomaly"], out=out, batch_size=37
    ).close()
    return out


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 16, 33, 64, 100, 255, 256])
@pytest.mark.parametrize("threads", [1, 2])
def test_copies_of_reference_rows_are_tied_with_them(
    reference: Path, batch: int, threads: int
) -> None:
    rows = np.tile(distinct(30), (9, 1))
    order = np.random.default_rng(batch).permutation(len(rows))
    found = isoprobe.score(
        small_vae(dtype=torch.float32), rows[order], reference, batch_size=batch, threads=threads
    )
    with Result.open(reference) as result:
        old = result["anomaly"]["reference"].values
    places = order % 30
    rank = np.argsort(np.argsort([found["score"][places == k].mean() for k in range(30)]))
    # of 300 rows each has ten copies, and ten more for every row that scores higher
    expected = (1 + 10 * (30 - rank)) / 301
    np.testing.assert_array_equal(found["p_value"], expected[places])
    assert np.ptp([np.ptp(found["score"][places == k]) for k in range(30)]) < TIE * old.max()
    for rule in ("alpha", "quantile"):
        flags = found[f"flag_{rule}"]
        assert all(len(set(flags[places == k])) == 1 for k in range(30))


def test_ties_by_rounding_would_split_without_a_tolerance() -> None:
    old = np.array([1.0, 2.0, 3.0])
    new = np.array([2.0 * (1 + 1e-7)])
    assert conformal_p_values(new, old) == [0.5]
    assert conformal_p_values(new, old, TIE * new) == [0.75]


@pytest.mark.parametrize(("count", "share"), [(50, 0.01), (99, 0.1), (10, 0.3)])
def test_the_false_alarm_rate_is_that_of_new_rows(count: int, share: float) -> None:
    generator = np.random.default_rng(0)
    old = np.sort(generator.normal(size=(20_000, count)), axis=1)
    thresholds = np.array([upper_threshold(row, share) for row in old])
    found = (generator.normal(size=20_000) > thresholds).mean()
    truth = false_alarm_rate(count, share)
    assert found == pytest.approx(truth, abs=4 * np.sqrt(truth / 20_000))


def test_a_reference_of_training_rows_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = distinct(200)
    np.save("train.npy", rows)
    np.save("mixed.npy", np.concatenate([rows[:50], distinct(300)[200:250]]))
    np.save("new.npy", distinct(500)[300:])
    vae = small_vae(dtype=torch.float32, dataset="train.npy")
    said = {}
    for name in ("train", "mixed", "new"):
        with isoprobe.analyze(
            vae, f"{name}.npy", metric="sse", beta=0.4, analyses=["anomaly"], out=f"{name}.h5"
        ) as result:
            notes = result["anomaly"].get("notes")
            said[name] = (
                result.attrs["training_share"],
                "" if notes is None else str(notes.values),
            )
    assert {name: share for name, (share, _) in said.items()} == {
        "train": 1.0, "mixed": 0.5, "new": 0.0,
    }  # fmt: skip
    assert said["train"][1].startswith("100% of the reference rows are rows the checkpoint")
    assert said["mixed"][1].startswith("50%")
    assert said["new"][1] == ""
    with isoprobe.run.scoring.open_scoring(vae, "new.npy", "train.h5") as scoring:
        assert any("rows the model was trained on" in note for note in scoring.notes)
    with isoprobe.run.scoring.open_scoring(vae, "new.npy", "new.h5") as scoring:
        assert any("compared with itself" in note for note in scoring.notes)


def test_rows_of_another_shape_or_number_are_not_looked_for() -> None:
    class Rows:
        shape, name = (3,), "rows"

        def __init__(self, shape=(3,), count=10):
            self.shape, self.count = shape, count

        def __len__(self):
            return self.count

        def fingerprint(self):
            return f"{self.shape}{self.count}"

    assert shared_rows(Rows(), Rows(shape=(4,))) is None
    assert shared_rows(Rows(), Rows(count=10**6)) is None
    assert shared_rows(Rows(), Rows()) == 1.0
