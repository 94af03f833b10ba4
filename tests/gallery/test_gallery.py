"""The gallery holds together: files are there, answers are finite, networks were trained."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import isoprobe
from tests.gallery import first_try, own
from tests.gallery.layouts.make_layouts import ANSWERS, FILES, shelf, write_data
from tests.gallery.layouts.nets import Mlp, Tutorial, as_bce, as_sse
from tests.gallery.layouts.sequences import EachStep, FirstState, Repeated
from tests.gallery.modules import MODULES
from tests.gallery.modules import shelf as modules_shelf
from tests.gallery.own import Own

KNOWN = json.loads(ANSWERS.read_text())
# a figure of 15 % for the beta that the gradients show: training by draws ends near an optimum
NEAR_AN_OPTIMUM = 0.15


def test_every_layout_on_the_shelf_has_its_answers_and_no_other():
    assert list(KNOWN) == list(shelf())
    assert len(KNOWN) >= 40
    assert len(MODULES) >= 20


@pytest.mark.parametrize("name", KNOWN)
def test_the_files_of_a_layout_are_there_and_its_command_names_them(name):
    right = KNOWN[name]
    assert (FILES / right["file"]).exists()
    assert (FILES / right["data"].split(":")[0]).is_file()
    assert right["command"] == f"isoprobe analyze {right['file']} --data {right['data']}"
    assert right["command"] == shelf()[name].command
    if right["right"] == "refused":
        assert right["must_mention"] and right["next_step"]


def test_the_files_stay_small_and_hold_no_paths_of_a_machine():
    files = [path for path in FILES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000
    home = str(Path(__file__).resolve().parents[2]).encode()
    assert not [path.name for path in files if home in path.read_bytes()]


@pytest.mark.parametrize("name", KNOWN)
def test_answers_are_finite_and_the_network_is_near_its_optimum(name):
    right = KNOWN[name]
    assert right["latents"] > 0
    for place in ("mean", "draws"):
        assert right["metric"] in right[f"distortion_at_{place}"]
        assert all(math.isfinite(v) for v in right[f"distortion_at_{place}"].values())
    if right["kl"] is None:
        return
    assert math.isfinite(right["kl"]) and right["kl"] > 0.5  # it has learnt something
    at_mean, at_draws = (right[f"distortion_at_{p}"][right["metric"]] for p in ("mean", "draws"))
    assert at_mean < at_draws
    # E[sigma eps dD/dz] = beta (1 - P), pooled: the residual of the network's own objective
    assert right["beta_by_gradients"] == pytest.approx(right["beta"], rel=NEAR_AN_OPTIMUM)


def test_another_prior_is_no_standard_normal():
    """Else a rate to N(0, I) would pass for the right one."""
    for name in ("learnt_prior", "mixture_prior", "vamp_prior"):
        right = KNOWN[name]
        gap = abs(right["kl_to_standard_normal"] / right["kl"] - 1)
        assert gap > 2 * right["relative_tolerance"]["kl"], name


def loaded(network: nn.Module, file: str, *keys: str) -> nn.Module:
    state = torch.load(FILES / file, weights_only=True)
    for key in keys:
        state = state[key]
    network.load_state_dict(state)
    return network.eval()


def table_net() -> Mlp:
    return Mlp(12, 24, 4, output=None)


READ_AGAIN = {
    "tutorial_mlp": lambda: as_bce(loaded(Tutorial(), "tutorial_mlp.pt"), own.digits()[0]),
    "tutorial_extras": lambda: as_bce(
        loaded(Tutorial(latent=8), "tutorial_extras.pth", "model_state_dict"),
        own.digits()[0], 0.4,
    ),
    "half": lambda: as_bce(loaded(Mlp(), "half.pt"), own.digits()[0]),
    "net_key": lambda: as_bce(loaded(Mlp(), "net_key.tar", "net"), own.digits()[0]),
    "params_key": lambda: as_bce(loaded(Mlp(), "params_key.pth", "vae", "params"), own.digits()[0]),
    "ema_beside": lambda: as_bce(loaded(Mlp(), "ema_beside.pt", "ema"), own.digits()[0]),
    "state_key": lambda: as_sse(loaded(table_net(), "state_key.pth", "state"), own.table(), 0.5),
    "lstm_repeated": lambda: as_sse(loaded(Repeated(), "lstm_repeated.pt"), own.series(), 0.5),
    "gru_first_state": lambda: as_sse(
        loaded(FirstState(), "gru_first_state.pt"), own.series(), 0.5
    ),
    "lstm_each_step": lambda: as_sse(loaded(EachStep(), "lstm_each_step.pt"), own.series(), 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", READ_AGAIN)
def test_the_files_hold_the_networks_that_the_answers_are_of(name):
    found, right = own.answers(READ_AGAIN[name](), pairs=2), KNOWN[name]
    assert found["latents"] == right["latents"]
    assert found["kl"] == pytest.approx(right["kl"], rel=1e-4)
    metric = right["metric"]
    assert found["distortion_at_mean"][metric] == pytest.approx(
        right["distortion_at_mean"][metric], rel=1e-4
    )


def test_the_raw_weights_beside_averaged_ones_give_another_rate():
    raw = own.answers(as_bce(loaded(Mlp(), "ema_beside.pt", "model"), own.digits()[0]), pairs=1)
    right = KNOWN["ema_beside"]
    assert abs(raw["kl"] / right["kl"] - 1) > 5 * right["relative_tolerance"]["kl"]


def test_the_data_files_are_those_that_the_networks_saw(tmp_path):
    import numpy as np

    write_data(tmp_path)
    for path in tmp_path.iterdir():
        if path.suffix == ".csv":
            assert path.read_text() == (FILES / path.name).read_text()
        elif path.suffix == ".npy":
            np.testing.assert_array_equal(np.load(path), np.load(FILES / path.name))
        else:
            with np.load(path) as made, np.load(FILES / path.name) as kept:
                for key in made:
                    np.testing.assert_array_equal(made[key], kept[key])


# -- live modules -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_trained_to_near_its_optimum(name):
    made = MODULES[name].make()
    made.module.eval()
    found = own.answers(made.reading, pairs=4)
    assert math.isfinite(found["kl"]) and found["kl"] > 0.5
    assert found["beta_by_gradients"] == pytest.approx(found["beta"], rel=NEAR_AN_OPTIMUM)


# -- the first try: the judge itself --------------------------------------------------------


def as_reported(right: dict, **changes: object) -> dict:
    said = {
        "latents": right["latents"],
        "kl": right["kl"],
        "distortion": right["distortion_at_draws"][right["metric"]],
        "metric": right["metric"],
        "beta": right["beta"],
    }
    return {**said, **changes}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, first_try.TRUE),
        ({"beta": None}, first_try.TRUE),
        ({"beta": 1.5}, first_try.WRONG),
        ({"kl": 1.0}, first_try.WRONG),
        ({"latents": 12}, first_try.WRONG),
        ({"distortion": 40.0}, first_try.WRONG),
        ({"metric": "ssim", "distortion": 0.3, "beta": 9.0}, first_try.OTHER_METRIC),
    ],
)
def test_the_judge_tells_right_from_wrong(changes, state):
    right = KNOWN["tutorial_mlp"]
    assert first_try.judge(as_reported(right, **changes), right)[0] == state


def test_the_next_command_is_what_a_message_names():
    right = KNOWN["half"]
    first = right["command"]
    whole = "Error: no.\nTry 'isoprobe analyze half.pt --data digits.npy --metric bce'"
    assert first_try.next_command(whole, first, right) == f"{first} --metric bce"
    assert first_try.next_command("say --metric NAME", first, right) == f"{first} --metric bce"
    doctor = first_try.next_command("as 'isoprobe doctor' finds out", first, right)
    assert doctor == "isoprobe doctor half.pt --data digits.npy --out half.toml"
    assert first_try.next_command("it is broken", first, right) is None


def test_a_page_keeps_the_columns_of_earlier_runs(tmp_path):
    page = tmp_path / "first-try.md"
    one = {"a": ("words", first_try.Outcome(first_try.TRUE))}
    two = {"a": ("words", first_try.Outcome(first_try.WRONG, "KL 1, right | 2"))}
    first_try.write("first", one, one, page)
    first_try.write("last", two, one, page)
    text = page.read_text()
    assert "| a | words | true | WRONG: KL 1, right / 2 |" in text
    assert text.count("first: 1 true.") == 2
    before = text
    first_try.write("last", two, one, page)
    assert page.read_text() == before
    shutil.rmtree(tmp_path)


def test_an_own_reading_is_exact_where_the_answer_is_known():
    """A linear decoder of one latent, its posterior at the optimum: 1 - sigma^2 in closed form."""
    beta, weight = 0.5, torch.tensor([[2.0]])
    std = math.sqrt(beta / (beta + 2 * 4.0))  # sigma^-2 = 1 + (2 / beta) w^2
    x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    reading = Own(
        lambda rows, _c: (rows * 0.4, torch.full_like(rows, std)),
        lambda z, _c: z @ weight, own.sse, "sse", beta, x,
    )  # fmt: skip
    found = own.answers(reading, pairs=200)
    assert found["beta_by_gradients"] == pytest.approx(beta, rel=0.02)
    expected = 0.5 * (0.16 * x.square().mean() + std**2 - 1 - 2 * math.log(std))
    assert found["kl"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_comes_back_to_the_bit_and_goes_on_training_as_its_twin(name, monkeypatch):
    """Read or refused: neither leaves a trace."""
    monkeypatch.setattr(modules_shelf, "STEPS", 20)
    one, twin = MODULES[name].make(), MODULES[name].make()
    assert same_bits(one.module, twin.module)
    flags = [part.training for part in one.module.modules()]
    random = torch.get_rng_state()
    with contextlib.suppress(isoprobe.IsoprobeError):
        isoprobe.analyze(
            one.module, one.rows, metric=MODULES[name].metric, samples=32, analyses=["isometry"]
        ).close()
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for part in one.module.modules()] == flags
    assert same_bits(one.module, twin.module)
    for made in (one, twin):
        own.seed("next step")
        own.fit(made.module, made.reading, steps=2)
    assert same_bits(one.module, twin.module)


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    return all(torch.equal(left[k], right[k]) for k in left)
