"""Latents are matched by what they do; what a comparison says follows from closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

import isoprobe
from isoprobe.cli.compare import compare as command
from isoprobe.cli.group import cli
from isoprobe.contracts import VAE, Posterior
from isoprobe.errors import ResultError
from isoprobe.show.compare import compare
from isoprobe.show.matching import match, strongest_pairs
from isoprobe_plugins.architectures.linear import linear_vae
from tests.made import VARIANCES, made_result, rows

PERMUTATION, SIGNS = [2, 0, 1, 3], np.array([1, -1, -1, 1])


def opened(stack, path, **options):
    result = made_result(path, **options)
    stack.append(result)
    return result


@pytest.fixture
def stack():
    results = []
    yield results
    for result in results:
        result.close()


@given(st.permutations(range(6)), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_a_permutation_is_found_under_any_noise_weaker_than_it(order, seed):
    strength = np.random.default_rng(seed).uniform(0, 0.6, (6, 6))
    strength[np.arange(6), order] += 0.7
    assert strongest_pairs(strength, 0.5) == tuple(enumerate(order))


def test_weak_pairs_are_none():
    assert strongest_pairs(np.array([[0.9, 0.4], [0.3, 0.2]]), 0.5) == ((0, 0),)
    assert strongest_pairs(np.zeros((0, 3)), 0.5) == ()


def test_permuted_and_flipped_latents_are_matched(stack, tmp_path):
    y = rows(20_000)  # more than are read at once
    ours = opened(stack, tmp_path / "a.h5", y=y, beta=0.1)
    mixed = (y * SIGNS)[:, PERMUTATION]
    theirs = opened(stack, tmp_path / "b.h5", y=mixed, variances=VARIANCES[PERMUTATION], beta=0.1)
    matching = match(ours, theirs)
    pairs = {int(matching.reference[i]): int(matching.other[j]) for i, j in matching.pairs}
    assert pairs == {PERMUTATION[new]: new for new in range(4)}
    found = {int(matching.reference[i]): matching.correlations[i, j] for i, j in matching.pairs}
    assert found == pytest.approx(dict(enumerate(SIGNS)))
    oracle = np.corrcoef(y[:, matching.reference].T, mixed[:, matching.other].T)[:4, 4:]
    np.testing.assert_allclose(matching.correlations, oracle, atol=1e-12)


def test_means_far_from_zero_lose_no_digits(stack, tmp_path):
    y = rows(9000)
    ours = opened(stack, tmp_path / "a.h5", y=y + 1e6, beta=0.1)
    theirs = opened(stack, tmp_path / "b.h5", y=y - 1e6, beta=0.1)
    np.testing.assert_allclose(np.diag(match(ours, theirs).correlations), 1, atol=1e-9)


def test_what_all_of_the_others_latents_explain_is_the_regression(stack, tmp_path):
    y = rows(500)
    other = y @ np.random.default_rng(1).normal(size=(4, 4)) + rows(500, seed=2)
    ours = opened(stack, tmp_path / "a.h5", y=y, beta=0.1)
    theirs = opened(stack, tmp_path / "b.h5", y=other, beta=0.1)
    matching = match(ours, theirs)
    for place, latent in enumerate(matching.reference):
        score = LinearRegression().fit(other, y[:, latent]).score(other, y[:, latent])
        assert matching.explained[place] == pytest.approx(score, abs=1e-10)


@pytest.mark.parametrize("differing", [{"data_fingerprint": "other"}, {"samples": 100}])
def test_other_data_are_not_matched_and_said_so(stack, tmp_path, differing):
    ours = opened(stack, tmp_path / "a.h5")
    theirs = opened(stack, tmp_path / "b.h5", **differing)
    with pytest.raises(ResultError, match="common samples"):
        match(ours, theirs)
    (against,) = compare([ours, theirs]).matchings
    assert against.pairs == ()
    assert next(iter(differing)) in against.says[0]


# --------------------------------------------------------------------------- linear VAEs

EIGENVALUES = np.array([4.0, 2.0, 1.0, 0.5, 0.3])
LOW, HIGH = 0.02, 0.8  # at HIGH water-filling drowns the last dimension: 0.3 < 0.4


def covariance() -> np.ndarray:
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    return basis @ np.diag(EIGENVALUES) @ basis.T


def trained_again(vae: VAE) -> VAE:
    """The same optimum as another training might find it: latents in other places and signs."""
    order, signs = [3, 0, 4, 1, 2], torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)
    back = np.argsort(order)

    def encode(x):
        q = vae.encode(x)
        return Posterior((q.mean * signs)[:, order], q.std[:, order])

    return VAE(
        decode=lambda z: vae.decode(z[:, back] * signs),
        encode=encode,
        input_shape=vae.input_shape,
        latent_shape=vae.latent_shape,
        module=vae.module,
        facts=vae.facts,
    )


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainings")
    x = np.random.default_rng(1).multivariate_normal(np.zeros(5), covariance(), 3000)
    low = linear_vae(torch.as_tensor(covariance()), LOW, latent_size=5)
    high = linear_vae(torch.as_tensor(covariance()), HIGH, latent_size=5)
    models = {"one": low, "two": trained_again(low), "high": trained_again(high)}
    for name, vae in models.items():
        isoprobe.analyze(
            vae,
            x,
            metric="sse",
            samples=None,
            analyses=["isometry", "importance", "coordinates"],
            out=folder / f"{name}.h5",
        ).close()
    return folder


def compared(folder, *names):
    from isoprobe.results.reader import Result

    results = [Result.open(folder / f"{name}.h5") for name in names]
    try:
        return compare(results)
    finally:
        for result in results:
            result.close()


def test_two_trainings_of_one_model_agree(trainings):
    found = compared(trainings, "one", "two")
    (against,) = found.matchings
    assert [pair.reference for pair in against.pairs] == [0, 1, 2, 3, 4]
    assert [pair.other for pair in against.pairs] == [1, 3, 4, 0, 2]
    assert all(abs(pair.correlation) == pytest.approx(1, abs=1e-6) for pair in against.pairs)
    assert any("agree" in said for said in against.says)
    np.testing.assert_allclose(found.models[0].importances, EIGENVALUES, rtol=0.1)
    np.testing.assert_allclose(found.models[0].importances, found.models[1].importances, rtol=1e-6)


def test_another_beta_loses_the_dimensions_that_water_filling_predicts(trainings):
    (against,) = compared(trainings, "one", "high").matchings
    lost = [pair.reference for pair in against.pairs if pair.other is None]
    assert lost == [pair.reference for pair in against.pairs if not pair.stays] == [4]
    assert any("loss of latents 4: as found" in said for said in against.says)
    assert not any("agree" in said for said in against.says)
    assert against.pairs[-1].explained < 0.01  # lost, not rotated


def test_losses_that_were_not_predicted_are_told(stack, tmp_path):
    y = rows(500)
    drowned = np.array([1e-3, *VARIANCES[1:]])  # latent 0 has gone, at a beta that spares it
    ours = opened(stack, tmp_path / "a.h5", y=y, beta=0.1)
    theirs = opened(stack, tmp_path / "b.h5", y=y, beta=0.15, variances=drowned)
    (against,) = compare([ours, theirs]).matchings
    assert any("no loss of latents; lost are 0" in said for said in against.says)


def test_rotated_latents_are_told_from_lost_ones(stack, tmp_path):
    standard = rows(2000) / np.sqrt(VARIANCES)
    hadamard = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    ours = opened(stack, tmp_path / "a.h5", y=standard, beta=0.1)
    theirs = opened(stack, tmp_path / "b.h5", y=standard @ hadamard, beta=0.1)
    matching = match(ours, theirs)
    np.testing.assert_allclose(matching.explained, 1)
    (against,) = compare([ours, theirs]).matchings
    lost = [pair.reference for pair in against.pairs if pair.other is None]
    assert lost
    assert any("rotated" in said for said in against.says)


# --------------------------------------------------------------------------- the command


def run(*arguments):
    return CliRunner().invoke(
        cli, [str(command.name), *(str(a) for a in arguments)], catch_exceptions=False
    )


def test_the_command_prints_tables(trainings):
    done = run(trainings / "one.h5", trainings / "high.h5")
    assert done.exit_code == 0
    assert "active latents" in done.output
    lines = done.output.splitlines()
    assert any(line.split()[:2] == ["beta", "0.02"] for line in lines)
    assert max(map(len, (line for line in lines if line.startswith("latent")))) < 100


def test_the_command_writes_json(trainings):
    document = json.loads(run(trainings / "one.h5", trainings / "high.h5", "--json").output)
    assert [model["active"] for model in document["models"]] == [5, 4]
    assert document["matchings"][0]["pairs"][4]["other"] is None


def test_the_command_writes_a_page(trainings, tmp_path):
    page = tmp_path / "c.html"
    run(trainings / "one.h5", trainings / "two.h5", trainings / "high.h5", "--html", page)
    text = page.read_text("utf-8")
    assert text.count('class="sortable"') == 2
    assert text.count("<svg") == 4  # spectra, rates, and a matching for each of two
    with pytest.raises(ResultError, match="overwrite=True"):
        run(trainings / "one.h5", trainings / "two.h5", "--html", page)


def test_one_result_is_nothing_to_compare(trainings):
    assert run(trainings / "one.h5").exit_code == 2


def test_texts_of_files_are_escaped_in_the_page(stack, tmp_path):
    from isoprobe.show.report import compared_page

    results = [opened(stack, tmp_path / f"{n}.h5", model="<script>x</script>") for n in "ab"]
    page = compared_page(results, compare(results))
    assert page.count("<script") == 1
    assert "&lt;script&gt;" in page


def test_files_of_one_name_are_told_apart(stack, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    results = [opened(stack, tmp_path / folder / "r.h5") for folder in ("x", "y")]
    assert [model.name for model in compare(results).models] == ["x/r", "y/r"]
