"""Converted models give the same numbers; the doctor finds how weights must be read."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from isoprobe import api
from isoprobe.checkpoints.native import write_checkpoint
from isoprobe.checkpoints.source import Source
from isoprobe.cli.group import cli
from isoprobe.errors import CheckpointError, IsoprobeError, OptionError, ResultError
from isoprobe.results.reader import Result
from isoprobe.run.scoring import score
from isoprobe_plugins.adapters.weights.state import read_state
from isoprobe_plugins.architectures.linear import linear_networks, linear_vae
from isoprobe_plugins.commands.convert import convert, describe
from isoprobe_plugins.commands.doctor import declaration, examine
from isoprobe_plugins.doctor.beyond import Rows
from isoprobe_plugins.doctor.parts import parts_of
from isoprobe_plugins.doctor.paths import splits
from isoprobe_plugins.doctor.refusals import other_prior, why_no_vae
from isoprobe_plugins.doctor.skeleton import plans_for
from isoprobe_plugins.doctor.toml import to_toml
from isoprobe_plugins.doctor.verdict import rivals_of

CHECKPOINTS = "checkpoints"
BETAH = "YannDubs+disentangling-vae/betaH_mnist"


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


def made(shapes):
    state = {}
    for name, shape in shapes.items():
        linear(state, name, *shape)
    return state


def places(split):
    return (
        [e.first.place for e in split.encoder], [p.place for p in split.heads],
        [e.first.place for e in split.decoder], [p.place for p in split.rest],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ({"a": (8, 12), "b": (3, 8), "c": (3, 8), "d": (8, 3), "e": (12, 8)},
         (["a"], ["b", "c"], ["d", "e"], [])),
        ({"f1": (5, 5), "f2": (5, 5), "mu": (5, 5), "logvar": (5, 5), "g1": (5, 5), "g2": (5, 5)},
         (["f1", "f2"], ["mu", "logvar"], ["g1", "g2"], [])),
        ({"a": (8, 12), "b": (6, 8), "c": (8, 3), "d": (12, 8)}, (["a"], ["b"], ["c", "d"], [])),
        # heads that stand after the decoder, the decoder's first layer last of all
        ({"encoder.0": (8, 12), "decoder.0": (8, 4), "decoder.2": (12, 8), "fc_mu": (3, 8),
          "fc_var": (3, 8), "decoder_input": (4, 3)},
         (["encoder.0"], ["fc_mu", "fc_var"], ["decoder_input", "decoder.0", "decoder.2"], [])),
        # a classifier of the latents leads to no row of the data
        ({"encoder.0": (8, 12), "mu": (3, 8), "logvar": (3, 8), "clf.0": (5, 3), "clf.2": (7, 5),
          "decoder.0": (8, 3), "decoder.2": (12, 8)},
         (["encoder.0"], ["mu", "logvar"], ["decoder.0", "decoder.2"], ["clf.0", "clf.2"])),
    ],
)  # fmt: skip
def test_the_ways_through_a_network_are_found_by_shape_and_name(shapes, found):
    size = 5 if "f1" in shapes else 12
    assert places(splits(parts_of(made(shapes)), [size])[0]) == found


def test_names_and_orientations_that_are_not_torchs_are_told_by_the_biases():
    state = {"W1": torch.zeros(4, 6), "b1": torch.zeros(6), "W2": torch.zeros(6, 6),
             "b2": torch.zeros(6), "enc.kernel": torch.zeros(3, 3, 2, 5),
             "enc.bias": torch.zeros(5)}  # fmt: skip
    parts = {p.place: (p.kind, p.shape, dict(p.told)) for p in parts_of(state)}
    told = {"weight": "W1", "bias_name": "b1", "transposed": True}
    assert parts["W1"] == ("linear", (6, 4), told)
    assert parts["W2"][2]["transposed"]  # square: as the others of the file
    assert parts["enc"][:2] == ("conv", (5, 2, 3, 3))


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
    plan, *_ = plans_for(state, Rows((16, 16)))[0]
    fields = plan.fields(plan.start())
    assert fields["encoder"] == [
        {"conv": "c1", "stride": 2, "padding": 1}, "relu",
        {"conv": "c2", "stride": 2, "padding": 1}, {"batch_norm": "n"}, "relu", "flatten",
    ]  # fmt: skip
    assert fields["decoder"][1:3] == ["relu", {"reshape": [8, 4, 4]}]
    assert fields["input_shape"] == [1, 16, 16]
    assert plans_for(state, Rows((17, 40)))[0] == []


def test_a_norm_of_every_kind_of_geometry_leads_there():
    """28-14-7-4-7-14-28 by kernels of 3, whose output padding the sizes alone tell."""
    state = {}
    for name, shape in {
        "conv1": (4, 1, 3, 3), "conv2": (8, 4, 3, 3), "conv3": (8, 8, 3, 3),
        "deconv1": (8, 8, 3, 3), "deconv2": (8, 4, 3, 3), "deconv3": (4, 1, 3, 3),
    }.items():  # fmt: skip
        state[f"{name}.weight"] = torch.zeros(shape)
    linear(state, "fc_mu", 2, 128)
    linear(state, "fc_logvar", 2, 128)
    linear(state, "fc", 128, 2)
    plan = plans_for(state, Rows((28, 28)))[0][0]
    extra = [
        step.get("output_padding", 0) for step in plan.fields(plan.start())["decoder"]
        if isinstance(step, dict) and "conv_transpose" in step
    ]  # fmt: skip
    assert extra == [0, 1, 1]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (made({"e.0": (8, 12), "e.2": (3, 8), "d.0": (8, 3), "d.2": (12, 8)}),
         "without a posterior"),
        ({**made({"e.0": (8, 12), "e.2": (4, 8), "d.0": (8, 4), "d.2": (12, 8)}),
          "codes.embedding.weight": torch.zeros(16, 4)}, "codes.embedding.weight of 16 x 4"),
        (made({"enc1": (8, 12), "enc1_mu": (4, 8), "enc1_logvar": (4, 8), "enc2": (6, 8),
               "enc2_mu": (2, 6), "enc2_logvar": (2, 6), "dec2": (6, 2), "dec1": (8, 4),
               "dec_out": (12, 8)}), "ladder"),
    ],
)  # fmt: skip
def test_what_is_no_vae_is_told_by_its_shapes(state, reason):
    assert reason in str(why_no_vae(state))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"prior.means": (5, 3), "prior.logvars": (5, 3)}, "mixture of 5"),
        ({"pseudo": (8, 12)}, "VampPrior of 8"),
        ({"p_mu": (3,), "p_logvar": (3,)}, "learnt"),
        ({"f.0.s.0.weight": (6, 3), "f.0.s.2.weight": (3, 6), "f.1.s.0.weight": (6, 3),
          "f.1.s.2.weight": (3, 6)}, "flow"),
        ({"clf.weight": (10, 3)}, None),
    ],
)  # fmt: skip
def test_a_prior_of_another_kind_is_told_by_its_shapes(more, reason):
    shapes = {"e.0": (8, 12), "mu": (3, 8), "logvar": (3, 8), "dec.0": (8, 3), "dec.2": (12, 8)}
    state = {**made(shapes), **{name: torch.zeros(shape) for name, shape in more.items()}}
    found = other_prior(splits(parts_of(state), [12])[0], state)
    assert found is None if reason is None else reason in found


def test_toml_reads_back():
    fields = {
        "input_shape": [1, 8], "encoder": [{"conv": "a.b", "stride": 2}, "relu"],
        "head": {"form": "logvar", "mean": 'q"uote'}, "x": 0.25, "y": True, "e": [],
    }  # fmt: skip
    assert tomllib.loads(to_toml(fields)) == fields


FILES = Path(__file__).parents[1] / "gallery" / "layouts" / "files"


@pytest.mark.parametrize(
    ("file", "data", "choices"),
    [
        ("interleaved.pt", "digits.npy", {"layout": "interleaved", "output": "sigmoid"}),
        ("log_std.pt", "table.csv", {"form": "logstd", "encoder": "relu"}),
        ("no_decoder_activation.pt", "table.csv", {"first": None, "decoder": "silu"}),
    ],
)
def test_the_doctor_finds_how_networks_were_trained(file, data, choices, tmp_path):
    verdict = examine(FILES / file, str(FILES / data))
    assert not verdict.doubt
    assert {name: getattr(verdict.chosen.choices, name) for name in choices} == choices
    out = tmp_path / "found.toml"
    out.write_text(declaration(verdict))
    vae = api.load(FILES / file, adapter="declared", options={"declaration": str(out)})
    assert vae.latent_size == verdict.chosen.plan.latent_size


def test_a_doubtful_reading_is_marked_in_what_is_written(tmp_path):
    torch.manual_seed(0)
    shapes = {"encoder.0": (24, 12), "mu": (4, 24), "logvar": (4, 24), "decoder.0": (24, 4),
              "decoder.2": (12, 24)}  # fmt: skip
    state = {name: torch.randn_like(tensor) / 4 for name, tensor in made(shapes).items()}
    torch.save(state, tmp_path / "untrained.pt")
    verdict = examine(tmp_path / "untrained.pt", str(FILES / "table.csv"))
    assert "NOT borne out" in declaration(verdict)
    with pytest.raises(CheckpointError, match="is this the data it was trained on"):
        api.analyze(tmp_path / "untrained.pt", str(FILES / "table.csv"))
    (tmp_path / "untrained.toml").write_text(declaration(verdict))
    with pytest.raises(CheckpointError, match="draft that data did not bear out.*'doubtful' out"):
        api.load(tmp_path / "untrained.pt")


@pytest.mark.shared
def test_betah_is_found_to_be_interleaved(shared):
    data = f"{shared / 'data' / 'mnist.npz'}:x_test"
    path = shared / CHECKPOINTS / BETAH / "model.pt"
    best = examine(path, data, samples=160, resize=(32, 32), metric="bce").chosen
    assert (best.choices.layout, best.choices.form) == ("interleaved", "logvar")
    assert (best.choices.encoder, best.choices.decoder) == ("relu", "relu")
    # by the scale's stationarity; the loss was 4 KL beside a distortion of BCE
    assert best.tried.beta == pytest.approx(4, rel=0.15)
    assert read_state(Source(path)).tensors.keys() >= {"encoder.conv1.weight"}


# --------------------------------------------------------------------------- one reading


TABLE = str(FILES / "table.csv")


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    out = tmp_path_factory.mktemp("reading") / "r.h5"
    analyses = ["anomaly", "coordinates"]
    api.analyze(FILES / "log_std.pt", TABLE, out=out, metric="sse", beta=1, analyses=analyses)
    return out


def test_rows_of_another_kind_are_scored_by_the_reading_of_the_result(analysed, tmp_path):
    """Noise tells no reading, and is refused where one has to be found."""
    noise = np.random.default_rng(0).normal(size=(40, 12)) * 9
    with pytest.raises(CheckpointError, match="isoprobe doctor"):
        api.analyze(FILES / "log_std.pt", noise, metric="sse", beta=1)
    scores = score(FILES / "log_std.pt", noise, analysed)
    with Result.open(analysed) as result:
        told = json.loads(result.attrs["reading"])
    assert told["declaration"]["head"]["form"] == "logstd"
    (tmp_path / "same.toml").write_text(to_toml(told["declaration"]))
    options = {"declaration": str(tmp_path / "same.toml")}
    vae = api.load(FILES / "log_std.pt", adapter="declared", options=options)
    q = vae.encode(torch.as_tensor(noise, dtype=vae.dtype))
    expected = (0.5 * (q.mean**2 + q.std**2 - 1) - q.std.log()).sum(1)
    assert np.allclose(scores["rate"], expected.detach(), rtol=1e-4)


def test_another_reading_of_the_same_file_is_refused(analysed):
    for options in ({"head": "logvar"}, {"encoder": "tanh"}):
        with pytest.raises(IsoprobeError, match="in two ways|isoprobe doctor"):
            score(FILES / "log_std.pt", TABLE, analysed, options=options)
    with Result.open(analysed) as result:
        told = json.loads(result.attrs["reading"])
    told["declaration"]["head"]["form"] = "logvar"
    other = {"reading": json.dumps(told, sort_keys=True)}
    with pytest.raises(ResultError, match="in two ways"):
        score(FILES / "log_std.pt", TABLE, analysed, options=other)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", "[" * 10000, '{"weights": 3}'])
def test_what_is_no_record_of_a_reading_is_refused(text):
    with pytest.raises(OptionError, match="attribute 'reading' of a result"):
        api.load(FILES / "log_std.pt", options={"reading": text})


def test_a_reading_that_others_rival_is_refused_with_the_command():
    """The scale of so few rows is told by nothing: exp(h) or exp(h / 2)."""
    verdict = examine(FILES / "log_std.pt", TABLE)
    chosen = verdict.chosen
    rival = replace(chosen, tried=replace(chosen.tried, kl=2 * chosen.tried.kl),
                    choices=replace(chosen.choices, form="logvar"))  # fmt: skip
    assert "not told apart from form logvar" in rivals_of(chosen, [rival])
    same = replace(rival, tried=chosen.tried)
    assert rivals_of(chosen, [same]) == ""
    few = np.loadtxt(FILES / "table.csv", delimiter=",", skiprows=1)[:20, :12]
    with pytest.raises(CheckpointError, match=r"isoprobe analyze .* --data SPEC .*--option head="):
        api.analyze(FILES / "log_std.pt", few, metric="sse", beta=1)
