"""Iteration trainer and MNIST: losses written out, resume, checkpoints, the data's parts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import isoprobe
from isoprobe.cli.group import cli
from isoprobe.errors import CheckpointError, DataError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.run.opening import open_data
from isoprobe.testing.data_sources import check_data_source
from isoprobe_trainers.common import files
from isoprobe_trainers.common.training import JsonLog, load_state, save_state
from isoprobe_trainers.images.mnist_source import DigitsDataset, DigitsSource
from isoprobe_trainers.images.train import PAPER, Run, Trainer, digits_run, train
from tests import configs

CPU = torch.device("cpu")
DENSE = configs.mlp(6, latents=2, activation="tanh", output="sigmoid")
IMAGES = configs.gdn(1, 8, 8, latents=2, channels=3, kernels=[3, 3])
BCE = Run("bce", "mlp", DENSE, "bce", 0.5, "none", iterations=23, batch=4)
SSIM = Run("ssim", "gdn", IMAGES, "ssim:window=3", 0.01, "none", 7, 4, decomposed=True)
VALUES = torch.rand(30, 6, generator=torch.Generator().manual_seed(0))
PICTURES = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def rows(data):
    return lambda chosen: data[chosen]


# --------------------------------------------------------------------------- the loss


def test_the_plain_loss_is_lambda_cross_entropy_and_kl():
    trainer = Trainer(BCE, rows(VALUES), 30, CPU)
    x, noise = VALUES[:5], torch.randn(5, 2)
    mean, std = trainer.networks.encoder(x)
    p = trainer.networks.decoder(mean + std * noise)
    entropy = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1).mean()
    kl = 0.5 * (mean**2 + std**2 - 2 * std.log() - 1).sum(1).mean()
    parts = trainer.parts(x, noise)
    assert list(parts) == ["distortion", "kl"]
    torch.testing.assert_close(parts["distortion"], 2 * entropy)
    torch.testing.assert_close(parts["kl"], kl)


def test_the_decomposed_loss_compares_both_ways_with_the_decoded_mean():
    trainer = Trainer(SSIM, rows(PICTURES), 30, CPU)
    x, noise = PICTURES[:5], torch.randn(5, 2)
    mean, std = trainer.networks.encoder(x)
    x_check, x_hat = (trainer.networks.decoder(z) for z in (mean, mean + std * noise))
    ssim = installed().metric("ssim:window=3")
    parts = trainer.parts(x, noise)
    torch.testing.assert_close(parts["transform"], 100 * ssim.distortion(x, x_check).mean())
    torch.testing.assert_close(parts["coding"], 100 * ssim.distortion(x_check, x_hat).mean())


def test_every_row_is_seen_once_an_epoch_in_an_order_of_its_own():
    seen = []

    def recording(chosen):
        seen.append(chosen)
        return VALUES[chosen]

    trainer = Trainer(BCE, recording, 28, CPU)
    for _ in range(14):
        trainer.advance()
    first, second = torch.cat(seen[:7]), torch.cat(seen[7:])
    assert torch.equal(first.sort().values, torch.arange(28))
    assert torch.equal(second.sort().values, torch.arange(28))
    assert not torch.equal(first, second)


def test_normalisations_are_put_back_onto_their_bounds_after_a_step():
    trainer = Trainer(SSIM, rows(PICTURES), 30, CPU)
    gdn = trainer.networks.decoder.convolutions[1]
    with torch.no_grad():
        gdn.root_gamma.fill_(-1.0)
    trainer.advance()
    assert (gdn.root_gamma > 0).all()


def test_training_lowers_the_loss():
    trainer = Trainer(BCE, rows(VALUES), 30, CPU)
    first = sum(trainer.advance().values())
    for _ in range(300):
        last = sum(trainer.advance().values())
    assert last < 0.97 * first


def test_the_rate_falls_only_at_the_end():
    """Half of eight steps at the whole rate, then four along a half cosine."""
    falling = Trainer(replace(BCE, iterations=8, decay=0.5), rows(VALUES), 30, CPU)
    rates = []
    for _ in range(8):
        falling.advance()
        rates.append(falling.optimizer.param_groups[0]["lr"] / BCE.rate)
    cosine = [(1 + np.cos(np.pi * (k + 0.5) / 4)) / 2 for k in range(4)]
    np.testing.assert_allclose(rates, [1, 1, 1, 1, *cosine], rtol=1e-12)


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("run", "data"), [(BCE, VALUES), (SSIM, PICTURES), (replace(BCE, decay=1.0), VALUES)]
)
@pytest.mark.parametrize("stop_after", [1, 6])
def test_a_killed_training_resumes_to_the_same_weights_and_log(
    tmp_path, monkeypatch, run, data, stop_after
):
    whole = train(run, rows(data), 30, tmp_path / "whole", CPU)
    advance, steps = Trainer.advance, []

    def killed(self):
        if len(steps) == stop_after:
            raise KeyboardInterrupt
        steps.append(1)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", killed)
        with pytest.raises(KeyboardInterrupt):
            train(run, rows(data), 30, tmp_path / "parts", CPU, save_every=0.0)
    parts = train(run, rows(data), 30, tmp_path / "parts", CPU, resume=True)
    weights = load_file(parts)
    assert all(torch.equal(t, weights[name]) for name, t in load_file(whole).items())
    logs = [(tmp_path / side / f"{run.name}_log.jsonl") for side in ("whole", "parts")]
    assert logs[0].read_text() == logs[1].read_text()
    assert json.loads(logs[0].read_text().splitlines()[-1])["step"] == run.iterations
    assert [p.name for p in (tmp_path / "parts").iterdir() if "resume" in p.name] == []


def interrupted(out, run=BCE, after=3):
    """Train until some steps are taken, a resume file written after each."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        advance = Trainer.advance
        patch.setattr(Trainer, "advance", lambda t: advance(t) if t.done < after else interrupt())
        train(run, rows(VALUES), 30, out, CPU, save_every=-1.0)
    return out / f"{run.name}_resume.pt"


def interrupt():
    raise KeyboardInterrupt


def test_a_disk_that_fills_up_is_one_clear_line_and_nothing_is_lost(tmp_path, capped):
    """Nothing can grow beyond two kilobytes: less than a resume file needs, or a checkpoint."""
    whole, out = train(BCE, rows(VALUES), 30, tmp_path / "whole", CPU), tmp_path / "parts"
    resume_file = interrupted(out)
    before = resume_file.read_bytes()
    with capped(2000), pytest.raises(CheckpointError, match="cannot write") as full:
        train(BCE, rows(VALUES), 30, out, CPU, resume=True, save_every=0.0)
    assert "\n" not in str(full.value)
    assert resume_file.read_bytes() == before
    weights = load_file(train(BCE, rows(VALUES), 30, out, CPU, resume=True))
    assert all(torch.equal(t, weights[name]) for name, t in load_file(whole).items())
    assert not [p for p in out.iterdir() if "partial" in p.name or "resume" in p.name]


def test_a_log_outlives_a_disk_that_fills_up(tmp_path, capped):
    path = tmp_path / "log.jsonl"
    lines = [{"epoch": epoch, "loss": 1.5} for epoch in range(100)]
    JsonLog(path, 0).write(lines)
    text = path.read_text()
    with capped(500), pytest.raises(CheckpointError, match="cannot write"):
        JsonLog(path, 60)
    assert path.read_text() == text
    with capped(len(text)), pytest.raises(CheckpointError, match="cannot write"):
        JsonLog(path, 100).write(lines)
    assert path.read_text() == text


def test_the_global_generator_is_left_alone(tmp_path):
    before = torch.random.get_rng_state()
    train(BCE, rows(VALUES), 30, tmp_path, CPU)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_checkpoint_knows_its_loss(tmp_path):
    facts = isoprobe.load(train(SSIM, rows(PICTURES), 30, tmp_path, CPU)).facts
    assert (facts.metric, facts.beta, facts.decomposed) == ("ssim:window=3", 0.01, True)
    assert (facts.transform_weight, facts.input_range) == (1.0, (0.0, 1.0))
    assert facts.training["iterations"] == 7


def test_what_cannot_be_is_refused(tmp_path):
    train(BCE, rows(VALUES), 30, tmp_path, CPU)
    with pytest.raises(CheckpointError, match="exists already"):
        train(BCE, rows(VALUES), 30, tmp_path, CPU)
    with pytest.raises(OptionError, match="larger than the 3 rows"):
        Trainer(BCE, rows(VALUES), 3, CPU)
    with pytest.raises(OptionError, match="positive.*found beta -1"):
        Run("x", "mlp", DENSE, "bce", -1.0, "none", 1, 1)
    with pytest.raises(CheckpointError, match="no longer finite at step 1"):
        train(BCE, rows(VALUES * torch.nan), 30, tmp_path / "nan", CPU)


def test_a_resume_file_of_another_training_is_refused(tmp_path):
    resume_file = interrupted(tmp_path)
    state = load_state(resume_file)
    state["identity"]["seed"] = 5
    save_state(resume_file, state)
    with pytest.raises(CheckpointError, match="another training"):
        train(BCE, rows(VALUES), 30, tmp_path, CPU, resume=True)


# --------------------------------------------------------------------------- MNIST


def test_the_papers_models_are_those_of_appendix_f():
    runs = [digits_run("mnist", n, lam) for n, lam in PAPER]
    assert [(r.config["latent_size"], r.beta) for r in runs] == [(32, 0.392), (64, 0.0784)]
    networks = installed().architecture("mlp").build(dict(runs[0].config))
    shapes = [tuple(p.shape) for p in networks.encoder.parameters() if p.ndim == 2]
    assert shapes == [(1024, 784), (1024, 1024), (32, 1024), (32, 1024)]
    shapes = [tuple(p.shape) for p in networks.decoder.parameters() if p.ndim == 2]
    assert shapes == [(1024, 32), (1024, 1024), (784, 1024)]
    assert (runs[0].iterations, runs[0].batch, runs[0].rate) == (50_000, 256, 1e-3)


@pytest.fixture
def digits(monkeypatch):
    """Twenty images in place of the real ones, half of the brightness of a byte and more."""
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    made = DigitsDataset("mnist/train", images, np.arange(20, dtype=np.uint8) % 10)
    monkeypatch.setattr(DigitsSource, "open", lambda self, spec, vae=None: made)
    return images


def test_the_command_trains_and_the_checkpoint_is_analysed_on_its_own_data(digits, tmp_path):
    arguments = ["train", "mnist", "--iterations", "3", "--latents", "2", "--lam", "784"]
    arguments += ["--batch-size", "8", "--width", "16"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    path = tmp_path / "mnist_lam784_n2_seed0.safetensors"
    assert done.stdout.split() == [str(path)]
    with isoprobe.analyze(path, analyses=["isometry"], device="cpu") as result:
        assert result.attrs["data"] == "mnist/train"
        assert result.attrs["beta"] == 1.0
        assert result.attrs["samples"] == 20


def test_parts_of_mnist(shared, monkeypatch):
    monkeypatch.setenv(files.VARIABLE, str(shared / "data"))
    test = open_data(installed(), "mnist/test", None, [])
    assert (len(test), test.shape, test.dtype) == (10_000, (28, 28), "uint8")
    assert np.bincount(test.labels(np.arange(10_000))).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    assert test.read(np.array([0])).max() > 200
    for held in check_data_source(DigitsSource(), "mnist/test"):
        held()
    with pytest.raises(DataError, match="did you mean 'test'"):
        open_data(installed(), "mnist/tets", None, [])
