"""Train and save the models beside, with scvi-tools' own figures: ``python train.py FOLDER``.

scvi-tools is no dependency of the tests: ``make scvi`` installs it aside, trains anew, and holds
the reader to what it says then.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse
import scvi
import torch

CELLS, GENES, BATCHES = 300, 24, 2


def counts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts ``(cells, genes)`` of three kinds of cells in two batches, with both numbers."""
    rng = np.random.default_rng(0)
    kinds, batch = rng.integers(0, 3, CELLS), rng.integers(0, BATCHES, CELLS)
    logits, shift = rng.normal(0, 1, (3, GENES)), rng.normal(0, 0.5, (BATCHES, GENES))
    share = np.exp(logits[kinds] + shift[batch])
    library = rng.lognormal(np.log(200), 0.3, CELLS)
    mean = library[:, None] * share / share.sum(1, keepdims=True)
    x = rng.poisson(rng.gamma(3.0, mean / 3.0))
    x[rng.random(x.shape) < 0.05] = 0
    x[x.sum(1) == 0, 0] = 1
    return x.astype(np.float32), kinds, batch


def table(x: np.ndarray, kinds: np.ndarray, batch: np.ndarray) -> anndata.AnnData:
    """The cells as scvi-tools takes them."""
    names = pd.Categorical([("a", "b")[number] for number in batch])
    obs = pd.DataFrame({"batch": names, "kind": kinds}, index=[f"cell{i}" for i in range(CELLS)])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(GENES)])
    return anndata.AnnData(scipy.sparse.csr_matrix(x), obs=obs, var=var)


@torch.no_grad()
def figures(model: scvi.model.SCVI, x: np.ndarray, batch: np.ndarray) -> dict[str, object]:
    """Posteriors, KL, and the likelihood half a sigma from the mean, of the first 20 cells."""
    module = model.module.eval()
    rows = torch.from_numpy(x)
    labels = torch.zeros(len(x), 1, dtype=torch.long)
    tensors = {"X": rows, "batch": torch.from_numpy(batch)[:, None], "labels": labels}
    found = module.inference(**module._get_inference_input(tensors))
    posterior = found["qz"]
    at = {**found, "z": posterior.loc + 0.5 * posterior.scale}
    given = module.generative(**module._get_generative_input(tensors, at))
    kl = torch.distributions.kl_divergence(posterior, given["pz"]).sum(-1).double()
    likelihood = given["px"].log_prob(rows).sum(-1).double()
    return {
        "kl": kl[:20].tolist(),
        "kl_mean": float(kl.mean()),
        "log_likelihood": likelihood[:20].tolist(),
        "mean": posterior.loc[:20].double().tolist(),
        "std": posterior.scale[:20].double().tolist(),
        "elbo": float(model.get_elbo()),
        "scvi": scvi.__version__,
    }


def main(folder: Path) -> None:
    """Train one model of each likelihood."""
    pd.options.future.infer_string = False
    scvi.settings.seed = 0
    x, kinds, batch = counts()
    table(x, kinds, batch).write_h5ad(folder / "cells.h5ad", compression="gzip")
    for likelihood in ("nb", "zinb"):
        cells = table(x, kinds, batch)
        scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
        model = scvi.model.SCVI(
            cells, n_hidden=16, n_latent=3, n_layers=1, gene_likelihood=likelihood
        )
        plan = {"n_epochs_kl_warmup": 20, "lr": 4e-3}
        model.train(
            max_epochs=150, train_size=1.0, batch_size=50, accelerator="cpu",
            enable_progress_bar=False, plan_kwargs=plan,
        )  # fmt: skip
        model.save(folder / f"scvi_{likelihood}", overwrite=True)
        told = json.dumps(figures(model, x, batch))
        (folder / f"{likelihood}.json").write_text(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
