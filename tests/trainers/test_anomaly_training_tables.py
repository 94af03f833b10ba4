"""Baselines against closed forms, figures against the public analysis, Tables 3 and 6."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from isoprobe.errors import CheckpointError, DataError, ResultError
from isoprobe_trainers.anomaly import baselines as anomaly_baselines
from isoprobe_trainers.anomaly import dagmm
from isoprobe_trainers.anomaly import experiments as anomaly_experiments
from isoprobe_trainers.anomaly import radogaga as anomaly_radogaga
from isoprobe_trainers.anomaly import tables as tabular
from isoprobe_trainers.anomaly import train as anomaly
from isoprobe_trainers.anomaly.quality import (
    Quality,
    cited_rows,
    keep,
    model_quality,
    quality,
    read_kept,
)
from isoprobe_trainers.anomaly.recipes import RECIPES, Recipe, short
from isoprobe_trainers.anomaly.tables import Table, split
from isoprobe_trainers.commands.reproduce import Reproduction
from isoprobe_trainers.common.records import Record

CPU = torch.device("cpu")
TINY = Recipe("thyroid", (6, 4), 2, "leaky_relu", "l2", 60.0, 30.0, 10, 0.1)
BRIEF = dagmm.DagmmSettings((4, 1), 2, 60, 256, rate=1e-2)


OFF_THE_LINE, ALONG_IT = (0.2, 0.2, -0.3), (0.6, 0.3, 0.6)


def plane(seed=0, rows=600, shift=OFF_THE_LINE):
    """Normal rows near a line in three dimensions, anomalies away from them."""
    rng = np.random.default_rng(seed)
    along = rng.normal(size=(rows, 1)) * [[0.1, 0.05, 0.1]]
    anomalous = rng.random(rows) < 0.1
    off = np.where(anomalous[:, None], [shift], 0.0)
    x = 0.5 + along + off + rng.normal(size=(rows, 3)) * 0.01
    return Table("thyroid", x.astype(np.float32), anomalous)


# --------------------------------------------------------------------------- baselines


def test_pca_scores_are_the_errors_of_reconstruction():
    table = plane()
    halves = split(table, 0)
    normal = table.x[np.concatenate([halves.train, halves.held_out])].astype(np.float64)
    oracle = PCA(1).fit(normal)
    test = table.x[halves.test].astype(np.float64)
    expected = ((test - oracle.inverse_transform(oracle.transform(test))) ** 2).sum(1)
    np.testing.assert_allclose(anomaly_baselines.pca_scores(table, halves, 1), expected, rtol=1e-6)


def test_pca_always_leaves_something_out():
    assert anomaly_baselines.pca_components(RECIPES["thyroid"], 6) == 5
    assert anomaly_baselines.pca_components(RECIPES["arrhythmia"], 274) == 50


def test_the_energy_of_a_mixture_is_its_negative_log_density():
    torch.manual_seed(0)
    root = torch.randn(3, 4, 4, dtype=torch.float64)
    covariance = root @ root.mT + 0.1 * torch.eye(4)
    mixture = dagmm.Mixture(
        torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), torch.randn(3, 4).double(), covariance
    )
    normals = MultivariateNormal(mixture.mean, covariance)
    oracle = MixtureSameFamily(Categorical(mixture.weight), normals)
    x = torch.randn(6, 4).double()
    torch.testing.assert_close(mixture.energy(x), -oracle.log_prob(x), rtol=1e-9, atol=1e-9)


def uniform(count):
    return torch.full((count,), 1 / count)


def test_moments_are_weighted_by_memberships():
    torch.manual_seed(0)
    x, labels = torch.randn(50, 2), torch.arange(50) % 2
    fitted = dagmm.Mixture.fitted(x, torch.nn.functional.one_hot(labels, 2).float(), uniform(50))
    for k in (0, 1):
        own = x[labels == k].double()
        torch.testing.assert_close(fitted.mean[k], own.mean(0))
        spread = own.T.cov(correction=0) + 1e-6 * torch.eye(2)
        torch.testing.assert_close(fitted.covariance[k], spread, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fitted.weight, torch.tensor([0.5, 0.5]).double())


def test_dagmm_looks_at_code_relative_distance_and_cosine():
    torch.manual_seed(0)
    model = dagmm.Dagmm(5, BRIEF)
    x = torch.rand(3, 5)
    features, square = model(x)
    x_hat = model.decoder(model.encoder(x))
    torch.testing.assert_close(features[:, :1], model.encoder(x))
    distance = (x - x_hat).norm(dim=1) / x.norm(dim=1)
    torch.testing.assert_close(features[:, 1], distance)
    torch.testing.assert_close(features[:, 2], torch.cosine_similarity(x, x_hat))
    torch.testing.assert_close(square, (x - x_hat).square().sum(1))


def radogaga_scores(table, halves, seed):
    recipe = replace(TINY, latents=1, epochs=60, rate=5e-3, lambda1=100, lambda2=100)
    return anomaly_radogaga.scores(table, halves, seed, recipe, 2)


@pytest.mark.parametrize(
    ("scores", "shift"),
    [
        (lambda t, h, s: dagmm.scores(t, h, s, BRIEF), OFF_THE_LINE),
        (radogaga_scores, ALONG_IT),  # it looks at the code alone
    ],
    ids=["DAGMM", "RaDOGAGA"],
)
def test_neural_baselines_find_plain_anomalies_and_repeat_themselves(scores, shift):
    table = plane(shift=shift)
    halves = split(table, 0)
    before = torch.random.get_rng_state()
    first = scores(table, halves, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert roc_auc_score(table.anomalous[halves.test], first) > 0.9
    assert np.array_equal(first, scores(table, halves, 1))
    assert not np.array_equal(first, scores(table, halves, 2))


def _dagmm_loss():
    model = dagmm.Dagmm(5, BRIEF).eval()
    return model, lambda x, share: dagmm.loss(model, x, share, BRIEF)


def _radogaga_loss():
    # weights so large leave noise of no account, so that sharing it makes no difference
    recipe = replace(TINY, latents=2, lambda1=1e12, lambda2=1e12)
    model = anomaly_radogaga.Radogaga(5, recipe, 2).eval()
    return model, model.loss


@pytest.mark.parametrize("made", [_dagmm_loss, _radogaga_loss], ids=["DAGMM", "RaDOGAGA"])
def test_a_baseline_learns_from_counted_rows_what_it_learns_from_repeated_ones(made):
    """Loss and gradient are those of the batch with every row written out."""
    torch.manual_seed(0)
    model, loss = made()
    different, counts = torch.rand(6, 5), torch.tensor([9, 1, 4, 1, 1, 8])
    repeated = different.repeat_interleave(counts, 0)
    results = []
    for x, share in ((repeated, uniform(24)), (different, counts / 24)):
        model.zero_grad()
        value = loss(x, share)
        value.backward()
        results.append((value.detach(), [p.grad.clone() for p in model.parameters()]))
    (plain, gradient), (merged, other) = results
    torch.testing.assert_close(merged, plain, rtol=1e-5, atol=1e-6)
    for a, b in zip(other, gradient, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * gradient[0].abs().max().item())


def test_batches_hold_every_row_once_in_nearly_equal_parts():
    parts = dagmm.batches(2500, 1024, torch.Generator().manual_seed(0))
    assert [len(p) for p in parts] == [1250, 1250]
    assert torch.equal(torch.cat(list(parts)).sort().values, torch.arange(2500))
    assert len(dagmm.batches(10, 1024, torch.Generator())) == 1


# --------------------------------------------------------------------------- figures


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    anomalous = rng.random(500) < 0.2
    scores = rng.normal(size=500) + anomalous
    found = quality(scores, anomalous, 0.1)
    flagged = scores > np.sort(scores)[449]
    precision, recall, f1, _ = precision_recall_fscore_support(anomalous, flagged, average="binary")
    assert (found.flagged, found.ties) == (50, 1)
    np.testing.assert_allclose(
        [found.precision, found.recall, found.f1, found.auroc, found.average_precision],
        [
            precision,
            recall,
            f1,
            roc_auc_score(anomalous, scores),
            average_precision_score(anomalous, scores),
        ],
    )


def test_kept_figures_are_read_back_for_the_same_settings_alone(tmp_path):
    found = Quality(0.5, 0.25, 1 / 3, 0.9, 0.8, 0.1, 10, 1)
    path = tmp_path / "kept.json"
    keep(path, {"widths": (1, 2)}, found)
    assert read_kept(path, {"widths": (1, 2)}) == found
    assert read_kept(path, {"widths": (1, 3)}) is None
    assert read_kept(tmp_path / "none.json", {}) is None
    path.write_text('{"settings":')
    with pytest.raises(ResultError, match="is damaged.*remove it"):
        read_kept(path, {})


def test_cited_rows_are_harmonic_means_of_themselves():
    """F1 of the means is within rounding and spread of the mean F1 that the paper prints."""
    assert len(cited_rows()) == 19
    for row in cited_rows():
        p, r = row.precision[0], row.recall[0]
        assert 2 * p * r / (p + r) == pytest.approx(row.f1[0], abs=2e-4), row


def test_the_paper_flags_its_nominal_share():
    """Recall over precision is flagged rows over anomalies: what Table 6 says of thresholds."""
    table_rows = {row.data: row for row in cited_rows() if row.method == "VAE"}
    for name, share, anomalies in [
        ("kddcup99", 0.2, 97278 / 494021),
        ("arrhythmia", 34 / 226, 33 / 226),
        ("thyroid", 48 / 1886, 46 / 1886),
    ]:
        row = table_rows[name]
        assert row.recall[0] / row.precision[0] == pytest.approx(share / anomalies, rel=2e-3)
        assert share == pytest.approx(RECIPES[name].contamination, rel=0.02)


# --------------------------------------------------------------------------- the tables


#: recipes that take a second
SMALL = anomaly_experiments.Sizes(
    recipes={name: replace(TINY, name=name) for name in ("thyroid", "arrhythmia")},
    quick=lambda recipe: recipe,
    mixtures=dict.fromkeys(("thyroid", "arrhythmia"), replace(BRIEF, epochs=10)),
)


@pytest.fixture
def tables(monkeypatch):
    """Small tables in place of the files."""
    monkeypatch.setattr(
        tabular, "load", lambda name, seed=0: replace(plane(seed, rows=120), name=name)
    )


def reproduced(capsys, out, *names, **asked):
    """Reproduce tables at small sizes; return what is printed, on either stream."""
    asked = {"quick": True, "seeds": 1, "device": "cpu", "compile_step": False, **asked}
    settings = Reproduction(out=out, **asked)
    anomaly_experiments.reproduce(names, settings, SMALL)
    return settings.attempts, capsys.readouterr()


def test_the_public_path_judges_a_checkpoint_as_its_scores_do(tables, tmp_path):
    (path,) = anomaly.train(TINY, [3], tmp_path, CPU)
    trained, untrained = model_quality(path, TINY, 3)
    table = plane(3, rows=120)
    rows = split(table, 3).test
    vae = anomaly_experiments.read_manifest(path)
    assert vae.objective.transform_weight == 2.0
    assert trained.prevalence == untrained.prevalence == table.anomalous[rows].mean()
    assert trained.flagged == math.floor(0.1 * len(rows))
    assert trained.auroc != untrained.auroc


def test_both_tables_are_printed_from_one_training(tables, tmp_path, capsys):
    asked = {"seeds": 2, "records": tmp_path / "kept"}
    _, done = reproduced(capsys, tmp_path, "table3", "table6", **asked)
    kept = [
        msgspec.json.decode(path.read_bytes(), type=Record)
        for path in sorted((tmp_path / "kept").glob("table6_thyroid_*.json"))
    ]
    assert [r.model for r in kept] == ["DAGMM", "PCA", "RaDOGAGA(d)", "untrained VAE", "VAE"]
    assert f"{np.mean(kept[-1].values['f1']):.4f}" in done.out
    assert [bool(r.planned) for r in kept] == [False] * 4 + [True]
    for method in ("untrained VAE", "PCA", "DAGMM", "RaDOGAGA(d)", "VAE"):
        assert done.out.count(f"| {method} (ours)") == 4
    assert "| DAGMM (cited)" in done.out
    assert "0.4755 (0.0491)" in done.out
    assert "Seeds 0 to 1" in done.out
    assert "distinct" in done.out
    _, again = reproduced(capsys, tmp_path, "table3", "table6", **asked)
    assert again.out == done.out
    assert "models of" not in again.err


def test_radogaga_of_all_splits_trained_together_is_what_the_tables_take(tables, tmp_path):
    recipe, mixture = SMALL.recipes["thyroid"], SMALL.mixtures["thyroid"]
    alone = anomaly_baselines.baseline("RaDOGAGA(d)", recipe, mixture, 1, tmp_path)
    anomaly_baselines.radogaga_together(recipe, mixture, range(3), tmp_path, CPU)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(kept) == 3
    found = [
        anomaly_baselines.baseline("RaDOGAGA(d)", recipe, mixture, seed, tmp_path)
        for seed in range(3)
    ]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert found[1] == alone  # what was there is not trained again
    for seed, each in enumerate(found):
        rows = split(plane(seed, rows=120), seed).test
        assert each.prevalence == plane(seed, rows=120).anomalous[rows].mean()
        assert each.flagged == math.floor(recipe.contamination * len(rows))


def test_one_data_set_can_be_asked_for_and_a_missing_one_does_not_stop_the_rest(
    tables, tmp_path, monkeypatch, capsys
):
    load = tabular.load

    def partly(name, seed=0):
        if name == "arrhythmia":
            raise DataError("odds_arrhythmia.npz is missing")
        return load(name, seed)

    monkeypatch.setattr(tabular, "load", partly)
    attempts, first = reproduced(capsys, tmp_path, "table3")
    with pytest.raises(DataError, match=r"table3 on arrhythmia: odds_arrhythmia\.npz is missing$"):
        attempts.conclude()
    assert "| thyroid" in first.out
    attempts, again = reproduced(capsys, tmp_path, "table3", tables=("thyroid",))
    assert not attempts.failed
    assert again.out == first.out


def test_a_checkpoint_of_another_schedule_is_not_passed_off(tables, tmp_path, capsys):
    folder = tmp_path / "quick" / "anomaly"
    anomaly.train(replace(TINY, epochs=20), [0], folder, CPU)
    attempts, _ = reproduced(capsys, tmp_path, "table3", tables=("thyroid",))
    (error,) = attempts.failed.values()
    assert isinstance(error, CheckpointError)
    assert "another schedule" in str(error)


def test_short_schedules_keep_everything_but_length_and_the_rate_of_kddcup99():
    for name, full in RECIPES.items():
        brief = short(full)
        assert 10 <= brief.epochs <= 0.3 * full.epochs
        changed = {k for k, v in brief.record().items() if v != full.record()[k]}
        assert changed == ({"epochs", "rate", "cosine"} if name == "kddcup99" else {"epochs"})
