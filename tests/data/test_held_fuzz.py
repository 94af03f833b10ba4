"""Whatever a data frame holds, its rows are finite numbers or the refusal is one line."""

from __future__ import annotations

import warnings

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isoprobe.data.held import hold
from isoprobe.errors import IsoprobeError

ROWS = 4


def of(values: st.SearchStrategy) -> st.SearchStrategy[list]:
    return st.lists(values, min_size=ROWS, max_size=ROWS)


#: columns as people, and people who mean harm, hold them
COLUMNS = st.one_of(
    of(st.floats(width=32)).map(lambda v: pandas.Series(v, dtype="float32")),
    of(st.floats()).map(pandas.Series),
    of(st.integers(-(2**70), 2**70)).map(lambda v: pandas.Series(v, dtype=object)),
    of(st.booleans()).map(pandas.Series),
    of(st.none() | st.integers(0, 9)).map(lambda v: pandas.Series(v, dtype="Int64")),
    of(st.text(max_size=5)).map(lambda v: pandas.Series(v, dtype=object)),
    of(st.sampled_from("ab")).map(lambda v: pandas.Series(v, dtype="category")),
    of(st.integers(0, 10**9)).map(lambda v: pandas.Series(pandas.to_datetime(v))),
    of(st.complex_numbers(max_magnitude=9)).map(pandas.Series),
    of(st.lists(st.floats(0, 1), max_size=3)).map(lambda v: pandas.Series(v, dtype=object)),
    st.just(pandas.Series([object()] * ROWS)),
)
NAMES = st.sampled_from(["a", "b", "", "x\x1b[2J", "\u202eb", "=cmd()", 3, None, ("a", "b")])


@st.composite
def frames(draw: st.DrawFn) -> pandas.DataFrame:
    columns = draw(st.lists(COLUMNS, max_size=4))
    frame = pandas.concat(columns, axis=1) if columns else pandas.DataFrame(index=range(ROWS))
    frame.columns = pandas.Index(
        [draw(NAMES) for _ in columns], dtype=object
    )  # the same twice, too
    return frame.iloc[: draw(st.integers(0, ROWS))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames())
def test_a_frame_is_numbers_or_one_line(frame: pandas.DataFrame) -> None:
    before = frame.copy(deep=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            held = hold(frame)
            rows = np.asarray(held.read(np.arange(len(held))))
    except IsoprobeError as error:
        assert str(error).strip() and "\n" not in str(error)
    else:
        assert rows.shape == frame.shape and rows.dtype.kind in "fiub"
        for place in range(frame.shape[1]):
            expected = frame.iloc[:, place].to_numpy(dtype=float)
            np.testing.assert_array_equal(rows[:, place].astype(float), expected)
    pandas.testing.assert_frame_equal(frame, before)


def test_the_fuzz_meets_frames_that_are_read_and_some_that_are_not() -> None:
    """Else the law above could hold because every frame is refused."""
    assert len(hold(pandas.DataFrame({"a": [1.0, 2.0], "b": [True, False]}))) == 2
    with pytest.raises(IsoprobeError):
        hold(pandas.DataFrame({"a": ["x", "y"]}))
