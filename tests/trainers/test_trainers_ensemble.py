"""Ensembles: gradients against autograd, members against the same models alone, resume."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

import isoprobe
from isoprobe.errors import CheckpointError, IsoprobeError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe_trainers.common.batched import BatchedMLP
from isoprobe_trainers.common.training import Clock, Schedule, generator, load_state, pick_device
from isoprobe_trainers.toy import bench
from isoprobe_trainers.toy import train as toy
from isoprobe_trainers.toy.data import generate
from isoprobe_trainers.toy.members import Member
from isoprobe_trainers.toy.source import parse
from isoprobe_trainers.toy.train import OBJECTIVES, Ensemble, Radogaga

CPU = torch.device("cpu")
DATA = "toy/mix:seed=0,samples=260"
OTHER = "toy/ramp:seed=1,samples=260"
SHORT = Schedule(epochs=3, batch=64, lr=1e-3)
#: different in every respect that a group allows
MEMBERS = [
    Member(DATA, "sse", 100.0, 0),
    Member(OTHER, "downward", 10.0, 1),
    Member(DATA, "upward", 500.0, 2),
    Member(DATA, "sse", 100.0, 3, 5),
    Member(DATA, "downward", 50.0, 0, 3, "decomposed"),
    Member(OTHER, "sse", 100.0, 7, 3, "radogaga"),
]


def generators(count):
    return [generator(seed, 0) for seed in range(count)]


def modules_of(mlp, member):
    layers = []
    for weight, bias in mlp.member(member):
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


# --------------------------------------------------------------------------- networks


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_batched_networks_equal_torch_modules_and_so_do_their_gradients(dtype, tolerance):
    mlp = BatchedMLP((5, 12, 3, 9), generators(4)).to(dtype)
    x = torch.randn(4, 7, 5, dtype=dtype, generator=generator(0, 9), requires_grad=True)
    weight = torch.randn(4, 7, 9, dtype=dtype, generator=generator(1, 9))
    (mlp(x) * weight).sum().backward()
    for e in range(4):
        alone, own = modules_of(mlp, e), x[e].detach().clone().requires_grad_()
        out = alone(own)
        (out * weight[e]).sum().backward()
        torch.testing.assert_close(mlp(x)[e], out, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(x.grad[e], own.grad, rtol=tolerance, atol=tolerance)
        for layer, linear in enumerate(m for m in alone if isinstance(m, nn.Linear)):
            by_weight, by_bias = mlp.weights[layer].grad[e], mlp.biases[layer].grad[e, 0]
            torch.testing.assert_close(
                by_weight, linear.weight.grad, rtol=tolerance, atol=tolerance
            )
            torch.testing.assert_close(by_bias, linear.bias.grad, rtol=tolerance, atol=tolerance)


def test_the_fast_tanh_is_tanh_even_where_its_exponential_overflows():
    identity = BatchedMLP((1, 1, 1), generators(1))
    with torch.no_grad():
        for parameter in identity.parameters():
            parameter.zero_()
        identity.weights[0].fill_(1)
        identity.weights[1].fill_(1)
        u = torch.cat([torch.linspace(-12, 12, 10_001), torch.tensor([-1e30, 1e30, 0.0])])
        error = identity(u[None, :, None])[0, :, 0].double() - torch.tanh(u.double())
    assert error.abs().max() < 2e-7


def test_initial_weights_fill_the_range_of_nn_linear():
    mlp = BatchedMLP((16, 400), generators(1))
    weights = mlp.weights[0].detach()
    assert weights.abs().max() <= 0.25
    # variance of U(-1/4, 1/4); 6400 draws
    assert weights.var().item() == pytest.approx(0.25**2 / 3, rel=0.05)


# --------------------------------------------------------------------------- objectives


def plain_decode(z):
    return torch.stack([z.sum(-1), z[..., 0] * 2, z[..., 1] ** 2, -z[..., 2]], -1)


@pytest.mark.parametrize("metric", ["sse", "downward", "upward"])
def test_the_plain_loss_is_the_metric_plugin_and_the_closed_form_of_the_kl(metric):
    member = Member(metric=metric, lam=7.0)
    heads = torch.randn(1, 11, 6, generator=generator(3, 0))
    x = torch.randn(1, 11, 4, generator=generator(4, 0))
    noise = torch.randn(1, 11, 3, generator=generator(5, 0))
    objective = OBJECTIVES["plain"]([member])
    parts = objective(lambda _: heads, plain_decode, x, noise)
    mean, std = heads[0, :, :3], (0.5 * heads[0, :, 3:]).exp()
    posterior = torch.distributions.Normal(mean, std)
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    plugin = installed().metric(metric)
    distortion = plugin.distortion(x[0], plain_decode(mean + std * noise[0]))
    torch.testing.assert_close(parts[0, 0], distortion.mean())
    torch.testing.assert_close(parts[1, 0], kl.sum(1).mean())
    torch.testing.assert_close(objective.total(parts)[0], 7 * distortion.mean() + kl.sum(1).mean())


@pytest.mark.parametrize("metric", ["sse", "downward", "upward"])
def test_the_decomposed_loss_measures_coding_from_the_decoded_mean(metric):
    member = Member(metric=metric, lam=7.0, objective="decomposed")
    heads = torch.randn(1, 11, 6, generator=generator(3, 0))
    x = torch.randn(1, 11, 4, generator=generator(4, 0))
    noise = torch.randn(1, 11, 3, generator=generator(5, 0))
    parts = OBJECTIVES["decomposed"]([member])(lambda _: heads, plain_decode, x, noise)
    mean, std = heads[0, :, :3], (0.5 * heads[0, :, 3:]).exp()
    x_check, x_hat = plain_decode(mean), plain_decode(mean + std * noise[0])
    plugin = installed().metric(metric)
    torch.testing.assert_close(parts[0, 0], plugin.distortion(x[0], x_check).mean())
    torch.testing.assert_close(parts[1, 0], plugin.distortion(x_check, x_hat).mean())


def test_the_learned_prior_of_radogaga_is_a_density():
    objective = Radogaga([Member(latent_size=1, objective="radogaga")])
    with torch.no_grad():
        objective.prior_logit.normal_(generator=generator(0, 0))
        objective.prior_log_std.normal_(generator=generator(1, 0))
    z = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    density = objective.double().log_prior(z[None, :, None])[0].exp()
    assert (density.sum() * (z[1] - z[0])).item() == pytest.approx(1, abs=1e-4)


# --------------------------------------------------------------------------- members


def test_a_member_equals_the_same_model_trained_alone():
    """To 1e-5 of the weights' scale after 12 steps: batched products may round differently."""
    together = Ensemble(MEMBERS, SHORT, CPU)
    losses = [together.run_epoch(epoch) for epoch in range(3)]
    for member in MEMBERS:
        alone = Ensemble([member], SHORT, CPU)
        for epoch in range(3):
            loss = alone.run_epoch(epoch)[member.name]
            assert loss == pytest.approx(losses[epoch][member.name], rel=1e-5)
        ours, theirs = together.state()[member.name], alone.state()[member.name]
        for a, b in zip(ours["weights"], theirs["weights"], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        assert torch.equal(ours["noise"], theirs["noise"])


def test_members_differ_where_only_the_seed_does():
    pair = Ensemble([Member(DATA, seed=0), Member(DATA, seed=1)], SHORT, CPU)
    one, two = pair.state().values() if pair.run_epoch(0) else ()
    assert not torch.allclose(one["weights"][0], two["weights"][0])


def test_each_row_is_seen_once_an_epoch_in_an_order_of_its_own():
    members = [Member(DATA, seed=0), Member(OTHER, seed=1)]
    whole = Ensemble(members, Schedule(1, 130), CPU).groups
    taken = []
    for group in whole:
        group.steps.take = lambda chosen, noise, g=group: taken.append(g.rows[chosen[:2]]) or noise
        group.run_epoch(0)
    rows = torch.cat([seen.movedim(0, 1).flatten(1, 2) for seen in taken])
    for member, seen in zip(members, rows, strict=True):
        x = torch.from_numpy(generate(parse(member.data)).x)
        order = seen[:, 0].argsort()
        torch.testing.assert_close(seen[order], x[x[:, 0].argsort()])
        assert not torch.equal(seen, x)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 15, 16, 90])
def test_groups_split_members_evenly_among_workers(workers, count):
    members = [Member(DATA, seed=s) for s in range(count)]
    groups = list(toy._partition(members, workers, CPU))
    assert [m for g in groups for m in g] == members
    sizes = [len(g) for g in groups]
    assert max(sizes) <= toy.CPU_GROUP
    assert max(sizes) - min(sizes) <= 1
    assert len(groups) % workers == 0 or len(groups) == count


# --------------------------------------------------------------------------- training


def weights_of(paths):
    return [load_file(path) for path in paths]


def interrupted(monkeypatch, at, error=KeyboardInterrupt):
    """Make a training stop as a kill would at the beginning of an epoch."""
    run_epoch = Ensemble.run_epoch

    def run(self, epoch):
        if epoch == at:
            raise error
        return run_epoch(self, epoch)

    monkeypatch.setattr(Ensemble, "run_epoch", run)


@pytest.mark.parametrize("at", [1, 3])
def test_a_killed_training_resumes_to_the_same_bits(tmp_path, monkeypatch, at):
    schedule = replace(SHORT, epochs=4, decay=1.0)
    straight = toy.train(MEMBERS, schedule, tmp_path / "straight", CPU)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, at)
        toy.train(MEMBERS, schedule, tmp_path / "killed", CPU, save_every=-1.0)
    assert load_state(tmp_path / "killed" / toy.RESUME_FILE)["done"] == at
    resumed = toy.train(MEMBERS, schedule, tmp_path / "killed", CPU, resume=True)
    for ours, theirs in zip(weights_of(resumed), weights_of(straight), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not (tmp_path / "killed" / toy.RESUME_FILE).exists()
    logs = [
        [{**json.loads(line)} for line in (tmp_path / run / toy.LOG_FILE).read_text().splitlines()]
        for run in ("straight", "killed")
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 4 * len(MEMBERS)


def test_a_training_resumes_in_other_groups_than_it_was_saved_in(tmp_path, monkeypatch):
    straight = toy.train(MEMBERS, SHORT, tmp_path / "straight", CPU)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, 2)
        toy.train(MEMBERS, SHORT, tmp_path / "killed", CPU, save_every=-1.0)
    resumed = toy.train(MEMBERS, SHORT, tmp_path / "killed", CPU, resume=True, most=1)
    for ours, theirs in zip(weights_of(resumed), weights_of(straight), strict=True):
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


def test_a_training_killed_among_its_checkpoints_resumes(tmp_path, monkeypatch):
    export, written = toy._export, []

    def fail_at_second(group, index, path, record):
        if written:
            raise KeyboardInterrupt
        export(group, index, path, record)
        written.append(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(toy, "_export", fail_at_second)
        toy.train(MEMBERS[:2], SHORT, tmp_path, CPU, save_every=-1.0)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    paths = toy.train(MEMBERS[:2], SHORT, tmp_path, CPU, resume=True)
    assert all(path.exists() for path in paths)


def test_the_log_keeps_the_lines_of_earlier_trainings(tmp_path):
    toy.train(MEMBERS[:1], SHORT, tmp_path, CPU)
    with (tmp_path / toy.LOG_FILE).open("a") as file:
        file.write('{"epoch": 7, "mem')
    toy.train(MEMBERS[1:2], SHORT, tmp_path, CPU)
    toy.train(MEMBERS[:1], SHORT, tmp_path, CPU, overwrite=True)
    lines = [json.loads(line) for line in (tmp_path / toy.LOG_FILE).read_text().splitlines()]
    seen = [(line["member"], line["epoch"]) for line in lines]
    assert seen == [(m.name, epoch) for m in (MEMBERS[1], MEMBERS[0]) for epoch in range(3)]


def test_divergence_is_named(tmp_path):
    with pytest.raises(OptionError, match="diverged in epoch 0"):
        toy.train(MEMBERS[:2], Schedule(2, 20, 1e30), tmp_path, CPU)


def test_a_resume_file_of_another_training_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, 1)
        toy.train(MEMBERS[:1], SHORT, tmp_path, CPU, save_every=-1.0)
    with pytest.raises(CheckpointError, match="other models or another schedule"):
        toy.train(MEMBERS[:1], replace(SHORT, lr=2e-3), tmp_path, CPU, resume=True)
    (tmp_path / toy.RESUME_FILE).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="no readable resume file"):
        toy.train(MEMBERS[:1], SHORT, tmp_path, CPU, resume=True)


class Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_a_resume_file_runs_nothing(tmp_path):
    torch.save({"epoch": 1, "states": Payload()}, tmp_path / toy.RESUME_FILE)
    with pytest.raises(CheckpointError, match="no readable resume file"):
        toy.train(MEMBERS[:1], SHORT, tmp_path, CPU, resume=True)


def test_a_failure_in_one_group_ends_the_training_and_leaves_no_checkpoint(tmp_path, monkeypatch):
    interrupted(monkeypatch, 0, RuntimeError)
    with pytest.raises(RuntimeError):
        toy.train(MEMBERS[:2], SHORT, tmp_path, CPU)
    assert not list(tmp_path.glob("*.safetensors"))


def test_checkpoints_describe_themselves_and_compute_what_was_trained(tmp_path):
    member = Member(DATA, "upward", 20.0, 4, 2)
    (path,) = toy.train([member], SHORT, tmp_path, CPU)
    vae = isoprobe.load(path)
    facts = vae.facts
    assert (facts.metric, facts.beta, facts.dataset) == ("upward", 1 / 20, member.data)
    assert facts.decomposed is False
    assert facts.training["member"] == member.record()
    assert facts.training["schedule"] == SHORT.record()
    assert facts.training["steps"] == 3 * 4

    model = Ensemble([member], SHORT, CPU)
    for epoch in range(3):
        model.run_epoch(epoch)
    (group,) = model.groups
    x = torch.from_numpy(generate(parse(DATA)).x)
    with torch.no_grad():
        mean, log_variance = group.encoder(x[None])[0].chunk(2, -1)
        posterior = vae.encode(x)
        torch.testing.assert_close(posterior.mean, mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(posterior.std, (log_variance / 2).exp(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            vae.decode(mean), group.decoder(mean[None])[0], rtol=1e-5, atol=1e-6
        )


def test_radogaga_is_written_with_its_constant_noise(tmp_path):
    member = Member(DATA, lam=50.0, objective="radogaga")
    (path,) = toy.train([member], SHORT, tmp_path, CPU)
    vae = isoprobe.load(path)
    std = vae.encode(torch.from_numpy(generate(parse(DATA)).x)).std
    np.testing.assert_allclose(std.numpy(), math.sqrt(0.01), rtol=1e-6)
    assert vae.facts.decomposed


def test_short_training_lowers_every_loss(tmp_path):
    toy.train(MEMBERS, replace(SHORT, epochs=15), tmp_path, CPU)
    lines = [json.loads(line) for line in (tmp_path / toy.LOG_FILE).read_text().splitlines()]
    for member in MEMBERS:
        losses = [line["loss"] for line in lines if line["member"] == member.name]
        assert len(losses) == 15
        assert losses[-1] < 0.7 * losses[0]


# torch.compile itself does what torch calls deprecated when it meets an autograd.Function
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_training_is_the_same(monkeypatch):
    """Through torch.compile's tracing of forward and backward; code generation takes too long."""
    compiler, traced = torch.compile, []

    def trace_only(function, mode):
        traced.append(mode)
        return compiler(function, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", trace_only)
    usual, compiled = (
        Ensemble(MEMBERS[:1], SHORT, CPU, compile_step=flag).run_epoch(0) for flag in (False, True)
    )
    assert traced == ["default"]
    for part, value in usual[MEMBERS[0].name].items():
        assert compiled[MEMBERS[0].name][part] == pytest.approx(value, rel=1e-5)


# --------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"metric": "ssee"}, "did you mean 'sse'"),
        ({"objective": "split"}, "known: plain, decomposed, radogaga"),
        ({"lam": 0.0}, "positive"),
        ({"lam": math.inf}, "positive"),
        ({"seed": -1}, "at least 0"),
        ({"latent_size": 0}, "latent"),
        ({"data": "toy/nix"}, "did you mean"),
    ],
)
def test_a_wrong_member_is_one_line(fields, words):
    with pytest.raises(IsoprobeError) as error:
        Member(**fields)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_names_tell_members_apart():
    members = [*MEMBERS, Member(), Member(lam=0.5), Member("toy/mix:seed=1"), Member("toy/norm")]
    assert len({m.name for m in members}) == len(members)
    assert Member("toy/mix") == Member("toy/mix:seed=0,samples=50000")


def test_wrong_trainings_are_refused(tmp_path):
    with pytest.raises(OptionError, match="twice"):
        toy.train([MEMBERS[0], MEMBERS[0]], SHORT, tmp_path, CPU)
    with pytest.raises(OptionError, match="larger than the 260 rows"):
        toy.train(MEMBERS[:1], Schedule(1, 300), tmp_path, CPU)
    with pytest.raises(OptionError, match="positive"):
        Schedule(0, 10)
    with pytest.raises(OptionError, match="device='auto'"):
        pick_device("gpu7")
    toy.train(MEMBERS[:1], SHORT, tmp_path, CPU)
    with pytest.raises(CheckpointError, match="exists already"):
        toy.train(MEMBERS[:1], SHORT, tmp_path, CPU)


def test_time_spent_before_an_interruption_counts():
    clock = Clock({"seconds": 100.0, "cpu_seconds": 50.0})
    sum(range(10**6))
    spent = clock.spent()
    assert 100 <= spent["seconds"] < 160
    assert 50 <= spent["cpu_seconds"] < 110


def test_the_benchmark_counts_model_steps():
    sizes = ["--size", "1", "--size", "2"]
    printed = CliRunner().invoke(bench.main, ["--steps", "1", "--device", "cpu", *sizes])
    rows = [line.split("|")[1:-1] for line in printed.stdout.splitlines()[3:]]
    assert [[int(cell) for cell in row[:2]] for row in rows] == [
        [1, 128],
        [2, 128],
        [1, 256],
        [2, 256],
    ]
    assert all(float(row[2]) > 0 for row in rows)


def test_the_rate_is_constant_until_it_decays():
    schedule = Schedule(100, 10, 1e-3, decay=0.2)
    rates = [schedule.rate(epoch) for epoch in range(100)]
    assert rates[:80] == [1e-3] * 80
    assert sum(rates[80:]) == pytest.approx(20 * 1e-3 / 2)
    assert rates[80:] == sorted(rates[80:], reverse=True)
    assert {Schedule(100, 10).rate(epoch) for epoch in range(100)} == {1e-3}
    with pytest.raises(OptionError, match="from 0 to 1"):
        Schedule(100, 10, decay=1.5)


def test_the_cosine_falls_from_the_full_rate_to_nothing():
    schedule = Schedule(100, 10, 1e-3, decay=1.0)
    rates = [schedule.rate(epoch) for epoch in range(100)]
    assert rates == sorted(rates, reverse=True)
    assert sum(rates) == pytest.approx(100 * 1e-3 / 2)
    assert rates[-1] < 1e-6 < rates[0] <= 1e-3
