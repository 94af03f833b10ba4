"""Whatever a plugin of another distribution does wrong is said of that plugin."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from isoprobe.contracts import Metric
from isoprobe.errors import IsoprobeError, MetricError, PluginError
from isoprobe.registry.guard import guard

WHAT = "metric 'odd'"


class Odd(Metric):
    """Raises or returns what it is given."""

    name = "odd"

    def __init__(self, answer) -> None:
        self.answer = answer

    def distortion(self, x, x_hat):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(x, x_hat)


def good(x, x_hat):
    return ((x - x_hat) ** 2).flatten(1).sum(1)


def guarded(answer) -> Odd:
    return guard(Odd(answer), WHAT, "acme")


X = torch.rand(3, 4)


def test_a_good_plugin_is_called_as_it_is() -> None:
    metric = guarded(good)
    assert isinstance(metric, Odd)
    assert torch.equal(metric.distortion(X, 0 * X), good(X, 0 * X))
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert torch.equal(other.distortion(X, 0 * X), good(X, 0 * X))
    jacobian = torch.func.jacrev(lambda y: metric.distortion(X, y))(0 * X)
    assert jacobian.shape == (3, 3, 4)


@pytest.mark.parametrize(
    "error", [ValueError("no\nway"), KeyError(), SystemExit(3), ZeroDivisionError()]
)
def test_whatever_a_plugin_raises_names_it(error) -> None:
    with pytest.raises(PluginError) as caught:
        guarded(error).distortion(X, X)
    said = str(caught.value)
    assert said.startswith(f"{WHAT} of acme: distortion: {type(error).__name__}")
    assert "\n" not in said


def test_what_a_plugin_says_itself_is_left() -> None:
    with pytest.raises(MetricError, match="^needs more$"):
        guarded(MetricError("needs more")).distortion(X, X)


def test_our_own_are_not_wrapped() -> None:
    with pytest.raises(ValueError, match="ours"):
        guard(Odd(ValueError("ours")), WHAT, "isoprobe").distortion(X, X)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x, y: 3.0, "a float"),
        (lambda x, y: None, "a NoneType"),
        (lambda x, y: good(x, y).sum(), r"shape \(\)"),
        (lambda x, y: (x - y) ** 2, r"shape \(3, 4\)"),
        (lambda x, y: good(x, y).long(), "int64"),
        (lambda x, y: good(x, y) * float("nan"), "NaN for finite inputs"),
    ],
)
def test_what_is_no_distortion_is_blamed_on_the_metric(answer, said) -> None:
    with pytest.raises(IsoprobeError, match=f"{WHAT} of acme: distortion returned.*{said}"):
        guarded(answer).distortion(X, X + 1)
