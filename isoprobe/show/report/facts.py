"""What the report says in words and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from isoprobe.show import verdict as rules

if TYPE_CHECKING:
    from isoprobe.results.reader import Result
    from isoprobe.show.verdict import Reading, Verdict

#: rows of the table; a page with more would be slow to open
MOST_ROWS = 512
#: correlation of the two density estimates from which they count as agreeing
DENSITIES_AGREE = 0.9
_LETTERS = {"sigma^-2": "σ⁻²", "sigma^2": "σ²", "mu^2": "μ²", "x_check": "x̌"}


@dataclass(frozen=True)
class Column:
    """One column of the table of latents.

    Attributes:
        key: name in the JSON of a latent, or of an extra variable.
        title: over the column.
        hint: what it is, with its equation.
        form: format of its numbers, empty for text.
    """

    key: str
    title: str
    hint: str
    form: str = ".3g"


COLUMNS = (
    Column("index", "latent", "number of the latent", "d"),
    Column("state", "state", "active, mixed or collapsed (Prop. 3)", ""),
    Column("label", "diagnosis", "verdict on this latent", ""),
    Column("importance_exact", "importance", "Var(y), in units of the metric (Eq. 67)"),
    Column("importance_rough", "rough", "(beta/2) E[sigma^-2] (Eq. 22)"),
    Column("share", "share", "of the active latents' variance", ".1%"),
    Column("kl_mean", "KL [nat]", "rate E[KL] (Eq. 2)"),
    Column("variance_mean", "E[σ²]", "mean posterior variance"),
    Column("inverse_variance_mean", "E[σ⁻²]", "mean inverse posterior variance (Eq. 22)"),
    Column("norm_mean", "norm", "squared norm, 1 - sigma^2 at an optimum (Eq. 23)", ".3f"),
    Column("norm_se", "± s.e.", "standard error of the norm", ".3f"),
    Column("residual_mean", "residual", "norm + sigma^2 - 1 by the pullback, 0 ideally", "+.3f"),
    Column("stationary_norm_mean", "stat. norm", "norm by stationarity", ".3f"),
    Column("beta_recovered", "βⱼ", "beta recovered from this latent alone"),
)


def number(value: Any, form: str = ".4g") -> str:
    """Return a number for people, a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return format(value, form) if form else str(value)


def greek(text: str) -> str:
    """Return a sentence written for a terminal with the letters of the formulas."""
    for plain, letters in _LETTERS.items():
        text = text.replace(plain, letters)
    return re.sub(r"\bsigma\b", "σ", re.sub(r"\bbeta\b(?!-)", "β", text))


def status(read: Reading, said: Verdict, findings: list[dict[str, str]]) -> dict[str, str]:
    """Return the one-word verdict, and how serious it is: ``good``, ``care`` or ``bad``."""
    if not read.active:
        return {"level": "bad", "word": "Nothing learnt"}
    if findings:
        return {"level": "bad", "word": f"Not sound: {findings[0]['code']}"}
    if said.doubts:
        return {"level": "care", "word": "Usable, with care"}
    return {"level": "good", "word": "Sound"}


def tiles(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the few numbers at the top."""
    summary, beta = document["summary"], document["beta"]
    nats = summary["kl_total"]
    declared = "not declared" if beta["declared"] is None else f"declared {beta['declared']:.4g}"
    tile = [
        ("active latents", f"{summary['active']} of {summary['latents']}", "carry information"),
        (
            "rate",
            f"{number(None if nats is None else nats / math.log(2), '.1f')} bit",
            f"{number(nats)} nat a sample",
        ),
        ("β recovered", number(beta["recovered"]), declared),
        ("distortion", number(summary["distortion_mean"]), f"mean {document['metric']} a sample"),
        ("mean |cosine|", number(summary["cosine_mean_abs"], ".2f"), "0 when orthogonal"),
    ]
    return [{"name": name, "value": value, "note": note} for name, value, note in tile]


def trusted(result: Result, read: Reading) -> list[str]:
    """Return what the evidence supports, a sentence each."""
    said = []
    if read.active and read.residuals and _mean_abs(read.residuals) <= rules.ISOMETRIC:
        said.append(
            "Importance and shares: norm + σ² is 1 to within "
            f"{_mean_abs(read.residuals):.2f} on average over active latents."
        )
    if (
        read.active
        and read.stationary_residuals
        and (_mean_abs(read.stationary_residuals) <= rules.ISOMETRIC)
    ):
        said.append(
            "Convergence: stationarity gives norm + σ² = 1 to within "
            f"{_mean_abs(read.stationary_residuals):.2f}, with no expansion involved."
        )
    declared, recovered = read.beta["declared"], read.beta["recovered"]
    if declared and recovered and abs(declared / recovered - 1) <= rules.AGREE:
        said.append(f"β: declared {declared:.4g}, and the weights show {recovered:.4g}.")
    if read.active > 1 and read.cosine is not None and read.cosine <= rules.ORTHOGONAL:
        said.append(f"Latents act in separate directions: mean |cosine| {read.cosine:.2f}.")
    said += _trusted_densities(result)
    return said


def table(result: Result, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns and rows of the table of latents, most important first."""
    latents = [dict(latent) for latent in document["latents"]]
    _join(latents, result, "importance", "share", "share")
    _join(latents, result, "diagnosis", "label", "label")
    latents.sort(key=lambda latent: (latent["state"] == "collapsed", -_weight(latent)))
    columns = [c for c in COLUMNS if any(latent.get(c.key) is not None for latent in latents)]
    rows = [[latent.get(column.key) for column in columns] for latent in latents[:MOST_ROWS]]
    return {"columns": columns, "rows": rows, "left_out": max(0, len(latents) - MOST_ROWS)}


def provenance(attrs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how the numbers came about, as names and values."""
    shape = attrs.get("input_shape") or []
    entries = [
        ("model", attrs.get("model")),
        ("SHA-256", attrs.get("model_sha256") or "model in memory"),
        ("adapter", attrs.get("adapter")),
        ("input shape", " × ".join(map(str, shape))),
        ("metric", attrs.get("metric")),
        ("metric evaluated on logits", "yes" if attrs.get("logits") else "no"),
        ("β in force", f"{number(attrs.get('beta'))} ({attrs.get('beta_source')})"),
        ("β declared", number(attrs.get("beta_declared"))),
        ("β by stationarity", _with_interval(attrs, "beta_recovered", "beta_ci95")),
        (
            "β by the pullback",
            _with_interval(attrs, "beta_recovered_pullback", "beta_ci95_pullback"),
        ),
        ("data", attrs.get("data")),
        ("data fingerprint", attrs.get("data_fingerprint")),
        ("samples", attrs.get("samples")),
        ("analyses", ", ".join(map(str, attrs.get("analyses") or []))),
        ("derivatives", attrs.get("pullback")),
        ("antithetic pairs a sample", attrs.get("pairs")),
        ("seed", attrs.get("seed")),
        ("device, type", f"{attrs.get('device')}, {attrs.get('dtype')}"),
        ("isoprobe", attrs.get("isoprobe_version")),
        ("torch, numpy", f"{attrs.get('torch_version')}, {attrs.get('numpy_version')}"),
    ]
    return [(name, str(value)) for name, value in entries if value not in {None, ""}]


def _trusted_densities(result: Result) -> list[str]:
    if "density" not in result or "estimator_correlation" not in result["density"]:
        return []
    agreement = float(result["density"]["estimator_correlation"].values)
    if not agreement >= DENSITIES_AGREE:
        return []
    return [f"Ranking by density: two independent estimates correlate at {agreement:.2f}."]


def _with_interval(attrs: Mapping[str, Any], name: str, interval: str) -> str:
    value, ends = attrs.get(name), attrs.get(interval)
    if value is None:
        return ""
    return number(value) + (f" (95 %: {ends[0]:.4g} to {ends[1]:.4g})" if ends else "")


def _join(latents: list[dict[str, Any]], result: Result, group: str, name: str, key: str) -> None:
    if group in result and name in result[group]:
        values = result[group][name].values.tolist()
        for latent, value in zip(latents, values, strict=True):
            latent[key] = value


def _weight(latent: Mapping[str, Any]) -> float:
    return latent["importance_exact"] or latent["kl_mean"] or 0.0


def _mean_abs(values: tuple[float, ...]) -> float:
    return fmean(map(abs, values))
