"""A shard is whole, damaged or not there; a working folder loses nothing and mixes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isoprobe.contracts import Variable
from isoprobe.errors import DataError, PluginError, ResultError
from isoprobe.results.shard import Shard, ShardWriter
from isoprobe.results.working import Working

MEAN = np.arange(30.0).reshape(10, 3) / 7
STATE = {"overview/count": np.array(10), "a/b": np.eye(3), "names": np.array(["a", "ß"])}


def column(values, *dims):
    return Variable(("sample", *dims), np.asarray(values), "a column", "nat", "Eq. 3")


def shard(path: Path, first: int = 100, record=None, state=STATE, **columns) -> Path:
    """Ten samples in batches of four."""
    with ShardWriter(path, range(first, first + 10), 3) as writer:
        for start in (0, 4, 8):
            rows = slice(start, min(start + 4, 10))
            taken = {
                "mean": column(MEAN[rows], "latent"),
                "flag": column(MEAN[rows, 0] > 1),
                **{name: column(values[rows]) for name, values in columns.items()},
            }
            writer.append(len(MEAN[rows]), taken)
        writer.finish(record or {"identity": {"seed": 0}}, state)
    return path


def test_what_went_in_comes_out(tmp_path):
    with Shard.open(shard(tmp_path / "a.shard")) as read:
        assert (read.rows, read.record) == (range(100, 110), {"identity": {"seed": 0}})
        for start, stop in ((100, 110), (103, 105), (104, 108), (109, 110), (102, 102)):
            rows = slice(start - 100, stop - 100)
            np.testing.assert_array_equal(read.read("mean", start, stop), MEAN[rows])
            flags = read.read("flag", start, stop)
            assert flags.dtype == bool
            np.testing.assert_array_equal(flags, MEAN[rows, 0] > 1)
        assert read.columns["mean"].units == "nat"
        state = read.state()
        assert state.keys() == STATE.keys()
        for name, values in STATE.items():
            np.testing.assert_array_equal(state[name], values)
            assert state[name].flags.writeable
        read.check()


def numbers(path: Path) -> list[object]:
    with Shard.open(path) as read:
        rows = [read.read(name, read.rows.start, read.rows.stop) for name in read.columns]
        return [read.rows, read.record, rows, read.state()]


def test_every_flipped_byte_is_damage_and_never_a_number(tmp_path):
    path = shard(tmp_path / "a.shard")
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        with pytest.raises(ResultError, match="is damaged|is no shard"):
            numbers(path)
    path.write_bytes(good)
    numbers(path)


def test_every_cut_is_damage(tmp_path):
    path = shard(tmp_path / "a.shard")
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(ResultError, match="is damaged|is no shard"):
            numbers(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(ResultError, match="is damaged"):
        numbers(path)


def test_a_shard_that_was_not_finished_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "a.shard", range(4), 3) as writer:
        writer.append(4, {"mean": column(MEAN[:4], "latent")})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"mean": column(MEAN[4:8].astype("f4"), "latent")}, "'mean' changed from <f8"),
        ({"mean": column(MEAN[4:8, :2], "latent")}, "2 along 'latent' where 3"),
        ({"mean": column(MEAN[4:7], "latent")}, "3 along 'sample' where 4"),
        ({}, "'mean' lacks rows"),
        ({"more": column(MEAN[4:8, 0]), "mean": column(MEAN[4:8], "latent")}, "'more' lacks rows"),
        ({"mean": column(np.array(list("abcd")))}, "needs numbers"),
    ],
)
def test_a_wrong_column_is_named(tmp_path, second, message):
    with (
        pytest.raises(PluginError, match=message),
        ShardWriter(tmp_path / "a.shard", range(8), 3) as writer,
    ):
        writer.append(4, {"mean": column(MEAN[:4], "latent")})
        writer.append(4, second)


def test_a_state_that_would_be_pickled_is_refused(tmp_path):
    with pytest.raises(PluginError, match="Python objects"):
        shard(tmp_path / "a.shard", state={"x": np.array([{}])})
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ the working folder


def unfinished(path: Path, **identity) -> None:
    with pytest.raises(KeyboardInterrupt), Working.open(path, identity) as working:
        shard(working.folder / "rows-0-10.shard", 0, {"identity": identity})
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        ({"seed": 0}, {"seed": 1}, "seed was 0, now 1"),
        ({"metric": "sse"}, {}, "metric was 'sse', now None"),
        ({"options": {"a": [1]}}, {"options": {"a": [2]}}, "options was"),
    ],
)
def test_resuming_with_other_options_names_the_difference(tmp_path, before, now, named):
    unfinished(tmp_path / "r.h5", **before)
    with pytest.raises(ResultError, match="cannot resume") as caught:
        Working.open(tmp_path / "r.h5", now, resume=True)
    assert named in str(caught.value)
    # and nothing is lost by the attempt
    with Working.open(tmp_path / "r.h5", before, resume=True) as working:
        assert working.begun


def test_an_unfinished_run_is_not_thrown_away_silently(tmp_path):
    unfinished(tmp_path / "r.h5", seed=0)
    with pytest.raises(ResultError, match="resume=True"):
        Working.open(tmp_path / "r.h5", {"seed": 0})
    with Working.open(tmp_path / "r.h5", {"seed": 0}, overwrite=True) as working:
        assert not working.begun


def test_a_mistake_leaves_nothing_and_an_accident_leaves_the_shards(tmp_path):
    for error, left in (
        (DataError("NaN in row 4"), []),
        (ResultError("disk full"), ["r.h5.partial"]),
    ):
        with pytest.raises(type(error)), Working.open(tmp_path / "r.h5", {}) as working:
            shard(working.folder / "rows-0-10.shard", 0)
            raise error
        assert [p.name for p in tmp_path.iterdir()] == left


def test_a_run_without_a_shard_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), Working.open(tmp_path / "r.h5", {}):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


HOLD = (
    "import sys; from pathlib import Path; from isoprobe.results.working import Working;"
    "w = Working.open(Path(sys.argv[1]), {}, together=sys.argv[2] == 'together');"
    "print('open', flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize("held", ["alone", "together"])
def test_two_runs_on_one_target_are_refused(tmp_path, held):
    target = tmp_path / "r.h5"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target), held],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        with pytest.raises(ResultError, match="another process"):
            Working.open(target, {}, overwrite=True)
        assert (tmp_path / "r.h5.partial").exists()  # the other one goes on undisturbed
        if held == "together":
            with Working.open(target, {}, together=True):
                pass
        other.kill()
    with Working.open(target, {}):  # a dead one does not stand in the way
        pass


def test_what_is_settled_first_holds(tmp_path):
    with (
        Working.open(tmp_path / "r.h5", {}, together=True) as one,
        Working.open(tmp_path / "r.h5", {}, together=True) as two,
    ):
        assert one.settled() is None
        assert one.settle({"threads": 1}) == {"threads": 1}
        assert two.settle({"threads": 2}) == two.settled() == {"threads": 1}


def test_processes_together_keep_each_others_shards_and_no_others(tmp_path):
    target, mine, others = tmp_path / "r.h5", {"seed": 0}, {"seed": 1}
    with Working.open(target, mine, together=True) as one:
        shard(one.folder / "rows-0-10.shard", 0, {"identity": mine})
    with pytest.raises(ResultError, match="seed was 0, now 1"):
        Working.open(target, others, together=True, resume=True)
    with Working.open(target, mine, together=True) as two:
        assert two.begun
        shard(two.folder / "rows-10-20.shard", 10, {"identity": others})
    with Working.open(target, others, together=True, overwrite=True) as three:
        assert [p.name for p in three.folder.glob("*.shard")] == ["rows-10-20.shard"]


def test_only_a_result_of_its_own_is_replaced_on_resume(tmp_path):
    target = tmp_path / "r.h5"
    unfinished(target, seed=0)
    target.write_bytes(b"somebody put this here meanwhile")
    with pytest.raises(ResultError, match="exists already"):
        Working.open(target, {"seed": 0}, resume=True)
    # killed between the renaming and the removal of the folder
    record = target.with_name("r.h5.partial") / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "replace": True}))
    with Working.open(target, {"seed": 0}, resume=True) as working:
        assert working.begun


def test_a_folder_made_by_an_older_version_starts_over(tmp_path):
    """Its journal has no shards, so there is nothing to go on with."""
    folder = tmp_path / "r.h5.partial"
    folder.mkdir()
    (folder / "lock").touch()  # every version of ours has laid one
    (folder / "run.json").write_text(json.dumps({"identity": {"seed": 9}, "replace": False}))
    (folder / "column-0.bin").write_bytes(b"\0" * 80)
    with Working.open(tmp_path / "r.h5", {"seed": 0}, resume=True) as working:
        assert sorted(p.name for p in working.folder.iterdir()) == ["lock", "run.json"]
