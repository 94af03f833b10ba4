"""The native checkpoint: what goes in comes out, and damage is named."""

from __future__ import annotations

import json
import struct

import msgspec
import pytest
import torch

from isoprobe.checkpoints.native import (
    FORMAT_VERSION,
    Manifest,
    Objective,
    facts_of,
    load_weights,
    read_manifest,
    vae_from_networks,
    weights,
    write_checkpoint,
)
from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError
from isoprobe_plugins.architectures.linear import linear_networks
from isoprobe_plugins.architectures.mlp import Mlp

CONFIG = {
    "input_shape": [2, 3],
    "encoder_widths": [5, 4],
    "decoder_widths": [7],
    "latent_size": 2,
    "activation": "tanh",
    "output": "sigmoid",
}


def manifest(**changes):
    fields = {
        "format_version": FORMAT_VERSION,
        "architecture": "mlp",
        "config": CONFIG,
        "latent_size": 2,
        "objective": Objective("bce", 0.5),
        "dataset": "digits.npz:x",
        "input_range": (0.0, 1.0),
        "preprocessing": {"resize": 32},
        "training": {"steps": 10, "seed": 3},
    }
    return Manifest(**{**fields, **changes})


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    networks = Mlp().build(CONFIG)
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, networks.encoder, networks.decoder, manifest())
    return path, networks


def test_round_trip_is_bit_exact(saved):
    path, networks = saved
    read = read_manifest(path)
    assert msgspec.structs.replace(read, tensors_sha256=None) == manifest()
    assert read.tensors_sha256 is not None
    with torch.device("meta"):
        copy = Mlp().build(CONFIG)
    load_weights(copy, weights(path), "file")
    x = torch.rand(4, 2, 3)
    for a, b in zip(networks.encoder(x), copy.encoder(x), strict=True):
        assert torch.equal(a, b)
    z = torch.randn(4, 2)
    assert torch.equal(networks.decoder(z), copy.decoder(z))


def test_the_model_carries_what_the_manifest_declares(saved):
    _, networks = saved
    vae = vae_from_networks(networks, facts_of(manifest()))
    assert (vae.facts.metric, vae.facts.beta) == ("bce", 0.5)
    assert vae.facts.input_range == (0.0, 1.0)
    z = torch.randn(4, 2)
    assert torch.equal(vae.decode(z), torch.sigmoid(vae.decode_logits(z)))
    assert vae.encode(torch.rand(4, 2, 3)).std.shape == (4, 2)


def test_equal_content_gives_equal_bytes(saved, tmp_path):
    path, networks = saved
    again = tmp_path / "again.safetensors"
    shuffled = manifest(training={"seed": 3, "steps": 10})
    write_checkpoint(again, networks.encoder, networks.decoder, shuffled)
    assert again.read_bytes() == path.read_bytes()
    assert list(Source(path).header["__metadata__"]) == ["isoprobe"]


def test_an_existing_file_is_kept_unless_asked(saved):
    path, networks = saved
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="exists already"):
        write_checkpoint(path, networks.encoder, networks.decoder, manifest(latent_size=9))
    assert path.read_bytes() == before
    write_checkpoint(
        path, networks.encoder, networks.decoder, manifest(dataset=None), overwrite=True
    )
    assert read_manifest(path).dataset is None


def test_a_failed_write_leaves_nothing(saved, tmp_path):
    _, networks = saved
    with pytest.raises(CheckpointError, match="there is no folder"):
        write_checkpoint(
            tmp_path / "no" / "m.safetensors", networks.encoder, networks.decoder, manifest()
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors"]


@pytest.mark.parametrize("training", [{"loss": float("nan")}, {"curve": [1.0, float("inf")]}])
def test_nan_in_the_manifest_is_refused(saved, tmp_path, training):
    _, networks = saved
    with pytest.raises(CheckpointError, match=r"manifest\.training\.\w+"):
        write_checkpoint(
            tmp_path / "n.safetensors",
            networks.encoder,
            networks.decoder,
            manifest(training=training),
        )


def test_tied_weights_are_written_twice_and_load(tmp_path):
    networks = Mlp().build({**CONFIG, "encoder_widths": [4, 4]})
    networks.encoder.mean.weight = networks.encoder.scale.weight
    path = tmp_path / "tied.safetensors"
    write_checkpoint(path, networks.encoder, networks.decoder, manifest())
    loaded = weights(path)
    assert torch.equal(loaded["encoder.mean.weight"], loaded["encoder.scale.weight"])


def rewrite(path, change):
    """Apply a function to the JSON of the manifest and write the file anew."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["isoprobe"] = change(header["__metadata__"]["isoprobe"])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def edited(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited(format_version=99), "version 99, newer than the 1"),
        (edited(latent_size=0), r"\$\.latent_size"),
        (edited(surprise=1), "surprise"),
        (edited(objective={"metric": "bce", "beta": "1"}), r"\$\.objective\.beta"),
        (edited(objective={"metric": "bce"}), "beta"),
        (lambda text: text.replace("0.5", "NaN"), "damaged"),
        (lambda text: text[:-5], "damaged"),
        (lambda _: "[" * 100_000, "damaged"),
        (lambda _: "null", "damaged"),
    ],
)
def test_a_wrong_manifest_names_the_field(saved, change, message):
    path, _ = saved
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


def test_truncation_at_every_length_is_an_error(saved):
    path, _ = saved
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            weights(path)


def test_weights_of_another_architecture_are_refused(saved):
    path, _ = saved
    tensors = weights(path)
    wider = Mlp().build({**CONFIG, "decoder_widths": [8]})
    with pytest.raises(CheckpointError, match=r"trunk\.0\.weight.*\(7, 2\).*\(8, 2\)"):
        load_weights(wider, tensors, "file")
    deeper = Mlp().build({**CONFIG, "decoder_widths": [7, 7]})
    with pytest.raises(CheckpointError, match=r"lacks 'trunk\.2\.weight'"):
        load_weights(deeper, tensors, "file")
    with pytest.raises(CheckpointError, match="no network: extra"):
        load_weights(Mlp().build(CONFIG), {**tensors, "extra": torch.zeros(1)}, "file")


def test_foreign_files_are_named(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(CheckpointError, match="a text file"):
        read_manifest(text)
    with pytest.raises(CheckpointError, match="no such file"):
        read_manifest(tmp_path / "missing")


def test_linear_networks_round_trip(tmp_path):
    covariance = torch.diag(torch.tensor([4.0, 2.0, 0.1]))
    networks, described = linear_networks(covariance, 0.5, 3)
    path = tmp_path / "linear.safetensors"
    write_checkpoint(path, networks.encoder, networks.decoder, described)
    assert msgspec.structs.replace(read_manifest(path), tensors_sha256=None) == described
    assert weights(path)["decoder.out.weight"].dtype is torch.float64


def test_a_flipped_bit_of_a_weight_is_damage_and_never_a_number(tmp_path):
    path = tmp_path / "m.safetensors"
    networks, described = linear_networks(torch.eye(3), 0.5, 2)
    write_checkpoint(path, networks.encoder, networks.decoder, described)
    assert weights(path)
    blob = bytearray(path.read_bytes())
    blob[-2] ^= 1
    path.write_bytes(blob)
    with pytest.raises(CheckpointError, match="not those that were written"):
        weights(path)
