"""A result speaks: tables, report, figures and its face in a notebook say what the file says."""

from __future__ import annotations

import builtins
import html.parser
import importlib
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import isoprobe
from isoprobe.errors import OptionError, ResultError
from isoprobe.show.cell import render
from isoprobe.show.result import Result
from isoprobe.show.summary import to_json
from tests.made import ORDER, STATES, VARIANCES, made_result


@pytest.fixture
def result(tmp_path):
    with made_result(tmp_path / "r.h5", labelled=True) as found:
        yield Result.of(found)


def test_an_analysis_returns_a_result_that_speaks():
    import torch

    from isoprobe_plugins.architectures.linear import linear_vae

    x = np.random.default_rng(0).normal(size=(64, 4)) * [3.0, 2.0, 1.0, 0.1]
    vae = linear_vae(torch.as_tensor(np.cov(x.T)), 0.5, 4)
    with isoprobe.analyze(vae, x, metric="sse", beta=0.5) as found:
        assert isinstance(found, isoprobe.Result)
        assert found.verdict.level in {"sound", "undecided", "not sound"}
        assert found.latents.index.tolist() == found["importance"]["order"].values.tolist()


def test_latents_are_one_row_each_the_most_important_first(result):
    table = result.latents
    assert table.index.tolist() == ORDER.tolist()
    np.testing.assert_allclose(table["importance_exact"], VARIANCES[ORDER])
    document = {latent["index"]: latent for latent in to_json(result)["latents"]}
    for latent, row in table.iterrows():
        assert row["state"] == document[latent]["state"]
        assert row["kl_mean"] == document[latent]["kl_mean"]


def test_rows_are_one_line_each(result):
    table = result.to_dataframe()
    rows = result.samples()
    assert len(table) == len(rows["y"])
    np.testing.assert_array_equal(table["y_2"], rows["y"][:, 2])
    np.testing.assert_array_equal(table["score"], rows["score"])


def test_the_tree_holds_every_variable_with_its_coordinates(result):
    tree = result.to_xarray()
    for name in result.groups():
        for key, variable in result[name].items():
            held = tree[name][key]
            assert held.dims == tuple(variable.dims)
            np.testing.assert_array_equal(held.values, variable.values)
    assert tree["importance"]["exact"].sel(latent=1).item() == VARIANCES[1]
    assert tree.attrs["model"] == "made by hand"


def test_codes_say_what_they_mean_in_the_tree_and_in_the_file(result):
    import xarray

    for state in (
        result.to_xarray()["importance"]["state"],
        xarray.open_dataset(result.path, group="importance")["state"],
    ):
        assert state.attrs["flag_meanings"].split() == ["active", "mixed", "collapsed"]
        assert state.attrs["flag_values"].tolist() == [0, 1, 2]
        assert state.attrs["flag_values"].dtype == state.dtype
    assert set(STATES) <= {0, 1, 2}


def test_the_root_of_a_file_points_to_its_groups(result):
    import xarray

    root = xarray.open_dataset(result.path)
    for group in result.groups():
        assert group in root.attrs["comment"].split("; ")[0]


def test_a_report_is_written_once(result, tmp_path):
    page = tmp_path / "page.html"
    assert result.report(page) == page
    assert "made by hand" in page.read_text("utf-8")
    with pytest.raises(ResultError, match="exists"):
        result.report(page)
    result.report(page, overwrite=True)
    assert isoprobe.report(result.path, tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_figure_shows_itself(result):
    assert "scree" in result.plots
    assert result.plot("scree")._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(OptionError, match=r"no figure 'scre'.*scree"):
        result.plot("scre")


def test_an_open_result_is_compared_and_left_open(result, tmp_path):
    page = tmp_path / "both.html"
    compared = isoprobe.compare([result, result.path], html=page)
    assert not result.closed
    assert [model.name for model in compared.models] == [f"{tmp_path.name}/r"] * 2
    assert page.exists()
    with pytest.raises(ResultError, match="two"):
        isoprobe.compare([result])


# --------------------------------------------------------------------------- in a notebook


class Cells(html.parser.HTMLParser):
    """Tags, and the text of each cell of a table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_the_face_shows_verdict_and_latents_with_walks(result):
    text = result._repr_html_()
    cells = Cells(text)
    assert [row[0] for row in cells.rows[1:5]] == [str(j) for j in ORDER]
    assert "3 of 4 latents are used." in text
    assert cells.tags.count("img") == 3  # walks that the result has
    assert "script" not in cells.tags


def test_the_face_of_vectors_has_curves(tmp_path):
    walks = np.random.default_rng(0).normal(size=(3, 5, 7))
    with made_result(tmp_path / "r.h5", walks=walks) as found:
        cells = Cells(render(found))
    assert cells.tags.count("path") == 9
    assert "img" not in cells.tags


def test_the_face_says_how_walks_are_had(tmp_path):
    with made_result(tmp_path / "r.h5", groups=("isometry",)) as found:
        assert "+traversal" in render(found)


def test_texts_of_a_file_never_become_tags_in_a_notebook(tmp_path):
    nasty = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    attrs = dict.fromkeys(("model", "metric", "data"), nasty)
    with made_result(tmp_path / "r.h5", finding=nasty, walks=np.zeros((1, 2, 5)), **attrs) as found:
        cells = Cells(render(found))
    assert not {"script", "img"} & set(cells.tags)


def test_a_closed_result_says_so(result):
    result.close()
    assert "closed" in result._repr_html_()


# --------------------------------------------------------------------------- the front door


def test_the_front_door_lists_what_it_opens():
    listed = dir(isoprobe)
    assert {"open", "inspect", "doctor", "compare", "convert", "report", "analyze"} <= set(listed)
    assert all(getattr(isoprobe, name) is not None for name in listed)
    exec("from isoprobe import *", scope := {})
    assert scope.get("open", builtins.open) is builtins.open


def test_a_name_that_was_a_module_can_still_be_called(result):
    """``isoprobe.compare`` and ``isoprobe.report`` were modules, whose old path works on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = importlib.import_module("isoprobe.compare")
    try:
        assert isoprobe.compare is old
        assert len(isoprobe.compare([result, result]).models) == 2
    finally:
        del isoprobe.compare
    assert re.match("function", type(isoprobe.compare).__name__)


def test_inspect_and_convert_are_functions(tmp_path):
    digits = Path(__file__).parents[2] / "examples" / "digits.safetensors"
    assert isoprobe.inspect(digits)["adapter"] == "native"
    small = isoprobe.convert(digits, tmp_path / "small.safetensors", latents="used")
    assert small.latents == 7
    assert isoprobe.inspect(small.path)["declared"]
    with pytest.raises(OptionError, match="latents"):
        isoprobe.convert(digits, tmp_path / "x.safetensors", latents="some")
