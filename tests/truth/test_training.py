from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import isoprobe
from benchmarks.truth import train
from benchmarks.truth.data import rows
from benchmarks.truth.recipes import recipe


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "MODELS", tmp_path)
    return tmp_path


def test_a_seed_gives_the_same_bytes(models) -> None:
    short = replace(recipe("toy-sse-0.1"), steps=20, name="short")
    train.train(short, {})
    first = (models / "short.safetensors").read_bytes()
    train.train(short, {})
    assert (models / "short.safetensors").read_bytes() == first
    train.train(replace(short, seed=1), {})
    assert (models / "short.safetensors").read_bytes() != first


def test_the_closed_form_is_a_minimum_on_its_own_rows(models) -> None:
    entry = train.train(replace(recipe("linear-sse-1"), name="closed"), {})
    vae = isoprobe.load(models / "closed.safetensors").to("cpu", torch.float64)
    x = torch.from_numpy(rows("linear").train.copy()).double()
    encoder, decoder = (vae.module.get_submodule(part) for part in ("encoder", "decoder"))
    weights = [*encoder.parameters(), *decoder.parameters()]
    for weight in weights:
        weight.requires_grad_()
    mean, std = encoder(x)
    gram = decoder.out.weight.T @ decoder.out.weight
    coding = (std.square() * gram.diagonal()).sum(1)
    kl = (0.5 * (mean.square() + std.square() - 1) - std.log()).sum(1)
    loss = ((decoder(mean) - x).square().sum(1) + coding + kl).mean()
    for gradient in torch.autograd.grad(loss, weights):
        assert gradient.abs().max() < 2e-4  # float32 weights, inputs of variance 40
    assert entry["ended"] == "closed form"


def test_a_fixed_sigma_stays_fixed(models) -> None:
    frozen = replace(recipe("toy-sse-0.1"), objective="fixed-sigma", steps=5, name="frozen")
    train.train(frozen, {})
    vae = isoprobe.load(models / "frozen.safetensors")
    std = vae.encode(torch.from_numpy(rows("toy").train[:50].copy())).std
    assert torch.allclose(std, torch.full_like(std, 0.3))


def test_one_epoch_and_shares_of_the_steps(models) -> None:
    short = replace(recipe("toy-sse-0.1"), steps=40)
    assert train.train(replace(short, name="a", stop=0.25), {})["steps"] == 10
    assert train.train(replace(short, name="b", stop=-1.0, rows=600), {})["steps"] == 3


def test_dropout_leaves_nothing_in_the_model(models) -> None:
    train.train(replace(recipe("toy-sse-0.1"), dropout=0.3, steps=5, name="dropped"), {})
    vae = isoprobe.load(models / "dropped.safetensors")
    x = torch.from_numpy(rows("toy").train[:5].copy())
    assert torch.equal(vae.encode(x).mean, vae.encode(x).mean)
