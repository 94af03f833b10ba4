"""What writes: only a file or a new name is ever replaced, and nothing of the user's is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from isoprobe.cli import main
from isoprobe.errors import IsoprobeError
from isoprobe.results.flat import csv_to
from isoprobe.results.whole import LOCK, check_place, held, hold_folder, replacing
from isoprobe.results.writer import ResultWriter
from isoprobe.show import report
from tests import bad_files
from tests.processes import python

#: threads are named, since sums of as many are the same bits
RUN = ["--data", "good.npy", "--samples", "8", "--pairs", "1", "--threads", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a model, its data and a page."""
    monkeypatch.chdir(tmp_path)
    bad_files.good_model(tmp_path / "model.safetensors")
    np.save(tmp_path / "good.npy", np.random.default_rng(0).random((40, 12), "f4"))
    return tmp_path


def write(path: Path) -> None:
    report.write("page", path, overwrite=True)


# --------------------------------------------------------------------------- what stands there


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))  # a private twin of the null device
    except PermissionError:
        pytest.skip("may make no device node")


def link_to_device(path: Path) -> None:
    device(path.with_name("node"))
    path.symlink_to("node")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    "make", [Path.mkdir, fifo, unix_socket, device, link_to_device, link_to_itself]
)
def test_what_is_no_file_is_never_replaced(folder, make) -> None:
    path = folder / "page.html"
    make(path)
    before = path.lstat()
    with pytest.raises(IsoprobeError):
        write(path)
    with pytest.raises(IsoprobeError):
        ResultWriter.open(path, samples=1, latent=1, overwrite=True)
    for out in ("--report", "--out"):
        code = main(["analyze", "model.safetensors", *RUN, out, str(path), "--overwrite"])
        assert code == (2 if make is Path.mkdir else 1)
    after = path.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


def test_a_link_to_a_file_stays_a_link(folder) -> None:
    (folder / "real").write_text("old")
    (folder / "page.html").symlink_to("real")
    write(folder / "page.html")
    assert (folder / "page.html").is_symlink()
    assert (folder / "real").read_text() == "page"


def test_work_files_are_new_and_never_followed(folder) -> None:
    """Names of earlier versions, laid as links to something of the user's, are not touched."""
    (folder / "mine").write_text("mine")
    for name in (".page.html.partial", ".page.html.0123456789abcdef.partial"):
        (folder / name).symlink_to("mine")
    write(folder / "page.html")
    with replacing(folder / "a") as one:
        partial = one.name
    with replacing(folder / "a") as two:
        assert two.name != partial
    assert (folder / "mine").read_text() == "mine"
    (folder / ".page.html.lock").symlink_to("mine")
    with pytest.raises(OSError, match="symbolic links|Too many levels"):
        held(folder / "page.html").__enter__()
    assert (folder / "mine").read_text() == "mine"


def test_a_folder_that_is_not_ours_is_never_emptied(folder) -> None:
    partial = folder / "r.h5.partial"
    partial.mkdir()
    (partial / "thesis.tex").write_text("mine")
    for more in ([], ["--overwrite"], ["--resume"]):
        assert main(["analyze", "model.safetensors", *RUN, "--out", "r.h5", *more]) == 1
    assert (partial / "thesis.tex").read_text() == "mine"
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / LOCK).write_text("")
    (folder / "elsewhere" / "thesis.tex").write_text("mine")
    (folder / "s.h5.partial").symlink_to("elsewhere")
    assert main(["analyze", "model.safetensors", *RUN, "--out", "s.h5", "--overwrite"]) == 1
    assert (folder / "elsewhere" / "thesis.tex").read_text() == "mine"


# --------------------------------------------------------------------------- two runs, one target


def _hold(path: str, ready) -> None:
    with held(Path(path)):
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(folder):
    """Another process that writes to ``page.html``."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    process = spawn.Process(target=_hold, args=(str(folder / "page.html"), ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()  # it may be dead already, so nothing is said to it
    process.join()


def test_of_two_runs_to_one_target_one_is_refused(folder, holder) -> None:
    with pytest.raises(IsoprobeError, match="being written by another process"):
        write(folder / "page.html")
    holder.kill()
    holder.join()
    write(folder / "page.html")  # a lock goes with its process
    assert not (folder / ".page.html.lock").exists()


def test_what_a_killed_run_left_is_removed_by_the_next(folder) -> None:
    (folder / ".page.html.0123456789abcdef.partial").write_text("left")
    (folder / ".page.html.mine.partial").write_text("mine")
    write(folder / "page.html")
    names = {p.name for p in folder.iterdir() if "page" in p.name}
    assert names == {"page.html", ".page.html.mine.partial"}


def test_a_working_folder_is_held_by_one_run(folder) -> None:
    with hold_folder(folder / "w"), pytest.raises(IsoprobeError, match="another process"):
        hold_folder(folder / "w")
    hold_folder(folder / "w").close()


# --------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("how", ["itself", "hard link", "symbolic link", "other spelling"])
@pytest.mark.parametrize(
    ("command", "victim"),
    [
        (["analyze", "model.safetensors", *RUN, "--out"], "model.safetensors"),
        (["analyze", "model.safetensors", *RUN, "--out"], "good.npy"),
        (["analyze", "model.safetensors", *RUN, "--report"], "good.npy"),
        (["report", "result.h5", "-o"], "result.h5"),
        (["compare", "result.h5", "result.h5", "--html"], "result.h5"),
        (["convert", "model.safetensors", "-o"], "model.safetensors"),
    ],
)
def test_nothing_is_written_over_what_a_run_reads(folder, command, victim, how) -> None:
    if victim == "result.h5":
        from tests.made import made_result

        made_result(folder / "result.h5").close()
    if command[0] == "convert":
        command = ["convert", "model.safetensors"]
    before = (folder / victim).read_bytes()
    place = folder / "other"
    if how == "hard link":
        place.hardlink_to(folder / victim)
    elif how == "symbolic link":
        place.symlink_to(victim)
    else:
        place = folder / victim if how == "itself" else folder / "x" / ".." / victim
        (folder / "x").mkdir()
    arguments = [*command, str(place), "--overwrite"]
    assert main(arguments) == 1, arguments
    assert (folder / victim).read_bytes() == before


def test_a_file_in_a_folder_that_is_read_is_an_input(tmp_path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"a")
    with pytest.raises(IsoprobeError, match="read by this very run"):
        check_place(tmp_path / "images" / "a.png", overwrite=True, inputs=[tmp_path / "images"])


# --------------------------------------------------------------------------- signals and limits

CODE = """
import sys, time
from pathlib import Path
import click
from isoprobe.cli import main, group
from isoprobe.results.whole import replacing

@click.command()
def wait():
    with replacing(Path("page.html")) as partial:
        partial.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

group.cli.add_command(wait)
group.COMMANDS["wait"] = "__main__:wait"
sys.exit(main(["wait"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_clean_up_as_ctrl_c_does(folder, number) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said == b"Interrupted.\n"
    assert not [p.name for p in folder.iterdir() if "page" in p.name]


def test_a_full_disk_loses_nothing(folder, capped) -> None:
    (folder / "page.html").write_text("old")
    with capped(1000), pytest.raises(IsoprobeError, match="cannot write"):
        report.write("x" * 5000, folder / "page.html", overwrite=True)
    assert (folder / "page.html").read_text() == "old"
    assert {p.name for p in folder.iterdir() if "page" in p.name} == {"page.html"}


#: what is written, each to a disk that is full, and with few files left to open
WRITTEN = {
    "result": ["analyze", "model.safetensors", *RUN, "--out", "{out}/r.h5", "--overwrite"],
    "page": ["analyze", "model.safetensors", *RUN, "--report", "{out}/r.h5", "--overwrite"],
    "scores": ["score", "model.safetensors", "--data", "good.npy", "--reference", "reference.h5",
               "--threads", "1", "--out", "{out}/r.h5", "--overwrite"],
    "table": ["score", "model.safetensors", "--data", "good.npy", "--reference", "reference.h5",
              "--out", "{out}/r.csv", "--overwrite"],
    "codes": ["encode", "model.safetensors", "--data", "good.npy", "-o", "{out}/r.npz",
              "--overwrite"],
    "checkpoint": ["convert", "weights.safetensors", "{out}/r.safetensors", "--overwrite"],
}  # fmt: skip


def target(command: list[str]) -> str:
    return next(word for word in command if word.startswith("{out}/")).removeprefix("{out}/")


@pytest.fixture
def written(folder) -> Path:
    """The folder with a reference for scores too."""
    layers = {"fc1": (8, 12), "fc21": (2, 8), "fc22": (2, 8), "fc3": (8, 2), "fc4": (12, 8)}
    weights = {f"{name}.weight": np.ones(shape, "f4") / 9 for name, shape in layers.items()}
    weights |= {f"{name}.bias": np.zeros(shape[0], "f4") for name, shape in layers.items()}
    save_file(weights, folder / "weights.safetensors")
    given = ["--analysis", "anomaly", "--out", "reference.h5"]
    assert main(["analyze", "model.safetensors", "--data", "good.npy", *given]) == 0
    return folder


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A file system of our own with 64 KiB, of which nothing is left but what ``old`` takes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("may mount no file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("what", WRITTEN)
def test_a_disk_that_is_full_loses_nothing(written, small_disk, capsys, what) -> None:
    name = target(WRITTEN[what])
    (small_disk / name).write_bytes(b"old" * 500)
    (small_disk / "filling").write_bytes(bytes((64 << 10) - 3 * 4096))
    before = {p.name for p in small_disk.iterdir()}
    capsys.readouterr()
    code = main([word.format(out=small_disk) for word in WRITTEN[what]])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    if code == 0:  # it was small enough
        assert (small_disk / name).read_bytes() != b"old" * 500
        return
    assert (code, len(errors)) == (1, 1), errors
    assert (small_disk / name).read_bytes() == b"old" * 500
    left = {p.name for p in small_disk.iterdir()} - before
    assert left <= {f"{name}.partial"}, left


FEW = """
import resource, sys
from isoprobe.cli import main
for warm in (True, False):
    if not warm:
        import os
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + int(sys.argv[1]),) * 2)
    code = main(sys.argv[2:])
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts files that are open there")
@pytest.mark.parametrize("what", ["result", "scores"])
def test_few_files_to_open_lose_nothing(written, what) -> None:
    command = [word.format(out=written) for word in WRITTEN[what]]
    name = target(WRITTEN[what])
    assert main(command) == 0
    old, codes = (written / name).read_bytes(), set()
    before = {p.name for p in written.iterdir()}
    for more in (1, 4, 64):
        done = python("-c", FEW, str(more), *command, cwd=written, check=False)
        codes.add(done.returncode)
        assert done.returncode in {0, 1}, done.stderr
        assert "Traceback" not in done.stderr
        assert (written / name).read_bytes() == old  # the same run gives the same bytes
        left = {p.name for p in written.iterdir()} - before
        assert left <= {f"{name}.partial"}, left
    assert codes == {0, 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_read_only_folder_is_one_line(folder) -> None:
    folder.chmod(0o555)
    code = (
        "import os; from pathlib import Path; from isoprobe.show import report\n"
        "try: report.write('x', Path('/'))\n"
        "except Exception: pass\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: report.write('x', Path('page.html'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = python("-c", code, cwd=folder, check=False)
    folder.chmod(0o755)
    assert "cannot write page.html: Permission denied" in done.stdout, done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lose_nothing(folder, closed) -> None:
    line = f"{sys.executable} -m isoprobe plugins --json {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}
    assert "Traceback" not in done.stderr


def test_a_missing_temporary_folder_and_home_are_one_line(folder) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in {"HOME", "TMPDIR"}}
    environment |= {"TMPDIR": str(folder / "no"), "HOME": str(folder / "no")}
    line = [sys.executable, "-m", "isoprobe", "analyze", "model.safetensors", *RUN, "--out", "r.h5"]
    done = subprocess.run(
        line, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert (folder / "r.h5").is_file()


# --------------------------------------------------------------------------- tables


def test_cells_that_a_spreadsheet_runs_are_texts() -> None:
    import io

    stream = io.StringIO()
    cells = ["=1+1", "+1", "-x", "@SUM(A1)", "\t=1", "plain", "  =1"]
    csv_to(stream)({"=name": np.array(cells, object), "n": -np.ones(7)})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "'=name,n"
    assert [line.startswith("'") or line.startswith('"\'') for line in lines[1:]] == [
        True, True, True, True, True, False, True,
    ]  # fmt: skip
    assert all(line.endswith(",-1.0") for line in lines[1:])  # numbers stay numbers
