"""Text to values by annotation."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoprobe.errors import OptionError
from isoprobe.registry.specs import coerce, construct, parse_spec


class Part:
    def __init__(
        self,
        required: float,
        count: int = 3,
        kind: Literal["soft", "hard"] = "soft",
        limit: float | None = None,
        flag: bool = False,
        text: str = "",
    ) -> None:
        self.given = vars() | {}
        del self.given["self"]


def test_each_annotation_gets_its_type() -> None:
    options = {"required": "1e-3", "count": "7", "kind": "hard", "limit": "none", "flag": "yes"}
    part = construct(Part, options, "part")
    assert part.given == {
        "required": 1e-3,
        "count": 7,
        "kind": "hard",
        "limit": None,
        "flag": True,
        "text": "",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "part needs option 'required'"),
        ({"required": "1", "cuont": "1"}, "no option 'cuont'; did you mean 'count'"),
        ({"required": "one"}, "needs a number; found 'one'"),
        ({"required": "1", "count": "1.5"}, "needs a whole number; found '1.5'"),
        ({"required": "1", "kind": "sift"}, "one of soft, hard; found 'sift'; did you mean 'soft'"),
        ({"required": "1", "flag": "maybe"}, "is true or false; found 'maybe'"),
        ({"required": "1", "limit": "high"}, "needs a number or none; found 'high'"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        construct(Part, options, "part")


def test_a_value_the_constructor_refuses_is_the_users_error() -> None:
    def refuse(size: int) -> Any:
        raise ValueError("size must be odd")

    with pytest.raises(OptionError, match="part cannot take size=2: size must be odd"):
        construct(refuse, {"size": "2"}, "part")


@given(st.floats(allow_nan=False))
def test_a_number_survives_its_text(value: float) -> None:
    assert coerce(repr(value), float, "x") == value


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]\w*", fullmatch=True), st.from_regex(r"[^,=\s]+", fullmatch=True)
    )
)
def test_a_spec_survives_its_text(options: dict[str, str]) -> None:
    text = ",".join(f"{key}={value}" for key, value in options.items())
    assert parse_spec(f"name:{text}") == ("name", options)
