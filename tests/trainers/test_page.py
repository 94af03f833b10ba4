"""The page of finished trainings: made from their records, and nothing on it is older than they."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from isoprobe_trainers.anomaly.experiments import EXPERIMENT as TABLE
from isoprobe_trainers.commands.reproduce import reproduce
from isoprobe_trainers.common.records import column, of, records
from isoprobe_trainers.page import anomaly, images
from isoprobe_trainers.page.paired import paired
from isoprobe_trainers.page.short import filled
from isoprobe_trainers.page.whole import page
from isoprobe_trainers.toy.experiments import EXPERIMENT as TOY
from isoprobe_trainers.toy.experiments import QUANTITIES

DOCS = Path(__file__).parents[2] / "docs"
COMMITTED, SHORT = DOCS / "reproduction-records.md", DOCS / "reproduction.md"


def test_the_committed_page_is_the_generated_one() -> None:
    assert COMMITTED.read_text("utf-8") == page(), (
        "run: isoprobe reproduce page > docs/reproduction-records.md"
    )


def test_the_tables_of_the_short_schedule_are_those_of_its_records() -> None:
    committed = SHORT.read_text("utf-8")
    assert filled(committed) == committed, "run: python docs/make_reproduction.py"
    assert committed.count("<!-- end -->") == 20


def test_a_table_that_was_changed_by_hand_is_seen() -> None:
    """Counter-test."""
    committed = SHORT.read_text("utf-8")
    assert filled(committed.replace("33.78", "33.79")) == committed


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(reproduce, ["page"])
    assert result.exit_code == 0
    assert result.output == page()


def test_the_page_stands_alone_on_the_command_line() -> None:
    result = CliRunner().invoke(reproduce, ["page", "table1"])
    assert result.exit_code != 0
    assert "stands alone" in result.output


@pytest.mark.parametrize("name", records())
def test_a_record_is_whole(name: str) -> None:
    record = records()[name]
    assert (record.epochs is None) != (record.iterations is None)
    assert 0 <= record.done <= record.planned
    assert len(set(record.seeds)) == len(record.seeds) > 0
    if record.experiment == TABLE:
        for figure in ("f1", "precision", "recall", "auroc", "average_precision"):
            assert len(column(record, figure)) == len(record.seeds)
            assert all(0 <= value <= 1 for value in column(record, figure))
    elif record.experiment == TOY:
        for name in QUANTITIES:
            assert len(record.values[name]) == len(record.seeds)
        for norm, active in zip(record.values["norm_mean"], record.values["active"], strict=True):
            assert len(norm) == len(active)
    else:
        latents = [record.values[key] for key in ("inverse_variance", "norm", "residual")]
        assert {len(values) for values in latents} == {len(record.values["active"])}


def test_f1_is_the_harmonic_mean_in_every_record() -> None:
    for record in (r for r in records().values() if r.experiment == TABLE):
        precision, recall = np.array(column(record, "precision")), column(record, "recall")
        expected = 2 * precision * recall / (precision + recall + 1e-12)
        assert np.allclose(expected, column(record, "f1"), atol=1e-5)


def test_distances_are_those_of_the_formula() -> None:
    record = next(r for r in of(TABLE, "thyroid") if r.model == "VAE")
    f1 = np.array(column(record, "f1"))
    apart = anomaly.distance(record)
    assert apart is not None
    error = (0.0436**2 / 20 + f1.var(ddof=1) / len(f1)) ** 0.5
    assert apart == pytest.approx(((f1.mean() - 0.6596) / 0.0436, (f1.mean() - 0.6596) / error))


def test_used_latents_are_those_above_the_papers_threshold() -> None:
    record = records()["fig28_n64_decay"]
    inverse = np.array(record.values["inverse_variance"])
    assert images.used(record).sum() == (inverse > 10).sum() == 30


def test_pairs_against_all_patterns_written_out() -> None:
    first, second = [0.5, 0.7, 0.4, 0.9, 0.6], [0.4, 0.75, 0.1, 0.7, 0.6]
    differences = np.subtract(first, second)
    patterns = itertools.product([1, -1], repeat=5)
    means = [abs(np.mean(np.array(signs) * differences)) for signs in patterns]
    expected = np.mean([mean >= abs(differences.mean()) - 1e-12 for mean in means])
    found = paired(first, second)
    assert found.p_value == pytest.approx(expected)
    assert found.mean == pytest.approx(differences.mean())
    assert found.error == pytest.approx(differences.std(ddof=1) / 5**0.5)


def test_pairs_that_agree_are_no_evidence() -> None:
    assert paired([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]).p_value == 1


def test_one_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="2 to 20 pairs"):
        paired([1.0], [0.0])
