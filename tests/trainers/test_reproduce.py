"""The comparison with the paper: its numbers, what is measured, tables, figures, commands."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace

import click
import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import isoprobe
from isoprobe.cli.main import main
from isoprobe.errors import DataError
from isoprobe_trainers.commands.reproduce import ITEMS, Reproduction
from isoprobe_trainers.commands.reproduce import reproduce as reproduce_command
from isoprobe_trainers.common import paper, tables
from isoprobe_trainers.common.plan import CARD, Work, plan
from isoprobe_trainers.common.records import Record
from isoprobe_trainers.common.training import Schedule
from isoprobe_trainers.toy import ablation
from isoprobe_trainers.toy import experiments as toy_experiments
from isoprobe_trainers.toy import figures as toy_figures
from isoprobe_trainers.toy.data import generate
from isoprobe_trainers.toy.measure import Densities, Measurement, measure
from isoprobe_trainers.toy.members import Member
from isoprobe_trainers.toy.source import parse
from isoprobe_trainers.toy.train import checkpoint_path, train

SMALL = "toy/mix:seed=0,samples=1500"
BRIEF = Schedule(epochs=60, batch=150, lr=5e-3, decay=1.0)


def made_up(lam=100.0, data="toy/mix:seed=0", metric="sse", scale=1.0):
    """A measurement with known values."""
    exact = np.log(np.linspace(0.1, 1, 40))
    latents = np.array([1.0, 4.0, 16.0])
    return Measurement(
        member=Member(data, metric, lam),
        active=np.ones(3, bool),
        norm_mean=np.array([0.965, 0.925, 0.972]) * scale,
        norm_sd=np.full(3, 0.1),
        residual=np.full(3, -0.01),
        pullback_mean=np.array([0.162, 0.726, 2.922]),
        pullback_sd=np.array([0.040, 0.466, 1.738]),
        inverse_variance=33.3 * latents,
        rough=latents / 6,
        exact=latents / 6,
        beta_recovered=1 / lam,
        transform_loss=63 / 32 / lam**2,
        coding_loss=1.5 / lam,
        densities=Densities(exact, -exact, exact + 3, 2 * exact, exact - 700, exact + 900),
    )


# --------------------------------------------------------------------------- the paper's numbers


def by_seed(*models):
    """Values of a quantity for each model."""
    return lambda quantity: [m.values(quantity) for m in models]


def test_the_papers_rows_are_consistent_with_each_other():
    """E[sigma^-2] = 1 + (2/beta) E[D'] at an optimum, in every table that prints both."""
    for place in ("table1", "table2"):
        rows = {row.quantity: row for row in paper.rows_of(place)}
        implied = 1 + 200 * np.array(rows["pullback_mean"].values)
        np.testing.assert_allclose(rows["inverse_variance"].values, implied, rtol=0.015)
        ratio = np.array(rows["inverse_variance"].values) / rows["inverse_variance"].values[0]
        np.testing.assert_allclose(rows["inverse_variance_ratio"].values, ratio, rtol=0.015)


def test_every_row_has_a_place_and_measures_something():
    for row in paper.paper_rows():
        assert row.place in ITEMS
        assert len(made_up().values(row.quantity)) in {len(row.values), 3}
        assert row.sd is None or len(row.sd) == len(row.values)


def test_differences_come_in_units_of_the_papers_deviation():
    row = paper.PaperRow("table1", "norm", "norm_mean", (1.0, 2.0, 0.0), (0.5, 0.1, 0.0), 0.03)
    deviations = row.deviations([1.25, 1.9, 0.2])
    assert deviations[:2] == pytest.approx([0.5, -1.0])
    assert math.isnan(deviations[2])


def test_tolerances_are_absolute_or_relative_and_may_be_doubled():
    absolute = paper.PaperRow("t", "r", "q", (1.0,), within=0.03)
    relative = paper.PaperRow("t", "r", "q", (10.0,), within_relative=0.05)
    assert absolute.reproduced([1.03]) is True
    assert absolute.reproduced([1.04]) is False
    assert absolute.reproduced([1.04], slack=2) is True
    assert relative.reproduced([9.5]) is True
    assert relative.reproduced([9.4]) is False
    assert paper.PaperRow("t", "r", "q", (10.0,)).reproduced([0.0]) is None


# --------------------------------------------------------------------------- measuring


def test_correlations_are_of_densities_whatever_their_constant():
    model = made_up()
    assert model.r_posterior == pytest.approx(1)
    assert model.r_scaled_posterior == pytest.approx(1)
    assert model.r_scaled_objective == pytest.approx(1)
    p = np.linspace(0.1, 1, 40)
    assert model.r_objective == pytest.approx(np.corrcoef(p, p**2)[0, 1])
    assert model.r_prior == pytest.approx(np.corrcoef(p, 1 / p)[0, 1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A VAE with a latent too many, and a RaDOGAGA, after a few seconds of training."""
    out = tmp_path_factory.mktemp("toy")
    members = [Member(SMALL, "downward", latent_size=4), Member(SMALL, objective="radogaga")]
    train(members, BRIEF, out, torch.device("cpu"))
    return out, members


def test_a_measurement_is_what_analyze_says_in_the_papers_order(trained):
    out, (vae, _) = trained
    model = measure(checkpoint_path(out, vae), vae, out / "vae.h5", 1500)
    with isoprobe.analyze(
        checkpoint_path(out, vae), samples=None, device="cpu", expectation="two-point"
    ) as result:
        norms = result["isometry"]["norm_mean"].values
        mean, std = (result.samples(names=[n])[n].astype(float) for n in ("mean", "std"))
        distortion, rate = (result.samples(names=[n])[n] for n in ("distortion", "kl"))
        active = result["overview"]["active"].values.astype(bool)
    assert sorted(model.norm_mean) == pytest.approx(sorted(norms))
    first, spare = model.inverse_variance[:3], model.inverse_variance[3]
    assert list(first) == sorted(first)
    assert spare <= first[0], "the latent to spare comes last"
    # Eq. 19 and 21, written out: p(mu) prod sigma, exp(-L / beta), times a^(n/2)
    data = generate(parse(SMALL))
    a = 2 / 3 + 2 / 21 * (data.x.astype(float) ** 2).sum(1)
    volume = a ** (active.sum() / 2)
    posterior = np.exp(-0.5 * (mean[:, active] ** 2).sum(1)) * std[:, active].prod(1)
    objective = np.exp(-(distortion / vae.beta + rate))
    p = np.exp(data.log_density())
    for r, estimate in (
        (model.r_posterior, posterior),
        (model.r_objective, objective),
        (model.r_scaled_posterior, volume * posterior),
        (model.r_scaled_objective, volume * objective),
    ):
        assert r == pytest.approx(np.corrcoef(p, estimate)[0, 1], abs=1e-4)


def test_a_measurement_is_read_again_only_from_the_same_checkpoint_and_rows(trained, monkeypatch):
    out, (vae, _) = trained
    path = out / "again.h5"
    first = measure(checkpoint_path(out, vae), vae, path, 300)
    stamp = path.stat().st_mtime_ns
    again = measure(checkpoint_path(out, vae), vae, path, 300)
    assert path.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first.norm_mean, again.norm_mean)
    assert len(measure(checkpoint_path(out, vae), vae, path, 200).densities.exact) == 200
    assert path.stat().st_mtime_ns != stamp


def test_radogaga_is_isometric_where_the_vae_is_not(trained):
    """Its D' is nearly constant as it stands; the VAE's varies several times as much."""
    out, (vae, radogaga) = trained
    control = measure(checkpoint_path(out, radogaga), radogaga, out / "control.h5", 1500)
    model = measure(checkpoint_path(out, vae), vae, out / "vae.h5", 1500)
    # noise of variance beta / 2 makes norm and D' one and the same
    np.testing.assert_allclose(control.norm_mean, control.pullback_mean, rtol=1e-5)
    varies = (model.pullback_sd / model.pullback_mean)[model.active]
    constant = control.pullback_sd / control.pullback_mean
    assert constant.max() < 0.5 * varies.max()


# --------------------------------------------------------------------------- tables and figures


def test_the_comparison_shows_ours_the_papers_and_whether_it_holds():
    text = tables.compare("table1", by_seed(made_up(), made_up(scale=1.4)), 1.0)
    header, rule, norm, *_ = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
    ]
    assert header[:3] == ["table1", "paper", "ours"]
    assert set("".join(rule)) == {"-"}
    assert norm[1:3] == ["0.965 0.925 0.972", "1.158 1.110 1.166"]
    assert norm[3] == "0.386 0.370 0.389"
    # (1.2 - 1) 0.965 / 0.054
    assert norm[4].split()[0] == "3.574"
    assert norm[-1] == "NO"
    within = tables.compare("table1", by_seed(made_up()), 1.0).splitlines()[2]
    assert within.rstrip(" |").endswith("yes")


def test_what_the_paper_leaves_out_is_shown_beside_the_truth():
    text = tables.beyond([made_up()], (1 / 6, 2 / 3, 16 / 6))
    assert "-0.0100" in text
    assert "0.1667 (+0.0 %)" in text
    assert "beta recovered by stationarity 0.01000 (trained with 0.01)" in text


def everything(lams):
    return [
        made_up(lam, f"toy/{kind}:seed=0", metric)
        for kind in ablation.KINDS
        for metric in ablation.METRICS
        for lam in lams
    ]


def test_the_ablation_has_ninety_models_and_its_parts_are_among_them():
    members = {name: experiment[1](3) for name, experiment in ablation.EXPERIMENTS.items()}
    whole = members["fig13-21"]
    assert len(set(whole)) == 90
    assert {len(members["fig22"]), len(members["fig23"]), len(members["fig24"])} == {9, 30}
    assert all(set(part) <= set(whole) for part in members.values())


def test_the_theory_itself_gives_ratios_of_one(tmp_path):
    models = [m for m in everything(ablation.LAMBDAS) if m.member.metric == "sse"]
    for name in ("fig23", "fig24"):
        text = ablation.EXPERIMENTS[name][2](models, tmp_path, 1.0)
        rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
        assert len(rows) == 10
        for row in rows:
            assert [cell.strip() for cell in row.strip("|").split("|")][2:] == ["1.000"] * 3
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000


def test_every_figure_of_the_ablation_is_drawn(tmp_path):
    text = ablation.EXPERIMENTS["fig13-21"][2](everything(ablation.LAMBDAS), tmp_path, 1.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"fig{n}.svg" for n in range(13, 22)]
    assert "norm of every latent, lambda 50 to 1000" in text
    assert "0.925 to 0.972" in text
    ratios = ablation.EXPERIMENTS["fig22"][2](everything([100.0]), tmp_path, 1.0)
    assert ratios.count("4.00") == 9
    assert ratios.count("16.00") == 9


def test_equal_figures_are_equal_files(tmp_path):
    for name in ("a", "b"):
        toy_figures.ablation(tmp_path / f"{name}.svg", [made_up(lam) for lam in (1.0, 10.0)], "t")
        toy_figures.scatter(
            tmp_path / f"{name}.png", made_up().densities.exact, {"p": (np.zeros(40), 0.5)}, "t"
        )
    for suffix in ("svg", "png"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


# --------------------------------------------------------------------------- the commands


#: models with little data and two epochs, and so a program of seconds
TINY = toy_experiments.Sizes(quick=Schedule(2, 50, decay=1.0), rows=100)


def reproduced(names, out, capsys, **asked):
    """Reproduce items at small sizes; return what is printed, on either stream."""
    asked = {"quick": True, "seeds": 1, "device": "cpu", "compile_step": False, **asked}
    settings = Reproduction(out=out, **asked)
    toy_experiments.reproduce(names, settings, TINY)
    settings.attempts.conclude()
    return capsys.readouterr()


def test_reproduce_trains_once_for_all_and_uses_it_again(tmp_path, capsys):
    names = ["table1", "table4", "fig10", "fig25", "radogaga"]
    asked = {"seeds": 2, "records": tmp_path / "kept"}
    first = reproduced(names, tmp_path, capsys, **asked)
    assert "training 6 models" in first.err
    for name in names:
        assert f"## {name}: " in first.out
    assert len(list((tmp_path / "quick").glob("*.safetensors"))) == 6
    assert {p.name for p in (tmp_path / "quick" / "figures").iterdir()} == {
        "fig10.png",
        "fig25.png",
    }
    kept = {
        path.stem: msgspec.json.decode(path.read_bytes(), type=Record)
        for path in (tmp_path / "kept").iterdir()
    }
    assert kept.keys() == {
        "toy_radogaga_3-latents",
        "toy_square-error_3-latents",
        "toy_square-error_5-latents",
    }
    assert {one[-1] for one in kept["toy_radogaga_3-latents"].values["members"]} == {"radogaga"}
    five = kept["toy_square-error_5-latents"]
    assert (five.seeds, five.schedule, five.decay) == ((0, 1), "2 of 500 epochs", 1.0)
    again = tables.compare("table4", lambda quantity: five.values[quantity], 2.0)
    assert again in first.out
    second = reproduced(names, tmp_path, capsys, **asked)
    assert second.err == ""
    assert second.out == first.out


def test_models_of_another_schedule_are_not_passed_off(tmp_path, capsys):
    reproduced(["table1"], tmp_path, capsys)
    settings = Reproduction(quick=True, out=tmp_path, seeds=1, device="cpu", compile_step=False)
    longer = replace(TINY, quick=Schedule(3, 50))
    with pytest.raises(isoprobe.IsoprobeError, match="another schedule"):
        toy_experiments.reproduce(["table1"], settings, longer)


def test_another_decay_has_a_folder_of_its_own(tmp_path, capsys):
    reproduced(["table1"], tmp_path, capsys, decay=0.0)
    (path,) = (tmp_path / "quick-decay0").glob("*.safetensors")
    assert isoprobe.load(path).facts.training["schedule"]["decay"] == 0


def test_the_command_knows_every_experiment_and_no_other(capsys):
    assert set(toy_experiments.EXPERIMENTS) == {
        name for name, (_, home) in ITEMS.items() if home == "isoprobe_trainers.toy.experiments"
    }
    assert main(["reproduce", "tabel1"]) == 2
    assert "did you mean 'table1'" in capsys.readouterr().err


def test_train_toy_writes_what_it_says(tmp_path, capfd):
    arguments = ["train", "toy", "--data", "toy/norm:samples=80", "--lam", "10", "--lam", "20"]
    arguments += ["--epochs", "2", "--batch-size", "40", "--out", str(tmp_path), "--device", "cpu"]
    assert main(arguments) == 0
    paths = capfd.readouterr().out.split()
    assert [isoprobe.load(path).facts.beta for path in paths] == [1 / 10, 1 / 20]
    assert main(arguments) == 1
    assert "exists already" in capfd.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_a_users_mistake_in_training_is_one_line(tmp_path, capsys):
    assert main(["train", "toy", "--data", "toy/mxi", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: toy data is toy/mix")
    assert error.count("\n") == 1


# --------------------------------------------------------------------------- everything at once


def test_the_plan_counts_each_file_once_and_leaves_out_what_is_there(tmp_path):
    there, first, second = (tmp_path / name for name in ("there", "first", "second"))
    there.touch()
    text = plan(
        [
            Work("table1", "toy", {there: 100.0, first: 30.0}),
            Work("fig4", "celeba", {first: 30.0, second: 7200.0}),
        ]
    )
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[2:5]]
    assert cells == [
        ["table1", "1", "1", "30 s", f"{30 / CARD['toy']:.0f} s"],
        ["fig4", "1", "1", "2.0 h", f"{7200 / CARD['celeba'] / 60:.1f} min"],
        ["all", "", "", "2.0 h", f"{(30 / CARD['toy'] + 7200 / CARD['celeba']) / 60:.1f} min"],
    ]


def test_the_plan_of_everything_names_every_item_and_trains_nothing(tmp_path):
    arguments = ["all", "--plan", "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(reproduce_command, arguments)
    assert done.exit_code == 0, done.output
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if "|" in line]
    assert rows[2:] == [*ITEMS, "all"]
    assert not (tmp_path / "runs").exists()


def test_everything_goes_on_after_a_failure_and_says_so_at_the_end(tmp_path, monkeypatch, capsys):
    called = []

    def home(module):
        def reproduce(names, settings):
            for name in names:
                with settings.attempts.item(name):
                    called.append(name)
                    if name in {"table2", "fig28"}:
                        raise DataError(f"no data for {name}")
                    click.echo(f"## {name}")

        monkeypatch.setattr(importlib.import_module(module), "reproduce", reproduce)

    for module in {module for _, module in ITEMS.values()}:
        home(module)
    assert main(["reproduce", "all", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert sorted(called) == sorted(ITEMS)
    assert printed.out.count("## ") == len(ITEMS) - 2
    assert "table2 failed: no data for table2" in printed.err
    assert "2 items failed (table2, fig28)" in printed.err.splitlines()[-1]
