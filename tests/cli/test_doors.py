"""What commands write to a terminal, and what is said when the fault is ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

from isoprobe.cli import group, main
from isoprobe.cli.doors import shown
from isoprobe.cli.main import DEFECT
from isoprobe.files import meter
from tests.bad_files import good_model
from tests.made import made_result

STEERING = [
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x1b[8mhidden",
    "\r",
    "\x08",
    "\x9b1m",
    "\u202e",
    "\x00",
]


@pytest.mark.parametrize("text", STEERING)
def test_no_character_of_a_file_steers_the_terminal(tmp_path, capsys, text) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({f"a{text}b": torch.zeros(2)}, path)
    main(["inspect", str(path)])
    said = capsys.readouterr()
    for out in (said.out, said.err):
        assert text not in out
        assert not set(out) & {"\x1b", "\x07", "\x08", "\x9b", "\r", "\x00", "\u202e"}
    assert "2" in said.out


def test_words_and_colours_of_our_own_are_left() -> None:
    text = click.style("a\tb\nü 字", fg="green", bold=True)
    assert shown(text) == text


@pytest.fixture
def broken(monkeypatch):
    """A command with a defect."""

    @click.command()
    def broken() -> None:
        raise KeyError("oh\nno\x1b[2J")

    monkeypatch.setitem(group.COMMANDS, "broken", "tests.cli.test_doors:made")
    globals()["made"] = broken


def test_a_defect_of_ours_is_one_line_and_70(broken, capsys) -> None:
    assert main(["broken"]) == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("Error: internal error in ")
    assert "please report" in said
    assert main(["broken", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_the_limit_of_files_is_raised_for_one_command(broken, monkeypatch) -> None:
    monkeypatch.delenv(meter.VARIABLE, raising=False)
    assert meter.allowance(0) == meter.FLOOR
    main(["broken", "--file-limit", "8GiB"])
    assert meter.VARIABLE not in meter.os.environ
    monkeypatch.setenv(meter.VARIABLE, "8GiB")
    assert meter.allowance(0) == 8 << 30


@pytest.mark.parametrize(
    "option",
    [
        ("--seed", "9" * 30), ("--samples", "9" * 30), ("--memory", "9" * 30 + "GB"),
        ("--resize", "9" * 30), ("--batch-size", "\u0663"), ("--file-limit", "much"),
    ],
)  # fmt: skip
def test_absurd_options_are_refused_by_their_range(option, capsys) -> None:
    assert main(["analyze", "nowhere.pt", *option]) == 2
    assert "Invalid value" in capsys.readouterr().err


def is_told_as_ours(
    ours: str,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command in which a function of ours fails ends as an internal error, and says so."""

    def defect(*args: object, **more: object) -> None:
        raise ValueError("ours")

    monkeypatch.setattr(ours, defect)
    assert main(command) == DEFECT
    said = capsys.readouterr().err
    assert "internal error" in said and "ours" in said
    assert "damaged" not in said and "cannot read" not in said


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (["report", "a.h5", "-o", "page.html"], "isoprobe.show.report.render"),
        (["report", "a.h5", "--figures", "new"], "isoprobe.show.plots.save"),
        (["compare", "a.h5", "a.h5"], "isoprobe.show.compare.compare"),
    ],
)
def test_a_defect_of_ours_is_not_blamed_on_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, command, ours
) -> None:
    """What our code raises over a sound result is an internal error, with a code of its own."""
    monkeypatch.chdir(tmp_path)
    made_result(tmp_path / "a.h5").close()
    is_told_as_ours(ours, command, monkeypatch, capsys)


@pytest.mark.parametrize(
    "ours",
    ["isoprobe.run.scoring.trimmed", "isoprobe.run.codes.map_from_arrays",
     "isoprobe.run.engine.restore", "isoprobe.run.maps._flat"],
)  # fmt: skip
def test_nor_is_what_a_run_makes_of_a_result_or_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, ours
) -> None:
    monkeypatch.chdir(tmp_path)
    good_model(tmp_path / "m.safetensors")
    np.save("rows.npy", np.random.default_rng(0).random((40, 12), "f4"))
    run = ["m.safetensors", "--data", "rows.npy"]
    asked = ["--analysis", "anomaly", "--analysis", "coordinates", "--batch-size", "10"]
    assert main(["analyze", *run, *asked, "--out", "a.h5"]) == 0
    assert main(["score", *run, "--reference", "a.h5", "--map", "--out", "s.h5"]) == 0
    np.save("masks.npy", np.eye(40, 12))
    masked = ["--reference", "a.h5", "--masks", "masks.npy", "--map"]
    commands = {
        "trimmed": ["score", *run, "--reference", "a.h5"],
        "map_from_arrays": ["encode", *run, "--reference", "a.h5", "-o", "c.npz"],
        "restore": ["analyze", *run, *asked, "--out", "b.h5"],
        "_flat": ["score", *run, *masked, "--out", "t.h5"],
    }
    command = commands[ours.rpartition(".")[2]]
    capsys.readouterr()
    is_told_as_ours(ours, command, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("name", "value"), [("analyses", 3), ("beta_ci95_pullback", "x"), ("seed", "x"), ("beta", -3.0)]
)
def test_attributes_of_odd_types_are_a_line(
    tmp_path: Path, monkeypatch, capsys, name, value
) -> None:
    monkeypatch.chdir(tmp_path)
    made_result(tmp_path / "a.h5").close()
    shutil.copy("a.h5", "b.h5")
    with h5py.File("b.h5", "r+") as file:
        file.attrs[name] = value
    assert main(["report", "b.h5", "-o", "page.html"]) in {0, 1}
    assert main(["compare", "a.h5", "b.h5"]) in {0, 1}
    assert "internal error" not in capsys.readouterr().err
