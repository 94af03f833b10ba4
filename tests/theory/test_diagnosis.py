"""Diagnosis names the defect planted in a sound model, and finds none in the sound one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.checkpoints.native import read_manifest, vae_from_networks
from isoprobe.contracts import VAE
from isoprobe.results.reader import Result

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL, DATA = EXAMPLES / "digits.safetensors", EXAMPLES / "digits.npy"


def diagnosed(vae: VAE | Path, **options: object) -> Result:
    return isoprobe.analyze(vae, str(DATA), samples=None, analyses=["diagnosis"], **options)


def verdict(result: Result) -> str:
    return str(result["diagnosis"]["verdict"].values)


def findings(result: Result) -> list[str]:
    group = result["diagnosis"]
    return [str(code) for code in group["finding"].values] if "finding" in group else []


def digits() -> VAE:
    return isoprobe.load(MODEL)


@pytest.fixture(scope="module")
def sound() -> Result:
    return diagnosed(digits())


def test_nothing_is_found_in_the_sound_model(sound: Result) -> None:
    assert verdict(sound) == "sound"
    assert findings(sound) == []
    assert set(sound["diagnosis"]["label"].values) <= {"active", "mixed", "collapsed"}


def most_active(sound: Result) -> int:
    return int(sound["importance"]["order"].values[0])


def test_a_zeroed_decoder_column_is_decoder_dead(sound: Result) -> None:
    vae, latent = digits(), most_active(sound)
    first = next(
        p for name, p in vae.module.named_parameters() if "decoder" in name and p.ndim == 2
    )
    first.data[:, latent] = 0
    result = diagnosed(vae)
    assert findings(result)[0] == "decoder-dead"
    labels = result["diagnosis"]["label"].values
    assert [j for j, label in enumerate(labels) if label == "decoder-dead"] == [latent]


def test_a_shuffled_scale_head_is_encoder_mismatched(sound: Result) -> None:
    vae = digits()
    order = sound["importance"]["order"].values
    kept = order[sound["overview"]["active"].values[order].astype(bool)]
    encode = vae.encode
    permutation = np.arange(vae.latent_size)
    permutation[kept] = kept[::-1]
    index = torch.as_tensor(permutation)

    def shuffled(x: torch.Tensor) -> isoprobe.Posterior:
        posterior = encode(x)
        return isoprobe.Posterior(posterior.mean, posterior.std[:, index])

    vae.encode = shuffled
    assert findings(diagnosed(vae))[0] == "encoder-mismatched"


def test_log_variance_read_as_log_deviation_is_a_scale_head_finding() -> None:
    vae = digits()
    encode = vae.encode

    def misread(x: torch.Tensor) -> isoprobe.Posterior:
        posterior = encode(x)
        return isoprobe.Posterior(posterior.mean, posterior.std.square())

    vae.encode = misread
    result = diagnosed(vae)
    assert findings(result) == ["scale-head"]
    assert "log variance" in str(result["diagnosis"]["evidence"].values[0])


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_a_beta_off_by_four_is_named(factor: float) -> None:
    vae = digits()
    result = diagnosed(vae.with_facts(beta=vae.facts.beta * factor))
    assert findings(result) == ["beta"]
    assert "auto" in str(result["diagnosis"]["advice"].values[0])


def test_the_wrong_metric_beside_a_declared_beta_is_named() -> None:
    result = diagnosed(digits().with_facts(metric="sse"))
    assert findings(result) == ["metric"]
    assert "--metric bce" in str(result["diagnosis"]["advice"].values[0])


def test_a_metric_of_the_same_family_is_never_told() -> None:
    result = diagnosed(digits().with_facts(metric="mse", beta=1.0))
    assert all("sse" not in str(text) for text in result["diagnosis"]["advice"].values)


def test_one_epoch_is_no_optimum() -> None:
    from isoprobe.registry.lookup import installed

    manifest = read_manifest(MODEL)
    torch.manual_seed(3)
    networks = installed().architecture(manifest.architecture).build(manifest.config)
    x = torch.from_numpy(np.load(DATA)) / 255
    parameters = [*networks.encoder.parameters(), *networks.decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    for batch in x[torch.randperm(len(x))].split(32):
        mean, std = networks.encoder(batch)
        logits = networks.decoder.logits(mean + std * torch.randn_like(std))
        distortion = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, batch, reduction="sum"
        )
        rate = 0.5 * (mean.square() + std.square() - 2 * std.log() - 1).sum()
        optimizer.zero_grad()
        ((distortion + rate) / len(batch)).backward()
        optimizer.step()
    vae = vae_from_networks(networks, digits().facts)
    assert str(diagnosed(vae)["diagnosis"]["level"].values) == "not sound"


def test_other_data_are_not_blamed_on_single_latents() -> None:
    dimmed = np.load(DATA) // 3
    result = isoprobe.analyze(MODEL, dimmed, samples=500, analyses=["diagnosis"])
    (causes,) = result["diagnosis"]["causes"].values
    assert "data" in str(causes).split(", ")
    assert set(result["diagnosis"]["label"].values) <= {"active", "mixed", "collapsed"}


def test_celeba_weights_on_another_crop_are_told_so(shared: Path) -> None:
    """Trained on squashed images, shown centre crops: beta agrees, the prior is not filled."""
    result = isoprobe.analyze(
        shared / "checkpoints" / "YannDubs+disentangling-vae" / "VAE_celeba",
        f"{shared}/data/celeba64_subset.zip",
        samples=1000,
        analyses=["diagnosis"],
    )
    assert str(result["diagnosis"]["level"].values) != "sound"
    assert set(findings(result)) <= {"data"}


def test_metric_auto_takes_the_metric_that_fits_the_declared_beta() -> None:
    vae = digits().with_facts(metric=None)
    attrs = diagnosed(vae, metric="auto").attrs
    chosen = next(note for note in attrs["notes"] if "chosen" in note)
    assert f"metric {attrs['metric']} chosen" in chosen
    assert "bce" in chosen


def test_metric_auto_without_beta_says_that_weights_cannot_tell() -> None:
    vae = digits().with_facts(metric=None, beta=None)
    with pytest.raises(isoprobe.IsoprobeError, match=r"cannot tell: beta would be bce .*sse"):
        diagnosed(vae)


def test_real_weights_are_not_accused(shared: Path) -> None:
    folder = shared / "checkpoints" / "YannDubs+disentangling-vae"
    for name in ("VAE_mnist", "betaH_mnist"):
        result = isoprobe.analyze(
            folder / name,
            f"{shared}/data/mnist.npz:x_train",
            samples=200,
            resize=32,
            analyses=["diagnosis"],
        )
        assert findings(result) == []


def test_a_collapsed_checkpoint_is_called_so(shared: Path) -> None:
    declaration = Path(__file__).parents[2] / "docs" / "declarations" / "smawm.toml"
    result = isoprobe.analyze(
        shared / "checkpoints" / "jetnew+smawm" / "models" / "expert" / "vae.tar",
        "prior",
        adapter="declared",
        options={"declaration": str(declaration)},
        samples=500,
    )
    assert verdict(result) == "collapsed"
    assert set(result["diagnosis"]["label"].values) == {"collapsed"}
