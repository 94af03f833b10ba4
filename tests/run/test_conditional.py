"""A model told something of each sample, through every analysis: closed forms, class by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.checkpoints.native import write_checkpoint
from isoprobe.contracts import VAE, Conditional, Facts, Posterior
from isoprobe.errors import CheckpointError, DataError, IsoprobeError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result
from isoprobe.run.drift import drift
from isoprobe.show.report import page
from isoprobe_plugins.architectures.layers import Layers
from isoprobe_plugins.architectures.linear import linear_vae
from tests.theory.test_linear_vae import BETA, covariance, exact_moments

#: covariances of the classes are multiples of one, and their means lie apart
SCALES, SHIFTS, ROWS = (1.0, 3.0, 0.5), (0.0, 2.0, -5.0), 400
CLASSES = len(SCALES)
GEOMETRY = "geometry:pairs=4"


def linear(scale: float, shift: float) -> VAE:
    mean = torch.full((6,), shift, dtype=torch.float64)
    return linear_vae(scale * torch.as_tensor(covariance()), BETA, 6, mean)


def by_class(infer: bool = False) -> VAE:
    """One linear VAE for each class, each at its optimum."""
    parts = [linear(*pair) for pair in zip(SCALES, SHIFTS, strict=True)]

    def chosen(c: torch.Tensor, values: list[torch.Tensor]) -> torch.Tensor:
        one_hot = torch.nn.functional.one_hot(c[:, 0].long(), CLASSES).to(values[0].dtype)
        return torch.einsum("bk,kbi->bi", one_hot, torch.stack(values))

    def encode(x: torch.Tensor, c: torch.Tensor) -> Posterior:
        found = [part.encode(x) for part in parts]  # type: ignore[misc]
        return Posterior(chosen(c, [p.mean for p in found]), chosen(c, [p.std for p in found]))

    def decode(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return chosen(c, [part.decode(z) for part in parts])

    told = Conditional(decode, encode, (CLASSES,), "class", c_of if infer else None)
    return VAE.told(
        told, input_shape=(6,), latent_shape=(6,), facts=Facts(metric="sse", beta=BETA),
        name="by class", module=torch.nn.ModuleList([part.module for part in parts]),  # type: ignore[misc]
    )  # fmt: skip


def c_of(x: torch.Tensor) -> torch.Tensor:
    """The class whose mean is the nearest."""
    means = x.mean(dim=1, keepdim=True)
    return (means - torch.tensor(SHIFTS, dtype=x.dtype)).abs().argmin(1, keepdim=True).to(x.dtype)


def rows() -> tuple[np.ndarray, np.ndarray]:
    parts = [
        exact_moments(scale * covariance(), ROWS) + shift
        for scale, shift in zip(SCALES, SHIFTS, strict=True)
    ]
    order = np.random.default_rng(0).permutation(CLASSES * ROWS)
    labels = np.repeat(np.arange(CLASSES), ROWS)
    return np.concatenate(parts)[order], labels[order]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    x, y = rows()
    np.savez(folder / "rows.npz", x=x, y=y)
    np.save(folder / "x.npy", x)
    np.savez(folder / "y.npz", y=y[:, None])
    return folder


@pytest.fixture(scope="module")
def whole(files: Path) -> Result:
    names = [n for n in installed().names("analysis") if n != "geometry"]
    return isoprobe.analyze(
        by_class(), f"{files}/rows.npz:x,y", analyses=[*names, GEOMETRY], samples=None, seed=1,
        out=files / "whole.h5",
    )  # fmt: skip


def test_the_identity_holds_for_every_row_at_its_own_condition(whole: Result) -> None:
    np.testing.assert_allclose(whole["isometry"]["residual_mean"].values, 0, atol=1e-6)
    assert whole.attrs["beta_recovered_pullback"] == pytest.approx(BETA, rel=1e-6)
    off = whole["isometry"]["stationary_residual_mean"].values[:5]
    assert (np.abs(off) < 4 * whole["isometry"]["stationary_norm_se"].values[:5]).all()


def test_every_figure_is_the_mean_over_classes_of_closed_forms(whole: Result) -> None:
    each = [
        isoprobe.analyze(linear(a, b), exact_moments(a * covariance(), ROWS) + b, samples=None)
        for a, b in zip(SCALES, SHIFTS, strict=True)
    ]
    for group, names in {
        "overview": ("kl_mean", "variance_mean", "inverse_variance_mean",
                     "distortion_transform_mean"),
        "isometry": ("norm_mean", "pullback_mean"),
    }.items():  # fmt: skip
        for name in names:
            expected = np.mean([one[group][name].values for one in each], axis=0)
            np.testing.assert_allclose(whole[group][name].values, expected, rtol=1e-6, atol=1e-9)


def test_rows_record_what_the_model_was_told(whole: Result) -> None:
    columns = whole.samples(names=["told", "label"])
    np.testing.assert_array_equal(columns["told"][:, 0], columns["label"])
    assert whole.attrs["conditions"] == "told class of each row: the label"


def test_density_is_that_of_each_class_with_its_own_mean_and_covariance(whole: Result) -> None:
    """Idle directions carry beta / 4, not beta / 2, so the bound is loose by a constant."""
    x, y = rows()
    expected = np.empty(len(x))
    for k, (scale, shift) in enumerate(zip(SCALES, SHIFTS, strict=True)):
        values, vectors = np.linalg.eigh(scale * covariance())
        values = np.where(values > BETA / 2, values, BETA / 2)
        at = (x[y == k] - shift) @ vectors
        logs = np.log(2 * np.pi * values) + at**2 / values
        expected[y == k] = -0.5 * logs.sum(axis=1)
    found = whole.samples(names=["log_density_absolute"])["log_density_absolute"]
    gap = found - expected
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap)) + 1e-6


def test_distances_join_rows_of_one_class(whole: Result) -> None:
    given = whole.samples(names=["told"])["told"][:, 0]
    assert len(set(given[whole["geometry"]["pair_rows"].values.ravel()])) == 1


@pytest.mark.parametrize(
    "told",
    [{"condition": "y.npz:y"}, {"condition": rows()[1]}, {"condition": rows()[1].tolist()}],
    ids=["spec", "array", "list"],
)
def test_the_ways_to_tell_a_model_agree(files: Path, whole: Result, told: dict) -> None:
    given = dict(told)
    if isinstance(given["condition"], str):
        given["condition"] = f"{files}/{given['condition']}"
    other = isoprobe.analyze(by_class(), f"{files}/x.npy", samples=None, seed=1, **given)
    for group, name in (("overview", "kl_mean"), ("isometry", "stationary_norm_mean")):
        np.testing.assert_array_equal(other[group][name].values, whole[group][name].values)


def test_what_a_model_finds_itself_is_as_good_as_told(files: Path) -> None:
    x = torch.from_numpy(rows()[0])
    found = isoprobe.analyze(by_class(infer=True), f"{files}/x.npy", samples=None)
    told = isoprobe.analyze(by_class(), f"{files}/x.npy", condition=c_of(x), samples=None)
    for group, name in (("overview", "kl_mean"), ("isometry", "stationary_norm_mean")):
        np.testing.assert_array_equal(found[group][name].values, told[group][name].values)
    assert found.attrs["conditions"].endswith("which the model finds itself")
    # what is said explicitly comes before it
    given = isoprobe.analyze(by_class(infer=True), f"{files}/x.npy", condition=0, samples=100)
    assert given.attrs["condition"] == "class 0"


def test_a_sampled_pullback_keeps_rows_and_conditions_together(files: Path) -> None:
    for extra in ({}, {"batch_size": 7}, {"memory": 1 << 16}):
        found = isoprobe.analyze(
            by_class(), f"{files}/rows.npz:x,y", samples=200, analyses=("isometry",),
            pullback="probe", **extra,
        )  # fmt: skip
        np.testing.assert_allclose(found["isometry"]["residual_mean"].values, 0, atol=0.02)
    for method in ("exact", "finite-difference"):
        found = isoprobe.analyze(
            by_class(), f"{files}/rows.npz:x,y", samples=200, analyses=("isometry",),
            pullback=method, batch_size=7, memory=1 << 14,
        )  # fmt: skip
        np.testing.assert_allclose(found["isometry"]["residual_mean"].values, 0, atol=2e-5)


def test_one_value_for_all_rows_is_the_model_of_that_class(files: Path) -> None:
    vae = by_class()
    held = isoprobe.analyze(vae, f"{files}/x.npy", condition="1", samples=300)
    plain = isoprobe.analyze(linear(SCALES[1], SHIFTS[1]), f"{files}/x.npy", samples=300)
    assert held.attrs["condition"] == "class 1"
    np.testing.assert_allclose(
        held["overview"]["distortion_mean"].values, plain["overview"]["distortion_mean"].values
    )
    drawn = isoprobe.sample(vae, 5, condition=2)
    np.testing.assert_allclose(
        drawn, isoprobe.sample(linear(SCALES[2], SHIFTS[2]), 5), rtol=1e-6, atol=1e-6
    )


def test_scores_take_each_row_at_its_condition(files: Path, whole: Result) -> None:
    found = isoprobe.score(by_class(), f"{files}/rows.npz:x,y", files / "whole.h5", samples=50)
    alone = isoprobe.score(
        by_class(), f"{files}/rows.npz:x,y", files / "whole.h5", samples=50, batch_size=3
    )
    np.testing.assert_allclose(found["score"], alone["score"], rtol=1e-9)
    score = whole.samples(names=["score"])["score"]
    np.testing.assert_allclose(found["score"], score[found["row"]], rtol=1e-9)


def test_drift_tells_each_row_its_condition(files: Path, whole: Result) -> None:
    """Rows told another class than their own are seen to have moved, those told theirs are not."""
    model, x, y = by_class(), str(files / "x.npy"), rows()[1]
    right = drift(model, x, files / "whole.h5", condition=y)
    wrong = drift(model, x, files / "whole.h5", condition=(y + 1) % 3)
    assert [found.document()["alarm"] for found in (right, wrong)] == [False, True]


def test_codes_are_those_of_each_rows_condition(files: Path, whole: Result) -> None:
    found = isoprobe.encode(by_class(), f"{files}/rows.npz:x,y")
    np.testing.assert_allclose(found["mean"], whole.samples(names=["mean"])["mean"])


def test_the_report_is_written(files: Path, whole: Result) -> None:
    with Result.open(files / "whole.h5") as result:
        text = page.render(result)
    assert "told class of each row" in text


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        ("x.npy", {}, DataError, "no labels: name them"),
        ("x.npy", {"condition": "3"}, OptionError, "a class 0 to 2.*has 3"),
        ("x.npy", {"condition": np.zeros((1200, 2))}, DataError, "found 2 columns"),
        ("x.npy", {"condition": np.zeros(7)}, DataError, "7 conditions.*1,200 rows"),
        ("x.npy", {"condition": np.full(1200, 0.5)}, DataError, "row 0 has 0.5"),
        ("prior", {}, DataError, "condition=VALUE for all"),
        ("rows.npz:x,y", {"analyses": (GEOMETRY,), "pullback": "probe"}, OptionError, "geometry"),
    ],
)
def test_what_cannot_be_told_is_said_in_one_line(
    files: Path, data: str, options: dict, error: type[IsoprobeError], words: str
) -> None:
    spec = data if data == "prior" else f"{files}/{data}"
    with pytest.raises(error, match=words) as caught:
        isoprobe.analyze(by_class(), spec, **options)
    assert "\n" not in str(caught.value)


def test_a_plain_model_takes_no_condition(files: Path) -> None:
    with pytest.raises(OptionError, match="takes no condition"):
        isoprobe.analyze(linear(1.0, 0.0), f"{files}/x.npy", condition="1")
    with pytest.raises(OptionError, match="takes no condition"):
        isoprobe.analyze(linear(1.0, 0.0), f"{files}/x.npy", condition=f"{files}/y.npz:y")


CONFIG = {
    "input_shape": [2, 4, 4],
    "latent_size": 3,
    "encoder": [
        {"op": "condition", "form": "one_hot", "classes": 3},
        {"op": "conv", "channels": 4, "kernel": 3, "padding": 1},
        {"op": "flatten"},
        {"op": "condition", "form": "embedding", "classes": 3, "width": 5, "first": True},
    ],
    "head": {"mean": [{"op": "linear", "width": 3}], "scale": [{"op": "linear", "width": 3}]},
    "decoder": [
        {"op": "condition", "form": "value", "column": 1},
        {"op": "condition", "form": "one_hot", "classes": 3},
        {"op": "linear", "width": 32},
        {"op": "reshape", "shape": [2, 4, 4]},
    ],
    "output": "sigmoid",
    "condition": {"classes": [3, 0], "words": "class and size"},
}


def test_a_native_checkpoint_keeps_what_it_is_told(tmp_path: Path) -> None:
    from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective

    torch.manual_seed(0)
    built = Layers().build(CONFIG)
    manifest = Manifest(FORMAT_VERSION, "layers", CONFIG, 3, Objective("bce", 1.0))
    write_checkpoint(tmp_path / "m.safetensors", built.encoder, built.decoder, manifest)
    x, c = torch.rand(5, 2, 4, 4), torch.tensor([[0, 1.5], [1, 2], [2, 0.5], [0, 3], [1, 1]])
    vae = isoprobe.load(tmp_path / "m.safetensors").on(x, c)
    expected = built.encoder(x, c)
    torch.testing.assert_close(vae.encode(x).mean, expected[0])  # type: ignore[misc]
    torch.testing.assert_close(vae.decode(expected[0]), built.decoder(expected[0], c))
    # by hand: the one-hot code stands after the number that is told
    flat = torch.cat([expected[0], c[:, 1:], torch.nn.functional.one_hot(c[:, 0].long(), 3)], 1)
    by_hand = torch.sigmoid(built.decoder.body[2](flat)).reshape(5, 2, 4, 4)
    torch.testing.assert_close(vae.decode(expected[0]), by_hand)
    found = isoprobe.analyze(
        tmp_path / "m.safetensors", x.numpy(), condition=c.numpy(), analyses=("isometry",)
    )
    assert np.isfinite(found["isometry"]["norm_mean"].values).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"condition": {"classes": [4, 0]}}, "joins condition 0 with 3 classes"),
        ({"condition": {"classes": [3]}}, "joins condition 1"),
        ({"condition": None}, "joins condition 0"),
        ({"condition": {"classes": [3, 0], "infer": "codes"}}, "infer = codes needs one for each"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        Layers().build({**CONFIG, **changes})
