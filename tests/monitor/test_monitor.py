"""A monitor finds what an analysis would, and a training does not notice it."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isoprobe
from isoprobe.errors import CheckpointError, OptionError, ResultError
from isoprobe.monitor import monitor as monitors
from isoprobe.monitor.budget import Budget
from isoprobe.monitor.monitor import Monitor, logged
from isoprobe.show.trend import Point, point, trend_of
from isoprobe_plugins.architectures.linear import linear_vae
from tests.monitor.toy import BETA, Toy, begun, rows, train
from tests.run.test_conditional import by_class
from tests.run.test_conditional import rows as conditional_rows

X = rows()
#: of a point, what an analysis of the same weights gives too
SAME = [
    name for name in Point.__dataclass_fields__ if name not in {"step", "beta", "level", "name"}
]


def monitor(model: Any, data: Any = X, **options: Any) -> Monitor:
    """A monitor without a budget that counts, file or table."""
    return Monitor(model, data, **{"metric": "sse", "out": None, "table": False, "share": None,
                                   **options})  # fmt: skip


def analysed(model: Any, samples: int = 256, data: Any = X) -> Point:
    with isoprobe.analyze(model, data, metric="sse", samples=samples, device="cpu") as result:
        return point(result, 0)


def same(one: Point, other: Point) -> None:
    for name in SAME:
        ours, theirs = getattr(one, name), getattr(other, name)
        if isinstance(ours, int | float | tuple):
            assert ours == pytest.approx(theirs, rel=1e-9), name
        else:
            assert ours == theirs, name


# ------------------------------------------------------------------ the same numbers


def test_every_point_is_that_of_an_analysis() -> None:
    model, optimizer = begun()
    watched = monitor(model, every=40, beta=lambda step: step / 1000)
    untrained = analysed(model)
    for _ in range(100):
        train(model, optimizer, X)
        found = watched.step()
        if found is not None:
            same(found, analysed(model))
    last = watched.close()
    assert last is not None
    same(last, analysed(model))
    same(watched.points[0], untrained)
    assert [found.step for found in watched.points] == [0, 40, 80, 100]
    assert [found.beta for found in watched.points] == [0, 0.04, 0.08, 0.1]


def test_rows_beyond_the_first_stage_are_those_of_an_analysis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from isoprobe.data import order

    monkeypatch.setattr(order, "FIRST", 100)
    model, _ = begun()
    same(monitor(model, samples=230).points[0], analysed(model, 230))


def test_of_a_linear_vae_every_number_is_known() -> None:
    eigenvalues = torch.tensor([4.0, 2.0, 1.0]).double()
    vae = linear_vae(torch.diag(eigenvalues), 0.1, latent_size=2)
    data = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 3)))[0] * math.sqrt(300)
    watched = monitor(vae, data * eigenvalues.sqrt().numpy(), samples=300)
    found = watched.points[0]
    assert found.used == 2
    assert found.rate == pytest.approx(0.5 * math.log(2 * 4 / 0.1) + 0.5 * math.log(2 * 2 / 0.1))
    assert found.beta == 0.1  # as the model declares it
    assert found.beta_low < 0.1 < found.beta_high
    assert found.gain == pytest.approx(0, abs=3 * found.gain_se)


@pytest.mark.parametrize("way", ["beside", "label", "value"])
def test_a_conditional_model_is_told_of_each_row(way: str, tmp_path: Path) -> None:
    x, y = conditional_rows()
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    data: Any = f"{tmp_path}/rows.npz:x,y" if way == "label" else x
    told = {"beside": {"condition": y}, "label": {}, "value": {"condition": 1}}[way]
    watched = monitor(by_class(), data, every=1, **told)
    watched.step()
    last = watched.close()
    assert last is not None
    with isoprobe.analyze(by_class(), data, metric="sse", samples=256, **told) as result:
        for found in watched.points:
            same(found, point(result, 0))


# ------------------------------------------------------------------ a training does not notice


def twins(wrap: Callable[[nn.Module], nn.Module] = lambda model: model, **options: Any) -> None:
    """Train twice from one seed, once with a monitor; every bit has to be the same."""
    ends = []
    for watched in (False, True):
        random.seed(5)
        np.random.seed(5)
        model, optimizer = begun()
        seen = monitor(wrap(model), every=3, **options) if watched else None
        for _ in range(10):
            train(model, optimizer, X)
            if seen is not None:
                seen.step()
        after = [torch.rand(1).item(), np.random.rand(), random.random()]
        flags = [part.training for part in model.modules()]
        grads = [p.grad.clone() for p in model.parameters()]
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        moments = [s["exp_avg"].clone() for s in optimizer.state_dict()["state"].values()]
        ends.append((after, flags, grads, state, moments))
        if seen is not None:
            assert len(seen.points) == 4
    (after, flags, grads, state, moments), other = ends
    assert (after, flags) == other[:2]
    assert all(map(torch.equal, grads, other[2]))
    assert all(torch.equal(tensor, other[3][name]) for name, tensor in state.items())
    assert all(map(torch.equal, moments, other[4]))


def test_the_next_step_is_that_of_an_untouched_twin() -> None:
    twins()


def test_so_it_is_inside_autocast_and_no_grad() -> None:
    model, optimizer = begun()
    plain = analysed(model)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found = monitor(model).points[0]
    same(found, plain)
    assert torch.is_grad_enabled()
    train(model, optimizer, X)


def test_a_model_in_half_precision_is_measured_in_single() -> None:
    model, _ = begun()
    single = copy.deepcopy(model).bfloat16().float()
    half = model.bfloat16()
    before = {name: tensor.clone() for name, tensor in half.state_dict().items()}
    watched = monitor(half, every=1)
    same(watched.points[0], analysed(single))
    assert watched.step() is not None
    after = half.state_dict()
    assert all(after[n].dtype == t.dtype and torch.equal(after[n], t) for n, t in before.items())


def test_gradients_that_wait_for_the_optimizer_are_kept() -> None:
    model, _ = begun()
    model(X[:8])[0].sum().backward()
    before = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    kept = {name: grad.clone() for name, grad in before.items()}
    monitor(model)
    for name, parameter in model.named_parameters():
        assert parameter.grad is before.get(name)
        assert parameter.grad is None or torch.equal(parameter.grad, kept[name])


# ------------------------------------------------------------------ other weights


def averaged(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
        other.body[1].running_mean.add_(0.3)
    return other


@pytest.mark.parametrize("form", ["module", "mapping", "averaged", "context"])
def test_the_moving_average_is_measured_where_asked(form: str) -> None:
    model, _ = begun()
    average = averaged(model)

    class Swap:
        def __enter__(self) -> None:
            self.before = copy.deepcopy(model.state_dict())
            model.load_state_dict(average.state_dict())

        def __exit__(self, *_: object) -> None:
            model.load_state_dict(self.before)

    weights: Any = {
        "module": average,
        "mapping": dict(average.state_dict()),
        "averaged": torch.optim.swa_utils.AveragedModel(average),
        "context": Swap,
    }[form]
    before = {name: (t.data_ptr(), t.clone()) for name, t in model.state_dict().items()}
    watched = monitor(model, weights=weights, every=1)
    watched.step()
    for found in watched.points:
        same(found, analysed(average))
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == before[name][0]
        assert torch.equal(tensor, before[name][1])


@pytest.mark.parametrize(
    ("weights", "said"),
    [({}, "lacks 'body.0.weight'"), ({"body.0.weight": torch.ones(2)}, r"shape \(2,\)")],
)
def test_weights_of_another_model_are_refused(weights: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        monitor(begun()[0], weights=weights)


# ------------------------------------------------------------------ alarms


def test_a_model_that_can_not_be_read_anew_is_measured_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, optimizer = begun()
    watched = monitor(model, every=2)
    for _ in range(3):
        train(model, optimizer, X)
        watched.step()

    def refused() -> None:
        raise OptionError("the form of the scale cannot be told")

    monkeypatch.setattr(watched._trained, "settle", refused)
    last = watched.close()
    assert last is not None and last.step == 3
    same(last, analysed(model))


def test_a_collapse_is_an_alarm_and_a_first_idle_point_is_none() -> None:
    model, _ = begun()
    with torch.no_grad():
        for part in (model.fc_mu, model.fc_logvar, model.out[0]):
            part.weight.zero_()
            part.bias.zero_()
    watched = monitor(model, every=1)
    told = []
    for _ in range(3):
        watched.step()
        told.append(None if watched.alarm is None else watched.alarm.kind)
    assert told == [None, "collapse", "collapse"]
    assert [found.used for found in watched.points] == [0] * 4


@pytest.mark.parametrize("place", ["weight", "output"])
def test_numbers_that_are_not_finite_are_an_alarm(place: str) -> None:
    model, _ = begun()
    watched = monitor(model, every=1)
    with torch.no_grad():
        if place == "weight":
            model.out[0].weight[0, 0] = math.nan
        else:
            model.out[2].bias.fill_(3e38)
    assert watched.step() is None
    assert watched.alarm is not None and watched.alarm.kind == "not finite"
    assert watched.alarm.step == 1
    assert len(watched.points) == 1
    watched.close()


def test_a_model_that_is_broken_from_the_start_is_no_alarm() -> None:
    model, _ = begun()
    with torch.no_grad():
        model.out[0].weight[0, 0] = math.nan
    with pytest.raises(CheckpointError, match=r"out\.0\.weight"):
        monitor(model)


def test_an_alarm_goes_when_the_model_recovers() -> None:
    model, _ = begun()
    watched = monitor(model, every=1)
    before = model.out[2].bias.detach().clone()
    with torch.no_grad():
        model.out[2].bias.fill_(math.inf)
        watched.step()
        model.out[2].bias.copy_(before)
    assert watched.alarm is not None
    watched.step()
    assert watched.alarm is None


# ------------------------------------------------------------------ the budget


class Clock:
    """A clock that is told how time goes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("cost", [0.1, 1.0, 7.0])
def test_the_share_is_kept(cost: float) -> None:
    clock = Clock()
    budget = Budget(0.02, clock)
    budget.try_out(cost)
    spent = trained = 0.0
    for _ in range(5000):
        clock.now += 1.0
        trained += 1.0
        if budget.affords():
            clock.now += cost
            budget.charge(cost)
            spent += cost
        assert spent <= 0.02 * trained + 1e-9
    assert budget.training == pytest.approx(trained)
    assert spent > 0.02 * trained - cost  # and it is made use of


def test_a_measurement_that_was_disturbed_does_not_decide() -> None:
    clock = Clock()
    budget = Budget(0.5, clock)
    for seconds in (1.0, 50.0):
        budget.try_out(seconds)
    clock.now += 2.5
    assert budget.affords()


def test_what_does_not_fit_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(monitors.time, "perf_counter", clock)
    model, _ = begun()
    watched = monitor(model, every=10, share=0.1)
    watched._budget.clock = clock
    watched._budget.began = 0.0
    watched._budget.try_out(6.0)
    watched._budget._recent.extend([6.0] * 3)
    genuine = watched._trained.measure

    def slow() -> Any:
        clock.now += 6.0
        return genuine()

    watched._trained.measure = slow  # type: ignore[method-assign]
    for _ in range(200):
        clock.now += 1.0
        watched.step()
    steps = [found.step for found in watched.points]
    assert steps == [0, 60, 120, 180]  # 6 s each 60 s are a tenth
    watched.close()
    assert watched.cost == pytest.approx(18 / 200)


# ------------------------------------------------------------------ where it is told


def test_log_table_and_logger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, optimizer = begun()
    told: list[tuple[dict[str, float], int]] = []
    path = tmp_path / "log.jsonl"
    with monitor(
        model, every=20, out=path, table=True, beta=BETA, log=lambda v, s: told.append((v, s))
    ) as watched:
        for _ in range(50):
            train(model, optimizer, X)
            watched.step()
    assert [step for _, step in told] == [0, 20, 40, 50]
    assert told[-1][0] == logged(watched.points[-1])
    assert told[-1][0]["isoprobe/beta_recovered"] == watched.points[-1].beta_recovered
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert lines[0]["metric"] == "sse" and lines[0]["samples"] == 256
    assert [line["step"] for line in lines if "used" in line] == [0, 20, 40, 50]
    assert lines[-1]["end"] == 50 and 0 <= lines[-1]["cost"] < 1
    err = capsys.readouterr().err.splitlines()
    assert err[0].split()[:3] == ["step", "used", "rate"]
    assert [line.split()[0] for line in err[1:5]] == ["0", "20", "40", "50"]
    assert max(map(len, err[:5])) < 90
    assert "of training" in err[-1] and str(path) in err[-1]
    trend = trend_of(path)
    assert list(trend.points) == watched.points
    assert trend == watched.trend


def stepped(watched: Monitor, count: int) -> None:
    """Tell a monitor of so many steps."""
    for _ in range(count):
        watched.step()


def test_the_last_point_is_not_made_twice(tmp_path: Path) -> None:
    model, path = begun()[0], tmp_path / "log.jsonl"
    watched = monitor(model, every=2, out=path)
    stepped(watched, 4)
    last = watched.close()
    assert last is watched.points[-1] and last.step == 4
    assert [found.step for found in watched.points] == [0, 2, 4]
    assert path.read_text().count('"step": 4') == 1
    assert watched.close() is last
    assert watched.step() is None


def test_a_log_is_not_overwritten_and_gone_on_with(tmp_path: Path) -> None:
    model, path = begun()[0], tmp_path / "log.jsonl"
    first = monitor(model, every=5, out=path)
    stepped(first, 10)
    first.close()
    with pytest.raises(ResultError, match="resume=True"):
        monitor(model, out=path)
    again = monitor(model, every=5, out=path, start=5, resume=True)
    stepped(again, 5)
    again.close()
    assert [found.step for found in trend_of(path).points] == [0, 5, 10]
    with path.open("a") as file:
        file.write('{"step": 11, "us')  # killed while it wrote
    assert len(trend_of(path).points) == 3


def test_a_log_in_the_current_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        Monitor(begun()[0], X, metric="sse", table=False).close()
    assert len(list(tmp_path.glob("isoprobe-monitor-*.jsonl"))) == 2


def test_curves_of_a_training_that_runs(tmp_path: Path) -> None:
    model, _ = begun()
    watched = monitor(model, every=1)
    watched.step()
    figure = watched.plot()
    assert len(figure.axes) == 7
    watched.report(tmp_path / "page.html")
    assert "figure-beta" in (tmp_path / "page.html").read_text("utf-8")
    assert "2 points" in repr(watched)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '{"used": 1}',
        '{"step": 1, "used": 1, "kl": [], "active": [3]}',
        '{"step": 1, "used": 1, "rate": 1e999}',
        '{"step": 1, "used": 1, "kl": [1e999]}',
        "no",
    ],
)
def test_a_file_that_is_no_log_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"x\.jsonl"):
        trend_of(path)


# ------------------------------------------------------------------ what it is given


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": 0}, "every >= 1"),
        ({"samples": 1}, "samples >= 2"),
        ({"share": 0.0}, "share lies"),
        ({"share": 2}, "share lies"),
        ({"data": None}, "needs rows"),
        ({"data": "prior"}, "needs rows"),
    ],
)
def test_what_cannot_be_is_said_at_once(options: dict[str, Any], said: str) -> None:
    data = options.pop("data", X)
    with pytest.raises(OptionError, match=said):
        monitor(begun()[0], data, **options)


def test_rows_are_read_once() -> None:
    class Rows(torch.utils.data.Dataset):
        reads = 0

        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, index: int) -> torch.Tensor:
            Rows.reads += 1
            return X[index]

    watched = monitor(begun()[0], Rows(), every=1)
    read = Rows.reads
    watched.step()
    watched.close()
    assert Rows.reads == read


def test_wrappers_of_training_are_taken_off() -> None:
    model, _ = begun()
    found = monitor(nn.DataParallel(model)).points[0]
    same(found, analysed(model))


def test_parameters_spread_over_processes_are_refused() -> None:
    class FullyShardedDataParallel(nn.Module):
        pass

    model = Toy()
    model.body[3] = FullyShardedDataParallel()
    with pytest.raises(OptionError, match="spread over processes"):
        monitor(model)


def test_another_process_does_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    watched = Monitor(begun()[0], X, metric="sse", every=1)
    assert watched.step() is None and watched.close() is None
    assert watched.points == [] and list(tmp_path.iterdir()) == []


def test_a_model_read_otherwise_in_the_end_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = begun()
    watched = monitor(model, every=2, table=True)
    watched.step(2)
    genuine = watched._trained._settled
    assert genuine is not None and genuine.vae.encode is not None
    encode = genuine.vae.encode
    genuine.vae.encode = lambda x: isoprobe.Posterior(encode(x).mean, 2 * encode(x).std)
    last = watched.close()
    assert "read otherwise than at the start" in capsys.readouterr().err
    assert last is not None
    same(last, analysed(model))
