"""The report is one offline file, says what the result says, and lets no text of it run."""

from __future__ import annotations

import html.parser
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from isoprobe.cli.group import cli
from isoprobe.cli.report import report as command
from isoprobe.errors import ResultError
from isoprobe.show import report
from isoprobe.show.report import facts
from isoprobe.show.report.explorer import explorer
from isoprobe.show.report.strips import strips
from isoprobe.show.shown import TABLE
from isoprobe.show.voice import voice
from tests.browser import BROWSER, Browser
from tests.made import ORDER, VARIANCES, made_result

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&$x^{$"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def page(folder):
    with made_result(folder / "r.h5", labelled=True) as result:
        text = report.render(result)
    report.write(text, folder / "r.html")
    return text


class Parsed(html.parser.HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_it_says_what_the_result_says(page):
    text = re.sub(r"\s+", " ", Parsed(page).text)
    assert "made by hand" in text
    assert "2 of 4" in text  # active latents
    assert "declared 0.5" in text
    assert "all of this is made up" in text
    assert "noise:0" in text


def test_it_needs_no_other_file(page):
    for tag, attrs in Parsed(page).tags:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            value = attrs.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, name, value[:80])
    assert not re.search(r"@import|url\((?!#|data:)(?!\$\{data\.sprite)", page)


def test_it_leads_with_the_verdict_and_findings(page):
    with made_result(None, finding="scale-head", groups=("diagnosis",)) as result:
        text = report.render(result)
    order = ["Not sound: scale-head", "evidence of scale-head", 'id="figures"', 'id="how"']
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "Not sound" not in page


def test_texts_of_a_file_never_become_tags(page):
    attrs = dict.fromkeys(["model", "metric", "data", "adapter", "device", "model_sha256"], NASTY)
    with made_result(None, notes=[NASTY], analyses=[NASTY], finding=NASTY, **attrs) as result:
        nasty = report.render(result)
    clean = Parsed(page)
    for parsed in (Parsed(nasty),):
        kinds = [tag for tag, _ in parsed.tags]
        assert kinds.count("script") == [tag for tag, _ in clean.tags].count("script")
        assert "img" not in kinds
        assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    assert "alert(1)" in nasty  # it is there, as text


def test_its_policy_allows_its_own_script_alone(page):
    policy = next(
        attrs["content"]
        for tag, attrs in Parsed(page).tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]+=*'(;|$)", policy)


def test_it_is_the_same_bytes_each_time(page, folder):
    with made_result(folder / "again.h5", labelled=True) as result:
        assert report.render(result) == page


def test_a_minimal_result_has_a_report():
    with made_result(None, groups=(), pullback=False) as result:
        text = report.render(result)
    assert "Explore the latents" not in text
    assert "Traceback" not in text


def test_a_result_without_a_beta_has_a_report():
    unknown = np.full((20, 4), np.nan)
    with made_result(
        None, y=unknown, beta=np.nan, variances=np.full(4, np.nan), beta_recovered=-1.0
    ) as result:
        text = report.render(result)
    assert 'id="figure-norms"' in text
    assert 'id="figure-coordinates"' not in text
    assert 'id="figure-scree"' not in text
    assert ">nan<" not in text.lower()


def test_the_table_has_every_latent_most_important_first():
    with made_result(None) as result:
        table = facts.table(result)
    keys = ["index", *(column.place for column in table["columns"])]
    rows = [dict(zip(keys, row, strict=True)) for row in table["rows"]]
    assert [row["index"] for row in rows] == [1, 2, 0, 3]
    assert [row["importance/exact"] for row in rows] == pytest.approx(VARIANCES[ORDER])
    assert [row["importance/state"] for row in rows] == [
        "active",
        "mixed",
        "collapsed",
        "collapsed",
    ]
    assert rows[0]["diagnosis/label"] == "active"
    assert [keys[1], *keys[2:8]] == list(TABLE)


def test_trust_is_earned_by_numbers():
    with made_result(None, groups=("isometry", "importance")) as result:
        assert voice(result).trusted == ()  # nobody judged
    with made_result(None) as result:
        trusted = voice(result).trusted
        assert len([said for said in trusted if "within 0.2" in said or "within 0.4" in said]) == 2
        assert not any("gain" in said for said in trusted)  # it could not be told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("norm + sigma^2 = 1", "norm + σ² = 1"),
        ("no beta-VAE at beta 2", "no beta-VAE at β 2"),
        ("within one sigma", "within one σ"),
        ("beta/2 of betaH_mnist", "β/2 of betaH_mnist"),
        ("(2/beta) of vae.h5 and beta.h5", "(2/β) of vae.h5 and beta.h5"),
        ("runs/beta/x, mu.npy and --beta", "runs/beta/x, mu.npy and --beta"),
    ],
)
def test_sentences_take_the_letters_of_the_formulas(text, expected):
    assert facts.greek(text) == expected


def unpacked(sprite: str) -> np.ndarray:
    import base64
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite.partition(",")[2])))) / 255


def test_a_walk_shown_backwards_has_its_steps_in_the_other_order_and_no_mirrored_picture():
    walks = np.random.default_rng(0).random((3, 5, 1, 40, 20))
    with made_result(None, walks=walks) as result:
        latents = result["traversal"]["latents"].values.tolist()
        found, plain = strips(result, "w", [latents[1]]), strips(result, "w")
    assert [row["style"] for row in found["rows"]] == [row["style"] for row in plain["rows"]]
    sheet, before = (unpacked(one["sprite"]).reshape(3, 40, 5, 20) for one in (found, plain))
    np.testing.assert_array_equal(sheet[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(sheet[1], before[1][:, ::-1])
    assert not np.array_equal(sheet[1], before[1])


def test_the_explorer_packs_frames_where_the_page_looks_for_them():
    walks = np.random.default_rng(0).random((3, 5, 3, 40, 20))
    with made_result(None, walks=walks) as result:
        packed = explorer(result)
    sheet = unpacked(packed["sprite"])
    width, height = packed["width"], packed["height"]
    assert sheet.shape == (3 * height, 5 * width, 3)
    frame = sheet[2 * height : 3 * height, 4 * width : 5 * width]
    np.testing.assert_allclose(frame, walks[2, 4].transpose(1, 2, 0), atol=0.5 / 255 + 1e-9)


def test_large_frames_are_averaged_down():
    walks = np.zeros((1, 2, 1, 200, 100))
    walks[:, :, :, :, 50:] = 1
    with made_result(None, walks=walks) as result:
        packed = explorer(result)
    assert max(packed["width"], packed["height"]) <= 96


def test_vectors_keep_their_values():
    walks = np.random.default_rng(0).normal(size=(2, 5, 7))
    with made_result(None, walks=walks) as result:
        packed = explorer(result)
    np.testing.assert_allclose(packed["values"], walks, rtol=1e-3)
    assert packed["kind"] == "line"


# --------------------------------------------------------------------------- the command


def run(*arguments):
    return CliRunner().invoke(
        cli, [str(command.name), *(str(a) for a in arguments)], catch_exceptions=False
    )


def test_the_command_writes_beside_the_result_and_overwrites_nothing(tmp_path):
    made_result(tmp_path / "r.h5", groups=()).close()
    assert run(tmp_path / "r.h5").output.strip() == str(tmp_path / "r.html")
    before = (tmp_path / "r.html").read_bytes()
    with pytest.raises(ResultError, match="overwrite=True"):
        run(tmp_path / "r.h5")
    assert (tmp_path / "r.html").read_bytes() == before
    assert run(tmp_path / "r.h5", "--overwrite").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.h5", "r.html"]


def test_the_command_writes_figures(tmp_path):
    made_result(tmp_path / "r.h5").close()
    figures = ["--figures", tmp_path / "f", "--figure", "scree", "--figure", "norms"]
    run(tmp_path / "r.h5", *figures, "--format", "png")
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["norms.png", "scree.png"]


def test_options_that_do_not_go_together_are_usage_errors(tmp_path):
    assert run(tmp_path / "r.h5", "--figure", "scree").exit_code == 2
    assert run(tmp_path / "r.h5", "--figures", tmp_path, "-o", tmp_path / "x.html").exit_code == 2


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(ResultError, match="there is no folder"):
        report.write("", tmp_path / "no" / "r.html")


# --------------------------------------------------------------------------- in a browser

browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def chromium():
    with Browser() as opened:
        yield opened


@pytest.fixture
def opened(chromium, page, folder):
    chromium.requests.clear()
    chromium.complaints.clear()
    chromium.open(folder / "r.html", 1280)
    return chromium


@browser
def test_it_asks_for_nothing_and_complains_of_nothing(opened, folder):
    opened.open(folder / "r.html", 390)
    assert opened.complaints == []
    others = {url for url in opened.requests if not url.startswith("data:")}
    assert others == {(folder / "r.html").as_uri()}
    assert any(url.startswith("data:") for url in opened.requests)  # requests are seen


@browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(opened, folder, width):
    opened.open(folder / "r.html", width)
    assert opened.run("document.documentElement.scrollWidth") <= width


@browser
def test_headings_sort_numbers_and_words(opened):
    column = (
        "[...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[{}].textContent)"
    )
    press = "document.querySelectorAll('.sortable th button')[{}].click()"
    assert opened.run(column.format(0)) == ["1", "2", "0", "3"]
    opened.run(press.format(0))
    assert opened.run(column.format(0)) == ["3", "2", "1", "0"]
    opened.run(press.format(0))
    assert opened.run(column.format(0)) == ["0", "1", "2", "3"]
    opened.run(press.format(4))
    states = opened.run(column.format(4))
    assert states == sorted(states)
    sorts = "document.querySelectorAll('th[aria-sort]').length"
    assert opened.run(sorts) == 1


@browser
def test_sliders_move_the_frame_and_bars_show_the_walk(opened):
    where = "document.querySelectorAll('.card .frame')[1].style.backgroundPosition"
    assert opened.run(where) == "50% 50%"
    slide = (
        "(() => { const s = document.querySelectorAll('.card input')[1]; s.value = 4;"
        " s.dispatchEvent(new Event('input')); return s.getAttribute('aria-valuetext'); })()"
    )
    assert opened.run(slide) == "y 2, z 2"
    assert opened.run(where) == "100% 50%"
    opened.run("document.querySelectorAll('.bar')[2].dispatchEvent(new Event('mouseenter'))")
    assert opened.run("document.querySelector('.strip .label').textContent") == "latent 0"
    assert opened.run("document.querySelectorAll('.strip .frame').length") == 5
    assert opened.run("document.querySelector('.card.chosen strong').textContent") == "latent 0"


@browser
def test_sliders_move_the_curve_of_a_vector(chromium, folder):
    walks = np.random.default_rng(0).normal(size=(2, 5, 7))
    with made_result(None, walks=walks) as result:
        report.write(report.render(result), folder / "v.html", overwrite=True)
    chromium.complaints.clear()
    chromium.open(folder / "v.html", 800)
    curve = "document.querySelector('.card .curve path:last-child').getAttribute('d')"
    before = chromium.run(curve)
    chromium.run(
        "(() => { const s = document.querySelector('.card input'); s.value = 0;"
        " s.dispatchEvent(new Event('input')); })()"
    )
    after = chromium.run(curve)
    assert before != after
    heights = [float(pair.split()[1]) for pair in re.split("[ML]", after)[1:]]
    assert np.corrcoef(heights, walks[0, 0])[0, 1] == pytest.approx(-1, abs=1e-3)
    assert chromium.complaints == []


@browser
def test_a_script_from_a_file_would_not_run_even_unescaped(chromium, page, folder):
    broken = page.replace("<main>", "<main><script>document.title = 'taken'</script>")
    (folder / "broken.html").write_text(broken, "utf-8")
    chromium.complaints.clear()
    chromium.open(folder / "broken.html", 800)
    assert chromium.run("document.title") != "taken"
    assert chromium.complaints  # and the browser says so


@browser
def test_dark_readers_get_a_dark_page(chromium, folder, page):
    ground = "getComputedStyle(document.body).backgroundColor"
    shades = {}
    for scheme in ("light", "dark"):
        chromium.open(folder / "r.html", 800, scheme=scheme)
        shades[scheme] = sum(map(int, re.findall(r"\d+", chromium.run(ground))[:3]))
    assert shades["light"] > 700
    assert shades["dark"] < 100


@browser
@pytest.mark.shared
@pytest.mark.parametrize("name", ["VAE_mnist", "VAE_celeba"])
def test_reports_of_real_weights_in_a_browser(shared, chromium, tmp_path, name):
    import isoprobe

    data = {"VAE_mnist": "mnist.npz:x_test", "VAE_celeba": "celeba64_subset.zip"}[name]
    with isoprobe.analyze(
        shared / "checkpoints" / "YannDubs+disentangling-vae" / name,
        str(shared / "data" / data),
        samples=64,
        resize=32 if name == "VAE_mnist" else None,
        analyses=["isometry", "importance", "rate-distortion", "traversal", "diagnosis"],
    ) as result:
        report.write(report.render(result), tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size < 3_000_000
    chromium.complaints.clear()
    chromium.requests.clear()
    for width in (1280, 390):
        chromium.open(tmp_path / "r.html", width)
        assert chromium.run("document.querySelectorAll('.card .frame').length") == 10
        assert chromium.run("document.querySelectorAll('.sortable tbody tr').length") == 10
    assert chromium.complaints == []
    assert {u for u in chromium.requests if not u.startswith("data:")} == {
        (tmp_path / "r.html").as_uri()
    }


def test_the_explorers_json_cannot_end_its_script(page):
    packed = re.search(r'<script type="application/json" id="explorer">(.*?)</script>', page)
    assert json.loads(packed[1])["steps"] == 5


def test_walks_lead_the_page_and_need_no_script(page):
    assert page.index('id="walks"') < page.index('id="explore"') < page.index('id="figures"')
    styles = [a["style"] for tag, a in Parsed(page).tags if a.get("class") == "walk"]
    assert len(styles) == 2  # the used latents 1 and 2 of those walked, most important first
    assert [re.search(r"background-position:0 0,0 (\d+)%", s)[1] for s in styles] == ["0", "50"]
    assert "figure-traversal" not in page


def test_walks_of_vectors_are_curves():
    with made_result(None, walks=np.random.default_rng(0).normal(size=(3, 5, 7))) as result:
        parsed = Parsed(report.render(result))
    drawn = [tag for tag, attrs in parsed.tags if tag == "svg" and attrs.get("class") == "walk"]
    assert len(drawn) == 2


def test_it_says_what_could_be_added(page):
    assert "--analysis +examples" in page
    assert "--analysis +traversal" not in page


def test_a_comparison_shows_walks_side_by_side(tmp_path):
    import contextlib

    from isoprobe.show.compare import compare

    with contextlib.ExitStack() as stack:
        results = [stack.enter_context(made_result(tmp_path / f"{n}.h5")) for n in "ab"]
        parsed = Parsed(report.compared_page(results, compare(results)))
    walks = [attrs for _, attrs in parsed.tags if (attrs.get("class") or "").startswith("walk")]
    strips = [attrs for attrs in walks if attrs["class"] == "walk"]
    assert len(strips) == 4
    assert "var(--walks-0)" in strips[0]["style"] and "var(--walks-1)" in strips[1]["style"]
    assert parsed.text.count("Sound") >= 2
