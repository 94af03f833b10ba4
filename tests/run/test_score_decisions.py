"""Decisions over many rows: false discoveries bounded, groups apart, parts that add up exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas
import pytest
import torch
from scipy import stats

import isoprobe
from isoprobe.data.groups import group_keys
from isoprobe.data.held import Held
from isoprobe.errors import OptionError, ResultError
from isoprobe.run.decisions import StepUp, Tally, document, lines
from isoprobe.run.scoring import open_scoring
from isoprobe.theory.detection import conformal_p_values
from isoprobe.theory.discoveries import (
    added_parts,
    adjusted_p_values,
    least_flagged,
    smallest_p_value,
    trimmed,
)
from tests.oracles import small_vae

if TYPE_CHECKING:
    from isoprobe.contracts import VAE

DRAWS = 1000
LEVEL = 0.1


def rows(count: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(count, 9))


def sites(count: int, seed: int, names: str = "abc") -> np.ndarray:
    return np.random.default_rng(seed).choice(list(names), count)


@pytest.fixture(scope="module")
def vae() -> VAE:
    return small_vae(dtype=torch.float32)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, vae: VAE) -> Path:
    out = tmp_path_factory.mktemp("decisions") / "r.h5"
    data = Held(rows(600, 0), carried={"site": sites(600, 1)})
    spec = "anomaly:by=site"
    isoprobe.analyze(vae, data, metric="sse", beta=0.4, analyses=[spec], out=out).close()
    return out


def flagged(p_values: np.ndarray, level: float) -> np.ndarray:
    step = StepUp()
    step.count(p_values)
    found: np.ndarray = step.columns(p_values, level)["flag_fdr"]
    return found


# ------------------------------------------------------------------ laws of the procedure


@pytest.mark.parametrize("level", [0.01, 0.1, 0.5])
def test_flags_are_those_of_another_implementation(level: float) -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        p_values = np.round(generator.uniform(size=200) ** 2, 2) * 0.99 + 0.005
        adjusted = stats.false_discovery_control(p_values, method="bh")
        step = StepUp()
        for part in np.array_split(p_values, 7):
            step.count(part)
        np.testing.assert_allclose(step.adjusted(p_values), adjusted, rtol=1e-12)
        assert np.array_equal(flagged(p_values, level), adjusted <= level)


def false_discoveries(groups: int, *, tied: bool) -> tuple[float, float, float]:
    """Mean share of false flags over draws of reference and new rows, its error, and the power."""
    shares, power = [], []
    for seed in range(DRAWS):
        generator = np.random.default_rng([groups, tied, seed])
        p_values, nulls = [], []
        for group in range(groups):
            size = (60, 200, 400)[group]
            old, new = generator.gamma(2 + group, size=size), generator.gamma(2 + group, size=60)
            odd = np.arange(60) < 15
            new[odd] += 15
            if tied:
                old, new = np.floor(2 * old), np.floor(2 * new)
            p_values.append(conformal_p_values(new, np.sort(old)))
            nulls.append(~odd)
        flags, null = flagged(np.concatenate(p_values), LEVEL), np.concatenate(nulls)
        shares.append((flags & null).sum() / max(flags.sum(), 1))
        power.append((flags & ~null).sum() / (~null).sum())
    return float(np.mean(shares)), float(np.std(shares) / np.sqrt(DRAWS)), float(np.mean(power))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_the_false_discovery_rate_is_at_most_the_nominal_one(groups: int, tied: bool) -> None:
    share, error, power = false_discoveries(groups, tied=tied)
    assert share <= LEVEL + 2 * error
    assert share > 0.2 * LEVEL  # it is a bound that is made use of
    assert power > 0.5


@pytest.mark.parametrize("tied", [False, True])
def test_p_values_of_new_rows_are_uniform_or_above(tied: bool) -> None:
    """Whole numbers of reference rows: P(p <= k / (N + 1)) is k / (N + 1), and less with ties."""
    generator, count = np.random.default_rng(0), 19
    old, new = generator.normal(size=(DRAWS * 20, count)), generator.normal(size=DRAWS * 20)
    if tied:
        old, new = np.round(old), np.round(new)
    found = np.array(
        [
            conformal_p_values(np.array([row]), np.sort(before))[0]
            for row, before in zip(new, old, strict=True)
        ]
    )
    ranks = np.round(found * (count + 1)).astype(int)
    counts = np.bincount(ranks, minlength=count + 2)[1:]
    if not tied:
        assert stats.chisquare(counts).pvalue > 0.001
    reached = np.cumsum(counts) / len(new)
    expected = np.arange(1, count + 2) / (count + 1)
    error = np.sqrt(expected * (1 - expected) / len(new))
    assert (reached <= expected + 3.5 * error).all()


@pytest.mark.parametrize(("rows", "count"), [(42, 83), (200, 19), (10, 999), (1000, 10)])
@pytest.mark.parametrize("level", [0.05, 0.1, 0.5])
def test_so_many_rows_at_the_least_p_value_are_flagged_and_no_fewer(rows, count, level) -> None:
    least = least_flagged(rows, count, level)
    for odd in {max(1, least - 1), min(least, rows)}:
        p_values = np.ones(rows)
        p_values[:odd] = smallest_p_value(count)
        assert flagged(p_values, level).sum() == (odd if odd >= least else 0)


def test_a_reference_too_small_for_one_discovery_is_said() -> None:
    said = {"rows": 42, "reference_rows": 83, "smallest_p_value": 1 / 84, "highest": []}
    said |= {"flagged": {"fdr": 0}, "expected_false": {"fdr": 0.0}, "groups": []}
    text = "\n".join(lines(said, 0.05, 0.05))
    assert "83 reference rows let fdr 0.05 flag 10 of 42 rows together or none" in text
    assert "839 or more" in text
    assert least_flagged(42, 838, 0.05) == 2
    assert least_flagged(42, 839, 0.05) == 1
    assert "no row" in "\n".join(lines({**said, "reference_rows": 9}, 0.5, 0.05))
    assert "reference rows let" not in "\n".join(lines({**said, "flagged": {"fdr": 3}}, 0.05, 0.05))


def test_adjusted_p_values_by_hand() -> None:
    found = adjusted_p_values(np.array([0.01, 0.02, 0.9]), np.array([1, 2, 1]))
    np.testing.assert_allclose(found, [0.02 * 4 / 3, 0.02 * 4 / 3, 0.9])


def test_trimming_gives_back_what_contamination_took() -> None:
    """A tenth of the reference are anomalies: without trimming few are found, with it nominal."""
    shares, powers, untrimmed = [], [], []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        old = np.sort(np.concatenate([generator.normal(size=270), 8 + generator.normal(size=30)]))
        new = generator.normal(size=100)
        new[:10] += 8
        for kept, into in ((old, untrimmed), (trimmed(old, 0.1), powers)):
            flags = flagged(conformal_p_values(new, kept), LEVEL)
            into.append(flags[:10].mean())
        shares.append(flags[10:].sum() / max(flags.sum(), 1))
    assert np.mean(untrimmed) < 0.1 < 0.8 < np.mean(powers)
    assert np.mean(shares) <= LEVEL + 2 * np.std(shares) / np.sqrt(300)


def test_parts_add_up_to_the_last_bit() -> None:
    generator = np.random.default_rng(0)
    for _ in range(500):
        parts = generator.gamma(0.3, size=generator.integers(1, 30)) * 10.0 ** generator.integers(5)
        score = float(parts.sum() * (1 + 1e-7 * generator.normal()))
        found = added_parts(score, parts)
        assert math.fsum(found) == score
        np.testing.assert_allclose(found, parts, rtol=1e-5, atol=1e-6 * parts.max())


# ------------------------------------------------------------------ groups


def test_rows_are_compared_with_their_own_group(reference: Path, vae: VAE) -> None:
    own = sites(600, 1)
    old = isoprobe.score(vae, Held(rows(600, 0), carried={"site": own}), reference)["score"]
    new = Held(rows(90, 2), carried={"site": sites(90, 3)})
    found = isoprobe.score(vae, new, reference, by="site")
    for name in "abc":
        there = found["site"] == name
        expected = conformal_p_values(found["score"][there], np.sort(old[own == name]))
        np.testing.assert_allclose(found["p_value"][there], expected, rtol=1e-9)


def test_a_group_without_reference_rows_is_never_flagged_and_said(
    reference: Path, vae: VAE
) -> None:
    new = Held(rows(60, 2, 9.0), carried={"site": sites(60, 3, "ax")})
    with open_scoring(vae, new, reference, by="site", fdr=0.5) as scoring:
        tally = Tally(0, "site")
        for columns in scoring:
            tally.take(columns)
            assert (columns["p_value"][columns["site"] == "x"] == 1).all()
            assert not columns["flag_fdr"][columns["site"] == "x"].any()
        said = document(scoring, tally)
    text = "\n".join(lines(said, 0.05))
    assert "group x has 0 reference rows: no p-value can be below 1" in text
    assert said["groups"][0]["smallest_p_value"] == 1 / (said["groups"][0]["reference_rows"] + 1)


def test_groups_that_are_not_there_are_refused(reference: Path, vae: VAE, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"grouped by 'site'.*carries no such column.*keep=site"):
        isoprobe.score(vae, rows(5, 0), reference, by="site")
    with pytest.raises(ResultError, match="by machine: the reference r.h5 is grouped by 'site'"):
        isoprobe.score(vae, rows(5, 0), reference, by="machine")
    for wrong in ({"fdr": 1.0}, {"trim": 1.0}, {"trim": -0.1}):
        with pytest.raises(OptionError, match="between 0 and 1|at least 0 and below 1"):
            isoprobe.score(vae, rows(5, 0), reference, **wrong)


def test_a_group_is_the_same_in_text_and_numbers() -> None:
    assert np.array_equal(group_keys(np.array(["1", "20"])), group_keys(np.array([1.0, 20.0])))
    assert np.array_equal(group_keys(np.array(["1", "20"])), group_keys(np.array([1, 20])))
    assert len(set(group_keys(np.arange(5000)))) == 5000


# ------------------------------------------------------------------ the highest rows


def test_the_highest_rows_say_what_made_them_odd(reference: Path, vae: VAE) -> None:
    data = rows(200, 5)
    data[77, 3] += 40
    new = Held(data, carried={"id": np.arange(200) + 1000}, columns=[f"c{i}" for i in range(9)])
    with open_scoring(vae, new, reference, batch_size=17) as scoring:
        tally = Tally(10)
        for columns in scoring:
            tally.take(columns)
        said = document(scoring, tally)
    every = isoprobe.score(vae, new, reference, batch_size=17)["score"]
    assert [row["columns"]["row"] for row in said["highest"]] == np.argsort(-every)[:10].tolist()
    first = said["highest"][0]
    assert first["columns"]["id"] == 1077
    assert (first["parts"][0]["kind"], first["parts"][0]["name"]) == ("input", "c3")
    for row in said["highest"]:
        assert math.fsum(part["part"] for part in row["parts"]) == row["columns"]["score"]
        assert len(row["parts"]) == 9 + 4
        through = {part["through"] for part in row["parts"] if part["kind"] == "latent"}
        assert through <= {f"c{i}" for i in range(9)}
    # what is usual adds up to the mean score of the reference
    with isoprobe.run.scoring.Result.open(reference) as result:
        mean = result["anomaly"]["reference"].values.mean()
    assert sum(part["usual"] for part in first["parts"]) == pytest.approx(mean, rel=1e-6)


def test_a_latent_is_told_by_the_input_it_moves(tmp_path: Path) -> None:
    """A linear decoder of one column a latent: latent j moves column j and no other."""
    from isoprobe_trainers.table.train import LinearVae, as_vae, started

    linear = LinearVae(np.zeros(4), np.eye(4)[:, :3], np.array([4.0, 3.0, 2.0]), 0.1)
    networks, _ = started(linear, 4, 0)
    model, out = as_vae(networks, linear.beta, {}), tmp_path / "r.h5"
    isoprobe.analyze(model, rows(200, 0)[:, :4], analyses=["anomaly"], out=out).close()
    new = Held(np.array([[0.1, 9.0, 0.1, 0.1]]), columns=["a", "b", "c", "d"])
    with open_scoring(model, new, out) as scoring:
        found = scoring.explained(0).document()["parts"]
    assert (found[0]["kind"], found[0]["name"], found[0]["through"]) == ("latent", "1", "b")
    through = {part["name"]: part["through"] for part in found if part["kind"] == "latent"}
    assert through == {"0": "a", "1": "b", "2": "c"}


# ------------------------------------------------------------------ files and the command


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a table for the reference, one of new rows in CSV and Parquet."""
    from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
    from isoprobe_plugins.architectures.mlp import Mlp

    root = tmp_path_factory.mktemp("tables")
    config = {"input_shape": [3], "encoder_widths": [8], "decoder_widths": [8], "latent_size": 2}
    torch.manual_seed(0)
    networks = Mlp().build(config)
    manifest = Manifest(FORMAT_VERSION, "mlp", config, 2, Objective("sse", 0.1))
    write_checkpoint(root / "m.safetensors", networks.encoder, networks.decoder, manifest)
    for name, count, seed in (("old", 300, 0), ("new", 120, 1)):
        frame = pandas.DataFrame(rows(count, seed)[:, :3], columns=["x", "y", "z"])
        frame.insert(0, "patient", [f"p{i}" for i in range(count)])
        frame.insert(2, "site", sites(count, seed))
        frame["odd"] = np.arange(count) % 2
        frame.to_csv(root / f"{name}.csv", index=False)
        frame.to_parquet(root / f"{name}.parquet")
    data = ["--data", f"{root}/old.csv:{ROLES}", "--analysis", "anomaly:by=site"]
    assert command(root, "analyze", *data, "--out", str(root / "r.h5")) == 0
    return root


ROLES = "columns=x,y,z;id=patient;keep=site"


def command(folder: Path, *arguments: str) -> int:
    from isoprobe.cli import main

    return main([*arguments[:1], str(folder / "m.safetensors"), *arguments[1:]])


def test_ids_labels_and_groups_go_through_every_format(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for kind in ("csv", "parquet"):
        for out in ("s.csv", "s.parquet"):
            data = f"{files}/new.{kind}:{ROLES};label=odd"
            options = ["--by", "site", "--fdr", "0.2", "--overwrite", "--top", "2"]
            summary = ["--summary", str(files / "s.json")]
            place = ["--reference", str(files / "r.h5"), "--out", str(files / out)]
            capsys.readouterr()
            assert command(files, "score", "--data", data, *place, *options, *summary) == 0
            text = capsys.readouterr().err
            assert "at most" in text and "group a: " in text and "patient p" in text
            read = pandas.read_csv if out.endswith("csv") else pandas.read_parquet
            tables.append(read(files / out).astype({"label": float}))
    frame = pandas.read_csv(files / "new.csv")
    for table in tables:
        assert list(table.columns[:5]) == ["row", "patient", "site", "label", "score"]
        assert table["patient"].tolist() == frame["patient"].tolist()
        assert np.array_equal(table["score"], tables[0]["score"])
        assert np.array_equal(table["q_value"], tables[0]["q_value"])
    said = json.loads((files / "s.json").read_text())
    assert said["flagged"]["fdr"] == int(tables[0]["flag_fdr"].sum())
    python = isoprobe.score(files / "m.safetensors", frame[["x", "y", "z"]], files / "r.h5")
    assert np.array_equal(python["score"], tables[0]["score"])


def test_hdf5_holds_the_decision_over_all_rows(files: Path) -> None:
    data = f"{files}/new.csv:columns=x,y,z;label=odd"
    arguments = ["analyze", "--data", f"{files}/old.csv:{ROLES}", "--out", str(files / "q.h5")]
    assert command(files, *arguments, "--analysis", "anomaly", "--overwrite") == 0
    options = ["--data", data, "--reference", str(files / "q.h5"), "--fdr", "0.3"]
    for name in ("t.h5", "t.csv"):
        batch = ["--batch-size", "13", "--overwrite"]
        assert command(files, "score", *options, *batch, "--out", str(files / name)) == 0
    table = pandas.read_csv(files / "t.csv")
    with h5py.File(files / "t.h5") as file:
        for name in ("q_value", "flag_fdr", "p_value", "label"):
            assert np.array_equal(file["samples"][name][:], table[name])


def test_a_missing_cell_says_where_and_what_to_do(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines_ = (files / "new.csv").read_text().splitlines()
    cells = lines_[8].split(",")
    cells[1] = ""
    (files / "holes.csv").write_text("\n".join([*lines_[:8], ",".join(cells), *lines_[9:]]) + "\n")
    options = ["--data", f"{files}/holes.csv:{ROLES}", "--reference", str(files / "r.h5")]
    assert command(files, "score", *options, "--out", str(files / "h.csv")) == 1
    text = capsys.readouterr().err
    assert "row 7, column 1" in text and "found nothing; fill the cell" in text
