"""Codes out and back: the numbers of a result, in every format, and walks of known length."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import isoprobe
from isoprobe.cli import main
from isoprobe.errors import IsoprobeError
from tests.theory.test_linear_vae import BETA, EIGENVALUES, covariance, exact_moments, model

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digits with every third row left out and a label."""
    path = tmp_path_factory.mktemp("codes") / "d.npz"
    rows = np.load(ROOT / "examples" / "digits.npy")[:300]
    np.savez(path, x=rows, y=np.arange(300) % 7)
    return f"{path}:x,y"


def read(path: Path) -> dict[str, np.ndarray]:
    """Columns of a file that encode wrote, without isoprobe."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return dict(file)
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return {name: file[name][()] for name in file}
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        flat = {name: table[name].to_numpy() for name in table.column_names}
    else:
        names, *lines = path.read_text().splitlines()
        cells = np.array([[float(cell) for cell in line.split(",")] for line in lines])
        flat = dict(zip(names.split(","), cells.T, strict=True))
    columns = {name: values for name, values in flat.items() if not name[-1].isdigit()}
    for name in ("mean", "std", "y"):
        columns[name] = np.stack([flat[f"{name}_{j}"] for j in range(10)], axis=1)
    return columns


@pytest.mark.parametrize("ending", ["parquet", "csv", "npz", "h5"])
def test_codes_are_the_numbers_of_a_result(data: str, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"codes.{ending}"
    assert main(["encode", str(DIGITS), "--data", data, "-o", str(out)]) == 0
    codes = read(out)
    with isoprobe.analyze(DIGITS, data, samples=None, analyses=("coordinates",)) as result:
        rows = result.samples()
    for name in ("mean", "std", "label"):
        np.testing.assert_array_equal(codes[name], rows[name])
    np.testing.assert_allclose(codes["y"], rows["y"], rtol=1e-6, atol=1e-6)
    expected = 0.5 * (codes["mean"] ** 2 + codes["std"] ** 2 - 1) - np.log(codes["std"])
    np.testing.assert_allclose(codes["kl"], expected.sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(codes["row"], np.arange(300))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_codes_do_not_depend_on_the_batch(data: str) -> None:
    whole = isoprobe.encode(DIGITS, data)
    parts = isoprobe.encode(DIGITS, data, batch_size=7)
    assert whole.keys() == parts.keys()
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-5, atol=1e-6)


def test_a_reference_gives_its_coordinates_to_other_rows(data: str, tmp_path: Path) -> None:
    reference = tmp_path / "r.h5"
    isoprobe.analyze(DIGITS, data, samples=None, analyses=("coordinates",), out=reference).close()
    every = isoprobe.encode(DIGITS, data)
    some = np.load(ROOT / "examples" / "digits.npy")[40:45]
    found = isoprobe.encode(DIGITS, some, reference)
    np.testing.assert_allclose(found["y"], every["y"][40:45], rtol=1e-5, atol=1e-5)
    with pytest.raises(IsoprobeError, match="belongs to another model"):
        isoprobe.encode(model(), np.zeros((3, 6)), reference)


def test_without_a_beta_there_is_no_y() -> None:
    unknown = model().with_facts(beta=None)
    assert "y" not in isoprobe.encode(unknown, exact_moments(covariance(), 50))
    assert "y" in isoprobe.encode(unknown, exact_moments(covariance(), 50), beta=BETA)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_table_of_codes_decodes_as_its_means_do(data: str, tmp_path: Path, ending: str) -> None:
    codes, out = tmp_path / f"c.{ending}", tmp_path / "x.npy"
    assert main(["encode", str(DIGITS), "--data", data, "-o", str(codes)]) == 0
    assert main(["decode", str(DIGITS), str(codes), "-o", str(out)]) == 0
    vae = isoprobe.load(DIGITS)
    mean = isoprobe.encode(vae, data)["mean"]
    np.testing.assert_allclose(np.load(out), vae.decode(torch.from_numpy(mean)), atol=1e-6)
    np.testing.assert_array_equal(np.load(out), isoprobe.decode(vae, str(codes)))


def test_codes_of_another_width_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "z.npy", np.zeros((4, 3)))
    out = tmp_path / "x.npy"
    assert main(["decode", str(DIGITS), str(tmp_path / "z.npy"), "-o", str(out)]) == 1
    assert "expected 10 latents a row" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(IsoprobeError, match="row 2 of array in memory is not finite"):
        isoprobe.decode(DIGITS, np.where(np.arange(4)[:, None] == 2, np.nan, np.zeros((4, 10))))


def test_draws_follow_the_prior_whatever_the_memory(tmp_path: Path) -> None:
    out = tmp_path / "s.npz"
    assert main(["sample", str(DIGITS), "--count", "4000", "--seed", "3", "-o", str(out)]) == 0
    with np.load(out) as file:
        z, x = file["z"], file["x"]
    # 4000 draws: a mean of 10 numbers lies within 5 / sqrt(4000), a variance within 7 times that
    assert np.abs(z.mean(axis=0)).max() < 5 / 4000**0.5
    assert np.abs(z.var(axis=0) - 1).max() < 7 * (1 / 4000) ** 0.5
    few = isoprobe.sample(DIGITS, 4000, seed=3, memory=1 << 20)
    np.testing.assert_allclose(few, x, atol=1e-5)


@pytest.mark.parametrize("path", ["geodesic", "y", "z"])
def test_walks_of_a_linear_vae_are_straight_and_even(path: str) -> None:
    rows = exact_moments(covariance(), 200)
    found = isoprobe.interpolate(
        model(), 3, 11, 7, path, data=rows, metric="sse", beta=BETA  # type: ignore[arg-type]
    )  # fmt: skip
    ends = isoprobe.encode(model(), rows)["mean"][[3, 11]]
    np.testing.assert_allclose(found.z, np.linspace(*ends, 7), atol=1e-5)
    # M is diag(lambda_j), or beta / 2 where a latent is idle
    tensor = np.maximum(EIGENVALUES, BETA / 2)
    step = (ends[1] - ends[0]) ** 2
    kept = EIGENVALUES > BETA / 2
    expected = (np.where(kept, tensor, BETA / 2) * step).sum() ** 0.5
    assert found.length == pytest.approx(expected, rel=1e-6)
    assert found.converged


def test_rows_themselves_can_be_the_ends() -> None:
    rows = exact_moments(covariance(), 200)
    asked = {"metric": "sse", "beta": BETA, "path": "z"}
    numbered = isoprobe.interpolate(model(), 3, 11, data=rows, **asked)
    given = isoprobe.interpolate(model(), rows[3], rows[11], **asked)
    np.testing.assert_allclose(given.z, numbered.z)


def test_the_shortest_walk_is_no_longer_than_the_straight_ones(data: str) -> None:
    lengths = {
        path: isoprobe.interpolate(DIGITS, 0, 5, path=path, data=data).length
        for path in ("geodesic", "y", "z")
    }
    assert lengths["geodesic"] < 0.99 * min(lengths["y"], lengths["z"])


def test_walks_are_written_as_pictures_and_numbers(tmp_path: Path) -> None:
    rows = tmp_path / "x.npy"
    np.save(rows, np.load(ROOT / "examples" / "digits.npy")[:20])
    given = ["walk", str(DIGITS), "--data", str(rows), "--from", "0", "--to", "5", "--path", "z"]
    assert main([*given, "-o", str(tmp_path / "w.npy"), "--steps", "5"]) == 0
    assert np.load(tmp_path / "w.npy").shape == (5, 64)
    assert main([*given, "-o", str(tmp_path / "w.png")]) == 0
    with Image.open(tmp_path / "w.png") as image:
        assert image.width > 300


def test_pictures_go_there_and_back(tmp_path: Path) -> None:
    from isoprobe.show.pictures import save_animation, save_sheet

    ramp = np.linspace(0, 1, 4)[:, None, None] * np.ones((4, 8, 8))
    save_animation(ramp, tmp_path / "w.gif")
    with Image.open(tmp_path / "w.gif") as animation:
        assert animation.n_frames == 6
    save_sheet(ramp[None], tmp_path / "w.png")
    with Image.open(tmp_path / "w.png") as image:
        sheet = np.array(image)
    assert sheet.shape == (96, 4 * 96)
    np.testing.assert_array_equal(sheet[0, ::96], [0, 85, 170, 255])


def test_rows_that_are_no_pictures_make_no_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    toy = DIGITS.with_name("toy_mix.safetensors")
    arguments = ["--data", "toy/mix:seed=0,samples=50", "--from", "0", "--to", "5", "-o", "w.gif"]
    assert main(["walk", str(toy), *arguments]) == 1
    assert "are no pictures" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "0", "--to", "5000", "-o", "w.npy"], "there is no row 5000"),
        (["--from", "0", "--to", "5", "-o", "w.jpg"], "ending in .png, .gif, .npy"),
        (["--from", "0", "--to", "5", "-o", "w.npy", "--beta", "-1"], "positive number"),
    ],
)
def test_what_cannot_be_walked_is_one_line(
    arguments: list[str], words: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["walk", str(DIGITS), "--data", data, *arguments]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(data: str, tmp_path: Path) -> None:
    out = tmp_path / "c.csv"
    out.write_text("mine")
    assert main(["encode", str(DIGITS), "--data", data, "-o", str(out)]) == 1
    assert out.read_text() == "mine"
    assert main(["encode", str(DIGITS), "--data", data, "-o", str(out), "--overwrite"]) == 0
