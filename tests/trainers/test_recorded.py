"""Trainers that record their steps for a card, run here as they stand: the plain ones' models."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe_trainers.anomaly.dagmm import Mixture
from isoprobe_trainers.anomaly.radogaga_recorded import RadogagaEnsemble
from isoprobe_trainers.anomaly.recipes import Recipe
from isoprobe_trainers.anomaly.recorded import Batches, CardEpochs, fixed
from isoprobe_trainers.anomaly.scores import scores
from isoprobe_trainers.anomaly.tables import Split, SplitTable, Table
from isoprobe_trainers.anomaly.train import AnomalyEnsemble, kept_path, train
from isoprobe_trainers.common.graphs import adam, set_rate, together
from isoprobe_trainers.common.training import Schedule
from isoprobe_trainers.images.courses import milestones, point
from isoprobe_trainers.images.train import Trainer
from isoprobe_trainers.toy.data import generate
from isoprobe_trainers.toy.members import Member
from isoprobe_trainers.toy.source import parse
from isoprobe_trainers.toy.train import Group
from tests.trainers.test_mnist_training import BCE, PICTURES, SSIM, VALUES, rows

CPU = torch.device("cpu")
FALLING, DECOMPOSED = replace(BCE, decay=0.5), replace(SSIM, iterations=9)
TINY = Recipe("thyroid", (6, 4), 2, "leaky_relu", "l2", 60.0, 30.0, 10, 0.1)


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def finished(trainer):
    while trainer.done < trainer.run.iterations:
        trainer.advance()
    return weights(trainer.module)


# --------------------------------------------------------------------------- images


@pytest.mark.parametrize(("run", "data"), [(FALLING, VALUES), (DECOMPOSED, PICTURES)])
def test_an_epoch_at_a_time_ends_in_the_plain_trainers_weights(run, data):
    plain = Trainer(run, rows(data), 30, CPU)
    fast = Trainer(run, rows(data), 30, CPU, record=True)
    for expected, found in zip(finished(plain), finished(fast), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_parts_are_means_over_the_steps_taken():
    plain = Trainer(FALLING, rows(VALUES), 30, CPU)
    each = [plain.advance() for _ in range(7)]
    found = Trainer(FALLING, rows(VALUES), 30, CPU, record=True).advance()
    for name, value in found.items():
        assert value == pytest.approx(np.mean([parts[name] for parts in each]), rel=1e-5)


def test_a_training_goes_on_from_the_plain_trainers_state():
    expected = Trainer(FALLING, rows(VALUES), 30, CPU)
    begun = Trainer(FALLING, rows(VALUES), 30, CPU)
    for _ in range(9):  # in the middle of an epoch
        begun.advance()
    fast = Trainer(FALLING, rows(VALUES), 30, CPU, record=True)
    fast.restore(deepcopy(begun.state()))
    for plain, found in zip(finished(expected), finished(fast), strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)


def test_a_course_is_the_public_analysis_and_changes_nothing():
    run = replace(BCE, iterations=7, dataset="none")
    trainer = Trainer(run, rows(VALUES), 30, CPU, record=True)
    trainer.advance()
    before = weights(trainer.module)
    found = point(trainer, VALUES.numpy())
    assert found["step"] == 7
    assert found["rate"] >= 0
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trainer.module), strict=True))


def test_milestones_are_ends_of_epochs_and_the_last_step():
    found = milestones(1000, 30, 6)
    assert found == sorted(set(found))
    assert found[-1] == 1000
    assert all(step % 30 == 0 for step in found[:-1])


# --------------------------------------------------------------------------- toy models


def test_a_recorded_group_trains_the_plain_groups_members():
    members = [Member("toy/mix:seed=0,samples=260", "sse", 100.0, seed) for seed in (0, 1)]
    data = {m.data: torch.from_numpy(generate(parse(m.data)).x) for m in members}
    schedule = Schedule(epochs=3, batch=64, lr=1e-3, decay=0.5)
    plain, fast = (Group(members, data, schedule, record=record) for record in (False, True))
    for epoch in range(3):
        torch.testing.assert_close(fast.run_epoch(epoch), plain.run_epoch(epoch))
    for expected, found in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- anomaly tables


def table(seed=0, rows=90, inputs=5):
    rng = np.random.default_rng(seed)
    x = rng.random((rows, inputs), dtype=np.float32)
    x[1::7] = x[0]  # equal rows
    return Table("thyroid", x, rng.random(rows) < 0.1)


def halves(count=90, train=40):
    order = np.arange(count)
    return Split(order[:train], order[train : train + 5], order[train + 5 :])


def made(kind, recipe=TINY, **options):
    data = [SplitTable(0, table(0), halves()), SplitTable(1, table(1), halves(train=33))]
    return kind(recipe, data, CPU, **options)


def drawn_ahead():
    """Batches of 16 rows, drawn for two epochs at once."""
    ensemble = made(AnomalyEnsemble, record=True)
    batches = Batches(ensemble.train, fixed([40, 33], 16), ahead=6)
    noise = [(TINY.latents, torch.Tensor.normal_)]
    ensemble.card = CardEpochs(
        ensemble.step, ensemble.optimizer, ensemble.rows, batches, [0, 1], noise
    )
    return ensemble


def test_every_row_is_taken_once_an_epoch():
    ensemble = drawn_ahead()
    batches, draws = ensemble.card.batches, ensemble.card.draws
    assert (batches.steps, batches.epochs) == (3, 2)
    orders = []
    for _ in range(5):
        batches.begin(lambda: None, draws)
        taken = [[], []]
        for _ in range(batches.steps):
            chosen, share = batches.next()
            torch.testing.assert_close(share.sum(1), torch.ones(2))
            for e in range(2):
                taken[e].append(chosen[e][share[e] > 0])
        for e in range(2):
            every = torch.cat(taken[e])
            assert torch.equal(every.sort().values, ensemble.train[e].sort().values)
        orders.append(torch.cat(taken[0]))
    assert not any(torch.equal(orders[0], other) for other in orders[1:])


def test_without_noise_a_batch_of_all_rows_gives_the_plain_step():
    plain, fast = made(AnomalyEnsemble), made(AnomalyEnsemble, record=True)
    for ensemble in (plain, fast):
        with torch.no_grad():
            ensemble.encoder.biases[-1][..., TINY.latents :] = -60
            ensemble.encoder.weights[-1][:, TINY.latents :] = 0
        ensemble.run_epoch(0)
    for expected, found in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_resumed_among_epochs_drawn_ahead_it_ends_in_the_same_weights():
    whole, begun, resumed = (drawn_ahead() for _ in range(3))
    for epoch in range(3):
        begun.run_epoch(epoch)
    resumed.restore(deepcopy(begun.state()))
    for epoch in range(7):
        whole.run_epoch(epoch)
    for epoch in range(3, 7):
        resumed.run_epoch(epoch)
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("transform", ["l2", "sse"])
def test_radogaga_together_has_the_losses_of_each_alone(transform):
    recipe = replace(TINY, transform=transform)
    ensemble = made(RadogagaEnsemble, recipe, components=2)
    card = ensemble.card
    card.batches.begin(lambda: None, card.draws)
    chosen, share = card.batches.next()
    x = card.pool.take(chosen)
    shape = (*chosen.shape, recipe.latents)
    # half of what dropout keeps is what the network gives outside of training
    found = ensemble.loss(x, share, torch.zeros(shape), torch.full((*chosen.shape, 10), 0.5))
    for e in range(2):
        model, there = ensemble.member(e).eval(), share[e] > 0
        own, weight = x[e][there], share[e][there]
        z = model.encoder(own)
        x_check = model.decoder(z)
        difference = own - x_check
        distance = difference.norm(dim=1) if transform == "l2" else difference.square().sum(1)
        mixture = Mixture.fitted(z, model.estimator(z), weight)
        expected = (mixture.energy(z) + recipe.lambda1 * distance) @ weight.double()
        torch.testing.assert_close(found[e], expected, rtol=1e-5, atol=1e-6)


def test_radogaga_together_learns_and_scores_every_test_row():
    ensemble = made(RadogagaEnsemble, components=2)
    before = [p.detach().clone() for p in ensemble.parameters()]
    for epoch in range(3):
        ensemble.run_epoch(epoch)
    assert not any(torch.equal(a, b) for a, b in zip(before, ensemble.parameters(), strict=True))
    found = list(ensemble.scores())
    assert [len(scores) for scores in found] == [45, 52]
    assert all(np.isfinite(scores).all() for scores in found)


def test_mixtures_of_many_models_are_those_of_each():
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(3, 20, 2, generator=draw)
    membership = torch.rand(3, 20, 4, generator=draw).softmax(-1)
    share = torch.full((3, 20), 1 / 20)
    together_ = Mixture.fitted(z, membership, share)
    for e in range(3):
        alone = Mixture.fitted(z[e], membership[e], share[e])
        torch.testing.assert_close(together_.covariance[e], alone.covariance)
        torch.testing.assert_close(together_.energy(z)[e], alone.energy(z[e]))


def test_a_checkpoints_scores_are_the_trainers(tmp_path):
    (path,) = train(
        TINY, [1], tmp_path, CPU, data=lambda _, seed: SplitTable(seed, table(seed), halves())
    )
    assert kept_path(tmp_path, "thyroid", 1, 10).exists()
    x = torch.from_numpy(table(1).x)
    vae = isoprobe.load(path)
    with isoprobe.analyze(
        vae, data=x.numpy(), analyses=["anomaly:contamination=0.1"], samples=None, device="cpu",
        expectation="two-point",
    ) as result:  # fmt: skip
        public = result.samples(names=["score"])["score"] * TINY.lambda2
    np.testing.assert_allclose(scores(vae, TINY, x).numpy(), public, rtol=1e-5)


def test_a_recording_takes_the_largest_divisor_up_to_48_steps():
    assert together(390) == 39
    assert together(43) == 43
    assert together(53) == 1


def test_a_rate_is_written_into_the_tensor_the_step_reads():
    optimizer = adam([torch.nn.Parameter(torch.zeros(1))], 0.5, CPU, record=True)
    held = optimizer.param_groups[0]["lr"]
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is held
    assert held.item() == 0.25
