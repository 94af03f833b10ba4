"""Scores as a folder of Parquet parts: the rows of one file, whole or not there, for any engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import isoprobe
from isoprobe.cli import main
from isoprobe.registry.lookup import installed
from isoprobe.run.scoring import Scores
from isoprobe_plugins.data.lines import Lines
from tests.kills import model_and_data


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, a reference, and a table of rows with names."""
    model_and_data(tmp_path)
    data = str(tmp_path / "rows.npy")
    isoprobe.analyze(
        tmp_path / "m.safetensors", data, analyses=["anomaly"], out=tmp_path / "r.h5"
    ).close()
    rows = pandas.DataFrame(np.random.default_rng(1).random((900, 12)))
    rows.columns = [f"x{k}" for k in range(12)]
    rows["name"] = [f"row {k}" for k in range(900)]
    (tmp_path / "rows").mkdir()
    rows[:400].to_parquet(tmp_path / "rows" / "0.parquet", index=False)
    rows[400:].to_parquet(tmp_path / "rows" / "1.parquet", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(*more: str) -> int:
    given = ("score", "m.safetensors", "--data", "rows:id=name", "--reference", "r.h5")
    return main([*given, "--batch-size", "150", "--fdr", "0.5", "--threads", "1", *more])


def test_parts_hold_the_rows_of_one_file(folder: Path) -> None:
    assert score("--out", "s.parquet") == 0
    assert score("--out", "scores/") == 0
    names = [p.name for p in sorted((folder / "scores").iterdir())]
    assert names == [f"part-{k:06}.parquet" for k in range(6)]
    one = pq.read_table(folder / "s.parquet").to_pandas()
    found = pyarrow.dataset.dataset(folder / "scores").to_table().to_pandas()
    assert set(found) == set(one)
    pandas.testing.assert_frame_equal(found[one.columns], one, check_exact=True)
    told = pq.read_schema(folder / "scores" / names[3]).metadata[b"isoprobe"]
    assert json.loads(told)["samples"] == 900
    assert not (folder / "scores.partial").exists()
    again = installed().data("scores:columns=score,p_value;id=name")  # we read what we write
    assert np.array_equal(again.read(np.arange(900))[:, 0], one["score"])
    again.close()


def test_a_stopped_folder_is_gone_on_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, seen = Scores.columns, 0

    def stopping(self: Scores, *given: object) -> object:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise KeyboardInterrupt
        return whole(self, *given)

    assert score("--out", "whole/") == 0
    monkeypatch.setattr(Scores, "columns", stopping)
    assert score("--out", "scores/") == 130
    assert not (folder / "scores").exists()
    (folder / "scores.partial" / "parts").mkdir(exist_ok=True)
    (folder / "scores.partial" / "parts" / "part-000000.parquet").write_text("half a part")
    assert score("--out", "scores/", "--resume") == 0
    assert seen == 4 + 3
    for part in (folder / "whole").iterdir():
        assert (folder / "scores" / part.name).read_bytes() == part.read_bytes()


def test_a_folder_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scores").mkdir()
    (folder / "scores" / "mine.txt").write_text("mine")
    for more in ((), ("--overwrite",), ("--resume",)):
        assert score("--out", "scores/", *more) == 1
        assert "exists already; remove it" in capsys.readouterr().err
    assert (folder / "scores" / "mine.txt").read_text() == "mine"
    assert score("--out", "maps/", "--map") == 1
    assert "--map needs a file that holds arrays" in capsys.readouterr().err


def test_a_packed_table_is_not_read_from_its_start_for_each_shard(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows for the shards and columns for the table: two readings, however many the shards are."""
    rows = pyarrow.dataset.dataset(folder / "rows").to_table().to_pandas()
    rows.to_csv(folder / "rows.csv.gz", index=False)
    go_to, back = Lines._go_to, [0]

    def counted(self: Lines, number: int) -> None:
        back[0] += number < self._position
        go_to(self, number)

    monkeypatch.setattr(Lines, "_go_to", counted)
    given = ("score", "m.safetensors", "--data", "rows.csv.gz:id=name", "--reference", "r.h5")
    times = {}
    for size in (50, 300):
        back[0] = 0
        out = ("--out", f"{size}.h5", "--batch-size", str(size), "--threads", "1")
        assert main([*given, *out]) == 0
        times[size] = back[0]
    assert times[50] == times[300] > 0
