"""Put a result into words: the JSON that programs read, and the summary that people read.

Reads a :class:`~isoprobe.results.reader.Result` through its attributes and groups only, so that a
stored file and a fresh run give the same text. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from isoprobe.contracts import DEFAULT_ANALYSES
from isoprobe.show import anomalies, terminal
from isoprobe.show.shown import (
    COLLAPSED,
    TABLE,
    Shown,
    column,
    columns,
    number,
    plain,
    said,
    tiles,
)
from isoprobe.show.voice import known_beta, voice

if TYPE_CHECKING:
    from rich.text import Text

    from isoprobe.show.shown import Readable
    from isoprobe.show.voice import Voice

_COLOURS = {"active": "green", "mixed": "yellow", "collapsed": "dim"}
_LEVELS = {"good": "green", "care": "yellow", "bad": "red"}
MAX_ROWS = 40
#: of the JSON, see the page on the result file; raised when a name goes or changes its meaning
SCHEMA = 1
#: letters of the shortest bar
_SHORTEST = 6
#: analyses that are spoken of in lines of their own; each other one gets a block
_SPOKEN = {"overview", anomalies.GROUP, *DEFAULT_ANALYSES}

#: names in the JSON that are not ``group/name``; these are there whatever was computed
_LATENT_KEYS = {
    "isometry/norm_mean": "norm_mean",
    "isometry/norm_sd": "norm_sd",
    "isometry/norm_se": "norm_se",
    "isometry/residual_mean": "residual_mean",
    "isometry/stationary_norm_mean": "stationary_norm_mean",
    "isometry/beta_recovered": "beta_recovered",
    "overview/variance_mean": "variance_mean",
    "overview/inverse_variance_mean": "inverse_variance_mean",
    "overview/kl_mean": "kl_mean",
    "importance/rough": "importance_rough",
    "importance/exact": "importance_exact",
    "importance/exact_se": "importance_exact_se",
    "importance/determined": "importance_determined",
    "importance/state": "state",
}
_SUMMARY_KEYS = {
    "isometry/cosine_mean_abs": "cosine_mean_abs",
    "isometry/hadamard_gap": "hadamard_gap",
    "overview/distortion_mean": "distortion_mean",
}


def to_json(result: Readable) -> dict[str, Any]:
    """Put a result into plain values, ``None`` for what was not computed or is not finite.

    Args:
        result: a complete result.

    Returns:
        The document that ``isoprobe analyze --json`` prints.
    """
    attrs, judged = result.attrs, voice(result)
    active = column(result, "overview/active")
    cells = {key: column(result, place) for place, key in _LATENT_KEYS.items()}
    for shown in columns(result):
        cells[_LATENT_KEYS.get(shown.place, shown.place)] = list(shown.words)
    numbers = {key: number(result, place) for place, key in _SUMMARY_KEYS.items()}
    for shown in tiles(result):
        numbers[_SUMMARY_KEYS.get(shown.place, shown.place)] = shown.words[0]
    return {
        "schema": SCHEMA,
        "model": attrs.get("model"),
        "adapter": attrs.get("adapter"),
        "metric": attrs.get("metric"),
        "data": {"name": attrs.get("data"), "samples": plain(attrs.get("samples"))},
        "beta": known_beta(attrs),
        "latents": [
            {"index": index, **{name: values[index] for name, values in cells.items()}}
            for index in range(len(active))
        ],
        "summary": {
            "latents": len(active),
            "active": sum(map(bool, active)),
            "kl_total": _total(cells["kl_mean"]),
            **numbers,
        },
        "verdict": {
            "level": judged.level,
            "headline": judged.headline,
            "meaning": judged.meaning,
            "trusted": list(judged.trusted),
            "doubts": list(judged.doubts),
            "findings": [asdict(finding) for finding in judged.findings],
        },
        "diagnosis": _diagnosis(result, judged),
        "anomaly": _anomaly(result),
        "output": attrs.get("output") or None,
    }


def to_text(result: Readable, width: int = 80, *, unicode: bool = True) -> str:
    """Put a result into a summary for people.

    Args:
        result: a complete result.
        width: columns of the terminal.
        unicode: use letters beyond ASCII.

    Returns:
        Styled text of several lines; :func:`click.echo` strips the colours off a terminal.
    """
    text = "\n".join(_Text(result, width, unicode=unicode).lines())
    return text if unicode else text.encode("ascii", "replace").decode()


def by_importance(shown: Sequence[Shown]) -> list[int]:
    """Return numbers of the latents, collapsed ones last, the most important first.

    Args:
        shown: columns of a result.

    Returns:
        The order of rows.
    """
    values = {one.place: one.words for one in shown}
    weights = values.get("importance/exact") or values.get("overview/kl_mean") or ()
    states = values.get("importance/state") or ("",) * len(weights)
    rows = range(len(weights))
    return sorted(rows, key=lambda j: (states[j] == COLLAPSED, -(weights[j] or 0.0), j))


def latent_table(result: Readable) -> dict[str, list[Any]]:
    """Return the latents as columns, the most important latent first, collapsed ones last.

    Args:
        result: a complete result.

    Returns:
        ``latent`` and, named as in :func:`to_json`, every column that has a value.
    """
    rows = to_json(result)["latents"]
    order = by_importance(columns(result)) or list(range(len(rows)))
    names = {"latent": "index"} | {name: name for name in rows[0] if name != "index"}
    table = {shown: [rows[j][name] for j in order] for shown, name in names.items()}
    return {name: values for name, values in table.items() if any(v is not None for v in values)}


class _Text:
    def __init__(self, result: Readable, width: int, *, unicode: bool) -> None:
        self.result = result
        self.width = max(width, terminal.NARROWEST)
        self.full, self.empty = ("█", "·") if unicode else ("#", ".")
        self.columns, self.tiles = columns(result), tiles(result)
        self.cells = {one.place: one.words for one in self.columns}
        active = column(result, "overview/active")
        self.states = self.cells.get("importance/state") or ("",) * len(active)
        self.order = by_importance(self.columns) or list(range(len(active)))
        self.rows = [j for j in self.order if self.states[j] != COLLAPSED][:MAX_ROWS]
        determined = column(result, "importance/determined")
        self.unknown = {j for j, known in enumerate(determined) if known is False}
        self.called = column(result, "importance/called_for")
        self.active, self.latents = sum(map(bool, active)), len(active)

    def lines(self) -> Iterator[str]:
        """Yield the summary, line by line."""
        attrs, judged = self.result.attrs, voice(self.result)
        yield click.style(str(attrs.get("model")), bold=True)
        yield self._wrapped(
            f"read by {attrs.get('adapter')}; metric {attrs.get('metric')}; "
            f"{plain(attrs.get('samples')):,} samples of {attrs.get('data')}",
            "  ",
            "  ",
        )
        yield ""
        yield from self._table()
        yield ""
        for line in self._totals():
            yield self._wrapped(line, "", "  ")
        yield from self._others()
        # one word and one colour, which textwrap counts as a few letters more
        verdict = [click.style(f"{judged.headline}.", fg=_LEVELS[judged.manner])]
        verdict += [f"{f.code}: {f.evidence}. Do: {f.advice}." for f in judged.findings]
        yield from self._paragraph("Verdict", verdict)
        found = _anomaly(self.result)
        if found is not None:
            yield ""
            yield click.style("Anomaly scores", bold=True)
            yield from anomalies.lines(found, self.width)
        yield from self._paragraph("What it means", [judged.meaning])
        yield from self._paragraph("What to distrust", judged.doubts)
        yield from self._paragraph("Taken as given", [str(n) for n in attrs.get("notes", ())])
        if attrs.get("output"):
            yield ""
            yield f"Result: {attrs.get('output')}"

    def _table(self) -> Iterator[str]:
        known = [one for one in self.columns if one.place in TABLE]
        rows = [["latent", *(one.label for one in known)]]
        rows += [[str(j), *(self._word(one, j) for one in known)] for j in self.rows]
        # --json has those that are left out
        while len(known) > 1 and terminal.measured(rows) > self.width:
            known, rows = known[:-1], [row[:-1] for row in rows]
        yield from terminal.table(self._coloured(known, rows), left=self._names(known))
        yield from self._left_out()
        if self.unknown:
            yield self._wrapped(
                "n.d.: not determined by sigma, which would put more variance into one latent "
                "than the data has" + self._by_decoder(),
                "       ",
                "       ",
            )

    def _coloured(self, known: list[Shown], rows: list[list[str]]) -> list[list[str | Text]]:
        """The table with colours for words, and bars beside shares where there is room."""
        room = min(30, self.width - terminal.measured(rows) - 1)
        table: list[list[str | Text]] = [[*row] for row in rows]
        for place, one in enumerate(known, start=1):
            for row, j in zip(table[1:], self.rows, strict=True):
                if not one.numeric:
                    row[place] = terminal.words(str(row[place]), _COLOURS.get(str(row[place]), ""))
                elif one.place == "importance/share" and room >= _SHORTEST:
                    row[place] = self._bar(str(row[place]), one.values[j] or 0.0, room)
            if one.place == "importance/share" and room >= _SHORTEST:
                table[0][place] = f"{one.label}{' ' * (room + 1)}"
        return table

    def _names(self, known: list[Shown]) -> list[int]:
        return [place for place, one in enumerate(known, start=1) if not one.numeric]

    def _by_decoder(self) -> str:
        """What the decoder calls for in the latents of which sigma says nothing."""
        known = [(j, self.called[j]) for j in sorted(self.unknown) if j < len(self.called)]
        words = [f"{value:.3g} in latent {j}" for j, value in known if value is not None]
        return f"; the decoder by itself calls for {', '.join(words[:8])}" if words else ""

    def _word(self, shown: Shown, latent: int) -> str:
        """A cell of the known table; n.d. for an importance above the variance of the data."""
        if shown.place == "importance/exact" and latent in self.unknown:
            return "n.d."
        return _fitted(shown, latent)

    def _bar(self, word: str, share: float, width: int) -> Text:
        filled = round(min(max(share, 0.0), 1.0) * width)
        bar = self.full * filled + self.empty * (width - filled)
        return terminal.words(f"{word} ").append(bar, "cyan")

    def _left_out(self) -> Iterator[str]:
        collapsed = [j for j in range(self.latents) if self.states[j] == COLLAPSED]
        more = self.latents - len(self.rows) - len(collapsed)
        if more:
            yield f"       and {more} more; --json has them all"
        if collapsed:
            some = ", ".join(map(str, collapsed[:12])) + (", ..." if len(collapsed) > 12 else "")
            said = f"{len(collapsed)} collapsed, carrying nothing: {some}"
            yield click.style(self._wrapped(said, "       ", "       "), dim=True)

    def _totals(self) -> Iterator[str]:
        """Yield a line on the whole, one for each tile of the default analyses, one on beta."""
        rate = _rate(_total(column(self.result, "overview/kl_mean")))
        parts = [f"{self.active} of {self.latents} latents active", rate]
        yield "; ".join([*parts, *map(_labelled, self._of("overview"))])
        yield from (_explained(tile) for name in DEFAULT_ANALYSES for tile in self._of(name))
        yield f"beta {_beta_in_words(self.result)}"

    def _of(self, group: str) -> list[Shown]:
        return [tile for tile in self.tiles if tile.group == group]

    def _others(self) -> Iterator[str]:
        """Yield a block for each other analysis: its tiles, then its columns."""
        shown = [*self.tiles, *self.columns]
        for group in sorted({one.group for one in shown} - _SPOKEN):
            yield ""
            yield click.style(group, bold=True)
            for tile in self._of(group):
                yield self._wrapped(_explained(tile), "  ", "    ")
            yield from self._extra([one for one in self.columns if one.group == group])

    def _extra(self, extra: list[Shown]) -> Iterator[str]:
        """Yield columns of an analysis as tables, each as many as the terminal is wide."""
        if extra:
            rows = [["latent", *(one.title for one in extra)]]
            rows += [[str(j), *(said(c.values[j], c.form) for c in extra)] for j in self.rows]
            yield from terminal.table(rows, self.width, left=self._names(extra))

    def _paragraph(self, title: str, texts: Sequence[str]) -> Iterator[str]:
        if not texts:
            return
        yield ""
        yield click.style(title, bold=True)
        for text in texts:
            yield self._wrapped(text, "  ", "  ")

    def _wrapped(self, text: str, first: str, rest: str) -> str:
        return terminal.paragraph(text, self.width, first, rest)


def _fitted(shown: Shown, latent: int) -> str:
    """A cell of the known table, with as many digits as its width takes."""
    value, width = shown.values[latent], TABLE[shown.place] - 1
    texts = [said(value, form) for form in (shown.form, ".2g", ".1g")]
    return next((text for text in texts if len(text) <= width), texts[-1])


def _labelled(tile: Shown) -> str:
    return f"{tile.label} {tile.text} {tile.units}".rstrip()


def _explained(tile: Shown) -> str:
    return f"{_labelled(tile)}: {tile.hint}"


def _beta_in_words(result: Readable) -> str:
    beta = known_beta(result.attrs)
    parts = ["not declared" if beta["declared"] is None else f"declared {beta['declared']:.4g}"]
    if beta["recovered"] is not None:
        parts.append(f"recovered {beta['recovered']:.4g}{_interval(beta['ci95'])}")
    if beta["recovered_pullback"] is not None:
        parts.append(f"by the pullback {beta['recovered_pullback']:.4g}")
    if beta["value"] is not None:
        parts.append(f"{beta['value']:.4g} used ({beta['source']})")
    return ", ".join(parts)


def _diagnosis(result: Readable, judged: Voice) -> dict[str, Any] | None:
    if "diagnosis" not in result.groups():
        return None
    group = result["diagnosis"]
    return {
        "verdict": str(group["verdict"].values),
        "labels": [str(label) for label in group["label"].values],
        "findings": [asdict(finding) for finding in judged.findings],
    }


def _anomaly(result: Readable) -> dict[str, Any] | None:
    if anomalies.GROUP not in result.groups():
        return None
    return anomalies.document(result[anomalies.GROUP])


def _total(values: Sequence[Any]) -> float | None:
    return None if None in values else math.fsum(values)


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f" (95 %: {ends[0]:.4g} to {ends[1]:.4g})"


def _rate(nats: float | None) -> str:
    return "KL unknown" if nats is None else f"KL {nats:.4g} nats ({nats / math.log(2):.4g} bits)"
