"""A result in words: the JSON that programs read, and the summary that people read.

Reads a :class:`~isoprobe.results.reader.Result` through its attributes and groups only, so that a
stored file and a fresh run give the same text. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import click

from isoprobe.show import anomalies as anomaly_summary
from isoprobe.show.verdict import Reading, verdict

if TYPE_CHECKING:
    from isoprobe.contracts import Variable

STATES = ("active", "mixed", "collapsed")
_COLOURS = {"active": "green", "mixed": "yellow", "collapsed": "bright_black"}
MAX_ROWS = 40
#: columns of the table that are not the bar
_NUMBERS = 68

#: column of the JSON: group and variable of the result
_COLUMNS = {
    "norm_mean": ("isometry", "norm_mean"),
    "norm_sd": ("isometry", "norm_sd"),
    "norm_se": ("isometry", "norm_se"),
    "residual_mean": ("isometry", "residual_mean"),
    "stationary_norm_mean": ("isometry", "stationary_norm_mean"),
    "beta_recovered": ("isometry", "beta_recovered"),
    "variance_mean": ("overview", "variance_mean"),
    "inverse_variance_mean": ("overview", "inverse_variance_mean"),
    "kl_mean": ("overview", "kl_mean"),
    "importance_rough": ("importance", "rough"),
    "importance_exact": ("importance", "exact"),
    "state": ("importance", "state"),
}


class Readable(Protocol):
    """What a summary needs of a result."""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Root attributes."""

    def groups(self) -> list[str]:
        """Names of the groups."""

    def __getitem__(self, group: str) -> Mapping[str, Variable]:
        """Variables of a group."""


def to_json(result: Readable) -> dict[str, Any]:
    """Put a result into plain values, ``None`` for what was not computed or is not finite.

    Args:
        result: a complete result.

    Returns:
        The document that ``isoprobe analyze --json`` prints.
    """
    attrs = result.attrs
    columns = {name: _column(result, *place) for name, place in _COLUMNS.items()}
    columns["state"] = [None if code is None else STATES[int(code)] for code in columns["state"]]
    active = _column(result, "overview", "active")
    return {
        "model": attrs.get("model"),
        "adapter": attrs.get("adapter"),
        "metric": attrs.get("metric"),
        "data": {"name": attrs.get("data"), "samples": _plain(attrs.get("samples"))},
        "beta": _beta(attrs),
        "latents": [
            {"index": index, **{name: column[index] for name, column in columns.items()}}
            for index in range(len(active))
        ],
        "summary": {
            "latents": len(active),
            "active": sum(bool(flag) for flag in active),
            "cosine_mean_abs": _scalar(result, "isometry", "cosine_mean_abs"),
            "hadamard_gap": _scalar(result, "isometry", "hadamard_gap"),
            "kl_total": _total(columns["kl_mean"]),
            "distortion_mean": _scalar(result, "overview", "distortion_mean"),
        },
        "diagnosis": _diagnosis(result),
        "anomaly": _anomaly(result),
        "output": attrs.get("output") or None,
    }


def to_text(result: Readable, width: int = 80, *, unicode: bool = True) -> str:
    """Put a result into a summary for people.

    Args:
        result: a complete result.
        width: columns of the terminal.
        unicode: draw bars with block characters.

    Returns:
        Styled text of several lines; :func:`click.echo` strips the colours off a terminal.
    """
    return "\n".join(_Text(result, width, unicode=unicode).lines())


def reading(result: Readable) -> Reading:
    """Collect the numbers that a verdict rests on.

    Args:
        result: a complete result.

    Returns:
        What :func:`isoprobe.show.verdict.verdict` takes.
    """
    document = to_json(result)
    stationary = _column(result, "isometry", "stationary_residual_mean")
    active = _column(result, "overview", "active")
    chosen = [i for i, flag in enumerate(active) if flag]
    latents = document["latents"]
    return Reading(
        active=len(chosen),
        latents=len(active),
        residuals=_finite(latents[i]["residual_mean"] for i in chosen),
        stationary_residuals=_finite(stationary[i] for i in chosen),
        betas=_finite(latents[i]["beta_recovered"] for i in chosen),
        beta=document["beta"],
        cosine=document["summary"]["cosine_mean_abs"],
        data=str(document["data"]["name"]),
        samples=int(document["data"]["samples"] or 0),
        distortion=_scalar(result, "overview", "distortion_transform_mean"),
        baseline=_plain(result.attrs.get("mean_input_distortion")),
    )


@dataclass(frozen=True)
class _Row:
    index: int
    importance: float
    share: float
    state: str
    values: Mapping[str, float | None]


class _Text:
    def __init__(self, result: Readable, width: int, *, unicode: bool) -> None:
        self.result = result
        self.document = to_json(result)
        self.width = max(width, _NUMBERS + 8)
        self.full, self.empty = ("█", "·") if unicode else ("#", ".")
        self.has_isometry = "isometry" in result.groups()
        self.has_importance = "importance" in result.groups()

    def lines(self) -> Iterator[str]:
        """Yield the summary, line by line."""
        yield from self._header()
        yield ""
        yield from self._table()
        yield ""
        yield from self._totals()
        diagnosis = self.document["diagnosis"]
        if diagnosis is not None:
            yield from self._paragraph("Verdict", _judged(diagnosis))
        if self.document["anomaly"] is not None:
            yield ""
            yield click.style("Anomaly scores", bold=True)
            yield from anomaly_summary.lines(self.document["anomaly"])
        said = verdict(reading(self.result), diagnosed=diagnosis is not None)
        yield from self._paragraph("What it means", [said.meaning])
        yield from self._paragraph("What to distrust", said.doubts)
        notes = [str(note) for note in self.result.attrs.get("notes", ())]
        yield from self._paragraph("Taken as given", notes)
        if self.document["output"]:
            yield ""
            yield f"Result: {self.document['output']}"

    def _header(self) -> Iterator[str]:
        document, data = self.document, self.document["data"]
        yield click.style(str(document["model"]), bold=True)
        yield (
            f"  read by {document['adapter']}; metric {document['metric']}; "
            f"{data['samples']:,} samples of {data['name']}"
        )

    def _rows(self) -> list[_Row]:
        shares = _column(self.result, "importance", "share")
        rows = [
            _Row(
                index=latent["index"],
                importance=latent["importance_exact"] or 0.0,
                share=shares[latent["index"]] or 0.0 if self.has_importance else 0.0,
                state=latent["state"] or "",
                values=latent,
            )
            for latent in self.document["latents"]
        ]
        return sorted(rows, key=self._rank)

    def _rank(self, row: _Row) -> tuple[bool, float, int]:
        weight = row.importance if self.has_importance else row.values["kl_mean"] or 0.0
        return row.state == "collapsed", -weight, row.index

    def _table(self) -> Iterator[str]:
        rows = self._rows()
        shown = [row for row in rows if row.state != "collapsed"][:MAX_ROWS]
        bar = min(30, self.width - _NUMBERS)
        yield click.style(self._heading(bar), bold=True)
        for row in shown:
            yield self._line(row, bar)
        yield from self._left_out(rows, len(shown))

    def _heading(self, bar: int) -> str:
        heading = "latent    KL"
        if self.has_importance:
            heading += f"  {'importance':>10}  {'share':>6} {'':<{bar}} {'state':<9}"
        if self.has_isometry:
            heading += f" {'norm':>6} {'residual':>8} {'beta_j':>7}"
        return heading

    def _line(self, row: _Row, bar: int) -> str:
        line = f"{row.index:>6} {_number(row.values['kl_mean'], 5)}"
        if self.has_importance:
            line += f"  {_number(row.importance, 10)}  {row.share:>6.1%} "
            line += click.style(self._bar(row.share, bar), fg="cyan")
            line += " " + click.style(f"{row.state:<9}", fg=_COLOURS.get(row.state))
        if self.has_isometry:
            line += f" {_fixed(row.values['norm_mean'], 6)}"
            line += f" {_fixed(row.values['residual_mean'], 8, '+')}"
            line += f" {_number(row.values['beta_recovered'], 7)}"
        return line.rstrip()

    def _bar(self, share: float, width: int) -> str:
        filled = round(min(max(share, 0.0), 1.0) * width)
        return self.full * filled + self.empty * (width - filled)

    def _left_out(self, rows: list[_Row], shown: int) -> Iterator[str]:
        collapsed = [row.index for row in rows if row.state == "collapsed"]
        more = len(rows) - shown - len(collapsed)
        if more:
            yield f"       and {more} more; --json has them all"
        if collapsed:
            some = ", ".join(map(str, sorted(collapsed)[:12]))
            some += ", ..." if len(collapsed) > 12 else ""
            yield click.style(
                f"       {len(collapsed)} collapsed, carrying nothing: {some}", dim=True
            )

    def _totals(self) -> Iterator[str]:
        summary = self.document["summary"]
        lines = [
            f"{summary['active']} of {summary['latents']} latents active; "
            f"{_rate(summary['kl_total'])}; distortion {_number(summary['distortion_mean'])}",
            f"beta {self._beta()}",
        ]
        if summary["cosine_mean_abs"] is not None:
            lines.insert(
                1,
                f"columns of the decoder: mean |cosine| {_fixed(summary['cosine_mean_abs'])}, "
                f"Hadamard gap {_fixed(summary['hadamard_gap'])} (0 when orthogonal)",
            )
        for line in lines:
            yield click.wrap_text(line, self.width, "", "  ")

    def _beta(self) -> str:
        beta = self.document["beta"]
        parts = ["not declared" if beta["declared"] is None else f"declared {beta['declared']:.4g}"]
        if beta["recovered"] is not None:
            parts.append(f"recovered {beta['recovered']:.4g}{_interval(beta['ci95'])}")
        if beta["recovered_pullback"] is not None:
            parts.append(f"by the pullback {beta['recovered_pullback']:.4g}")
        if beta["value"] is not None:
            parts.append(f"{beta['value']:.4g} used ({beta['source']})")
        return ", ".join(parts)

    def _paragraph(self, title: str, texts: list[str]) -> Iterator[str]:
        if not texts:
            return
        yield ""
        yield click.style(title, bold=True)
        for text in texts:
            yield click.wrap_text(text, self.width, "  ", "  ")


def _diagnosis(result: Readable) -> dict[str, Any] | None:
    if "diagnosis" not in result.groups():
        return None
    group = result["diagnosis"]
    parts = [group[name].values for name in ("finding", "evidence", "advice") if name in group]
    return {
        "verdict": str(group["verdict"].values),
        "labels": [str(label) for label in group["label"].values],
        "findings": [
            {"code": str(code), "evidence": str(evidence), "advice": str(advice)}
            for code, evidence, advice in zip(*parts, strict=True)
        ]
        if parts
        else [],
    }


def _anomaly(result: Readable) -> dict[str, Any] | None:
    if anomaly_summary.GROUP not in result.groups():
        return None
    return anomaly_summary.document(result[anomaly_summary.GROUP])


def _judged(diagnosis: Mapping[str, Any]) -> list[str]:
    """The verdict in words: what is wrong and what to do, or that nothing is."""
    if not diagnosis["findings"]:
        return ["Sound: rate, sigma and decoder fit each other as at an optimum."]
    return [f"{f['code']}: {f['evidence']}. Do: {f['advice']}." for f in diagnosis["findings"]]


def _beta(attrs: Mapping[str, Any]) -> dict[str, Any]:
    interval = attrs.get("beta_ci95")
    ends = None if interval is None else [_plain(end) for end in interval]
    return {
        "value": _plain(attrs.get("beta")),
        "source": attrs.get("beta_source"),
        "declared": _plain(attrs.get("beta_declared")),
        "recovered": _plain(attrs.get("beta_recovered")),
        "ci95": None if ends is None or None in ends else ends,
        "recovered_pullback": _plain(attrs.get("beta_recovered_pullback")),
    }


def _column(result: Readable, group: str, name: str) -> list[Any]:
    """Values of a variable, finite or None; all None where it was not computed."""
    if group in result.groups() and name in result[group]:
        return [_plain(value) for value in result[group][name].values]
    return [None] * len(result["overview"]["active"].values)


def _scalar(result: Readable, group: str, name: str) -> float | None:
    if group not in result.groups() or name not in result[group]:
        return None
    value: float | None = _plain(result[group][name].values)
    return value


def _plain(value: Any) -> Any:
    """A Python number for any scalar; None for one that is not finite."""
    if value is None:
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _total(values: list[Any]) -> float | None:
    return None if None in values else math.fsum(values)


def _finite(values: Iterator[Any]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)


def _number(value: float | None, width: int = 0) -> str:
    return f"{'-' if value is None else format(value, '.3g'):>{width}}"


def _fixed(value: float | None, width: int = 0, sign: str = "") -> str:
    return f"{'-' if value is None else format(value, sign + '.3f'):>{width}}"


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f" (95 %: {ends[0]:.4g} to {ends[1]:.4g})"


def _rate(nats: float | None) -> str:
    return "KL unknown" if nats is None else f"KL {nats:.4g} nats ({nats / math.log(2):.4g} bits)"
