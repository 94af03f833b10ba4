"""The examples run as a user would run them, and what they claim is asserted by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.processes import python

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
FOLDER = "checkpoints/YannDubs+disentangling-vae"


def run(*command: str | Path, folder: Path) -> str:
    """Run Python elsewhere than in the repository, with warnings as errors; return its output."""
    done = python("-W", "error", *command, cwd=folder, MPLBACKEND="Agg", PYTHONPATH=str(ROOT))
    return done.stdout


def test_linear_vae(tmp_path: Path) -> None:
    assert "residuals 0" in run(EXAMPLES / "linear_vae.py", folder=tmp_path)


def test_choose_beta(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "choose_beta.py", folder=tmp_path)
    assert "dimensions as predicted" in printed
    assert "0.04: 30" in printed and "1.28: 1" in printed


def test_how_isometric(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "how_isometric.py", folder=tmp_path)
    assert re.search(r"toy: \|dy\| / d (1\.00\d|0\.99\d)", printed)
    assert "digits: |dy| / d 0.8" in printed


def test_which_latent(tmp_path: Path) -> None:
    assert run(EXAMPLES / "which_latent.py", folder=tmp_path).count("a linear probe") == 2


def test_how_many_latents(tmp_path: Path) -> None:
    assert "remove: 5 6 7" in run(EXAMPLES / "how_many_latents.py", folder=tmp_path)


def test_lightning_vae(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "lightning_vae.py", folder=tmp_path)
    assert "trained with 0.02" in printed and "logger has 3 rows" in printed
    assert list(tmp_path.iterdir()) == []


def test_watch_training(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "watch_training.py", folder=tmp_path)
    assert "used 3 and 3" in printed and "alarm at step" in printed
    assert list(tmp_path.iterdir()) == []


def test_density_of_toy(tmp_path: Path) -> None:
    figure = tmp_path / "density.svg"
    printed = run(EXAMPLES / "density_of_toy.py", "--out", figure, folder=tmp_path)
    assert printed.count("correlation") == 3
    assert "R = 0.9" in figure.read_text("utf-8")


def test_anomaly_thyroid(shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "odds_thyroid.npz"
    printed = run(EXAMPLES / "anomaly_thyroid.py", data, folder=tmp_path)
    assert re.search(r"F1 0\.\d+, untrained 0\.\d+", printed)
    assert list(tmp_path.iterdir()) == []


def test_real_checkpoint(shared: Path, tmp_path: Path) -> None:
    data = f"{shared}/data/mnist.npz:x_train"
    options = ["--resize", "32", "--samples", "500"]
    script = EXAMPLES / "real_checkpoint.py"
    printed = run(script, shared / FOLDER / "betaH_mnist", data, *options, folder=tmp_path)
    assert "its authors say 4" in printed


def test_the_assertions_of_an_example_can_fail(shared: Path, tmp_path: Path) -> None:
    """Data the model never saw: the example must not pass over that."""
    command = [EXAMPLES / "real_checkpoint.py", shared / FOLDER / "VAE_mnist"]
    other = f"{shared}/data/fashion_mnist.npz:x_train"
    with pytest.raises(AssertionError, match="AssertionError"):
        run(*command, other, "--resize", "32", "--samples", "200", folder=tmp_path)


def test_the_notebook() -> None:
    printed = run("-m", "tests.notebooks", "notebook.ipynb", folder=EXAMPLES)
    assert "<Result" in printed and "result.latents" not in printed
    assert len(re.findall(r'<img alt="walk along latent \d"', printed)) == 8
    assert re.search(r"beta 0\.(09|10)\d\. Sound", printed)
    assert re.search(r"active latents +8 +[5-7]\n", printed)
    assert "beta 0.1 and beta 0.4" in printed
    assert len(re.findall(r"<figure of \d{5,} bytes>", printed)) == 2
    assert "digits.html" in printed


def test_the_notebook_is_stored_without_outputs() -> None:
    text = (EXAMPLES / "notebook.ipynb").read_text("utf-8")
    assert text.count('"outputs": []') == text.count('"execution_count": null') > 0
    assert '"output_type"' not in text


def test_every_example_is_listed() -> None:
    listed = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    for path in EXAMPLES.iterdir():
        if path.suffix in {".py", ".ipynb"} and path.is_file():
            assert f"`{path.name}`" in listed, path.name
