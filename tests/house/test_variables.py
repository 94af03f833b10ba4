"""Every variable of a result says where it comes from: equation, function, and page."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isoprobe
from isoprobe.contracts import Variable
from isoprobe.theory import formulas
from tests.house.inventory import MODEL, ROOT, plugins

#: what encoder, decoder, metric, data and user give as it is: no formula of ours computes it
GIVEN = {
    *(f"samples/{name}" for name in ("mean", "std", "label", "anomalous")),
    *(f"samples/{name}" for name in ("distortion_self", "distortion_transform")),
    *(
        f"overview/{name}_{part}"
        for name in (
            "posterior_mean",
            "variance",
            "inverse_variance",
            "distortion_self",
            "distortion_transform",
        )
        for part in ("mean", "sd", "se")
    ),
    *(f"traversal/{name}" for name in ("base", "z", "images", "images_equal_y")),
    "conditions/scale_sd",
    "examples/prior",
    *(f"examples/{kind}{part}" for kind in ("spread", "worst") for part in ("", "_input")),
    *(f"examples/{kind}{part}" for kind in ("likely", "unlikely") for part in ("", "_input")),
    *(f"examples/{kind}_{n}" for kind in ("spread", "worst") for n in ("decoded", "distortion")),
    *(f"anomaly/{name}" for name in ("prevalence", "notes", "untrained_notes")),
    *(
        f"truncation/{name}"
        for name in ("kept", "order", "rows", "pictured", "images", "originals")
    ),
    *(f"truncation/{n}{end}" for n in ("distortion", "from_check") for end in ("", "_se")),
    *(f"maps/{name}" for name in ("latents", "rows", "read", "read_sd", "write", "write_sd")),
    *(f"geometry/{name}" for name in ("pair_rows", "pair_labels", "pictured")),
    *(f"geometry/images_{name}" for name in ("geodesic", "straight")),
}
#: the paper's equations, or a proposition, section or appendix of it
PLACE = re.compile(r"Eq\. \d+(, \d+)*|Prop\. \d|Sec\. \d\.\d|App\. [A-H]\.\d")
HEADINGS = re.findall(r"^## (.+)$", (ROOT / "docs" / "theory.md").read_text("utf-8"), re.M)


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variable]:
    rows = np.load(ROOT / "examples" / "digits.npy")[:64]
    marked = tmp_path_factory.mktemp("data") / "rows.npz"
    np.savez(marked, x=rows, y=np.arange(len(rows)) % 5 == 0)
    found: dict[str, Variable] = {}
    analyses = plugins()["analysis"]
    # all of J'GJ is more than a probe gives
    for options in ({}, {"pullback": "probe", "beta": 9.0}):
        asked = [name for name in analyses if name != "geometry" or not options]
        with isoprobe.analyze(
            MODEL, f"{marked}:x,y", analyses=asked, samples=None, seed=0, **options
        ) as result:
            found |= {f"{g}/{name}": v for g in result.groups() for name, v in result[g].items()}
    return found


def resolved(dotted: str) -> Any:
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            place: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            place = getattr(place, part)
        return place
    raise AssertionError(f"{dotted} is nowhere")


def test_every_variable_names_its_function_or_is_given(variables: dict[str, Variable]) -> None:
    named = {name for name, variable in variables.items() if variable.formula}
    assert sorted(variables.keys() - named - GIVEN) == []
    assert sorted(named & GIVEN) == []
    for name in named:
        assert callable(resolved(variables[name].formula)), name


def test_every_variable_names_a_heading_of_the_page(variables: dict[str, Variable]) -> None:
    assert {v.theory for v in variables.values()} <= set(HEADINGS)


def test_every_equation_stands_in_the_docstring_of_its_function(
    variables: dict[str, Variable],
) -> None:
    for name, variable in variables.items():
        if variable.equation:
            assert PLACE.fullmatch(variable.equation), name
            text = inspect.getdoc(resolved(variable.formula)) or ""
            place = re.sub(r"^(Eq\. )", r"", variable.equation)
            for number in place.split(", "):
                assert re.search(rf"\b{re.escape(number)}\b", text), f"{name}: {number}"


def test_every_function_of_the_facade_says_where_it_is_stated() -> None:
    for name in set(formulas.__all__) - {"NATS_TO_BITS", "active_subset"}:
        statement = getattr(formulas, name).__stated__
        assert statement.heading in HEADINGS, name


def test_pages_that_a_user_has_not_got_are_named_nowhere(variables: dict[str, Variable]) -> None:
    private = re.compile(r"\btheory \d|THEORY|\b2[bcd]\b")
    said = {
        name: " ".join([v.long_name, v.equation, v.formula, v.theory])
        for name, v in variables.items()
    }
    said |= {str(path): path.read_text("utf-8") for path in _published()}
    assert [name for name, text in said.items() if private.search(text)] == []


def _published() -> list[Path]:
    folders = ("isoprobe", "plugins", "trainers", "docs", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    ours = [p for p in files if p.suffix in {".py", ".md", ".j2", ".html", ".toml"}]
    made = {"_build", "docs/reproduction.md"}
    return [p for p in ours if not any(part in p.as_posix() for part in made)]


def test_numbers_are_not_repeated(variables: dict[str, Variable]) -> None:
    """No two variables over latents or of one value are the same numbers under two names."""
    seen: dict[bytes, str] = {}
    repeated = []
    for name, variable in sorted(variables.items()):
        values = np.asarray(variable.values)
        telling = values.dtype.kind == "f" and np.unique(values[np.isfinite(values)]).size > 3
        # a row may be of two kinds: the worst is often the oddest
        if not telling or name.startswith(("samples/", "examples/")):
            continue
        key = (
            np.round(values / np.nanmax(np.abs(values)), 12).tobytes()
            + str(np.nanmax(np.abs(values)).round(9)).encode()
        )
        if key in seen:
            repeated.append((name, seen[key]))
        seen.setdefault(key, name)
    assert repeated == []
