from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.truth import cases, faults_latents, judging
from benchmarks.truth.data import rows
from benchmarks.truth.deform import DEFORMATIONS
from benchmarks.truth.recipes import recipe
from benchmarks.truth.subject import Subject
from benchmarks.truth.train import read_manifest

BY_NAME = {d.name: d for d in DEFORMATIONS}


def subject(name: str) -> Subject:
    return cases.ready(cases.Case(name, name, "sound"))


def deformed(deformation: str, name: str) -> Subject:
    return BY_NAME[deformation].change(subject(name))


def rows_of(s: Subject, count: int = 64) -> torch.Tensor:
    return torch.from_numpy(s.rows[:count].copy())


def squared_error(s: Subject, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return (s.vae.decode(s.vae.encode(x).mean) - x).square().flatten(1).sum(1)


# --------------------------------------------------------------------------- the list


def test_there_are_some_two_hundred_faults_on_two_halves() -> None:
    found = [c for c in cases.cases() if c.group not in {"sound", "biased"}]
    assert len(found) >= 180
    assert len({(c.name, c.part) for c in found}) == len(found)
    for half in (1, 2):
        assert sum(c.half == half for c in found) >= 60


def test_each_deformation_is_made_on_three_models_or_all_that_can_have_it() -> None:
    entries = read_manifest()
    for d in DEFORMATIONS:
        chosen = cases.models_of(d, entries)
        able = [n for n, e in entries.items() if e["kind"] == "sound" and d.fits(recipe(n), e)]
        assert len(chosen) == min(3, len(d.models) or len(able)), d.name
        halves = {cases.half(recipe(n).triple) for n in chosen}
        possible = {cases.half(recipe(n).triple) for n in (d.models or able)}
        assert halves == possible, d.name


def test_causes_are_words_of_the_bench() -> None:
    known = set(judging.CAUSES)
    for case in cases.cases():
        assert case.causes <= known
    for named in [*judging.NAMED.values(), *judging.PHRASES.values()]:
        assert named <= known


def test_every_kind_of_the_table_has_faults() -> None:
    assert {c.group for c in cases.cases()} == {
        "sound", "biased", "training", "declared beta", "declared metric", "data",
        "reading of the encoder", "reading of the decoder", "fit of the two", "other objectives",
        "idle and over-sharp", "random", "curved",
    }  # fmt: skip


@pytest.mark.parametrize("case", [c for c in cases.cases() if c.deformation], ids=lambda c: c.name)
@pytest.mark.usefixtures("shared")
def test_a_deformation_changes_what_is_analysed(case) -> None:
    before, after = subject(case.model), cases.ready(case)
    x, other = rows_of(before, 40), rows_of(after, 40)
    torch.manual_seed(0)
    with torch.no_grad():
        p, q = before.vae.encode(x), after.vae.encode(other)
        y, w = before.vae.decode(p.mean), after.vae.decode(q.mean)
        changed = (
            (before.metric, before.beta) != (after.metric, after.beta)
            or x.shape != other.shape
            or not torch.allclose(x, other, atol=1e-3)
            or not torch.allclose(p.std, q.std, rtol=1e-2)
            or not torch.allclose(p.mean, q.mean, atol=1e-2)
            or not torch.allclose(y, w, atol=1e-2)
        )
    assert changed
    assert q.std.shape == q.mean.shape == (40, before.recipe.latents)
    assert w.shape == other.shape


def test_deforming_a_loaded_model_leaves_the_file_and_the_next_one_alone() -> None:
    x = rows_of(subject("toy-sse-0.1"))
    before = squared_error(subject("toy-sse-0.1"), x)
    deformed("another activation", "toy-sse-0.1")
    deformed("a layer's bias zeroed", "toy-sse-0.1")
    assert torch.equal(squared_error(subject("toy-sse-0.1"), x), before)


# --------------------------------------------------------------------------- each does what it says


def test_what_is_declared_reaches_the_model() -> None:
    vae, more = cases.declared(deformed("beta x 2.0", "toy-sse-0.1"))
    assert (vae.facts.beta, vae.facts.metric, more) == (0.2, "sse", {})
    vae, _ = cases.declared(deformed("l1 for sse", "toy-sse-0.1"))
    assert (vae.facts.beta, vae.facts.metric) == (0.1, "l1")


def test_a_metric_of_the_bench_itself_is_given_to_the_call() -> None:
    s = replace(subject("toy-sse-0.1"), metric="logcosh", beta=0.3)
    _, more = cases.declared(s)
    assert more["beta"] == 0.3
    x = torch.randn(3, 16)
    assert torch.allclose(more["metric"].distortion(x, 0 * x), x.cosh().log().sum(1), atol=1e-5)


def test_rotating_both_sides_keeps_the_reconstruction_and_the_pullback_fit() -> None:
    for name in ("toy-sse-0.1", "linear-sse-1"):
        before, after = subject(name), deformed("both rotated", name)
        x = rows_of(before)
        assert torch.allclose(squared_error(before, x), squared_error(after, x), atol=1e-3)
        r = faults_latents.rotation(before)
        assert torch.allclose(r @ r.T, torch.eye(before.recipe.latents), atol=1e-6)


def test_a_rotated_linear_vae_still_solves_stationarity_but_not_orthogonally() -> None:
    s = deformed("both rotated", "linear-sse-1")
    jacobian = torch.autograd.functional.jacobian(
        lambda z: s.vae.decode(z[None])[0], torch.zeros(s.recipe.latents)
    )
    gram = jacobian.T @ jacobian
    std = s.vae.encode(rows_of(s, 1)).std[0]
    residual = 2 / s.beta * std.square() * gram.diagonal() + std.square() - 1
    assert residual.abs().max() < 1e-4
    cosine = gram / torch.outer(gram.diagonal().sqrt(), gram.diagonal().sqrt())
    used = sorted(s.used)[:4]
    assert (cosine[used][:, used] - torch.eye(4)).abs().max() > 0.1


def test_rotating_the_decoder_alone_loses_the_reconstruction() -> None:
    before, after = subject("toy-sse-0.1"), deformed("decoder rotated", "toy-sse-0.1")
    x = rows_of(before)
    assert squared_error(after, x).mean() > 3 * squared_error(before, x).mean()


def test_columns_are_zeroed_scaled_and_flipped() -> None:
    plain = subject("toy-sse-0.1")
    j = plain.used[0]
    z = torch.randn(5, plain.recipe.latents)
    for name, factor in (("column zeroed", 0.0), ("column x 3", 3.0), ("column x 0.5", 0.5)):
        scaled = z.clone()
        scaled[:, j] *= factor
        found = deformed(name, "toy-sse-0.1").vae.decode(z)
        assert torch.equal(found, plain.vae.decode(scaled))
    flipped = z.clone()
    flipped[:, j] *= -1
    found = deformed("column's sign flipped", "toy-sse-0.1").vae.decode(z)
    assert torch.equal(found, plain.vae.decode(flipped))


def test_permuting_moves_used_latents_only_and_none_is_lost() -> None:
    before, after = subject("toy-sse-0.1"), deformed("latents permuted", "toy-sse-0.1")
    x = rows_of(before)
    p, q = before.vae.encode(x), after.vae.encode(x)
    assert torch.equal(p.mean.sort(1).values, q.mean.sort(1).values)
    for j in range(before.recipe.latents):
        assert torch.equal(p.mean[:, j], q.mean[:, j]) == (j not in before.used)


def test_heads_are_misread_as_said() -> None:
    plain = subject("toy-sse-0.1")
    x = rows_of(plain)
    p = plain.vae.encode(x)
    raw = 2 * p.std.log()
    read = {
        "log variance as log deviation": (p.mean, raw.exp()),
        "softplus for exp": (p.mean, raw.exp().log1p()),
        "heads swapped": (raw, (p.mean / 2).exp()),
    }
    for name, (mean, std) in read.items():
        q = deformed(name, "toy-sse-0.1").vae.encode(x)
        assert torch.allclose(q.mean, mean, atol=1e-5)
        assert torch.allclose(q.std, std, rtol=1e-4)
    q = deformed("interleaved for halves", "toy-sse-0.1").vae.encode(x)
    both = torch.cat([p.mean, raw], 1)
    assert torch.allclose(q.mean, both[:, 0::2], atol=1e-5)
    assert torch.allclose(q.std, (both[:, 1::2] / 2).exp(), rtol=1e-4)
    log = subject("toy-l1-0.5")
    q = deformed("log deviation as log variance", "toy-l1-0.5").vae.encode(x)
    assert torch.allclose(q.std.square(), log.vae.encode(x).std, rtol=1e-4)


def test_an_output_activation_is_left_out_or_put_twice() -> None:
    plain = subject("digits-bce-1")
    z = torch.randn(5, 4)
    logits = plain.vae.decode_logits(z)
    bare = deformed("no output activation", "digits-bce-1").vae
    assert torch.equal(bare.decode(z), logits)
    assert bare.decode_logits is None
    twice = deformed("output activation twice", "digits-bce-1").vae
    assert torch.allclose(twice.decode(z), logits.sigmoid().sigmoid())
    assert torch.allclose(twice.decode_logits(z).sigmoid(), twice.decode(z))


def test_batch_norm_in_training_mode_depends_on_the_company() -> None:
    z = torch.randn(8, 4)
    plain, trained = (
        subject("toy-bn-sse-0.1"),
        deformed("batch norm in training mode", "toy-bn-sse-0.1"),
    )
    with torch.no_grad():
        assert torch.allclose(plain.vae.decode(z)[:3], plain.vae.decode(z[:3]), atol=1e-5)
        assert not torch.allclose(trained.vae.decode(z)[:3], trained.vae.decode(z[:3]), atol=1e-2)


def test_the_bias_that_is_zeroed_matters() -> None:
    before, after = subject("digits-sse-0.5"), deformed("a layer's bias zeroed", "digits-sse-0.5")
    x = rows_of(before)
    assert squared_error(after, x).mean() > 1.2 * squared_error(before, x).mean()


def test_idle_latents_get_half_the_prior_and_nothing_else_changes() -> None:
    before, after = subject("toy-sse-0.1"), deformed("two idle at sigma^2 = 0.5", "toy-sse-0.1")
    x = rows_of(before)
    p, q = before.vae.encode(x), after.vae.encode(x)
    assert torch.equal(p.mean[:, before.used], q.mean[:, before.used])
    assert torch.equal(p.std[:, before.used], q.std[:, before.used])
    assert torch.allclose(q.std[:, before.idle[:2]].square(), torch.tensor(0.5))


def test_a_rare_latent_is_at_its_optimum_where_it_is_used() -> None:
    before, after = subject("toy-sse-0.1"), deformed("used by one row in a thousand", "toy-sse-0.1")
    x = torch.from_numpy(after.rows)
    uses = (x[:, -1] > 0).nonzero()[:, 0]
    assert len(uses) == len(x) // 1000
    latent = before.idle[0]
    p = after.vae.encode(x[uses])
    mean = p.mean.double().requires_grad_()
    scale = p.std.double().log().requires_grad_()
    torch.manual_seed(0)
    eps = torch.randn(20_000, mean.shape[1], dtype=torch.float64)
    eps = torch.cat([eps, -eps])
    z = mean[:1] + scale[:1].exp() * eps
    # the ramp alone: the decoder's other outputs do not see this latent
    ramp = 3 * after.beta**0.5 * (z[:, latent] - faults_latents.FROM).clamp_min(0)
    distortion = (ramp - x[uses[0], -1].double()).square().mean()
    kl = (0.5 * (mean[0] ** 2 + (2 * scale[0]).exp() - 1) - scale[0])[latent]
    (distortion + after.beta * kl).backward()
    assert abs(mean.grad[0, latent]) < 0.01 * after.beta * 5
    assert abs(scale.grad[0, latent]) < 0.03 * after.beta
    idle = torch.ones(len(x), dtype=torch.bool)
    idle[uses] = False
    q = after.vae.encode(x[idle][:100])
    assert (q.mean[:, latent] == 0).all()
    assert (q.std[:, latent] == 1).all()


def test_random_models_answer_differently_each_time_or_in_other_company() -> None:
    for name in ("sampled z as mean", "dropout on"):
        s = deformed(name, "toy-sse-0.1")
        x = rows_of(s)
        assert not torch.equal(s.vae.encode(x).mean, s.vae.encode(x).mean)
    s = deformed("noise in the decoder", "toy-sse-0.1")
    z = torch.randn(3, 5)
    assert not torch.equal(s.vae.decode(z), s.vae.decode(z))
    s = deformed("dependence on the batch", "toy-sse-0.1")
    x = rows_of(s)
    assert torch.equal(s.vae.encode(x).mean, s.vae.encode(x).mean)
    assert not torch.allclose(s.vae.encode(x).mean[:5], s.vae.encode(x[:5]).mean, atol=1e-3)


def test_data_are_changed_as_said() -> None:
    plain = subject("digits-bce-1").rows
    assert np.array_equal(deformed("inverted", "digits-bce-1").rows, 1 - plain)
    assert np.array_equal(deformed("axes exchanged", "digits-bce-1").rows[3], plain[3].T)
    assert deformed("0..255 for 0..1", "digits-bce-1").rows.max() == 255
    padded = deformed("padded, not resized", "digits-bce-1").rows
    assert padded.shape == plain.shape
    assert not padded[:, :2].any()
    ones = deformed("one class only", "digits-bce-1").rows
    assert len(ones) == (rows("digits").classes == 1).sum()
    vectors = deformed("columns standardised", "toy-sse-0.1").rows
    assert vectors.std(0) == pytest.approx(np.ones(16), abs=1e-3)
    assert np.array_equal(deformed("another set", "toy-sse-0.1").rows[:5], rows("spiral").train[:5])
