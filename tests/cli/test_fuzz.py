"""Whatever a file or a command line holds: an answer, or one line that says what is wrong.

With ``ISOPROBE_FUZZ=nightly`` each property is tried a hundred times as often, on new examples.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isoprobe.checkpoints.source import Source
from isoprobe.cli import main
from isoprobe.errors import IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result
from isoprobe.show import summary
from tests import bad_files

NIGHTLY = os.environ.get("ISOPROBE_FUZZ") == "nightly"
SECONDS = 30


def tried(times: int):
    """Try a property so many times, a hundred times as often by night."""
    return settings(
        max_examples=times * (100 if NIGHTLY else 1),
        deadline=None,
        derandomize=not NIGHTLY,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """A folder of good files to work in; gives the model among them."""
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("fuzz"))
    bad_files.make_folder(Path())
    Path("pipe").unlink()
    arguments = ["analyze", "model.safetensors", "--data", "good.npy", "--analysis", "anomaly"]
    assert main([*arguments, "--analysis", "coordinates", "--out", "result.h5", "--json"]) == 0
    np.savez("two.npz", x=np.load("good.npy"), y=np.arange(40))
    with h5py.File("rows.h5", "w") as file:
        file["x"] = np.load("good.npy")
    Path("rows.csv").write_text("a,b,label\n1,2,0\n3,4,1\n")
    source = Source(Path("model.safetensors"))
    yield installed().adapter_for(source, None).load(source, {})
    patch.undo()


def one_line(run) -> None:
    """Run something that may refuse, in one line, and may not fail otherwise."""
    try:
        run()
    except IsoprobeError as error:
        assert str(error)
        assert "Traceback" not in str(error)


def load(path: Path, adapter: str | None = None) -> None:
    """Load a checkpoint, and encode and decode with it."""
    vae = installed().adapter_for(Source(path), adapter).load(Source(path), {})
    vae.decode(torch.zeros(2, vae.latent_size))


# ------------------------------------------------------------------ data specs

FILES = ["good.npy", "two.npz", "rows.h5", "rows.csv", ".", "..", "model.safetensors", "nowhere"]
NAMES = ["prior", "toy/mix", "toy/ramp", "toy", "mnist/test", "anomaly/thyroid"]
WORDS = ["x", "y", "/x", "label", "samples", "seed", "dim", "0", "-1", "nan", "1e9", "none", "::"]
OPTIONS = st.lists(
    st.one_of(
        st.sampled_from(WORDS),
        st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)).map("=".join),
        st.text(max_size=5),
    ),
    max_size=3,
).map(",".join)
SPECS = st.one_of(
    st.text(max_size=20),
    st.tuples(st.sampled_from(FILES + NAMES), st.sampled_from(["", ":", "/", "%"]), OPTIONS).map(
        "".join
    ),
)


@given(spec=SPECS)
@tried(50)
def test_data_specs(folder, spec) -> None:
    def read() -> None:
        opened = installed().data(spec, folder)
        try:
            if len(opened):
                opened.read(np.zeros(1, np.int64))
                opened.labels(np.zeros(1, np.int64))
            opened.fingerprint()
        finally:
            opened.close()

    one_line(read)


# ------------------------------------------------------------------ headers and manifests

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 1 << 62),
        st.floats(),
        st.text(max_size=6),
        st.sampled_from(["mlp", "linear", "layers", "gdn", "sse", "bce", "F32", "relu"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


def places(value, path=()):
    """Every place in a JSON value, the whole first."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def replaced(value, path, new):
    """The value with another one at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@given(data=st.data())
@tried(40)
def test_safetensors_headers(folder, data) -> None:
    del folder
    header, body = bad_files.header_and_body(Path("model.safetensors").read_bytes())
    where = data.draw(st.sampled_from(list(places(header))))
    changed = replaced(header, where, data.draw(JSON))
    Path("fuzzed.safetensors").write_bytes(
        bad_files.with_header(json.dumps(changed).encode("utf-8", "surrogatepass"), body)
    )
    one_line(lambda: load(Path("fuzzed.safetensors")))


@given(data=st.data())
@tried(40)
def test_manifests(folder, data) -> None:
    del folder
    header, body = bad_files.header_and_body(Path("model.safetensors").read_bytes())
    manifest = json.loads(header["__metadata__"]["isoprobe"])
    where = data.draw(st.sampled_from(list(places(manifest))))
    changed = replaced(manifest, where, data.draw(JSON))
    header["__metadata__"]["isoprobe"] = json.dumps(changed)
    Path("fuzzed.safetensors").write_bytes(bad_files.with_header(header, body))
    one_line(lambda: load(Path("fuzzed.safetensors")))


# ------------------------------------------------------------------ declarations

DECLARATION = """
input_shape = [12]
encoder = [{ linear = "fc1" }, "relu"]
decoder = [{ linear = "fc3" }, { leaky_relu = 0.2 }, { linear = "fc4" }]
output = "sigmoid"
[head]
mean = "fc21"
scale = "fc22"
form = "logvar"
[loss]
metric = "bce"
beta = 1.0
"""
SNIPPETS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["-1", "0", "1e400", "nan", '""', "[]", "{}", "[[]]", '"fc9"', '"flatten"', "true",
         '{ reshape = [0] }', '{ conv = "fc1" }', '{ linear = 3 }', "latent_size = 5\n"]
    ),
)  # fmt: skip


@given(start=st.integers(0, len(DECLARATION)), cut=st.integers(0, 30), new=SNIPPETS)
@tried(40)
def test_declarations(folder, start, cut, new) -> None:
    del folder
    text = DECLARATION[:start] + new + DECLARATION[start + cut :]
    weights = safetensors.torch.load_file("weights.safetensors")
    safetensors.torch.save_file(weights, "declared.safetensors")
    Path("declared.toml").write_text(text, "utf-8", errors="surrogatepass")
    one_line(lambda: load(Path("declared.safetensors"), "declared"))


def test_the_declaration_itself_is_good(folder) -> None:
    """Counter-test: or nothing above would get beyond the first line."""
    Path("declared.toml").write_text(DECLARATION)
    weights = safetensors.torch.load_file("weights.safetensors")
    safetensors.torch.save_file(weights, "declared.safetensors")
    del folder
    load(Path("declared.safetensors"), "declared")


# ------------------------------------------------------------------ result files


def read_all(path: Path) -> None:
    """Read everything in a result, and say what it says."""
    with Result.open(path) as result:
        for group in result.groups():
            for name in result[group]:
                _ = result[group][name].values
        document = summary.to_json(result)
        json.dumps(document, default=str)
        summary.to_text(result, 80, unicode=True)


@given(data=st.data())
@tried(5)
def test_attributes_of_results(folder, data) -> None:
    del folder
    Path("fuzzed.h5").write_bytes(Path("result.h5").read_bytes())
    with h5py.File("fuzzed.h5", "r+") as file:
        name = data.draw(st.sampled_from(sorted(file.attrs)))
        value = st.one_of(
            st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=9),
            st.integers(-9, 99),
            st.floats(),
            st.lists(st.integers(0, 9), min_size=1, max_size=3),
        )
        file.attrs[name] = data.draw(value)
    code = main(["report", "fuzzed.h5", "-o", "page.html", "--overwrite"]) if NIGHTLY else 0
    assert code in {0, 1}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["compare", "fuzzed.h5", "result.h5"]) in {0, 1}
        assert main([*SCORE, "fuzzed.h5"]) in {0, 1}


SCORE = ["score", "model.safetensors", "--data", "good.npy", "--reference"]


@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=9))
@tried(6)
def test_flipped_bytes_of_results(folder, flips) -> None:
    """In a process of its own, which may neither die nor hang: HDF5 is a library in C."""
    del folder
    data = bytearray(Path("result.h5").read_bytes())
    for place, mask in flips:
        data[int(place * (len(data) - 1))] ^= mask
    Path("fuzzed.h5").write_bytes(data)
    assert in_child(lambda: one_line(lambda: read_all(Path("fuzzed.h5")))) == 0


def in_child(run) -> int:
    """Exit code of a forked process that runs something; it is ended when it takes long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which torch keeps idle
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            run()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ------------------------------------------------------------------ command lines

VALUES = ["0", "1", "3", "-1", "nan", "auto", "all", "sse", "bce", "isometry", "importance",
          "float64", "probe",
          "finite-difference", "cpu", "0:1", "2x2", "1MiB", "", "model", "é"]  # fmt: skip
TYPED = ["--metric", "--beta", "--analysis", "--samples", "--batch-size", "--resize", "--scale",
         "--dtype", "--pullback", "--pairs", "--memory", "--seed", "--json", "--overwrite",
         "--resume", "--out", "--report", "--bogus", "--device", "--option",
         "--adapter"]  # fmt: skip


@given(
    words=st.lists(st.one_of(st.sampled_from(TYPED), st.sampled_from(VALUES)), max_size=6),
    command=st.sampled_from(["analyze", "score", "report", "compare", "inspect", "convert"]),
)
@tried(40)
def test_command_lines(folder, words, command) -> None:
    del folder
    begun = [command, "model.safetensors", "--data", "good.npy", "--samples", "8"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*(begun[:2] if command not in {"analyze", "score"} else begun), *words])
    assert code in {0, 1, 2}
    assert "Traceback" not in err.getvalue()
    assert (code == 0) or err.getvalue()
