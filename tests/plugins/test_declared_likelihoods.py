"""Decoders that give parameters of a likelihood, declared: against those who trained them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import isoprobe
from isoprobe.cli.group import cli
from isoprobe.errors import CheckpointError, IsoprobeError
from isoprobe.registry.lookup import installed

FILES = Path(__file__).parents[1] / "gallery" / "layouts" / "files"
ANSWERS = json.loads(FILES.with_name("layouts.json").read_text())
MLP = """encoder = [{{ linear = "encoder.0" }}, "relu"]
decoder = [{decoder}]
[head]
mean = "{mean}"
scale = "{scale}"
[loss]
metric = "{metric}"
beta = 1.0
[likelihood]
metric = "{metric}"
parameters = {parameters}
"""
COUNTS = """input_shape = [20]
encoder = ["log1p", { linear = "z_encoder.encoder.0" }, "relu"]
decoder = [{ linear = "decoder.px_decoder.0" }, "relu"]
[head]
mean = "z_encoder.mean_encoder"
scale = "z_encoder.var_encoder"
form = "exp-variance"
[condition]
classes = [0]
words = "library size"
infer = "sum"
[loss]
metric = "METRIC"
beta = 1.0
[likelihood]
metric = "METRIC"
"""
RATE = '[{ linear = "decoder.px_scale_decoder.0" }, "log_share"], [{ constant = "px_r" }]'
DECLARED = {
    "heteroscedastic": "input_shape = [12]\n"
    + MLP.format(
        decoder='{ linear = "decoder.0" }, "relu"', mean="MEAN", scale="SCALE",
        metric="gaussian-heteroscedastic",
        parameters='["decoder_mu", [{ linear = "decoder_logvar" }, { clamp = [-3, 3] }]]',
    ),
    "categorical": "input_shape = [64]\n"
    + MLP.format(
        decoder='{ linear = "decoder.0" }, "relu", { linear = "decoder.2" }, '
        "{ reshape = [64, 4] }, { permute = [1, 0] }",
        mean="MEAN", scale="SCALE", metric="categorical", parameters="[]",
    ),
    "counts_nb": COUNTS.replace("METRIC", "nb") + f"parameters = [{RATE}]\n",
    "counts_zinb": COUNTS.replace("METRIC", "zinb")
    + f'parameters = [{RATE}, [{{ linear = "decoder.px_dropout_decoder" }}]]\n',
}  # fmt: skip


def declared(name: str, folder: Path) -> dict[str, str]:
    import torch

    file = FILES / ANSWERS[name]["file"]
    state = torch.load(file, weights_only=True)
    names = state.get("model_state_dict", state)
    mean = next(n for n in ("fc_mu", "mu", "fc_mean") if f"{n}.weight" in names or "counts" in name)
    scale = next((n for n in ("fc_logvar", "fc_var", "logvar") if f"{n}.weight" in names), "")
    text = DECLARED[name].replace("MEAN", mean).replace("SCALE", scale)
    (folder / "said.toml").write_text(text)
    return {"declaration": str(folder / "said.toml")}


@pytest.mark.parametrize("name", DECLARED)
def test_a_likelihood_gives_its_trainers_figures(name: str, tmp_path: Path) -> None:
    right = ANSWERS[name]
    options = declared(name, tmp_path)
    found = isoprobe.analyze(
        FILES / right["file"], f"{FILES}/{right['data']}", adapter="declared", options=options,
        samples=None, analyses=("isometry", "diagnosis", "density:draws=0", "anomaly"),
        out=tmp_path / "r.h5",
    )  # fmt: skip
    assert found["overview"]["kl_mean"].values.sum() == pytest.approx(right["kl"], rel=1e-3)
    at_mean = found["overview"]["distortion_transform_mean"].values
    assert at_mean == pytest.approx(right["distortion_at_mean"][right["metric"]], rel=1e-3)
    assert found.attrs["beta_recovered"] == pytest.approx(1.0, rel=0.15)
    # the pullback by half the Fisher information is second order, and about as large
    assert found.attrs["beta_recovered_pullback"] == pytest.approx(1.0, rel=0.4)
    assert "absolute values exist" in str(found["density"]["absolute"].values)
    scores = isoprobe.score(
        FILES / right["file"], f"{FILES}/{right['data']}", tmp_path / "r.h5",
        adapter="declared", options=options, samples=20, by_input=True,
    )  # fmt: skip
    np.testing.assert_allclose(
        scores["distortion_map"].reshape(20, -1).sum(1), scores["distortion"], rtol=1e-4
    )


def test_every_analysis_takes_a_likelihood_or_says_why_not(tmp_path: Path) -> None:
    right, options = ANSWERS["counts_zinb"], declared("counts_zinb", tmp_path)
    asked = {"adapter": "declared", "options": options, "samples": 60}
    spec = f"{FILES}/{right['data']}"
    for name in installed().names("analysis"):
        if name == "information":  # asks for labels, whatever the likelihood
            continue
        if name == "maps":
            with pytest.raises(IsoprobeError, match="derivatives of D by the input"):
                isoprobe.analyze(FILES / right["file"], spec, analyses=(name,), **asked)
        elif name == "geometry":
            with pytest.raises(IsoprobeError, match="hold it with condition"):
                isoprobe.analyze(FILES / right["file"], spec, analyses=(name,), **asked)
            held = {**asked, "condition": 50.0, "analyses": ("geometry:pairs=2",)}
            isoprobe.analyze(FILES / right["file"], spec, **held)
        else:
            isoprobe.analyze(FILES / right["file"], spec, analyses=(name,), **asked)


def test_it_is_converted_with_its_likelihood(tmp_path: Path) -> None:
    right, options = ANSWERS["counts_zinb"], declared("counts_zinb", tmp_path)
    out = tmp_path / "c.safetensors"
    told = ["--adapter", "declared", "--option", f"declaration={options['declaration']}"]
    run = CliRunner().invoke(cli, ["convert", str(FILES / right["file"]), str(out), *told])
    assert run.exit_code == 0, run.output
    found = isoprobe.analyze(out, f"{FILES}/{right['data']}", samples=None)
    assert found.attrs["metric"] == "zinb"
    assert found["overview"]["kl_mean"].values.sum() == pytest.approx(right["kl"], rel=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('metric = "nb"\nparameters', 'metric = "sse"\nparameters', "no likelihood"),
        (', [{ constant = "px_r" }]', "", "takes log mean, log dispersion"),
        ('"px_r"', '"px"', "no tensor 'px' of constants"),
        ("classes = [0]", "classes = [3]", "log_share takes number 0"),
    ],
)
def test_a_likelihood_that_does_not_fit_is_said(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    options = declared("counts_nb", tmp_path)
    text = (tmp_path / "said.toml").read_text()
    assert old in text
    (tmp_path / "said.toml").write_text(text.replace(old, new))
    right = ANSWERS["counts_nb"]
    with pytest.raises(CheckpointError, match=words):
        isoprobe.load(FILES / right["file"], adapter="declared", options=options)


def test_another_likelihood_than_the_decoders_is_refused(tmp_path: Path) -> None:
    right, options = ANSWERS["counts_nb"], declared("counts_nb", tmp_path)
    asked = {"adapter": "declared", "options": options, "samples": 50}
    with pytest.raises(IsoprobeError, match="those of 'nb'"):
        isoprobe.analyze(FILES / right["file"], f"{FILES}/{right['data']}", metric="zinb", **asked)
    found = isoprobe.analyze(
        FILES / right["file"], f"{FILES}/{right['data']}", metric="sse", **asked
    )
    assert np.isfinite(found["overview"]["distortion_mean"].values)
