"""Layouts typed as a newcomer types them give the true result, or a refusal that helps.

What each layout comes to stands in the last column of `docs/first-try.md`. A dozen of them are
tried here on every change, in this process; `ISOPROBE_GALLERY=all` tries every one, as
`make nightly` does, in about ten minutes.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.gallery import first_try
from tests.gallery.layouts.make_layouts import ANSWERS

KNOWN = json.loads(ANSWERS.read_text())
#: of each kind the quickest
QUICK = (
    "tutorial_extras", "float64_tanh", "log_std", "compiled_parts", "numpy_names",
    "no_decoder_activation", "learnt_prior", "vamp_prior", "heteroscedastic", "counts_nb",
    "categorical", "lstm_repeated", "sentence_vae", "autoencoder", "vq_vae", "flow_prior",
    "onnx_pair", "scripted",
)  # fmt: skip
CHOSEN = tuple(KNOWN) if os.environ.get("ISOPROBE_GALLERY") == "all" else QUICK
#: share of the layouts that give the true result with at most one command more
BAR = 0.8
FOUND = {first_try.TRUE, first_try.TRUE_NEXT}
HELPS = {first_try.RIGHTLY, first_try.STEP_WORKS, first_try.TRUE_LATER}


def last_column() -> dict[str, str]:
    """What the page says of each layout now."""
    rows = first_try.rows_of(first_try.TABLE.read_text(), "Layouts")
    return {name: cells[-1] for name, cells in rows.items() if name in KNOWN}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHOSEN)
def test_a_layout_comes_to_what_the_page_says(name: str) -> None:
    found = first_try.settle(first_try.try_layout(KNOWN[name]), KNOWN[name])
    assert found.state in FOUND | HELPS, found
    assert last_column()[name].partition(":")[0] == found.state, found


def test_most_layouts_give_the_true_result_with_at_most_one_command_more() -> None:
    states = [cell.partition(":")[0] for cell in last_column().values()]
    assert len(states) == len(KNOWN)
    assert set(states) <= FOUND | HELPS
    assert sum(state in FOUND for state in states) >= BAR * len(states)
