"""Anomaly trainer: networks, losses, padding, stopping rule, checkpoints, resume."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

import isoprobe
from isoprobe.cli.group import cli
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.probe.objective import Objective, parts
from isoprobe.registry.lookup import installed
from isoprobe_trainers.anomaly import distinct, tables
from isoprobe_trainers.anomaly import train as anomaly
from isoprobe_trainers.anomaly.recipes import RECIPES, Recipe, recipe_of
from isoprobe_trainers.anomaly.tables import Split, SplitTable, Table
from isoprobe_trainers.anomaly.train import TRANSFORMS, AnomalyEnsemble
from isoprobe_trainers.common.batched import LeakyMLP
from isoprobe_trainers.common.training import generator

CPU = torch.device("cpu")
TINY = Recipe("thyroid", (6, 4), 2, "leaky_relu", "l2", 60.0, 30.0, 10, 0.1, batch=16)


def table(seed=0, rows=90, inputs=5):
    rng = np.random.default_rng(seed)
    x = rng.random((rows, inputs), dtype=np.float32)
    return Table("thyroid", x, rng.random(rows) < 0.1)


def halves(count=90, train=40):
    order = np.arange(count)
    return Split(order[:train], order[train : train + 5], order[train + 5 :])


def small(name, seed):
    """A table made here in place of a file; members differ in their rows."""
    return SplitTable(seed, table(seed), halves(train=40 - 3 * seed))


def drawn(*tables, train=40):
    """Tables of as many members, split at the same place or each at its own."""
    trained = train if isinstance(train, tuple) else (train,) * len(tables)
    parts = [halves(train=count) for count in trained]
    return [SplitTable(seed, *both) for seed, both in enumerate(zip(tables, parts, strict=True))]


def test_batched_leaky_networks_equal_torch_modules():
    mlp = LeakyMLP((5, 7, 3), [generator(seed, 0) for seed in range(3)]).double()
    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator(0, 9))
    for e in range(3):
        (w0, b0), (w1, b1) = mlp.member(e)
        alone = nn.Sequential(nn.Linear(5, 7), nn.LeakyReLU(), nn.Linear(7, 3)).double()
        alone.load_state_dict({"0.weight": w0, "0.bias": b0, "2.weight": w1, "2.bias": b1})
        torch.testing.assert_close(mlp(x)[e], alone(x[e]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["leaky_relu", "tanh"])
@pytest.mark.parametrize("transform", ["l2", "sse"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_checkpoint_scores_as_the_trainer_does(tmp_path, activation, transform, reduction):
    """The public score, in units of beta, is lambda1 D_t + lambda2 D_c + KL of the trainer."""
    recipe = replace(TINY, activation=activation, transform=transform, reduction=reduction)
    ensemble = AnomalyEnsemble(recipe, drawn(table(0), table(1)), CPU)
    ensemble.run_epoch(0)
    record = {"seed": 1}
    anomaly._export(ensemble, 1, tmp_path / "m.safetensors", record)
    vae = isoprobe.load(tmp_path / "m.safetensors")
    x = torch.from_numpy(table(1).x)
    named = vae.facts.transform_metric
    transform_metric = None if named is None else installed().metric(named)
    objective = Objective(vae, installed().metric("sse"), transform_metric, expectation="two-point")
    public = parts(objective(x), vae.facts.beta)
    ones = torch.ones(1)
    own = ensemble.losses(torch.stack([x, x]), [ones, -ones])
    expected = own.total[1].detach().double().numpy()
    np.testing.assert_allclose(public.score / vae.facts.beta, expected, rtol=2e-5)


def test_losses_are_those_of_the_paper_written_out():
    recipe = replace(TINY, reduction="mean")
    ensemble = AnomalyEnsemble(recipe, drawn(table()), CPU)
    x = torch.from_numpy(table().x)[None]
    mean, log_variance = ensemble.encoder(x).split(2, -1)
    noise = torch.randn(1, 90, 2, generator=generator(3, 3))
    x_check = ensemble.decoder(mean)
    x_hat = ensemble.decoder(mean + (log_variance / 2).exp() * noise)
    found = ensemble.losses(x, [noise])
    norm = ((x - x_check) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(found.transform, 60 / 5 * norm)
    torch.testing.assert_close(found.coding, 30 / 5 * ((x_check - x_hat) ** 2).sum(-1))
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
    torch.testing.assert_close(found.kl, kl)


def test_an_exact_reconstruction_has_a_finite_gradient_under_the_norm():
    difference = torch.zeros(2, 3, 4, requires_grad=True)
    TRANSFORMS["l2"](difference).sum().backward()
    assert torch.equal(difference.grad, torch.zeros(2, 3, 4))


def test_a_member_learns_in_company_what_it_learns_alone():
    """Members with fewer rows are padded; the padding has no weight in loss or gradient."""
    data = drawn(table(0), table(1), train=(40, 23))
    together = AnomalyEnsemble(TINY, data, CPU)
    alone = AnomalyEnsemble(TINY, data[1:], CPU)
    # as many steps for both, or Adam's moments would move the member that has no more rows
    alone.train = together.train[1:]
    for ensemble in (together, alone):
        ensemble.train[-1] = torch.arange(33, 33 + 23)
    together.train[0] = torch.arange(25)
    for _ in range(3):
        together.run_epoch(0)
        alone.run_epoch(0)
    for p, q in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p[1], q[0], rtol=1e-5, atol=1e-6)


def test_the_held_out_objective_is_the_mean_over_those_rows():
    ensemble = AnomalyEnsemble(TINY, drawn(table(0), table(1)), CPU)
    ones = torch.ones(1)
    x = torch.stack([torch.from_numpy(table(s).x[40:45]) for s in (0, 1)])
    expected = ensemble.losses(x, [ones, -ones]).total.mean(1)
    torch.testing.assert_close(torch.tensor(ensemble.held_out_objective()), expected)


def test_training_lowers_the_held_out_objective():
    ensemble = AnomalyEnsemble(TINY, drawn(table()), CPU)
    before = ensemble.held_out_objective()[0]
    for _ in range(50):
        ensemble.run_epoch(0)
    assert ensemble.held_out_objective()[0] < 0.98 * before


# --------------------------------------------------------------------------- equal rows


def repeating(seed=0, rows=90, different=12):
    """A table in which most rows repeat another, the repeats being spread over it."""
    base, rng = table(seed, rows=different), np.random.default_rng(seed + 50)
    chosen = np.concatenate([np.arange(different), rng.integers(0, different, rows - different)])
    chosen = rng.permutation(chosen)
    return Table("thyroid", base.x[chosen], base.anomalous[chosen])


def without_noise(ensemble):
    """Posteriors so narrow that the draw of z makes no difference."""
    n = ensemble.recipe.latents
    with torch.no_grad():
        ensemble.encoder.weights[-1][:, n:] = 0
        ensemble.encoder.biases[-1][..., n:] = -60


@pytest.mark.parametrize("train", [(16, 16), (16, 9), (40, 23)], ids=["even", "ragged", "batches"])
def test_without_noise_merged_batches_have_the_gradient_of_plain_ones(train):
    """Every batch has the same rows either way, so the last gradients agree, as the weights do."""
    data = drawn(repeating(0), repeating(1), train=train)
    plain, merged = (
        AnomalyEnsemble(replace(TINY, merge=merge), data, CPU) for merge in (False, True)
    )
    for ensemble in (plain, merged):
        without_noise(ensemble)
        ensemble.run_epoch(0)
    for p, q in zip(plain.parameters(), merged.parameters(), strict=True):
        scale = p.grad.abs().max().item()
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-5 * scale + 1e-12)


def test_with_noise_they_have_the_same_gradient_on_average():
    """Over many draws the means differ by no more than their standard errors allow."""
    data, draws = drawn(repeating(), train=16), 400
    means, errors = [], []
    for merge in (False, True):
        ensemble = AnomalyEnsemble(replace(TINY, merge=merge), data, CPU)
        ensemble.optimizer.step = lambda: None
        gradients = []
        for _ in range(draws):
            ensemble.run_epoch(0)
            gradients.append(torch.cat([p.grad.flatten() for p in ensemble.parameters()]))
        stacked = torch.stack(gradients).double()
        means.append(stacked.mean(0))
        errors.append(stacked.std(0) / draws**0.5)
    allowed = (errors[0] ** 2 + errors[1] ** 2).sqrt()
    standard = (means[0] - means[1]).abs() / (allowed + 1e-9)
    assert 0.3 < standard[allowed > 1e-6].square().mean() < 3
    assert not torch.equal(means[0], means[1])


def test_merged_training_computes_each_different_row_once(monkeypatch):
    data = drawn(repeating(0), repeating(1), train=(40, 23))
    ensemble = AnomalyEnsemble(replace(TINY, merge=True), data, CPU)
    widths, losses = [], ensemble.losses
    monkeypatch.setattr(ensemble, "losses", lambda x, d: widths.append(x.shape[1]) or losses(x, d))
    ensemble.run_epoch(0)
    assert len(widths) == 3
    assert max(widths) <= 12
    assert [len(rows) for rows in ensemble.rows] == [12, 12]


def test_the_held_out_objective_counts_repeated_rows():
    repeated = repeating()
    ensemble = AnomalyEnsemble(TINY, drawn(repeated, train=5), CPU)
    ensemble.held_out = [torch.from_numpy(repeated.groups)]
    x, ones = torch.from_numpy(repeated.x)[None], torch.ones(1)
    expected = ensemble.losses(x, [ones, -ones]).total.mean(1)
    torch.testing.assert_close(torch.tensor(ensemble.held_out_objective()), expected)


def test_rows_are_scored_once_and_everywhere():
    rows, seen = torch.tensor([4, 0, 4, 2, 0]), []
    scores = distinct.by_row(lambda r: seen.extend(r.tolist()) or r * 10.0, rows)
    assert scores.tolist() == [40.0, 0.0, 40.0, 20.0, 0.0]
    assert seen == [0, 2, 4]


# --------------------------------------------------------------------------- files


def test_the_tenth_of_least_held_out_objective_is_taken(tmp_path, monkeypatch):
    values = iter([[3.0, 9.0], [1.0, 8.0], [2.0, 7.0], *[[5.0, 6.0]] * 7])
    monkeypatch.setattr(AnomalyEnsemble, "held_out_objective", lambda self: next(values))
    first, second = anomaly.train(TINY, [0, 1], tmp_path, CPU, data=small)
    kept = [anomaly.kept_path(tmp_path, "thyroid", seed, t) for seed, t in ((0, 2), (1, 4))]
    assert first.read_bytes() == kept[0].read_bytes()
    assert second.read_bytes() == kept[1].read_bytes()
    record = isoprobe.load(first).facts.training
    assert (record["epoch"], record["held_out_objective"], record["seed"]) == (2, 1.0, 0)
    assert len(list((tmp_path / "tenths").iterdir())) == 20


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_killed_training_resumes_to_the_same_weights(tmp_path, monkeypatch, stop_after, merge):
    def repeated(name, seed):
        return replace(small(name, seed), table=repeating(seed))

    recipe = replace(TINY, epochs=20, merge=merge)
    whole = anomaly.train(recipe, [0, 1], tmp_path / "whole", CPU, data=repeated)
    run_epoch, epochs = AnomalyEnsemble.run_epoch, []

    def killed(self, epoch):
        if len(epochs) == stop_after:
            raise KeyboardInterrupt
        epochs.append(1)
        run_epoch(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(AnomalyEnsemble, "run_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            anomaly.train(recipe, [0, 1], tmp_path / "parts", CPU, save_every=-1.0, data=repeated)
    parts = anomaly.train(recipe, [0, 1], tmp_path / "parts", CPU, resume=True, data=repeated)
    for path, other in zip(whole, parts, strict=True):
        weights = load_file(other)
        assert all(torch.equal(t, weights[name]) for name, t in load_file(path).items())
    log = (tmp_path / "parts" / "thyroid_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [e for e in range(2, 21, 2) for _ in "ab"]
    assert not (tmp_path / "parts" / "thyroid_resume.pt").exists()


def test_a_disk_that_fills_up_is_one_clear_line_and_nothing_is_lost(tmp_path, monkeypatch, capped):
    """Nothing can grow beyond two kilobytes: less than a resume file needs, or a checkpoint."""
    recipe = replace(TINY, epochs=20)
    (expected,) = anomaly.train(recipe, [0], tmp_path / "whole", CPU, data=small)
    out = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(anomaly, "_keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            anomaly.train(recipe, [0], out, CPU, save_every=-1.0, data=small)
    before = (out / "thyroid_resume.pt").read_bytes()
    with capped(2000), pytest.raises(CheckpointError, match="cannot write|could not write") as full:
        anomaly.train(recipe, [0], out, CPU, resume=True, save_every=-1.0, data=small)
    assert "\n" not in str(full.value)
    assert (out / "thyroid_resume.pt").read_bytes() == before
    assert not [p for p in out.rglob("*") if "partial" in p.name]
    (path,) = anomaly.train(recipe, [0], out, CPU, resume=True, data=small)
    weights = load_file(path)
    assert all(torch.equal(t, weights[name]) for name, t in load_file(expected).items())


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_resume_file_of_another_training_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        AnomalyEnsemble, "held_out_objective", lambda self: [float("nan")] * len(self.rows)
    )
    recipe = replace(TINY, epochs=20)
    with pytest.raises(CheckpointError, match="no longer finite after 2 epochs"):
        anomaly.train(recipe, [0], tmp_path, CPU, save_every=-1.0, data=small)
    with pytest.raises(CheckpointError, match="belongs to another training"):
        anomaly.train(TINY, [0], tmp_path, CPU, resume=True, data=small)


def test_checkpoints_are_not_replaced_unasked(tmp_path):
    anomaly.train(TINY, [0], tmp_path, CPU, data=small)
    with pytest.raises(CheckpointError, match="exists already"):
        anomaly.train(TINY, [0], tmp_path, CPU, data=small)
    with pytest.raises(OptionError, match="given twice"):
        anomaly.train(TINY, [0, 0], tmp_path, CPU, data=small)


# --------------------------------------------------------------------------- recipes


def test_recipes_are_table_5():
    rows = {
        name: (r.widths, r.latents, r.transform, r.lambda1, r.lambda2, r.epochs)
        for name, r in RECIPES.items()
    }
    assert rows == {
        "kddcup99": ((200, 100), 10, "l2", 30000, 6000, 600),
        "thyroid": ((60, 30), 6, "l2", 6000, 18000, 40000),
        "arrhythmia": ((200, 100), 50, "l2", 6000, 24000, 30000),
        "kddcup-rev": ((200, 50), 20, "sse", 30000, 6000, 600),
    }


def test_a_fraction_of_the_schedule():
    assert recipe_of("thyroid").at(0.1).epochs == 4000
    for fraction, message in ((0.0, "between 0 and 1"), (1.5, "between 0 and 1")):
        with pytest.raises(OptionError, match=message):
            recipe_of("thyroid").at(fraction)
    with pytest.raises(OptionError, match="at least 10 epochs"):
        recipe_of("kddcup99").at(0.01)
    with pytest.raises(OptionError, match="did you mean 'thyroid'"):
        recipe_of("thyriod")


def test_the_command_prints_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "load", lambda name, seed: table(seed))
    arguments = ["train", "anomaly", "thyroid", "--seeds", "1", "--fraction", "0.00025"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(tmp_path / "thyroid_seed0.safetensors")]
