"""The command line as a user meets it: output, exit codes, one line for each mistake."""

from __future__ import annotations

import json
import pickle
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import safetensors.torch
import torch

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.cli import main
from isoprobe.cli.group import COMMANDS, cli
from isoprobe.results.reader import Result
from isoprobe_plugins.architectures.mlp import Mlp
from tests.bad_files import CONFIG, LATENTS, PIXELS
from tests.distributions import install
from tests.processes import python


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, its data, and everything that can be wrong with either."""
    root = tmp_path_factory.mktemp("cli")
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    networks = Mlp().build(CONFIG)
    objective = Objective("bce", 1.0)
    manifest = Manifest(FORMAT_VERSION, "mlp", CONFIG, LATENTS, objective)
    good = root / "model.safetensors"
    write_checkpoint(good, networks.encoder, networks.decoder, manifest)

    (root / "notes.safetensors").write_text("this is a text file\n" * 20)
    (root / "cut.safetensors").write_bytes(good.read_bytes()[:-40])
    safetensors.torch.save_file({"weight": torch.ones(2)}, root / "foreign.safetensors")
    (root / "pointer.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    )
    torch.save(torch.nn.Linear(2, 2), root / "module.pt")
    (root / "object.pkl").write_bytes(pickle.dumps(Path("x")))

    data = generator.random((40, PIXELS)).astype(np.float32)
    np.save(root / "good.npy", data)
    np.save(root / "wide.npy", generator.random((40, PIXELS + 1)).astype(np.float32))
    np.save(root / "unscaled.npy", data * 5 - 1)
    np.save(root / "nan.npy", np.where(np.arange(40)[:, None] == 30, np.nan, data))
    np.save(root / "empty.npy", data[:0])
    np.save(root / "words.npy", np.array(["a", "b"]))
    (root / "existing.h5").write_bytes(b"precious")
    return root


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in the folder; returns exit code, stdout, stderr."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


QUICK = ("analyze", "model.safetensors", "--data", "good.npy")

# ------------------------------------------------------------------ what works


def test_analyze_prints_a_summary_and_nothing_else_on_stdout(run: Run) -> None:
    code, out, err = run(*QUICK)
    assert (code, err) == (0, "")
    assert "model" in out.splitlines()[0]
    assert "What it means" in out


def test_a_result_keeps_the_command_that_made_it(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a result.h5"
    typed = ["isoprobe", *QUICK, "--out", str(out), "--analysis", "isometry"]
    assert run(*typed[1:])[0] == 0
    with Result.open(out) as result:
        assert shlex.split(result.attrs["command"]) == typed


def test_a_call_from_python_has_no_command(folder: Path) -> None:
    from isoprobe.api import analyze

    data = np.load(folder / "good.npy")
    with analyze(folder / "model.safetensors", data, analyses=["isometry"]) as result:
        assert result.attrs["command"] == ""


def test_another_command_line_goes_on_with_a_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the numbers depend on must be the same."""
    from isoprobe.api import analyze
    from isoprobe.run.engine import Run as Engine

    data, out = np.load(folder / "good.npy"), tmp_path / "r.h5"

    def begin(command: str, *, resume: bool) -> Result:
        return analyze(
            folder / "model.safetensors",
            data,
            analyses=["isometry"],
            out=out,
            resume=resume,
            command=command,
        )

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "conclude", killed)
        begin("first", resume=False)
    assert out.with_name("r.h5.partial").is_dir()
    with begin("second --resume", resume=True) as result:
        assert result.attrs["command"] == "second --resume"


def test_json_is_whole_and_has_the_promised_keys(run: Run) -> None:
    code, out, _ = run(*QUICK, "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document) == {
        "schema",
        "model",
        "adapter",
        "metric",
        "data",
        "beta",
        "latents",
        "summary",
        "verdict",
        "diagnosis",
        "anomaly",
        "output",
    }
    assert document["data"] == {"name": "good.npy", "samples": 40}
    assert set(document["beta"]) == {
        "value",
        "source",
        "declared",
        "recovered",
        "ci95",
        "recovered_pullback",
    }
    assert [latent["index"] for latent in document["latents"]] == list(range(LATENTS))
    assert set(document["latents"][0]) == {
        "index",
        "norm_mean",
        "norm_sd",
        "norm_se",
        "residual_mean",
        "stationary_norm_mean",
        "beta_recovered",
        "variance_mean",
        "inverse_variance_mean",
        "kl_mean",
        "importance_rough",
        "importance_exact",
        "importance_exact_se",
        "importance_determined",
        "state",
        "importance/share",
        "diagnosis/label",
    }
    assert set(document["summary"]) == {
        "latents",
        "active",
        "cosine_mean_abs",
        "hadamard_gap",
        "kl_total",
        "distortion_mean",
        "overview/distortion_coding_mean",
    }
    assert document["output"] is None


def test_the_numbers_of_the_json_are_those_of_the_file(run: Run, folder: Path) -> None:
    import h5py

    _, out, _ = run(*QUICK, "--json", "--out", "numbers.h5")
    document = json.loads(out)
    assert document["output"] == "numbers.h5"
    with h5py.File(folder / "numbers.h5") as file:
        stored = file["isometry/norm_mean"][:]
        assert file.attrs["beta"] == document["beta"]["value"]
    assert np.array_equal(stored, [latent["norm_mean"] for latent in document["latents"]])


def test_an_analysis_left_out_is_null_in_json_and_absent_in_text(run: Run) -> None:
    arguments = (*QUICK, "--analysis", "importance")
    document = json.loads(run(*arguments, "--json")[1])
    assert document["latents"][0]["norm_mean"] is None
    assert document["summary"]["hadamard_gap"] is None
    assert document["latents"][0]["importance_rough"] is not None
    assert "residual" not in run(*arguments)[1].split("What it means")[0]


def test_inspect_tells_what_is_known_and_what_is_not(run: Run) -> None:
    code, out, _ = run("inspect", "model.safetensors")
    assert code == 0
    assert "native" in out
    assert "dataset" in out.split("unknown")[0].splitlines()[-1]


def test_inspect_json_has_the_declared_facts(run: Run) -> None:
    document = json.loads(run("inspect", "model.safetensors", "--json")[1])
    assert document["adapter"] == "native"
    assert document["declared"]["objective"]["beta"] == 1.0


def test_inspect_lists_the_tensors(run: Run) -> None:
    document = json.loads(run("inspect", "model.safetensors", "--json")[1])
    with safetensors.safe_open("model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in list(file.keys())}
    assert document["tensors"] == shapes


def test_inspect_shows_the_tensors_of_weights_that_nothing_describes(run: Run) -> None:
    tensors = {f"part{i}.weight": torch.ones(2, i) for i in range(50)}
    torch.save({"epoch": 3, "net": tensors}, "unknown.pth")
    code, out, err = run("inspect", "unknown.pth")
    assert code == 1
    assert "read by no adapter" in out
    assert "unknown.pth holds a" in err
    assert "net.part49.weight  2 x 49" in out
    assert "... 10 more" in out
    document = json.loads(run("inspect", "unknown.pth", "--json")[1])
    assert (document["adapter"], len(document["tensors"])) == (None, 50)


def test_inspect_ends_with_the_command_to_type_next(run: Run) -> None:
    names = {"fc_mu": (2, 8), "fc_var": (2, 8), "encoder.0.0": (8, 6), "decoder_input": (6, 2)}
    torch.save({f"{n}.weight": torch.ones(s) for n, s in names.items()}, "mine.pth")
    code, out, _ = run("inspect", "mine.pth")
    assert code == 0
    assert "looks_like   VanillaVAE or BetaVAE of PyTorch-VAE" in out
    assert out.splitlines()[-1] == "isoprobe analyze mine.pth --data SPEC"
    out = run("inspect", "model.safetensors")[1]
    assert out.splitlines()[-1] == "isoprobe analyze model.safetensors --data SPEC"


def test_plugins_lists_every_kind(run: Run) -> None:
    rows = json.loads(run("plugins", "--json")[1])
    kinds = {row["kind"] for row in rows}
    assert {"adapter", "metric", "analysis", "data-source", "architecture"} <= kinds
    assert "bce" in run("plugins")[1]


def test_python_m_isoprobe_is_the_same_program() -> None:
    done = python("-m", "isoprobe", "--version")
    assert done.stdout.startswith("isoprobe ")


# ------------------------------------------------------------------ what does not

ANALYZE_GOOD = ["analyze", "model.safetensors", "--data"]
BAD_INPUT = {
    "missing file": (["analyze", "nowhere.pt"], "no such file or folder: nowhere.pt"),
    "text file": (["analyze", "notes.safetensors"], "a text file.*no adapter reads"),
    "truncated safetensors": (["analyze", "cut.safetensors"], "cut.safetensors.*(cut|short|end)"),
    "foreign safetensors": (
        ["analyze", "foreign.safetensors"],
        "foreign.*(no tensors by name|no data was given:.*--data SPEC)",
    ),
    "LFS pointer": (["analyze", "pointer.safetensors"], "Git LFS pointer.*git lfs pull"),
    "pickled module": (
        ["analyze", "module.pt"],
        "module.*(no tensors by name|no data was given:.*--data SPEC)",
    ),
    "other pickle": (["analyze", "object.pkl"], "pickle.*pathlib.*state_dict"),
    "wrong size": ([*ANALYZE_GOOD, "wide.npy"], r"\(12,\).*\(13,\)"),
    "out of range": ([*ANALYZE_GOOD, "unscaled.npy"], r"metric 'bce' needs values in \[0, 1\]"),
    "NaN": ([*ANALYZE_GOOD, "nan.npy"], "row 30 of nan.npy has nan"),
    "no rows": ([*ANALYZE_GOOD, "empty.npy"], "empty.npy has no rows"),
    "text in data": ([*ANALYZE_GOOD, "words.npy"], "words.npy"),
    "missing data": ([*ANALYZE_GOOD, "nowhere.npy"], "nowhere.npy"),
    "unknown metric": ([*QUICK, "--metric", "bec"], "no metric 'bec'; did you mean 'bce'?"),
    "unknown option of a metric": ([*QUICK, "--metric", "gaussian:sigma=1"], "mean 'sigma2'?"),
    "unknown analysis": ([*QUICK, "--analysis", "isometri"], "did you mean 'isometry'?"),
    "unknown adapter": ([*QUICK, "--adapter", "nativ"], "did you mean 'native'?"),
    "unknown device": ([*QUICK, "--device", "abacus"], "--device abacus"),
    "broken option": ([*QUICK, "--option", "width"], "written key=value; found 'width'"),
    "existing output": ([*QUICK, "--out", "existing.h5"], "existing.h5.*--overwrite"),
    "no folder for output": ([*QUICK, "--out", "no/such/place.h5"], "no/such"),
    "inspect of a text file": (["inspect", "notes.safetensors"], "a text file"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_a_line_beside_commands_and_exit_1_and_writes_nothing(
    run: Run, folder: Path, case: str
) -> None:
    import re

    arguments, message = BAD_INPUT[case]
    before = snapshot(folder)
    if arguments[0] == "analyze" and "--out" not in arguments:
        arguments = [*arguments, "--out", "never.h5"]
    code, out, err = run(*arguments)
    assert code == 1
    assert out == ""
    _, *commands = err.splitlines()
    assert len(commands) <= 2, err
    assert all(line.startswith(("  isoprobe ", "  git ")) for line in commands), err
    assert err.startswith("Error: ")
    assert re.search(message, err, re.DOTALL), err
    assert snapshot(folder) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files below a folder."""
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyse"],
        ["analyze"],
        [*QUICK, "--samples", "0"],
        [*QUICK, "--samples", "some"],
        [*QUICK, "--batch-size", "-1"],
        [*QUICK, "--beta", "0"],
        [*QUICK, "--beta", "nan"],
        [*QUICK, "--scale", "255"],
        [*QUICK, "--scale", "255:0"],
        [*QUICK, "--resize", "big"],
        [*QUICK, "--memory", "lots"],
        [*QUICK, "--seed", "-1"],
        [*QUICK, "--dtype", "float31"],
        [*QUICK, "--pullback", "guess"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err


def test_a_misspelt_command_comes_with_the_nearest(run: Run) -> None:
    assert "did you mean 'analyze'" in run("analyse", "x")[2]


def test_debug_shows_the_traceback(run: Run) -> None:
    code, _, err = run("analyze", "nowhere.pt", "--debug")
    assert code == 1
    assert "Traceback (most recent call last)" in err
    assert "CheckpointError" in err


def test_a_broken_command_is_one_line_on_stderr_and_the_rest_works(tmp_path: Path) -> None:
    install(tmp_path, "theirs", {"command.broken": "broken"}, {"broken": "import nowhere"})
    done = python("-m", "isoprobe", "--help", PYTHONPATH=str(tmp_path))
    assert "analyze" in done.stdout
    assert done.stderr == (
        "Warning: plugin 'command.broken' of theirs: does not import: "
        "ModuleNotFoundError: No module named 'nowhere'\n"
    )


INTERRUPTED = """
import os, signal, sys
from isoprobe.run import engine
from isoprobe.cli import main

# a shell that starts this in the background has it ignore the signal
signal.signal(signal.SIGINT, signal.default_int_handler)
whole = engine.Probe.__call__
def interrupt(self, *arguments, **named):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(self, *arguments, **named)
engine.Probe.__call__ = interrupt
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_exits_130_and_leaves_no_file(folder: Path) -> None:
    before = snapshot(folder)
    done = python("-c", INTERRUPTED, *QUICK, "--out", "stopped.h5", cwd=folder, check=False)
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(folder) == before


def test_a_reader_that_leaves_early_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m isoprobe plugins | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


# ------------------------------------------------------------------ help


@pytest.mark.parametrize("command", [*COMMANDS, ""], ids=str)
def test_every_command_has_help_by_h_with_examples(run: Run, command: str) -> None:
    arguments = [command, "-h"] if command else ["-h"]
    code, out, _ = run(*arguments)
    assert code == 0
    assert "Examples:" in out
    assert f"isoprobe {command}".strip() in out.split("Examples:")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command: str) -> None:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    options = [p for p in found.params if isinstance(p, click.Option)]
    assert [o.name for o in options if not o.help] == []


def test_a_file_name_after_json_is_no_second_checkpoint(run: Run, folder: Path) -> None:
    before, named = set(folder.iterdir()), folder / "s.json"
    code, _, err = run("analyze", str(folder / "model.safetensors"), "--json", str(named))
    assert code == 2
    assert f"takes no file name; write '> {named}'" in " ".join(err.split())
    assert set(folder.iterdir()) == before


def test_options_of_analyze_are_arguments_of_the_call() -> None:
    import inspect

    from isoprobe.api import analyze

    command = cli.get_command(click.Context(cli), "analyze")
    assert command is not None
    own = {"as_json", "debug", "file_limit", "report", "shard", "own_class", "class_arguments"}
    own |= {"fail_on", "cluster", "plan", "quiet", "verbose", "image_shape"}
    offered = {p.name for p in command.params} - own
    assert offered == set(inspect.signature(analyze).parameters) - {"progress", "command"}
