"""CelebA: images made here in both layouts, errors, the paper's networks, the command."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import isoprobe
from isoprobe.cli.group import cli
from isoprobe.errors import DataError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.run.opening import open_data
from isoprobe_trainers.common import files
from isoprobe_trainers.images.train import faces_run


def jpeg(size, seed):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BILINEAR).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(files.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def subset(folder):
    """Twelve images for training and three for the test, listed out of order."""
    with zipfile.ZipFile(folder / "celeba64_subset.zip", "w") as archive:
        rows = [(i, "train" if i < 12 else "test") for i in reversed(range(15))]
        archive.writestr("index.csv", "image_id,split\n" + "".join(f"{i},{s}\n" for i, s in rows))
        for i, _ in rows:
            archive.writestr(f"{i:06d}.jpg", jpeg((64, 64), i))
    return folder


def opened(part):
    return open_data(installed(), f"celeba64/{part}", None, [])


def test_the_subset_is_read_in_the_order_of_its_numbers(subset):
    train, test = opened("train"), opened("test")
    assert (len(train), len(test), train.shape, train.dtype) == (12, 3, (64, 64, 3), "uint8")
    expected = np.asarray(Image.open(io.BytesIO(jpeg((64, 64), 13))))
    assert np.array_equal(test.read(np.array([1]))[0], expected)
    assert train.fingerprint() != test.fingerprint()


def test_half_the_side_is_means_over_four_pixels(subset):
    whole, half = opened("train"), open_data(installed(), "celeba32/train", None, [])
    assert half.shape == (32, 32, 3)
    index = np.array([0, 5])
    images, found = whole.read(index).astype(float), half.read(index)
    assert found.dtype == np.uint8
    for i, j in ((0, 0), (7, 21), (31, 31)):
        block = images[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
        assert np.array_equal(found[:, i, j], np.floor(block + 0.5))


def test_the_size_is_said_by_the_run():
    run = faces_run(32, size=32)
    assert run.name.startswith("celeba32_plain")
    assert run.dataset == "celeba32/train"
    assert run.config["input_shape"] == [3, 32, 32]


def test_official_images_are_cropped_to_their_middle_square(folder):
    (folder / "img_align_celeba").mkdir()
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[:20], pixels[198:] = 255, 255  # what the crop leaves out
    pixels[100:, :, 0] = 200
    for number in (1, 2):
        Image.fromarray(pixels).save(folder / "img_align_celeba" / f"{number:06d}.jpg", quality=100)
    (folder / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 2\n")
    (image,) = opened("train").read(np.array([0]))
    assert image.shape == (64, 64, 3)
    assert image[..., 1:].max() < 40
    red_from = int(np.argmax(image[:, 32, 0] > 100))
    assert abs(red_from - (100 - 20) * 64 / 178) <= 1
    assert len(opened("test")) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "is missing; expected index.csv.*mmlab"),
        ("cut", "damaged or another archive"),
        ("no index", "damaged or another archive"),
        ("no image", "has no member '000000.jpg'"),
        ("broken image", "no whole image"),
        ("large image", "80 x 64 pixels; expected"),
    ],
)
def test_damage_is_one_clear_line(subset, damage, message):
    path = subset / "celeba64_subset.zip"
    good = path.read_bytes()
    index = "image_id,split\n0,train\n"
    path.unlink()
    if damage == "cut":
        path.write_bytes(good[:500])
    elif damage != "missing":
        with zipfile.ZipFile(path, "w") as archive:
            if damage != "no index":
                archive.writestr("index.csv", index)
            if damage == "broken image":
                archive.writestr("000000.jpg", b"no image")
            if damage == "large image":
                archive.writestr("000000.jpg", jpeg((80, 64), 0))
    with pytest.raises(DataError, match=message) as caught:
        opened("train").read(np.array([0]))
    assert "\n" not in str(caught.value)


def test_unknown_parts_and_sizes_are_refused(subset):
    with pytest.raises(DataError, match="did you mean 'test'"):
        opened("tset")
    with pytest.raises(DataError, match="no images of the part 'validation'"):
        opened("validation")
    with pytest.raises(OptionError, match="32 or 256 latents; found 33"):
        faces_run(33)


def test_the_papers_models_are_those_of_appendices_c_and_e():
    small, large = faces_run(32), faces_run(256, decomposed=True)
    assert (small.beta, small.iterations, small.batch) == (0.001, 300_000, 64)
    assert (large.beta, large.decomposed, small.decomposed) == (0.0001, True, False)
    networks = installed().architecture("gdn").build(dict(large.config))
    dense = [tuple(p.shape) for p in networks.encoder.parameters() if p.ndim == 2]
    assert dense[4:] == [(2048, 1024), (256, 2048), (256, 2048)]
    assert installed().metric(small.metric).options()["window"] == 11


def test_a_small_training_runs_and_its_checkpoint_knows_its_data(subset, tmp_path):
    arguments = ["train", "celeba", "--channels", "2", "--batch-size", "4", "--iterations", "2"]
    out = tmp_path / "out"
    done = CliRunner().invoke(
        cli, [*arguments, "--decomposed", "--out", str(out), "--device", "cpu", "--samples", "6"]
    )
    assert done.exit_code == 0, done.output
    path = out / "celeba64_decomposed_n32_c2_seed0.safetensors"
    assert done.stdout.split() == [str(path)]
    vae = isoprobe.load(path)
    assert (vae.facts.dataset, vae.facts.decomposed) == ("celeba64/train", True)
    x = opened("test").read(np.arange(3)).transpose(0, 3, 1, 2) / 255
    with isoprobe.analyze(vae, data=x.astype(np.float32), analyses=["isometry"]) as result:
        assert result.attrs["beta"] == 0.001
