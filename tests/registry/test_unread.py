"""First errors: what a file is in a line, and commands below it that run as they stand."""

from __future__ import annotations

import pickle
import shlex
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from isoprobe.checkpoints.classes import class_of, classes_in
from isoprobe.checkpoints.source import Source
from isoprobe.cli.main import main
from isoprobe.registry.unread import chain, next_for, unread
from isoprobe_plugins.commands.demo import MODEL

NET = """
import torch
from torch import nn


class Base(nn.Module):
    def encode(self, x):
        return self.mu(torch.tanh(self.fc1(x.flatten(1)))), self.logvar(torch.tanh(self.fc1(x.flatten(1))))

    def decode(self, z):
        return self.out(torch.tanh(self.fc2(z)))


class VAE(Base):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(16, 8)
        self.mu, self.logvar = nn.Linear(8, 2), nn.Linear(8, 2)
        self.fc2 = nn.Linear(2, 8)
        self.out = nn.Linear(8, 16)


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(16, 8)
"""  # noqa: E501 - as people write it
DEMO = MODEL.parent
#: words that stand for a name which the user would have to fill in
HOLES = ("FILE", "CLASS", "FUNCTION", "NAME")


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    parts = {
        "fc1": nn.Linear(16, 8), "mu": nn.Linear(8, 2), "logvar": nn.Linear(8, 2),
        "fc2": nn.Linear(2, 8), "out": nn.Linear(8, 16),
    }  # fmt: skip
    return {f"{n}.{k}": t for n, part in parts.items() for k, t in part.state_dict().items()}


class Mine:
    """A class of somebody's own."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("images.npy", rng.random((64, 4, 4), dtype="f4"))
    np.save("small.npy", rng.random((64, 2, 2), dtype="f4"))
    return tmp_path


def write(name: str) -> None:
    """Write the file or folder of that name."""
    path = Path(name)
    makers = {
        "vae.pt": lambda: torch.save(weights(), path),
        "vae.bin": lambda: torch.save({"epoch": 1, "net": weights()}, path),
        "vae.safetensors": lambda: save_file(weights(), path),
        "weights.npz": lambda: np.savez(path, **{k: t.numpy() for k, t in weights().items()}),
        "empty": path.mkdir,
        "zero.pt": lambda: path.write_bytes(b""),
        "list.pt": lambda: torch.save([1, 2], path),
        "mine.pkl": lambda: path.write_bytes(pickle.dumps(Mine())),
        "plain.pkl": lambda: path.write_bytes(pickle.dumps({"a": 1})),
        "notes.txt": lambda: path.write_text("what it is"),
        "table.csv": lambda: path.write_text("a,b\n1,2\n"),
        "net.py": lambda: path.write_text(NET),
        "array.npy": lambda: np.save(path, np.zeros(3)),
        "flax.msgpack": lambda: path.write_bytes(b"\x82\xa6params\x81\xa1w\x90"),
        "lfs.pt": lambda: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    }
    if name in makers:
        makers[name]()
    elif name == "cut.pt":
        torch.save(weights(), path)
        path.write_bytes(path.read_bytes()[:2000])
    elif name == "other.h5":
        with h5py.File(path, "w") as file:
            file["x"] = np.zeros(3)
    elif name == "archive.zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.txt", "a")
    elif name == "run":
        path.mkdir()
        for step in (2, 10):
            torch.save(weights(), path / f"vae-{step}.pt")
    elif name == "texts":
        path.mkdir()
        (path / "a.txt").write_text("a")


UNREAD = (
    *("empty", "zero.pt", "list.pt", "mine.pkl", "plain.pkl", "notes.txt", "table.csv", "net.py"),
    *("array.npy", "flax.msgpack", "lfs.pt", "cut.pt", "other.h5", "archive.zip", "run", "texts"),
)
READ = ("vae.pt", "vae.bin", "vae.safetensors", "weights.npz")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *((name, data) for name in UNREAD for data in (None, "images.npy")),
        *((name, data) for name in READ for data in (None, "small.npy")),
    ],
)
def test_a_first_error_is_three_lines_at_most_with_the_users_own_names(folder, capsys, name, data):
    write(name)
    given = [] if data is None else ["--data", data, "--metric", "sse"]
    code = main(["analyze", name, *given])
    lines = capsys.readouterr().err.splitlines()
    errors = [k for k, line in enumerate(lines) if line.startswith("Error: ")]
    assert code == 1
    assert len(errors) == 1
    said, *commands = lines[errors[0] :]
    assert said.startswith(f"Error: {name}")
    assert len(commands) <= 2
    assert all(line.startswith(("  isoprobe ", "  git ")) for line in commands)
    words = [word for line in commands for word in shlex.split(line)]
    assert not any(hole in word for word in words for hole in HOLES if data is not None)
    if data is not None and any("isoprobe analyze" in line for line in commands):
        assert all(word in words for word in given)
    if data == "small.npy" and name in READ:
        assert "10 tensors, 16 -> 8 -> 2 -> 8 -> 16" in said
        assert commands == [f"  isoprobe analyze {name} --data small.npy --metric sse --resize 4"]


@pytest.mark.parametrize("name", UNREAD)
def test_inspect_says_the_same_of_what_nobody_reads(folder, capsys, name):
    write(name)
    assert main(["inspect", name]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) <= 3
    assert said == "Error: " + "\n".join(unread(Source(name)).lines) + "\n"


@pytest.mark.parametrize(
    ("names", "number", "begins"),
    [
        (("net.py", "vae.pt"), 0, "isoprobe analyze vae.pt --class net.py:VAE"),
        (("run",), 0, "isoprobe analyze run/vae-10.safetensors"),
        (("run",), 1, "isoprobe analyze run/vae-2.safetensors run/vae-10.safetensors"),
        (("array.npy",), 0, "isoprobe analyze model.safetensors --data array.npy"),
        (("table.csv",), 0, "isoprobe train table table.csv"),
    ],
)
def test_the_commands_named_run_as_they_stand(folder, names, number, begins):
    for name in names:
        write(name)
    images = np.load(DEMO / "images.npz")["x"][:64]
    if names == ("run",):
        np.save("images.npy", images)
        for name in ("vae-2", "vae-10"):
            Path("run", f"{name}.pt").unlink()
            shutil.copy(DEMO / "model.safetensors", f"run/{name}.safetensors")
    if "array.npy" in names:
        np.save("array.npy", images)
        shutil.copy(DEMO / "model.safetensors", "model.safetensors")
    Path("table.csv").write_text("a,b\n" + "\n".join(f"{k},{k % 7}" for k in range(60)))
    error = unread(Source(names[0]), "--data images.npy --metric sse")
    command = error.commands[number]
    assert command.startswith(begins)
    assert main(shlex.split(command)[1:]) == 0


def test_weights_that_data_do_not_bear_out_name_class_and_doctor_which_run(folder, capsys):
    write("vae.pt")
    write("net.py")
    assert main(["analyze", "vae.pt", "--data", "images.npy", "--metric", "sse"]) in {0, 1}
    lines = [li.strip() for li in capsys.readouterr().err.splitlines() if "  isoprobe" in li]
    assert lines[0] == "isoprobe analyze vae.pt --class net.py:VAE --data images.npy --metric sse"
    assert lines[1] == "isoprobe doctor vae.pt --data images.npy --metric sse --out vae.toml"
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0
    assert Path("vae.toml").is_file()


def test_a_result_in_place_of_a_model_names_its_report(folder, capsys):
    write("vae.pt")
    write("net.py")
    run = "analyze vae.pt --class net.py:VAE --data images.npy --metric sse --out r.h5"
    assert main(run.split()) == 0
    error = unread(Source("r.h5"))
    assert error.commands == ("isoprobe report r.h5 --out r.html",)
    assert main(shlex.split(error.commands[0])[1:]) == 0
    assert Path("r.html").is_file()


def test_an_odd_name_is_quoted_and_stays_on_its_line(folder, capsys):
    name = "my model's\x1b[31m\nlast.pt"
    Path(name).mkdir()
    for step in (1, 2):
        torch.save(weights(), Path(name) / f"a b{step}.pt")
    error = unread(Source(name), "--data images.npy")
    assert shlex.split(error.commands[0]) == [
        "isoprobe", "analyze", f"{name}/a b2.pt", "--data", "images.npy",
    ]  # fmt: skip
    assert main(["inspect", name]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 3
    assert "\x1b" not in said


# ------------------------------------------------------------------ classes and widths


def test_the_class_that_has_every_part_is_found_wherever_the_weights_lie(folder):
    write("net.py")
    Path("other.py").write_text("class Encoder:\n    def __init__(self):\n        self.fc1 = 1\n")
    assert classes_in(Path("net.py"))["VAE"] == {"fc1", "mu", "logvar", "fc2", "out"}
    for prefix in ("", "module.", "state_dict.model._orig_mod."):
        names = [prefix + name for name in weights()] + ["optimizer.state.0.exp_avg"]
        file, name = class_of(names, (folder,))
        assert (file.name, name) == ("net.py", "VAE")
    assert class_of([*weights(), "extra.weight"], (folder,)) is None
    Path("net.py").rename(folder / "empty.txt")
    assert class_of(weights(), (folder,)) is None


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe\0", b"class A(", b"(" * 5000, b"class A(A):\n x = 1\n", b"#" * 300_000]
)
def test_a_file_that_is_no_python_has_no_classes(tmp_path, text):
    path = tmp_path / "a.py"
    path.write_bytes(text)
    assert not any(classes_in(path).values())


def test_nothing_of_a_python_file_at_hand_is_run(folder):
    write("vae.pt")
    Path("net.py").write_text(NET + "\nraise SystemExit('run')\nopen('ran', 'w').close()\n")
    assert "net.py:VAE" in unread_commands("vae.pt")
    assert not Path("ran").exists()


def unread_commands(name: str) -> str:
    return " ".join(next_for(Source(name), "--data x.npy"))


@pytest.mark.parametrize(
    ("shapes", "widths"),
    [
        ([(256, 784), (16, 256), (16, 256), (256, 16), (784, 256)], [784, 256, 16, 256, 784]),
        ([(8, 16), (4, 8), (8, 2), (16, 8)], []),
        ([(8, 16), (16, 8)], [16, 8, 16]),
        ([(8, 3, 3, 3), (16, 8)], []),
        ([(8, 8), (2, 8), (2, 8), (8, 2), (8, 8)], [8, 8, 2, 8, 8]),
        ([], []),
    ],
)
def test_the_widths_of_layers_are_those_on_the_way_through(shapes, widths):
    names = {f"{k}.weight": shape for k, shape in enumerate(shapes)}
    assert chain({**names, "0.bias": (shapes[0][0],)} if shapes else {}) == widths
