"""Say the report's facts in words and numbers."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from isoprobe.show.shown import columns, said, tiles
from isoprobe.show.summary import by_importance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoprobe.results.reader import Result

#: rows of the table; a page with more would be slow to open
MOST_ROWS = 512
_LETTERS = {
    "sigma^-2": "σ⁻²",
    "sigma^2": "σ²",
    "mu^2": "μ²",
    "x_check": "x̌",
    "x_hat": "x̂",
    "beta_j": "βⱼ",
    "KL_j": "KLⱼ",
}


_GREEK = {"beta": "β", "mu": "μ", "sigma": "σ"}
#: a letter's name, but not where it is a part of a file's or an option's
_NAMED = re.compile(r"(?<![\w.'-])(?<![A-Za-z_.]/)(?:beta|mu|sigma)(?![\w'-]|\.\w|/[A-Za-z_.])")


def number(value: Any, form: str = ".4g") -> str:
    """Return a number for people, a dash for none."""
    return said(value, form, dash="–")


def greek(text: str) -> str:
    """Return a sentence written for a terminal with the letters of the formulas."""
    for plain, letters in _LETTERS.items():
        text = text.replace(plain, letters)
    text = text.replace("+-", "±")
    return _NAMED.sub(lambda found: _GREEK[found[0]], text)


def tops(result: Result, document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the few numbers at the top: counts, rate, beta, and the tiles of every analysis."""
    summary, beta = document["summary"], document["beta"]
    nats = summary["kl_total"]
    bits = number(None if nats is None else nats / math.log(2), ".1f")
    declared = "not declared" if beta["declared"] is None else f"declared {beta['declared']:.4g}"
    active = f"{summary['active']} of {summary['latents']}"
    fixed = [
        ("active latents", active, "carry information"),
        ("rate", f"{bits} bit", f"{number(nats)} nat a sample"),
        ("β recovered", number(beta["recovered"]), declared),
    ]
    shown = [(greek(t.label), f"{t.text} {t.units}", greek(t.hint)) for t in tiles(result)]
    return [{"name": name, "value": value, "note": note} for name, value, note in fixed + shown]


def table(result: Result) -> dict[str, Any]:
    """Return columns and rows of the table of latents, most important first."""
    shown = [c for c in columns(result) if any(value is not None for value in c.values)]
    order = by_importance(shown)
    rows = [[j, *(column.words[j] for column in shown)] for j in order[:MOST_ROWS]]
    return {"columns": shown, "rows": rows, "left_out": max(0, len(order) - MOST_ROWS)}


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
        ("single rows", "left out (--no-rows)" if attrs.get("rows_left_out") else ""),
        ("analyses", ", ".join(map(str, attrs.get("analyses") or []))),
        ("derivatives", attrs.get("pullback")),
        ("antithetic pairs a sample", attrs.get("pairs")),
        ("seed", attrs.get("seed")),
        ("device, type", f"{attrs.get('device')}, {attrs.get('dtype')}"),
        ("isoprobe", attrs.get("isoprobe_version")),
        ("torch, numpy", f"{attrs.get('torch_version')}, {attrs.get('numpy_version')}"),
    ]
    return [(name, str(value)) for name, value in entries if value not in {None, ""}]


def _with_interval(attrs: Mapping[str, Any], name: str, interval: str) -> str:
    value, ends = attrs.get(name), attrs.get(interval)
    if value is None:
        return ""
    return number(value) + (f" (95 %: {ends[0]:.4g} to {ends[1]:.4g})" if ends else "")
