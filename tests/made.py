"""Result files made by hand: every variable is known, so what is drawn or said can be checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.contracts import Variable
from isoprobe.results.former import former
from isoprobe.results.writer import ResultWriter

if TYPE_CHECKING:
    from isoprobe.results.reader import Result

BETA = 0.5
VARIANCES = np.array([0.2, 6.0, 1.5, 0.1])  # of y; the last one is under the water line
STATES = np.array([0, 0, 1, 2])
ORDER = np.array([1, 2, 0, 3])


def rows(samples: int, seed: int = 0) -> np.ndarray:
    """Isometric coordinates of the samples, with the variances above."""
    noise = np.random.default_rng(seed).normal(size=(samples, 4))
    return noise * np.sqrt(VARIANCES)


def made_result(
    path: Path | None,
    *,
    y: np.ndarray | None = None,
    beta: float = BETA,
    variances: np.ndarray = VARIANCES,
    walks: np.ndarray | None = None,
    labelled: bool = False,
    pullback: bool = True,
    finding: str | None = None,
    samples: int = 200,
    label: np.ndarray | None = None,
    groups: tuple[str, ...] | None = None,
    **attrs: object,
) -> Result:
    """Write a result of four latents and open it."""
    y = rows(samples) if y is None else y
    active = variances > (beta if np.isfinite(beta) else BETA) / 2
    with ResultWriter.open(path, samples=len(y), latent=4, overwrite=True) as writer:
        columns = {"y": latent_rows(y), "mean": latent_rows(y / np.sqrt(variances))}
        columns |= {
            "log_density_metric": sample(-y[:, 0]),
            "log_density_metric_sigmas": sample(-2 * y[:, 0]),
            "score": sample(np.abs(y[:, 1]) + 0.1),
        }
        if labelled:
            columns["anomalous"] = sample(np.abs(y[:, 1]) > np.quantile(np.abs(y[:, 1]), 0.9))
        if label is not None:
            columns["label"] = sample(label)
        writer.append(0, columns)
        contents = {
            "overview": overview(variances, active, beta),
            "isometry": isometry(pullback=pullback),
            "importance": importance(variances, active, beta),
            "rate-distortion": rate_distortion(beta),
            "traversal": traversal(walks),
            "anomaly": anomaly(labelled=labelled),
            "diagnosis": diagnosis(finding),
        }
        for name, variables in contents.items():
            if groups is None or name in groups or name == "overview":
                writer.write_group(name, shown(name, variables))
        return writer.finish(
            {
                "model": "made by hand",
                "adapter": "memory",
                "metric": "sse",
                "data": "noise",
                "data_fingerprint": "noise:0",
                "samples": len(y),
                "beta": beta,
                "beta_source": "declared",
                "beta_declared": beta,
                "beta_recovered": beta * 1.01,
                "beta_ci95": [beta * 0.98, beta * 1.04],
                "input_shape": [1, 2, 3],
                "notes": ["all of this is made up"],
                **attrs,
            }
        )


def shown(group: str, variables: dict[str, Variable]) -> dict[str, Variable]:
    """Say of each variable what the built-in analysis says of it."""
    return {
        name: replace(variable, **former(group, name)._asdict())
        for name, variable in variables.items()
    }


def latent(values: np.ndarray) -> Variable:
    return Variable(("latent",), np.asarray(values, dtype=float), "a value")


def latent_rows(values: np.ndarray) -> Variable:
    return Variable(("sample", "latent"), values, "rows")


def sample(values: np.ndarray) -> Variable:
    return Variable(("sample",), values, "a column")


def scalar(value: float) -> Variable:
    return Variable((), np.asarray(value), "a number")


def overview(variances: np.ndarray, active: np.ndarray, beta: float) -> dict[str, Variable]:
    sigma2 = np.minimum(1, (beta if np.isfinite(beta) else BETA) / 2 / variances)
    return {
        "active": Variable(("latent",), active, "active"),
        "kl_mean": latent(-0.5 * np.log(sigma2)),
        "variance_mean": latent(sigma2),
        "inverse_variance_mean": latent(1 / sigma2),
        "distortion_mean": scalar(3.0),
        "distortion_coding_mean": scalar(0.75),
        "distortion_transform_mean": scalar(2.5),
        "distortion_self_mean": scalar(0.25),
    }


NORMS = np.array([0.4, 0.95, 0.8, 0.0])
RESIDUALS = np.array([0.02, -0.01, 0.05, 0.0])
COSINES = np.array(
    [[1.0, 0.1, 0.3, 0.0], [0.1, 1.0, 0.2, 0.0], [0.3, 0.2, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


def isometry(*, pullback: bool) -> dict[str, Variable]:
    stationary = {
        "stationary_norm_mean": latent(NORMS),
        "stationary_residual_mean": latent(RESIDUALS / 2),
        "beta_recovered": latent(np.array([0.5, 0.51, 0.49, np.nan])),
    }
    if not pullback:
        return stationary
    return stationary | {
        "norm_mean": latent(NORMS),
        "norm_sd": latent(NORMS / 10),
        "norm_se": latent(NORMS / 100),
        "residual_mean": latent(RESIDUALS),
        "cosine": Variable(("latent", "latent_2"), COSINES, "cosine"),
        "cosine_mean_abs": scalar(0.2),
        "hadamard_gap": scalar(0.1),
    }


def importance(variances: np.ndarray, active: np.ndarray, beta: float) -> dict[str, Variable]:
    share = np.where(active, variances, 0) / max(variances[active].sum(), 1e-300)
    order = np.argsort(-variances)
    cumulative = np.empty(4)
    cumulative[order] = np.cumsum(share[order])
    return {
        "exact": latent(variances),
        "rough": latent(1.1 * variances),
        "share": latent(share),
        "cumulative_share": latent(cumulative),
        "state": Variable(("latent",), np.where(active, STATES % 2, 2).astype(np.int8), "state"),
        "order": Variable(("rank",), order, "order"),
        "water_level": scalar(beta / 2),
    }


def rate_distortion(beta: float) -> dict[str, Variable]:
    betas = beta * 2.0 ** np.arange(-2, 3)
    over = ("other_beta",)
    return {
        "other_beta": Variable(over, betas, "betas"),
        "predicted_rate": Variable(over, np.linspace(4, 0, 5), "rate", "nat"),
        "predicted_distortion": Variable(over, betas, "distortion"),
        "rate_bits": scalar(3.0),
        "coding_loss_expected": scalar(0.75),
        "distortion": scalar(2.0),
    }


def traversal(walks: np.ndarray | None) -> dict[str, Variable]:
    if walks is None:
        walks = np.linspace(0, 1, 3 * 5 * 6).reshape(3, 5, 1, 2, 3)
    ranks, steps = walks.shape[:2]
    axes = tuple(f"axis_{i}" for i in range(walks.ndim - 2))
    grid = ("rank", "step")
    z = np.tile(np.linspace(-2, 2, steps), (ranks, 1))
    return {
        "latents": Variable(("rank",), ORDER[:ranks], "latents"),
        "images": Variable((*grid, *axes), walks, "walks"),
        "images_equal_y": Variable((*grid, *axes), walks, "walks"),
        **{name: Variable(grid, z, name) for name in ("z", "y", "z_equal_y", "y_equal_y")},
    }


def anomaly(*, labelled: bool) -> dict[str, Variable]:
    over = ("rule",)
    found = {
        "rule": Variable(over, np.array(["quantile", "contamination"]), "rule"),
        "share": Variable(over, np.array([0.01, 0.1]), "share"),
        "threshold": Variable(over, np.array([3.0, 4.0]), "threshold"),
        "reference": Variable(("reference",), np.arange(10.0), "reference"),
    }
    if not labelled:
        return found
    by_rule = ("precision", "recall", "f1", "flagged", "ties")
    found |= {name: Variable(over, np.array([0.5, 1.0]), name) for name in by_rule}
    return found | {name: scalar(1.0) for name in ("auroc", "average_precision", "prevalence")}


def diagnosis(finding: str | None) -> dict[str, Variable]:
    labels = np.array(["active", "active", "mixed", "collapsed"])
    level = finding if finding in {None, "undecided"} else "not sound"
    conditions = {
        "condition": np.array(["residual", "second", "gain"]),
        "answer": np.array(["holds", "holds", "cannot tell"]),
        "size": np.array([0.05, 0.1, 0.08]),
        "error": np.array([0.02, 0.04, 0.05]),
        "tolerance": np.array([0.2, 0.4, 0.1]),
    }
    found = {
        "level": Variable((), np.array(level or "sound"), "level"),
        "meaning": Variable((), np.array("3 of 4 latents are used."), "meaning"),
        **{k: Variable(("condition",), v, k) for k, v in conditions.items()},
        "verdict": Variable((), np.array(finding or "sound"), "verdict"),
        "label": Variable(("latent",), labels, "label"),
    }
    if level != "not sound":
        return found
    texts = {"finding": finding, "evidence": f"evidence of {finding}", "advice": f"mend {finding}"}
    return found | {k: Variable(("finding",), np.array([v]), k) for k, v in texts.items()}
