"""Every command that a page or a help shows is run as it stands, or is listed with a reason."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from isoprobe.cli.group import cli
from isoprobe.cli.main import main
from tests.cli import world

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: commands that CI reads and does not run, and why
READ_ONLY = {
    r"^(pip|make|cd|pytest)\b": "sets up a machine, as .ci/run and test_scaffold.py do",
    r"^torchrun ": "starts processes: tests/run/test_sharding.py does, with two",
    r"hf://": "needs the network",
    r"--cluster ": "starts workers: tests/run/test_cluster.py does, with two",
    r"^isoprobe reproduce ": "trains for hours: tests/trainers/test_reproduce.py, at small sizes",
    r"^isoprobe train (toy|mnist|celeba|anomaly) ": "trains for hours: tests/trainers",
    r"\.keras ": "needs a Keras model: tests/plugins/test_adapters_keras.py",
    r"--data rows\.npy ": "of the page's own model: tests/house/test_docs.py",
    r"^isoprobe analyze vae\.pth ": "needs a training that ended: test_convert_doctor.py",
    r"--data images/ ": "needs a folder of faces: tests/plugins/test_convert_doctor.py",
    r"decoder\.onnx ": "needs an exported decoder: tests/plugins/test_adapters_onnx.py",
    r"^isoprobe merge .*(/new/place/|--adapter)": "moved shards: tests/run/test_sharding.py",
    r"(check metric\.|--metric )log-cosh": "needs the plugin: tests/testing/test_scaffold.py",
}
_ANALYZE = "isoprobe analyze model.safetensors --data images.npy --samples 100"
_REFERENCE = "isoprobe analyze model.safetensors --data normal.npy --analysis anomaly --out"
_OF_TABLE = (
    'isoprobe analyze m.safetensors --data "normal.csv:columns=a,b,c;keep=site" '
    "--analysis anomaly:by=site --out"
)
#: what a page takes for granted, and the command that makes it
GIVEN = {
    **{
        name: f"{_ANALYZE} --analysis +coordinates --out {name}"
        for name in (
            *("result.h5", "one.h5", "two.h5", "a.h5", "b.h5", "c.h5"),
            *("beta1.h5", "beta4.h5"),
        )
    },
    "normal.h5": f"{_REFERENCE} normal.h5",
    "r.h5": f"{_OF_TABLE} r.h5",
    "codes.parquet": "isoprobe encode model.safetensors --data images.npy -o codes.parquet",
    "codes.npz": "isoprobe encode model.safetensors --data images.npy -o codes.npz",
    "sweep/": "isoprobe analyze run/*.pt --data x.npy --metric sse --out sweep/",
    "runs/table/data.safetensors": 'isoprobe train table "data.csv:label=odd;id=patient"',
}
_WRITTEN = {"-o", "--out", "--report", "--html", "--figures", "--plot", "--summary", "--latents"}


def read_only(command: str) -> bool:
    """Whether CI does not run a command."""
    return any(re.search(pattern, command) for pattern in READ_ONLY)


def shown(page: Path) -> list[str]:
    """Return the commands of a page: lines of its consoles, those that go on put together."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    plain = (re.sub(r"\s+# .*$", "", line.removeprefix("$ ")) for line in lines)
    return [line for line in plain if line and not line.startswith("#")]


def helped() -> Iterator[tuple[str, list[str]]]:
    """Yield commands with the examples of their help."""

    def under(command: click.Command, name: str) -> Iterator[tuple[str, list[str]]]:
        said = re.findall(r"^ +((?:isoprobe|torchrun) .*)$", command.epilog or "", re.MULTILINE)
        yield name, [re.sub(r" {4,}.*$", "", line) for line in said]
        if isinstance(command, click.Group):
            context = click.Context(command)
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                assert found is not None
                yield from under(found, f"{name} {inner}")

    yield from under(cli, "isoprobe")


PAGES_SHOWN = {page.stem: commands for page in PAGES if (commands := shown(page))}
HELPS_SHOWN = {name: commands for name, commands in helped() if commands}
#: each page, and each help by its command
SHOWN = [*PAGES_SHOWN, *(f"{name} --help" for name in HELPS_SHOWN)]


@pytest.fixture(scope="module")
def files(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that documented commands name."""
    folder = tmp_path_factory.mktemp("world")
    world.make(folder, shared)
    return folder


def run(command: str) -> int:
    """Run a command as a shell would: patterns filled in, what a pipe or a file takes left out."""
    words = shlex.split(re.split(r" [|>] ", command)[0])
    assert words[0] == "isoprobe", command
    filled = [sorted(map(str, Path().glob(w))) if "*" in w else [w] for w in words[1:]]
    return main([word for part in filled for word in part])


def prepare(command: str) -> None:
    """Make what a command takes for granted, and take away what it is to write."""
    words = shlex.split(command)
    if words[1] == "merge":
        Path("result.h5").unlink(missing_ok=True)
        for k in range(1, 5):
            run(f"{_ANALYZE} --out result.h5 --shard {k}/4")
        return
    for before, word in pairwise(words):
        name = word.partition(":")[0]
        if before in _WRITTEN and not {"--overwrite", "--resume"} & set(words):
            shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink(missing_ok=True)
        elif before not in _WRITTEN and name in GIVEN and not Path(name).exists():
            of_table = name == "normal.h5" and "m.safetensors" in words
            assert run(f"{_OF_TABLE} normal.h5" if of_table else GIVEN[name]) == 0, name


def check(commands: list[str], files: Path, folder: Path) -> list[str]:
    """Run commands one after the other; return those that failed."""
    shutil.copytree(files, folder, dirs_exist_ok=True)
    failed = []
    for command in commands:
        if not read_only(command):
            if command.startswith("isoprobe doctor"):  # of the model's 64 pixels
                shutil.copy("digits.npz", "mnist.npz")
            prepare(command)
            failed += [command] if run(command) else []
    return failed


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path) -> Iterator[None]:
    """Forget net.py of this folder, whose name other tests have a file of."""
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("commands", [*PAGES_SHOWN.values(), *HELPS_SHOWN.values()], ids=SHOWN)
def test_the_commands_of_a_page_and_of_a_help_run(
    commands: list[str], files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(commands, files, tmp_path) == []


@pytest.mark.parametrize(
    "command",
    sorted(
        {c for s in (PAGES_SHOWN, HELPS_SHOWN) for cs in s.values() for c in cs if read_only(c)}
    ),
)
def test_a_command_that_is_not_run_has_options_that_exist(command: str) -> None:
    words = shlex.split(command, comments=True)
    if "isoprobe" not in words or "..." in words:
        return
    arguments = words[words.index("isoprobe") + 1 :]
    found: click.Command | None = cli
    while isinstance(found, click.Group):
        found = found.get_command(click.Context(found), arguments.pop(0))
    assert found is not None
    found.make_context("isoprobe", arguments).close()


def test_every_reason_is_needed() -> None:
    every = [c for shows in (PAGES_SHOWN, HELPS_SHOWN) for cs in shows.values() for c in cs]
    for pattern in READ_ONLY:
        assert any(re.search(pattern, command) for command in every), pattern
