"""Train every layout for seconds, write its file, and write what is right about it.

    python -m tests.gallery.layouts.make_layouts            all of them
    python -m tests.gallery.layouts.make_layouts NAME ...   these

Answers come from each network's own code (`own.py`), never from isoprobe.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.gallery import own
from tests.gallery.layouts.shelf import LAYOUTS, Layout

os.environ.setdefault("KERAS_BACKEND", "torch")
HERE = Path(__file__).parent
FILES = HERE / "files"
ANSWERS = HERE / "layouts.json"
MODULES = ("mlps", "wrapped", "heads", "images", "conditions")
MODULES += ("sequences", "likelihoods", "priors", "others", "formats")


def shelf() -> dict[str, Layout]:
    """Return every layout by name, in the order in which they are written."""
    rooms = [importlib.import_module(f"tests.gallery.layouts.{n}").__name__ for n in MODULES]
    return dict(sorted(LAYOUTS.items(), key=lambda item: rooms.index(item[1].make.__module__)))


def write_data(folder: Path) -> None:
    """Write the data files that the commands name."""
    x, y = own.digits()
    counts, batch = own.counts()
    np.save(folder / "digit_levels.npy", (x * 3.99).floor().numpy().astype("uint8"))
    np.save(folder / "digits.npy", x.numpy())
    np.save(folder / "digit_images.npy", own.digit_images().numpy())
    np.savez_compressed(folder / "digits_labels.npz", x=x.numpy(), y=y.numpy())
    np.savez_compressed(folder / "spots16.npz", x=own.blobs(16, 1).numpy())
    np.savez_compressed(folder / "spots32.npz", x=own.blobs(32, 3).numpy())
    np.savetxt(
        folder / "table.csv", own.table().numpy(), "%.3f", ",",
        header=",".join(f"column{i}" for i in range(12)), comments="",
    )  # fmt: skip
    np.save(folder / "series.npy", own.series().numpy())
    np.savez_compressed(folder / "counts.npz", x=counts.numpy(), batch=batch.numpy())


def right(entry: Layout, reading: own.Own) -> dict[str, Any]:
    """Return what `layouts.json` says of one layout."""
    found = own.answers(reading)
    if reading.beta == 0:  # no posterior was trained, so there is no rate
        found.update(dict.fromkeys(("kl", "kl_with_discrete", "beta", "beta_by_gradients")))
    tolerances = {"kl": entry.kl_tolerance, "distortion": 0.02, "beta": 0.25}
    return {
        "file": entry.file,
        "data": entry.data,
        "like": entry.like,
        "command": entry.command,
        "right": "refused" if entry.refused else "read",
        "must_mention": [list(group) for group in entry.refused],
        "next_step": entry.next_step,
        "reading": entry.reading,
        **found,
        "relative_tolerance": tolerances,
        "wrong_would_be": entry.wrong,
    }


def main(names: list[str]) -> None:
    """Make the layouts named, or all, and keep the answers of the others."""
    torch.set_num_threads(1)
    FILES.mkdir(exist_ok=True)
    write_data(FILES)
    entries = shelf()
    for name in names or list(entries):
        start = time.perf_counter()
        entry = entries[name]
        said = right(entry, entry.make(FILES))
        seconds = time.perf_counter() - start
        note = f"kl {said['kl']} beta {said['beta']} / {said['beta_by_gradients']}"
        print(f"{name:32}{seconds:6.1f} s  {note}", flush=True)
        known = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
        known[name] = said
        ordered = {key: known[key] for key in entries if key in known}
        ANSWERS.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
