"""AutoencoderKL folders load, and their exact norms equal the dense oracle."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch

from isoprobe.errors import CheckpointError, OptionError
from isoprobe.registry import installed
from isoprobe.source import FileKind, Source
from isoprobe_plugins.adapters.diffusers_kl import Diffusers

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
    from isoprobe.probe import Probe, ProbeOptions

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
        ("AutoencoderKLWan", "another class"),
        (7, "another class"),
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
