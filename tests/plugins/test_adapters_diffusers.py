"""AutoencoderKL folders load, and their exact norms equal the dense oracle."""

from __future__ import annotations

import json
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe_plugins.adapters.diffusers.adapter import Diffusers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what diffusers imports
    diffusers = pytest.importorskip("diffusers")


def small_model():
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=2, block_out_channels=(8, 8), sample_size=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, layers_per_block=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = small_model()
    folder = tmp_path_factory.mktemp("vae")
    model.save_pretrained(folder)
    return folder, model.eval()


def test_it_gives_the_library_s_own_numbers(saved):
    folder, model = saved
    source = Source(folder)
    assert source.kind is FileKind.DIFFUSERS
    adapter = installed().adapter_for(source)
    vae = adapter.load(source, {})
    assert (vae.input_shape, vae.latent_shape) == ((3, 8, 8), (2, 4, 4))
    x, z = torch.rand(2, 3, 8, 8) * 2 - 1, torch.randn(2, 32)
    with torch.no_grad():
        latent = model.encode(x).latent_dist
        x_hat = model.decode(z.reshape(2, 2, 4, 4)).sample
    posterior = vae.encode(x)
    assert torch.allclose(posterior.mean, latent.mean.flatten(1), atol=1e-6)
    assert torch.allclose(posterior.std, latent.std.flatten(1), rtol=1e-5)
    assert torch.allclose(vae.decode(z), x_hat, atol=1e-5)
    assert vae.facts.input_range == (-1.0, 1.0)
    assert vae.facts.scale_head == "logvar-clamped"
    assert "scaling_factor 0.18215 left to pipelines" in vae.facts.assumptions[0]
    assert adapter.describe(source)["architecture"] == "AutoencoderKL"


def test_its_exact_norms_equal_the_dense_oracle(saved):
    from isoprobe.probe.quantities import Probe, ProbeOptions

    folder, _ = saved
    vae = Diffusers().load(Source(folder), {}).to("cpu", torch.float64)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    batch = Probe(vae, installed().metric("sse"), {"mean", "pullback"}, ProbeOptions())(
        np.arange(2), x
    )
    for mean, pullback in zip(batch["mean"], batch["pullback"], strict=True):
        jacobian = torch.func.jacrev(lambda z: vae.decode(z[None])[0].flatten())(mean)
        assert torch.allclose(pullback, (jacobian**2).sum(0), rtol=1e-10)


def test_other_sizes_are_asked_for(saved):
    folder, _ = saved
    vae = Diffusers().load(Source(folder), {"size": "12"})
    assert vae.latent_shape == (2, 6, 6)
    assert vae.decode(torch.zeros(1, 72)).shape == (1, 3, 12, 12)
    with pytest.raises(OptionError, match="multiple of 2; found 7"):
        Diffusers().load(Source(folder), {"size": "7"})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AutoencoderTiny", "deterministic"),
        ("VQModel", "vector-quantised"),
        ("UNet2DModel", "no autoencoder"),
        (7, "no autoencoder"),
    ],
)
def test_relatives_are_refused_by_name(tmp_path, name, words):
    (tmp_path / "config.json").write_text(
        json.dumps({"_class_name": name, "_diffusers_version": "0.30"})
    )
    with pytest.raises(CheckpointError, match=f"{name}, which .*{words}"):
        Diffusers().load(Source(tmp_path), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": [1 << 30, 1 << 30]}, "cannot build|shape|multiple"),
        ({"latent_channels": 3}, "shape"),
        ({"layers_per_block": "x"}, "cannot build"),
    ],
)
def test_a_forged_configuration_is_one_line(saved, tmp_path, change, message):
    folder, _ = saved
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message) as caught:
        Diffusers().load(Source(copy), {})
    assert "\n" not in str(caught.value)


def test_missing_weights_are_named(saved, tmp_path):
    folder, _ = saved
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="no weights"):
        Diffusers().load(Source(tmp_path), {})


def compvis(name):
    """The name a tensor has in files of the first latent diffusion code."""
    down = re.match(r"encoder\.down_blocks\.(\d)\.(resnets|downsamplers\.0)\.(.*)", name)
    up = re.match(r"decoder\.up_blocks\.(\d)\.(resnets|upsamplers\.0)\.(.*)", name)
    words = {"resnets": "block", "downsamplers.0": "downsample", "upsamplers.0": "upsample"}
    if down:
        name = f"encoder.down.{down[1]}.{words[down[2]]}.{down[3]}"
    if up:
        name = f"decoder.up.{1 - int(up[1])}.{words[up[2]]}.{up[3]}"
    for new, old in (
        ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), ("to_q", "q"),
        ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"), ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"),
    ):  # fmt: skip
        name = name.replace(new, old)
    return name


def early(name):
    """The name it has in files of early diffusers."""
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"),
                     ("to_out.0", "proj_attn")):  # fmt: skip
        name = name.replace(new, old)
    return name


def single(state, way):
    """One file of a layout."""
    if way == "early":
        return {early(name): tensor for name, tensor in state.items()}
    if way == "own":
        return state
    renamed = {}
    for name, tensor in state.items():
        is_matrix = ".attentions." in name and tensor.ndim == 2
        renamed[compvis(name)] = tensor[:, :, None, None].contiguous() if is_matrix else tensor
    if way == "pipeline":
        renamed = {f"first_stage_model.{name}": tensor for name, tensor in renamed.items()}
        renamed["model.diffusion_model.out.2.bias"] = torch.zeros(4)
    return renamed


@pytest.mark.parametrize("way", ["own", "early", "compvis", "pipeline", "compvis zip"])
def test_single_files_of_every_layout_give_the_same_numbers(saved, tmp_path, way):
    folder, _ = saved
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    tensors = single(state, way.removesuffix(" zip"))
    assert way == "own" or tensors.keys() != state.keys()
    path = tmp_path / ("vae.ckpt" if way.endswith("zip") else "vae.safetensors")
    torch.save({"state_dict": tensors}, path) if way.endswith("zip") else save_file(tensors, path)
    source = Source(path)
    adapter = installed().adapter_for(source)
    assert adapter.name == "diffusers"
    vae = adapter.load(source, {"size": "8", "groups": "4"})
    whole = Diffusers().load(Source(folder), {})
    x, z = torch.rand(2, 3, 8, 8) * 2 - 1, torch.randn(2, 32)
    with torch.no_grad():
        assert torch.equal(vae.encode(x).mean, whole.encode(x).mean)
        assert torch.equal(vae.encode(x).std, whole.encode(x).std)
        assert torch.equal(vae.decode(z), whole.decode(z))
    assert "groups=N" in vae.facts.assumptions[-1]


def test_a_vector_quantised_file_of_that_layout_is_refused_by_what_it_is(saved, tmp_path):
    folder, _ = saved
    state = single(load_file(folder / "diffusion_pytorch_model.safetensors"), "compvis")
    save_file(
        {**state, "quantize.embedding.weight": torch.zeros(8, 2)}, tmp_path / "vq.safetensors"
    )
    source = Source(tmp_path / "vq.safetensors")
    with pytest.raises(CheckpointError, match="vector-quantised"):
        installed().adapter_for(source).load(source, {})
