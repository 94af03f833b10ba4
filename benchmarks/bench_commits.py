"""The same work by two checkouts in turns, each time over plain passes in the same process.

Run it with ``python -m benchmarks.bench_commits OTHER [--repeats N] [--case NAME ...]``, OTHER
being a checkout of the commit to compare with, as ``git worktree add OTHER COMMIT`` makes one. Each
turn is a process of its own; its ratio is CPU time over CPU time of that process, so that what else
the machine does counts little.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring import shown

HERE = Path(__file__).resolve().parents[1]
SHARED = HERE.parent / "shared"
FAMILY = SHARED / "checkpoints" / "YannDubs+disentangling-vae"
DIGITS, FACES = SHARED / "data" / "mnist.npz", SHARED / "data" / "celeba64_subset.zip"
_ROWS, _BATCH = 10_000, 128
#: rows of the table that is scored, and those of a plain pass
_LINES, _FEW = 200_000, 2000
#: name: what is timed, in units of what, and the bar
CASES = {
    "default": "analyze VAE_mnist, defaults | encode + decode of 10,000 images | 2.5",
    "ten thousand": "analyze VAE_mnist, `--samples 10000` | encode + decode of 10,000 images | 12",
    "faces": "analyze VAE_celeba, `--samples 1000` | plain decoder passes a sample | 20",
    "conv10": "diagonal, conv n = 10, 1x64x64 | n + 1 plain passes | 0.85",
    "conv32": "diagonal, conv n = 32, 3x64x64 | n + 1 plain passes | 0.95",
    "celeba": "diagonal, VAE_celeba | n + 1 plain passes | 0.95",
    "folded": "diagonal, MLP 32-256-256-12288 | n + 1 plain passes | 0.08",
    "folded gram": "Gram, MLP 32-256-256-12288 | n + 1 plain passes | 0.08",
    "elu": "diagonal, MLP 20-200-450-784 elu | n + 1 plain passes | 0.75",
    "rows": "diagonal, MLP 512-256-256-16 | n + 1 plain passes | 0.06",
    "toy": "diagonal, toy MLP 3-128-64-16 | n + 1 plain passes | 0.75",
    "csv": "score 200,000 x 16, CSV to CSV | encode + decode of the rows | half of before",
    "beta": "standard error of beta, VAE_mnist | over root of CPU seconds | 0.6 of before",
}


def measured(case: str) -> float:
    """The ratio of a case, by the isoprobe that is imported."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if case in {"default", "ten thousand", "faces", "beta"}:
        return _analysed(case)
    return _scored() if case == "csv" else _pulled(case)


def _analysed(case: str) -> float:
    import torch

    import isoprobe
    from isoprobe.registry.lookup import installed

    faces = case == "faces"
    path = FAMILY / ("VAE_celeba" if faces else "VAE_mnist")
    data = str(FACES) if faces else f"{DIGITS}:x_train"
    counts = {"ten thousand": _ROWS, "faces": 1000, "beta": 2000}
    asked = {"samples": counts[case]} if case in counts else {}
    for name in ("isometry", "importance", "diagnosis"):
        installed().analysis(name)  # what is imported does not count
    began = time.process_time()
    with isoprobe.analyze(
        path, data, resize=None if faces else 32, device="cpu", threads=1, **asked
    ) as result:
        seconds = time.process_time() - began
        if case == "beta":
            return float(result["conditions"]["beta_se"].values) * seconds**0.5
    vae = isoprobe.load(path)
    rows = 1000 if faces else _ROWS
    x = torch.rand(_BATCH, *vae.input_shape)
    began = time.process_time()
    with torch.inference_mode():
        for _ in range(0, rows, _BATCH):
            z = torch.randn(_BATCH, vae.latent_size) if faces else vae.encode(x).mean
            vae.decode(z)
    return seconds / (time.process_time() - began)


def _scored() -> float:
    import numpy as np
    import torch

    from benchmarks.bench_score import make
    from isoprobe.run.scoring import open_scoring
    from isoprobe.run.tables import write_scores

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder, 16, [64, 64], 4, _LINES)
        rows = np.load(folder / "new.npy")
        for name, count in (("few", 100), ("new", _LINES)):
            np.savetxt(folder / f"{name}.csv", rows[:count], fmt="%.6g", delimiter=",")
        model, reference = folder / "model.safetensors", folder / "reference.h5"
        with open_scoring(model, str(folder / "few.csv"), reference) as scoring:
            write_scores(scoring, folder / "few-out.csv")  # what is imported does not count
        began = time.process_time()
        with open_scoring(model, str(folder / "new.csv"), reference) as scoring:
            write_scores(scoring, folder / "out.csv")
            seconds = time.process_time() - began
            vae = scoring.vae
        few, began = torch.from_numpy(rows[:_FEW]), time.process_time()
        with torch.inference_mode():
            for _ in range(0, _LINES, _FEW):
                vae.decode(vae.encode(few).mean)
        return seconds / (time.process_time() - began)


def _pulled(case: str) -> float:
    import torch
    from torch import nn

    from benchmarks.bench_pullback import ways
    from benchmarks.networks import Shape, shapes

    def mlp(activation: Callable[[], nn.Module], *widths: int) -> nn.Module:
        layers: list[nn.Module] = []
        for start, stop in itertools.pairwise(widths):
            layers += [nn.Linear(start, stop), activation()]
        return nn.Sequential(*layers[:-1])

    wide = (32, 256, 256, 12288)
    made = {
        "folded": lambda: Shape("", mlp(nn.Softplus, *wide), 32, 64),
        "folded gram": lambda: Shape("", mlp(nn.Softplus, *wide), 32, 64),
        "elu": lambda: Shape("", mlp(nn.ELU, 20, 200, 450, 784), 20, 256),
        "rows": lambda: Shape("", mlp(nn.Softplus, 512, 256, 256, 16), 512, 64),
    }
    place = {"toy": 0, "conv10": 2, "conv32": 3, "celeba": 4}
    shape = made[case]() if case in made else list(shapes())[place[case]]
    shape.decoder.eval().requires_grad_(requires_grad=False)
    z = torch.randn(shape.batch, shape.latents, generator=torch.Generator().manual_seed(0))
    each = ways(shape, z)
    ours = each["isoprobe, with Gram" if case.endswith("gram") else "isoprobe"]
    plain, pulled = [], []
    for turn in range(6):
        for work, times, count in ((each["plain"], plain, 10), (ours, pulled, 2)):
            began = time.process_time()
            for _ in range(count):
                work()
            if turn:
                times.append((time.process_time() - began) / count)
    return statistics.median(pulled) / statistics.median(plain) / (shape.latents + 1)


def in_turns(other: Path, case: str, repeats: int) -> tuple[list[float], list[float]]:
    """Ratios of a case by the other checkout and by this one."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for tree, ratios in zip((other, HERE), found, strict=True):
            paths = (tree, tree / "plugins", tree / "trainers")
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
            # as a module: beside a script lies cuda.py, which torch would take for NVIDIA's
            command = [sys.executable, "-m", "benchmarks.bench_commits", "--one", case]
            run = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True, cwd=tree
            )
            ratios.append(float(run.stdout.split()[-1]))
    return found


def report(other: Path, repeats: int, cases: list[str]) -> Iterator[str]:
    """The table in Markdown.

    Yields:
        The next line.
    """
    yield "# Against an earlier commit"
    yield ""
    yield (
        "CPU time of the same work by two checkouts in turns, each turn a process of its own, one"
        " thread: over plain passes of the same network in that process: median and range of"
        f" {repeats} turns. Before is {_commit(other)}, now {_commit(HERE)};"
        " `python -m benchmarks.bench_commits OTHER --write docs/benchmarks-commits.md` makes this"
        " page."
    )
    yield ""
    yield "| work | in units of | bar | before | now |"
    yield "|---|---|---|---|---|"
    for case in cases:
        before, now = (_said(ratios) for ratios in in_turns(other, case, repeats))
        work, unit, bar = CASES[case].split(" | ")
        yield f"| {work} | {unit} | {bar} | {before} | {now} |"


def _commit(tree: Path) -> str:
    told = ("git", "log", "-1", "--format=%h of %as")
    return subprocess.run(told, cwd=tree, capture_output=True, text=True, check=True).stdout.strip()


def _said(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(measured(arguments.one))
        return
    if arguments.other is None:
        parser.error("name the other checkout")
    cases = arguments.case or list(CASES)
    shown(report(arguments.other.resolve(), arguments.repeats, cases), arguments.write)


if __name__ == "__main__":
    main()
