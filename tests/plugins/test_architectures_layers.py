"""Chains of layers compute what their steps say, and name the step that does not fit."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch.nn import functional

from isoprobe.errors import CheckpointError
from isoprobe_plugins.architectures.chain import Chain
from isoprobe_plugins.architectures.layers import Layers, Steps

X = torch.rand(3, 2, 6, 8, generator=torch.Generator().manual_seed(0))


def chain(*steps, shape=(2, 6, 8)):
    return Chain(msgspec.convert(steps, Steps), shape, "encoder")


@pytest.mark.parametrize(
    ("step", "want"),
    [
        ({"op": "flatten"}, lambda x: x.flatten(1)),
        ({"op": "reshape", "shape": [4, 24]}, lambda x: x.reshape(3, 4, 24)),
        ({"op": "permute", "order": [2, 0, 1]}, lambda x: x.permute(0, 3, 1, 2)),
        ({"op": "pool", "kind": "max", "kernel": 2}, lambda x: functional.max_pool2d(x, 2)),
        ({"op": "pool", "kind": "average", "kernel": 3}, lambda x: functional.avg_pool2d(x, 3)),
        ({"op": "upsample", "factor": 2},
         lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)),
        ({"op": "pad", "widths": [[1, -2], [0, 3]]}, lambda x: functional.pad(x, (0, 3, 1, -2))),
        ({"op": "activation", "name": "leaky_relu", "slope": 0.3},
         lambda x: torch.where(x < 0, 0.3 * x, x)),
        ({"op": "activation", "name": "elu", "slope": 2.0},
         lambda x: torch.where(x < 0, 2 * x.expm1(), x)),
    ],
)  # fmt: skip
def test_a_step_equals_its_formula_and_tells_its_shape(step, want):
    built = chain(step)
    x = X - 0.5
    got = built(x)
    assert torch.allclose(got, want(x), atol=1e-6)
    assert tuple(got.shape[1:]) == built.shape


def test_constants_are_appended_in_any_precision():
    built = chain({"op": "append", "values": [0.0, 1.0]}, shape=(3,))
    z = torch.rand(2, 3, dtype=torch.float64)
    assert torch.equal(built(z), torch.cat([z, torch.tensor([[0.0, 1.0]] * 2).double()], 1))
    assert built.shape == (5,)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
def test_convolutions_tell_their_shape_on_any_number_of_axes(op, axes):
    shape = (2, 9, 8, 7)[: axes + 1]
    step = {"op": op, "channels": 3, "kernel": 4, "stride": 2, "padding": 1}
    extra = {"output_padding": 1} if op == "conv_transpose" else {}
    built = chain({**step, **extra}, {"op": "batch_norm"}, shape=shape)
    assert tuple(built.eval()(torch.rand(2, *shape)).shape[1:]) == built.shape


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"op": "reshape", "shape": [5, 5]}], r"encoder\[0\]: shape \(2, 6, 8\) cannot become"),
        ([{"op": "flatten"}, {"op": "conv", "channels": 2, "kernel": 3}], r"encoder\[1\]: needs"),
        ([{"op": "conv", "channels": 2, "kernel": 9}], "nothing is left"),
        ([{"op": "conv", "channels": 2, "kernel": [3, 3, 3]}], "2 axes"),
        ([{"op": "permute", "order": [0, 0, 1]}], "does not fit"),
        ([{"op": "pad", "widths": [[1, 1]]}], "do not fit"),
        ([{"op": "append", "values": [1.0]}], "to a vector"),
        ([{"op": "activation", "name": "relu", "slope": 0.1}], "no slope"),
    ],
)
def test_a_step_that_does_not_fit_is_named(steps, message):
    with pytest.raises(CheckpointError, match=message):
        chain(*steps)


CONFIG = {
    "input_shape": [4],
    "latent_size": 2,
    "encoder": [{"op": "linear", "width": 4}],
    "head": {"layout": "interleaved"},
    "decoder": [{"op": "linear", "width": 4}],
}


@pytest.mark.parametrize(
    ("layout", "mean", "scale"),
    [("halves", [0, 1], [2, 3]), ("swapped", [2, 3], [0, 1]), ("interleaved", [0, 2], [1, 3])],
)
def test_one_head_is_split_as_its_layout_says(layout, mean, scale):
    networks = Layers().build({**CONFIG, "head": {"layout": layout, "form": "logstd"}})
    x = torch.rand(3, 4)
    both = networks.encoder.body(x)
    got_mean, got_std = networks.encoder(x)
    assert torch.equal(got_mean, both[:, mean])
    assert torch.equal(got_std, both[:, scale].exp())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_size": 3}, "encoder gives 4 values, latent_size asks for 6"),
        ({"decoder": []}, r"the decoder gives shape \(2,\)"),
        ({"encoder": [{"op": "transformer"}]}, r"\$\.encoder\[0\]\.op"),
        ({"head": {"layout": "separate"}}, "head.mean gives 4 values"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(change, message):
    with pytest.raises(CheckpointError, match=message):
        Layers().build({**CONFIG, **change})


def test_tanh_bounds_the_output():
    networks = Layers().build({**CONFIG, "output": "tanh"})
    z = 100 * torch.randn(5, 2)
    assert torch.equal(networks.decoder(z), torch.tanh(networks.decoder.body(z)))
    assert not hasattr(networks.decoder, "logits")
