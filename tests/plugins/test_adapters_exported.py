"""One model, saved by torch.jit and torch.export, gives equal numbers; code is not run."""

from __future__ import annotations

import json
import os
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError, IsoprobeError, OptionError
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.registry.lookup import installed
from isoprobe_plugins.adapters.programs.exported import Exported
from isoprobe_plugins.adapters.programs.torchscript import TorchScript
from tests.plugins.convolved import Decoder, Encoder

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning",  # of TorchScript as such
    "ignore::torch.jit.TracerWarning",
)


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder(nn.SiLU())
        self.decoder = Decoder(nn.Sequential(nn.Unflatten(1, (4, 4, 4)), nn.GroupNorm(2, 4)))

    @torch.jit.export
    def encode(self, x):
        return self.encoder(x)

    @torch.jit.export
    def decode(self, z):
        return self.decoder(z)

    def forward(self, x):
        return self.decoder(self.encoder(x)[0])


@pytest.fixture
def model():
    return Vae().eval()


def export(module, example, path):
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=dynamic), path)


def save(way, model, folder):
    """Save the model in a way; return the path to give and its options."""
    if way == "script":
        torch.jit.script(model).save(str(folder / "m.pt"))
        return folder / "m.pt", {}
    script = way.startswith("trace")
    suffix = "pt" if script else "pt2"
    for part, example in (("encoder", torch.rand(2, 1, 8, 8)), ("decoder", torch.rand(2, 3))):
        module = getattr(model, part)
        path = folder / f"{part}.{suffix}"
        if script:
            torch.jit.trace(module, example).save(str(path))
        else:
            export(module, example, path)
    if way.endswith("folder"):
        return folder, {}
    return folder / f"encoder.{suffix}", {"decoder": str(folder / f"decoder.{suffix}")}


@pytest.mark.parametrize("way", ["script", "trace", "trace folder", "export", "export folder"])
def test_equal_numbers_through_every_way(tmp_path, model, way):
    path, options = save(way, model, tmp_path)
    source = Source(path)
    adapter = installed().adapter_for(source)
    assert adapter.name == ("torch-export" if "export" in way else "torchscript")
    options = {**options, "input_shape": "1x8x8", "head": "logstd", "metric": "sse", "beta": "2"}
    vae = adapter.load(source, options)
    assert (vae.input_shape, vae.latent_shape) == ((1, 8, 8), (3,))
    assert (vae.facts.metric, vae.facts.beta) == ("sse", 2.0)
    x, z = torch.rand(5, 1, 8, 8), torch.randn(5, 3)
    with torch.no_grad():
        mean, raw = model.encode(x)
        x_hat = model.decode(z)
        posterior = vae.encode(x)
    assert torch.allclose(posterior.mean, mean, atol=1e-6)
    assert torch.allclose(posterior.std, raw.exp(), rtol=1e-5)
    assert torch.allclose(vae.decode(z), x_hat, atol=1e-6)
    # derivatives too, against the dense Jacobian of the model itself
    probe = Probe(vae, installed().metric("sse"), {"mean", "pullback", "stationarity"},
                  ProbeOptions())  # fmt: skip
    batch = probe(np.arange(5), x)
    for at, pullback in zip(batch["mean"], batch["pullback"], strict=True):
        jacobian = torch.func.jacrev(lambda z: model.decode(z[None])[0].flatten())(at)
        assert torch.allclose(pullback, (jacobian**2).sum(0), rtol=1e-4)
    assert torch.isfinite(batch["stationarity"]).all()


def test_an_exported_model_moves_to_double_precision(tmp_path, model):
    path, options = save("export", model, tmp_path)
    vae = Exported().load(Source(path), {**options, "input_shape": "1x8x8"})
    vae.to("cpu", torch.float64)
    z = torch.randn(2, 3).double()
    with torch.no_grad():
        assert torch.allclose(vae.decode(z), model.double().decode(z), atol=1e-12)


def test_a_decoder_alone_is_read_as_one(tmp_path, model):
    save("export", model, tmp_path)
    vae = Exported().load(
        Source(tmp_path / "decoder.pt2"), {"decoder": "self", "latent_shape": "3"}
    )
    assert vae.encode is None
    assert vae.input_shape == (1, 8, 8)


def test_one_function_asks_for_the_other(tmp_path, model):
    save("export", model, tmp_path)
    (tmp_path / "decoder.pt2").rename(tmp_path / "half.pt2")
    with pytest.raises(CheckpointError, match="'decoder': 'FILE'"):
        Exported().load(Source(tmp_path / "encoder.pt2"), {})
    save("trace", model, tmp_path)
    (tmp_path / "decoder.pt").rename(tmp_path / "half.pt")
    with pytest.raises(CheckpointError, match=r"methods forward.*'decoder': 'FILE'"):
        TorchScript().load(Source(tmp_path / "encoder.pt"), {})
    with pytest.raises(CheckpointError, match="a torch.export archive; expected a TorchScript"):
        TorchScript().load(Source(tmp_path / "encoder.pt"),
                           {"decoder": str(tmp_path / "half.pt2")})  # fmt: skip


def test_a_fixed_batch_size_is_said(tmp_path, model):
    for part, example in (("encoder", torch.rand(1, 1, 8, 8)), ("decoder", torch.rand(1, 3))):
        program = torch.export.export(getattr(model, part), (example,))
        torch.export.save(program, tmp_path / f"{part}.pt2")
    with pytest.raises(OptionError, match="fixed batch size|2 samples"):
        Exported().load(Source(tmp_path), {"input_shape": "1x8x8"})


class Quantised(nn.Module):
    """Latents are entries of a codebook."""

    def __init__(self):
        super().__init__()
        self.codebook = nn.Embedding(8, 3)
        self.fc = nn.Linear(4, 3)

    @torch.jit.export
    def encode(self, x):
        return torch.cdist(self.fc(x), self.codebook.weight).argmin(1)

    @torch.jit.export
    def decode(self, z):
        return self.codebook(z)

    def forward(self, x):
        return self.encode(x)


def test_a_torchscript_vq_vae_is_refused_by_what_it_is(tmp_path):
    torch.jit.script(Quantised()).save(str(tmp_path / "vq.pt"))
    with pytest.raises(CheckpointError, match="vector-quantised"):
        TorchScript().load(Source(tmp_path / "vq.pt"), {})


def rewrite(path, member, change):
    """Apply a function to a member's bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(n for n in members if n.endswith(member))
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for key, data in members.items():
            archive.writestr(key, data)


class Shell:
    path = ""

    def __reduce__(self):
        return (os.system, (f"touch {Shell.path}",))


def test_pickled_weights_and_sample_inputs_are_not_opened(tmp_path, model):
    import pickle

    Shell.path = str(tmp_path / "dead")
    save("export", model, tmp_path)
    path = tmp_path / "decoder.pt2"
    rewrite(path, "sample_inputs/model.pt", lambda _: pickle.dumps(Shell()))
    options = {"decoder": "self", "latent_shape": "3"}
    assert Exported().load(Source(path), options).input_shape == (1, 8, 8)
    config = "model_weights_config.json"
    rewrite(path, config, lambda d: d.replace(b'"use_pickle": false', b'"use_pickle": true'))
    with pytest.raises(CheckpointError, match="is pickled"):
        Exported().load(Source(path), options)
    assert not pathlib.Path(Shell.path).exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.serialization.os.system",
        "_operator.methodcaller",
        "torch.ops.aten.from_file.default",
        "torch.ops.mylib.f.default",
        "torch.ops.aten.__class__.default",
        "math.exp",
    ],
)
def test_operators_outside_torch_s_own_set_are_refused(tmp_path, model, target):
    save("export", model, tmp_path)
    path = tmp_path / "decoder.pt2"
    rewrite(path, "model.json",
            lambda d: d.replace(b"torch.ops.aten.linear.default", target.encode()))  # fmt: skip
    with pytest.raises(CheckpointError, match="operator .* is (none|not among).*not run"):
        Exported().load(Source(path), {"decoder": "self", "latent_shape": "3"})


def test_forged_weights_stay_inside_their_bytes(tmp_path, model):
    save("export", model, tmp_path)
    path = tmp_path / "decoder.pt2"

    def grow(data):
        config = json.loads(data)
        next(iter(config["config"].values()))["tensor_meta"]["sizes"][0]["as_int"] = 1 << 40
        return json.dumps(config).encode()

    rewrite(path, "model_weights_config.json", grow)
    with pytest.raises(CheckpointError, match="beyond its bytes"):
        Exported().load(Source(path), {"decoder": "self", "latent_shape": "3"})


def test_torchscript_code_that_touches_files_is_not_run(tmp_path):
    class Writer(nn.Module):
        def forward(self, x):
            return torch.from_file("canary", True, 4) + x

    torch.jit.script(Writer()).save(str(tmp_path / "w.pt"))
    with pytest.raises(CheckpointError, match="from_file"):
        TorchScript().load(Source(tmp_path / "w.pt"), {})


@pytest.mark.parametrize("way", ["script", "export"])
def test_truncation_is_one_line(tmp_path, model, way):
    path, options = save(way, model, tmp_path)
    data = path.read_bytes()
    for percent in range(0, 100, 10):
        path.write_bytes(data[: len(data) * percent // 100])
        source = Source(path)
        adapter = Exported() if way == "export" else TorchScript()
        with pytest.raises(IsoprobeError) as caught:
            adapter.load(source, {**options, "input_shape": "1x8x8"})
        assert "\n" not in str(caught.value)
