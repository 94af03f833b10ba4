"""Folders of small inputs that once went wrong, run as their `run.sh` runs them.

What is right stands in the first comment of each. Others are held elsewhere: training goes on after
an analysis (01) and what people hold in Python (10) in `tests/plugins/test_adapters_live.py`, the
variants of pythae (09) in `tests/plugins/test_adapters_pythae.py`, pipelines of diffusers (13) in
`test_stated.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from isoprobe.checkpoints.source import Source
from isoprobe.cli import main
from isoprobe_plugins.adapters.weights.state import read_state
from isoprobe_plugins.doctor.beyond import Rows
from isoprobe_plugins.doctor.skeleton import plans_for

Said = tuple[int, str, str]
FACTORY = ("--adapter", "factory", "--data", "thy.npy", "--metric", "sse", "--samples", "200")
DECLARED = ("--adapter", "declared", "--option", "declaration=relu.toml", "--data", "thy.npy")
#: every row, one analysis
EVERY = ("--samples", "3772", "--analysis", "importance", "--json")


@pytest.fixture
def run(shared: Path, tmp_path: Path, typed: Callable[..., Said]) -> Callable[..., Said]:
    """Run a command in a copy of a folder; returns exit code, stdout, stderr on one line each."""

    def run(number: str, *arguments: str) -> Said:
        (source,) = (shared / "cases").glob(f"{number}-*")
        folder = tmp_path / number
        folder.mkdir(exist_ok=True)
        for path in source.iterdir():
            shutil.copyfile(path, folder / path.name)
        code, out, err = typed(folder, *arguments)
        return code, out, " ".join(err.split())

    return run


def summary(said: Said) -> dict[str, Any]:
    assert said[0] == 0, said[2]
    found: dict[str, Any] = json.loads(said[1])["summary"]
    return found


def test_a_decoder_without_gradients_is_one_line_and_runs_by_differences(run) -> None:
    told = ("analyze", "base.pt", "--option", "target=fac.py:nograd", *FACTORY)
    code, _, err = run("02", *told)
    assert code == 1
    assert "decode runs without gradients" in err
    assert "--pullback finite-difference" in err
    assert run("02", *told, "--pullback", "finite-difference")[0] == 0


@pytest.mark.parametrize("way", ["dropout", "sampled"])
def test_a_model_that_answers_differently_is_refused(run, way: str) -> None:
    code, _, err = run("03", "analyze", "base.pt", "--option", f"target=fac.py:{way}", *FACTORY)
    assert code == 1
    assert "encode gives another answer each time" in err


def rate(state: dict[str, torch.Tensor], rows: torch.Tensor) -> float:
    """KL of the network of these folders, written down: a ReLU layer, a mean and a log variance."""
    own = {name.split("module.")[-1]: tensor for name, tensor in state.items()}

    def layer(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    hidden = torch.relu(layer(rows, "encoder.0"))
    mean, log_variance = layer(hidden, "fc_mu"), layer(hidden, "fc_var")
    return float((0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)).sum(1).mean())


@pytest.mark.parametrize("name", ["ema_pair", "ema_first"])
def test_averaged_weights_are_those_taken_and_the_others_are_named(
    run, shared: Path, name: str
) -> None:
    folder = shared / "cases" / "04-ema-weights-ignored-silently"
    sets = torch.load(folder / f"{name}.pt", weights_only=True)
    rows = torch.as_tensor(np.load(folder / "thy.npy"))
    raw, averaged = sorted(
        (rate(held, rows) for held in sets.values() if isinstance(held, dict) and len(held) > 9),
    )
    assert raw < 0.01 < averaged  # the raw ones were never trained
    found = summary(run("04", "analyze", f"{name}.pt", *DECLARED, *EVERY))
    assert found["kl_total"] == pytest.approx(averaged, rel=1e-4)
    others = (*DECLARED, "--option", "weights=raw", *EVERY)
    found = summary(run("04", "analyze", f"{name}.pt", *others))
    assert found["kl_total"] == pytest.approx(raw, rel=1e-3)


@pytest.mark.parametrize(
    "file",
    ["04_compile_submodules.pt", "05_dp_submodules.pt", "13_net_key.pt", "14_state.pt",
     "15_params.pt", "17_enc_dec_split.pt", "23_averaged_swa.pt", "28_parametrized.pt"],
)  # fmt: skip
def test_weights_under_any_key_give_the_same_numbers(run, shared: Path, file: str) -> None:
    folder = shared / "cases" / "02-no-grad-decoder-traceback"
    right = rate(
        torch.load(folder / "base.pt", weights_only=True),
        torch.as_tensor(np.load(folder / "thy.npy")),
    )
    found = summary(run("05", "analyze", file, *DECLARED, *EVERY))
    assert found["kl_total"] == pytest.approx(right, rel=1e-4)


def test_a_declaration_that_is_named_is_enough(run) -> None:
    summary(run("06", "analyze", "w.pt", *DECLARED[2:], *EVERY))


def test_the_doctor_puts_the_truth_first(run) -> None:
    code, out, _ = run("07", "doctor", "base.pt", "--data", "thy.npy", "--json")
    found = json.loads(out)
    assert (code, found["doubt"]) == (0, "")
    first = found["readings"][0]
    assert (first["encoder"], first["decoder"], first["form"]) == ("relu", "relu", "logvar")
    assert first["beta"] == pytest.approx(0.5, rel=0.05)


GREY = {
    "L": Image.fromarray,
    "RGB": lambda a: Image.fromarray(np.repeat(a[..., None], 3, 2)),
    "P": lambda a: Image.fromarray(a).convert("P"),
    "LA": lambda a: Image.fromarray(np.dstack([a, np.full_like(a, 255)]), "LA"),
    "I16": lambda a: Image.fromarray(a.astype("uint16") * 257),
}


@pytest.mark.parametrize("kind", GREY)
def test_grey_is_grey_however_it_is_stored(
    shared: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(shared / "data" / "mnist.npz") as file:
        pictures = file["x_test"][:40]
    for i, picture in enumerate(pictures):
        GREY[kind](picture).save(tmp_path / f"{i:03d}.png")
    weights = shared / "checkpoints/csinva+gan-vae-pretrained-pytorch/mnist_vae/weights"
    told = ("--data", str(tmp_path), "--resize", "28", "--analysis", "importance", "--json")
    assert main(["analyze", str(weights / "vae_epoch_25.pth"), *told]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["kl_total"] == pytest.approx(
        24.47, abs=0.01
    )


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("04_missing.csv", "found nothing; fill the cell or leave the row out"),
        ("01_index.csv", "column 0 has no name, as a saved index has none: add ':id=0'"),
        ("14_comment.csv", "a comment ('# made by an instrument'): take such lines out"),
        ("22.dat", "read by its suffix: name it 22.csv"),
        ("01_index.csv:id=0", ""),
        ("12_bool.csv", ""),
    ],
)
def test_what_is_wrong_with_a_table_is_said(run, file: str, words: str) -> None:
    told = ("--option", "declaration=relu.toml", "--data", file, "--analysis", "importance")
    code, _, err = run("12", "analyze", "base.pt", *told)
    assert (code, words in err) == (int(bool(words)), True), err


def test_a_first_layer_without_activation_is_found(run, shared: Path) -> None:
    data = f"{shared}/data/mnist.npz:x_test"
    code, out, _ = run("16", "doctor", "conv.pt", "--data", data, "--json")
    assert code == 0
    first = json.loads(out)["readings"][0]
    assert (first["encoder"], first["decoder"], first["form"]) == ("relu", "relu", "logvar")
    assert "relu" not in first["declaration"]["decoder"][:3]
    assert first["explained_at_mean"] == pytest.approx(0.45, abs=0.03)
    assert first["metric"] == "sse" and first["beta"] == pytest.approx(1, abs=0.15)
    conv, lightning = (read_state(Source(Path(name))).tensors for name in ("conv.pt", "lit.ckpt"))
    assert conv.keys() == lightning.keys()  # the same weights, so the same reading
    assert all(torch.equal(tensor, lightning[name]) for name, tensor in conv.items())


def test_another_prior_is_named_as_a_cause(run) -> None:
    code, out, _ = run("14", "analyze", "prior3.pt", "--data", "thy.npy", "--samples", "600")
    assert code == 0
    assert "Not sound: prior." in out
    assert "another prior" in " ".join(out.split())


def test_a_weight_that_is_not_finite_is_named_as_the_file_has_it(run) -> None:
    code, _, err = run("15", "analyze", "nan.pt", "--data", "thy.npy", "--samples", "100")
    assert code == 1
    assert "'fc_mu.weight'" in err


def test_a_class_is_filled_with_the_weights_of_the_file(run, shared: Path) -> None:
    told = (
        "--adapter", "factory", "--option", "target=myvae.py:VAE", "--option", "input_shape=784",
        "--data", f"{shared}/data/mnist.npz:x_test", "--metric", "bce", "--samples", "200",
    )  # fmt: skip
    code, out, err = run("17", "analyze", "vae.pt", *told, "--analysis", "isometry", "--json")
    assert code == 0, err
    assert json.loads(out)["beta"]["recovered"] == pytest.approx(1, abs=0.15)
    Path("junk.pt").write_text("garbage")
    code, _, err = run("17", "analyze", "junk.pt", *told)
    assert code == 1
    assert "junk.pt is a text file; expected a state dict" in err


def test_kernels_of_three_lead_from_28_to_4_and_back(shared: Path) -> None:
    state = torch.load(shared / "cases" / "files" / "kernel3.pt", weights_only=True)
    plan, *_ = plans_for(state, Rows((28, 28)))[0]
    steps = [s for s in plan.fields(plan.start())["encoder"] if "conv" in s]
    assert [(s["stride"], s["padding"]) for s in steps] == [(2, 1)] * 3
    back = [s for s in plan.fields(plan.start())["decoder"] if "conv_transpose" in s]
    assert [s.get("output_padding", 0) for s in back] == [0, 1, 1]


@pytest.mark.parametrize(("file", "left"), [("with_classifier.pt", ["clf"]), ("with_prior.pt", [])])
def test_what_lies_on_no_way_is_left_out_by_name(shared: Path, file: str, left: list[str]) -> None:
    state = torch.load(shared / "cases" / "files" / file, weights_only=True)
    plan, *_ = plans_for(state, Rows((6,)))[0]
    assert [p.place for p in plan.split.rest] == left
    assert bool(plan.beyond.prior) == (file == "with_prior.pt")


def test_a_file_of_a_folder_that_is_read_as_one_is_sent_there(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared / "checkpoints" / "YannDubs+disentangling-vae" / "VAE_mnist"
    assert main(["analyze", str(folder / "model.pt"), "--data", "prior:8"]) == 1
    said = capsys.readouterr().err
    assert f"isoprobe analyze {folder} --data prior:8" in said
    assert "--adapter weights" in said
