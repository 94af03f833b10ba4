"""``--samples auto``: shards are added until the errors are small; the bits of a plain run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from isoprobe.api import analyze
from isoprobe.contracts import VAE, Beta, Variable
from isoprobe.data import order
from isoprobe.errors import OptionError, ResultError
from isoprobe.results.reader import Result
from isoprobe.run import enough, merging
from isoprobe.run.engine import Pass, Run
from isoprobe.run.enough import largest_error, more
from isoprobe.run.merging import analyze_shard
from isoprobe.run.shards import Part
from isoprobe_plugins.architectures.linear import linear_vae

EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.5]).double()
ROWS = np.random.default_rng(0).normal(size=(900, 4)) * EIGENVALUES.sqrt().numpy()
SETTINGS: dict[str, Any] = {
    "metric": "sse",
    "beta": 0.1,
    "device": "cpu",
    "analyses": ["isometry", "importance"],
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers of samples divided by ten."""
    monkeypatch.setattr(order, "FIRST", 100)


def model() -> VAE:
    return linear_vae(torch.diag(EIGENVALUES), 0.1, latent_size=3)


def curved() -> VAE:
    """A model whose norms differ from sample to sample."""
    vae = model()
    straight = vae.decode
    vae.decode = lambda z: straight(z + 0.1 * z.sin())
    return vae


def run(**options: Any) -> Result:
    return analyze(model(), ROWS, **{**SETTINGS, **options})


def errors(result: Result) -> float:
    """The largest relative standard error, read off the result itself."""
    overview, isometry = result["overview"], result["isometry"]
    active = overview["active"].values
    shares = [overview["distortion_se"].values / overview["distortion_mean"].values]
    shares += list((isometry["norm_se"].values / isometry["norm_mean"].values)[active])
    low, high = result.attrs["beta_ci95"]
    shares.append((high - low) / 2 / student.ppf(0.975, 63) / result.attrs["beta_recovered"])
    return float(max(shares))


def why(result: Result) -> str:
    return next(note for note in result.attrs["notes"] if "samples used" in note)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of samples that runs were made with."""
    counts: list[int] = []
    original = Run.fold

    def fold(self: Run, *args: Any, **kwargs: Any) -> Any:
        counts.append(self.data.samples)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Run, "fold", fold)
    return counts


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """Positions of the samples that went through the probe."""
    seen: list[range] = []
    original = Pass.feed

    def columns(self: Pass, start: int, stop: int) -> Any:
        seen.append(range(start, stop))
        return original(self, start, stop)

    monkeypatch.setattr(Pass, "feed", columns)
    return seen


def same(found: Result, expected: Result) -> None:
    """Every array to the last bit."""
    assert found.groups() == expected.groups()
    for group in expected.groups():
        for name, variable in expected[group].items():
            np.testing.assert_array_equal(found[group][name].values, variable.values, name)


def same_decoded(found: Result, expected: Result) -> None:
    """What the decoder was asked for, to the last bit; rates may rest on more rows."""
    for name, variable in expected["isometry"].items():
        np.testing.assert_array_equal(found["isometry"][name].values, variable.values, name)
    for name, column in expected.columns().items():
        np.testing.assert_array_equal(found.columns()[name].values, column.values, name)
    for name, variable in expected["overview"].items():
        if name.startswith("distortion"):
            np.testing.assert_array_equal(found["overview"][name].values, variable.values, name)


@pytest.mark.parametrize("tolerance", [0.15, 0.05])
def test_it_stops_at_the_first_number_tried_that_is_enough(
    tried: list[int], tolerance: float
) -> None:
    with run(samples="auto", tolerance=tolerance) as result:
        counts = list(tried)
        assert result.attrs["samples"] == counts[-1] < len(ROWS)
        assert errors(result) <= tolerance
        assert why(result).startswith(f"{counts[-1]:,} samples used: the standard errors looked at")
        assert why(result).endswith(
            "looked at: beta, distortion and norm of each used latent (3 of 3)"
        )
        for count in counts[:-1]:
            with run(samples=count) as fewer:
                assert errors(fewer) > tolerance
        with run(samples=counts[-1]) as plain:
            same_decoded(result, plain)
    assert (len(counts) > 1) == (tolerance == 0.05)


def test_all_samples_may_not_be_enough(tried: list[int]) -> None:
    with run(samples="auto", tolerance=1e-4) as result, run(samples=None) as plain:
        assert result.attrs["samples"] == len(ROWS)
        assert "all 900 samples used: not every standard error" in why(result)
        same(result, plain)
    assert tried == [100, 900, 900]


def test_fewer_samples_than_the_first_number(tried: list[int]) -> None:
    with analyze(model(), ROWS[:50], **SETTINGS, samples="auto") as result:
        assert "all 50 samples used" in why(result)
        assert not any("there are no" in note for note in result.attrs["notes"])
    assert tried == [50]


def test_batches_do_not_matter() -> None:
    with (
        run(samples="auto", tolerance=0.06, batch_size=77) as one,
        run(samples="auto", tolerance=0.06, batch_size=500) as two,
    ):
        assert one.attrs["samples"] == two.attrs["samples"]


def test_the_probe_stops_by_the_error_of_its_norms() -> None:
    options = {"samples": "auto", "tolerance": 0.08, "pullback": "probe"}
    with analyze(curved(), ROWS, **{**SETTINGS, **options}) as result:
        group, active = result["isometry"], result["overview"]["active"].values
        relative = group["norm_se"].values / group["norm_mean"].values
        assert 0 < relative[active].max() <= 0.08
        assert 100 <= result.attrs["samples"] < 900


def test_a_longer_attempt_adds_shards_and_makes_none_again(
    tried: list[int], probed: list[range]
) -> None:
    with run(samples="auto", tolerance=0.05, batch_size=50) as result:
        assert len(tried) > 1
        assert [i for rows in probed for i in rows] == list(range(result.attrs["samples"]))


def test_it_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probed: list[range]
) -> None:
    out = tmp_path / "r.h5"
    settings = {"samples": "auto", "tolerance": 0.05, "out": out, "batch_size": 50}

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "conclude", killed)
        run(**settings)
    with pytest.raises(ResultError, match="was 0.05, now 0.06"):
        run(**{**settings, "tolerance": 0.06}, resume=True)
    probed.clear()
    with run(**settings, resume=True) as result:
        assert probed == []  # every shard was there
        with run(samples=result.attrs["samples"], batch_size=50) as plain:
            same_decoded(result, plain)


def test_what_the_encoder_says_rests_on_all_rows(probed: list[range]) -> None:
    """Beyond the samples through the encoder alone: the means of a run over every row."""
    with run(samples="auto", tolerance=0.15) as result:
        assert result.attrs["samples"] < result.attrs["encoded"] == len(ROWS)
        assert {i for rows in probed for i in rows} == set(range(result.attrs["samples"]))
        assert any(note.startswith("900 rows encoded") for note in result.attrs["notes"])
        found = {
            ("overview", "kl_mean"),
            ("overview", "rate_se"),
            ("overview", "second_moment_mean"),
            ("overview", "inverse_variance_sd"),
            ("importance", "exact"),
            ("importance", "exact_se"),
            ("importance", "idle_share"),
        }
        with run(samples=None) as whole:
            for group, name in found:
                expected = whole[group][name].values
                np.testing.assert_allclose(result[group][name].values, expected, rtol=1e-9)
        # a residual compares norm and variance of the same samples
        norm, residual = (result["isometry"][f"{n}_mean"].values for n in ("norm", "residual"))
        variance = (result.columns()["std"].values ** 2).mean(0)
        np.testing.assert_allclose(residual, norm + variance - 1, atol=1e-6)


def test_more_rows_are_encoded_where_rates_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = enough.Enough(0.02, 50_000, 10_000)
    assert [asked.encoded(count) for count in (1000, 20_000, 60_000)] == [10_000, 20_000, 50_000]
    for error, wanted in ((0.02, 10_000), (0.03, 30_000), (0.1, 50_000)):
        assert asked.encoded(10_000, enough.Largest("the KL of latent 0", error)) == wanted
    monkeypatch.setattr(enough, "DEFAULT_LIMIT", 200)
    errors_of_rates = iter([0.2, 0.01])
    monkeypatch.setattr(
        merging,
        "largest_rate_error",
        lambda *_: enough.Largest("the KL of latent 0", next(errors_of_rates)),
    )
    with run(samples="auto", tolerance=0.1) as result, run(samples=None) as whole:
        assert (result.attrs["samples"], result.attrs["encoded"]) == (100, 900)
        kl = whole["overview"]["kl_mean"].values
        np.testing.assert_allclose(result["overview"]["kl_mean"].values, kl, rtol=1e-9)


def test_the_default_takes_no_more_than_its_limit(
    tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enough, "DEFAULT_LIMIT", 300)
    monkeypatch.setattr(enough, "TOLERANCE", 1e-4)
    with analyze(model(), ROWS, **SETTINGS) as result:
        assert result.attrs["samples"] == tried[-1] == 300
        assert why(result).startswith("300 samples used: not every standard error")


def test_an_undecided_verdict_takes_samples_that_decide_it() -> None:
    judged = {
        "level": Variable((), np.array("undecided"), ""),
        "answer": Variable(("condition",), np.array(["holds", "cannot tell", "cannot tell"]), ""),
        "size": Variable(("condition",), np.array([0.0, 0.1, 0.19]), ""),
        "error": Variable(("condition",), np.array([0.01, 0.15, 0.2]), ""),
        "tolerance": Variable(("condition",), np.array([0.1, 0.2, 0.2]), ""),
    }
    asked = enough.Enough(0.02, 10**6, 10_000)
    # 1.5 times the room there is needs 2.25 times the samples; the other is out of reach
    assert asked.decided(1000, {"diagnosis": judged}) == 3000
    assert asked.decided(8000, {"diagnosis": judged}) == 8000
    sound = {**judged, "level": Variable((), np.array("sound"), "")}
    assert asked.decided(1000, {"diagnosis": sound}) == 1000
    assert asked.decided(1000, {}) == 1000


def test_what_does_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="tolerance belongs to samples='auto'"):
        run(samples=100, tolerance=0.1)
    with pytest.raises(OptionError, match="tolerance lies between 0 and 1"):
        run(samples="auto", tolerance=1.5)
    with pytest.raises(OptionError, match="samples='auto' needs every sample"):
        analyze_shard(Part(1, 2), model(), ROWS, out=tmp_path / "r.h5", **SETTINGS, samples="auto")


def test_the_next_number_follows_from_the_error() -> None:
    rows = 10**9
    assert more(1000, 2.0, rows) == 5000  # four times as many, rounded up
    assert more(1000, 1.01, rows) == 1500
    assert more(5000, 1.001, rows) == 7000
    assert more(1000, 100.0, rows) == 10_000_000
    assert more(1000, 100.0, 1234) == 1234
    assert more(1000, np.inf, 1234) == 1234  # an error that is not known


def test_the_largest_error_is_named_and_idle_latents_do_not_count() -> None:
    def of(mean: list[float], error: list[float], name: str) -> dict[str, Variable]:
        return {
            f"{name}_mean": Variable(("latent",), np.array(mean), ""),
            f"{name}_se": Variable(("latent",), np.array(error), ""),
        }

    scalar = {
        "distortion_mean": Variable((), np.array(2.0), ""),
        "distortion_se": Variable((), np.array(0.01), ""),
    }
    overview = scalar | of([1.0, 2.0, 0.0], [0.01, 0.1, 0.5], "kl")
    isometry = of([0.9, 0.0, 0.1], [0.09, 0.0, 0.1], "norm")
    active = np.array([True, True, False])
    found = largest_error({"overview": overview, "isometry": isometry}, active, Beta(1.0, "user"))
    assert (found.what, found.error) == ("the norm of latent 0", pytest.approx(0.1))
    found = enough.largest_rate_error(overview, active)
    assert (found.what, found.error) == ("the KL of latent 1", pytest.approx(0.05))
    found = largest_error({"overview": overview}, np.zeros(3, dtype=bool), Beta(1.0, "user"))
    assert (found.what, found.error) == ("the distortion", pytest.approx(0.005))
    assert found.looked_at == "distortion"
    beta = Beta(1.0, "user", recovered=2.0, ci95=(2.0 - 1.998341, 2.0 + 1.998341))
    found = largest_error({"overview": overview, "isometry": isometry}, active, beta)
    assert (found.what, found.error) == ("the recovered beta", pytest.approx(0.5, rel=1e-4))
    assert found.looked_at == "beta, distortion and norm of each used latent (2 of 3)"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from isoprobe.cli import main

    example = Path(__file__).parents[2] / "examples" / "digits.safetensors"
    command = ["analyze", str(example), "--samples", "auto", "--tolerance", "0.5"]
    assert main([*command, "--analysis", "isometry", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["samples"] == 100
    assert main([*command, "--shard", "1/2", "--out", str(tmp_path / "r.h5")]) == 1
    assert "--samples auto needs every sample" in capsys.readouterr().err
