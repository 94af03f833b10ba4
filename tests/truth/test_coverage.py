from __future__ import annotations

import numpy as np
import pytest
import torch

import isoprobe
from benchmarks.truth import coverage
from benchmarks.truth.closed import models

MODELS = {model.name: model for model in models()}


def test_the_linear_model_is_the_linear_vae() -> None:
    truth = MODELS["linear"].truth()
    spectrum, beta = np.array([4.0, 2.0, 1.0, 0.5]), 0.5
    variance = beta / 2 / spectrum
    assert truth["importance"] == pytest.approx(spectrum, rel=1e-6)
    assert truth["kl"] == pytest.approx(-0.5 * np.log(variance), rel=1e-6)
    assert truth["stationary norm"] == pytest.approx(1 - variance, rel=1e-6)
    assert truth["beta_j"] == pytest.approx(np.full(4, beta), rel=1e-6)
    assert truth["t_j"] == pytest.approx(np.zeros(4), abs=1e-6)
    # each direction costs beta / 2: its coding loss and its transform loss together
    assert float(truth["distortion"]) == pytest.approx(4 * beta / 2, rel=1e-6)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_figures_at_infinite_rows_equal_means_over_many(name: str) -> None:
    model = MODELS[name]
    truth = model.truth()
    x = torch.from_numpy(model.draw(400_000, 3))
    vae = model.vae()
    p = vae.encode(x)
    torch.manual_seed(0)
    eps = torch.randn_like(p.std)
    z = (p.mean + p.std * eps).requires_grad_()
    distortion = (vae.decode(z) - x).square().sum(1)
    (gradient,) = torch.autograd.grad(distortion.sum(), z)
    kl = 0.5 * (p.mean**2 + p.std**2 - 1) - p.std.log()
    seen = {
        "kl": kl,
        "stationary norm": p.std * eps * gradient / model.beta,
        "t_j": z.detach() * gradient / model.beta,
        "distortion": distortion.detach(),
    }
    for figure, values in seen.items():
        mean, error = values.mean(0), values.std(0) / len(x) ** 0.5
        off = (mean - torch.from_numpy(truth[figure])).abs() / error
        assert float(off.max()) < 4.5, figure


def test_stationarity_holds_in_every_row_of_the_bent_model() -> None:
    truth = MODELS["bent"].truth()
    # sigma is looked up in a table of steps 0.008 wide: its interpolation leaves some 1e-6
    assert truth["beta_j"] == pytest.approx(np.full(3, 0.1), rel=1e-5)


def test_fresh_data_differ_and_come_back_by_seed() -> None:
    model = MODELS["bent"]
    assert np.array_equal(model.draw(10, 1), model.draw(10, 1))
    assert not np.array_equal(model.draw(10, 1), model.draw(10, 2))


def test_what_is_measured_in_one_batch_is_what_a_run_prints() -> None:
    trial = coverage.Trial(1, 150, 5)
    model = models()[1]
    groups, beta, rows, distortion = coverage.measured(trial)
    with isoprobe.analyze(
        model.vae(),
        rows,
        samples=None,
        analyses=[*coverage.ANALYSES, "density"],
        dtype="float64",
        seed=5,
    ) as result:
        assert beta.ci95 == pytest.approx(tuple(result.attrs["beta_ci95"]))
        for figure, (group, name, errors) in coverage.PRINTED.items():
            for part in (name, *errors):
                mine, printed = groups[group][part].values, result[group][part].values
                # a run reads rows in single precision
                np.testing.assert_allclose(mine, printed, rtol=1e-5, atol=1e-7, err_msg=figure)
        np.testing.assert_allclose(result.samples()["distortion"], distortion, rtol=1e-5)
        error = result["density"]["distortion_draw_se"].values
        assert groups["density"]["distortion_draw_se"].values == pytest.approx(
            float(error), rel=1e-5
        )


def test_the_expected_distortion_of_rows_averages_to_its_truth() -> None:
    model = MODELS["bent"]
    found = model.expected_distortion(model.draw(200_000, 4))
    off = found.mean() - float(model.truth()["distortion"])
    assert abs(off) < 4.5 * found.std() / len(found) ** 0.5


def test_intervals_are_the_printed_ones_and_hold_what_they_should() -> None:
    seen = [coverage.held(coverage.Trial(0, 200, seed)) for seed in range(4)]
    assert {"beta", "beta_j", "kl", "stationary norm"} <= set(seen[0])
    assert all(len(one["kl"]) == 4 for one in seen)
    hits = [hit for one in seen for figure in ("beta_j", "kl") for hit in one[figure]]
    assert sum(hits) >= 0.6 * len(hits)


def test_student_quantiles() -> None:
    tables = {20: 2.0860, 30: 2.0423, 60: 2.0003, 199: 1.9720}
    for degrees, wanted in tables.items():
        assert coverage._t95(degrees) == pytest.approx(wanted, abs=2e-4)


def test_counts_are_judged_against_both_ends() -> None:
    found = {"m, n = 200": {"beta": (95, 100), "kl": (90, 100), "beta_j": (100, 100)}}
    shown = {line.split()[4]: line for line in coverage.lines(found)}
    assert shown["beta"].endswith("holds")
    assert shown["kl"].endswith("FAILS")
    assert shown["beta_j"].endswith("FAILS")
    assert "not printed" in shown["importance"]
