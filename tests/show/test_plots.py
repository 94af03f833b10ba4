"""Each figure shows the numbers it is given, where they belong."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from sklearn import metrics

from isoprobe.errors import OptionError, ResultError
from isoprobe.show import plots
from isoprobe.show.plots.frames import frames, picture_shape
from tests.made import (
    COSINES,
    NORMS,
    ORDER,
    RESIDUALS,
    VARIANCES,
    Variable,
    made_result,
    traversal,
)


@pytest.fixture
def axes():
    with plots.styled():
        return Figure(figsize=(5, 3)).add_subplot()


@pytest.fixture(scope="module")
def result():
    with made_result(None, labelled=True) as result:
        yield result


@pytest.fixture(scope="module")
def holding(result, parts_result):
    """Every figure by name, with a result that has its numbers."""
    return {name: held for held in (parts_result, result) for name in plots.available(held)}


def line(axes, label):
    return next(artist for artist in axes.lines if artist.get_label() == label)


def dots(axes):
    states = [one for one in axes.lines if one.get_label() in {"active", "mixed", "collapsed"}]
    found = {x: y for one in states for x, y in zip(*one.get_data(), strict=True)}
    return [found[x] for x in sorted(found)]


def tick_texts(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_scree_shows_importances_in_order_over_the_water_line(result, axes):
    plots.scree(result, axes)
    assert dots(axes) == pytest.approx(VARIANCES[ORDER])
    np.testing.assert_allclose(line(axes, "rough").get_ydata(), 1.1 * VARIANCES[ORDER])
    assert line(axes, r"water line $\beta/2$").get_ydata() == [0.25, 0.25]
    assert tick_texts(axes.xaxis) == ["1", "2", "0", "3"]
    share = axes.figure.axes[1].lines[0].get_ydata()
    assert share[:2] == pytest.approx([100 * 6 / 7.5, 100])  # 0.2 and 0.1 are drowned at 0.25
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert {"active", "mixed", "collapsed"} <= labels


def test_norms_show_both_routes_and_one(result, axes):
    plots.norms(result, axes)
    total = line(axes, r"norm + $\sigma^2$")
    np.testing.assert_allclose(total.get_ydata(), 1 + RESIDUALS[ORDER])
    stationary = line(axes, r"norm + $\sigma^2$, stationarity")
    np.testing.assert_allclose(stationary.get_ydata(), 1 + RESIDUALS[ORDER] / 2)
    (errors,) = axes.containers
    np.testing.assert_allclose(errors.lines[0].get_ydata(), NORMS[ORDER])
    spans = [segment[1, 1] - segment[0, 1] for segment in errors.lines[2][0].get_segments()]
    np.testing.assert_allclose(spans, 2 * NORMS[ORDER] / 10)


def test_norms_without_a_metric_tensor_show_stationarity_alone(axes):
    with made_result(None, pullback=False) as result:
        plots.norms(result, axes)
        assert not axes.containers
        assert "orthogonality" not in plots.available(result)
        with pytest.raises(ResultError, match="no metric tensor"):
            plots.orthogonality(result, axes)


def test_inverse_variances_are_one_for_the_prior(result, axes):
    plots.inverse_variances(result, axes)
    assert dots(axes) == pytest.approx(np.maximum(1, VARIANCES[ORDER] / 0.25))


def test_orthogonality_shows_active_latents_in_order(result, axes):
    plots.orthogonality(result, axes)
    shown = axes.images[0].get_array().filled(np.nan)
    # latents 0 and 3 are under the water line
    np.testing.assert_allclose(shown, [[np.nan, COSINES[1, 2]], [COSINES[2, 1], np.nan]])
    assert tick_texts(axes.xaxis) == ["1", "2"]


def test_rate_distortion_places_the_model_beside_the_prediction(result, axes):
    plots.rate_distortion(result, axes)
    curve = line(axes, "water-filling")
    np.testing.assert_allclose(curve.get_xdata(), np.array([4, 3, 2, 1]) / np.log(2))
    for label, value in [
        ("coding loss", 0.75),
        (r"$\frac{\beta}{2}\sum(1-\sigma^2)$", 0.75),
        ("distortion", 2),
    ]:
        point = line(axes, label)
        assert (*point.get_xdata(), *point.get_ydata()) == pytest.approx((3.0, value))


def test_density_estimators_are_drawn_against_each_other(result, axes):
    plots.density_estimators(result, axes)
    points = axes.lines[0]
    np.testing.assert_allclose(points.get_ydata(), 2 * points.get_xdata())
    assert axes.texts[0].get_text() == "R = 1.000"


def test_density_scatter_leaves_out_what_is_not_finite(axes):
    truth = np.array([1.0, 2.0, 3.0, np.nan])
    plots.density_scatter(truth, np.array([2.0, 1.0, np.inf, 3.0]), axes)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1.0, 2.0])
    assert axes.texts[0].get_text() == "R = -1.000"


def test_histogram_keeps_every_finite_score(axes):
    scores = np.array([1.0, 2.0, 3.0, 4.0, 400.0, np.inf])
    odd = np.array([False, False, False, False, True, True])
    plots.score_histogram(scores, axes, labels=odd, threshold=10.0)
    assert sum(bar.get_height() for bar in axes.containers[0]) == 4
    assert line(axes, "threshold").get_xdata() == [10.0, 10.0]
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize("scores", [np.ones(5), np.zeros(1), np.array([np.nan])])
def test_histogram_of_hardly_any_scores(axes, scores):
    plots.score_histogram(scores, axes)
    counted = sum(bar.get_height() for bar in axes.containers[0])
    assert counted == np.isfinite(scores).sum()


@pytest.fixture(params=["continuous", "tied"])
def scored(request):
    chance = np.random.default_rng(0)
    odd = chance.random(300) < 0.2
    scores = odd + chance.normal(size=300)
    return (scores if request.param == "continuous" else scores.round()), odd


def test_roc_and_its_area_equal_scikit_learns(scored, axes):
    scores, odd = scored
    plots.roc(scores, odd, axes)
    false, found, _ = metrics.roc_curve(odd, scores, drop_intermediate=False)
    np.testing.assert_allclose(axes.lines[0].get_xdata(), false)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), found)
    assert axes.lines[0].get_label() == f"area {metrics.roc_auc_score(odd, scores):.3f}"


def test_precision_and_recall_equal_scikit_learns(scored, axes):
    scores, odd = scored
    plots.precision_recall(scores, odd, axes)
    precision, recall, _ = metrics.precision_recall_curve(odd, scores)
    np.testing.assert_allclose(axes.lines[0].get_xdata(), recall[-2::-1])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), precision[-2::-1])
    average = metrics.average_precision_score(odd, scores)
    assert axes.lines[0].get_label() == f"average {average:.3f}"


def test_anomaly_figures_need_labels_where_they_do(axes):
    with made_result(None, labelled=False) as result:
        assert "anomaly_scores" in plots.available(result)
        assert "anomaly_roc" not in plots.available(result)
        plots.anomaly_scores(result, axes)
        assert line(axes, "threshold").get_xdata() == [4.0, 4.0]
        with pytest.raises(ResultError, match="no labels"):
            plots.anomaly_roc(result, axes)


def test_ablation_draws_each_curve_with_its_band(axes):
    weights = np.array([1.0, 10.0, 100.0])
    curves = {"z1": np.array([0.9, 1.0, 1.1]), "z2": np.array([0.5, 0.9, 1.0])}
    plots.ablation(weights, curves, axes, spreads={"z1": np.full(3, 0.2)}, ideal=1.0)
    np.testing.assert_array_equal(line(axes, "z2").get_ydata(), curves["z2"])
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.7, 1.3))
    styles = {(c.get_marker(), c.get_linestyle()) for c in axes.lines[:2]}
    assert len(styles) == 2  # told apart without colour


def test_traversal_lays_frames_out_by_rank_and_step(result, axes):
    plots.traversal(result, axes)
    sheet = axes.images[0].get_array()
    walks = result["traversal"]["images"].values
    tiles = sheet.reshape(3, len(sheet) // 3, 5, sheet.shape[1] // 5, 4).swapaxes(1, 2)
    pixels = tiles[:, :, 2:-2, 2:-2]  # between the gaps, each enlarged to sixteen
    for at in (0, 15):
        shown = pixels[:, :, at::16, at::16]
        np.testing.assert_allclose(shown[0, 1, :, :, 0], walks[0, 1, 0])
        np.testing.assert_allclose(shown[2, 0, :, :, 0], walks[2, 0, 0])
    assert (tiles[:, :, :, [0, 1, -2, -1], 3] == 0).all()
    assert tick_texts(axes.yaxis) == ["1  (24)", "2  (6)", "0  (1)"]
    assert tick_texts(axes.xaxis) == ["-2", "0", "2"]


def test_traversal_of_vectors_draws_a_line_for_each_step(axes):
    walks = np.random.default_rng(0).normal(size=(2, 5, 7))
    with made_result(None, walks=walks) as result:
        plots.traversal(result, axes, steps="y")
    drawn = [artist.get_ydata() for artist in axes.lines if len(artist.get_ydata()) == 7]
    assert len(drawn) == 10
    first = np.concatenate(drawn[:5])
    assert np.corrcoef(first, walks[0].ravel())[0, 1] == pytest.approx(-1)  # the axis points down


def test_traversal_of_volumes_is_refused(axes):
    volumes = np.zeros((2, 3, 2, 2, 2, 2))
    with made_result(None, walks=volumes) as result, pytest.raises(ResultError, match="no figure"):
        plots.traversal(result, axes)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.25, 1.0], [0.25, 1.0]),
        ([-1.0, 1.0], [0.0, 1.0]),
        ([0.0, 255.0], [0, 1]),
        ([3, 7], [0, 1]),
    ],
)
def test_frames_are_scaled_by_the_range_they_lie_in(values, expected):
    walks = np.repeat(np.array(values, dtype=float), 4).reshape(1, 2, 2, 2)
    variable = Variable(("rank", "step", "row", "column"), walks, "walks")
    np.testing.assert_allclose(frames(variable.values)[0, :, 0, 0, 0], expected)


def test_frames_of_many_channels_are_no_pictures():
    walks = traversal(np.zeros((1, 2, 5, 4, 4)))["images"]
    assert frames(walks.values) is None


def test_coordinates_show_pairs_of_the_leading_active_latents(result, axes):
    plots.coordinates(result, axes)
    panels = axes.child_axes
    assert len(panels) == 3  # two active latents: two histograms and one pair
    pair = next(panel for panel in panels if panel.lines)
    y = result.samples()["y"]
    np.testing.assert_allclose(pair.lines[0].get_xdata(), y[:, 1])
    np.testing.assert_allclose(pair.lines[0].get_ydata(), y[:, 2])


def test_every_figure_can_be_drawn_and_all_are_listed(holding):
    assert set(holding) == set(plots.catalogue())
    for name, result in holding.items():
        assert plots.figure(result, name).axes


def test_nothing_is_cut_off_or_too_small_to_read(holding):
    for name, entry in plots.catalogue().items():
        drawn = plots.figure(holding[name], name)
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        needed = drawn.get_tightbbox(canvas.get_renderer())  # inches
        width, height = entry.size
        assert needed.x0 > -0.02, name
        assert needed.y0 > -0.02, name
        assert needed.x1 < width + 0.02, name
        assert needed.y1 < height + 0.02, name
        sizes = [t.get_fontsize() for t in drawn.findobj(Text) if t.get_text()]
        assert min(sizes, default=6) >= 6, name


def test_unknown_and_missing_figures_are_named(result):
    with pytest.raises(OptionError, match="did you mean 'scree'"):
        plots.figure(result, "scre")
    with (
        made_result(None, groups=("isometry",)) as small,
        pytest.raises(OptionError, match="needs"),
    ):
        plots.figure(small, "scree")


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_saved_figures_are_the_same_bytes_each_time(result, tmp_path, kind):
    one = plots.save(result, tmp_path / "one", ["scree", "norms"], kind)
    two = plots.save(result, tmp_path / "two", ["scree", "norms"], kind)
    assert [path.name for path in one] == [f"scree.{kind}", f"norms.{kind}"]
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes()
    if kind == "png":
        assert compare_images(str(one[0]), str(two[0]), tol=0) is None
        assert (
            compare_images(str(one[0]), str(two[1]), tol=10) is not None
        )  # a comparison that can fail


def test_svg_for_a_page_takes_its_ink_and_keeps_ids_apart(holding):
    svgs = [plots.to_svg(plots.figure(result, name), name) for name, result in holding.items()]
    ids = [found for svg in svgs for found in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in svgs:
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
        assert used <= set(re.findall(r'\bid="([^"]+)"', svg))
        assert "currentColor" in svg
        assert "#1b1b1e" not in svg
        assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", svg)


def test_a_dollar_in_a_metrics_name_is_text():
    with made_result(None, metric="mine:a=$x^{$") as result:
        drawn = plots.figure(result, "scree")
        assert drawn.axes[0].get_ylabel().endswith(r"[mine:a=\$x^{\$]")
        assert plots.to_svg(drawn, "scree")  # which would fail on mathematics that is none


@pytest.mark.parametrize("count", [1, 60, 300])
def test_latent_figures_take_any_number_of_latents(count):
    from isoprobe.results.writer import ResultWriter

    inverse = np.geomspace(100, 1, count)
    variable = Variable(("latent",), inverse, "inverse")
    with ResultWriter.open(None, samples=1, latent=count) as writer:
        active = Variable(("latent",), inverse > 2, "active")
        writer.write_group("overview", {"inverse_variance_mean": variable, "active": active})
        with writer.finish({}) as many:
            drawn = plots.figure(many, "inverse_variances")
            assert dots(drawn.axes[0]) == pytest.approx(inverse)
            assert plots.to_png(drawn).startswith(b"\x89PNG")


def test_figures_of_a_model_that_learnt_nothing_say_so():
    with made_result(None, variances=np.full(4, 0.1)) as result:
        for name in plots.available(result):
            drawn = plots.figure(result, name)
            assert plots.to_png(drawn)
        said = plots.figure(result, "orthogonality").axes[0].texts[0].get_text()
        assert said == "no latent is active"


def test_a_row_stands_above_its_reconstruction(axes):
    x = np.random.default_rng(0).random((4, 5, 7))
    group = {
        "spread_input": Variable(("spread", "row", "column"), x, "x"),
        "spread_decoded": Variable(("spread", "row", "column"), 1 - x, "x"),
        "spread_distortion": Variable(("spread",), np.arange(4.0), "D"),
    }

    class Held(dict):
        image_shape = None

    plots.reconstructions(Held(examples=group), axes)
    (image,) = axes.images
    sheet = image.get_array()
    height, width = sheet.shape[0] // 2, sheet.shape[1] // 4
    assert tuple(image.get_extent()) == (-0.5, 3.5, 1.5, -0.5)
    middle = sheet[height // 2, 2 * width + width // 2, 0]
    assert middle == pytest.approx(x[2, 2, 3])
    assert sheet[height + height // 2, 2 * width + width // 2, 0] == pytest.approx(1 - x[2, 2, 3])
    assert sheet[0, 0, 3] == 0  # a gap
    assert tick_texts(axes.xaxis) == ["D = 0", "D = 1", "D = 2", "D = 3"]


@pytest.mark.parametrize("name", ["digits", "noise", "wave", "one"])
def test_flat_inputs_are_pictures_where_they_look_so(name):
    import pathlib

    generator = np.random.default_rng(0)
    t = np.linspace(0, 6 * np.pi, 64)
    flat = {
        "digits": np.load(pathlib.Path(__file__).parents[2] / "examples" / "digits.npy")[:40],
        "noise": generator.random((40, 64)),
        "wave": np.sin(t + generator.random((40, 1)) * 6),
        "one": np.ones((40, 64)),
    }[name].astype(float)
    found = frames(flat[:, None])
    if name == "digits":
        assert found.shape == (40, 1, 8, 8, 1)
    else:
        assert found is None
    assert frames(flat[:, None], (4, 16)).shape == (40, 1, 4, 16, 1)
    assert frames(flat[:, None], (1, 64)) is None  # so that lines can be had


class Drawn(dict):
    """A result of which only its rows matter."""

    image_shape = None


def test_all_figures_of_a_result_take_its_rows_for_the_same():
    """Eight rows of one kind may look like curves where all of them are pictures."""
    import pathlib

    digits = np.load(pathlib.Path(__file__).parents[2] / "examples" / "digits.npy")
    rough = np.tile(np.indices((8, 8)).sum(0) % 2, (4, 1, 1)).reshape(4, 64)  # no neighbours alike
    assert frames(rough[:, None].astype(float)) is None
    kinds = {"spread_input": digits[:60], "worst_input": rough}
    result = Drawn(examples={n: types.SimpleNamespace(values=v) for n, v in kinds.items()})
    assert picture_shape(result) == (8, 8)
    assert frames(rough[:, None], picture_shape(result)).shape == (4, 1, 8, 8, 1)
    result.image_shape = (4, 16)
    assert picture_shape(result) == (4, 16)
    assert picture_shape(Drawn()) is None
    wide = types.SimpleNamespace(values=np.zeros((4, 3, 8, 8)))
    assert picture_shape(Drawn(examples={"spread_input": wide})) is None


def test_classes_have_colours_and_a_legend(axes):
    with made_result(None, label=np.arange(200) % 9) as labelled:
        plots.coordinates(labelled, axes)
    pair = next(panel for panel in axes.child_axes if panel.lines)
    assert len({line.get_color() for line in pair.lines}) == 9
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list("012345678")
