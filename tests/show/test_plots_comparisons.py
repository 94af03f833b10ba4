"""Figures of several models show the numbers of each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from isoprobe.show import plots
from isoprobe.show.compare import Model
from isoprobe.show.matching import Matching

ONE = Model(
    name="one",
    model="a",
    metric="sse",
    beta=0.5,
    active=3,
    latents=4,
    rate_bits=12.0,
    distortion=3.0,
    coding_loss=0.75,
    transform_loss=1.25,
    norm=0.98,
    residual=0.01,
    cosine=0.02,
    importances=(6.0, 1.5, 0.3),
    shown={},
    headline="Sound",
    verdict="all is well",
)
TWO = dataclasses.replace(
    ONE, name="two", beta=2.0, rate_bits=5.0, coding_loss=2.0, importances=(5.8, 1.4)
)


@pytest.fixture
def axes() -> Axes:
    with plots.styled():
        return Figure(figsize=(5, 3.2)).add_subplot()


def named(axes: Axes, label: str):
    return next(line for line in axes.lines if line.get_label() == label)


def levels(axes: Axes) -> list[float]:
    """Heights of the lines across."""
    return [float(line.get_ydata()[0]) for line in axes.lines if list(line.get_xdata()) == [0, 1]]


def test_spectra_fall_by_rank_towards_the_water_line_of_each_model(axes):
    plots.spectra([ONE, TWO], axes)
    for model in (ONE, TWO):
        line = named(axes, model.name)
        np.testing.assert_array_equal(line.get_xdata(), range(1, len(model.importances) + 1))
        np.testing.assert_array_equal(line.get_ydata(), model.importances)
    assert levels(axes) == [0.25, 1.0]
    assert axes.get_yscale() == "log"
    assert "sse" in axes.get_ylabel()


def test_spectra_of_different_metrics_have_no_common_unit(axes):
    plots.spectra([ONE, dataclasses.replace(TWO, metric="bce")], axes)
    assert "sse" not in axes.get_ylabel()


def test_a_model_without_a_beta_has_no_water_line(axes):
    plots.spectra([dataclasses.replace(ONE, beta=None)], axes)
    assert levels(axes) == []


def test_rate_distortion_points_stand_at_both_losses(axes):
    plots.rate_distortion_points([ONE, TWO], axes)
    for model in (ONE, TWO):
        point = named(axes, model.name)
        total = model.coding_loss + model.transform_loss
        assert (*point.get_xdata(), *point.get_ydata()) == pytest.approx((model.rate_bits, total))
    hollow = [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axes.lines
        if line.get_markerfacecolor() == "none" and len(line.get_xdata())
    ]
    assert hollow == [(12.0, 0.75), (5.0, 2.0)]


def test_models_without_a_rate_are_left_out(axes):
    plots.rate_distortion_points([dataclasses.replace(ONE, rate_bits=None)], axes)
    assert [line.get_label() for line in axes.lines] == ["coding loss alone"]


def test_matched_shows_the_strength_of_every_pair_and_marks_the_counterparts(axes):
    correlations = np.array([[0.1, -0.9, 0.0], [0.8, 0.2, 0.3]])
    pairs = ((0, 1), (1, 0))
    matching = Matching("y", np.array([4, 2]), np.array([0, 3, 1]), correlations, pairs, np.ones(2))
    plots.matched(matching, axes)
    np.testing.assert_allclose(axes.images[0].get_array(), np.abs(correlations))
    assert [(float(p.get_ydata()[0]), float(p.get_xdata()[0])) for p in axes.lines] == list(pairs)
    FigureCanvasAgg(axes.figure).draw()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "3", "1"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["4", "2"]
