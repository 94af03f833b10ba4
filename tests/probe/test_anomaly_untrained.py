"""Drawing parameters anew, and swapping them in and out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isoprobe.probe.untrained import swapped, untrained


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def trained() -> nn.Sequential:
    """A network no initialisation would give, running statistics included."""
    module = network()
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.fill_(7)
    return module.eval()


def test_drawing_anew_leaves_the_module_and_the_generator_alone() -> None:
    module = trained()
    before, state = snapshot(module), torch.get_rng_state()
    drawn = untrained(module, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in snapshot(module).items())
    assert drawn.missing == ()
    assert drawn.tensors.keys() == before.keys()
    assert all(t.isfinite().all() for t in drawn.tensors.values())
    assert torch.equal(drawn.tensors["1.running_mean"], torch.zeros(6))
    assert float(drawn.tensors["0.weight"].abs().max()) <= 0.5  # 1 / sqrt(fan in)


def test_a_seed_gives_the_same_parameters_and_another_seed_others() -> None:
    one, same, other = (untrained(trained(), seed) for seed in (3, 3, 4))
    assert all(torch.equal(t, same.tensors[n]) for n, t in one.tensors.items())
    assert not torch.equal(one.tensors["0.weight"], other.tensors["0.weight"])


def test_what_nothing_fills_is_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)
            self.gain = nn.Parameter(torch.ones(2))

    drawn = untrained(Scaled(), 0)
    assert drawn.missing == ("gain",)
    assert drawn.tensors == {}


def test_an_initialisation_that_fails_is_one_that_fills_nothing() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def reset_parameters(self, gain: float) -> None:
            self.weight.data.fill_(gain)

    module = nn.Sequential(nn.Linear(2, 2), Picky())
    assert untrained(module, 0).missing == ("1.weight",)
    assert torch.equal(module[1].weight, torch.ones(2))


def test_a_parent_has_the_last_word_over_its_children() -> None:
    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.child = nn.Linear(2, 2)

        def reset_parameters(self) -> None:
            nn.init.constant_(self.child.weight, 0.25)

    drawn = untrained(Parent(), 0)
    assert torch.equal(drawn.tensors["child.weight"], torch.full((2, 2), 0.25))


def test_swapping_changes_the_output_and_puts_everything_back() -> None:
    module = trained()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    before, output = snapshot(module), module(x)
    drawn = untrained(module, 0)
    fresh = network().eval()
    fresh.load_state_dict(dict(drawn.tensors))
    with swapped(module, drawn.tensors):
        assert torch.equal(module(x), fresh(x))
    assert torch.equal(module(x), output)
    assert all(torch.equal(t, before[n]) for n, t in snapshot(module).items())


def test_swapping_back_survives_an_error() -> None:
    module = trained()
    before = snapshot(module)
    with pytest.raises(KeyError), swapped(module, untrained(module, 0).tensors):
        raise KeyError
    assert all(torch.equal(t, before[n]) for n, t in snapshot(module).items())
