"""Figures of the KL in parts, of factors, truncation and distances show the numbers stored."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from isoprobe.show import plots
from isoprobe.show.plots import parts
from isoprobe.show.report import render

NAMES = {
    "kl_parts", "information_bits", "probe_accuracy", "probe_bits", "truncation",
    "truncation_pictures", "distances", "shortest_paths", "read_write",
}  # fmt: skip


@pytest.fixture
def axes():
    with plots.styled():
        return Figure(figsize=(5, 3)).add_subplot()


def test_every_figure_is_drawn_in_the_report(parts_result):
    assert set(plots.available(parts_result)) >= NAMES
    assert "cannot be drawn" not in render(parts_result)


def test_bars_of_the_parts_add_up_to_the_rate(parts_result, axes):
    parts.kl_parts(parts_result, axes)
    order = parts_result["importance"]["order"].values
    tops = [bar.get_y() + bar.get_height() for bar in axes.patches[6:]]
    np.testing.assert_allclose(tops, parts_result["overview"]["kl_mean"].values[order], atol=1e-5)
    assert "saturated" in axes.texts[0].get_text()


def test_cells_that_may_be_nothing_are_blank(parts_result, axes):
    parts.information_bits(parts_result, axes)
    order = parts_result["importance"]["order"].values
    shown = axes.images[0].get_array().filled(np.nan)
    blank = parts_result["information"]["bits_low"].values[:, order] <= 0
    np.testing.assert_array_equal(np.isnan(shown), blank)
    assert 0 < blank.sum() < blank.size


@pytest.mark.parametrize(
    ("draw", "curve", "limit"),
    [
        (parts.probe_accuracy, "probe_accuracy", "majority"),
        (parts.probe_bits, "probe_bits", "entropy"),
    ],
)
def test_probe_curves_stand_against_their_limit(draw, curve, limit, parts_result, axes):
    draw(parts_result, axes)
    group = parts_result["information"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), group[curve].values[0])
    assert axes.lines[1].get_ydata()[0] == group[limit].values[0]


def test_the_truncation_curve_marks_how_many_are_enough(parts_result, axes):
    parts.truncation(parts_result, axes)
    group = parts_result["truncation"]
    marked = {text.get_text() for text in axes.get_legend().get_texts()}
    assert f"95 %: k = {int(group['latents_95'].values)}" in marked
    predicted = next(x for x in axes.lines if x.get_label() == "as importance predicts")
    np.testing.assert_array_equal(predicted.get_ydata(), group["distortion_predicted"].values)


def test_distances_lie_on_the_line_of_a_linear_vae(parts_result, axes):
    parts.distances(parts_result, axes)
    d, y = axes.lines[1].get_data()
    np.testing.assert_allclose(y, d, rtol=1e-5)


def test_the_most_distant_pairs_are_decoded_along_their_paths(parts_result):
    group = parts_result["geometry"]
    far = np.argsort(-group["geodesic"].values)[:2]
    np.testing.assert_array_equal(group["pictured"].values, far)
    along, straight = (group[f"images_{name}"].values for name in ("geodesic", "straight"))
    assert along.shape == (2, 9, 6)
    # straight lines are the shortest paths of a linear decoder, and steps on them are equal
    np.testing.assert_allclose(along, straight, atol=2e-2)
    steps = np.linalg.norm(np.diff(straight, axis=1), axis=2)
    np.testing.assert_allclose(steps, steps.mean(axis=1, keepdims=True) * np.ones(8), rtol=1e-4)
