"""SCVI of scvi-tools, trained and saved by it: its own KL, likelihoods and posteriors.

``train.py`` beside the files wrote them, with what scvi-tools 1.4.2 says of the first 20 cells.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError, DataError, IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe_plugins.adapters.scvi.saved import declared, read_saved

FILES = Path(os.environ.get("ISOPROBE_SCVI", Path(__file__).parent / "scvi"))
CELLS = f"{FILES}/cells.h5ad:X,batch"
LIKELIHOODS = ("nb", "zinb")


def first_cells() -> tuple[torch.Tensor, np.ndarray]:
    opened = installed().data(CELLS)
    try:
        index = np.arange(20)
        labels = opened.labels(index)
        assert labels is not None
        return torch.from_numpy(opened.read(index)), labels
    finally:
        opened.close()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("place", ["scvi_{}", "scvi_{}/model.pt"])
def test_posterior_kl_and_likelihood_are_scvi_tools_own(likelihood: str, place: str) -> None:
    right = json.loads((FILES / f"{likelihood}.json").read_text())
    vae = isoprobe.load(FILES / place.format(likelihood))
    assert vae.adapter == "scvi"
    assert vae.conditional is not None
    x, batch = first_cells()
    codes = torch.tensor([[vae.conditional.names[0].index(name)] for name in batch])
    bound = vae.on(x, codes)
    assert bound.encode is not None
    assert bound.decode_parameters is not None
    posterior = bound.encode(x)
    np.testing.assert_allclose(posterior.mean, right["mean"], atol=1e-6)
    np.testing.assert_allclose(posterior.std, right["std"], atol=1e-6)
    z = posterior.mean + 0.5 * posterior.std  # where train.py took the likelihood
    found = -installed().metric(likelihood).distortion(x, bound.decode_parameters(z))
    np.testing.assert_allclose(found, right["log_likelihood"], atol=1e-4)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_an_analysis_gives_scvi_tools_kl_and_elbo(likelihood: str) -> None:
    right = json.loads((FILES / f"{likelihood}.json").read_text())
    found = isoprobe.analyze(
        FILES / f"scvi_{likelihood}", CELLS, samples=None, analyses=("isometry", "diagnosis")
    )
    overview = found["overview"]
    assert float(overview["rate_mean"].values) == pytest.approx(right["kl_mean"], abs=1e-5)
    # get_elbo draws once from each posterior, so it is met within the spread of such a draw
    elbo = -float(overview["distortion_mean"].values) - float(overview["rate_mean"].values)
    assert elbo == pytest.approx(right["elbo"], abs=0.3)
    assert found.attrs["metric"] == likelihood
    assert found.attrs["beta_recovered"] == pytest.approx(1.0, abs=0.25)


def test_batches_are_known_by_name_and_library_size_by_the_counts() -> None:
    vae = isoprobe.load(FILES / "scvi_nb")
    assert vae.conditional is not None
    assert vae.conditional.names == (("a", "b"),)
    x, _ = first_cells()
    one = isoprobe.analyze(FILES / "scvi_nb", f"{FILES}/cells.h5ad", samples=20, condition=1.0)
    told = vae.on(x, torch.ones(20, 1))
    assert told.given is not None
    np.testing.assert_allclose(told.given[:, 1], x.sum(1))
    assert one.attrs["samples"] == 20
    with pytest.raises(DataError, match="has no labels"):
        isoprobe.analyze(FILES / "scvi_nb", f"{FILES}/cells.h5ad", samples=20)


def relabelled(file: h5py.File) -> None:
    names = file["obs/batch/categories"][()]
    names[1] = b"c"
    file["obs/batch/categories"][...] = names


def changed(tmp_path: Path, change: object) -> Path:
    path = tmp_path / "changed.h5ad"
    path.write_bytes((FILES / "cells.h5ad").read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)  # type: ignore[operator]
    return path


def swapped(file: h5py.File) -> None:
    names = file["var"][file["var"].attrs["_index"]][()]
    names[[0, 1]] = names[[1, 0]]
    file["var"][file["var"].attrs["_index"]][...] = names


def renamed(file: h5py.File) -> None:
    index = file["var"].attrs["_index"]
    names = file["var"][index][()]
    names[3] = b"other"
    file["var"][index][...] = names


def by_columns(file: h5py.File) -> None:
    file["X"].attrs["encoding-type"] = "csc_matrix"


def emptied(file: h5py.File) -> None:
    file["obs/batch/codes"][7] = -1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, "another order"),
        (renamed, "lacks 1 of the 24 inputs"),
        (by_columns, "tocsr"),
        (emptied, "is empty in row 7"),
        (relabelled, "knows a, b; found 'c'"),
        (lambda file: file.__delitem__("obs/batch"), "no column 'batch' of obs"),
        (lambda file: file.__delitem__("X"), "no matrix 'X'"),
        (lambda file: file.__delitem__("var"), "no table 'var'"),
    ],
)
def test_cells_that_do_not_fit_are_said(tmp_path: Path, change: object, words: str) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(IsoprobeError, match=words) as caught:
        isoprobe.analyze(FILES / "scvi_nb", f"{path}:X,batch", samples=20)
    assert "\n" not in str(caught.value)


def test_cells_are_those_that_anndata_reads(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    whole = anndata.read_h5ad(FILES / "cells.h5ad")
    dense = tmp_path / "dense.h5ad"
    whole.layers["counts"] = whole.X.toarray()
    with h5py.File(FILES / "cells.h5ad") as file, h5py.File(dense, "w") as other:
        for name in ("var", "obs"):
            file.copy(name, other)
        other.attrs["encoding-type"] = "anndata"
        other["X"] = whole.X.toarray()
        other["layers/counts"] = whole.X.toarray() + 1
    index = np.array([0, 3, 4, 5, 299])
    for spec, expected in (
        (f"{FILES}/cells.h5ad", whole.X.toarray()),
        (f"{dense}:X,kind", whole.X.toarray()),
        (f"{dense}:layers/counts", whole.X.toarray() + 1),
    ):
        opened = installed().data(spec)
        np.testing.assert_array_equal(opened.read(index), expected[index])
        assert opened.columns == tuple(whole.var_names)
        opened.close()
    labelled = installed().data(f"{dense}:X,kind")
    np.testing.assert_array_equal(labelled.labels(index), whole.obs["kind"].to_numpy()[index])
    labelled.close()


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("gene_likelihood", "poisson", "gene_likelihood=poisson"),
        ("dispersion", "gene-batch", "dispersion=gene-batch"),
        ("latent_distribution", "ln", "latent_distribution=ln"),
        ("use_observed_lib_size", False, "use_observed_lib_size=False"),
        ("batch_representation", "embedding", "batch_representation=embedding"),
        ("covariates", "extra_continuous_covs", "batch and library size alone"),
    ],
)
def test_another_setting_is_refused_by_name(setting: str, value: object, words: str) -> None:
    saved = read_saved(Source(FILES / "scvi_nb" / "model.pt"))
    declared(saved)
    with pytest.raises(CheckpointError, match=words):
        declared(replace(saved, settings={**saved.settings, setting: value}))
    with pytest.raises(CheckpointError, match="is TOTALVI of scvi-tools"):
        declared(replace(saved, model="TOTALVI"))
