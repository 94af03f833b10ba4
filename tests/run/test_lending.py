"""A caller's module comes back as it was, to the bit, whatever happens while it is lent."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isoprobe
from isoprobe.run import lending
from isoprobe.run.lending import lent
from tests.sampled import Sampled


class Model(Sampled):
    """A VAE with everything that a run might change: norms, dropout, frozen parts, a cache."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout())
        self.fc_mu, self.fc_var = nn.Linear(16, 3), nn.Linear(16, 3)
        self.decoder = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 6))
        self.calls, self.history = 0, []

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        self.calls += 1
        self.history.append(h.detach())
        self.last = h.detach()
        return self.fc_mu(h), self.fc_var(h)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


ROWS = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


def loss(model: nn.Module) -> Tensor:
    recon, mu, logvar = model(ROWS)
    rate = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
    return ((recon - ROWS).square().sum(1) + 0.3 * rate).mean()


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad()
    value = loss(model)
    value.backward()
    optimizer.step()
    return float(value.detach())


def in_training() -> tuple[Model, torch.optim.Optimizer]:
    """A model in the middle of its training: mixed flags, one frozen layer, gradients there."""
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        step(model, optimizer)
    model.decoder.eval()
    model.fc_mu.bias.requires_grad_(False)
    loss(model).backward()
    return model, optimizer


def state(model: nn.Module) -> dict:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {n: t.detach().clone() for n, t in tensors.items()},
        "same": {n: t.data_ptr() for n, t in tensors.items()},
        "kind": {n: (t.dtype, t.device, t.requires_grad) for n, t in tensors.items()},
        "grad": {n: None if t.grad is None else t.grad.clone() for n, t in tensors.items()},
        "training": [part.training for part in model.modules()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks)
                  for part in model.modules()],
        "names": [sorted(vars(part)) for part in model.modules()],
        "calls": getattr(model, "calls", None),
        "history": len(getattr(model, "history", ())),
        "last": id(getattr(model, "last", None)),
        "random": (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }  # fmt: skip


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def changes(model: Model) -> None:
    """What a run, and the caller's own forward, may do while the module is lent."""
    model.double()
    model.train()
    model(torch.randn(5, 6, dtype=torch.float64))
    model.extra = 1
    model.encoder.register_buffer("more", torch.zeros(1))
    model.requires_grad_(requires_grad=True)
    model.encoder[1].running_mean.add_(1)
    model.zero_grad()
    np.random.rand(3), random.random()


def test_a_lent_module_is_in_eval_mode_without_gradients():
    model, _ = in_training()
    with lent(model):
        assert not any(part.training for part in model.modules())
        assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("raises", [False, True])
def test_whatever_is_done_to_it_a_module_comes_back_to_the_bit(raises):
    model, _ = in_training()
    before = state(model)
    try:
        with lent(model):
            changes(model)
            if raises:
                raise KeyError("anything")
    except KeyError:
        pass
    after = state(model)
    assert [key for key in before if not same(before[key], after[key])] == []


def test_lending_itself_may_fail_at_any_step_and_changes_nothing(monkeypatch):
    model, _ = in_training()
    before = state(model)
    for name in ("eval", "requires_grad_"):
        with monkeypatch.context() as patch:
            patch.setattr(nn.Module, name, fails)
            with pytest.raises(RuntimeError, match="at this step"), lent(model):
                pass
        assert same(before, state(model)), name
    with monkeypatch.context() as patch:
        patch.setattr(lending, "_kept", fails)
        with pytest.raises(RuntimeError, match="at this step"), lent(model):
            pass
    assert same(before, state(model))


def fails(*_: object, **__: object) -> None:
    raise RuntimeError("at this step")


@pytest.mark.parametrize("how", ["module", "vae"])
def test_the_next_training_step_is_that_of_a_twin_nobody_analysed(how):
    model, optimizer = in_training()
    twin, its = copy.deepcopy((model, optimizer))
    subject = model
    if how == "vae":
        subject = isoprobe.VAE(
            model.decode,
            lambda x: isoprobe.Posterior(model.encode(x)[0], (model.encode(x)[1] / 2).exp()),
            input_shape=(6,),
            latent_shape=(3,),
            module=model,
        )
    before = state(model)
    with isoprobe.analyze(subject, ROWS, metric="sse", beta=0.3, analyses=["importance"]):
        pass
    assert [key for key, value in state(model).items() if not same(before[key], value)] == []
    noise = torch.get_rng_state()
    first = step(model, optimizer)
    torch.set_rng_state(noise)
    assert step(twin, its) == first
    assert same(model.state_dict(), twin.state_dict())


STEPS = [
    "isoprobe.run.opening.place",
    "isoprobe.run.opening.first_rows",
    "isoprobe_plugins.adapters.objects.living.finding.find",
    "isoprobe_plugins.adapters.objects.living._reading",
    "isoprobe.run.settle.prepare",
    "isoprobe.run.settle.require_pure",
    "isoprobe.run.settle.off_graph",
    "isoprobe.run.settle._analyses",
    "isoprobe.run.engine.Run.resolve",
    "isoprobe.run.engine.Run.conclude",
]


@pytest.mark.parametrize("place", STEPS)
def test_a_run_that_fails_at_any_step_gives_the_module_back(monkeypatch, place):
    model, _ = in_training()
    before = state(model)
    monkeypatch.setattr(place, fails)
    with pytest.raises(RuntimeError, match="at this step"):
        isoprobe.analyze(model, ROWS, metric="sse", beta=0.3, analyses=["importance"])
    assert [key for key, value in state(model).items() if not same(before[key], value)] == []


def test_a_vae_that_is_only_made_freezes_nothing():
    model, _ = in_training()
    before = state(model)
    isoprobe.VAE(model.decode, None, input_shape=(6,), latent_shape=(3,), module=model)
    assert same(before, state(model))


def test_a_run_works_inside_the_callers_modes():
    model, _ = in_training()
    with torch.inference_mode():
        rows = ROWS.clone()
        with isoprobe.analyze(model, rows, metric="sse", beta=0.3, analyses=["importance"]) as one:
            inside = one.columns()["kl"].values if "kl" in one.columns() else None
    with torch.no_grad(), isoprobe.analyze(
        model, ROWS, metric="sse", beta=0.3, analyses=["importance"]
    ) as other:  # fmt: skip
        assert inside is None or np.array_equal(inside, other.columns()["kl"].values)
