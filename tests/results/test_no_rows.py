"""``--no-rows``: a result and a page that hold no single row, no id, no place and no command."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import isoprobe
from isoprobe.cli import main
from isoprobe.results.writer import without_places

DIGITS = Path(__file__).parents[2] / "examples" / "digits.safetensors"
#: analyses that show rows, and those that a report adds
ASKED = ("examples", "geometry", "truncation", "traversal", "coordinates", "anomaly", "density")
ROWS = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path, np.ndarray]:
    """Result and page of a table with ids, in a folder whose name nobody else may learn."""
    folder = tmp_path_factory.mktemp("ward-of-doctor-secret")
    model = folder / "digits.safetensors"
    shutil.copy(DIGITS, model)
    rows = np.random.default_rng(0).random((ROWS, 64), dtype=np.float32).round(4)
    names = [f"p{j}" for j in range(64)]
    lines = [",".join(["patient", *names])]
    lines += [",".join([f"person-{k:03d}", *map(str, row)]) for k, row in enumerate(rows)]
    (folder / "table.csv").write_text("\n".join(lines) + "\n", "utf-8")
    out, page = folder / "r.h5", folder / "r.html"
    typed = ["analyze", str(model), "--data", f"{folder / 'table.csv'}:id=patient", "--no-rows"]
    typed += [word for name in ASKED for word in ("--analysis", f"+{name}")]
    assert main([*typed, "--out", str(out), "--report", str(page), "-q"]) == 0
    return out, page, rows


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of an HDF5 file by its place, and every attribute as one of its own."""
    found: dict[str, np.ndarray] = {}

    def take(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item[()])
        found.update({f"{name}@{k}": np.asarray(v) for k, v in item.attrs.items()
                      if k not in {"DIMENSION_LIST", "REFERENCE_LIST"}})  # fmt: skip

    with h5py.File(path) as file:
        take("", file)
        file.visititems(take)
    return found


def test_no_id_no_place_and_no_command_is_in_the_result_or_its_page(made) -> None:
    out, page, _ = made
    texts = {name: str(values.tolist()) for name, values in arrays(out).items()}
    texts |= {"file": out.read_bytes().decode("latin-1"), "page": page.read_text("utf-8")}
    for name, text in texts.items():
        for secret in ("person-0", "doctor-secret", "isoprobe analyze", str(out.parent)):
            assert secret not in text, (name, secret)


def test_what_the_page_lacks_is_no_failure(made) -> None:
    out, page, _ = made
    assert "cannot be drawn" not in page.read_text("utf-8")
    with isoprobe.open(out) as result:
        assert result.verdict.headline and len(result.latents) == 10
        assert "<table" in result._repr_html_()
        (against,) = isoprobe.compare({"a": result, "b": result}).matchings
    assert "Not matched" in against.says[0] and "no_rows=True" in against.says[0]


def test_no_row_is_in_the_result(made) -> None:
    out, _, rows = made
    found = arrays(out)
    assert not [name for name in found if name.startswith("samples/")]
    for name, values in found.items():
        if values.dtype.kind == "f" and values.ndim > 1 and values.shape[-1] == rows.shape[1]:
            apart = np.abs(values.reshape(-1, 1, rows.shape[1]) - rows).max(axis=-1)
            assert apart.min() > 0.05, name  # neither a row, nor what the model makes of one


def test_the_rest_is_that_of_a_run_with_rows(made) -> None:
    out, _, _ = made
    folder = out.parent
    names = [f"+{name}" for name in ASKED]
    with (
        isoprobe.open(out) as without,
        isoprobe.analyze(
            folder / "digits.safetensors", f"{folder / 'table.csv'}:id=patient", analyses=names
        ) as whole,
    ):
        assert without.attrs["rows_left_out"] and "samples" in whole.groups()
        for group in without.groups():
            for name, variable in without[group].items() if group in whole else ():
                np.testing.assert_array_equal(variable.values, whole[group][name].values)
        dropped = {
            f"{group}/{name}"
            for group in set(without.groups()) & set(whole.groups())
            for name in set(whole[group]) - set(without[group])
        }
    assert {"examples/worst_input", "geometry/paths", "truncation/originals"} <= dropped
    assert all(place.split("/")[0] in {"examples", "geometry", "truncation"} for place in dropped)


def test_a_file_of_rows_does_not_stay_beside_the_result(made) -> None:
    out, _, _ = made
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "digits.safetensors", "r.h5", "r.html", "table.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/me/my data/x.npy", "x.npy"),
        ("read from /home/me/x.npy, all of it", "read from x.npy, all of it"),
        (r"read from C:\Users\me\x.npy", "read from x.npy"),
        ("'~/runs/a.h5' and \"/tmp/b.h5\"", "'a.h5' and \"b.h5\""),
        ("norm (2/beta) / sigma, 1/2 of n/a", "norm (2/beta) / sigma, 1/2 of n/a"),
        ("hf://owner/name", "hf://owner/name"),
    ],
)
def test_of_a_path_its_last_name_stays(text: str, told: str) -> None:
    assert without_places({"notes": [text], "n": 3})["notes"] == [told]
