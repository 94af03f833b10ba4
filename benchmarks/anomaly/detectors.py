"""The detectors of the bench, each at its own defaults: fitted on normal rows, then asked."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Scores = Mapping[str, np.ndarray]
#: fits on rows, returns what scores others under one name or several
Fit = Callable[[np.ndarray, int], Callable[[np.ndarray], Scores]]


def ours(train: np.ndarray, seed: int) -> Callable[[np.ndarray], Scores]:
    """``isoprobe.Detector`` at its defaults."""
    import isoprobe

    detector = isoprobe.Detector(seed=seed).fit(train)
    return lambda x: {"isoprobe": detector.decision_function(x)}


def others(train: np.ndarray, seed: int) -> Callable[[np.ndarray], Scores]:
    """Every score that ``isoprobe score --score`` knows, of one model at the same defaults."""
    from isoprobe.probe.fixed import fixed_noise
    from isoprobe.probe.objective import Objective, parts
    from isoprobe.registry.lookup import installed
    from isoprobe.theory.scores import SCORES, Mahalanobis, score_of, weighted_loss
    from isoprobe.theory.weighted import log_weights
    from isoprobe_trainers.table.train import as_vae, fit

    trained = fit(_cells(train), seed, "rows")
    beta = trained.beta
    vae = as_vae(trained.networks, beta, {})
    objective = Objective(vae, installed().metric("sse"), draws=True)

    def columns(x: np.ndarray) -> dict[str, np.ndarray]:
        inputs = torch.as_tensor(trained.recipe.inputs(_cells(x), "rows"), dtype=torch.float32)
        batch = objective.probe(np.arange(len(x)), inputs)
        terms = objective(inputs)
        whole = parts(terms, beta)
        mean, std = (batch.array(name) for name in ("mean", "std"))
        noise = fixed_noise(mean.shape[1]).numpy()[None]
        weights = log_weights(batch.array("distortion_fixed_draws"), noise, mean, std, beta)
        return {
            "score": whole.score,
            "score_distortion": whole.distortion,
            "score_rate": whole.rate,
            "score_iwae": weighted_loss(weights, beta),
            "mean": mean,
            "std": std,
        }

    known = columns(train)
    place = Mahalanobis.of(known["mean"], known["std"], beta)

    def score(x: np.ndarray) -> Scores:
        held = columns(x)
        return {f"score {name}": score_of(name, held, place) for name in SCORES}

    return score


def untrained(train: np.ndarray, seed: int) -> Callable[[np.ndarray], Scores]:
    """The same network on standardised columns, its parameters as they are drawn."""
    from isoprobe.probe.objective import Objective, parts
    from isoprobe.registry.lookup import installed
    from isoprobe_plugins.architectures.skip import Skip
    from isoprobe_trainers.table.columns import learn_recipe
    from isoprobe_trainers.table.train import SIZES, as_vae

    recipe = learn_recipe(_cells(train), "rows")
    config = {"input_shape": [recipe.size], "widths": list(SIZES.widths), "latent_size": 8}
    torch.manual_seed(seed)
    vae = as_vae(Skip().build(config), 1.0, {})
    objective = Objective(vae, installed().metric("sse"))

    def score(x: np.ndarray) -> Scores:
        inputs = torch.as_tensor(recipe.inputs(_cells(x), "rows"), dtype=torch.float32)
        return {"untrained VAE": parts(objective(inputs), 1.0).score}

    return score


def _cells(x: np.ndarray) -> dict[str, np.ndarray]:
    return {str(place): x[:, place] for place in range(x.shape[1])}


def _pyod(name: str, make: Callable[[int], Any]) -> Fit:
    def fit(train: np.ndarray, seed: int) -> Callable[[np.ndarray], Scores]:
        detector = make(seed)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            detector.fit(train)
        return lambda x: {name: detector.decision_function(x)}

    return fit


def _make(module: str, kind: str, **given: Any) -> Callable[[int], Any]:
    def make(seed: int) -> Any:
        import importlib

        found = getattr(importlib.import_module(f"pyod.models.{module}"), kind)
        return found(**{k: seed if v is SEED else v for k, v in given.items()})

    return make


SEED = object()
DETECTORS: dict[str, Fit] = {
    "isoprobe": ours,
    "scores": others,
    "untrained VAE": untrained,
    "IForest": _pyod("IForest", _make("iforest", "IForest", random_state=SEED)),
    "ECOD": _pyod("ECOD", _make("ecod", "ECOD")),
    "kNN": _pyod("kNN", _make("knn", "KNN")),
    "PCA": _pyod("PCA", _make("pca", "PCA", random_state=SEED)),
    "pyod VAE": _pyod("pyod VAE", _make("vae", "VAE", random_state=SEED, verbose=0)),
    "autoencoder": _pyod(
        "autoencoder", _make("auto_encoder", "AutoEncoder", random_state=SEED, verbose=0)
    ),
}


def timed(fit: Fit, train: np.ndarray, test: np.ndarray, seed: int) -> tuple[Scores, float, float]:
    """Scores of rows, and processor seconds of fitting and of scoring."""
    began = time.process_time()
    score = fit(train, seed)
    fitted = time.process_time()
    found = score(test)
    return found, fitted - began, time.process_time() - fitted
