"""Every promise of SECURITY.md has tests, and some of them stand here."""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from isoprobe.cli import main
from isoprobe.contracts import Variable
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result
from isoprobe.results.writer import ResultWriter
from isoprobe.run.opening import open_data
from isoprobe.show import report
from isoprobe.show.compare import compare
from tests.made import made_result
from tests.show.test_report import NASTY, Parsed
from tests.theory.test_numbers import trained

ROOT = Path(__file__).resolve().parents[2]
_, *PROMISES = re.findall(r"(?m)^\| ([^|]+?) \| ([^|]+?) \|$", (ROOT / "SECURITY.md").read_text())


def functions(path: Path) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)}


def test_there_are_promises() -> None:
    assert len(PROMISES) >= 10


@pytest.mark.parametrize("promise", PROMISES, ids=[p[:40] for p, _ in PROMISES])
def test_every_promise_has_tests_that_exist(promise) -> None:
    tests = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", promise[1])
    assert tests
    for file, name in tests:
        (path,) = (ROOT / "tests").rglob(file)
        assert name in functions(path), (file, name)


# ------------------------------------------------------------------ what runs code

#: calls that could run what a file holds, and the modules that may make them
KNOWN = {
    "import_module": {
        "isoprobe/__init__.py",  # its own parts
        "isoprobe/moved.py",  # its own parts under their old names
        "isoprobe/cli/group.py",  # its own commands
        "isoprobe/registry/discovery.py",
        "plugins/isoprobe_plugins/adapters/objects/calling.py",  # the function a user names
        "plugins/isoprobe_plugins/adapters/extras.py",  # libraries of extras
        "trainers/isoprobe_trainers/commands/reproduce.py",  # its own experiments
    },
    "pickle.load": {"plugins/isoprobe_plugins/adapters/objects/pickled.py"},  # --trust alone
}
Search = Callable[[Path, str], list[str]]
NEVER = {"eval", "exec", "compile", "__import__", "pickle.loads", "marshal.loads", "os.system"}


def calls(path: Path):
    """Names of the functions called, in full."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def dangers(path: Path, relative: str) -> list[str]:
    found = []
    for name, keywords in calls(path):
        if name in NEVER:
            found.append(name)
        for known, places in KNOWN.items():
            if name.endswith(known) and relative not in places:
                found.append(name)
        unsafe = name == "torch.load" and keywords.get("weights_only") != "True"
        if unsafe and relative != "plugins/isoprobe_plugins/adapters/objects/pickled.py":
            found.append(name)
        if name in {"np.load", "numpy.load"} and keywords.get("allow_pickle") != "False":
            found.append(name)
    return found


# ------------------------------------------------------------------ what opens files

#: what opens a form of file, and the modules where that may stand
OPENERS = {
    "h5py.File": {"isoprobe/files/hdf5.py"},
    "zipfile.ZipFile": {"isoprobe/files/archives.py"},
    "tomllib.load": {"isoprobe/files/documents.py"},
    "tomllib.loads": {"isoprobe/files/documents.py"},
    "json.loads": {
        "isoprobe/files/documents.py",
        "isoprobe/results/netcdf.py",  # attributes of results, and what we wrote ourselves:
        "isoprobe/results/writer.py",
        "isoprobe/results/journal.py",
        "isoprobe/results/shard.py",
        "isoprobe/results/working.py",
        "isoprobe/run/merging.py",
        "isoprobe/cli/check.py",  # what the user typed:
        "plugins/isoprobe_plugins/adapters/objects/factory.py",
        "trainers/isoprobe_trainers/common/training.py",
    },
    "pickletools.genops": {"isoprobe/checkpoints/pickles.py", "isoprobe/checkpoints/records.py"},
    "import_ir_module_from_buffer": {"plugins/isoprobe_plugins/adapters/programs/script.py"},
    "torch.jit.load": set(),
    "torch.export.load": set(),
    "tarfile.open": set(),
    "load_model_from_string": {"plugins/isoprobe_plugins/adapters/onnx/parsing.py"},
    "onnx.load": set(),
    "parquet.ParquetFile": {"isoprobe/files/parquet.py"},
    "gzip.open": {"plugins/isoprobe_plugins/data/lines.py"},
    "zarr.open": set(),
    "get_codec": {"plugins/isoprobe_plugins/data/zarr.py"},
    "safetensors.torch.load_file": {"isoprobe/checkpoints/native.py"},
}


def openers(path: Path, relative: str) -> list[str]:
    """What a module mentions that opens files elsewhere; names of types count, as calls do."""
    mentioned = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    ]
    return [
        name
        for name in mentioned
        for opener, places in OPENERS.items()
        if (name == opener or name.endswith(f".{opener}")) and relative not in places
    ]


@pytest.mark.parametrize("search", [dangers, openers])
def test_what_runs_code_or_opens_files_stands_where_it_is_known(search: Search) -> None:
    for package in ("isoprobe", "plugins", "trainers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            assert search(path, str(path.relative_to(ROOT))) == [], path


@pytest.mark.parametrize(
    ("search", "code"),
    [
        (dangers, "eval(x)\nimportlib.import_module(y)\ntorch.load(p)\nnp.load(q)\n"),
        (openers, "h5py.File(x)\nopen_ = zipfile.ZipFile\ntorch.jit.load(p)\njson.loads(q)\n"),
    ],
)
def test_the_search_sees_it(search: Search, code: str, tmp_path: Path) -> None:
    """Counter-test."""
    path = tmp_path / "bad.py"
    path.write_text(code)
    assert len(search(path, "isoprobe/bad.py")) == 4


# ------------------------------------------------------------------ paths


def test_names_in_archives_never_become_paths(tmp_path, monkeypatch) -> None:
    """A zip of images with names that lead elsewhere: read in place, nothing is unpacked."""
    monkeypatch.chdir(tmp_path)
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(stream, "PNG")
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile("in/pictures.zip", "w") as archive:
        for name in ("../../out.png", "/etc/out.png", "a/../../out.png", "C:\\out.png"):
            archive.writestr(name, stream.getvalue())
    np.savez("in/arrays.npz", **{"../../escape": np.zeros((2, 12))})
    for spec in ("in/pictures.zip", "in/arrays.npz:../../escape"):
        main(["analyze", "model.safetensors", "--data", spec])
        opened = installed().data(spec, trained())
        opened.read(np.zeros(1, np.int64))
        opened.close()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["arrays.npz", "in", "pictures.zip"]
    assert list(tmp_path.parent.glob("*.png")) == []


@pytest.mark.parametrize("spec", ["../secret.npy", "/{folder}/secret.npy", "sub/../../secret.npy"])
def test_a_checkpoint_cannot_point_to_other_files(tmp_path, spec) -> None:
    """Only a plain name is looked for beside the checkpoint, whatever lies elsewhere."""
    (tmp_path / "models" / "sub").mkdir(parents=True)
    np.save(tmp_path / "secret.npy", np.zeros((3, 12), "f4"))
    named = spec.format(folder=str(tmp_path).lstrip("/"))
    model = trained().with_facts(dataset=named)
    model.path = str(tmp_path / "models" / "m.safetensors")
    notes: list[str] = []
    with_data = open_data(installed(), None, model, notes)
    assert "secret" not in with_data.name
    assert "cannot be had" in notes[0]


def test_a_column_of_any_name_is_kept_in_the_working_folder(tmp_path) -> None:
    name = "..%2f..\\evil\n\u202e"
    with ResultWriter.open(tmp_path / "r.h5", samples=2, latent=1) as writer:
        writer.append(0, {name: Variable(("sample",), np.ones(2), "x")})
        inside = [p.name for p in (tmp_path / "r.h5.partial").iterdir()]
        assert all(re.fullmatch(r"[a-z0-9.-]+", file) for file in inside)
        writer.finish({}).close()
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


# ------------------------------------------------------------------ pages


def texts(path: Path) -> list[str]:
    """Data sets of text in a result."""
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.append(name)
                if isinstance(item, h5py.Dataset) and item.dtype.kind == "O"
                else None
            )
        )
    return found


def scripts(text: str) -> int:
    """Number of scripts in a page without pictures or event handlers."""
    tags = Parsed(text).tags
    pictures = [attrs.get("src") or "" for tag, attrs in tags if tag == "img"]
    assert all(source.startswith("data:") for source in pictures)
    assert not any(name.startswith("on") for _, attrs in tags for name in attrs)
    return [tag for tag, _ in tags].count("script")


def pages(path: Path, good: Path) -> list[str]:
    """The report of a result, and its comparison with a good one."""
    with Result.open(path) as result, Result.open(good) as other:
        compared = compare([other, result])
        return [report.render(result), report.compared_page([other, result], compared)]


@pytest.mark.parametrize("where", ["attributes", "arrays"])
def test_every_text_of_a_result_is_escaped(tmp_path, where) -> None:
    good, bad = tmp_path / "good.h5", tmp_path / "bad.h5"
    made_result(good, finding="scale-head").close()
    bad.write_bytes(good.read_bytes())
    with h5py.File(bad, "r+") as file:
        if where == "attributes":
            kept = {"format", "json_attributes", *json.loads(file.attrs["json_attributes"])}
            for key, value in file.attrs.items():
                if isinstance(value, bytes | str) and key not in kept:
                    file.attrs[key] = NASTY
        else:
            for name in texts(good):
                file[name][...] = NASTY
    found = pages(bad, good)
    assert [scripts(page) for page in found] == [2, 1]  # the explorer has its data in one more
    assert any("alert(1)" in page for page in found)
