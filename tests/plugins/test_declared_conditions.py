"""Declared conditional models: layouts of other people, against answers of those who trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import isoprobe
from isoprobe.errors import CheckpointError

FILES = Path(__file__).parents[1] / "gallery" / "layouts" / "files"
ANSWERS = json.loads(FILES.with_name("layouts.json").read_text())
TAIL = """output = "sigmoid"
[loss]
metric = "bce"
beta = 1.0
[head]
mean = "{mean}"
scale = "{scale}"
[condition]
classes = [10]
"""
CONCAT = """input_shape = [64]
encoder = [{ condition = "one_hot", classes = 10 }, { linear = "fc1" }, "relu"]
decoder = [{ condition = "one_hot", classes = 10 }, { linear = "fc3" }, "relu", { linear = "fc4" }]
""" + TAIL.format(mean="fc21", scale="fc22")
TABLE = '{ condition = "embedding", weights = "label_embedding" }'
EMBEDDING = f"""input_shape = [64]
encoder = [{TABLE}, {{ linear = "encoder.0" }}, "relu"]
decoder = [{TABLE}, {{ linear = "decoder.0" }}, "relu", {{ linear = "decoder.2" }}]
""" + TAIL.format(mean="fc_mu", scale="fc_logvar")
JOINT = (
    """input_shape = [64]
encoder = [{ linear = "img_to_features.0" }, "relu"]
decoder = [{ condition = "one_hot", classes = 10 }, { linear = "latent_to_features.0" }, "relu",
    { linear = "features_to_img.0" }]
"""
    + TAIL.format(mean="fc_mean", scale="fc_log_var")
    + """infer = "codes"
codes = ["fc_alphas.0"]
"""
)


def analysed(name: str, declaration: str, folder: Path, data: str | None = None):
    written = folder / f"{name}.toml"
    written.write_text(declaration)
    right = ANSWERS[name]
    return isoprobe.analyze(
        FILES / right["file"], f"{FILES}/{data or right['data']}", samples=None,
        adapter="declared", options={"declaration": str(written)}, metric="bce",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "declaration"),
    [("cvae_concat", CONCAT), ("cvae_embedding", EMBEDDING), ("gumbel_joint", JOINT)],
)
def test_a_conditional_layout_gives_its_trainers_figures(name, declaration, tmp_path):
    found, right = analysed(name, declaration, tmp_path), ANSWERS[name]
    assert found["overview"]["kl_mean"].values.sum() == pytest.approx(right["kl"], rel=1e-4)
    at_mean = found["overview"]["distortion_transform_mean"].values
    assert at_mean == pytest.approx(right["distortion_at_mean"]["bce"], rel=1e-4)
    assert found.attrs["beta_recovered"] == pytest.approx(right["beta"], rel=0.15)


def test_it_is_converted_with_its_condition(tmp_path):
    from click.testing import CliRunner

    from isoprobe.cli.group import cli

    (tmp_path / "said.toml").write_text(EMBEDDING)
    out = tmp_path / "c.safetensors"
    told = ["--adapter", "declared", "--option", f"declaration={tmp_path}/said.toml"]
    run = CliRunner().invoke(cli, ["convert", str(FILES / "cvae_embedding.pt"), str(out), *told])
    assert run.exit_code == 0, run.output
    first = analysed("cvae_embedding", EMBEDDING, tmp_path)
    again = isoprobe.analyze(out, f"{FILES}/digits_labels.npz:x,y", samples=None)
    for group, name in (("overview", "kl_mean"), ("isometry", "norm_mean")):
        assert (again[group][name].values == first[group][name].values).all()
    assert again.attrs["conditions"] == "told class of each row: the label"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("classes = [10]", "classes = [9]", "joins condition 0 with 10 classes"),
        ("classes = [10]", "classes = []", "joins condition 0"),
        ('"label_embedding"', '"labels"', "names its table"),
        ('"embedding"', '"mean"', "form"),
        ("classes = [10]", 'classes = [10]\ninfer = "codes"', "needs one for each"),
        (TABLE + ', { linear = "decoder.0" }', "{ append = [1, 0] }", "fixes one code for all"),
    ],
)
def test_what_does_not_fit_is_said(old, new, words, tmp_path):
    text = EMBEDDING.replace(old, new)
    assert text != EMBEDDING
    if "append" in new:
        text = text.partition("[condition]")[0]
    with pytest.raises(CheckpointError, match=words):
        analysed("cvae_embedding", text, tmp_path)


def test_rows_without_labels_are_refused(tmp_path):
    with pytest.raises(isoprobe.IsoprobeError, match="no labels: name them"):
        analysed("cvae_embedding", EMBEDDING, tmp_path, "digits.npy")
