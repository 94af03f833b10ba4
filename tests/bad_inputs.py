"""Hundreds of commands that a user should not have typed, and what each must do.

Run as a script it prints every command with its message: ``python -m tests.bad_inputs``.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from isoprobe.cli import main
from isoprobe.cli.group import cli
from tests import bad_files

SECONDS = 20.0
MISTAKE, USAGE = 1, 2


@dataclass(frozen=True)
class Case:
    """A wrong command.

    Attributes:
        arguments: as typed.
        code: exit code it must have.
        named: what is at fault; a message names one of these.
    """

    arguments: tuple[str, ...]
    code: int
    named: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, its texts, seconds, and the files that it left or changed."""

    code: int | None
    out: str
    err: str
    seconds: float
    left: list[str]

    def faults(self, case: Case) -> list[str]:
        """Return what is wrong with it, nothing when it is as it should be."""
        said = self.err.strip().splitlines()
        # below the error the commands to type next may stand
        last = [line for line in said if not line.startswith("  isoprobe ")][-1:] or [""]
        found = {
            "traceback": self.code is None or "Traceback" in self.err,
            "hang": self.seconds > SECONDS,
            f"exit code {self.code}, not {case.code}": self.code != case.code,
            f"leftovers {self.left}": bool(self.left),
            "output": bool(self.out),
            # notes may stand before the error, and nothing else after it
            "no single error": case.code == MISTAKE
            and [line[:7] for line in self.err.splitlines() if line[:5] == "Error"] != ["Error: "],
            "error not last": case.code == MISTAKE and not last[0].startswith("Error: "),
            "warning": "Warning" in self.err,
            f"names none of {case.named}": not any(n in last[0] for n in case.named),
        }
        return [fault for fault, there in found.items() if there]


def run(case: Case) -> Outcome:
    """Run a command here, under a watch; every other file of the folder must stay as it is."""
    before = snapshot()
    out, err = io.StringIO(), io.StringIO()
    begun = time.process_time()
    code: int | None = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), watch():
        try:
            code = main(list(case.arguments))
        except TimeoutError:
            err.write("timed out")
        except BaseException as error:
            err.write(f"Traceback: {type(error).__name__}: {error}")
    spent = time.process_time() - begun
    after = snapshot()
    left = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    for path in map(Path, sorted(after.keys() - before.keys(), reverse=True)):
        path.rmdir() if path.is_dir() else path.unlink()  # or the next one is blamed for it
    return Outcome(code, out.getvalue(), err.getvalue(), spent, left)


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """Raise TimeoutError in what hangs, be it at work or waiting."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(int(4 * SECONDS))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def snapshot() -> dict[str, tuple[int, int]]:
    """Size and time of change of every file here and in the folder of temporary files."""
    found = {}
    for root in (Path(), Path(tempfile.gettempdir())):
        for path in root.rglob("*"):
            state = path.lstat()
            found[str(path)] = (state.st_size, state.st_mtime_ns)
    return found


# --------------------------------------------------------------------------- the commands

ANALYZE = ("analyze", "model.safetensors", "--data", "good.npy")
SCORE = ("score", "model.safetensors", "--data", "good.npy", "--reference", "result.h5")
TRAIN = ("train", "toy", "--data", "toy/mix:samples=300", "--epochs", "1", "--out", "new")


def make(folder: Path) -> list[Case]:
    """Fill a folder with good and bad files; return every case."""
    bad_files.make_folder(folder)
    done = main([*ANALYZE, "--analysis", "anomaly", "--analysis", "coordinates",
                 "--out", "result.h5", "--json"])  # fmt: skip
    if done != 0:
        raise RuntimeError("the good files are not good")
    return [
        *of_models(bad_files.bad_models(folder), bad_files.bad_declarations(folder)),
        *of_data(bad_files.bad_data(folder)),
        *of_results(bad_files.bad_results(folder)),
        *of_options(),
        *of_values(),
        *of_places(),
    ]


def of_models(models: list[str], declared: list[str]) -> Iterator[Case]:
    """Every bad model to every command that takes one."""
    for model in [*models, *declared, "pipe"]:
        runs = model in bad_files.ONLY_WHEN_RUN
        loads = runs or model in bad_files.ONLY_WHEN_LOADED
        stem = model.partition(".")[0]
        named = (model, stem)
        adapter = ("--adapter", "declared") if model in declared else ()
        yield Case(("analyze", model, "--data", "good.npy", *adapter, "--out", "x.h5"), 1, named)
        if not runs:
            yield Case(("score", model, *SCORE[2:], *adapter), 1, named)
            yield Case(("convert", model, "x.safetensors", *adapter), 1, named)
        # tensors of the last two are listed whoever reads them
        if not loads and model not in {*declared, "foreign.safetensors", "module.pt"}:
            yield Case(("inspect", model), 1, named)


def of_data(specs: list[str]) -> Iterator[Case]:
    """Every bad data spec to every command that takes one."""
    for spec in [*specs, "pipe"]:
        path, _, part = spec.partition(":")
        named = (path, part or path, path.rpartition("/")[2])
        yield Case((*ANALYZE[:2], "--data", spec, "--out", "x.h5"), 1, named)
        yield Case((*SCORE[:2], "--data", spec, *SCORE[4:], "--out", "x.csv"), 1, named)
        if spec != "range.npy":  # which no declared range forbids
            yield Case(("doctor", "weights.safetensors", "--data", spec), 1, named)


def of_results(results: list[str]) -> Iterator[Case]:
    """Every bad result to every command that takes one."""
    for result in [*results, "pipe"]:
        yield Case(("report", result, "-o", "x.html"), 1, (result,))
        yield Case(("report", result, "--figures", "new"), 1, (result,))
        yield Case(("compare", "result.h5", result), 1, (result,))
        yield Case((*SCORE[:5], result), 1, (result,))
        yield Case(("merge", "x.h5", result), 1, (result,))


#: a valid beginning of each command line, to which one wrong thing is added
BEGINNINGS = {
    "analyze": ANALYZE,
    "check": ("check", "metric.bce"),
    "compare": ("compare", "result.h5", "result.h5"),
    "convert": ("convert", "model.safetensors", "x.safetensors"),
    "doctor": ("doctor", "model.safetensors", "--data", "good.npy"),
    "inspect": ("inspect", "model.safetensors"),
    "merge": ("merge", "x.h5", "result.h5"),
    "new-plugin": ("new-plugin", "metric", "mine"),
    "plugins": ("plugins",),
    "report": ("report", "result.h5"),
    "reproduce": ("reproduce", "table1"),
    "score": SCORE,
    "spectrum": ("spectrum", "model.safetensors"),
}
WRONG = {
    "choice": ("", "none of them"),
    "integer range": ("-1", "many", "1.5"),
    "float range": ("-1", "much"),
    "float": ("much", "1,5"),
    "integer": ("many", ""),
}


def of_options() -> Iterator[Case]:
    """Unknown, incomplete and mistyped options of every command there is."""
    commands = {name: cli.get_command(click.Context(cli), name) for name in
                cli.list_commands(click.Context(cli))}  # fmt: skip
    group = commands["train"]
    subcommands = group.commands if isinstance(group, click.Group) else {}
    beginnings = BEGINNINGS | {f"train {name}": ("train", name) for name in subcommands}
    found = {**commands, **{f"train {name}": c for name, c in subcommands.items()}}
    for name, begun in beginnings.items():
        yield Case((*begun, "--bogus"), USAGE, ("--bogus",))
        yield Case((*begun, "--json=yes", "-Q"), USAGE, ("-Q", "--json"))
        for option in found[name].params:
            if isinstance(option, click.Option) and not option.is_flag:
                yield from _of_option(begun, option)
    for name in commands:
        if name not in {"plugins"}:
            yield Case((name, "--bogus=1"), USAGE, ("--bogus", "Missing"))
    yield Case(("plugins", "all"), USAGE, ("all",))
    for word in ("analyse", "", "--bogus", "scor", "тест"):
        yield Case((word, "x"), USAGE, (word or "command", "command"))


def _of_option(begun: tuple[str, ...], option: click.Option) -> Iterator[Case]:
    typed = option.opts[-1]
    yield Case((*begun, typed), USAGE, (typed,))
    for value in WRONG.get(option.type.name, ()):
        yield Case((*begun, typed, value), USAGE, (typed,))


USAGES = {
    "--samples": ("0", "-3", "some", "1e3", ""),
    "--batch-size": ("0", "-1", "big"),
    "--beta": ("0", "-1", "nan", "inf", "much"),
    "--scale": ("255", "255:0", "a:b", "0:nan", "1:1", "0:1:2"),
    "--resize": ("big", "0x", "32x32x32", "-3"),
    "--memory": ("lots", "0", "-1GiB", "1XB"),
}
MISTAKES = {
    "--shard": ("0/2", "3/2", "1", "a/b", "1/0", "1/2/3"),
    "--tolerance": ("0.01", "0", "1", "nan"),
    "--metric": ("bec", "gaussian:sigma=1", "gaussian:sigma2=wide", "gaussian:sigma2", "bce:x=1",
                 "gaussian:sigma2=1,sigma2=2", "gaussian:sigma2=-1", "ssim"),
    "--analysis": ("isometri", "isometry:depth=3", ""),
    "--adapter": ("nativ", "onnx", "keras"),
    "--option": ("width", "=3", "a=1"),
    "--device": ("abacus", "cuda:99", ""),
    "--resize": ("32",),
}  # fmt: skip
CONDITIONS = {
    "--resume": ("--out=existing.csv",),
    "--alpha": ("0", "1", "-1", "nan", "2"),
    "--contamination": ("0", "1", "-1", "nan"),
    "--metric": ("sse", "bec"),
    "--out": ("x.txt", "x", "no/folder.csv", "no/folder.h5", "existing.h5", "existing.csv"),
    "--map": ("--out=x.csv",),
}


def of_values() -> Iterator[Case]:
    """Values of options that cannot be."""
    for begun in (ANALYZE, SCORE):
        for typed, values in USAGES.items():
            if not (begun is SCORE and typed == "--beta"):
                yield from (Case((*begun, typed, v), USAGE, (typed,)) for v in values)
    for typed, values in MISTAKES.items():
        for value in values:
            named = (value.partition(":")[0] or typed, typed, typed[2:], "model.safetensors")
            yield Case((*ANALYZE, typed, value, "--out", "x.h5"), 1, (*named, *_aliases(value)))
    for typed, values in CONDITIONS.items():
        for value in values:
            yield Case((*SCORE, typed, value), 1, (value, typed))
    for name in (
        "Bad",
        "1x",
        "-x",
        "a b",
        "../evil",
        "class",
        "",
        "é",
        "a_b",
        "a--b",
        "x/y",
        "taken",
    ):
        yield Case(("new-plugin", "--", "metric", name), 1, (name,))
    for spec in ("bce", "metric", "metric.bec", "metrc.bce", "metric.bce:x=1", "adapter.native",
                 "data-source.arrays", "architecture.mlp", "analysis.nothing", ".",
                 ""):  # fmt: skip
        yield Case(("check", spec), 1, (spec.rpartition(".")[2] or "plugin", "--", "plugin", "bce"))
    for name in ("table9", "", "fig", "../x"):
        yield Case(("reproduce", name), USAGE, (f"'{name}'",))
    yield from of_training()


def _aliases(value: str) -> tuple[str, ...]:
    """Words a message may use for a value: the name of its option, or its number."""
    _, _, options = value.partition(":")
    return tuple(filter(None, (options.partition("=")[0], value.partition("=")[0])))


def of_training() -> Iterator[Case]:
    """Trainings that cannot be."""
    for typed, value, named in (
        ("--lam", "0", "lam"),
        ("--lam", "nan", "lam"),
        ("--lam", "-3", "lam"),
        ("--latents", "0", "latent"),
        ("--latents", "-1", "latent"),
        ("--lr", "0", "rate"),
        ("--lr", "nan", "rate"),
        ("--lr", "-1", "rate"),
        ("--batch-size", "1000", "batch of 1000"),
        ("--data", "toy/nothing", "nothing"),
        ("--data", "good.npy", "good.npy"),
        ("--data", "toy/mix:samples=-1", "samples"),
        ("--data", "toy/mix:dim=0", "dim"),
        ("--device", "abacus", "abacus"),
        ("--decay", "nan", "decay"),
        ("--out", "file/under", "file"),
    ):
        yield Case((*TRAIN, typed, value), 1, (named,))
    yield Case((*TRAIN, "--seed", "1", "--seed", "1"), 1, ("twice",))
    for name in ("thyroid", "kddcup99", "arrhythmia", "kddcup-rev"):
        arguments = ("train", "anomaly", name, "--quick", "--data-root", "nothing", "--out", "new")
        yield Case(arguments, 1, ("nothing", name))
    yield Case(("train", "anomaly", "iris"), USAGE, ("iris",))
    yield Case(("train", "nothing"), USAGE, ("nothing",))
    yield Case(("train", "mnist", "--data-root", "nothing", "--out", "new"), 1, ("nothing",))
    yield Case(("train", "celeba", "--data-root", "nothing", "--out", "new"), 1, ("nothing",))


def of_places() -> Iterator[Case]:
    """Files that cannot be written where they are wanted."""
    for out in ("no/folder.h5", "existing.h5", "file/x.h5", "x" * 300 + ".h5", "loop_result.h5",
                "~nobody-of-this-name/x.h5"):  # fmt: skip
        yield Case((*ANALYZE, "--out", out), 1, (out, "too long"))
    yield Case((*ANALYZE, "--out", "nothing"), USAGE, ("nothing",))
    for out in ("existing.html", "no/x.html", "file/x.html"):
        yield Case((*ANALYZE, "--report", out), 1, (out,))
        yield Case(("report", "result.h5", "-o", out), 1, (out,))
        yield Case(("compare", "result.h5", "result.h5", "--html", out), 1, (out,))
    yield Case(("report", "result.h5", "--figures", "file"), USAGE, ("file",))
    yield Case(("report", "result.h5", "--figures", "file/under"), 1, ("file",))
    yield Case(("report", "result.h5", "--figures", "new", "--figure", "scre"), 1, ("scre",))
    yield Case(("report", "result.h5", "--figure", "scree"), USAGE, ("--figure",))
    yield Case(("report", "result.h5", "--figures", "new", "-o", "x.html"), USAGE, ("--figures",))
    yield Case(("compare", "result.h5"), USAGE, ("two results",))
    yield Case(("compare", "nothing"), 1, ("nothing", "holds no results"))
    two = ("analyze", "model.safetensors", "nan.safetensors", "--data", "good.npy")
    yield Case(two, 1, ("--out FOLDER/",))
    for out in ("file", "file/under", "loop_result.h5"):
        yield Case((*two, "--out", out), 1, (out,))
    yield Case((*two, "--out", "new/", "--shard", "1/2"), 1, ("--shard",))
    yield Case((*two, "--out", "new/", "--report", "existing.html"), 1, ("existing.html",))
    yield Case(("merge", "x.h5"), USAGE, ("SHARDS",))
    yield Case(("merge", "x.h5", "result.h5"), 1, ("result.h5",))
    for out in ("existing.h5", "no/x.h5", "file/x.h5"):
        yield Case(("merge", out, "result.h5"), 1, (out, "result.h5"))
    for out in ("existing.safetensors", "no/x.safetensors", "file/x.safetensors"):
        yield Case(("convert", "model.safetensors", out), 1, (out, "native already"))
    yield Case(("new-plugin", "metric", "mine", "--into", "file/under"), 1, ("file/under",))
    for out in ("no/x.toml", "existing.csv"):
        yield Case(("doctor", "weights.safetensors", "--data", "good.npy", "--out", out), 1, (out,))
    yield Case(("inspect", "model.safetensors", "--adapter", "nativ"), 1, ("nativ",))


def main_script() -> None:
    """Run every case and print what it said."""
    folder = Path(tempfile.mkdtemp(prefix="bad-inputs-"))
    scratch = Path(tempfile.mkdtemp(prefix="bad-inputs-temporary-"))
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        cases = make(folder)
    tempfile.tempdir = str(scratch)
    wrong = 0
    for case in cases:
        outcome = run(case)
        faults = outcome.faults(case)
        wrong += bool(faults)
        said = outcome.err.strip() if faults else (outcome.err.strip().splitlines() or [""])[-1]
        print(f"{'!! ' if faults else ''}isoprobe {' '.join(case.arguments)}\n    {said}")
        for fault in faults:
            print(f"    !! {fault}")
    print(f"{len(cases)} cases, {wrong} wrong")


if __name__ == "__main__":
    sys.exit(main_script())
