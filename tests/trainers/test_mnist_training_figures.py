"""Figures 4, 5, 27 and 28: which models, what is averaged over which latents."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from isoprobe.contracts import Dataset, Variable
from isoprobe.errors import CheckpointError
from isoprobe.registry.lookup import installed
from isoprobe_trainers.commands.reproduce import Reproduction
from isoprobe_trainers.common.records import Record
from isoprobe_trainers.images.celeba_source import FacesSource
from isoprobe_trainers.images.experiments import (
    PRINTED,
    WALKED,
    Latents,
    Sizes,
    provide,
    report,
    reproduce,
    runs_of,
)
from isoprobe_trainers.images.mnist_source import DigitsDataset, DigitsSource
from isoprobe_trainers.images.train import digits_run
from isoprobe_trainers.images.walks import Walks, walks_of
from isoprobe_trainers.images.walks import report as report_walks


def test_each_figure_has_the_models_of_the_paper():
    described = {
        name: [
            (r.config["latent_size"], round(1 / r.beta, 6), r.decomposed, r.iterations)
            for r in runs_of(name, quick=False)
        ]
        for name in (*PRINTED, *WALKED)
    }
    assert described == {
        "fig6": [(32, 1000, True, 300_000)],
        "fig26": [(32, 1000, False, 300_000), (32, 1000, True, 300_000)],
        "fig4": [(32, 1000, False, 300_000)],
        "fig5": [(32, 1000, True, 300_000)],
        "fig27": [(256, 10_000, False, 300_000), (256, 10_000, True, 300_000)],
        "fig28": [
            (32, pytest.approx(2000 / 784, abs=1e-6), False, 50_000),
            (64, pytest.approx(10_000 / 784, abs=1e-6), False, 50_000),
        ],
    }
    for name in PRINTED:
        pairs = zip(runs_of(name, quick=True), runs_of(name, quick=False), strict=True)
        assert all(short.iterations < full.iterations for short, full in pairs)


def test_the_report_averages_used_active_and_collapsed_latents_apart():
    found = Latents(
        inverse_variance=np.array([50.0, 20.0, 8.0, 1.0]),
        norm=np.array([0.9, 1.1, 0.7, 0.0]),
        residual=np.array([-0.02, 0.04, 0.01, 0.0]),
        active=np.array([True, True, True, False]),
    )
    text = report(runs_of("fig28", quick=True)[0], found, "close to 1")
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[2:5]]
    assert [row[1:] for row in cells] == [
        ["2", "1.000", "0.100", "+0.010"],
        ["1", "0.700", "0.000", "+0.010"],
        ["1", "0.000", "0.000", "+0.000"],
    ]


@pytest.fixture
def digits(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    made = DigitsDataset("mnist/train", images, np.zeros(40, dtype=np.uint8))
    monkeypatch.setattr(DigitsSource, "open", lambda self, spec, vae=None: made)


SMALL = Sizes(
    digits=((3, 784.0), (2, 784.0)), batch=8, widths=(16,), channels=2, dense=(8,),
    quick_digits=4, quick_faces=1, quick_batch=4,
)  # fmt: skip


def quickly(name, out, capsys):
    """Reproduce a figure at small sizes; return what is printed."""
    settings = Reproduction(
        quick=True, out=out, seeds=1, device="cpu", compile_step=False, records=out / "kept"
    )
    reproduce([name], settings, SMALL)
    settings.attempts.conclude()
    return capsys.readouterr().out


def test_a_figure_is_trained_analysed_and_reused(digits, tmp_path, capsys):
    printed = quickly("fig28", tmp_path, capsys)
    kept = msgspec.json.decode(
        (tmp_path / "kept" / "mnist_lam784_n3_seed0.json").read_bytes(), type=Record
    )
    assert (kept.model, kept.device, kept.schedule) == (
        "MNIST, 3 latents", "cpu", "4 of 50,000 iterations"
    )  # fmt: skip
    assert kept.values["inverse_variance"] == sorted(kept.values["inverse_variance"], reverse=True)
    assert printed.count("4 iterations; mean norm of the used latents") == 2
    name = "mnist_lam784_n3_seed0"
    images = tmp_path / "quick" / "images"
    paths = [images / f"{name}.safetensors", images / f"{name}_norms500.h5"]
    drawn = tmp_path / "quick" / "figures" / f"fig28_{name}.svg"
    assert f"figure: {drawn}; result: {paths[1]}" in printed
    text = drawn.read_text()
    assert "prior" in text
    assert "norm" in text
    written = [path.stat().st_mtime_ns for path in paths]
    assert quickly("fig28", tmp_path, capsys) == printed
    assert [path.stat().st_mtime_ns for path in paths] == written


# --------------------------------------------------------------------------- walks


def linear_walks(scales):
    """A result of walks of a linear decoder: picture = sum_j scale_j z_j e_j, of unit pixels."""
    z = np.tile(np.linspace(-2, 2, 5), (len(scales), 1))
    images = np.zeros((len(scales), 5, 1, 2, 3), np.float32)
    for j, scale in enumerate(scales):
        images[j, :, 0, 0, j] = scale * z[j]
    group = {
        "latents": np.arange(len(scales)),
        "z": z,
        "images": images,
    }
    inverse = Variable(("latent",), 1 + 2 / 0.5 * np.square(scales), "E[sigma^-2]")
    return {
        "overview": {"inverse_variance_mean": inverse},
        "traversal": {k: Variable(("rank",), v, k) for k, v in group.items()},
    }


def test_walks_of_a_linear_decoder_change_as_its_columns_do():
    """D along a walk is z^2 scale^2, and sigma^-2 = 1 + (2/beta) scale^2 foretells just that."""
    scales = np.array([3.0, 0.5, 1.0])
    walks = walks_of(linear_walks(scales), installed().metric("sse"), 0.5)
    assert walks.latents.tolist() == [0, 2, 1]
    np.testing.assert_allclose(walks.change, 2 * np.array([9.0, 1.0, 0.25]))
    np.testing.assert_allclose(walks.foretold, walks.change)
    assert walks.rank_correlation == pytest.approx(1)
    text = report_walks("linear", walks, (1, 3, 32))
    assert "| 1 " in text
    assert "| 3 " in text
    assert "| 32 " not in text
    assert text.endswith("over 3 latents: 1.000")


def test_a_walk_that_stands_still_changes_nothing_under_cross_entropy():
    result = linear_walks(np.array([0.0, 0.0]))
    result["traversal"]["images"].values[:] = 0.3
    walks = walks_of(result, installed().metric("bce"), 0.5)
    np.testing.assert_allclose(walks.change, 0, atol=1e-6)


def test_the_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    change, inverse = rng.random(20), rng.random(20)
    walks = Walks(np.arange(20), inverse, change, change)
    assert walks.rank_correlation == pytest.approx(spearmanr(change, inverse).statistic)


def test_walks_are_drawn_from_a_small_model(monkeypatch, tmp_path, capsys):
    """Figure 6 from training to picture, with faces and network made small."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    made = ArrayFaces(noise)
    monkeypatch.setattr(FacesSource, "open", lambda self, spec, vae=None: made)
    printed = quickly("fig6", tmp_path, capsys)
    assert "rank correlation of the change with E[sigma^-2] over 32 latents" in printed
    (drawn,) = (tmp_path / "quick" / "figures").iterdir()
    assert drawn.name == "fig6_celeba64_decomposed_n32_c2_seed0.png"
    with Image.open(drawn) as picture:
        assert min(picture.size) > 500


class ArrayFaces(Dataset):
    """Pictures in memory in place of files."""

    dtype, name, shape = "uint8", "celeba64/train", (64, 64, 3)

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def read(self, indices):
        return self.pictures[indices]

    def fingerprint(self):
        return "made"


def test_a_checkpoint_of_another_schedule_is_not_passed_off(digits, tmp_path):
    run = runs_of("fig28", quick=True, sizes=SMALL)[0]
    provide(run, tmp_path, "cpu")
    longer = digits_run("mnist", 3, 784.0, iterations=9, batch=8, widths=(16,))
    with pytest.raises(CheckpointError, match="another schedule"):
        provide(longer, tmp_path, "cpu")
