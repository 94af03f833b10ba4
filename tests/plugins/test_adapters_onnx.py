"""ONNX pairs give the model's own numbers and derivatives; files outside are not read."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")

from isoprobe import api  # noqa: E402
from isoprobe.checkpoints.source import FileKind, Source  # noqa: E402
from isoprobe.errors import CheckpointError, IsoprobeError, OptionError  # noqa: E402
from isoprobe.probe.quantities import Probe, ProbeOptions  # noqa: E402
from isoprobe.registry.looking import look  # noqa: E402
from isoprobe.registry.lookup import installed  # noqa: E402
from isoprobe_plugins.adapters.onnx.adapter import Onnx  # noqa: E402
from isoprobe_plugins.adapters.onnx.operators import OPERATORS  # noqa: E402
from tests.plugins.convolved import Decoder, Encoder  # noqa: E402


def made_decoder() -> Decoder:
    return Decoder(nn.Sequential(nn.LayerNorm(64), nn.SiLU()))


class Mean(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        return self.encoder(x)[0]


def export(module, example, path, external=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        torch.onnx.export(
            module.eval(), (example,), path, dynamo=True, external_data=external, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        )  # fmt: skip


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return Encoder(nn.ELU()).eval(), made_decoder().eval()


@pytest.fixture(scope="module", params=[False, True], ids=["inside", "external"])
def saved(request, models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export(models[0], torch.rand(2, 1, 8, 8), folder / "encoder.onnx", request.param)
    export(models[1], torch.randn(2, 3), folder / "decoder.onnx", request.param)
    return folder


def test_the_pair_gives_the_model_s_own_numbers(saved, models):
    encoder, decoder = models
    for path, options in (
        (saved, {}),
        (saved / "encoder.onnx", {"decoder": str(saved / "decoder.onnx")}),
    ):
        source = Source(path)
        adapter = installed().adapter_for(source)
        assert adapter.name == "onnx"
        vae = adapter.load(source, {**options, "head": "logstd"})
        assert (vae.input_shape, vae.latent_shape) == ((1, 8, 8), (3,))
        x, z = torch.rand(5, 1, 8, 8), torch.randn(5, 3)
        with torch.no_grad():
            mean, raw = encoder(x)
            x_hat = decoder(z)
        assert torch.allclose(vae.encode(x).mean, mean, atol=1e-5)
        assert torch.allclose(vae.encode(x).std, raw.exp(), rtol=1e-4)
        assert torch.allclose(vae.decode(z), x_hat, atol=1e-5)


def test_its_derivatives_are_exact(saved, models):
    vae = Onnx().load(Source(saved), {}).to("cpu", torch.float64)
    x = torch.rand(3, 1, 8, 8).double()
    needs = {"mean", "pullback", "stationarity"}
    batch = Probe(vae, installed().metric("sse"), needs, ProbeOptions())(np.arange(3), x)
    decoder = made_decoder().eval()
    decoder.load_state_dict(models[1].state_dict())
    decoder.double()
    for at, pullback in zip(batch["mean"], batch["pullback"], strict=True):
        jacobian = torch.func.jacrev(lambda z: decoder(z[None])[0].flatten())(at)
        assert torch.allclose(pullback, (jacobian**2).sum(0), rtol=1e-6)
    assert torch.isfinite(batch["stationarity"]).all()


def test_a_mean_only_encoder_leaves_the_decoder(saved, models, tmp_path):
    path = tmp_path / "mean.onnx"
    export(Mean(models[0]), torch.rand(2, 1, 8, 8), path)
    vae = Onnx().load(Source(path), {"decoder": str(saved / "decoder.onnx")})
    assert vae.encode is None
    assert "no deviation" in vae.facts.assumptions[0]
    with pytest.raises(CheckpointError, match="rates, norms, beta, .* need its posterior"):
        Probe(vae, installed().metric("sse"), {"kl"})


def test_one_file_asks_for_the_other(saved, tmp_path):
    alone = shutil.copytree(saved, tmp_path / "alone")
    (alone / "decoder.onnx").rename(alone / "half.onnx")
    with pytest.raises(CheckpointError, match="'decoder': 'FILE'"):
        Onnx().load(Source(alone / "encoder.onnx"), {})
    for name, options in (("half.onnx", {"decoder": "self"}), ("decoder.onnx", {})):
        folder = alone if options else saved
        assert Onnx().load(Source(folder / name), options).encode is None
    assert Onnx().load(Source(saved / "encoder.onnx"), {}).encode is not None


def test_files_of_a_folder_are_told_by_what_their_names_hold(saved, tmp_path):
    for part in ("encoder", "decoder"):
        for path in saved.glob(f"{part}*"):
            shutil.copy(path, tmp_path / path.name)
        (tmp_path / f"{part}.onnx").rename(tmp_path / f"my_{part}_v2.onnx")
    assert Onnx().matches(Source(tmp_path))
    assert Onnx().load(Source(tmp_path), {}).encode is not None


def whole(path, *, drawn):
    """Write a whole VAE of one graph: x -> mu, logvar -> z -> recon."""
    helper = onnx.helper
    rng = np.random.default_rng(0)
    weights = {"m": (2, 6), "s": (2, 6), "w": (6, 2), "half": ()}
    arrays = {n: rng.normal(size=s).astype("f4") for n, s in weights.items()}
    arrays["half"] = np.float32(0.5)
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "m"], ["mu"], transB=1),
        node("Gemm", ["x", "s"], ["logvar"], transB=1),
    ]
    if drawn:
        nodes += [
            node("Mul", ["logvar", "half"], ["h"]), node("Exp", ["h"], ["std"]),
            node("RandomNormalLike", ["std"], ["eps"]), node("Mul", ["eps", "std"], ["shift"]),
            node("Add", ["mu", "shift"], ["z"]),
        ]  # fmt: skip
    nodes.append(node("Gemm", ["z" if drawn else "mu", "w"], ["recon"], transB=1))
    value = helper.make_tensor_value_info
    outputs = [value("recon", 1, ["b", 6]), value("mu", 1, ["b", 2]), value("logvar", 1, ["b", 2])]
    kept = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["b", 6])], outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return arrays


@pytest.mark.parametrize("drawn", [False, True], ids=["mean", "sampled"])
def test_a_whole_vae_in_one_graph_is_cut_at_the_latent(tmp_path, drawn):
    arrays = whole(tmp_path / "vae.onnx", drawn=drawn)
    vae = Onnx().load(Source(tmp_path / "vae.onnx"), {})
    x = torch.linspace(-1, 1, 12).reshape(2, 6)
    found = vae.encode(x)
    torch.testing.assert_close(found.mean, x @ torch.from_numpy(arrays["m"]).T)
    logvar = x @ torch.from_numpy(arrays["s"]).T
    torch.testing.assert_close(found.std, (0.5 * logvar).exp())
    z = torch.ones(1, 2)
    torch.testing.assert_close(vae.decode(z), z @ torch.from_numpy(arrays["w"]).T)
    assert f"cut at '{'z' if drawn else 'mu'}'" in vae.facts.assumptions[0]


def told(path, kind, *, noise=False, pair=False):
    """Write a VAE that is told a class or a number of each row: one graph, or two of a pair."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    width = {"one_hot": 4, "number": 1, "index": 3, "column": 3}[kind]
    shapes = {"m": (2, 6 + width), "s": (2, 6 + width), "w": (6, 2 + width), "half": ()}
    arrays = {n: rng.normal(size=s).astype("f4") for n, s in shapes.items()}
    arrays["half"], arrays["table"] = np.float32(0.5), rng.normal(size=(5, 3)).astype("f4")
    node, value = helper.make_node, helper.make_tensor_value_info
    if kind == "column":
        arrays["one"] = np.array([1])
    looked_up = {
        "index": [node("Gather", ["table", "c"], ["code"])],
        "column": [node("Squeeze", ["c", "one"], ["flat"]),
                   node("Gather", ["table", "flat"], ["code"])],
    }.get(kind, [node("Identity", ["c"], ["code"])])  # fmt: skip
    encoder = [
        node("Concat", ["x", "code"], ["both"], axis=1),
        node("Gemm", ["both", "m"], ["mu"], transB=1),
        node("Gemm", ["both", "s"], ["logvar"], transB=1),
    ]
    draw = [
        node("Mul", ["logvar", "half"], ["h"]), node("Exp", ["h"], ["std"]),
        node("Mul", ["eps", "std"], ["shift"]), node("Add", ["mu", "shift"], ["z"]),
    ]  # fmt: skip
    latent = "z" if noise or pair else "mu"
    decoder = [
        node("Concat", [latent, "code"], ["again"], axis=1),
        node("Gemm", ["again", "w"], ["recon"], transB=1),
    ]
    numbers = kind in {"index", "column"}
    c = value(
        "c", 7 if numbers else 1, {"index": ["b"], "column": ["b", 1]}.get(kind, ["b", width])
    )
    x, eps, z = (value(n, 1, ["b", k]) for n, k in (("x", 6), ("eps", 2), ("z", 2)))
    recon, mu, logvar = (value(n, 1, ["b", k]) for n, k in (("recon", 6), ("mu", 2), ("logvar", 2)))

    def write(name, nodes, inputs, outputs):
        used = {n for each in nodes for n in each.input}
        kept = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()
                if n in used]  # fmt: skip
        graph = helper.make_graph(nodes, "g", inputs, outputs, kept)
        opset = [helper.make_opsetid("", 21)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), name)

    more = [eps] if noise else []
    if pair:
        drawn = draw if noise else []
        ends = [mu, logvar, *([z] if noise else [])]
        write(path / "encoder.onnx", [*looked_up, *encoder, *drawn], [x, c, *more], ends)
        write(path / "decoder.onnx", [*looked_up, *decoder], [z, c], [recon])
    else:
        nodes = [*looked_up, *encoder, *(draw if noise else []), *decoder]
        write(path / "vae.onnx", nodes, [x, c, *more], [recon, mu, logvar])
    return {name: torch.from_numpy(np.asarray(a)) for name, a in arrays.items()}


@pytest.mark.parametrize("pair", [False, True], ids=["whole", "pair"])
@pytest.mark.parametrize("noise", [False, True], ids=["mean", "noise"])
@pytest.mark.parametrize("kind", ["one_hot", "number", "index", "column"])
def test_a_second_input_is_a_condition_and_noise_is_left_out(tmp_path, kind, noise, pair):
    arrays = told(tmp_path, kind, noise=noise, pair=pair)
    vae = Onnx().load(Source(tmp_path if pair else tmp_path / "vae.onnx"), {})
    count = {"one_hot": 4, "number": 0}.get(kind, 5)
    assert vae.conditional is not None
    assert (vae.conditional.classes, vae.conditional.words) == ((count,), "input 'c'")
    x, z = torch.linspace(-1, 1, 18).reshape(3, 6), torch.linspace(-2, 2, 6).reshape(3, 2)
    c = torch.tensor([[0.0], [3.0], [2.0]])
    code = {
        "one_hot": torch.eye(4)[c[:, 0].long()], "number": c,
    }.get(kind, arrays["table"][c[:, 0].long()])  # fmt: skip
    bound, both = vae.on(x, c), torch.cat([x, code], 1)
    found = bound.encode(x)
    torch.testing.assert_close(found.mean, both @ arrays["m"].T)
    torch.testing.assert_close(found.std, (0.5 * both @ arrays["s"].T).exp())
    right = torch.cat([z, code], 1) @ arrays["w"].T
    torch.testing.assert_close(bound.decode(z), right)
    torch.testing.assert_close(vae.held(c[1]).decode(z[1:2]), right[1:2])
    assert noise == any("input 'eps' left out" in note for note in vae.facts.assumptions)
    read_as = [note for note in vae.facts.assumptions if "one-hot" in note]
    said = ["input 'c' of 4 numbers is read as a one-hot code"]
    assert read_as == (said if kind == "one_hot" else [])
    if kind != "number":
        with pytest.raises(IsoprobeError, match="a class 0 to"):
            vae.conditional.checked(torch.tensor([[9.0]]))


@pytest.mark.parametrize("encoded", [False, True], ids=["decoder alone", "encoder too"])
@pytest.mark.parametrize("wide", [2, 1])
@pytest.mark.parametrize("way", ["scaled", "plain", "minus", "layer", "beside"])
def test_noise_of_one_scale_is_no_condition(tmp_path, way, wide, encoded):
    """z = mu + 0.1 eps: an input of the latent's shape that is but scaled and added to it."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    node, value = helper.make_node, helper.make_tensor_value_info
    told_in = 6 + wide if encoded else 6
    shapes = {"m": (2, told_in), "s": (2, told_in), "l": (2, wide)}
    shapes["w"] = (6, 2 + wide if way == "beside" else 2)
    arrays = {n: rng.normal(size=s).astype("f4") for n, s in shapes.items()}
    arrays["tenth"] = np.float32(0.1)
    into = "both" if encoded else "x"
    nodes = [node("Concat", ["x", "eps"], ["both"], axis=1)] if encoded else []
    nodes += [
        node("Gemm", [into, "m"], ["mu"], transB=1), node("Gemm", [into, "s"], ["logvar"], transB=1)
    ]  # fmt: skip
    nodes += {
        "scaled": [node("Mul", ["eps", "tenth"], ["shift"]), node("Add", ["mu", "shift"], ["z"])],
        "plain": [node("Add", ["mu", "eps"], ["z"])],
        "minus": [node("Div", ["eps", "tenth"], ["shift"]), node("Sub", ["mu", "shift"], ["z"])],
        "layer": [node("Gemm", ["eps", "l"], ["a"], transB=1), node("Add", ["mu", "a"], ["z"])],
        "beside": [node("Concat", ["mu", "eps"], ["z"], axis=1)],
    }[way]
    nodes.append(node("Gemm", ["z", "w"], ["recon"], transB=1))
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, ["b", 6]), value("eps", 1, ["b", wide])],
        [value(n, 1, ["b", k]) for n, k in (("recon", 6), ("mu", 2), ("logvar", 2))],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items() if n in used],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 21)]
    path = tmp_path / "vae.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    vae = Onnx().load(Source(path), {})
    noise = way not in {"layer", "beside"} and wide == 2 and not encoded
    left_out = any("input 'eps' left out" in note for note in vae.facts.assumptions)
    assert (left_out, vae.conditional is None) == (noise, noise)
    if noise:
        z = torch.linspace(-2, 2, 6).reshape(3, 2)
        torch.testing.assert_close(vae.decode(z), z @ torch.from_numpy(arrays["w"]).T)
        with pytest.raises(OptionError, match="'mu' does not part"):
            Onnx().load(Source(path), {"latent": "mu"})


def test_a_condition_goes_through_an_analysis(tmp_path):
    told(tmp_path, "one_hot", noise=True)
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(64, 6)).astype("f4"), y=np.arange(64) % 4)
    found = api.analyze(tmp_path / "vae.onnx", f"{tmp_path}/rows.npz:x,y", metric="sse", beta=1.0)
    assert found.attrs["samples"] == 64
    with pytest.raises(IsoprobeError, match="has no labels"):
        api.analyze(tmp_path / "vae.onnx", rng.normal(size=(64, 6)), metric="sse", beta=1.0)


@pytest.mark.parametrize("change", ["encoder alone", "no table"])
def test_a_condition_that_cannot_be_told_is_refused(tmp_path, change):
    told(tmp_path, "index", pair=True)
    if change == "encoder alone":
        export(nn.Linear(2, 6), torch.randn(2, 2), tmp_path / "decoder.onnx")
        words = "the decoder z alone"
    else:
        for name in ("encoder", "decoder"):
            model = onnx.load(tmp_path / f"{name}.onnx")
            (gather,) = [n for n in model.graph.node if n.op_type == "Gather"]
            gather.op_type = "Mul"
            onnx.save(model, tmp_path / f"{name}.onnx")
        words = "no class of an embedding, one-hot code or number|damaged|fails"
    with pytest.raises(IsoprobeError, match=words) as caught:
        Onnx().load(Source(tmp_path), {})
    assert "\n" not in str(caught.value)


def test_a_cut_is_told_by_the_names_of_tensors(tmp_path):
    whole(tmp_path / "vae.onnx", drawn=True)
    source = Source(tmp_path / "vae.onnx")
    named = {"mean": "mu", "scale": "logvar", "latent": "z", "recon": "recon"}
    assert Onnx().load(source, named).latent_shape == (2,)
    with pytest.raises(OptionError, match="has no tensor 'zz'"):
        Onnx().load(source, {"latent": "zz"})
    with pytest.raises(OptionError, match="does not part"):
        Onnx().load(source, {"latent": "eps"})


def test_a_decoder_of_bytes_is_named_as_such(tmp_path):
    helper = onnx.helper
    nodes = [
        helper.make_node("Mul", ["z", "z"], ["grey"]),
        helper.make_node("Cast", ["grey"], ["image"], to=2),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("z", 1, [1, 2])], [value("image", 2, [1, 2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "decoder.onnx")
    with pytest.raises(CheckpointError, match="'image' as uint8.*'grey' before it"):
        Onnx().load(Source(tmp_path / "decoder.onnx"), {})


def test_inspect_shows_what_goes_in_and_comes_out(tmp_path):
    whole(tmp_path / "vae.onnx", drawn=False)
    facts = look(tmp_path / "vae.onnx")
    assert facts["declared"]["inputs"] == ["x: b x 6"]
    assert facts["declared"]["outputs"] == ["recon: b x 6", "mu: b x 2", "logvar: b x 2"]
    assert facts["tensors"]["w"] == [6, 2]


def one_node(op, inputs, attributes, path, domain=""):
    """Write a graph of one operator; inputs after the first are initialisers."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    names = [f"i{k}" for k in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], domain=domain, **attributes)
    x = helper.make_tensor_value_info("i0", 1, [None, *inputs[0].shape[1:]])
    y = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([node], "g", [x], [y], [
        numpy_helper.from_array(a, n) for a, n in zip(inputs[1:], names[1:], strict=True)
    ])  # fmt: skip
    opsets = [helper.make_opsetid("", 21)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


RNG = np.random.default_rng(0)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


CASES = [
    ("Gemm", [f(2, 3), f(4, 3), f(4)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("MatMul", [f(2, 3), f(3, 4)], {}),
    ("Conv", [f(2, 2, 6, 6), f(3, 2, 3, 3), f(3)], {"strides": [2, 1], "pads": [1, 0, 1, 0]}),
    ("Conv", [f(2, 4, 7), f(4, 2, 3)], {"group": 2, "dilations": [2]}),
    ("ConvTranspose", [f(2, 2, 4, 4), f(2, 3, 3, 3)],
     {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("BatchNormalization", [f(2, 3, 4), f(3), f(3), f(3), np.abs(f(3))], {"epsilon": 1e-3}),
    ("InstanceNormalization", [f(2, 3, 4), f(3), f(3)], {}),
    ("GroupNormalization", [f(2, 4, 4), f(4), f(4)], {"num_groups": 2}),
    ("LayerNormalization", [f(2, 3, 4), f(4), f(4)], {}),
    ("LeakyRelu", [f(2, 3)], {"alpha": 0.2}),
    ("Elu", [f(2, 3)], {"alpha": 0.7}),
    ("PRelu", [f(2, 3), f(3)], {}),
    ("HardSigmoid", [3 * f(2, 3)], {"alpha": 0.3}),
    ("Gelu", [f(2, 3)], {}),
    ("Selu", [f(2, 3)], {}),
    ("Softplus", [f(2, 3)], {}),
    ("Softmax", [f(2, 3)], {}),
    ("Erf", [f(2, 3)], {}),
    ("Clip", [f(2, 3), np.float32(-0.2), np.float32(0.3)], {}),
    ("Transpose", [f(2, 3, 4)], {"perm": [0, 2, 1]}),
    ("Reshape", [f(2, 6), ints(0, 3, -1)], {}),
    ("Flatten", [f(2, 3, 4)], {}),
    ("Slice", [f(2, 6), ints(1), ints(-1), ints(1), ints(2)], {}),
    ("Gather", [f(2, 6), ints(-1, 0, 2)], {"axis": 1}),
    ("Unsqueeze", [f(2, 3), ints(1, -1)], {}),
    ("Squeeze", [f(2, 1, 3), ints(1)], {}),
    ("Expand", [f(2, 1), ints(2, 4)], {}),
    ("ReduceMean", [f(2, 3, 4), ints(1)], {"keepdims": 0}),
    ("ReduceSum", [f(2, 3, 4), ints(1, 2)], {}),
    ("MaxPool", [f(2, 2, 6, 6)], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", [f(2, 2, 6, 6)], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("GlobalAveragePool", [f(2, 2, 6, 6)], {}),
    ("Pow", [np.abs(f(2, 3)), np.float32(1.5)], {}),
    ("Div", [f(2, 3), f(3)], {}),
    ("Sub", [f(2, 3), f(3)], {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES)
def test_every_operator_equals_onnx_s_reference(tmp_path, op, inputs, attributes):
    from onnx.reference import ReferenceEvaluator

    from isoprobe_plugins.adapters.onnx.reading import read_onnx

    path = tmp_path / "op.onnx"
    one_node(op, inputs, attributes, path)
    want = ReferenceEvaluator(str(path)).run(None, {"i0": inputs[0]})[0]
    got = read_onnx(Source(path))(torch.from_numpy(inputs[0]))
    assert np.allclose(got.numpy(), want, atol=1e-5)
    assert got.shape == want.shape
    assert op in OPERATORS


def test_an_unknown_operator_is_named(tmp_path):
    path = tmp_path / "m.onnx"
    one_node("LSTMish", [f(2, 3)], {}, path, domain="custom")
    assert Source(path).kind is FileKind.ONNX
    with pytest.raises(CheckpointError, match="operator custom.LSTMish"):
        Onnx().load(Source(path), {"decoder": "self", "latent_shape": "3"})


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link", "absent", ""])
def test_external_weights_stay_in_the_folder(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(64))
    (folder / "link").symlink_to(tmp_path / "secret")
    one_node("MatMul", [f(2, 3), f(3, 4)], {}, folder / "m.onnx")
    model = onnx.load(folder / "m.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="not a file name|beside it|no such file"):
        Onnx().load(Source(folder / "m.onnx"), {"decoder": "self"})


def sines(folder):
    """Write sin(z A) B, whose Sin has no translation, as a decoder; return it as a function."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    hidden, out = f(3, 5), f(5, 4)
    nodes = [
        helper.make_node("MatMul", ["z", "a"], ["h"]),
        helper.make_node("Sin", ["h"], ["s"]),
        helper.make_node("MatMul", ["s", "b"], ["y"]),
    ]
    z, y = (helper.make_tensor_value_info(name, 1, [None, n]) for name, n in (("z", 3), ("y", 4)))
    weights = [numpy_helper.from_array(hidden, "a"), numpy_helper.from_array(out, "b")]
    graph = helper.make_graph(nodes, "g", [z], [y], weights)
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "decoder.onnx")
    return lambda z: torch.sin(z @ torch.from_numpy(hidden).to(z)) @ torch.from_numpy(out).to(z)


def test_what_has_no_translation_runs_as_a_black_box(tmp_path):
    pytest.importorskip("onnxruntime")
    decode = sines(tmp_path)
    vae = Onnx().load(Source(tmp_path / "decoder.onnx"), {"decoder": "self"})
    assert "operator Sin has no translation: run by onnxruntime" in vae.facts.assumptions[0]
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(vae.decode(z), decode(z), atol=1e-5)
    # its derivatives, forward and reverse, against the dense Jacobian in double precision
    wanted = torch.func.vmap(torch.func.jacrev(lambda row: decode(row[None])[0]))(z.double())
    whole = encoder_of_ones(vae)
    probe = Probe(whole, installed().metric("sse"), {"mean", "gram", "stationarity"},
                  ProbeOptions(pairs=1))  # fmt: skip
    batch, dense = probe(np.arange(6), z), wanted[:, :3]  # as many outputs as latents
    assert torch.allclose(batch["gram"].double(), dense.mT @ dense, rtol=1e-3, atol=1e-3)
    leaf = z.clone().requires_grad_()
    (pulled,) = torch.autograd.grad(vae.decode(leaf).sum(), leaf)
    assert torch.allclose(pulled.double(), wanted.sum(1), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(batch["stationarity"]).all()


def encoder_of_ones(vae):
    """The model with an encoder that hands its latents through."""
    from dataclasses import replace

    from isoprobe.contracts import Posterior

    return replace(vae, input_shape=(3,), encode=lambda x: Posterior(x, torch.ones_like(x)),
                   decode=lambda z: vae.decode(z)[:, :3])  # fmt: skip


@pytest.mark.parametrize("change", ["loop", "outside", "huge"])
def test_a_black_box_is_checked_before_it_runs(tmp_path, change):
    pytest.importorskip("onnxruntime")
    sines(tmp_path)
    path = tmp_path / "decoder.onnx"
    model = onnx.load(path)
    if change == "loop":
        attribute = model.graph.node[1].attribute.add()
        attribute.name, attribute.type = "body", onnx.AttributeProto.GRAPH
        attribute.g.name = "endless"
    elif change == "outside":
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../secret"
    else:
        shape = onnx.numpy_helper.from_array(ints(1 << 20, 1 << 20), "big")
        model.graph.initializer.append(shape)
        model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["big"], ["zeros"]))
        model.graph.node.append(onnx.helper.make_node("Sin", ["zeros"], ["t"]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError) as caught:
        Onnx().load(Source(path), {"decoder": "self"})
    assert "\n" not in str(caught.value)


def test_forged_and_truncated_graphs_are_one_line(saved, tmp_path):
    path = tmp_path / "m.onnx"
    data = (saved / "decoder.onnx").read_bytes()
    for percent in range(0, 100, 5):
        path.write_bytes(data[: len(data) * percent // 100])
        with pytest.raises(IsoprobeError) as caught:
            Onnx().load(Source(path), {"decoder": "self", "latent_shape": "3"})
        assert "\n" not in str(caught.value)
    one_node("ConstantOfShape", [ints(1 << 20, 1 << 20)], {}, path)
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(ints(1 << 20, 1 << 20), "big"))
    model.graph.node[0].input[0] = "big"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(IsoprobeError, match="out of all proportion"):
        Onnx().load(Source(path), {"decoder": "self", "latent_shape": "3"})
