"""Try the gallery as a newcomer does, and write what came of it into a table.

    python -m tests.gallery.first_try                       all of it, into docs/first-try.md
    python -m tests.gallery.first_try --only NAME ...       these, to the terminal alone

Each layout gets `isoprobe analyze FILE --data D`, and where that fails the command its message
names; each live module gets `isoprobe.analyze(model, rows, metric=...)`. What comes out is held
against the right answers of the gallery.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import re
import shlex
import shutil
import tempfile
import textwrap
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILES = HERE / "layouts" / "files"
TABLE = HERE.parents[1] / "docs" / "first-try.md"

TRUE = "true"
TRUE_NEXT = "true, one command more"
TRUE_LATER = "true, several commands"
OTHER_METRIC = "true, in another metric"
RIGHTLY = "refused, with the reason"
STEP_WORKS = "refused, next step works"
REFUSED = "refused"
WRONG = "WRONG"
UNTRIED = "not tried yet"
STATES = (TRUE, TRUE_NEXT, TRUE_LATER, OTHER_METRIC, RIGHTLY, STEP_WORKS, REFUSED, WRONG, UNTRIED)

#: what the gallery calls a metric -> what isoprobe does
SYNONYMS = {"negative-binomial": "nb"}
NEXT_LIMIT = 3  # commands after the first
PLACEHOLDER = re.compile(r"\b(FILE|MODEL|SPEC|NAME|KEY|VALUE|module:function|VAE)\b|\.\.\.|<\w+>")


@dataclass
class Outcome:
    """What became of one entry: its state, and why."""

    state: str
    why: str = ""
    commands: list[str] = field(default_factory=list)


# -- judging numbers ---------------------------------------------------------------------------


def near(found: float | None, right: float, tolerance: float) -> bool:
    """Say whether a number is the right one, to a relative tolerance."""
    return found is not None and abs(found - right) <= tolerance * abs(right) + 1e-6


def judge(found: dict[str, Any], right: dict[str, Any]) -> tuple[str, str]:
    """Return the state of a result, and what is wrong or to be said of it.

    Args:
        found: latents, kl, distortion, metric, beta and its interval as isoprobe gives them.
        right: the entry of `layouts.json`, or the like for a module.
    """
    metric = found["metric"].split(":")[0]
    metric = next((long for long, brief in SYNONYMS.items() if brief == metric), metric)
    tolerance = right["relative_tolerance"]
    scale = right.get("dimensions", 1) if metric == "mse" else 1
    faults, note = [], ""
    if found["latents"] != right["latents"]:
        faults.append(f"{found['latents']} latents, right {right['latents']}")
    rates = [r for r in (right["kl"], right.get("kl_with_discrete")) if r is not None]
    if rates and not any(near(found["kl"], rate, tolerance["kl"]) for rate in rates):
        faults.append(f"KL {_number(found['kl'])}, right {rates[0]:.4g}")
    if not rates and found["kl"]:
        faults.append(f"KL {_number(found['kl'])} of a model without a posterior")
    # without a posterior the distortion is that at the code
    places = ("mean",) if right["kl"] is None else ("draws", "ends")
    known = [_distortion(right, place, metric) for place in places]
    values = [value / scale for value in known if value is not None]
    close = [near(found["distortion"], value, tolerance["distortion"]) for value in values]
    if values and not any(close):
        faults.append(f"{metric} {_number(found['distortion'])}, right {values[0]:.4g}")
    elif values and not close[0]:
        note = f"{metric} {found['distortion']:.4g} at mu +- sigma; {values[0]:.4g} at draws"
    if faults:
        return WRONG, "; ".join(faults)
    trained = {right["metric"], *(("mse",) if right["metric"] == "sse" else ())}
    if metric not in trained:
        return OTHER_METRIC, f"{metric}, trained with {right['metric']}"
    beta = right["beta"]
    told = beta and found["beta"] is not None
    low, high = found.get("interval") or (found["beta"], found["beta"])
    if told and not _holds(low, high, beta / scale, tolerance["beta"]):
        return WRONG, f"beta {found['beta']:.3g}, right {beta / scale:.3g}"
    return TRUE, note


def _holds(low: float, high: float, right: float, tolerance: float) -> bool:
    """Say whether a number lies in the interval that is stated, to a relative tolerance."""
    return (1 - tolerance) * right <= high and low <= (1 + tolerance) * right


def _distortion(right: dict[str, Any], place: str, metric: str) -> float | None:
    return right.get(f"distortion_at_{place}", {}).get("sse" if metric == "mse" else metric)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def mentions(text: str, groups: Any) -> bool:
    """Say whether of each group of words one is in a text, whatever its case."""
    return all(any(word.lower() in text.lower() for word in group) for group in groups)


# -- layouts, by the command line ------------------------------------------------------------------


def next_command(message: str, first: str, right: dict[str, Any]) -> str | None:
    """Return the command that a message names for the next step, or nothing.

    A whole command is taken as it stands. A bare `isoprobe doctor` is completed with the file
    and its data, a bare option is added to the first command, and a metric is the one that the
    newcomer trained with.
    """
    text = " ".join(message.split())
    quoted = re.findall(r"['`\"](isoprobe [^'`\"]+)['`\"]", text)
    lines = [line.strip(" $") for line in message.splitlines()]
    whole = quoted + [line for line in lines if line.startswith("isoprobe ")]
    for command in whole:
        if len(command.split()) > 2 and not PLACEHOLDER.search(command):
            return _as_trained(command, text, right)
    if any(command.split()[:2] == ["isoprobe", "doctor"] for command in whole):
        out = Path(right["file"]).with_suffix(".toml").name
        return f"isoprobe doctor {right['file']} --data {right['data']} --out {out}"
    if "--metric" in text and "--metric" not in first:
        return f"{first} --metric {right['metric']}"
    for option in re.findall(r"(--[a-z-]+(?: [\w=:./-]+)?)", text):
        name = option.split()[0]
        if name not in first and name != "--debug" and not PLACEHOLDER.search(option):
            return f"{first} {option.rstrip('.')}"
    return None


def _as_trained(command: str, text: str, right: dict[str, Any]) -> str:
    """The command under the metric that was trained with, where the message leaves it open."""
    metric = SYNONYMS.get(right["metric"], right["metric"])
    offered = re.search(r"--metric \S+ \(or ([\w, -]+), as it was trained\)", text)
    if offered is None or metric not in offered[1].split(", "):
        return command
    return re.sub(r"--metric \S+", f"--metric {metric}", command)


def run(command: str, folder: Path) -> tuple[int, str, str]:
    """Run a command of isoprobe in a folder, in this process; returns code, stdout, stderr."""
    from isoprobe.cli import main as isoprobe_main

    os.environ.update(KERAS_BACKEND="torch", COLUMNS="100")
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = isoprobe_main(shlex.split(command)[1:])
    finally:
        os.chdir(before)
    return code, out.getvalue(), err.getvalue()


def as_found(stdout: str) -> dict[str, Any] | None:
    """Return the numbers of `analyze --json`, or nothing where it is not that."""
    try:
        said = json.loads(stdout)
    except ValueError:
        return None
    if not isinstance(said, dict) or "summary" not in said:
        return None
    return {
        "latents": said["summary"]["latents"],
        "kl": said["summary"].get("kl_total"),
        "distortion": said["summary"].get("distortion_mean"),
        "metric": said["metric"],
        "beta": said["beta"].get("value"),
        "interval": said["beta"].get("ci95"),
    }


def try_layout(right: dict[str, Any]) -> dict[str, Any]:
    """Type the first command of a layout, then what messages ask for; returns what happened."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (right["file"], right["data"].split(":")[0]):
            source = FILES / part
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / part)
        return _follow(right, folder)


def _follow(right: dict[str, Any], folder: Path) -> dict[str, Any]:
    first = right["command"]
    said: dict[str, Any] = {"commands": [], "heard": "", "worked": False, "found": None}
    commands = said["commands"]
    command: str | None = first
    while command is not None and len(commands) <= NEXT_LIMIT:
        commands.append(command)
        verb = command.split()[1]
        code, out, err = run(command + (" --json" if verb == "analyze" else ""), folder)
        if verb == "analyze" and code == 0:
            said["found"] = as_found(out)
            break
        said["worked"] = said["worked"] or (len(commands) > 1 and code == 0)
        said["heard"] = said["heard"] or err.strip() or out.strip()
        command = next_command(err + out, first, right)
        if code == 0 and verb == "doctor" and (not command or command.split()[1] != "analyze"):
            command = first  # the declaration lies beside the file now
        if command in commands[1:] or (command == first and len(commands) == 1):
            command = None
    return said


def settle(said: dict[str, Any], right: dict[str, Any]) -> Outcome:
    """Return the outcome of what happened to a layout."""
    commands = said["commands"]
    if said["found"] is not None:
        state, why = judge(said["found"], right)
        if state == TRUE:
            state = (TRUE, TRUE_NEXT, TRUE_LATER, TRUE_LATER)[len(commands) - 1]
        return Outcome(state, why, commands)
    why = " ".join(said["heard"].split())
    spoken = said["heard"].replace(Path(right["file"]).stem, "")
    if right["right"] == "refused" and mentions(spoken, right["must_mention"]):
        return Outcome(RIGHTLY, why, commands)
    return Outcome(STEP_WORKS if said["worked"] else REFUSED, why, commands)


def layouts(
    only: list[str] | None = None, kept: Path | None = None, anew: bool = True
) -> dict[str, tuple[str, Outcome]]:
    """Try every layout; returns words and outcome by name.

    Args:
        only: names to try, instead of all.
        kept: JSON of what happened; entries in it are judged again, not tried again.
        anew: try what is not in `kept`; else it counts as not tried yet.
    """
    known = json.loads((HERE / "layouts" / "layouts.json").read_text())
    chosen = {name: right for name, right in known.items() if only is None or name in only}
    before = json.loads(kept.read_text()) if kept and kept.exists() else {}
    for name, right in chosen.items():
        if not anew or name in before:
            continue
        before[name] = try_layout(right)
        report(name, settle(before[name], right))
        if kept:
            kept.write_text(json.dumps(before, indent=1))
    return {
        name: (right["like"], settle(before[name], right) if name in before else Outcome(UNTRIED))
        for name, right in chosen.items()
    }


# -- live modules ----------------------------------------------------------------------


def try_module(name: str) -> Outcome:
    """Give a live module to `isoprobe.analyze`, then run the line that a refusal names."""
    import isoprobe
    from tests.gallery import own
    from tests.gallery.modules import MODULES

    entry = MODULES[name]
    made = entry.make()
    training = made.module.training
    made.module.eval()
    right = own.answers(made.reading, pairs=8)
    made.module.train(training)
    right["relative_tolerance"] = {"kl": entry.tolerance, "distortion": 0.02, "beta": 0.25}
    right["relative_tolerance"]["distortion"] = max(0.02, entry.tolerance)
    right["dimensions"] = made.rows[0].numel()
    names = {"model": made.module, "x": made.rows, "isoprobe": isoprobe}
    call = f"isoprobe.analyze(model, x, metric={entry.metric!r})"
    try:
        result = eval(call, dict(names))
        commands = [call]
    except Exception as error:  # whatever a newcomer would meet
        heard = f"{type(error).__name__}: {error}"
        reason = entry.refused or entry.or_refused
        if reason and isinstance(error, isoprobe.IsoprobeError) and mentions(heard, reason):
            return Outcome(RIGHTLY, heard, [call])
        result, commands = _pasted(heard, names, call, entry.metric)
        if result is None:
            return Outcome(REFUSED, " ".join(heard.split()), commands)
    with result:
        state, why = judge(_of_result(result), right)
    if entry.refused:
        return Outcome(WRONG, why or "a result, where none can be right", commands)
    if state == TRUE and len(commands) > 1:
        state = TRUE_NEXT
    return Outcome(state, why, commands)


def _pasted(heard: str, names: dict[str, Any], call: str, metric: str) -> tuple[Any, list[str]]:
    """Run the lines of Python that a message holds; returns the result, if one came of it."""
    indented = [line for line in heard.splitlines() if line.startswith("    ")]
    lines = textwrap.dedent("\n".join(indented))
    found = re.findall(r"isoprobe\.(?:analyze|wrap)\(.*?\)(?=[\s;,.'`]|$)", heard)
    for code in [lines, *found]:
        if not code:
            continue
        space = dict(names)
        try:
            if code is lines:
                exec(code, space)
                result = space.get("result")
                model = space.get("vae", space["model"])
            else:
                result = eval(code, space)
                model = result
            if result is None or not hasattr(result, "attrs"):
                import isoprobe

                result = isoprobe.analyze(model, names["x"], metric=metric)
        except Exception:  # the paste does not work, which is what is asked here
            continue
        return result, [call, code]
    return None, [call]


def _of_result(result: Any) -> dict[str, Any]:
    import numpy as np

    rows = {name: np.asarray(column.values) for name, column in result.columns().items()}
    return {
        "latents": int(rows["mean"].shape[1]),
        "kl": float(rows["kl"].mean()),
        "distortion": float(rows["distortion"].mean()),
        "metric": result.attrs["metric"],
        "beta": result.attrs.get("beta"),
    }


def modules(
    only: list[str] | None = None, kept: Path | None = None, anew: bool = True
) -> dict[str, tuple[str, Outcome]]:
    """Try every module; arguments and result are those of `layouts`."""
    from tests.gallery.modules import MODULES

    before = json.loads(kept.read_text()) if kept and kept.exists() else {}
    done = {}
    for name, entry in MODULES.items():
        if only is not None and name not in only:
            continue
        key = f"module {name}"
        if key in before:
            outcome = Outcome(**before[key])
        elif anew:
            outcome = try_module(name)
            report(name, outcome)
            before[key] = asdict(outcome)
            if kept:
                kept.write_text(json.dumps(before, indent=1))
        else:
            outcome = Outcome(UNTRIED)
        done[name] = (entry.words, outcome)
    return done


# -- the table -------------------------------------------------------------------------


def report(name: str, outcome: Outcome) -> None:
    """Print one line about one entry."""
    print(f"{name:32}{outcome.state:28}{outcome.why[:150]}", flush=True)


def counts(outcomes: list[Outcome]) -> str:
    """Return how many entries came to each state, as a sentence."""
    total = [(state, sum(o.state == state for o in outcomes)) for state in STATES]
    return ", ".join(f"{number} {state}" for state, number in total if number)


def section(title: str, column: str, tried: dict[str, tuple[str, Outcome]], old: str) -> str:
    """Return a table of entries, the new column to the right of those of earlier runs."""
    before = rows_of(old, title)
    heads = before.get("entry", ["what it is"])
    lines = [f"## {title}", "", f"{column}: {counts([o for _, o in tried.values()])}.", ""]
    earlier = re.search(rf"## {re.escape(title)}\n\n((?:[^\n|]+\n)+)", old)
    if earlier:
        lines[2:2] = [line for line in earlier[1].splitlines() if not line.startswith(column)]
    heads = [head for head in heads if head != column]
    lines += [_row(["entry", *heads, column]), _row(["---"] * (len(heads) + 2))]
    for name, (words, outcome) in tried.items():
        kept = dict(zip(before.get("entry", []), before.get(name, []), strict=False))
        cells = [name, words, *(kept.get(head, "") for head in heads[1:]), _told(outcome)]
        lines.append(_row(cells))
    return "\n".join(lines)


def _told(outcome: Outcome) -> str:
    why = outcome.why.replace("|", "/")
    why = why if len(why) <= 110 else why[:107] + "..."
    return f"{outcome.state}: {why}" if why else outcome.state


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    """Return the cells of the table below a heading, by the first cell of each row."""
    parts = text.split(f"## {title}\n")
    if len(parts) < 2:
        return {}
    lines = [line for line in parts[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in cells if not row[0].startswith("---")}


HEAD = """# The first try

Strangers' files and live modules, tried as a newcomer tries them: `isoprobe analyze FILE --data D`
(and the one command that its message names, where it names one), or one line of Python. The files
and their right answers were made by people who had not read the code that reads them; the answers
come from each network's own code. `python -m tests.gallery.first_try` writes this page anew, one
column a run.

- **true**: latents, KL, distortion and beta are the right ones; **one command more** where the
  message named it; **several commands** where it took more than one.
- **true, in another metric**: the reading is right, the metric is not the one it was trained with.
- **refused, with the reason**: it must be refused, and the message says why.
- **refused, next step works**: no result, but a command that the message names runs.
- **WRONG**: a result that is not the right one.
"""


def write(
    column: str,
    tried_layouts: dict[str, tuple[str, Outcome]],
    tried_modules: dict[str, tuple[str, Outcome]],
    path: Path = TABLE,
) -> None:
    """Write the page, keeping the columns of earlier runs."""
    old = path.read_text() if path.exists() else ""
    parts = [
        HEAD,
        section("Layouts", column, tried_layouts, old),
        "",
        section("Live modules", column, tried_modules, old),
    ]
    path.write_text("\n".join(parts) + "\n")


def main() -> None:
    """Try the gallery and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", help="names of entries; writes nothing")
    parser.add_argument("--column", help="heading of this run's column")
    parser.add_argument("--keep", type=Path, help="JSON of what happened, to judge it again")
    parser.add_argument("--judge", action="store_true", help="judge what is kept; try nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    how = options.only, options.keep, not options.judge
    tried = layouts(*how), modules(*how)
    if not options.only:
        today = datetime.date.today().isoformat()
        kind = "try" if TABLE.exists() else "first try"
        write(options.column or f"{kind} of {today}", *tried)
    for outcomes in tried:
        print(counts([outcome for _, outcome in outcomes.values()]))


if __name__ == "__main__":
    main()
