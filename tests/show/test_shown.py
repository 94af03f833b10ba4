"""What a result shows is what its variables say: a stranger's like ours, an old file's by name."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import isoprobe
from isoprobe.cli.group import cli
from isoprobe.contracts import Variable
from isoprobe.errors import PluginError
from isoprobe.registry.discovery import PluginWarning
from isoprobe.registry.lookup import installed
from isoprobe.results.former import FORMER
from isoprobe.results.reader import Result
from isoprobe.results.writer import ResultWriter
from isoprobe.show import plots, report
from isoprobe.show.compare import compare
from isoprobe.show.shown import TABLE, Shown, columns, said, tiles
from isoprobe.show.summary import to_json, to_text
from isoprobe.show.voice import voice
from isoprobe.testing.analyses import check_analysis
from isoprobe.testing.models import small_data, small_vae
from tests.distributions import install
from tests.made import made_result
from tests.processes import python

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "results" / "golden"


def read(text: str) -> str:
    return re.sub(r"\s+", " ", click.unstyle(text))


# ------------------------------------------------------------------ a third party's analysis

PAGE = (ROOT / "docs" / "plugins.md").read_text()
CODE = PAGE.partition("<!-- example: analysis -->")[2].split("```")[1].removeprefix("python\n")
DRAWN = PAGE.partition("<!-- example: figures -->")[2].split("```")[1].removeprefix("python\n")
#: before the figure of the docs, one that cannot be drawn and one whose numbers are not there
MORE = """        def fail(result, ax):
            raise ValueError("by design")

        return [
            Figure("broken", fail, "Broken", "Never drawn.", "centre/centre"),
            Figure("absent", fail, "Absent", "Needs what is not there.", "centre/no-such"),
            *"""


@pytest.fixture
def centre(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """Results of two runs with the analysis of the docs installed, word for word."""
    text = CODE
    if getattr(request, "param", "") == "figures":
        drawn = DRAWN.replace("        return ", MORE).rstrip() + "]\n\n"
        text = text.replace("    def start(", f"{drawn}    def start(", 1)
    site, module = tmp_path / "site", f"isoprobe_centre_{tmp_path.name.replace('-', '_')}"
    site.mkdir()
    install(site, "a-strangers", {"analysis.centre": module}, {module: text})
    monkeypatch.syspath_prepend(str(site))
    installed.cache_clear()
    for name, seed in (("one", 0), ("two", 1)):
        isoprobe.analyze(
            small_vae(seed),
            small_data(120, 0).numpy(),
            metric="bce",
            beta=1.0,
            analyses=["importance", "isometry", "centre"],
            out=tmp_path / f"{name}.h5",
        ).close()
    yield tmp_path
    installed.cache_clear()
    sys.modules.pop(module, None)


def test_a_strangers_analysis_is_shown_everywhere_without_another_line(centre: Path) -> None:
    lines = [line for line in CODE.splitlines() if line.strip()]
    assert len(lines) <= 26
    with Result.open(centre / "one.h5") as one, Result.open(centre / "two.h5") as two:
        values = one["centre"]["centre"].values
        document = to_json(one)
        assert [row["centre/centre"] for row in document["latents"]] == values.tolist()
        json.dumps(document, allow_nan=False)
        summary = click.unstyle(to_text(one))
        block = summary[summary.index("\ncentre\n") :].splitlines()
        assert block[2].split() == ["latent", "centre", "spread"]
        leading = int(block[3].split()[0])
        assert float(block[3].split()[1]) == pytest.approx(values[leading], rel=5e-3)
        page = report.render(one)
        assert 'title="standard deviation of μ">spread</button>' in page
        assert f'data-value="{values[leading]}"' in page
        compared = compare([one, two])
        used = one["overview"]["active"].values
        assert compared.models[0].shown["mean centre"] == pytest.approx(values[used].mean())
        assert "mean spread" in compared.to_text()
        assert '<th scope="row">mean spread</th>' in report.compared_page([one, two], compared)


@pytest.mark.parametrize("centre", ["figures"], indirect=True)
def test_a_strangers_figures_are_drawn_and_one_that_fails_spoils_nothing(centre: Path) -> None:
    with Result.open(centre / "one.h5") as one:
        assert plots.available(one)[-2:] == ["broken", "centres"]
        page = report.render(one)
        with pytest.raises(PluginError, match="figure 'broken' cannot be drawn: ValueError"):
            plots.figure(one, "broken")
    assert 'id="figure-scree"' in page
    assert "0 at an optimum." in page
    assert "figure &#39;broken&#39; cannot be drawn" in page
    arguments = [str(centre / "one.h5"), "--figures", str(centre / "f"), "--figure", "centres"]
    found = CliRunner().invoke(cli, ["report", *arguments], catch_exceptions=False)
    assert found.exit_code == 0
    assert [path.name for path in (centre / "f").iterdir()] == ["centres.svg"]
    law = next(
        law
        for law in check_analysis(lambda: installed().analysis("centre"))
        if "figures" in str(law)
    )
    with pytest.raises((AssertionError, PluginError), match="broken"):
        law()


def test_a_figure_of_a_name_that_is_taken_is_reported_and_the_rest_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    analyses = {name: installed().plugin("analysis", name) for name in ("density", "importance")}
    theirs = analyses["density"].figures()[0]
    before = list(plots.catalogue())
    for taken in ("scree", "../scree", ""):
        renamed = (replace(theirs, name=taken),)
        monkeypatch.setattr(analyses["density"], "figures", classmethod(lambda cls, r=renamed: r))
        with pytest.warns(PluginWarning, match="figures of 'density'"):
            found = plots.catalogue()
        assert list(found) == [name for name in before if name != theirs.name]
        assert found["scree"].needs == "importance/exact"


# ------------------------------------------------------------------ what variables say


def written(**variables: Variable) -> Result:
    """A result that holds an analysis of those variables."""
    active = Variable(("latent",), np.array([True, True, False]), "active", show="none")
    with ResultWriter.open(None, samples=1, latent=3) as writer:
        writer.append(0, {"row": Variable(("sample",), np.zeros(1), "a row")})
        writer.write_group("overview", {"active": active})
        writer.write_group("theirs", variables)
        return writer.finish({"samples": 1, "data": "x", "model": "m"})


NUMBERS = np.array([1.0, 2.0, np.nan])


def test_shape_decides_where_a_variable_is_silent() -> None:
    with written(
        a=Variable(("latent",), NUMBERS, "one a latent"),
        b=Variable((), np.array(3), "a number"),
        c=Variable((), np.array("a word"), "a word"),
        d=Variable(("latent", "other"), np.zeros((3, 2)), "a matrix"),
        e=Variable(("latent",), NUMBERS, "hidden", show="none"),
        f=Variable((), np.array("a word"), "a word that asks", show="tile"),
    ) as result:
        assert [column.place for column in columns(result)] == ["theirs/a"]
        assert [tile.place for tile in tiles(result)] == ["theirs/b", "theirs/f"]
        assert columns(result)[0].values == (1.0, 2.0, None)
        assert [tile.text for tile in tiles(result)] == ["3", "a word"]


def test_what_a_variable_says_comes_back_from_the_file() -> None:
    told = Variable(
        ("latent",),
        NUMBERS,
        "a thing",
        units="nat",
        equation="Eq. 23",
        formula="numpy.mean",
        theory="Norms",
        show="column",
        label="thing",
        form="+.1f",
    )
    with written(a=told) as result:
        assert replace(result["theirs"]["a"], values=NUMBERS) == replace(told, values=NUMBERS)
        (shown,) = columns(result)
    assert (shown.title, shown.hint) == ("thing [nat]", "a thing (Eq. 23)")
    assert [said(value, shown.form) for value in shown.values] == ["+1.0", "+2.0", "-"]


@pytest.mark.parametrize(
    "variable",
    [
        Variable((), np.array(1.0), "x", show="column"),
        Variable(("latent",), NUMBERS, "x", show="tile"),
        Variable(("latent",), NUMBERS, "x", show="banner"),
        Variable(("latent",), NUMBERS, "x", form=".999999999f"),
        Variable(("latent",), NUMBERS, "x", form="{}"),
    ],
    ids=lambda variable: f"{variable.show}{variable.form}",
)
def test_what_cannot_be_shown_so_is_refused_by_name(variable: Variable) -> None:
    with pytest.raises(PluginError, match="variable 'theirs/odd'"):
        written(odd=variable).close()


def test_codes_become_the_words_their_form_lists() -> None:
    codes = Variable(("latent",), np.array([2, 0, 7]), "codes", form="low|middle|high")
    with written(codes=codes) as result:
        (shown,) = columns(result)
        assert [row["theirs/codes"] for row in to_json(result)["latents"]] == ["high", "low", 7]
    assert not shown.numeric


def test_a_label_from_a_file_moves_no_cursor() -> None:
    nasty = Variable((), np.array(1.0), "x", label="\x1b[2J" + "long" * 30)
    with written(nasty=nasty) as result:
        (tile,) = tiles(result)
        assert "\x1b" not in click.unstyle(to_text(result))
    assert tile.label.isprintable()
    assert len(tile.label) < 40


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, "", "-"),
        (float("nan"), ".3f", "-"),
        (True, "", "yes"),
        (12, "", "12"),
        (12, ".1f", "12.0"),
        (0.123456, "", "0.123"),
        (0.123456, "+.1%", "+12.3%"),
        (0.5, "d", "0.5"),
        ("word", ".3f", "word"),
        (1, "no|yes", "yes"),
        (0.5, "no|yes", "0.5"),
        (-0.0, "", "0"),
        (-1e-9, "+.3f", "+0.000"),
    ],
)
def test_values_for_people(value: object, form: str, text: str) -> None:
    assert said(value, form) == text


# ------------------------------------------------------------------ files of before


def test_files_that_say_nothing_are_shown_by_the_names_they_had() -> None:
    paths = sorted(GOLDEN.glob("*.h5"))
    assert paths
    for path in paths:
        with Result.open(path) as result:
            places = [column.place for column in columns(result)]
            assert places[: len(TABLE)] == [place for place in TABLE if place in places]
            assert "overview/kl_mean" in places
            assert re.search("^latent +KL", click.unstyle(to_text(result)), re.M)


def test_analyses_say_today_what_old_files_are_taken_to_say(tmp_path: Path) -> None:
    names = ["isometry", "importance", "diagnosis", "rate-distortion", "density", "anomaly"]
    marks = np.arange(60) % 3 == 0
    np.savez(tmp_path / "d.npz", x=small_data(60, 0).numpy(), odd=marks)
    data = f"{tmp_path / 'd.npz'}:x,odd"
    with isoprobe.analyze(small_vae(0), data, metric="bce", beta=1.0, analyses=names) as result:
        found: list[Shown] = [*columns(result), *tiles(result)]
        told = {
            one.place: (result[one.group][one.name].shown, one.label, one.form) for one in found
        }
    removed = json.loads((ROOT / "tests/house/removals.json").read_text())["variables"]
    assert told == {place: tuple(how) for place, how in FORMER.items() if place not in removed}


# ------------------------------------------------------------------ one voice


@pytest.mark.parametrize(
    ("options", "headline"),
    [
        ({}, "Sound"),
        ({"finding": "scale-head"}, "Not sound: scale-head"),
        ({"finding": "undecided"}, "Undecided"),
        ({"groups": ("isometry", "importance")}, "Not judged"),
    ],
)
def test_terminal_json_page_and_comparison_speak_with_one_voice(
    options: dict[str, object], headline: str
) -> None:
    with made_result(None, **options) as result:  # type: ignore[arg-type]
        judged = voice(result)
        assert judged.headline == headline
        assert f"Verdict {headline}." in read(to_text(result))
        assert to_json(result)["verdict"]["headline"] == headline
        assert f'<span class="badge">{headline}</span>' in report.render(result)
        compared = compare([result])
        model = compared.models[0]
        assert f"{model.name}: {headline}. " in compared.to_text()
        page = report.compared_page([result], compared)
        assert f'{model.name} <span class="badge">{headline}</span>' in page
        for text in (read(to_text(result)), model.verdict, to_json(result)["verdict"]["meaning"]):
            assert judged.meaning in text


def test_listing_what_is_shown_loads_no_torch() -> None:
    code = (
        "import sys, isoprobe.show.summary, isoprobe.show.compare, isoprobe.show.plots;"
        "assert 'torch' not in sys.modules"
    )
    python("-c", code)
