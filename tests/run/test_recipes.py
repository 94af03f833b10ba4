"""The recipes for engines that the page shows are run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import dask
import numpy as np
import pandas
import pytest

import isoprobe
from tests.kills import model_and_data

PAGE = Path(__file__).resolve().parents[2] / "docs" / "past-one-machine.md"


def recipe(engine: str) -> str:
    """The code block behind the mark of an engine."""
    marked = rf"<!-- (?:run|by hand): {engine} -->\n```python\n(.*?)```"
    (found,) = re.findall(marked, PAGE.read_text("utf-8"), flags=re.DOTALL)
    return found


def prepare(folder: Path) -> dict[str, np.ndarray]:
    """Write what recipes read, rows in three parts; return what ``isoprobe score`` gives."""
    model_and_data(folder)
    (folder / "m.safetensors").rename(folder / "model.safetensors")
    model, reference = folder / "model.safetensors", folder / "reference.h5"
    data = str(folder / "rows.npy")
    isoprobe.analyze(model, data, analyses=["anomaly"], out=reference).close()
    rows = np.random.default_rng(1).random((1000, 12))
    (folder / "rows").mkdir()
    names = [f"x{k}" for k in range(12)]
    for number, part in enumerate(np.split(rows, [300, 301])):
        frame = pandas.DataFrame(part, columns=names)
        frame.to_parquet(folder / "rows" / f"part.{number}.parquet")
    return isoprobe.score(model, rows, reference)


def require_bytes(scored: pandas.DataFrame, expected: dict[str, np.ndarray]) -> None:
    """Every column of ``isoprobe score`` but the row's number, to the byte."""
    for name in expected.keys() - {"row"}:
        assert scored[name].to_numpy().tobytes() == expected[name].tobytes(), name


# dask writes data frames in a way that this pandas warns of
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_dask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    # clients of other tests, closed late, may have left theirs as the scheduler of this process
    with dask.config.set(scheduler="threads"):
        exec(compile(recipe("dask"), "past-one-machine.md", "exec"), {})
    parts = sorted((tmp_path / "scores").glob("*.parquet"))
    assert len(parts) == 3
    require_bytes(pandas.concat(map(pandas.read_parquet, parts)), expected)
