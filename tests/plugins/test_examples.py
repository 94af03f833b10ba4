"""Rows of a result are those of the data, and their reconstructions are the decoder's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.errors import OptionError
from isoprobe_plugins.analyses.examples import DECODED, RANKED, Examples
from isoprobe_plugins.architectures.linear import linear_vae

BETA = 0.3


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(200, 4)) * [3.0, 2.0, 1.0, 0.1]


@pytest.fixture(scope="module")
def vae(x):
    return linear_vae(torch.as_tensor(np.cov(x.T)), BETA, 3)


@pytest.fixture(scope="module")
def result(vae, x):
    asked = {"metric": "sse", "beta": BETA, "analyses": ["examples:rows=5"]}
    with isoprobe.analyze(vae, x, dtype="float64", **asked) as found:
        yield found


def test_rows_and_their_reconstructions_are_what_they_say(result, vae, x):
    group = result["examples"]
    for kind in DECODED + RANKED:
        rows = group[kind].values
        np.testing.assert_allclose(group[f"{kind}_input"].values, x[rows], rtol=1e-6)
    for kind in DECODED:
        rows = group[kind].values
        with torch.no_grad():
            decoded = vae.decode(vae.encode(torch.as_tensor(x[rows])).mean)
        np.testing.assert_allclose(group[f"{kind}_decoded"].values, decoded, rtol=1e-5)


def test_kinds_are_the_extremes_of_the_columns(result):
    group, rows = result["examples"], result.samples(names=["distortion", "kl"])
    loss = rows["distortion"] + BETA * rows["kl"]
    assert group["worst"].values.tolist() == np.argsort(-rows["distortion"])[:5].tolist()
    assert group["likely"].values.tolist() == np.argsort(loss)[:5].tolist()
    assert group["unlikely"].values.tolist() == np.argsort(-loss)[:5].tolist()
    np.testing.assert_allclose(group["likely_objective"].values, np.sort(loss)[:5])
    assert group["spread"].values.tolist() == [0, 40, 80, 120, 160]


def test_samples_of_the_prior_are_decoded_draws(result, vae):
    drawn = result["examples"]["prior"].values
    assert len(drawn) == 10
    # what a linear decoder gives lies in the span of its columns, and draws differ
    with torch.no_grad():
        columns = vae.decode(torch.eye(3, dtype=torch.float64)).numpy()
        zero = vae.decode(torch.zeros(1, 3, dtype=torch.float64)).numpy()
    solved, *_ = np.linalg.lstsq((columns - zero).T, (drawn - zero).T, rcond=None)
    np.testing.assert_allclose((columns - zero).T @ solved, (drawn - zero).T, atol=1e-5)
    assert np.unique(drawn.round(6), axis=0).shape == drawn.shape


def test_without_a_beta_no_row_is_called_likely(vae):
    constant = np.zeros((40, 4))
    with isoprobe.analyze(
        vae, constant, metric="sse", analyses=["examples"], beta="auto", samples=40
    ) as found:
        known = np.isfinite(found.attrs["beta"])
        assert ("likely" in found["examples"]) == known
        assert "worst" in found["examples"]


def test_large_inputs_are_few():
    from types import SimpleNamespace

    setup = SimpleNamespace(vae=SimpleNamespace(input_size=3 * 512 * 512))
    assert Examples()._count(SimpleNamespace(setup=setup)) == 2
    with pytest.raises(OptionError, match="rows >= 1"):
        Examples(rows=0)


def test_walks_are_those_of_all_used_latents(vae, x):
    with isoprobe.analyze(vae, x, metric="sse", beta=BETA, analyses=["traversal"]) as found:
        states = found["importance"]["state"].values
        walked = found["traversal"]["latents"].values
        assert sorted(walked.tolist()) == np.flatnonzero(states != 2).tolist()
