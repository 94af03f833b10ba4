"""Many checkpoints in one command: a result each, one table, and nothing lost to one that fails."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from isoprobe.api import analyze
from isoprobe.checkpoints.contents import steps_told
from isoprobe.checkpoints.native import Objective, write_checkpoint
from isoprobe.checkpoints.source import Source
from isoprobe.cli.main import main
from isoprobe.contracts import Variable
from isoprobe.data.files import short_names
from isoprobe.errors import OptionError, ResultError
from isoprobe.results.reader import Result
from isoprobe.results.sweep import (
    Outcome,
    axis,
    read_table,
    result_names,
    steps_in_name,
    write_table,
)
from isoprobe.run import sweep as sweeps
from isoprobe.run.measured import Measured
from isoprobe.run.settings import RunSettings
from isoprobe.run.sweep import sweep
from isoprobe.show.report import trend_page
from isoprobe.show.trend import Point, Trend, point, trend_of
from isoprobe_plugins.architectures.linear import linear_networks

EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.02]).double()
#: KL weight of the optimum that each checkpoint is, by step: a training that is annealed slowly
BETAS = {100: 0.4, 200: 0.2, 1000: 0.1}
#: latents 0 and 1 change places in the second checkpoint
SWAPPED = [1, 0, 2]
ASKED = RunSettings(analyses=("isometry", "diagnosis"), batch_size=500, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints whose numbers are known in closed form, one that is none, and data."""
    folder = tmp_path_factory.mktemp("run")
    rows = np.random.default_rng(0).normal(size=(500, 4))
    rows = np.linalg.qr(rows)[0] * math.sqrt(500)  # second moments exactly those of the model
    np.save(folder / "x.npy", rows * EIGENVALUES.sqrt().numpy())
    for place, (step, beta) in enumerate(BETAS.items()):
        networks, manifest = linear_networks(torch.diag(EIGENVALUES), beta, 3)
        if place == 1:
            exchange(networks.encoder, networks.decoder)
        objective = Objective("sse", 0.1)
        told = msgspec.structs.replace(manifest, objective=objective, training={"steps": step})
        path = folder / f"model_{9 - place}.safetensors"
        write_checkpoint(path, networks.encoder, networks.decoder, told)
    (folder / "model_0.safetensors").write_bytes(b"nothing that can be read")
    return folder


def exchange(encoder: Any, decoder: Any) -> None:
    with torch.no_grad():
        for tensor in (encoder.weight, encoder.bias, encoder.log_std):
            tensor.copy_(tensor[SWAPPED].clone())
        weight = decoder.get_parameter("out.weight")
        weight.copy_(weight[:, SWAPPED].clone())


@pytest.fixture(scope="module")
def done(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Outcome], Path]:
    folder = tmp_path_factory.mktemp("sweep") / "made" / "anew"
    models = sorted(run.glob("*.safetensors"))
    return sweep(models, str(run / "x.npy"), ASKED, folder), folder


def test_one_that_fails_takes_nothing_from_the_others(done: tuple[list[Outcome], Path]) -> None:
    outcomes, folder = done
    errors = {Path(outcome.model).name: outcome.error for outcome in outcomes}
    assert errors.pop("model_0.safetensors") is not None
    assert set(errors.values()) == {None}
    assert read_table(folder) == outcomes
    assert sorted(p.name for p in folder.iterdir()) == [
        "model_7.h5", "model_8.h5", "model_9.h5", "sweep.json"
    ]  # fmt: skip


def test_each_result_is_that_of_a_run_alone(done: tuple[list[Outcome], Path], run: Path) -> None:
    _, folder = done
    with Result.open(folder / "model_7.h5") as one, analyze(
        run / "model_7.safetensors", str(run / "x.npy"), **vars(ASKED)
    ) as other:  # fmt: skip
        for group in ("overview", "isometry", "conditions"):
            for name in one[group]:
                np.testing.assert_array_equal(one[group][name].values, other[group][name].values)


def test_curves_are_those_of_the_closed_form(done: tuple[list[Outcome], Path]) -> None:
    trend = trend_of(done[1])
    assert trend.axis == "steps"  # contents know better than names, which run backwards
    assert [found.step for found in trend.points] == [*BETAS]
    for found, beta in zip(trend.points, BETAS.values(), strict=True):
        rate = 0.5 * (2 * EIGENVALUES[:3] / beta).log().sum()
        assert found.used == 3
        assert found.rate == pytest.approx(float(rate), rel=1e-9)
        assert found.beta == 0.1
        assert found.beta_low < beta < found.beta_high
        assert found.beta_recovered == pytest.approx(beta, rel=0.1)
        largest = 1 - 0.5 * beta / EIGENVALUES[0]  # at the true beta
        at_recovered = float(largest) * beta / found.beta_recovered
        assert found.eigenvalue == pytest.approx(at_recovered, rel=1e-9)


def test_latents_are_followed_through_a_change_of_places(done: tuple[list[Outcome], Path]) -> None:
    trend = trend_of(done[1])
    assert {track.latents for track in trend.tracks} == {(0, 1, 0), (1, 0, 1), (2, 2, 2)}
    for track in trend.tracks:
        variance = EIGENVALUES[track.name]
        known = [0.5 * math.log(2 * variance / beta) for beta in BETAS.values()]
        np.testing.assert_allclose(track.kl, known, rtol=1e-9)


def test_latents_are_followed_where_one_checkpoint_took_more_samples(
    run: Path, tmp_path: Path
) -> None:
    """As many as are enough for each: the first samples are those of the shorter run."""
    np.save(tmp_path / "x.npy", np.tile(np.load(run / "x.npy"), (20, 1)))
    models = sorted(run.glob("*[789].safetensors"), reverse=True)  # 100, 200 and 1000 steps
    for model, samples in zip(models, (1500, 1000, 1500), strict=True):
        asked = replace(ASKED, samples=samples)
        sweep([model], str(tmp_path / "x.npy"), asked, tmp_path / "sweep")
    trend = trend_of(tmp_path / "sweep")
    assert trend.notes == ()
    assert {track.latents for track in trend.tracks} == {(0, 1, 0), (1, 0, 1), (2, 2, 2)}
    whole = replace(ASKED, samples=None)  # as they lie, and no longer spread over the data
    sweep([models[1]], str(tmp_path / "x.npy"), whole, tmp_path / "sweep", overwrite=True)
    (note, _) = trend_of(tmp_path / "sweep").notes
    assert "differ in samples" in note


def test_a_latent_that_comes_back_is_the_same(run: Path, tmp_path: Path) -> None:
    """At beta 2.5 the third eigenvalue is under water; before and after it is not."""
    for step, beta in enumerate((0.1, 2.5, 0.1), start=1):
        networks, manifest = linear_networks(torch.diag(EIGENVALUES), beta, 3)
        path = tmp_path / f"step_{step}.safetensors"
        write_checkpoint(path, networks.encoder, networks.decoder, manifest)
    models = sorted(tmp_path.glob("*.safetensors"))
    sweep(models, str(run / "x.npy"), ASKED, tmp_path / "sweep")
    trend = trend_of(tmp_path / "sweep")
    assert [found.used for found in trend.points] == [3, 2, 3]
    places = {track.name: track.places for track in trend.tracks}
    assert places == {0: (0, 1, 2), 1: (0, 1, 2), 2: (0, 2)}


def test_the_worst_latent_is_the_one_beyond_its_noise() -> None:
    def column(*values: float) -> Variable:
        return Variable(("latent",), np.array(values), "made up")

    overview = {"active": column(1, 1, 1, 0), "kl_mean": column(1, 1, 1, 0)}
    conditions = {
        "gain": column(2.0, -0.3, 0.1, 9.0),
        "gain_se": column(1.5, 0.05, 0.01, 0.01),
        "residual": column(0.02, -0.03, 0.01, 9.0),
        "residual_se": column(0.1, 0.1, 0.1, 0.01),
    }
    found = point(Measured({}, {"overview": overview, "conditions": conditions}, {}), 0)
    assert (found.gain, found.gain_se) == (-0.3, 0.05)
    assert (found.residual, found.active) == (-0.03, (0, 1, 2))


def test_the_table_and_the_page_name_what_failed(
    done: tuple[list[Outcome], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert main(["compare", str(done[1]), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    heading, *lines = printed.splitlines()
    assert heading.split()[:2] == ["steps", "used"]
    assert [line.split()[0] for line in lines[:3]] == ["100", "200", "1000"]
    assert "1 failed" in printed and "model_0.safetensors" in printed
    html = page.read_text("utf-8")
    for part in ("figure-beta", "figure-latents", "model_0.safetensors", "<td>model_7</td>"):
        assert part in html
    assert main(["compare", str(done[1]), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["points"]) == 3


def test_what_is_done_is_not_done_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed between a result and its line in the table."""
    models, data = sorted(run.glob("*[789].safetensors")), str(run / "x.npy")
    whole = sweep(models, data, ASKED, tmp_path)
    table = read_table(tmp_path)
    table[-1] = msgspec.structs.replace(table[-1], result=None, error=sweeps.UNDONE)
    write_table(tmp_path, table)
    (tmp_path / str(whole[0].result)).unlink()
    begun = []
    genuine = sweeps.run_shards

    def counted(model: Any, *arguments: Any, **options: Any) -> Any:
        begun.append(model)
        return genuine(model, *arguments, **options)

    monkeypatch.setattr(sweeps, "run_shards", counted)
    again = sweep(models, data, ASKED, tmp_path, resume=True)
    assert begun == [str(models[0])]
    assert [outcome.result for outcome in again] == [outcome.result for outcome in whole]
    assert read_table(tmp_path) == again


def test_a_result_of_something_else_is_never_lost(run: Path, tmp_path: Path) -> None:
    models, data = sorted(run.glob("*[78].safetensors")), str(run / "x.npy")
    sweep(models[:1], data, ASKED, tmp_path)
    before = (tmp_path / "model_7.h5").read_bytes()
    with pytest.raises(ResultError, match="exists already; keep it with resume=True"):
        sweep(models, data, ASKED, tmp_path)
    with pytest.raises(ResultError, match="other settings"):
        sweep(models, data, replace(ASKED, seed=3), tmp_path, resume=True)
    assert (tmp_path / "model_7.h5").read_bytes() == before
    assert [outcome.model for outcome in read_table(tmp_path)] == [str(models[0])]


def test_one_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(path) for path in sorted(run.glob("*[078].safetensors"))]
    asked = ["--data", f"{run}/x.npy", "--samples", "200", "--device", "cpu"]
    code = main(["analyze", *given, *asked, "--out", "sweep/", "--report", "sweep.html"])
    assert code == 1  # one of them could not be analysed, which a script should notice
    out, err = capsys.readouterr()
    assert "2 of 3" not in err and "1 of 3 checkpoints failed" in err
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["steps", "200", "1000"]
    assert "figure-latents" in Path("sweep.html").read_text("utf-8")


# ------------------------------------------------------------------ many data sets


@pytest.fixture(scope="module")
def sets(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two data sets that fit, both called x, and one that does not."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "half").mkdir()
    rows = np.load(run / "x.npy")
    np.save(folder / "half" / "x.npy", rows / 2)
    np.save(folder / "wide.npy", np.ones((500, 7)))
    return [str(run / "x.npy"), str(folder / "half" / "x.npy"), str(folder / "wide.npy")]


@pytest.fixture(scope="module")
def both(
    run: Path, sets: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Outcome], Path]:
    folder = tmp_path_factory.mktemp("both")
    return sweep(sorted(run.glob("*[789].safetensors")), sets, ASKED, folder), folder


def test_each_checkpoint_meets_each_data_set(
    both: tuple[list[Outcome], Path], run: Path, sets: list[str]
) -> None:
    outcomes, folder = both
    models = sorted(map(str, run.glob("*[789].safetensors")))
    assert [outcome.pair for outcome in outcomes] == [(m, s) for m in models for s in sets]
    assert read_table(folder) == outcomes
    failed = [outcome.data for outcome in outcomes if outcome.error is not None]
    assert failed == [sets[2]] * 3
    for outcome in outcomes:
        if outcome.result is None:
            continue
        alone = analyze(outcome.model, outcome.data, **vars(ASKED))
        with Result.open(folder / outcome.result) as one, alone as other:
            for group in ("overview", "isometry", "conditions"):
                for name in one[group]:
                    found, known = one[group][name].values, other[group][name].values
                    np.testing.assert_array_equal(found, known)


def test_curves_are_those_of_each_data_set(
    both: tuple[list[Outcome], Path], done: tuple[list[Outcome], Path]
) -> None:
    trend = trend_of(both[1])
    first, second = trend.on_each()
    alone = trend_of(done[1])
    assert {found.data for found in first.points} == {f"{run_name(both)}-x"}
    assert [replace(found, data="") for found in first.points] == list(alone.points)
    assert first.tracks == alone.tracks
    assert {found.data for found in second.points} == {"half-x"}
    assert [found.step for found in second.points] == [*BETAS]
    for here, there in zip(first.points, second.points, strict=True):
        assert there.rate < here.rate
    assert [failure.data for failure in trend.failures] == ["wide"] * 3


def run_name(both: tuple[list[Outcome], Path]) -> str:
    return Path(both[0][0].data).parent.name


def test_one_table_and_one_page_show_all_of_them(
    both: tuple[list[Outcome], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert main(["compare", str(both[1]), "--html", str(page)]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["data", "steps", "used"]
    assert [line.split()[:2] for line in lines[3:6]] == [["half-x", str(k)] for k in BETAS]
    again = lines.index("", 3) + 1  # what did not fit beside it: rows are told apart there too
    assert lines[again].split()[:2] == ["data", "steps"]
    assert lines[again + 4].split()[:2] == ["half-x", "100"]
    assert "model_7.safetensors on wide: " in " ".join(" ".join(lines).split())
    html = page.read_text("utf-8")
    for part in ("figure-residual", "figure-latents-2", "on half-x", "<td>half-x</td>"):
        assert part in html
    assert "figure-latents-3" not in html
    assert main(["compare", str(both[1]), "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [found["data"] for found in points[3:]] == ["half-x"] * 3


def test_data_sets_and_checkpoints_may_join_later(
    run: Path, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = sorted(run.glob("*[789].safetensors"))
    first = sweep(models[:1], sets[0], ASKED, tmp_path)
    begun = []
    genuine = sweeps.run_shards

    def counted(model: Any, data: Any, *arguments: Any, **options: Any) -> Any:
        begun.append((model, data))
        return genuine(model, data, *arguments, **options)

    monkeypatch.setattr(sweeps, "run_shards", counted)
    again = sweep(models[:2], sets[:2], ASKED, tmp_path, resume=True)
    assert begun == [outcome.pair for outcome in again[1:]]
    assert again[0] == first[0]
    assert len({outcome.result for outcome in again}) == 4
    assert len(list(tmp_path.glob("*.h5"))) == 4
    assert read_table(tmp_path) == again


@pytest.fixture(scope="module")
def alike(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints of equal file names in folders of equal names."""
    folder = tmp_path_factory.mktemp("alike")
    made = [folder / name / "ckpt" / "m.safetensors" for name in "abc"]
    for path, source in zip(made, sorted(run.glob("*[789].safetensors")), strict=True):
        path.parent.mkdir(parents=True)
        path.write_bytes(source.read_bytes())
    return made


def assert_each_is_its_own(outcomes: list[Outcome], folder: Path) -> None:
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    for outcome in outcomes:
        with Result.open(folder / str(outcome.result)) as result:
            assert result.attrs["model_sha256"] == outcome.sha256
            assert result.attrs["data"] == Path(outcome.data).name
    assert len({str(outcome.result).casefold() for outcome in outcomes}) == len(outcomes)


@pytest.mark.parametrize(
    ("first", "then"),
    [("abc", "bc"), ("abc", "cba"), ("ac", "abc"), ("a", "ab"), ("c", "b"), ("b", "abc")],
)
def test_a_result_is_that_of_its_checkpoint_whichever_others_there_are(
    run: Path, alike: list[Path], tmp_path: Path, first: str, then: str
) -> None:
    """Numbers in the names of results depend on the others; the results that are there do not."""
    by = dict(zip("abc", alike, strict=True))
    data = str(run / "x.npy")
    before = {o.pair: o for o in sweep([by[k] for k in first], data, ASKED, tmp_path)}
    after = sweep([by[k] for k in then], data, ASKED, tmp_path, resume=True)
    assert_each_is_its_own(after, tmp_path)
    assert all(before.get(o.pair, o) == o for o in after)
    assert_each_is_its_own(read_table(tmp_path), tmp_path)
    assert {Path(o.model) for o in read_table(tmp_path)} == {by[k] for k in {*first, *then}}


def test_what_is_replaced_is_the_result_of_that_checkpoint(
    run: Path, alike: list[Path], tmp_path: Path
) -> None:
    data = str(run / "x.npy")
    sweep(alike, data, ASKED, tmp_path)
    sweep(alike[1:], data, replace(ASKED, seed=3), tmp_path, overwrite=True)
    assert_each_is_its_own(read_table(tmp_path), tmp_path)
    assert len(read_table(tmp_path)) == 3


def test_data_sets_of_equal_names_may_join_and_leave(run: Path, tmp_path: Path) -> None:
    rows = np.load(run / "x.npy")
    sets = [tmp_path / name / "part" / "x.npy" for name in "abc"]
    for size, path in zip((500, 480, 460), sets, strict=True):
        path.parent.mkdir(parents=True)
        np.save(path, rows[:size])
    model, (a, b, c) = [run / "model_7.safetensors"], map(str, sets)
    folder, sizes = tmp_path / "out", {a: 500, b: 480, c: 460}
    sweep(model, [a, b], ASKED, folder)
    table = read_table(folder)
    (folder / str(table[1].result)).unlink()  # killed before it was there
    table[1] = msgspec.structs.replace(table[1], result=None, error=sweeps.UNDONE)
    write_table(folder, table)
    for given in ([b, c], [c, b, a]):
        for outcome in sweep(model, given, ASKED, folder, resume=True):
            with Result.open(folder / str(outcome.result)) as result:
                assert result.attrs["samples"] == sizes[outcome.data]
    assert len({outcome.result for outcome in read_table(folder)}) == 3


def test_results_that_were_exchanged_are_refused(
    run: Path, alike: list[Path], tmp_path: Path
) -> None:
    outcomes = sweep(alike[:2], str(run / "x.npy"), ASKED, tmp_path)
    one, two = (tmp_path / str(outcome.result) for outcome in outcomes)
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)
    with pytest.raises(ResultError, match="of another checkpoint"):
        sweep(alike[:2], str(run / "x.npy"), ASKED, tmp_path, resume=True)


def test_no_data_set_is_told_in_a_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no data set is named"):
        sweep([run / "model_7.safetensors"], [], ASKED, tmp_path)


def test_a_result_that_is_replaced_is_nobody_elses(
    run: Path, sets: list[str], tmp_path: Path
) -> None:
    models = sorted(run.glob("*7.safetensors"))
    sweep(models, sets[0], ASKED, tmp_path)
    (other,) = sweep(models, sets[1], ASKED, tmp_path, overwrite=True)
    assert read_table(tmp_path) == [other]
    assert other.data == sets[1]


def test_data_in_memory_are_alone(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="specs"):
        sweep([run / "model_7.safetensors"], [np.ones((9, 4)), "x.npy"], ASKED, tmp_path)


def test_several_data_sets_in_one_command(
    run: Path,
    sets: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["--samples", "200", "--device", "cpu"]
    named = [word for spec in sets for word in ("--data", spec)]
    command = ["analyze", str(run / "model_7.safetensors"), *named, *asked]
    assert main(command) == 1
    assert "need --out FOLDER/" in capsys.readouterr().err
    assert main([*command, "--out", "both/", "--shard", "1/2"]) == 1
    assert "one data set" in capsys.readouterr().err
    assert main([*command, "--out", "both/"]) == 1
    out, err = capsys.readouterr()
    assert "[3/3]" in err and "1 of 3 analyses failed" in err
    assert out.split()[:2] == ["data", "steps"]
    assert main([*command[:6], *asked, "--plan", "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert [one["data"] for one in plans] == sets[:2]
    assert {one["samples"] for one in plans} == {200}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("levels", "codes"),
    [
        (("sound", "sound"), (0, 0)),
        (("sound", "not judged"), (0, 3)),
        (("undecided", "sound"), (0, 3)),
        (("undecided", "not sound"), (3, 3)),
    ],
)
def test_the_worst_verdict_of_a_sweep_is_an_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    levels: tuple[str, str],
    codes: tuple[int, int],
) -> None:
    """Of checkpoints on one data set, and of one checkpoint on several."""

    def found(folder: Path) -> Trend:
        return Trend("order", tuple(Point(step=k, level=one) for k, one in enumerate(levels)))

    def swept(models: Any, data: Any, *more: Any, told: Any, **how: Any) -> None:
        told(Outcome("m", result="m.h5"))

    monkeypatch.setattr("isoprobe.show.trend.trend_of", found)
    monkeypatch.setattr(sweeps, "sweep", swept)
    several = ["a.pt", "b.pt"] if count == 1 else ["a.pt", "--data", "y.npy"]
    command = ["analyze", *several, "--data", "x.npy", "--out", f"{tmp_path}/"]
    assert main(command) == 0
    for name, code in zip(("not-sound", "undecided"), codes, strict=True):
        assert main([*command, "--fail-on", name]) == code


def test_what_is_given_twice_is_one(run: Path, tmp_path: Path) -> None:
    """And no folder is made under the name of a file."""
    model, data = str(run / "model_7.safetensors"), ("--data", str(run / "x.npy"))
    few = ("--samples", "40", "--device", "cpu", "--analysis", "isometry")
    assert main(["analyze", model, model, *data, *data, *few, "--out", f"{tmp_path}/r.h5"]) == 0
    assert (tmp_path / "r.h5").is_file()


# ------------------------------------------------------------------ which step


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("epoch=3-step=600", {"epoch": 3, "step": 600, "number": 600}),
        ("checkpoint-500", {"checkpoint": 500, "number": 500}),
        ("vae_global_step12", {"global_step": 12, "number": 12}),
        ("Iter_00040-loss0.25", {"iter": 40, "number": 25}),
        ("footstep", {}),
        ("best", {}),
    ],
)
def test_steps_in_names(name: str, told: dict[str, float]) -> None:
    assert steps_in_name(name) == told


def test_what_all_tell_orders_them() -> None:
    both = [{"step": 4.0, "number": 1.0}, {"step": 2.0, "number": 2.0}]
    assert axis(both) == ("step", [4.0, 2.0])
    assert axis([both[0], {"number": 7.0}]) == ("number", [1.0, 7.0])
    assert axis([{"step": 4.0}, {"step": 4.0}]) == ("order", [1.0, 2.0])
    assert axis([]) == ("order", [])


def test_steps_in_contents(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "global_step": 40, "epoch": 2}, tmp_path / "a.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "b.pt")
    torch.save({"step": True, "epoch": math.nan, "iter": "9"}, tmp_path / "c.pt")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "trainer_state.json").write_text('{"global_step": 7, "best_metric": null}')
    found = {name: steps_told(Source(tmp_path / name)) for name in ("a.pt", "b.pt", "c.pt", "d")}
    assert found == {
        "a.pt": {"global_step": 40, "epoch": 2}, "b.pt": {}, "c.pt": {}, "d": {"global_step": 7}
    }  # fmt: skip


def test_results_have_names_of_their_own() -> None:
    paths = ["a/last.pt", "b/last.pt", "epoch=1-loss=0.5.ckpt", "checkpoint-500", "x.y.pt"]
    names = result_names([Path(path) for path in paths])
    assert names == [
        "a-last.h5", "b-last.h5", "epoch=1-loss=0.5.h5", "checkpoint-500.h5", "x.y.h5"
    ]  # fmt: skip
    assert len(set(result_names([Path("a/m.pt"), Path("a/m.ckpt"), Path("m.pt")]))) == 3
    met = result_names([Path("a/m.pt"), Path("a/m.ckpt"), Path("a-m-1.pt"), Path("A-M-2.pt")])
    assert len({name.casefold() for name in met}) == 4
    held = ["A-m-1.h5", "x.h5", "y-1.h5"]
    free = result_names([Path("a/m.pt"), Path("a/m.ckpt"), Path("x.pt"), Path("z.pt")], (), held)
    assert free == ["a-m-1-1.h5", "a-m-2.h5", "x-3.h5", "z.h5"]


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["a/train.npy", "a/test.npy"], ["train", "test"]),
        (["mnist.npz:x_train", "mnist.npz:x_test"], ["mnist-x_train", "mnist-x_test"]),
        (["a/x.npy", "b/x.npy", "prior"], ["a-x", "b-x", "prior"]),
        (["rows/:id=patient", "toy/mix:samples=10"], ["rows", "mix"]),
        (["run-*/x.npy", "run/x.npy"], ["run-x-1", "run-x-2"]),
        (["d.h5:/a/b", "d.h5:/a b"], ["d-a-b-1", "d-a-b-2"]),
        (["...", "?"], ["data-1", "data-2"]),
        (["w" * 300, "x"], ["w" * 80, "x"]),
    ],
)
def test_data_sets_have_short_names(specs: list[str], names: list[str]) -> None:
    assert short_names(specs) == names
    assert result_names([Path("m.pt")], short_names(specs)) == [f"m-{name}.h5" for name in names]


# ------------------------------------------------------------------ hostile tables


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '[{"model": 3}]',
        '[{"model": "a", "steps": {"step": NaN}}]',
        '[{"model": "a", "result": "../x.h5"}]',
        '[{"model": "a", "result": "/etc/passwd"}]',
        '[{"model": "a", "unknown": 1}]',
        '[{"model": "a", "steps": {"step": 1e999}}]',
    ],
)
def test_a_table_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ResultError, match=r"sweep\.json"):
        trend_of(tmp_path)


def test_a_folder_of_results_needs_no_table(
    done: tuple[list[Outcome], Path], tmp_path: Path
) -> None:
    for name in ("model_7.h5", "model_9.h5"):
        (tmp_path / name).write_bytes((done[1] / name).read_bytes())
    (tmp_path / "model_8.h5").write_bytes(b"no result")
    trend = trend_of(tmp_path)
    assert (trend.axis, [found.step for found in trend.points]) == ("number", [7.0, 9.0])
    assert [Path(failure.model).name for failure in trend.failures] == ["model_8.h5"]


def test_a_page_without_points_says_what_failed(tmp_path: Path) -> None:
    write_table(tmp_path, [Outcome("a.pt", {}, error="<b>broken</b>")])
    trend = trend_of(tmp_path)
    assert trend == Trend("order", (), failures=trend.failures)
    html = trend_page(trend, "none")
    assert "&lt;b&gt;broken" in html and "<b>broken" not in html
