"""Scores of new rows: the reference's own, streamed, in three formats, with one-line refusals."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas
import pytest
import torch
from torch import Tensor

import isoprobe
from isoprobe.errors import (
    CheckpointError,
    DataError,
    IsoprobeError,
    MetricError,
    OptionError,
    ResultError,
)
from isoprobe.probe.fixed import PAIRS, fixed_noise
from isoprobe.results.reader import Result
from isoprobe.run.scoring import open_scoring
from tests import configs
from tests.oracles import false_alarms, small_vae
from tests.processes import python

if TYPE_CHECKING:
    from isoprobe.contracts import VAE, Posterior

BETA = 0.4


def rows(count: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 9))


def reference(folder: Path, vae: VAE, spec: str = "anomaly", **settings: object) -> Path:
    out = folder / "reference.h5"
    settings = {"metric": "sse", "beta": BETA, "samples": None} | settings
    isoprobe.analyze(vae, rows(), analyses=[spec], out=out, overwrite=True, **settings).close()
    return out


@pytest.fixture
def vae() -> VAE:
    return small_vae(dtype=torch.float32)


# ------------------------------------------------------------------ what a score is


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"decomposed": True, "transform_weight": 0.3, "transform_metric": "l2"},
        {"decomposed": True},
    ],
    ids=["plain", "decomposed-l2", "decomposed"],
)
@pytest.mark.parametrize("metric", ["sse", "bce"])
def test_reference_rows_get_their_own_scores(
    tmp_path: Path, facts: dict[str, object], metric: str
) -> None:
    vae = small_vae(sigmoid=True, **facts)
    data = 1 / (1 + np.exp(-rows()))
    out = tmp_path / "r.h5"
    with isoprobe.analyze(
        vae, data, metric=metric, beta=BETA, analyses=["anomaly"], out=out
    ) as result:
        expected = result.samples()
    found = isoprobe.score(vae, data, out)
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-9)
    np.testing.assert_allclose(found["distortion"], expected["score_distortion"], rtol=1e-9)
    np.testing.assert_allclose(found["rate"], expected["score_rate"].sum(axis=1), rtol=1e-9)
    assert ("transform" in found) == bool(facts)
    if facts:
        np.testing.assert_allclose(found["transform"], expected["score_transform"], rtol=1e-9)


def test_parts_add_up_to_the_last_bit(tmp_path: Path) -> None:
    for facts in ({}, {"decomposed": True}):
        vae = small_vae(dtype=torch.float32, **facts)
        found = isoprobe.score(vae, rows(), reference(tmp_path, vae), by_latent=True)
        total = found["distortion"]
        if facts:
            total = total + found["transform"]
        assert np.array_equal(found["score"], total + found["rate"])
        assert np.array_equal(found["rate"], found["rate_by_latent"].sum(axis=1))


def test_two_runs_agree_to_the_last_bit(tmp_path: Path, vae: VAE) -> None:
    path = reference(tmp_path, vae)
    one, two = (isoprobe.score(vae, rows(5000, seed=1), path) for _ in range(2))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_scores_do_not_depend_on_the_batch_size(tmp_path: Path, vae: VAE) -> None:
    path, data = reference(tmp_path, vae), rows(1000, seed=1)
    whole = isoprobe.score(vae, data, path)["score"]
    for batch in (1, 7, 333):
        found = isoprobe.score(vae, data, path, batch_size=batch)["score"]
        np.testing.assert_allclose(found, whole, rtol=1e-5)


def test_p_values_and_flags_follow_from_the_reference(tmp_path: Path, vae: VAE) -> None:
    path = reference(tmp_path, vae, "anomaly:quantile=0.9")
    with Result.open(path) as result:
        old = result.samples(names=["score"])["score"]
    found = isoprobe.score(vae, 2 * rows(300, seed=1), path, alpha=0.2, contamination=0.3)
    score = found["score"]
    expected = [(1 + (old >= s).sum()) / (len(old) + 1) for s in score]
    np.testing.assert_allclose(found["p_value"], expected, rtol=1e-12)
    assert np.array_equal(found["flag_alpha"], found["p_value"] <= 0.2)
    for rule, kept in (("quantile", 360), ("contamination", 280)):
        threshold = np.sort(old)[kept - 1]
        assert np.array_equal(found[f"flag_{rule}"], score > threshold)
        assert found[f"flag_{rule}"].any() and not found[f"flag_{rule}"].all()


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_false_alarms_of_a_model_over_random_splits(tmp_path: Path, vae: VAE, alpha: float) -> None:
    """Rows nobody trained on, split 200 times into reference and new: at most alpha + 2 SE."""
    score = isoprobe.score(vae, rows(1200, seed=5), reference(tmp_path, vae))["score"]
    rate, error = false_alarms(score, alpha, np.random.default_rng(0))
    assert rate <= alpha + 2 * error


def test_a_batch_costs_one_encoding_and_a_decoding_a_draw(tmp_path: Path, vae: VAE) -> None:
    path = reference(tmp_path, vae)
    calls = {"encode": 0, "decode": 0}
    encode, decode = vae.encode, vae.decode

    def counted_encode(x: Tensor) -> Posterior:
        calls["encode"] += len(x)
        return encode(x)

    def counted_decode(z: Tensor) -> Tensor:
        calls["decode"] += len(z)
        return decode(z)

    watched = replace(vae, encode=counted_encode, decode=counted_decode)
    with open_scoring(watched, rows(100, seed=1), path, batch_size=25) as scoring:
        calls.update(encode=0, decode=0)  # planning decodes one row
        batches = list(scoring)
    assert len(batches) == 4
    assert calls == {"encode": 100, "decode": 100 * 2 * PAIRS}


def test_rows_are_those_of_the_data(tmp_path: Path, vae: VAE) -> None:
    data = rows(1000, seed=1)
    path = reference(tmp_path, vae)
    whole = isoprobe.score(vae, data, path)
    some = isoprobe.score(vae, data, path, samples=10)
    assert np.diff(np.sort(some["row"]), append=1000).max() <= 250
    np.testing.assert_allclose(some["score"], whole["score"][some["row"]], rtol=1e-5)


# ------------------------------------------------------------------ parts by input


@pytest.mark.parametrize("shape", [(9,), (3, 3), (1, 3, 3)], ids=str)
@pytest.mark.parametrize("metric", ["sse", "bce", "l1", "gaussian:sigma2=0.3"])
def test_parts_by_input_sum_to_the_distortion(
    tmp_path: Path, metric: str, shape: tuple[int, ...]
) -> None:
    vae = small_vae(sigmoid=True, shape=shape)
    data = (1 / (1 + np.exp(-rows(50)))).reshape(-1, *shape)
    out = tmp_path / "r.h5"
    isoprobe.analyze(vae, data, metric=metric, beta=1.0, analyses=["anomaly"], out=out).close()
    found = isoprobe.score(vae, data, out, by_input=True)
    assert found["distortion_map"].shape == data.shape
    total = found["distortion_map"].reshape(50, -1).sum(axis=1)
    np.testing.assert_allclose(total, found["distortion"], rtol=1e-9)


def test_a_part_by_input_is_that_input_alone(tmp_path: Path) -> None:
    """Moving one input away from its reconstruction shows in its own part, by the square."""
    vae, path = small_vae(), reference(tmp_path, small_vae())
    blind = replace(vae, encode=lambda x: vae.encode(torch.zeros_like(x)))
    data = np.zeros((2, 9))
    data[1, 4] = 10.0
    parts = isoprobe.score(blind, data, path, by_input=True)["distortion_map"]
    changed = np.flatnonzero(parts[1] != parts[0])
    assert changed.tolist() == [4]
    with torch.no_grad():
        posterior = blind.encode(torch.zeros(1, 9, dtype=torch.float64))
        points = [posterior.mean + e * posterior.std for e in fixed_noise(vae.latent_size)]
        x_hat = torch.cat([vae.decode(z) for z in points])[:, 4]
    assert parts[1, 4] == pytest.approx(float(((10 - x_hat) ** 2).mean()), rel=1e-12)


def test_parts_by_input_of_the_decomposed_loss_hold_both_distortions(tmp_path: Path) -> None:
    vae = small_vae(decomposed=True, transform_weight=0.3, transform_metric="l1")
    found = isoprobe.score(vae, rows(), reference(tmp_path, vae), by_input=True)
    total = found["distortion_map"].sum(axis=1)
    np.testing.assert_allclose(total, found["distortion"] + found["transform"], rtol=1e-9)


@pytest.mark.parametrize("metric", ["l2", "mse", "downward"])
def test_a_metric_that_is_no_sum_has_no_parts_by_input(
    tmp_path: Path, vae: VAE, metric: str
) -> None:
    path = reference(tmp_path, vae, metric=metric)
    with pytest.raises(MetricError, match="no sum over inputs"):
        isoprobe.score(vae, rows(), path, by_input=True)


def test_ssim_has_no_parts_by_input(tmp_path: Path) -> None:
    vae = small_vae(shape=(1, 3, 3))
    data = rows(60).reshape(-1, 1, 3, 3)
    out = tmp_path / "r.h5"
    isoprobe.analyze(
        vae, data, metric="ssim:window=3", beta=1.0, analyses=["anomaly"], out=out
    ).close()
    with pytest.raises(MetricError, match="no sum over inputs"):
        isoprobe.score(vae, data, out, by_input=True)


# ------------------------------------------------------------------ refusals


def test_another_model_is_refused(tmp_path: Path, vae: VAE) -> None:
    path = reference(tmp_path, replace(vae, sha256="aa"))
    with pytest.raises(ResultError, match="model_sha256 is 'aa', that of vae is 'bb'"):
        isoprobe.score(replace(vae, sha256="bb"), rows(), path)
    with pytest.raises(ResultError, match=r"latent_shape is \[4\]"):
        isoprobe.score(small_vae(latents=3), rows(), reference(tmp_path, vae))


def test_another_metric_is_refused(tmp_path: Path, vae: VAE) -> None:
    path = reference(tmp_path, vae, metric="gaussian:sigma2=0.5")
    with pytest.raises(MetricError, match="'gaussian:sigma2=0.5', and 'gaussian:sigma2=0.4' was"):
        isoprobe.score(vae, rows(), path, metric="gaussian:sigma2=0.4")
    assert "score" in isoprobe.score(vae, rows(), path, metric="gaussian:sigma2=0.5")


def test_data_of_another_shape_is_refused(tmp_path: Path, vae: VAE) -> None:
    with pytest.raises(DataError, match=r"expected samples of shape \(9,\), found \(8,\)"):
        isoprobe.score(vae, rows()[:, :8], reference(tmp_path, vae))


def test_a_result_without_scores_is_refused(tmp_path: Path, vae: VAE) -> None:
    with pytest.raises(ResultError, match="has no anomaly scores.*--analysis anomaly"):
        isoprobe.score(vae, rows(), reference(tmp_path, vae, "importance"))


def test_a_row_without_a_finite_score_is_named(tmp_path: Path, vae: VAE) -> None:
    path, data = reference(tmp_path, vae), rows()
    broken = replace(vae, decode=lambda z: vae.decode(z) + torch.log(z[:, :1] * 0 - 1))
    with pytest.raises(CheckpointError, match="gives row 0 of array in memory the score nan"):
        isoprobe.score(broken, data, path)


@pytest.mark.parametrize(
    "settings", [{"alpha": 0.0}, {"alpha": 1.0}, {"contamination": 0.0}, {"contamination": 1.2}]
)
def test_shares_outside_zero_and_one_are_refused(
    tmp_path: Path, vae: VAE, settings: dict[str, float]
) -> None:
    with pytest.raises(OptionError, match="between 0 and 1"):
        isoprobe.score(vae, rows(), reference(tmp_path, vae), **settings)


def test_every_refusal_is_one_line(tmp_path: Path, vae: VAE) -> None:
    path = reference(tmp_path, vae)
    for broken in ({"metric": "bce"}, {"alpha": 2.0}, {"dtype": "int8"}):
        with pytest.raises(IsoprobeError) as caught:
            isoprobe.score(vae, rows(), path, **broken)
        assert "\n" not in str(caught.value)


def test_attributes_of_the_file_say_what_the_scores_depend_on(tmp_path: Path, vae: VAE) -> None:
    with open_scoring(vae, rows(), reference(tmp_path, vae), alpha=0.1) as scoring:
        attributes = scoring.attributes()
    assert attributes["metric"] == "sse"
    assert attributes["beta"] == BETA
    assert attributes["alpha"] == 0.1
    assert attributes["reference"] == "reference.h5"
    assert attributes["thresholds"].keys() == {"quantile"}


# ------------------------------------------------------------------ flat memory

PEAKS = """
import re, sys
from pathlib import Path
from isoprobe.cli import main
import isoprobe

def peak():
    # of this program alone: getrusage counts what the parent held when it forked
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

def run(data):
    arguments = ["score", sys.argv[1], "--data", data, "--reference", sys.argv[2]]
    assert main([*arguments, "--out", sys.argv[5], "--overwrite"]) == 0
    return peak()

few, many = run(sys.argv[3]), run(sys.argv[4])
kept = isoprobe.score(sys.argv[1], sys.argv[4], sys.argv[2])
print(few, many, peak())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 16 features, a reference result, and rows: few and many."""
    from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
    from isoprobe_plugins.architectures.mlp import Mlp

    root = tmp_path_factory.mktemp("score")
    config = configs.mlp(16, latents=3, width=16)
    torch.manual_seed(0)
    networks = Mlp().build(config)
    manifest = Manifest(FORMAT_VERSION, "mlp", config, 3, Objective("sse", 0.1))
    write_checkpoint(root / "m.safetensors", networks.encoder, networks.decoder, manifest)
    generator = np.random.default_rng(0)
    for name, count in (("reference", 500), ("few", 10_000), ("many", 400_000)):
        np.save(root / f"{name}.npy", generator.normal(size=(count, 16)).astype(np.float32))
    isoprobe.analyze(
        root / "m.safetensors",
        str(root / "reference.npy"),
        analyses=["anomaly"],
        out=root / "r.h5",
    ).close()
    return root


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux tells it")
@pytest.mark.parametrize("kind", ["csv", "h5"])
def test_memory_is_flat(folder: Path, kind: str) -> None:
    """400,000 rows of 16 features are 24 MiB, their columns as much again."""
    files = ["m.safetensors", "r.h5", "few.npy", "many.npy", f"out.{kind}"]
    done = python("-c", PEAKS, *(folder / name for name in files))
    few, many, kept = map(float, done.stdout.split())
    assert many - few < 0.1 * few
    assert many - few < 15
    # the same rows kept in memory do show, so the measure can tell
    assert kept - many > 15


# ------------------------------------------------------------------ the command


def run(folder: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from isoprobe.cli import main

    given = {"model": str(folder / "m.safetensors"), "--reference": str(folder / "r.h5")}
    code = main(["score", given["model"], "--reference", given["--reference"], *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_csv_goes_to_stdout_and_notes_to_stderr(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(folder / "reference.npy")
    code, out, err = run(folder, "--data", data, "--samples", "20", capsys=capsys)
    assert code == 0
    assert "p-values are no test" in err  # the reference's own rows
    assert "flagged: 2 by alpha, 1 expected if every row is normal" in err
    lines = out.splitlines()
    assert lines[0] == "row,score,distortion,rate,p_value,flag_alpha,flag_quantile"
    assert len(lines) == 21
    values = [float(v) for v in lines[1].split(",")]
    # text holds every digit: the parts still add up exactly
    assert values[1] == values[2] + values[3]
    assert set(values[5:]) <= {0.0, 1.0}


def test_three_formats_hold_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for name in ("s.csv", "s.parquet", "s.h5"):
        out = folder / name
        code, _, err = run(
            folder, "--data", str(folder / "few.npy"), "--parts", "--out", str(out), capsys=capsys
        )
        assert code == 0, err
        assert "10,000 rows scored" in err
    tables = [pandas.read_csv(folder / "s.csv"), pandas.read_parquet(folder / "s.parquet")]
    assert list(tables[0]) == list(tables[1])
    assert tables[0].astype(float).equals(tables[1].astype(float))
    with h5py.File(folder / "s.h5") as file:
        for name in ("row", "score", "p_value", "flag_alpha"):
            assert np.array_equal(file["samples"][name][:], tables[0][name])
        assert np.array_equal(file["samples/rate_by_latent"][:, 2], tables[0]["rate_2"])
        assert file["samples/score"].attrs["units"] == b"metric"
    with Result.open(folder / "s.h5") as result:
        assert result.attrs["reference_data"] == "reference.npy"


def test_mistakes_are_one_line_and_leave_no_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = rows(9000)[:, :1].repeat(16, axis=1).astype(np.float32)
    bad[8500] = np.nan
    np.save(folder / "bad.npy", bad)
    (folder / "there.csv").write_text("precious")
    good = str(folder / "few.npy")
    cases = [
        (("--data", str(folder / "bad.npy"), "--out", str(folder / "x.csv")), "row 8500 .* nan"),
        (("--data", str(folder / "bad.npy"), "--out", str(folder / "x.h5")), "row 8500 .* nan"),
        (("--data", str(folder / "bad.npy"), "--out", str(folder / "x.parquet")), "row 8500"),
        (("--data", good, "--out", str(folder / "there.csv")), "exists already.*--overwrite"),
        (("--data", good, "--out", str(folder / "x.txt")), r"ending in .csv, .parquet, .h5"),
        (("--data", good, "--out", str(folder / "no" / "x.csv")), "there is no folder"),
        (("--data", good, "--alpha", "3"), "--alpha lies between 0 and 1; found 3"),
    ]
    before = {p.name for p in folder.iterdir()}
    for arguments, message in cases:
        code, out, err = run(folder, *arguments, capsys=capsys)
        assert code == 1
        assert out == ""
        assert len(err.strip().splitlines()) == 1, err
        assert re.search(message, err), err
    assert {p.name for p in folder.iterdir()} == before
    assert (folder / "there.csv").read_text() == "precious"


def test_maps_go_into_hdf5(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xarray = pytest.importorskip("xarray")
    arguments = ("--data", str(folder / "few.npy"), "--samples", "50", "--map")
    code, _, err = run(folder, *arguments, capsys=capsys)
    assert code == 1
    assert "--map needs a file that holds arrays: add --out FILE.h5" in err
    out = folder / "map.h5"
    assert run(folder, *arguments, "--out", str(out), capsys=capsys)[0] == 0
    with xarray.open_dataset(out, engine="h5netcdf", group="samples") as columns:
        assert columns["distortion_map"].dims == ("sample", "input")
        total = columns["distortion_map"].values.astype(float).sum(axis=1)
        np.testing.assert_allclose(total, columns["distortion"].values, rtol=1e-5)


def test_parquet_without_pyarrow_names_the_extra(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    arguments = ("--data", str(folder / "few.npy"), "--out", str(folder / "y.parquet"))
    code, _, err = run(folder, *arguments, capsys=capsys)
    assert code == 1
    assert r"isoprobe[data]" in err


def test_overwrite_replaces(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("w.csv", "w.parquet", "w.h5"):
        out = folder / name
        out.write_bytes(b"old")
        arguments = ("--data", str(folder / "few.npy"), "--samples", "5", "--out", str(out))
        assert run(folder, *arguments, "--overwrite", capsys=capsys)[0] == 0
        assert out.read_bytes() != b"old"


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from isoprobe.cli import main; code = main(['score', '--help']); "
        "sys.exit(code or any(m in sys.modules for m in ('torch', 'h5py', 'pyarrow')))"
    )
    python("-c", script)


# ------------------------------------------------------------------ stopped and resumed


def interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, batches: int = 2
) -> None:
    """Score until Ctrl-C after some batches, each of which is a shard here."""
    from isoprobe.cli import main
    from isoprobe.run.scoring import Scores

    whole, seen = Scores.columns, 0

    def stopping(self: Scores, *rows: object) -> object:
        nonlocal seen
        if seen == batches:
            raise KeyboardInterrupt
        seen += 1
        return whole(self, *rows)

    with monkeypatch.context() as patch:
        patch.setattr(Scores, "columns", stopping)
        model, result = str(folder / "m.safetensors"), str(folder / "r.h5")
        assert main(["score", model, "--reference", result, *arguments]) == 130


def test_a_resumed_scoring_is_that_of_an_undisturbed_one(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ("--data", str(folder / "few.npy"), "--batch-size", "1500", "--parts")
    whole, out = tmp_path / "whole.h5", tmp_path / "s.h5"
    assert run(folder, *data, "--out", str(whole), capsys=capsys)[0] == 0
    interrupted(folder, monkeypatch, *data, "--out", str(out))
    assert not out.exists()
    assert run(folder, *data, "--out", str(out), capsys=capsys)[0] == 1  # not thrown away
    again = run(folder, *data, "--out", str(out), "--resume", capsys=capsys)
    assert again[0] == 0, again[2]
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "whole.h5"]


def test_only_the_rows_left_are_scored_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ("--data", str(folder / "few.npy"), "--batch-size", "1500")
    out = str(tmp_path / "s.h5")
    interrupted(folder, monkeypatch, *data, "--out", out)
    # five batches of the seven are left: three more, one, none, and then a second is not there
    for batches in (3, 1, 0):
        interrupted(folder, monkeypatch, *data, "--out", out, "--resume", batches=batches)
    with pytest.raises(AssertionError, match="== 130"):
        interrupted(folder, monkeypatch, *data, "--out", out, "--resume", batches=1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--alpha", "0.2"), "alpha was 0.05, now 0.2"),
        (("--parts",), "parts was False, now True"),
        (("--samples", "77"), "samples was 10000, now 77"),
    ],
)
def test_another_scoring_is_not_gone_on_with(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    data = ("--data", str(folder / "few.npy"), "--batch-size", "1500")
    out = ("--out", str(tmp_path / "s.h5"))
    interrupted(folder, monkeypatch, *data, *out)
    code, _, err = run(folder, *data, *out, *more, "--resume", capsys=capsys)
    assert code == 1
    assert message in err


def test_a_table_cannot_be_resumed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", str(folder / "few.npy"))
    for out in ((), ("--out", "x.csv"), ("--out", "x.parquet")):
        code, _, err = run(folder, *data, *out, "--resume", capsys=capsys)
        assert code == 1
        assert "--resume" in err
        assert ".h5" in err
