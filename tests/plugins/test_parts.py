"""The KL in parts, information, truncation and geometry of whole runs, on the linear VAE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import VAE, Posterior
from isoprobe.errors import IsoprobeError
from isoprobe.results.reader import Result
from isoprobe_plugins.architectures.linear import linear_vae
from tests.theory.test_linear_vae import BETA, EIGENVALUES, KEPT, covariance, exact_moments, model

ANALYSES = ("kl-parts", "truncation", "geometry")
USED = EIGENVALUES[KEPT]


@pytest.fixture(scope="module")
def result() -> Result:
    return isoprobe.analyze(
        model(), exact_moments(covariance()), metric="sse", beta=BETA, samples=None,
        analyses=ANALYSES,
    )  # fmt: skip


def test_the_linear_vae_matches_its_prior_latent_by_latent(result: Result) -> None:
    """q(z_j) = N(0, 1) for used and idle latents, so all of KL_j is I(x; z_j)."""
    group = result["kl-parts"]
    rate = np.where(KEPT, 0.5 * np.log(EIGENVALUES / (BETA / 2)), 0)
    slack = 4 * group["information_se"].values + 2 * group["bias"].values + 1e-6
    assert (np.abs(group["information"].values - rate) < slack).all()
    assert (group["marginal_kl"].values < 0.03).all()
    low, high = float(group["joint_low"].values), float(group["joint_high"].values)
    assert low <= rate.sum() <= high
    assert float(group["tc_low"].values) == pytest.approx(0, abs=0.05)
    np.testing.assert_array_equal(group["active_unit"].values, KEPT)
    assert int(group["active_units"].values) == KEPT.sum()
    assert str(group["state"].values.item()) == "saturated"
    assert "saturated: log N = 8.32" in str(group["line"].values.item())


def test_rows_can_be_fewer(result: Result) -> None:
    few = isoprobe.analyze(
        model(), exact_moments(covariance()), metric="sse", beta=BETA, samples=500,
        analyses=("kl-parts:rows=200",),
    )  # fmt: skip
    assert int(few["kl-parts"]["rows"].values) == 200
    with pytest.raises(IsoprobeError, match="rows is a number of at least 2; found 1"):
        isoprobe.analyze(model(), np.zeros((4, 6)), metric="sse", analyses=("kl-parts:rows=1",))


def test_truncation_is_as_predicted_for_every_k(result: Result) -> None:
    group = result["truncation"]
    np.testing.assert_array_equal(group["kept"].values, np.arange(7))
    # the closed forms, on the second moments of the rows that were decoded
    predicted = group["from_check_predicted"].values
    costs = (USED - BETA / 2) ** 2 / USED
    expected = np.append(np.cumsum(costs[::-1])[::-1], [0, 0])
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)
    measured, error = group["from_check"].values, group["from_check_se"].values
    assert (np.abs(measured - predicted) <= 4 * error + 1e-9).all()
    data, error = group["distortion"].values, group["distortion_se"].values
    assert (np.abs(data - group["distortion_predicted"].values) <= 4 * error + 1e-9).all()
    assert group["images"].dims[:2] == ("pictured", "picture")
    np.testing.assert_array_equal(group["pictured"].values, [0, 1, 2, 4, 6])


def test_truncation_on_exact_moments_holds_to_the_last_digit() -> None:
    group = isoprobe.analyze(
        model(), exact_moments(covariance(), 500), metric="sse", beta=BETA, samples=None,
        analyses=("truncation:drop=zero",),
    )["truncation"]  # fmt: skip
    for name in ("from_check", "distortion"):
        measured, predicted = group[name].values, group[f"{name}_predicted"].values
        np.testing.assert_allclose(measured, predicted, atol=1e-6)
    # 4, 2 and 1 of 7.8 are not quite 90 %, 0.5 more are
    assert [int(group[f"latents_{share}"].values) for share in (90, 95, 99)] == [4, 4, 5]


def test_the_linear_vae_is_isometric_at_a_distance(result: Result) -> None:
    group = result["geometry"]
    ratio = group["distance_y"].values / group["geodesic"].values
    np.testing.assert_allclose(ratio, 1, atol=1e-6)
    assert float(group["global_isometry"].values) == pytest.approx(1, abs=1e-6)
    assert float(group["excess_y"].values) == pytest.approx(0, abs=1e-6)
    assert float(group["unconverged"].values) == 0
    rows = group["pair_rows"].values
    assert len(np.unique(rows)) == rows.size == 48
    chord = group["chord"].values
    np.testing.assert_allclose(chord, group["geodesic"].values, rtol=1e-6)


def test_volume_and_condition_are_those_of_the_eigenvalues(result: Result) -> None:
    spectrum = np.where(KEPT, EIGENVALUES, BETA / 2)
    samples = result["samples"]
    np.testing.assert_allclose(
        samples["log_volume"].values, 0.5 * np.log(spectrum).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(samples["condition"].values, 4 / (BETA / 2), rtol=1e-5)
    np.testing.assert_allclose(
        samples["relaxed_distortion"].values, spectrum.var() / spectrum.mean() ** 2, rtol=1e-5
    )


def labelled(path: Path) -> str:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, size=2000)
    rows = generator.normal(size=(2000, 6)) * [1, 1, 1, 1, 1, 1]
    rows[:, 0] += 4.0 * label
    np.savez(path, x=rows, y=label)
    return f"{path}:x,y"


def test_one_label_has_bits_and_no_gap(tmp_path: Path) -> None:
    vae = linear_vae(torch.diag(torch.tensor([5.0, 1, 1, 1, 1, 1])).double(), 0.1, latent_size=6)
    found = isoprobe.analyze(
        vae, labelled(tmp_path / "d.npz"), metric="sse", beta=0.1, samples=None,
        analyses=("information",),
    )  # fmt: skip
    group = found["information"]
    bits = group["bits"].values[0]
    first = int(group["first"].values[0])
    assert bits[first] > 0.7
    assert (np.delete(bits, first) < 0.05).all()
    assert (np.delete(group["bits_low"].values[0], first) <= 0).all()
    assert group["bits_permuted"].values.max() < 0.05
    assert float(group["entropy"].values[0]) == pytest.approx(1, abs=0.01)
    # two Gaussians four standard deviations apart are told apart at 97.7 %
    assert (
        group["probe_accuracy_low"].values[0, 0] < 0.977 < group["probe_accuracy_high"].values[0, 0]
    )
    assert "gap" not in group
    assert "modularity" not in group
    np.testing.assert_array_equal(group["probe_latents"].values, np.arange(1, 7))


def test_several_factors_have_gaps_names_and_modularity(tmp_path: Path) -> None:
    """Two signs, each carried by a latent of its own, and one that is the other again."""
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 2, size=(2, 2000))
    rows = generator.normal(size=(2000, 6))
    rows[:, 0] += 4.0 * first
    rows[:, 1] += 4.0 * second
    path = tmp_path / "d.npz"
    np.savez(path, x=rows, left=first, right=np.stack([second, first], axis=1))
    vae = linear_vae(torch.diag(torch.tensor([5.0, 5, 1, 1, 1, 1])).double(), 0.1, latent_size=6)
    with isoprobe.analyze(
        vae, f"{path}:x,left,right", metric="sse", beta=0.1, samples=None,
        analyses=("information", "geometry:pairs=4"),
    ) as found:  # fmt: skip
        group = found["information"]
        assert [str(n) for n in group["factor_name"].values] == ["left", "right_0", "right_1"]
        np.testing.assert_array_equal(group["bits"].values[0], group["bits"].values[2])
        assert group["first"].values[0] != group["first"].values[1]
        assert (group["gap"].values > 0.7).all()
        # a latent of one factor alone is modular, one of two of three is half so
        modularity = group["modularity"].values
        assert modularity[group["first"].values[1]] == pytest.approx(1, abs=0.05)
        assert modularity[group["first"].values[0]] == pytest.approx(0.25, abs=0.05)
        assert found["samples"]["label"].dims == ("sample", "factor")
        assert found["geometry"]["pair_labels"].values.shape == (4, 2, 3)
    with pytest.raises(IsoprobeError, match="needs one label a row; found 3"):
        isoprobe.analyze(vae, f"{path}:x,left,right", metric="sse", beta=0.1, analyses=("anomaly",))
    codes = isoprobe.encode(vae, f"{path}:x,left,right", samples=50)
    assert codes["label"].shape == (50, 3)


def test_information_needs_labels() -> None:
    with pytest.raises(IsoprobeError, match="needs rows with labels"):
        isoprobe.analyze(model(), np.zeros((9, 6)), metric="sse", analyses=("information",))


def test_geometry_needs_the_whole_pullback() -> None:
    with pytest.raises(IsoprobeError, match="geometry"):
        isoprobe.analyze(
            model(), np.zeros((9, 6)), metric="sse", analyses=("geometry",), pullback="probe"
        )


@pytest.mark.parametrize(
    ("spec", "words"),
    [("geometry:effort=none", "effort 'quick' or 'thorough'"), ("truncation:drop=x", "drop is")],
)
def test_wrong_options_are_named(spec: str, words: str) -> None:
    with pytest.raises(IsoprobeError, match=words):
        isoprobe.analyze(model(), np.zeros((9, 6)), metric="sse", analyses=(spec,))


# --------------------------------------------------------------------------- real weights


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "values", "errors"),
    [
        # KL, sum I_j, sum KL(q_j || p), L, upper bound (c)
        ("VAE_mnist", (19.345, 19.301, 0.044, 9.131, 18.85), (0.038, 0.038, 0.003, 0.004, 0.09)),
        ("betaH_mnist", (10.693, 10.663, 0.030, 8.324, 10.41), (0.025, 0.025, 0.002, 0.014, 0.07)),
    ],
)
def test_kl_of_mnist_models_in_parts(
    shared: Path, name: str, values: tuple[float, ...], errors: tuple[float, ...]
) -> None:
    """The first 10,000 training rows, beside figures of another program on other draws."""
    from isoprobe.theory.kl_parts import kl_parts

    vae = isoprobe.load(shared / "checkpoints" / "YannDubs+disentangling-vae" / name)
    with np.load(shared / "data" / "mnist.npz") as arrays:
        x = torch.from_numpy(arrays["x_train"][:10_000])[:, None].float() / 255
    x = torch.nn.functional.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
    assert vae.encode is not None
    with torch.no_grad():
        found = [vae.encode(block) for block in torch.split(x, 500)]
    mean, std = (torch.cat([getattr(q, a) for q in found]).numpy() for a in ("mean", "std"))
    parts = kl_parts(mean, std, seed=0)
    assert parts.joint is not None
    widened = parts.joint.upper[2]
    bounds = (parts.kl, parts.information_sum, parts.marginal_sum, parts.joint.lower, widened)
    for bound, value, error in zip(bounds, values, errors, strict=True):
        assert abs(bound.value - value) < 2 * np.hypot(error, bound.se)
    assert parts.state == "saturated"


@pytest.fixture(scope="module")
def turned() -> Result:
    """A linear VAE on whose latents neither rows nor columns stand alone, off its optimum."""
    root = np.linalg.cholesky(covariance())
    return isoprobe.analyze(
        model(), exact_moments(root @ root.T, 300), metric="sse", beta=2 * BETA, samples=None,
        analyses=("maps:rows=300,latents=6",),
    )  # fmt: skip


def test_maps_of_a_linear_vae_are_its_two_matrices(turned: Result) -> None:
    group, vae = turned["maps"], model()
    order = group["latents"].values
    at = torch.zeros(1, 6, dtype=torch.float64)
    columns = torch.func.jacfwd(vae.decode)(at)[0, :, 0].T.detach().numpy()[order]
    rows = torch.func.jacrev(lambda x: vae.encode(x).mean)(at)[0, :, 0].detach().numpy()[order]
    assert (np.abs(columns).max(axis=1) > 0.1).sum() == KEPT.sum()
    np.testing.assert_allclose(group["write"].values, columns, atol=1e-6)
    np.testing.assert_allclose(group["read"].values, rows, atol=1e-6)
    np.testing.assert_allclose(group["read_sd"].values, 0, atol=1e-6)
    # at the optimum of its own beta each latent reads along what it writes
    np.testing.assert_allclose(group["alignment"].values[: KEPT.sum()], 1, atol=1e-6)
    assert int(group["rows"].values) == 300


def test_what_bce_asks_an_encoder_to_read_is_found_from_logits_and_from_means_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    inner = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    reads = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    rows = torch.rand(40, 5, generator=generator, dtype=torch.float64)

    def encode(x: torch.Tensor) -> Posterior:
        mean = torch.tanh(x @ reads)
        return Posterior(mean, torch.full_like(mean, 0.5))

    def build(logits: bool) -> VAE:
        return VAE(
            name="own", encode=encode, decode=lambda z: torch.sigmoid(z @ inner),
            input_shape=(5,), latent_shape=(2,),
            decode_logits=(lambda z: z @ inner) if logits else None,
            module=torch.nn.ParameterList([inner]),
        )  # fmt: skip

    found = [
        isoprobe.analyze(
            build(logits),
            rows.numpy(),
            metric="bce",
            beta=1.0,
            samples=None,
            dtype="float64",
            analyses=("maps:rows=40",),
        )["maps"]
        for logits in (True, False)
    ]
    order = found[0]["latents"].values
    mean = encode(rows).mean
    slope = torch.sigmoid(mean @ inner) * (1 - torch.sigmoid(mean @ inner))
    for group in found:
        expected = (slope[:, None] * inner).mean(dim=0).numpy()[order]
        np.testing.assert_allclose(group["write"].values, expected, rtol=1e-6)
        spread = (slope[:, None] * inner).numpy()[:, order].std(axis=0, ddof=1)
        np.testing.assert_allclose(group["write_sd"].values, spread, rtol=1e-5)
        read = (reads.T[None] * (1 - mean**2)[:, :, None]).numpy()[:, order]
        np.testing.assert_allclose(group["read"].values, read.mean(axis=0), rtol=1e-6)
        # -d^2 D / (dx dz_j) of the cross entropy is the column of logits itself
        asked = inner.numpy()[order]
        moves = (rows - rows.mean(dim=0)).numpy()
        said, wanted = read @ moves.T, asked @ moves.T
        cosines = (said * wanted).sum(axis=-1) / np.linalg.norm(said, axis=-1)
        cosines /= np.linalg.norm(wanted, axis=-1)
        assert (np.abs(cosines) < 0.999).all()
        np.testing.assert_allclose(group["alignment"].values, cosines.mean(axis=0), rtol=1e-6)


def test_maps_name_what_they_cannot_take() -> None:
    with pytest.raises(IsoprobeError, match="maps' latents is at least 1; found 0"):
        isoprobe.analyze(model(), np.zeros((4, 6)), metric="sse", analyses=("maps:latents=0",))
