"""Weights that do not describe themselves, read by declaration, by preset, or refused by name."""

from __future__ import annotations

import os
import pathlib
import sys
import tomllib

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import special
from torch import nn

from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.errors import CheckpointError, IsoprobeError, OptionError, PluginError
from isoprobe.registry.lookup import installed
from isoprobe_plugins.adapters.declared.adapter import Declared, load_declared
from isoprobe_plugins.adapters.declared.cards import FOLDER, preset, presets
from isoprobe_plugins.adapters.declared.declaration import parse_declaration, read_declaration
from isoprobe_plugins.adapters.declared.unsupported import Unsupported
from isoprobe_plugins.adapters.scvi.saved import read_saved
from isoprobe_plugins.adapters.weights.state import read_state


class Model(nn.Module):
    """A small convolutional VAE, written the way people write them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.e1 = nn.Conv2d(1, 4, 4, 2, 1)
        self.bn = nn.BatchNorm2d(4)
        self.mu = nn.Linear(64, 3)
        self.ls = nn.Linear(64, 3)
        self.d1 = nn.Linear(3, 64)
        self.norm = nn.LayerNorm(64)
        self.d2 = nn.ConvTranspose2d(4, 1, 4, 2, 1)
        with torch.no_grad():
            self.bn.running_mean.normal_()
            self.bn.running_var.uniform_(0.5, 2)

    def encode(self, x):
        h = nn.functional.leaky_relu(self.bn(self.e1(x)), 0.2).flatten(1)
        return self.mu(h), self.ls(h).exp()

    def decode(self, z):
        return self.d2(nn.functional.elu(self.norm(self.d1(z))).view(-1, 4, 4, 4)).sigmoid()


TOML = """
input_shape = [1, 8, 8]
input_range = [0, 1]
encoder = [{ conv = "e1", stride = 2, padding = 1 }, { batch_norm = "bn" },
           { leaky_relu = 0.2 }, "flatten"]
decoder = [{ linear = "d1" }, { layer_norm = "norm" }, "elu", { reshape = [4, 4, 4] },
           { conv_transpose = "d2", stride = 2, padding = 1 }]
output = "sigmoid"
dataset = "digits.npz:x"
condition = "label 3"
[head]
mean = "mu"
scale = "ls"
form = "logstd"
[loss]
metric = "sse"
reduction = "mean"
factor = 0.5
beta = 0.01
kl_reduction = "mean"
"""


@pytest.fixture
def model():
    return Model().eval()


def lightning(state):
    return {
        "pytorch-lightning_version": "2.4.0",
        "epoch": 3,
        "state_dict": {f"model.{k}": v for k, v in state.items()},
        "hyper_parameters": {"lr": 0.1},
    }


WAYS = {
    "zip": torch.save,
    "legacy": lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.torch.save_file,
    "wrapped": lambda s, p: torch.save({"epoch": 3, "model_state_dict": s, "loss": 0.2}, p),
    "parallel": lambda s, p: torch.save({f"module.{k}": v for k, v in s.items()}, p),
    "compiled": lambda s, p: torch.save(
        {"state_dict": {f"_orig_mod.module.{k}": v for k, v in s.items()}}, p
    ),
    "lightning": lambda s, p: torch.save(lightning(s), p),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_one_model_gives_equal_numbers_through_every_file(tmp_path, model, way):
    path = tmp_path / "vae.ckpt"
    WAYS[way](model.state_dict(), path)
    (tmp_path / "vae.toml").write_text(TOML)
    source = Source(path)
    adapter = installed().adapter_for(source)
    assert adapter.name == "declared"
    vae = adapter.load(source, {})
    x, z = torch.rand(5, 1, 8, 8), torch.randn(5, 3)
    mean, std = model.encode(x)
    assert torch.allclose(vae.encode(x).mean, mean, atol=1e-6)
    assert torch.allclose(vae.encode(x).std, std, atol=1e-6)
    assert torch.allclose(vae.decode(z), model.decode(z), atol=1e-6)
    assert torch.equal(vae.decode_logits(z).sigmoid(), vae.decode(z))


@pytest.mark.filterwarnings("ignore")  # of what Lightning imports and says
def test_a_checkpoint_written_by_lightning_itself(tmp_path, model):
    lightning = pytest.importorskip("lightning.pytorch")

    class Training(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    path = tmp_path / "last.ckpt"
    trainer = lightning.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    trainer.strategy.connect(Training())
    trainer.save_checkpoint(path, weights_only=True)
    (tmp_path / "last.toml").write_text(TOML)
    source = Source(path)
    assert source.kind is FileKind.LIGHTNING
    vae = installed().adapter_for(source).load(source, {})
    z = torch.randn(5, 3)
    assert torch.allclose(vae.decode(z), model.decode(z), atol=1e-6)


def test_a_whole_module_is_read_without_its_class(tmp_path, model):
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.tar"
        torch.save(model, path, _use_new_zipfile_serialization=not legacy)
        state = read_state(Source(path))
        assert set(state.tensors) == set(model.state_dict())
        for name, tensor in model.state_dict().items():
            assert torch.equal(state.tensors[name], tensor)
        assert "were not built" in state.notes[0]
        assert state.classes["e1"] == "torch.nn.modules.conv.Conv2d"


class Payload(nn.Module):
    """A module whose pickle also asks for a shell."""

    canary = ""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.extra = Shell()


class Shell:
    def __reduce__(self):
        return (os.system, (f"touch {Payload.canary}",))


def test_reading_a_module_runs_nothing(tmp_path):
    Payload.canary = str(tmp_path / "dead")
    path = tmp_path / "m.pt"
    torch.save(Payload(), path)
    assert set(read_state(Source(path)).tensors) == {"fc.weight", "fc.bias"}
    assert not pathlib.Path(Payload.canary).exists()


def test_views_and_shared_storages_keep_their_values(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    module = nn.Module()
    module.register_buffer("view", base.t()[1:4, ::2])
    module.register_buffer("whole", base)
    module.register_buffer("small", torch.tensor([True, False]))
    module.register_buffer("wide", torch.tensor(2.5, dtype=torch.float64))
    module.register_buffer("scratch", torch.zeros(2), persistent=False)
    path = tmp_path / "m.pt"
    torch.save(module, path)
    tensors = read_state(Source(path)).tensors
    assert set(tensors) == {"view", "whole", "small", "wide"}
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensors[name], tensor)


def test_half_precision_is_widened_and_said(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a.weight": torch.ones(2, 2, dtype=torch.float16)}, path)
    state = read_state(Source(path))
    assert state.tensors["a.weight"].dtype is torch.float32
    assert "half precision" in state.notes[0]
    torch.save({"a.weight": torch.ones(2, 2, dtype=torch.float64)}, path)
    assert read_state(Source(path)).tensors["a.weight"].dtype is torch.float64


def test_declared_facts_are_in_summed_units(tmp_path, model):
    path = tmp_path / "vae.pt"
    torch.save(model.state_dict(), path)
    (tmp_path / "vae.toml").write_text(TOML)
    vae = Declared().load(Source(path), {})
    # 0.5 / 64 * SSE + 0.01 / 3 * KL  ->  SSE + 0.01 / 3 * 128 KL
    assert vae.facts.beta == pytest.approx(0.01 / 3 * 128)
    assert vae.facts.metric == "sse"
    assert vae.facts.scale_head == "logstd"
    assert vae.facts.dataset == "digits.npz:x"
    assert vae.condition == "label 3"
    assert vae.facts.input_range == (0.0, 1.0)
    assert Declared().describe(Source(path))["loss"]["beta"] == 0.01


def test_a_prefix_selects_and_ignore_leaves_out(tmp_path, model):
    path = tmp_path / "vae.pt"
    state = {f"gen.{k}": v for k, v in model.state_dict().items()}
    torch.save({**state, "gen.disc.weight": torch.ones(1), "other.weight": torch.ones(1)}, path)
    (tmp_path / "vae.toml").write_text('prefix = "gen."\nignore = ["disc."]\n' + TOML)
    assert Declared().load(Source(path), {}).latent_shape == (3,)
    (tmp_path / "vae.toml").write_text('prefix = "gan."\n' + TOML)
    with pytest.raises(CheckpointError, match=r"begins with 'gan\.'"):
        Declared().load(Source(path), {})
    (tmp_path / "vae.toml").write_text('prefix = "gen."\n' + TOML)
    with pytest.raises(CheckpointError, match=r"disc\.weight' is used by no layer"):
        Declared().load(Source(path), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"e1"', '"e2"'), "no weights 'e2'; did you mean 'e1'"),
        (("flatten", "flaten"), "'flaten'; did you mean 'flatten'"),
        (("conv =", "konv ="), "no layer is called 'konv'"),
        (("stride = 2", 'stride = "2"'), r"\$\.encoder\[0\]\.stride"),
        (("stride = 2", "stryde = 2"), "stryde"),
        (("[4, 4, 4]", "[4, 4, 5]"), r"decoder\[3\]: shape \(64,\) cannot become"),
        (('form = "logstd"', 'form = "logst"'), "did you mean 'logstd'"),
        (('scale = "ls"', 'scale = "bn"'), "is no linear"),
        (("input_shape = [1, 8, 8]", "input_shape = [1, 16, 16]"), r"gives shape \(1, 8, 8\)"),
        (('output = "sigmoid"', 'output = "relu"'), "output"),
        (('metric = "sse"', ""), "metric"),
        (("[head]", "[head"), "no TOML"),
    ],
)
def test_a_wrong_declaration_says_where(tmp_path, model, change, message):
    path = tmp_path / "vae.pt"
    torch.save(model.state_dict(), path)
    assert change[0] in TOML
    (tmp_path / "vae.toml").write_text(TOML.replace(*change))
    with pytest.raises((CheckpointError, OptionError), match=message) as caught:
        Declared().load(Source(path), {})
    assert "\n" not in str(caught.value)


def test_a_missing_declaration_names_the_way_out(tmp_path, model):
    path = tmp_path / "vae.pt"
    torch.save(model.state_dict(), path)
    assert not Declared().matches(Source(path))
    with pytest.raises(CheckpointError, match="isoprobe doctor"):
        Declared().load(Source(path), {})


@pytest.mark.skipif(not pathlib.Path("/dev/fd").exists(), reason="no files of open streams")
def test_a_declaration_that_is_typed_is_opened_itself(tmp_path, model):
    path = tmp_path / "vae.pt"
    torch.save(model.state_dict(), path)
    out, into = os.pipe()
    os.write(into, TOML.encode())
    os.close(into)
    assert Declared().load(Source(path), {"declaration": f"/dev/fd/{out}"}).latent_shape == (3,)
    os.close(out)
    for name, said in (
        (tmp_path, f"cannot read declaration {tmp_path}: Is a directory$"),
        (tmp_path / "none.toml", "isoprobe doctor"),
        ("/dev/zero", "/dev/zero is longer than"),
    ):
        with pytest.raises(IsoprobeError, match=said):
            Declared().load(Source(path), {"declaration": str(name)})
    with pytest.raises(CheckpointError) as caught:
        read_declaration(tmp_path / "none.toml")
    assert str(caught.value).count("none.toml") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="files of the system without end are Linux'")
def test_a_declaration_beside_the_weights_is_no_file_of_the_system(tmp_path, model):
    path = tmp_path / "vae.pt"
    torch.save(model.state_dict(), path)
    path.with_suffix(".toml").symlink_to("/proc/self/mountinfo")
    with pytest.raises(CheckpointError, match="missing required"):
        Declared().load(Source(path), {})


@pytest.mark.parametrize(
    ("loss", "beta"),
    [
        ({"beta": 2.0}, 2.0),
        ({"beta": 2.0, "factor": 0.5}, 4.0),
        ({"beta": 2.0, "reduction": "mean"}, 12.0),
        ({"beta": 2.0, "kl_reduction": "mean"}, 1.0),
        ({}, None),
    ],
)
def test_beta_follows_from_the_loss_as_written(loss, beta):
    fields = {
        "input_shape": [2, 3],
        "encoder": ["flatten"],
        "decoder": [],
        "loss": {"metric": "sse", **loss},
    }
    declaration = parse_declaration(fields, "test")
    assert declaration.loss.summed_beta(6, 2) == beta


@pytest.mark.parametrize(
    ("beta", "factor"), [("0.0", "1.0"), ("-1.0", "1.0"), ("inf", "1.0"), ("nan", "1.0"),
                         ("1.0", "0.0"), ("1.0", "nan"), ("1e-320", "1e308"), ("1e308", "1e-9")],
)  # fmt: skip
def test_a_beta_that_weighs_nothing_is_refused(tmp_path, model, beta, factor):
    path = tmp_path / "vae.pt"
    torch.save(model.state_dict(), path)
    assert 'metric = "sse"' in TOML
    loss = f'metric = "sse"\nbeta = {beta}\nfactor = {factor}'
    head, _, tail = TOML.partition("[loss]")
    rest = tail.partition("\n[")[2]
    (tmp_path / "vae.toml").write_text(f"{head}[loss]\n{loss}\n" + (f"[{rest}" if rest else ""))
    with pytest.raises(CheckpointError, match=r"positive number|> 0\.0"):
        Declared().load(Source(path), {})


def test_a_declaration_of_old_is_read_and_its_author_told():
    fields = {"input_shape": [6], "encoder": [], "decoder": []}
    with pytest.warns(FutureWarning, match="old.toml: kl_weight is beta now"):
        old = parse_declaration(fields | {"loss": {"metric": "sse", "kl_weight": 2.0}}, "old.toml")
    assert old == parse_declaration(fields | {"loss": {"metric": "sse", "beta": 2.0}}, "new.toml")
    with pytest.raises(CheckpointError, match="kl_weight"):
        both = {"metric": "sse", "kl_weight": 2.0, "beta": 1.0}
        parse_declaration(fields | {"loss": both}, "both.toml")


# --------------------------------------------------------------------------- presets

BY_NAME = {adapter.name: adapter for adapter in presets()}


def tutorial_state():
    torch.manual_seed(0)
    sizes = {"fc1": (7, 12), "fc21": (2, 7), "fc22": (2, 7), "fc3": (7, 2), "fc4": (12, 7)}
    return {
        f"{k}.{leaf}": torch.randn(shape if leaf == "weight" else shape[:1])
        for k, shape in sizes.items()
        for leaf in ("weight", "bias")
    }


def test_the_tutorial_mlp_needs_no_declaration(tmp_path):
    state = tutorial_state()
    path = tmp_path / "vae.pth"
    torch.save({f"module.{k}": v for k, v in state.items()}, path)
    adapter = installed().adapter_for(Source(path))
    assert adapter.name == "tutorial-mlp"
    vae = adapter.load(Source(path), {"beta": "3"})
    x, z = torch.rand(4, 12), torch.randn(4, 2)
    h = torch.relu(x @ state["fc1.weight"].T + state["fc1.bias"])
    raw = h @ state["fc22.weight"].T + state["fc22.bias"]
    assert torch.allclose(vae.encode(x).std, (raw / 2).exp(), rtol=1e-4)
    h = torch.relu(z @ state["fc3.weight"].T + state["fc3.bias"])
    logits = h @ state["fc4.weight"].T + state["fc4.bias"]
    assert torch.allclose(vae.decode_logits(z), logits, atol=1e-5)
    assert (vae.facts.metric, vae.facts.beta) == ("bce", 3.0)
    torch.save({**state, "fc11.weight": torch.zeros(1)}, path)
    assert not BY_NAME["tutorial-mlp"]().matches(Source(path))


REAL = {
    "csinva": "csinva+gan-vae-pretrained-pytorch/mnist_vae/weights/vae_epoch_25.pth",
    "vae2": "shagunuppal+Riemannian_Geometry_of_Deep_Generative_Models/MNIST/vae2.pth",
    "joint": "Schlumberger+joint-vae/trained_models/mnist",
    "smawm": "jetnew+smawm/models/expert/vae.tar",
    "elliptic": "Sajjad-Shahali+Elliptic-Bitcoin-Anomaly-Detection/models/vae.pt",
    "smiles": "aamirmalik-dr+molecular-generative-models/models/vae.pt",
    "taesd": "madebyollin+taesd/taef2_decoder.pth",
    "scvi": "scverse+scvi-tools/tests/test_data/pre_logits_fix_scanvi/model.pt",
}
DECLARATIONS = "docs/declarations"


def real(shared, name):
    return Source(shared / "checkpoints" / REAL[name])


def mnist(shared, side=28, count=10_000):
    x = np.load(shared / "data" / "mnist.npz")["x_test"][:count]
    x = torch.from_numpy(x).float()[:, None] / 255
    return torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear")


def figures(vae, x):
    """BCE of a sampled reconstruction, and the KL, per sample."""
    with torch.no_grad():
        torch.manual_seed(0)
        p = vae.encode(x)
        logits = vae.decode_logits(p.mean + p.std * torch.randn_like(p.std))
        bce = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (p.mean**2 + p.std**2 - 2 * p.std.log() - 1).sum()
    return float(bce) / len(x), float(kl) / len(x)


@pytest.mark.shared
def test_csinva_reaches_its_known_figures(shared):
    source = real(shared, "csinva")
    vae = installed().adapter_for(source).load(source, {})
    got = figures(vae, mnist(shared).flatten(1))
    assert got == (pytest.approx(77.4, rel=0.03), pytest.approx(25.8, rel=0.03))


@pytest.mark.shared
def test_vae2_is_read_with_elu(shared, request):
    declaration = request.config.rootpath / DECLARATIONS / "vae2.toml"
    vae = Declared().load(real(shared, "vae2"), {"declaration": str(declaration)})
    bce, _ = figures(vae, mnist(shared).flatten(1))
    assert bce == pytest.approx(99, rel=0.03)
    fields = tomllib.loads(declaration.read_text().replace('"elu"', '"relu"'))
    source = real(shared, "vae2")
    wrong = load_declared(
        parse_declaration(fields, "x"), read_state(source), source, adapter="x", where="x"
    )
    assert figures(wrong, mnist(shared).flatten(1))[0] == pytest.approx(247, rel=0.03)


@pytest.mark.shared
def test_joint_vae_holds_its_discrete_latent(shared):
    source = real(shared, "joint")
    adapter = installed().adapter_for(source)
    assert adapter.name == "joint-vae"
    x = mnist(shared, 32, 1000)
    labels = torch.from_numpy(np.load(shared / "data" / "mnist.npz")["y_test"][:1000])
    losses = []
    for code in range(10):
        vae = adapter.load(source, {"code": str(code)})
        losses.append([figures(vae, x[labels == digit][:10])[0] for digit in range(10)])
    assert figures(vae, x)[1] == pytest.approx(5.0, rel=0.03)
    assert vae.condition == "discrete code [9]"
    # every digit has a code under which it is reconstructed far better than under most others
    table = torch.tensor(losses)
    assert (table.min(0).values < 0.6 * table.median(0).values).all()
    for code in ("10", "x", "1,2", "-1"):
        with pytest.raises(OptionError, match=r"0\.\.9"):
            BY_NAME["joint-vae"]().load(source, {"code": code})


@pytest.mark.shared
def test_joint_vae_reads_each_row_at_its_own_code(shared):
    source = real(shared, "joint")
    vae = installed().adapter_for(source).load(source, {})
    x = mnist(shared, 32, 1000)
    distortion, rate = figures(vae.on(x), x)
    assert rate == pytest.approx(5.0, rel=0.03)
    # all rows at one code, which the reading once was, reconstruct at 376.8 nats
    assert distortion < 0.6 * 376.8


@pytest.mark.shared
def test_smawm_is_read_from_its_pickled_module_as_log_std(shared, request):
    declaration = request.config.rootpath / DECLARATIONS / "smawm.toml"
    vae = Declared().load(real(shared, "smawm"), {"declaration": str(declaration)})
    posterior = vae.encode(torch.randn(500, 10, generator=torch.Generator().manual_seed(0)))
    kl = 0.5 * (posterior.mean**2 + posterior.std**2 - 2 * posterior.std.log() - 1).sum(1).mean()
    assert 0.005 < float(kl) < 0.05  # nearly collapsed
    assert any("were not built" in note for note in vae.facts.assumptions)


@pytest.mark.shared
def test_elliptic_is_read_with_its_batch_norms(shared, request):
    declaration = request.config.rootpath / DECLARATIONS / "elliptic.toml"
    vae = Declared().load(real(shared, "elliptic"), {"declaration": str(declaration)})
    assert (vae.input_shape, vae.latent_shape) == ((166,), (32,))
    assert torch.isfinite(vae.decode(torch.randn(8, 32))).all()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "words"),
    [("taesd", "deterministic")],
)
def test_what_is_no_analysable_vae_is_refused_by_what_it_is(shared, name, words):
    source = real(shared, name)
    adapter = installed().adapter_for(source)
    assert adapter.name == "unsupported"
    assert words in adapter.describe(source)["not analysable"]
    with pytest.raises(CheckpointError, match=words) as caught:
        adapter.load(source, {})
    assert "\n" not in str(caught.value)


@pytest.mark.shared
def test_scanvi_is_read_with_the_prior_of_its_second_level(shared):
    """The density of z1 against a numpy pass through the second level at 40,000 other draws."""
    source = real(shared, "scvi")
    vae = installed().adapter_for(source).load(source, {})
    assert (vae.adapter, vae.latent_size, vae.input_shape) == ("scvi", 10, (100,))
    assert (vae.likelihood, vae.facts.beta) == ("zinb", None)
    assert vae.prior is not None
    found = read_saved(source).tensors
    part = {k.removeprefix("decoder_z1_z2."): v.double().numpy() for k, v in found.items()}
    rng, place = np.random.default_rng(0), "decoder.fc_layers.Layer 0"
    label = rng.integers(0, 2, 40_000)  # y_prior is even
    assert np.allclose(part["y_prior"], 0.5)
    into = np.hstack([rng.normal(size=(len(label), 10)), np.eye(2)[label]])
    hidden = into @ part[f"{place}.0.weight"].T + part[f"{place}.0.bias"]
    hidden = (hidden - part[f"{place}.1.running_mean"]) / np.sqrt(
        part[f"{place}.1.running_var"] + 1e-3
    )
    hidden = np.maximum(hidden * part[f"{place}.1.weight"] + part[f"{place}.1.bias"], 0)
    mean = hidden @ part["mean_decoder.weight"].T + part["mean_decoder.bias"]
    log_variance = hidden @ part["var_decoder.weight"].T + part["var_decoder.bias"]
    z = mean[:50] + np.exp(log_variance[:50] / 2) * rng.normal(size=(50, 10))
    right = np.array([
        special.logsumexp((-0.5 * ((one - mean) ** 2 / np.exp(log_variance) + log_variance
                                   + np.log(2 * np.pi))).sum(1)) - np.log(len(mean))
        for one in z
    ])  # fmt: skip
    ours = vae.prior.log_density(torch.as_tensor(z, dtype=torch.float32)).numpy()
    assert abs(float((ours - right).mean())) < 0.05
    assert float(np.abs(ours - right).max()) < 0.5


def test_a_recurrent_decoder_that_takes_more_than_z_is_named(shared):
    source = real(shared, "smiles")
    adapter = installed().adapter_for(source)
    assert adapter.name == "weights"
    with pytest.raises(CheckpointError, match="autoregressive"):
        adapter.load(source, {})


def test_a_name_that_speaks_of_quantising_refuses_nothing(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"encoder.0.weight": torch.zeros(1), "vq_layer.weight": torch.zeros(2, 2)}, path)
    assert not Unsupported().matches(Source(path))


# --------------------------------------------------------------------------- cards

CARDS = pathlib.Path(__file__).parent / "cards"


# the declarations by hand were written before kl_weight was called beta
@pytest.mark.filterwarnings("ignore:.*kl_weight is beta now:FutureWarning")
@pytest.mark.shared
@pytest.mark.parametrize(
    ("card", "weights", "declaration", "shape"),
    [
        ("conv-without-activation", "16-conv-vae-without-activation/conv.pt", "truth.toml",
         (1, 28, 28)),
        ("one-hidden-layer", "files/relu_beta30.pt", "relu_beta30_true.toml", (100,)),
    ],
)  # fmt: skip
def test_a_preset_is_a_card_and_no_code(
    shared, tmp_path, monkeypatch, card, weights, declaration, shape
):
    """A layout that was declared by hand is an adapter once its card lies in the folder."""
    path = shared / "cases" / weights
    made = preset(CARDS / f"{card}.toml")
    alone = tmp_path / path.name
    alone.write_bytes(path.read_bytes())
    assert made().matches(Source(alone))
    others = [p for p in CARDS.glob("*.toml") if p.stem != card]
    assert not any(preset(p)().matches(Source(alone)) for p in others)
    assert not any(adapter().matches(Source(alone)) for adapter in presets())
    vae = made().load(Source(alone), {})
    said = {"declaration": str(path.parent / declaration)}
    right = Declared().load(Source(alone), said)
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    for found, expected in (
        (vae.encode(x).mean, right.encode(x).mean),
        (vae.encode(x).std, right.encode(x).std),
        (vae.decode(right.encode(x).mean), right.decode(right.encode(x).mean)),
    ):
        assert torch.equal(found, expected)
    assert (vae.facts.metric, vae.facts.beta) == (right.facts.metric, right.facts.beta)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("summary =", "sumary =", "unknown field"),
        ('["h", "m"]', '"h"', "Expected `array`"),
        ("[declaration]", "[declaratoin]", "unknown field|missing required"),
    ],
)
def test_a_wrong_card_is_said(tmp_path, old, new, words):
    text = (FOLDER / "tutorial-mlp.toml").read_text()
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(PluginError, match=words):
        preset(tmp_path / "wrong.toml")


def test_a_letter_is_one_size_wherever_it_stands(tmp_path):
    state = tutorial_state()
    state["fc4.weight"] = torch.zeros(11, 7)
    state["fc4.bias"] = torch.zeros(11)
    torch.save(state, tmp_path / "vae.pt")
    source = Source(tmp_path / "vae.pt")
    assert not BY_NAME["tutorial-mlp"]().matches(source)
    with pytest.raises(CheckpointError, match="shapes are not those"):
        BY_NAME["tutorial-mlp"]().load(source, {})
