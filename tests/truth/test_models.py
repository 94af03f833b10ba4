from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import isoprobe
from benchmarks.truth import cases, losses
from benchmarks.truth.data import SETS, MissingDataError, rows
from benchmarks.truth.implied import betas, of_model, tells
from benchmarks.truth.recipes import BASES, OBJECTIVES, RECIPES, SHAPES, SOUND, recipe
from benchmarks.truth.train import MODELS, read_manifest

GENERATED = ("toy", "spiral", "linear", "heavy", "wave")


def test_the_manifest_lists_the_files_and_the_recipes() -> None:
    entries = read_manifest()
    files = {path.stem for path in MODELS.glob("*.safetensors")}
    assert files == set(entries) == {r.name for r in RECIPES}
    for r in RECIPES:
        entry = entries[r.name]
        assert (entry["data"], entry["loss"], entry["beta"]) == (r.data, r.loss, r.beta)
        assert (entry["seed"], entry["latents"]) == (r.seed, r.latents)
        assert entry["objective"] == r.objective


def test_there_are_enough_models_in_few_bytes() -> None:
    assert len(SOUND) >= 30
    assert sum(path.stat().st_size for path in MODELS.iterdir()) <= 20 * 2**20
    assert {0.01, 0.1, 0.5, 1.0, 4.0, 10.0} <= {r.beta for r in SOUND}


def test_names_losses_and_objectives_exist() -> None:
    cases.check()
    assert len({r.name for r in RECIPES}) == len(RECIPES)
    assert {r.objective for r in RECIPES if r.of in BASES} >= set(OBJECTIVES)


def test_sound_models_were_trained_to_the_end_of_a_falling_rate() -> None:
    entries = read_manifest()
    assert {entries[r.name]["ended"] for r in SOUND} == {"rate fell to zero", "closed form"}


@pytest.mark.parametrize("name", [r.name for r in SOUND if r.data in GENERATED])
def test_a_file_holds_what_the_manifest_says_of_it(name: str) -> None:
    entry = read_manifest()[name]
    vae = isoprobe.load(MODELS / f"{name}.safetensors")
    assert vae.facts.metric == entry["metric"]
    assert vae.facts.beta == entry["beta"]
    with torch.no_grad():
        posterior = vae.encode(torch.from_numpy(rows(entry["data"]).train[:2000].copy()))
    mean, std = posterior.mean, posterior.std
    rates = (0.5 * (mean**2 + std**2 - 1) - std.log()).mean(0)
    assert rates.numpy() == pytest.approx(np.array(entry["rates"]), abs=2e-3)


def test_each_model_shows_its_own_beta_under_its_own_metric() -> None:
    for r in SOUND:
        shown = betas()[r.name]
        if r.loss == "gaussian":
            sigma2 = float(read_manifest()[r.name]["metric"].partition("sigma2=")[2])
            assert shown["sse"] / (2 * sigma2) == pytest.approx(r.beta, rel=0.04)
        elif r.loss != "logcosh":  # which is none of the metrics that are declared wrongly
            assert shown[r.loss] == pytest.approx(r.beta, rel=0.04)
            assert not tells(r, r.loss)


def test_the_committed_betas_are_those_of_the_weights() -> None:
    assert set(betas()) == {r.name for r in SOUND}
    r = recipe("linear-sse-1")
    assert of_model(r) == pytest.approx(betas()[r.name], rel=1e-3)
    assert betas()[r.name]["sse"] == pytest.approx(2 * betas()[r.name]["gaussian"], rel=1e-3)


def test_snapshots_are_worse_than_the_model_they_come_from() -> None:
    entries = read_manifest()
    for base in BASES:
        early = [entries[f"{base}+{share}"]["loss_train"] for share in ("one-epoch", "10%")]
        assert min(early) > entries[base]["loss_train"]


def test_the_split_is_the_committed_one() -> None:
    assert json.loads(cases.SPLIT.read_text()) == cases.split()


def test_both_halves_have_models_of_many_kinds() -> None:
    for half in (1, 2):
        own = [r for r in SOUND if cases.half(r.triple) == half]
        assert len(own) >= 12
        assert {"sse", "bce", "l1", "gaussian"} <= {r.loss for r in own}
        assert {"mnist", "fashion", "digits", "toy", "linear", "spiral", "heavy"} <= {
            r.data for r in own
        }
        assert {"dense", "conv"} <= {r.net for r in own}


def test_a_triple_stands_in_one_half_whatever_its_seed_and_beta() -> None:
    for r in RECIPES:
        if r.of:
            assert cases.half(r.triple) == cases.half(recipe(r.of).triple)


@pytest.mark.parametrize("name", sorted(SETS))
@pytest.mark.usefixtures("shared")
def test_rows_have_their_shape_and_are_the_same_each_time(name: str) -> None:
    found = rows(name)
    assert found.train.shape[1:] == found.test.shape[1:] == SHAPES[name]
    assert found.train.dtype == found.test.dtype == np.float32
    if found.unit:
        assert 0 <= found.train.min() < found.train.max() <= 1
    again = SETS[name]()
    assert np.array_equal(again.train, found.train)
    assert not np.array_equal(again.train[: len(again.test)], again.test[: len(again.train)])


def test_rows_of_a_missing_file_are_missing(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ISOPROBE_SHARED", str(tmp_path))
    with pytest.raises(MissingDataError, match="odds_thyroid"):
        SETS["thyroid"]()


def test_linear_data_have_their_spectrum() -> None:
    values = np.linalg.eigvalsh(np.cov(rows("linear").train.T))[::-1]
    assert values[:5] == pytest.approx([40, 8, 2, 1, 0.5], rel=0.06)
    assert values[5:] == pytest.approx(np.full(11, 0.0025), rel=0.15)


# --------------------------------------------------------------------------- losses


def drawn(**changes) -> losses.Draw:
    torch.manual_seed(0)
    mean, std = torch.randn(6, 3).double(), torch.rand(6, 3).double() + 0.1
    z = mean + std * torch.randn(6, 3)
    settings = {"beta": 0.7, "progress": 0.4, "target": 0.0, **changes}
    return losses.Draw(mean, std, z, lambda z: z.square().sum(1), **settings)


@pytest.mark.parametrize(("center", "variance"), [(0.0, 1.0), (3.0, 0.25), (0.0, 4.0)])
def test_the_kl_is_that_of_two_normals(center: float, variance: float) -> None:
    d = drawn()
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(
        normal(d.mean, d.std), normal(torch.tensor(center).double(), variance**0.5)
    )
    assert torch.allclose(d.kl(center, variance), wanted, atol=1e-10)


def test_distortions_equal_torch() -> None:
    torch.manual_seed(1)
    x, y = torch.rand(5, 4, 4), torch.randn(5, 4, 4)
    functional = torch.nn.functional
    pairs = {
        "sse": functional.mse_loss(y, x, reduction="none"),
        "l1": functional.l1_loss(y, x, reduction="none"),
        "bce": functional.binary_cross_entropy_with_logits(y, x, reduction="none"),
        "logcosh": (x - y).cosh().log(),
    }
    for name, wanted in pairs.items():
        found = losses.LOSSES[name][1](x, y)
        assert torch.allclose(found, wanted.flatten(1).sum(1), atol=1e-4), name
    assert torch.allclose(losses.LOSSES["mse"][1](x, y) * 16, losses.LOSSES["sse"][1](x, y))


def test_other_objectives_meet_the_beta_vae_where_they_should() -> None:
    plain = losses.OBJECTIVES["beta-vae"]
    objectives = losses.OBJECTIVES
    assert objectives["annealing"](drawn(progress=1.0)) == plain(drawn())
    assert objectives["free-bits"](drawn()) == pytest.approx(float(plain(drawn())))
    d = drawn()
    floor = float(d.kl().mean(0).max()) + 1
    capped = objectives["free-bits"](drawn(target=floor))
    assert capped == pytest.approx(float(d.plain()) + 0.7 * 3 * floor)
    reached = drawn(target=float(d.kl().sum(1).mean()))
    assert objectives["capacity"](reached) == pytest.approx(float(d.plain()), abs=1e-6)
    less = plain(d) - objectives["own-beta"](d)
    assert less == pytest.approx(0.7 * (1 - losses.OWN) * float(d.kl().mean(0)[0]))


def test_the_importance_weighted_bound_is_no_looser() -> None:
    torch.manual_seed(2)
    d = drawn()
    single = [
        d.distort(z).mean()
        + d.beta
        * (losses.log_normal(z, d.mean, d.std) - losses.log_normal(z, 0 * z, 0 * z + 1))
        .sum(1)
        .mean()
        for z in (d.mean + d.std * torch.randn_like(d.std) for _ in range(200))
    ]
    bounds = [losses.OBJECTIVES["iwae"](d) for _ in range(200)]
    assert torch.stack(bounds).mean() < torch.stack(single).mean()


def test_a_mixture_prior_is_charged_by_its_density() -> None:
    d = drawn()
    normal = torch.distributions.Normal
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)),
        normal(torch.tensor([-1.5, 1.5]).double(), 0.5),
    )
    rate = (normal(d.mean, d.std).log_prob(d.z) - mixture.log_prob(d.z)).sum(1).mean()
    found = losses.OBJECTIVES["mixture-prior"](d)
    assert found == pytest.approx(float(d.plain() + 0.7 * rate))
