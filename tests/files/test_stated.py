"""The small inputs that once failed, each with the answer that is right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from isoprobe import api

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(shared: Path, tmp_path: Path, typed: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder of the cases' files; returns exit code, stdout, stderr."""
    for path in (shared / "cases" / "files").iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return partial(typed, tmp_path)


# file -> exit code, what is said, what is not
INSPECTED = {
    "kl_called_quantizer.pt": (0, "12 tensors", "quantised"),
    "vq_dictionary.pt": (1, "vq.dictionary of 16 x 4 is a codebook", "TOML"),
    "lstm_repeated_z.pt": (0, "z feeds at every step", "autoregressive"),
    "whole_module.pt": (0, "fc1.weight +8 x 6", "--trust"),
    "with_numpy.pt": (0, "weight +", "--trust"),
    "with_dataclass.pt": (0, "weight +", "--trust"),
    "vae.onnx": (0, r"inputs +x: b x 6\n +outputs +recon: b x 6, mu: b x 2, logvar: b x 2", None),
}


@pytest.mark.parametrize("name", INSPECTED)
def test_inspect_says_what_a_file_is(run: Run, name: str) -> None:
    code, out, err = run("inspect", name)
    wanted, said, silent = INSPECTED[name]
    assert code == wanted, err
    assert re.search(said, out + err)
    assert silent is None or silent not in out + err


def test_names_without_weight_are_listed_with_the_way_to_name_them(run: Run) -> None:
    code, _, err = run("analyze", "names_without_weight.pt", "--data", "linear_good.npy")
    assert code == 1
    assert "it has dense_0_0, dense_0_1" in err
    assert "bias_name" in err


def test_values_that_a_declaration_takes_are_named(run: Run) -> None:
    Path("softmax.pt").symlink_to("linear.pt")
    code, _, err = run("analyze", "softmax.pt", "--data", "linear_good.npy")
    assert (code, "expected linear, sigmoid or tanh" in err) == (1, True)


def test_a_decoder_is_all_that_spectrum_needs(run: Run) -> None:
    code, out, err = run("spectrum", "decoder.onnx", "--metric", "sse")
    assert (code, err) == (0, "")
    assert "decoder alone" in out


def test_a_whole_vae_of_onnx_is_cut(run: Run) -> None:
    code, out, err = run("analyze", "vae.onnx", "--data", "rows6.npy", "--metric", "sse", "--json")
    assert code == 0, err
    assert json.loads(out)["summary"]["latents"] == 2


def test_idle_latents_away_from_one_are_idle(run: Run) -> None:
    code, out, _ = run("analyze", "idle_at_half.pt", "--data", "linear_good.npy", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["beta"]["value"] == pytest.approx(1, abs=0.01)
    assert "2 of 10 latents are used" in str(found["verdict"]["meaning"])


def test_data_that_do_not_fit_are_the_first_finding(run: Run) -> None:
    out = run("analyze", "linear.pt", "--data", "linear_shifted.npy")[1]
    assert "Not sound: reconstruction." in out
    assert "the inputs are not the training's" in " ".join(out.split())


@pytest.mark.parametrize("more", [(), ("--samples", "8", "--pairs", "1")])
def test_the_latent_whose_sigma_is_odd_is_the_one_named(run: Run, more: tuple[str, ...]) -> None:
    """Two latents that disagree about beta: the one with an odd sigma is told by its decoder."""
    told = ("analyze", "sigma_too_small.pt", "--data", "linear_good.npy", *more)
    out = run(*told, "--json")[1]
    odd, good = json.loads(out)["latents"]
    assert not odd["importance_determined"] and good["importance_determined"]
    assert json.loads(out)["beta"]["recovered"] == pytest.approx(1, abs=1e-6)
    said = " ".join(run(*told)[1].split())
    assert re.search(r"n.d.: .* the decoder by itself calls for [0-9.]+ in latent 0", said)
    assert "in latent 0: either sigma of latents 0" in said
    if not more:
        importance = float(re.search("calls for ([0-9.]+)", said)[1])  # type: ignore[index]
        assert importance == pytest.approx(9.08, rel=0.01)  # as idle_at_half.pt's, of the same data


def test_few_rows_cannot_tell(run: Run) -> None:
    for seed in "012":
        few = ("--samples", "8", "--pairs", "1", "--seed", seed)
        out = " ".join(run("analyze", "linear.pt", "--data", "linear_good.npy", *few)[1].split())
        assert "Undecided." in out
        assert re.search(r"8 rows cannot tell .* rows would", out)
        assert "undertrained" not in out


def test_the_doctor_puts_the_layers_of_a_large_beta_first(run: Run) -> None:
    code, out, err = run("doctor", "relu_beta30.pt", "--data", "signals.npy", "--json")
    assert code == 0, err
    first = json.loads(out)["readings"][0]
    assert (first["encoder"], first["decoder"], first["form"]) == ("relu", "relu", "logvar")
    assert first["kl"] == pytest.approx(4.14, rel=0.05)
    assert first["beta"] == pytest.approx(32.6, rel=0.05)


def test_an_activation_that_may_be_declared_is_taken(run: Run) -> None:
    text = Path("mish.toml").read_text()
    Path("sound.toml").write_text(text)
    Path("sound.pt").symlink_to("with_classifier.pt")
    out = run("analyze", "sound.pt", "--data", "rows6.npy", "--metric", "sse")[2]
    assert "clf" in out and "used by no layer" in out  # every layer of the declaration was found


# ------------------------------------------------------------------ autoencoders of diffusers

#: folder -> shape of one input, number of latents
READ = {
    "kl": ((3, 16, 16), 256), "kl_noquant": ((3, 16, 16), 256), "kl_gray": ((1, 16, 16), 256),
    "kl_5ch": ((5, 16, 16), 256), "kl_bin": ((3, 16, 16), 256), "kl_fp16": ((3, 16, 16), 256),
    "kl_half": ((3, 16, 16), 256), "pipe": ((3, 16, 16), 256), "temporal": ((3, 16, 16), 256),
    "wan": ((3, 1, 16, 16), 256), "cogvideo": ((3, 1, 16, 16), 256), "oobleck": ((2, 32), 16),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READ)
def test_every_class_with_a_posterior_is_read(shared: Path, name: str) -> None:
    pytest.importorskip("diffusers")
    size = {} if name == "oobleck" else {"size": "16"}
    vae = api.load(shared / "cases" / "files" / "diffusers" / name, options=size)
    shape, latents = READ[name]
    assert vae.input_shape == shape
    assert torch.Size(vae.latent_shape).numel() == latents
    x = torch.linspace(-1, 1, 2 * torch.Size(shape).numel()).reshape(2, *shape)
    with torch.no_grad():
        found = vae.encode(x)
        assert found.mean.shape == found.std.shape == (2, latents)
        assert bool((found.std > 0).all())
        assert vae.decode(found.mean).shape == x.shape


@pytest.mark.parametrize(
    ("name", "reason"),
    [("tiny", "deterministic"), ("dc", "deterministic"), ("vq", "codebook"), ("asym", "a mask")],
)
def test_classes_without_one_are_refused_by_what_they_are(run: Run, name: str, reason: str) -> None:
    code, _, err = run("analyze", f"diffusers/{name}", "--data", "prior:8")
    assert code == 1
    assert reason in err


def test_inspect_names_the_autoencoder_of_a_pipeline(run: Run) -> None:
    code, out, err = run("inspect", "diffusers/pipe")
    assert (code, err) == (0, "")
    assert re.search("autoencoder +vae", out)
