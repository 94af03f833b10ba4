"""Converted models give the same numbers; the doctor finds how weights must be read."""

from __future__ import annotations

import json
import tomllib

import pytest
import torch
from click.testing import CliRunner

from isoprobe import api
from isoprobe.checkpoints.native import write_checkpoint
from isoprobe.checkpoints.source import Source
from isoprobe.cli.group import cli
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.declared.declaration import parse_declaration
from isoprobe_plugins.adapters.weights.state import read_state
from isoprobe_plugins.architectures.linear import linear_networks, linear_vae
from isoprobe_plugins.commands.convert import convert, describe
from isoprobe_plugins.commands.doctor import declaration, doctor, examine
from isoprobe_plugins.doctor.parts import parts_of, splits
from isoprobe_plugins.doctor.skeleton import skeletons
from isoprobe_plugins.doctor.toml import to_toml

CHECKPOINTS = "checkpoints"
BETAH = "YannDubs+disentangling-vae/betaH_mnist"
VAE2 = "shagunuppal+Riemannian_Geometry_of_Deep_Generative_Models/MNIST/vae2.pth"


def run(command, *arguments):
    return CliRunner().invoke(
        cli, [str(command.name), *(str(a) for a in arguments)], catch_exceptions=False
    )


@pytest.mark.shared
def test_a_converted_model_gives_the_same_numbers(shared, tmp_path):
    path, out = shared / CHECKPOINTS / BETAH, tmp_path / "betah.safetensors"
    assert run(convert, path, out).exit_code == 0
    before, after = api.load(path), api.load(out)
    assert after.adapter == "native"
    x, z = torch.rand(8, 1, 32, 32), torch.randn(8, 10)
    assert torch.equal(before.encode(x).mean, after.encode(x).mean)
    assert torch.equal(before.encode(x).std, after.encode(x).std)
    assert torch.equal(before.decode_logits(z), after.decode_logits(z))
    for name in ("metric", "beta", "input_range", "output_range", "dataset"):
        assert getattr(after.facts, name) == getattr(before.facts, name)
    assert after.facts.training["converted_from"] == "betaH_mnist"
    assert after.facts.training["sha256"] == before.sha256


@pytest.mark.shared
def test_conversion_takes_declared_facts(shared, tmp_path):
    path = shared / CHECKPOINTS / "JacobTh98+3dIT/models/vae_beta.keras"
    out = tmp_path / "m.safetensors"
    assert run(convert, path, out, "--metric", "bce").exit_code == 0
    vae = api.load(out)
    assert (vae.facts.metric, vae.facts.beta) == ("bce", 1.05)
    z = torch.randn(2, 8)
    assert torch.equal(vae.decode(z), api.load(path).decode(z))
    with pytest.raises(CheckpointError, match="exists already"):
        run(convert, path, out)


def test_what_is_native_or_code_is_not_converted(tmp_path):
    networks, manifest = linear_networks(torch.eye(3), 0.5, 2)
    path = tmp_path / "l.safetensors"
    write_checkpoint(path, networks.encoder, networks.decoder, manifest)
    with pytest.raises(CheckpointError, match="is native already"):
        describe(api.load(path))
    with pytest.raises(CheckpointError, match="is built by code"):
        describe(linear_vae(torch.eye(3), 0.5, 2))


# --------------------------------------------------------------------------- the doctor


def linear(state, name, n_out, n_in):
    state[f"{name}.weight"], state[f"{name}.bias"] = torch.zeros(n_out, n_in), torch.zeros(n_out)


def test_heads_are_found_by_shape_and_by_name():
    state = {}
    for name, shape in {"a": (8, 12), "b": (3, 8), "c": (3, 8), "d": (8, 3), "e": (12, 8)}.items():
        linear(state, name, *shape)
    split = splits(parts_of(state))[0]
    assert [p.place for p in split.heads] == ["b", "c"]
    assert split.latent_size == 3
    state = {}
    for name, shape in {
        "f1": (5, 5), "f2": (5, 5), "mu": (5, 5), "logvar": (5, 5), "g1": (5, 5), "g2": (5, 5)
    }.items():  # fmt: skip
        linear(state, name, *shape)
    assert [p.place for p in splits(parts_of(state))[0].heads] == ["mu", "logvar"]
    state = {}
    for name, shape in {"a": (8, 12), "b": (6, 8), "c": (8, 3), "d": (12, 8)}.items():
        linear(state, name, *shape)
    assert [p.place for p in splits(parts_of(state))[0].heads] == ["b"]


def test_convolutions_are_fitted_to_the_data():
    state = {}
    conv = torch.zeros
    state["c1.weight"], state["c2.weight"] = conv(4, 1, 3, 3), conv(8, 4, 3, 3)
    state["n.weight"], state["n.bias"] = torch.ones(8), torch.zeros(8)
    state["n.running_mean"], state["n.running_var"] = torch.zeros(8), torch.ones(8)
    linear(state, "mu", 2, 8 * 4 * 4)
    linear(state, "lv", 2, 8 * 4 * 4)
    linear(state, "up", 8 * 4 * 4, 2)
    state["t1.weight"], state["t2.weight"] = conv(8, 4, 4, 4), conv(4, 1, 4, 4)
    (found,) = skeletons(state, (1, 16, 16))
    assert found["encoder"][:3] == [
        {"conv": "c1", "stride": 2, "padding": 1}, "@encoder",
        {"conv": "c2", "stride": 2, "padding": 1},
    ]  # fmt: skip
    assert found["encoder"][3:] == [{"batch_norm": "n"}, "@encoder", "flatten"]
    assert found["decoder"][1:3] == ["@decoder", {"reshape": [8, 4, 4]}]
    with pytest.raises(CheckpointError, match="--resize"):
        skeletons(state, (1, 17, 40))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.weight": torch.zeros(3, 4)}, "no two layers"),
        ({"a.weight_ih_l0": torch.zeros(3, 4)}, "of no kind the doctor knows"),
        ({"a.weight": torch.zeros(1, 1, 1, 1, 1, 1)}, "6 axes"),
    ],
)
def test_what_has_no_head_is_said(state, message):
    with pytest.raises(CheckpointError, match=message):
        skeletons(state, (4,))


def test_toml_reads_back():
    fields = {
        "input_shape": [1, 8], "encoder": [{"conv": "a.b", "stride": 2}, "relu"],
        "head": {"form": "logvar", "mean": 'q"uote'}, "x": 0.25, "y": True, "e": [],
    }  # fmt: skip
    assert tomllib.loads(to_toml(fields)) == fields


@pytest.mark.shared
def test_vae2_is_found_to_be_elu_and_log_variance(shared, tmp_path):
    out = tmp_path / "vae2.toml"
    data = f"{shared / 'data' / 'mnist.npz'}:x_test"
    result = run(doctor, shared / CHECKPOINTS / VAE2, "--data", data, "--samples", 96, "--out", out,
                 "--json")  # fmt: skip
    best = json.loads(result.output)["readings"][0]
    assert (best["layout"], best["form"]) == ("separate", "logvar")
    assert (best["encoder"], best["decoder"], best["output"]) == ("relu", "elu", "sigmoid")
    options = {"declaration": str(out)}
    vae = api.load(shared / CHECKPOINTS / VAE2, adapter="declared", options=options)
    assert vae.latent_size == 20


@pytest.mark.shared
def test_betah_is_found_to_be_interleaved(shared):
    data = f"{shared / 'data' / 'mnist.npz'}:x_test"
    path = shared / CHECKPOINTS / BETAH / "model.pt"
    best = examine(path, data, samples=160, resize=(32, 32))[0]
    assert (best.layout, best.form) == ("interleaved", "logvar")
    assert (best.encoder, best.decoder, best.output) == ("relu", "relu", "sigmoid")
    assert best.beta == pytest.approx(4, rel=0.15)
    fields = tomllib.loads(declaration(best))
    assert parse_declaration(fields, "test").loss.metric == "bce"
    assert read_state(Source(path)).tensors.keys() >= {"encoder.conv1.weight"}
