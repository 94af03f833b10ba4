"""Run the bench of truth: ``python -m benchmarks.truth.run``.

The first half is for work on the verdict. The second half (``--half second`` or ``both``) is run
from a commit without local changes only, and each such run leaves a line in ``docs/trust.md``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.truth import judging
from benchmarks.truth.cases import Case, cases, declared, ready
from benchmarks.truth.data import MissingDataError
from benchmarks.truth.tables import UNTOUCHED, Run, bars, confusion

ROOT = Path(__file__).resolve().parents[2]
LOG = ROOT / "docs" / "trust.md"
#: the log's rows end before this line of it
MARK = "<!-- the bench of truth writes its runs above this line -->"
#: subsamples of models as they are, by number of rows; a fault is judged once
DRAWS = {20: 4, 200: 3, 2000: 1}
SIZES = tuple(DRAWS)
#: one case in so many is run by ``--quick``
QUICK = 7
HALVES = {"first": {1}, "second": {2}, "both": {1, 2}}


@dataclass(frozen=True)
class Work:
    """A case and what it is judged on."""

    case: Case
    sizes: tuple[int, ...]


def judge(work: Work) -> list[Run] | str:
    """Run one case on all its subsamples.

    Args:
        work: the case.

    Returns:
        Its verdicts, or why it was left out.
    """
    import torch

    torch.set_num_threads(1)
    case = work.case
    try:
        subject = ready(case)
    except MissingDataError as missing:
        return f"{case.name}: left out, {missing}"
    vae, arguments = declared(subject)
    found = []
    for n in work.sizes:
        draws = DRAWS[n] if case.group in UNTOUCHED else 1
        for draw in range(draws if n < len(subject.rows) else 1):
            chosen = subsample(case, len(subject.rows), n, draw)
            started = time.process_time()
            torch.manual_seed(draw)
            level, names, text = _verdict(vae, subject.rows[chosen], arguments)
            seconds = round(time.process_time() - started, 3)
            found.append(_run(case, n, draw, (level, names, text), seconds))
    return found


def _verdict(
    vae: object, rows: np.ndarray, arguments: dict[str, object]
) -> tuple[str, list[str], str]:
    """What isoprobe says; an error in one line is a refusal, any other a crash."""
    import isoprobe

    try:
        with isoprobe.analyze(vae, rows, samples=None, **arguments) as result:  # type: ignore[arg-type]
            return judging.judged(result)
    except isoprobe.IsoprobeError as error:
        return "refused", [], str(error)
    except Exception as error:
        return "refused", ["crash"], f"{type(error).__name__}: {error}"


def _run(case: Case, n: int, draw: int, said: tuple[str, list[str], str], seconds: float) -> Run:
    level, names, text = said
    named = frozenset() if "crash" in names else judging.causes(names, text)
    if case.group in UNTOUCHED:
        outcome = level if level in {"sound", "undecided"} else "accused"
    else:
        outcome = judging.outcome(level, named, case.causes, harmless=case.harmless)
    return Run(
        case=case.name,
        model=case.model,
        group=case.group,
        half=case.half,
        part=case.part,
        n=n,
        draw=draw,
        level=level,
        findings=tuple(names),
        causes=tuple(sorted(named)),
        right=tuple(sorted(case.causes)),
        outcome=outcome,
        text=text,
        seconds=seconds,
    )


def subsample(case: Case, count: int, n: int, draw: int) -> np.ndarray:
    """Choose rows, the same for a name, a size and a number each time.

    Args:
        case: the case.
        count: rows there are.
        n: rows wanted.
        draw: number of the subsample.

    Returns:
        Ascending indices; all there are where there are no more than ``n``.
    """
    if count <= n:
        return np.arange(count)
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), n, draw])
    return np.sort(rng.choice(count, n, replace=False))


def chosen_cases(half: str, *, quick: bool = False, match: str = "") -> list[Case]:
    """Choose cases by half and by part of their name or group; ``quick`` takes one in seven."""
    found = [case for case in cases() if case.half in HALVES[half]]
    found = [case for case in found if match in f"{case.group}/{case.name}"]
    return found[::QUICK] if quick else found


def run(works: Sequence[Work], jobs: int) -> Iterator[list[Run] | str]:
    """Run cases in several processes.

    Args:
        works: cases and sizes.
        jobs: processes.

    Yields:
        What :func:`judge` gives, in order.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if jobs == 1:
        yield from map(judge, works)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(judge, works)


# --------------------------------------------------------------------------- the log


def commit() -> str:
    """Return the commit that runs, short.

    Raises:
        SystemExit: when files of it have been changed, so that no commit says what ran.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no")
    if changed:
        raise SystemExit(
            "the second half runs from a commit alone, so that its log can say which; "
            f"commit these changes first, or use --half first:\n{changed}"
        )
    return _git("rev-parse", "--short=10", "HEAD")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.strip()


def log_line(runs: Sequence[Run], revision: str, day: str) -> str:
    """Write a run of the second half as a row of the log's table.

    Args:
        runs: verdicts of the second half.
        revision: the commit that ran.
        day: date.

    Returns:
        The row in Markdown.
    """

    def rate(group: Sequence[Run], outcomes: set[str]) -> str:
        hits = sum(r.outcome in outcomes for r in group)
        return f"{100 * hits / len(group):.1f}" if group else "-"

    untouched = [r for r in runs if r.group in UNTOUCHED]
    faults = [r for r in runs if r.group not in (*UNTOUCHED, "training") and r.n == 2000]
    cells = [day, revision, str(len(runs))]
    cells += [rate([r for r in untouched if r.n == n], {"sound", "undecided"}) for n in SIZES]
    cells.append(rate([r for r in untouched if r.group == "sound" and r.n == 2000], {"undecided"}))
    cells += [rate(faults, {outcome}) for outcome in ("named", "sound", "other")]
    return f"| {' | '.join(cells)} |"


def append_log(line: str, path: Path = LOG) -> None:
    """Add a row to the log in the documentation.

    Raises:
        SystemExit: when the place for it is gone.
    """
    text = path.read_text()
    if MARK not in text:
        raise SystemExit(f"{path} has no line {MARK!r} any more; put it after the table of runs")
    path.write_text(text.replace(MARK, f"{line}\n{MARK}"))


# --------------------------------------------------------------------------- the command


def main() -> None:
    """Run, print, and log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=HALVES, default="first")
    parser.add_argument("--quick", action="store_true", help="one case in seven, n = 200")
    parser.add_argument("--rows", type=int, nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--match", default="", help="cases whose GROUP/NAME holds this text")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "truth.json")
    asked = parser.parse_args()
    revision = commit() if asked.half != "first" else ""
    started = time.monotonic()
    sizes = (200,) if asked.quick else tuple(asked.rows)
    listed = chosen_cases(asked.half, quick=asked.quick, match=asked.match)
    runs: list[Run] = []
    for found in run([Work(case, sizes) for case in listed], asked.jobs):
        if isinstance(found, str):
            print(found, flush=True)
        else:
            runs += found
    _write(asked.out, runs, revision)
    print("\n".join(confusion(runs)))
    print()
    print("\n".join(bars(runs)))
    crashed = [r for r in runs if "crash" in r.findings]
    for r in crashed[:10]:
        print(f"crash: {r.case}, n = {r.n}: {r.text[:200]}")
    minutes, busy = (time.monotonic() - started) / 60, sum(r.seconds for r in runs) / 60
    print(f"\n{len(listed)} cases, {len(runs)} runs, {minutes:.1f} min ({busy:.1f} min of CPU)")
    second = [r for r in runs if r.half == 2]
    if second and not (asked.quick or asked.match):
        append_log(
            log_line(second, revision, datetime.datetime.now(datetime.UTC).date().isoformat())
        )


def _write(path: Path, runs: Sequence[Run], revision: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"commit": revision, "runs": [asdict(r) for r in runs]}
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
