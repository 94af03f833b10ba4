"""What analyses keep, mark, compare and leave out, written out on rows that are made up for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

import isoprobe
from isoprobe.contracts import Batch, Beta, Context, Metric, Setup
from isoprobe.data.held import Held
from isoprobe.errors import DataError, OptionError
from isoprobe.probe.fixed import fixed_noise
from isoprobe.probe.shared import PassStatistics
from isoprobe.probe.trials import own_samples, pca_distortion
from isoprobe.registry.lookup import installed
from isoprobe.theory.covariance import correlated
from isoprobe.theory.detection import false_alarm_rate, upper_threshold
from isoprobe.theory.scores import Mahalanobis, compared
from isoprobe_plugins.analyses import anomaly as anomalies
from isoprobe_plugins.analyses import conditions, density, isometry, traversal
from isoprobe_plugins.analyses.anomaly import Anomaly
from isoprobe_plugins.analyses.density import Density
from isoprobe_plugins.analyses.isometry import Isometry
from isoprobe_plugins.analyses.traversal import Traversal
from isoprobe_plugins.metrics.square import SumSquaredError
from tests.oracles import small_vae

if TYPE_CHECKING:
    from isoprobe.contracts import VAE
    from isoprobe.results.reader import Result
    from isoprobe.statistics.assisted import AssistedMeans

BETA, ROWS = 0.4, 120
CHANCE = np.random.default_rng(5)
X = CHANCE.normal(size=(ROWS, 9))
MARKS = np.arange(ROWS) % 6 == 1
Found = dict[str, np.ndarray]


def analyzed(vae: VAE, data: object, spec: object, **options: object) -> Result:
    settings = {"metric": "sse", "beta": BETA, "samples": None, "analyses": [spec]}
    return isoprobe.analyze(vae, data, **settings | options)


def same(found: object, expected: object, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=1e-12)


def setup(vae: VAE | None = None, **changed: object) -> Setup:
    made = Setup(
        vae or small_vae(), SumSquaredError(), ROWS, 0, np.ones(4, dtype=bool),
        lambda count: torch.as_tensor(X[:count]),
    )  # fmt: skip
    return replace(made, **changed)  # type: ignore[arg-type]


# ------------------------------------------------------------------ anomaly: what is usual


@torch.no_grad()
def parts(vae: VAE) -> Found:
    x = torch.as_tensor(X)
    posterior = vae.encode(x)  # type: ignore[misc]
    mean, std = posterior.mean, posterior.std
    noise = fixed_noise(4)
    x_hat = torch.stack([vae.decode(mean + std * eps) for eps in noise])
    check = vae.decode(mean)
    inner = check if vae.facts.decomposed else x
    return {
        "mean": mean.numpy(),
        "std": std.numpy(),
        "kl": (0.5 * (mean**2 + std**2 - 1) - std.log()).numpy(),
        "input": X,
        "draws": (inner - x_hat).square().sum(2).T.numpy(),
        "distortion": (inner - x_hat).square().mean(0).numpy(),
        "transform": 0.3 * (x - check).square().numpy(),
    }


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_what_is_usual_is_told_of_the_reference_rows(decomposed: bool, labelled: bool) -> None:
    vae = small_vae(decomposed=decomposed, transform_weight=0.3)
    data = Held(X, labels=MARKS.astype(int)) if labelled else Held(X)
    told, kept = parts(vae), ~MARKS if labelled else np.ones(ROWS, dtype=bool)
    by_input = told["distortion"] + (told["transform"] if decomposed else 0)
    expected = {
        "mean": told["mean"], "kl": told["kl"], "input": X, "distortion": by_input,
        "whole": by_input.sum(axis=1),
    }  # fmt: skip
    with analyzed(vae, data, "anomaly", batch_size=32) as result:
        group = result["anomaly"]
        for name, values in expected.items():
            mean, sd = (group[f"usual_{name}_{kind}"] for kind in ("mean", "sd"))
            same(mean.values, values[kept].mean(axis=0))
            same(sd.values, values[kept].std(axis=0, ddof=1))
            assert mean.long_name.startswith("mean over reference rows of")
            assert sd.long_name.startswith("standard deviation over reference rows of")
            wanted = {"mean": ("latent",), "kl": ("latent",), "whole": ()}
            assert mean.dims == wanted.get(name, mean.dims)
            assert len(mean.dims) == mean.values.ndim
        assert group["usual_input_mean"].dims == group["usual_distortion_mean"].dims != ("latent",)
        assert ("auroc" in group) is labelled


def test_every_score_is_compared_on_the_labelled_rows_by_their_reference() -> None:
    vae = small_vae()
    told = parts(vae)
    for iwae in (True, False):
        data = Held(X * np.where(MARKS, 2, 1)[:, None], labels=MARKS.astype(int))
        with analyzed(vae, data, f"anomaly:iwae={str(iwae).lower()}") as result:
            group, columns = dict(result["anomaly"]), result.samples()
        names = [str(name) for name in group["by_score"].values]
        place = Mahalanobis.of(columns["mean"][~MARKS], columns["std"][~MARKS], BETA)
        scores = {
            "loss": columns["score"],
            "iwae": columns.get("score_iwae"),
            "mahalanobis": place.distance(columns["mean"]),
            "reconstruction": columns["score_distortion"],
            "kl": columns["score_rate"].sum(axis=1),
        }
        assert names == [name for name in scores if iwae or name != "iwae"]
        expected = compared({name: scores[name] for name in names}, MARKS)
        for name, values in expected.items():
            same(group[f"by_score_{name}"].values, values)
    assert told["mean"].shape == (ROWS, 4)


def test_parts_of_the_decomposed_loss_are_in_the_reconstruction_too() -> None:
    vae = small_vae(decomposed=True, transform_weight=0.3)
    with analyzed(vae, Held(X, labels=MARKS.astype(int)), "anomaly") as result:
        group, columns = dict(result["anomaly"]), result.samples()
    place = [str(name) for name in group["by_score"].values].index("reconstruction")
    whole = columns["score_distortion"] + columns["score_transform"]
    same(group["by_score_auroc"].values[place], compared({"r": whole}, MARKS)["auroc"][0])
    same(columns["score_transform"], parts(vae)["transform"].sum(axis=1))
    # the untrained network's score has all its parts as well
    assert "untrained_score" in columns
    same(
        columns["untrained_score"],
        columns["untrained_distortion"] + BETA * columns["untrained_rate"],
    )


def test_the_weighted_score_is_the_bound_at_the_fixed_draws() -> None:
    vae, told = small_vae(), parts(small_vae())
    with analyzed(vae, X, "anomaly:iwae=true") as result:
        columns = result.samples()
    noise = fixed_noise(4).numpy()
    z = told["mean"][:, None] + told["std"][:, None] * noise
    logs = stats.norm.logpdf(z) - stats.norm.logpdf(noise) + np.log(told["std"])[:, None]
    weights = logs.sum(axis=2) - told["draws"] / BETA
    bound = special.logsumexp(weights, axis=1) - np.log(len(noise))
    same(columns["score_iwae"], -BETA * bound)
    same(columns["score_draws"], told["draws"])


def test_what_no_bound_holds_of_is_refused_as_one() -> None:
    with pytest.raises(OptionError, match="no bound"):
        Anomaly(iwae=True).start(setup(small_vae(decomposed=True)))
    for share in (0.0, 1.0, -0.1):
        for option in ("contamination", "quantile"):
            with pytest.raises(OptionError, match=f"{option} lies between 0 and 1"):
                Anomaly(**{option: share})
    assert Anomaly(contamination=0.01, quantile=0.5).contamination == 0.01


class Likely(SumSquaredError):
    likelihood = True


class Still(Metric):
    name = "still"

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        return torch.zeros(len(x))


def test_parts_by_input_are_kept_where_the_distortion_adds_up() -> None:
    """Tried on four rows of the data at most; nothing is tried where there are none."""
    asked: list[int] = []

    def sample(count: int) -> Tensor:
        asked.append(count)
        return torch.as_tensor(X[:count])

    def adds_up(**changed: object) -> bool:
        return anomalies._adds_up(setup(**{"sample": sample} | changed))

    assert adds_up()
    assert adds_up(samples=2)
    assert asked == [4, 2]
    assert not adds_up(samples=0)
    assert not adds_up(metric=installed().metric("l2"))
    assert not adds_up(metric=Still())
    assert adds_up(metric=Likely(), sample=None)
    assert not adds_up(metric=Likely(), samples=0)
    big = SimpleNamespace(input_size=anomalies._MOST_INPUTS + 1)
    most = SimpleNamespace(input_size=anomalies._MOST_INPUTS)
    assert anomalies._MOST_INPUTS == 65_536
    assert not adds_up(metric=Likely(), vae=big)
    assert adds_up(metric=Likely(), vae=most)
    assert not anomalies._adds_up(setup(sample=lambda count: torch.as_tensor(X[:count, :5])))
    for decomposed, whole in ((True, False), (False, True)):
        vae = small_vae(decomposed=decomposed, transform_metric="l2", transform_weight=1.0)
        assert anomalies._adds_up(setup(vae)) is whole
    assert anomalies._adds_up(setup(small_vae(decomposed=True)))
    with analyzed(small_vae(), X, "anomaly", metric="l2") as result:
        assert "usual_mean_mean" in result["anomaly"]
        assert "usual_input_mean" not in result["anomaly"]


def marks(labels: object, anomaly: str | None = None) -> list[bool]:
    found: list[bool] = Anomaly(anomaly=anomaly)._marks(np.array(labels)).tolist()
    return found


def test_marks_are_read_off_labels() -> None:
    assert marks([0, 2, 1]) == marks([0, 2, 1], "nonzero") == [False, True, True]
    assert marks([0, 2, 1], "2") == [False, True, False]
    assert marks(["a", "b"], "b") == [False, True]
    assert marks([True, False]) == [True, False]
    for labels, anomaly, said in (
        (["a", "b"], None, "text such as 'a'"),
        (["a", "b"], "nonzero", "needs labels that are numbers"),
        ([0, 1], "b", "=b is text"),
        ([[0, 1], [1, 0]], None, "found 2"),
    ):
        with pytest.raises(DataError, match=said):
            marks(labels, anomaly)


def usable(labels: list[int], odd: list[int], anomaly: str | None = None) -> tuple[object, str]:
    analysis = Anomaly(anomaly=anomaly)
    analysis.setup = setup(labelled=True)
    columns = {"label": np.array(labels), "anomalous": np.array(odd)}
    found, notes = analysis._usable_marks(columns.__getitem__)
    return None if found is None else found.tolist(), "; ".join(notes)


def test_marks_are_used_where_they_tell_two_kinds_apart() -> None:
    assert usable([0, 1, 0], [0, 1, 0]) == ([False, True, False], "")
    assert usable([0, 1, 2], [0, 1, 1], "nonzero") == ([False, True, True], "")
    found, said = usable([0, 1, 2, 3, 4], [0, 1, 1, 1, 1])
    assert found is None and "labels (0, 1, 2, 3 ...) are classes" in said
    for odd, which in (([1, 1], "every row"), ([0, 0], "no row")):
        found, said = usable([0, 1], odd)
        assert found is None and said.startswith(f"{which} is labelled")
    without = Anomaly()
    without.setup = setup()
    assert without._usable_marks({}.__getitem__) == (None, [])


def test_thresholds_come_from_the_reference_and_from_all_rows() -> None:
    scores, odd = CHANCE.random(ROWS), MARKS
    for contamination, share in ((None, odd.mean()), (0.3, 0.3)):
        found = Anomaly(contamination, quantile=0.9)._by_rule(scores, odd, np.zeros(ROWS))
        same(found["share"].values, [1 - 0.9, share])
        expected = [
            upper_threshold(np.sort(scores[~odd]), 1 - 0.9), upper_threshold(np.sort(scores), share)
        ]  # fmt: skip
        same(found["threshold"].values, expected)
        same(found["false_alarms"].values, [false_alarm_rate(100, 1 - 0.9), np.nan])
        for k, threshold in enumerate(expected):
            flagged = scores > threshold
            assert found["flagged"].values[k] == flagged.sum()
            same(found["precision"].values[k], odd[flagged].mean())
            same(found["recall"].values[k], flagged[odd].mean())
    alone = Anomaly(quantile=0.9)._by_rule(scores, None, np.zeros(ROWS))
    assert list(alone["rule"].values) == ["quantile"] and "flagged" not in alone
    same(alone["false_alarms"].values, [false_alarm_rate(ROWS, 1 - 0.9)])


def test_what_was_left_out_of_the_figures_is_noted() -> None:
    vae = small_vae()
    for name in ("one", "two", "three", "four"):
        vae.module.register_parameter(name, torch.nn.Parameter(torch.ones(2)))  # type: ignore[union-attr]
    with analyzed(vae, Held(X, labels=MARKS.astype(int)), "anomaly") as result:
        group = result["anomaly"]
        assert "fills one, two, three" in str(group["notes"].values)
        assert "four" not in str(group["notes"].values)
        assert float(group["prevalence"].values) == MARKS.mean()
    unknown = replace(small_vae(dtype=torch.float32), module=None)
    with analyzed(unknown, Held(X, labels=MARKS.astype(int)), "anomaly") as result:
        assert "parameters are not known" in str(result["anomaly"]["notes"].values)
    with analyzed(small_vae(), Held(X), "anomaly") as result:
        assert "notes" not in result["anomaly"] and "by" not in result["anomaly"]
    analysis = Anomaly()
    analysis.start(setup(training_share=0.25))
    columns = {"score": X[:, 0], "score_tolerance": np.zeros(ROWS)}
    context = Context(analysis.setup, Beta(1.0, "user"), PassStatistics.empty(4))
    said = analysis.conclude(columns.__getitem__, context)
    assert str(said["notes"].values).startswith("25% of the reference rows are rows the checkpoint")


def test_rows_keep_the_number_of_their_group() -> None:
    words = np.array(["b", "a", "b", "c"] * (ROWS // 4))
    with analyzed(small_vae(), Held(X, carried={"kind": words}), "anomaly:by=kind") as result:
        assert str(result["anomaly"]["by"].values) == "kind"
        keys = result.samples()["group"]
    assert [len(set(keys[words == word])) for word in "abc"] == [1, 1, 1]
    assert len(set(keys)) == 3


# ------------------------------------------------------------------ isometry


def correlating(seed: int = 0, latents: int = 4) -> VAE:
    """A small model whose posteriors have a full covariance that differs from row to row."""
    vae = small_vae(latents=latents, seed=seed)
    encode = vae.encode
    below = torch.as_tensor(CHANCE.normal(size=(latents, latents))).tril(-1)

    def full(x: Tensor) -> object:
        posterior = encode(x)  # type: ignore[misc]
        root = torch.diag_embed(posterior.std) + 0.2 * below * posterior.std[:, :1, None]
        return correlated(posterior.mean, root)

    return replace(vae, encode=full, correlated=True)  # type: ignore[arg-type]


def test_the_condition_on_a_whole_covariance_is_the_mean_over_rows_with_its_error() -> None:
    analysis, beta = Isometry(), 0.7
    analysis.start(setup(correlating()))
    assert analysis.covariance is not None and "noise_gradient" in analysis.needs
    noise_gradient = CHANCE.normal(size=(ROWS, 4, 4))
    root = np.tril(CHANCE.normal(size=(ROWS, 4, 4)), -1) + 0.5 * np.eye(4)
    for rows in (np.arange(50), np.arange(50, ROWS)):
        batch = Batch(
            rows, torch.as_tensor(X[rows]),
            {
                "noise_gradient": torch.as_tensor(noise_gradient[rows]),
                "root": torch.as_tensor(root[rows]),
            },
        )  # fmt: skip
        assert analysis.update(batch) is None
    found = analysis._by_covariance(analysis.covariance, beta)
    each = np.stack(
        [
            part.T @ moved.T @ np.linalg.inv(part.T) / beta + part.T @ part - np.eye(4)
            for part, moved in zip(root, noise_gradient, strict=True)
        ]
    )
    same(found["covariance_residual"].values, each.mean(axis=0))
    blocks = [each[k::64].sum(axis=0) for k in range(64)]
    counts = np.array([len(each[k::64]) for k in range(64)])
    without = np.stack(
        [(sum(blocks) - b) / (ROWS - c) for b, c in zip(blocks, counts, strict=True)]
    )
    told = np.sqrt(63 / 64 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    same(found["covariance_residual_se"].values, told)
    assert isometry.GRAM_LIMIT == density.GRAM_LIMIT == 256 and conditions.PAIRS_LIMIT == 64


@pytest.mark.parametrize("used", [1, 2, 4])
def test_angles_are_taken_of_two_or_more_used_latents(used: int) -> None:
    active = np.arange(4) < used
    analysis = Isometry()
    analysis.start(setup(active=active))
    columns = torch.as_tensor(CHANCE.normal(size=(ROWS, 6, 4)))
    gram = columns.mT @ columns
    gram[0] = 0  # a row whose columns vanish has no finite gap
    analysis._orthogonality(Batch(np.arange(ROWS), torch.as_tensor(X), {"gram": gram}))
    lengths = gram.diagonal(0, 1, 2).sqrt()
    cosine = (gram / (lengths[:, :, None] * lengths[:, None])).nan_to_num(0).abs().mean(0).numpy()
    found = analysis._by_gram(active)
    same(found["cosine"].values, cosine)
    chosen = gram[1:, active][:, :, active]
    logs = chosen.diagonal(0, 1, 2).log().sum(1) - torch.linalg.slogdet(chosen)[1]
    expected = 0.5 * float(logs.mean()) if used > 1 else 0.0
    assert float(found["hadamard_gap"].values) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    pairs = [cosine[i, j] for i in range(used) for j in range(used) if i != j]
    assert float(found["cosine_mean_abs"].values) == pytest.approx(np.mean(pairs) if pairs else 0)


@pytest.mark.parametrize(
    ("latents", "pullback", "asked"),
    [
        (256, "exact", {"gram"}), (257, "exact", set()),
        (4, "probe", {"pullback_off_diagonal", "mean", "pullback_drawn"}),
    ],
)  # fmt: skip
def test_what_is_asked_for_beyond_the_diagonal(
    latents: int, pullback: str, asked: set[str]
) -> None:
    analysis = Isometry()
    vae = cast("VAE", SimpleNamespace(latent_size=latents, correlated=True, prior=None))
    analysis.start(setup(vae, pullback=pullback))
    plain = {"std", "stationarity", "pullback"}
    correlated_too = {"noise_gradient"} if latents <= 256 else set()
    assert analysis.needs == plain | asked | correlated_too
    assert analysis.cosine.mean.shape == ((latents, latents) if latents <= 256 else ())
    assert (analysis.covariance is None) is (latents > 256)
    assert (analysis.assisted is None) is (pullback != "probe")


def test_norms_by_random_columns_are_those_of_the_samples_that_drew_them() -> None:
    analysis = Isometry()
    analysis.start(setup(pullback="probe"))
    assert analysis.assisted is not None
    means, errors, spread = CHANCE.random((3, 4, 2))
    analysis.assisted = cast(
        "AssistedMeans", SimpleNamespace(means=lambda: (means, errors), sd=lambda: spread)
    )
    statistics = PassStatistics.empty(4)
    statistics.beta.update(np.arange(ROWS), CHANCE.random((ROWS, 4, 4)))
    found = analysis._by_pullback(Context(analysis.setup, Beta(BETA, "user"), statistics))
    for name, values in {
        "norm_mean": means[:, 0] / BETA,
        "norm_se": errors[:, 0] / BETA,
        "norm_sd": spread[:, 0] / BETA,
        "pullback_mean": means[:, 1],
        "pullback_sd": spread[:, 1],
        "residual_mean": means[:, 0] / BETA + statistics.beta.variance() - 1,
        "inverse_variance_expected": 1 + 2 * means[:, 1] / BETA,
    }.items():
        same(found[name].values, values)


def test_columns_of_the_summary_are_few() -> None:
    with analyzed(small_vae(), X, "isometry") as result:
        shown = {name: v.show for name, v in result["isometry"].items() if v.show != "none"}
        labels = {name: result["isometry"][name].label for name in shown}
    assert shown == {
        "norm_mean": "column", "norm_se": "column", "residual_mean": "column",
        "stationary_norm_mean": "column", "beta_recovered": "column",
        "cosine_mean_abs": "tile", "hadamard_gap": "tile",
    }  # fmt: skip
    assert labels["beta_recovered"] == "beta_j"


def test_covariates_are_what_the_encoder_says() -> None:
    mean, std = CHANCE.normal(size=(5, 2)), np.exp(CHANCE.normal(size=(5, 2)))
    found = isometry.covariates(mean, std)
    for place, column in enumerate(
        [np.ones(5), *np.log(std).T, *mean.T, *np.log(std).T ** 2, *mean.T**2]
    ):
        same(found[:, place], column)
    made = isometry.assisted_means(2)
    assert made.own.tolist() == [[0, 1, 3, 5, 7], [0, 2, 4, 6, 8]]
    assert made.gram.shape == (9, 9) and made.moment.shape == (2, 9, 2)


def test_the_orthogonality_defect_and_its_error() -> None:
    analysis = Isometry()
    analysis.start(setup())
    values = CHANCE.random((50, 4))
    analysis.off_diagonal.update(values)
    response = np.array([0.5, 1.0, 2.0, 3.0])
    found = analysis._orthogonality_defect(response)
    root = np.sqrt(values.mean(axis=0))
    same(found["orthogonality_defect"].values, root / response)
    told = stats.sem(values, axis=0) / (2 * root) / response
    same(found["orthogonality_defect_se"].values, told)


# ------------------------------------------------------------------ density


class Scaled(SumSquaredError):
    """Twice the squared error: G = 2 I."""

    name = "twice"
    scale = None

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        return 2 * super().distortion(x, x_hat)


def route(volume: str, **changed: object) -> tuple[str, set[str]]:
    analysis = Density(volume)
    analysis.start(setup(**changed))
    return analysis.route, {"gram", "euclidean_gram"} & analysis.needs


def test_the_volume_goes_by_what_the_metric_and_the_run_allow() -> None:
    sse, bce = SumSquaredError(), installed().metric("bce")
    square = small_vae(size=4)
    many = SimpleNamespace(latent_size=257, input_size=9)
    fits = SimpleNamespace(latent_size=256, input_size=9)
    three = np.arange(4) < 3
    gram, both = {"gram"}, {"gram", "euclidean_gram"}
    for volume, changed, expected in (
        ("auto", {"metric": sse}, ("scale", gram)),
        ("auto", {"metric": sse, "pullback": "probe"}, ("scale", set())),
        ("auto", {"metric": sse, "vae": many}, ("scale", set())),
        ("auto", {"metric": sse, "vae": fits}, ("scale", gram)),
        ("general", {"metric": sse}, ("general", both)),
        ("none", {"metric": sse}, ("none", gram)),
        ("auto", {"metric": bce}, ("general", both)),
        ("auto", {"metric": bce, "vae": square}, ("determinant", gram)),
        ("auto", {"metric": bce, "vae": square, "active": three}, ("general", both)),
        ("general", {"metric": bce, "vae": square}, ("general", both)),
        ("auto", {"metric": bce, "pullback": "probe"}, ("none", set())),
        ("auto", {"metric": bce, "vae": many}, ("none", set())),
        ("auto", {"metric": installed().metric("l1")}, ("none", set())),
        ("auto", {"metric": Likely()}, ("none", gram)),
    ):
        assert route(volume, **changed) == expected, (volume, changed)


def test_options_of_the_density() -> None:
    for volume in ("some", ""):
        with pytest.raises(OptionError, match="auto, general or none"):
            Density(volume)
    for draws in (1, 24, -3):
        with pytest.raises(OptionError, match="0 or at least 25"):
            Density(draws=draws)
    assert (Density().draws, Density().rows, Density(draws=25).draws) == (50, 256, 25)
    assert Density(draws=0).draws == 0


def test_the_error_of_a_row_is_that_of_its_pairs() -> None:
    analysis = Density("none")
    analysis.start(setup())
    pairs = CHANCE.random((ROWS, 6))
    analysis.update(
        Batch(np.arange(ROWS), torch.as_tensor(X), {"distortion_pairs": torch.as_tensor(pairs)})
    )
    told = np.sqrt(np.mean([stats.sem(row) ** 2 for row in pairs]))
    assert analysis._draw_error() == pytest.approx(told)
    context = Context(analysis.setup, Beta(BETA, "user"), PassStatistics.empty(4))
    found = analysis.result(context)
    same(found["distortion_draw_se"].values, told)
    same(found["log_density_metric_se"].values, told / BETA)
    alone = Density("none")
    alone.start(setup())
    one = {"distortion_pairs": torch.as_tensor(pairs[:, :1])}
    alone.update(Batch(np.arange(ROWS), torch.as_tensor(X), one))
    assert alone._draw_error() == np.inf
    two = {"distortion_pairs": torch.as_tensor(pairs[:, :2])}
    alone.update(Batch(np.arange(ROWS), torch.as_tensor(X), two))
    assert np.isfinite(alone._draw_error())


def own_distortion(mean: float, sd: float, metric: Metric, expectation: str = "gaussian") -> Found:
    analysis = Density("none")
    analysis.start(setup(metric=metric, expectation=expectation))
    statistics = SimpleNamespace(distortion_self=SimpleNamespace(mean=mean, sd=sd))
    context = Context(analysis.setup, Beta(1.0, "user"), statistics)  # type: ignore[arg-type]
    found = analysis.result(context)["absolute"].values
    return {"said": found, "value": np.array(analysis._normaliser(context), dtype=float)}


def test_absolute_densities_need_one_constant_for_every_row() -> None:
    sse = SumSquaredError()
    told = 4.5 * np.log(np.pi)
    for mean, sd, known in (
        (0.0, 0.0, True), (0.0, 0.9e-5, True), (0.0, 1.1e-5, False), (100.0, 9e-4, True),
        (-100.0, 9e-4, True), (100.0, 1.1e-3, False), (0.5, 0.9e-5, True),
    ):  # fmt: skip
        found = own_distortion(mean, sd, sse)
        assert ("lower bound" in str(found["said"])) is known
        if known:
            same(found["value"], told)
        else:
            assert "relative only" in str(found["said"])
    assert "no bound" in str(own_distortion(0.0, 0.0, sse, "two-point")["said"])
    assert "relative only" in str(own_distortion(0.0, 1.0, sse, "two-point")["said"])


def test_two_estimates_are_compared_over_the_rows_where_both_are_finite() -> None:
    one, two = CHANCE.normal(size=(2, 40))
    one[3], two[5] = np.nan, -np.inf
    both = np.isfinite(one) & np.isfinite(two)
    columns = {"log_density_metric": one, "log_density_metric_sigmas": two}
    analysis = Density("none", draws=0)
    analysis.start(setup())
    context = Context(analysis.setup, Beta(BETA, "user"), PassStatistics.empty(4))
    found = {k: v.values for k, v in analysis.conclude(columns.__getitem__, context).items()}
    gap = (one - two)[both]
    same(found["mean_log_density_metric"], one[both].mean())
    same(found["estimator_difference_mean"], gap.mean())
    same(found["estimator_difference_sd"], gap.std())
    same(found["estimator_correlation"], np.corrcoef(one[both], two[both])[0, 1])
    alone = {name: values[4:5] for name, values in columns.items()}
    assert np.isfinite(
        analysis.conclude(alone.__getitem__, context)["mean_log_density_metric"].values
    )
    nothing = {name: np.full(3, np.nan) for name in columns}
    empty = analysis.conclude(nothing.__getitem__, context)
    for name in ("mean_log_density_metric", "estimator_difference_mean", "estimator_difference_sd"):
        assert np.isnan(empty[name].values)
    assert "iwae_gap" not in found
    unknown = Density("none")
    unknown.start(setup())
    context = Context(unknown.setup, Beta(float("nan"), "user"), PassStatistics.empty(4))
    assert "iwae_gap" not in unknown.conclude(columns.__getitem__, context)


def test_the_weighted_bound_is_told_with_its_error_and_its_tail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = CHANCE.normal(size=(31, 60)) * np.linspace(0.1, 3, 31)[:, None]
    asked = {}

    def drawn(
        vae: object, metric: object, x: Tensor, beta: float, draws: int, seed: int
    ) -> np.ndarray:
        asked.update(rows=len(x), beta=beta, draws=draws, seed=seed)
        return weights

    monkeypatch.setattr("isoprobe.probe.weighted.weighted_draws", drawn)
    analysis = Density("none", draws=60, rows=31)
    analysis.start(setup(seed=7))
    context = Context(analysis.setup, Beta(BETA, "user"), PassStatistics.empty(4))
    found = {k: v.values for k, v in analysis._weighted(context).items()}
    assert asked == {"rows": 31, "beta": BETA, "draws": 60, "seed": 7}
    gap = special.logsumexp(weights, axis=1) - np.log(60) - weights.mean(axis=1)
    same(found["iwae_gap"], gap.mean())
    same(found["iwae_gap_se"], stats.sem(gap))
    shapes = density.tail_shape(weights)
    heavy = (shapes > 0.7).mean()
    assert 0 < heavy < 0.5
    same(found["pareto_k"], np.median(shapes))
    same(found["pareto_k_heavy"], heavy)
    assert f"at most 0.7 in {1 - heavy:.0%} of rows" in str(found["iwae_claim"])
    w = np.exp(weights)
    same(found["effective_draws"], (w.sum(axis=1) ** 2 / (w**2).sum(axis=1)).mean())
    weights *= 8
    claim = str(analysis._weighted(context)["iwae_claim"].values)
    assert claim.startswith("no claim on log p(x): Pareto k is above 0.7 in")
    weights = weights[:2]
    assert np.isfinite(analysis._weighted(context)["iwae_gap_se"].values)
    weights = weights[:1]
    assert analysis._weighted(context)["iwae_gap_se"].values == np.inf


# ------------------------------------------------------------------ traversal


def test_walks_need_a_latent_two_steps_and_a_range() -> None:
    for wrong in (
        {"latents": 0}, {"latents": -1}, {"steps": 1}, {"low": 1.0, "high": 1.0},
        {"low": 2.0, "high": 1.0},
    ):  # fmt: skip
        with pytest.raises(OptionError, match="latents >= 1, steps >= 2 and low < high"):
            Traversal(**wrong)  # type: ignore[arg-type]
    for at in ("-1", "first", "1.5"):
        with pytest.raises(OptionError, match="'origin' or a sample number"):
            Traversal(at=at)
    made = Traversal(latents=1, steps=2)
    assert (made.latents, made.steps, made.low, made.high, made.at) == (1, 2, -2, 2, "origin")
    assert Traversal().steps == 11 and Traversal(at="0").at == "0"
    with pytest.raises(OptionError, match=f"hold to sample {ROWS}; the run has {ROWS}"):
        Traversal(at=str(ROWS)).start(setup())
    Traversal(at=str(ROWS - 1)).start(setup())
    assert traversal._MOST == 64 and traversal.COLLAPSED == 2
    assert traversal._BYTES == 64 * 1024 * 1024


def test_the_sample_held_to_is_kept_with_what_the_model_was_told() -> None:
    for told, size in ((None, 0), (SimpleNamespace(classes="abc"), 3)):
        vae = replace(small_vae(), conditional=told)
        analysis = Traversal(at="7")
        analysis.start(setup(vae))
        assert analysis.told.mean.shape == (size,)
        condition = CHANCE.random((ROWS, size)) if size else None
        quantities = {"mean": torch.as_tensor(X[:, :4])}
        for rows in (np.arange(60), np.arange(60, ROWS)):
            part = {name: values[rows] for name, values in quantities.items()}
            analysis.update(
                Batch(rows, torch.as_tensor(X[rows]), part,
                      condition=None if condition is None else condition[rows])
            )  # fmt: skip
        same(analysis.held.mean, X[7, :4])
        if condition is not None:
            same(analysis.told.mean, condition[7])
    origin = Traversal()
    origin.start(setup())
    origin.update(Batch(np.arange(ROWS), torch.as_tensor(X), quantities))
    assert origin.held.mean.tolist() == [0] * 4


@pytest.mark.parametrize("latents", [None, 1, 3])
def test_walks_are_decoded_in_equal_steps_of_z_and_of_y(latents: int | None) -> None:
    vae = small_vae()
    spec = f"traversal:steps=5,low=-1,high=2,at=3{'' if latents is None else f',latents={latents}'}"
    with isoprobe.analyze(
        vae,
        X,
        metric="sse",
        beta=BETA,
        samples=None,
        analyses=["importance", "coordinates", spec],
    ) as result:
        group, importance = result["traversal"], result["importance"]
        order = importance["order"].values
        walked = group["latents"].values
        used = order[importance["state"].values[order] != 2]
        assert walked.tolist() == (used if latents is None else order[:latents]).tolist()
        base = vae.encode(torch.as_tensor(X[3:4])).mean[0].detach().numpy()  # type: ignore[misc]
        same(group["base"].values, base)
        same(group["z"].values, np.tile(np.linspace(-1, 2, 5), (len(walked), 1)))
        y = group["y_equal_y"].values
        same(y, np.linspace(group["y"].values[:, 0], group["y"].values[:, -1], 5, axis=1))
        same(group["z_equal_y"].values[:, [0, -1]], [[-1, 2]] * len(walked), 1e-6)
        for k, j in enumerate(walked):
            for name, z in (("images", "z"), ("images_equal_y", "z_equal_y")):
                points = np.tile(base, (5, 1))
                points[:, j] = group[z].values[k]
                told = vae.decode(torch.as_tensor(points)).detach().numpy()
                same(group[name].values[k], told, 1e-5)


# ------------------------------------------------------------------ conditions


def drawn_conditions(vae: VAE, **changed: object) -> tuple[conditions.Conditions, Context, Found]:
    """The analysis after two batches of made-up quantities, and these."""
    q = {
        "mean": CHANCE.normal(0.3, 1.0, (ROWS, 4)),
        "std": CHANCE.uniform(0.2, 0.9, (ROWS, 4)),
        "kl": CHANCE.gamma(2.0, size=(ROWS, 4)),
        "gradient": CHANCE.normal(0.2, 1.0, (ROWS, 4)),
        "pullback": CHANCE.gamma(2.0, size=(ROWS, 4)),
        "distortion_draws": CHANCE.random((ROWS, 3)),
        "distortion": CHANCE.random(ROWS),
        "distortion_coding": CHANCE.random(ROWS),
        "distortion_transform": CHANCE.random(ROWS) + 2,
        "distortion_self": CHANCE.random(ROWS),
        "noise_gradient": CHANCE.normal(size=(ROWS, 4, 4)),
    }
    q["stationarity"] = BETA * (1 - q["std"] ** 2) * CHANCE.normal(1, 0.05, (ROWS, 4))
    columns = CHANCE.normal(size=(ROWS, 6, 4))
    q["gram"] = columns.transpose(0, 2, 1) @ columns
    if vae.correlated:
        q["root"] = np.tril(CHANCE.normal(size=(ROWS, 4, 4)), -1) + q["std"][:, :, None] * np.eye(4)
    analysis = conditions.Conditions(trials=False)
    analysis.start(setup(vae, **changed))
    statistics = PassStatistics.empty(4)
    for rows in (np.arange(70), np.arange(70, ROWS)):
        part = {name: torch.as_tensor(values[rows]) for name, values in q.items()}
        batch = Batch(rows, torch.as_tensor(X[rows]), part)
        assert analysis.update(batch) is None
        statistics.update(batch)
    return analysis, Context(analysis.setup, Beta(9.0, "user"), statistics), q


def left_out(values: np.ndarray) -> list[np.ndarray]:
    """Sums of rows without one block of them after another."""
    return [np.delete(values, np.s_[k::64], axis=0).sum(axis=0) for k in range(64)]


def jackknifed(estimate: Callable[..., np.ndarray], *columns: np.ndarray) -> np.ndarray:
    parts = np.stack([estimate(*sums) for sums in zip(*map(left_out, columns), strict=True)])
    found: np.ndarray = np.sqrt(63 / 64 * ((parts - parts.mean(axis=0)) ** 2).sum(axis=0))
    return found


def test_every_condition_is_its_ratio_of_sums_over_rows_with_its_error() -> None:
    analysis, context, q = drawn_conditions(small_vae())
    found = {name: variable.values for name, variable in analysis.result(context).items()}
    mean, std, gradient = q["mean"], q["std"], q["gradient"]
    room, stationary, one = 1 - std**2, q["stationarity"], np.ones((ROWS, 4))
    total, free = stationary.sum(axis=1, keepdims=True), room.sum(axis=1, keepdims=True)
    beta = total.sum() / free.sum()
    same(found["beta"], beta)
    assert found["beta"] != 9.0 and "round_trip" not in found
    itself = q["distortion_self"]
    answer, curved = mean * gradient + stationary, (mean**2 + std**2) * room / std**2
    told: dict[str, tuple[Callable[..., np.ndarray], tuple[np.ndarray, ...]]] = {
        "variance": (lambda c, m, s: s / c - (m / c) ** 2, (one, mean, mean**2)),
        "answer": (lambda c, s, a, b: s * b / a / c, (one, stationary, total, free)),
        "residual": (
            lambda c, s, r, a, b: (s * b / a - r) / c, (one, stationary, room, total, free),
        ),
        "gain": (lambda t, c: t / (beta * c), (answer, curved)),
        "shift": (lambda t, c: t / (beta * c), (gradient, room / std**2)),
        "beta": (lambda a, b: (a / b)[0], (total, free)),
        "beta_each": (lambda a, b: a / b, (stationary, room)),
        "distortion": (
            lambda c, d, s: (d - s) / c, (one[:, 0], q["distortion_transform"], itself),
        ),
        "loss": (
            lambda c, d, s, r: (d - s + beta * r) / c,
            (one[:, 0], q["distortion_draws"].mean(axis=1), itself, q["kl"].sum(axis=1)),
        ),
        "distortion_self": (lambda c, s: s / c, (one[:, 0], itself)),
    }  # fmt: skip
    for name, (estimate, columns) in told.items():
        np.testing.assert_allclose(
            found[name], estimate(*(c.sum(axis=0) for c in columns)), rtol=1e-9, err_msg=name
        )
        np.testing.assert_allclose(
            found[f"{name}_se"], jackknifed(estimate, *columns), rtol=1e-7, err_msg=name
        )
    for name in ("beta", "distortion", "loss", "distortion_self"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    pulled = 2 * std**2 * q["pullback"]
    same(context.statistics.beta.column(2).sum(axis=0), pulled.sum(axis=0))
    assert found["beta_pullback_se"] > 0
    same(found["scale_sd"], np.log(std).std(axis=0, ddof=1))
    same(found["kl_max"], q["kl"].max(axis=0))
    assert np.isnan(found["kl_high"]).all()  # of 120 rows none is exceeded by a thousandth
    # pairs
    outer = mean[:, :, None] * gradient[:, None, :] + q["noise_gradient"]
    second, sharp = (mean**2 + std**2).mean(axis=0), (room / std**2).mean(axis=0)
    for k in range(4):
        for j in range(4):
            scale = beta * second[k] * sharp[j]
            expected = 0 if j == k else outer[:, k, j].mean() / scale
            assert found["mixing"][k, j] == pytest.approx(expected)
            error = jackknifed(lambda o, c: o / c, outer[:, k, j], one[:, 0]) / scale
            assert found["mixing_se"][k, j] == pytest.approx(0 if j == k else error)
            ratio = np.sqrt((std**2).mean(axis=0)[k] / (std**2).mean(axis=0)[j])
            steep = max(abs(ratio - 1 / ratio), 0.25)
            swapped = q["noise_gradient"][:, k, j] - q["noise_gradient"][:, j, k]
            assert found["turn"][k, j] == pytest.approx(swapped.mean() / beta / steep, abs=1e-12)
            error = jackknifed(lambda o, c: o / c, swapped, one[:, 0]) / beta / steep
            assert found["turn_se"][k, j] == pytest.approx(error, abs=1e-12)
    scaled = 2 * std[:, :, None] * q["gram"] * std[:, None, :]
    values = np.linalg.eigvalsh(scaled)[:, ::-1] / beta
    same(found["eigenvalue"], values.mean(axis=0))
    same(found["eigenvalue_se"], stats.sem(values, axis=0))
    same(found["eigenvalue_expected"], np.sort(room.mean(axis=0))[::-1])


def test_what_correlated_posteriors_and_other_priors_leave_out() -> None:
    analysis, context, q = drawn_conditions(correlating())
    found = analysis.result(context)
    assert "turn" not in found and "mixing" in found
    told = 2 * q["root"].transpose(0, 2, 1) @ q["gram"] @ q["root"]
    beta = float(found["beta"].values)
    same(found["eigenvalue"].values, np.linalg.eigvalsh(told)[:, ::-1].mean(axis=0) / beta)
    inner = np.eye(4) - q["root"].transpose(0, 2, 1) @ q["root"]
    same(found["eigenvalue_expected"].values, np.linalg.eigvalsh(inner)[:, ::-1].mean(axis=0))
    assert "I - L'L" in found["eigenvalue_expected"].long_name
    assert "L'J'GJL" in found["eigenvalue"].long_name
    other = replace(small_vae(), prior=installed)  # any prior that is not N(0, I)
    analysis, context, _ = drawn_conditions(other)
    found = analysis.result(context)
    assert "turn" not in found and "eigenvalue" not in found and "mixing" in found
    plain, context, _ = drawn_conditions(small_vae())
    found = plain.result(context)
    assert "sigma^2 if isometric" in found["eigenvalue"].long_name
    assert "descending" in found["eigenvalue_expected"].long_name


def test_without_a_beta_nothing_is_told_at_it() -> None:
    analysis, context, _ = drawn_conditions(small_vae(), active=np.zeros(4, dtype=bool))
    found = analysis.result(context)
    assert "beta" not in found
    for name in ("answer", "residual", "gain", "shift"):
        assert np.isnan(found[name].values).all(), name
    assert np.isfinite(found["variance"].values).all()
    assert np.isnan(found["loss"].values) and np.isfinite(found["distortion"].values)
    some, context, q = drawn_conditions(small_vae(), active=np.arange(4) < 2)
    room = 1 - q["std"][:, :2] ** 2
    same(some.result(context)["beta"].values, q["stationarity"][:, :2].sum() / room.sum())


def test_maps_are_pooled_over_positions_and_have_no_pairs() -> None:
    """Two channels of two positions."""
    spatial = replace(small_vae(), latent_shape=(2, 2))
    analysis, context, q = drawn_conditions(spatial)
    found = analysis.result(context)
    assert not {"mixing", "turn"} & set(found)
    beta = float(found["beta"].values)
    curved = (1 - q["std"] ** 2) / q["std"] ** 2
    answer = q["mean"] * q["gradient"] + q["stationarity"]
    sharp = (q["mean"] ** 2 + q["std"] ** 2) * curved
    for name, above, below in (("shift", q["gradient"], curved), ("gain", answer, sharp)):
        pooled = [
            above[:, 2 * c : 2 * c + 2].sum() / below[:, 2 * c : 2 * c + 2].sum() for c in range(2)
        ]
        same(found[name].values, np.repeat(pooled, 2) / beta)


@pytest.mark.parametrize("latents", [64, 65])
@pytest.mark.parametrize("pullback", ["exact", "probe"])
def test_conditions_ask_for_pairs_where_they_are_few(latents: int, pullback: str) -> None:
    analysis = conditions.Conditions()
    dense = SimpleNamespace(latent_shape=(latents,), module=None)
    vae = SimpleNamespace(latent_size=latents, correlated=False, anywhere=lambda: dense)
    before = set(analysis.needs)
    analysis.start(setup(cast("VAE", vae), pullback=pullback))
    few = latents == 64
    asked = {"pullback"} | ({"noise_gradient"} if few else set())
    assert analysis.needs - before == asked | ({"gram"} if few and pullback == "exact" else set())
    assert (analysis.pairs is not None) is few and analysis.trials
    l1 = conditions.Conditions()
    l1.start(setup(cast("VAE", vae), metric=installed().metric("l1")))
    assert "pullback" not in l1.needs and "gram" not in l1.needs


def test_own_samples_and_a_pca_are_tried_on_a_few_rows() -> None:
    asked: list[int] = []

    def sample(count: int) -> Tensor:
        asked.append(count)
        return torch.as_tensor(X)

    analysis, context, _ = drawn_conditions(small_vae(), sample=sample)
    analysis.trials = True
    found = analysis.result(context)
    assert asked == [512]
    own = own_samples(small_vae(), 0)
    assert own is not None
    same(found["round_trip"].values, own.slopes)
    same(found["round_trip_expected"].values, own.expected)
    x, metric = torch.as_tensor(X), SumSquaredError()
    same(found["pca_distortion"].values, pca_distortion(metric, x, 4))
    none, context, _ = drawn_conditions(small_vae(), active=np.zeros(4, dtype=bool), sample=sample)
    none.trials = True
    found = none.result(context)
    assert "pca_distortion" not in found and "mean_distortion" in found
    assert conditions.RARELY == 0.999


@pytest.mark.parametrize("columns", [3, 12, 90])
@pytest.mark.parametrize("rank", [2, 3])
def test_pca_is_that_of_the_singular_vectors_however_few_they_are(columns: int, rank: int) -> None:
    """Five components of rows of two or three dimensions are those, and no more."""
    plane = CHANCE.normal(size=(80, rank)) @ CHANCE.normal(size=(rank, columns)) * 300
    x = torch.from_numpy(plane)
    fitted, judged = plane[::2], plane[1::2]
    centre = fitted.mean(axis=0)
    for components in (1, 5):
        _, _, directions = np.linalg.svd(fitted - centre, full_matrices=False)
        kept = directions[: min(components, rank)]
        off = judged - centre - (judged - centre) @ kept.T @ kept
        found = pca_distortion(SumSquaredError(), x, components)
        same(found, (off**2).sum(axis=1).mean())
