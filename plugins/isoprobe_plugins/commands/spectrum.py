"""Run ``isoprobe spectrum``: what a decoder alone tells, without a posterior or data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import options as shared
from isoprobe.cli import types
from isoprobe.hookspecs import hookimpl
from isoprobe.show.terminal import drawn, paragraph, table, width

if TYPE_CHECKING:
    from isoprobe.contracts import VAE, Metric
    from isoprobe.probe.spectrum import Spectrum

#: what needs a posterior, and so is not to be had from a decoder
MISSING = "norms, residuals, recovered beta, densities, anomaly scores and the diagnosis"
_BAR = 12


@shared.command(
    "What a decoder alone tells: importances without data.",
    "isoprobe spectrum decoder.onnx --metric sse",
    "isoprobe spectrum model.safetensors --samples 200",
    "isoprobe spectrum vae.pth --metric bce --beta 1 --json | jq .latents[0]",
)
@shared.model
@click.option("--metric", metavar="SPEC", help="Training loss. [default: the checkpoint's own]")
@click.option(
    "--beta",
    type=click.FloatRange(min=0, min_open=True),
    help="KL weight in its units. [default: the checkpoint's own]",
)
@shared.adapter
@shared.adapter_options
@shared.trust
@shared.count("--samples", default=1000, help="Of the prior.")
@shared.memory
@shared.device
@click.option("--seed", type=types.SEED, default=0, show_default=True, help="Of z.")
@shared.as_json
def spectrum(
    *,
    model: Path,
    metric: str | None,
    beta: float | None,
    adapter: str | None,
    options: tuple[str, ...],
    trust: bool,
    samples: int,
    memory: int,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure how much each latent moves the output, at samples of the prior.

    Needs no encoder and no data: for decoders alone, encoders that give no variance, or a first
    look. Importance is what theory gives these columns; whether the encoder agrees with them is
    for 'isoprobe analyze' to test, on data.
    """
    from isoprobe.probe import spectrum as columns
    from isoprobe.registry.specs import parse_options
    from isoprobe.run import opening

    vae = opening.load(
        model, adapter=adapter, options=parse_options(options, of="--option"), trust=trust
    )
    opening.place(vae, device, None)
    distortion = _metric(vae, metric)
    weight = beta if beta is not None else _declared(vae, distortion)
    found = columns.spectrum(
        vae,
        distortion,
        beta=weight,
        samples=samples,
        seed=seed,
        memory=memory,
        progress=not as_json,
    )
    document = _document(vae, distortion, found)
    click.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else _text(document))


def _metric(vae: VAE, spec: str | None) -> Metric:
    from isoprobe.errors import MetricError
    from isoprobe.registry.lookup import installed
    from isoprobe.run.settle import chosen_metric

    metric = chosen_metric(installed(), spec, vae)
    if metric is None:
        raise MetricError(f"{vae.name} does not say which loss it was trained with; give --metric")
    return metric


def _declared(vae: VAE, metric: Metric) -> float | None:
    """The checkpoint's beta in units of the metric, where a factor leads there."""
    from isoprobe.registry.lookup import installed
    from isoprobe.run.settle import declared_beta

    declared = declared_beta(installed(), vae, metric, [])
    return declared.value if declared is not None and declared.comparable else None


def _document(vae: VAE, metric: Metric, found: Spectrum) -> dict[str, Any]:
    import numpy as np

    order = np.argsort(-found.importance, kind="stable")
    total = float(found.pullback.sum())
    latents = [
        {
            "index": int(j),
            "importance": float(found.importance[j]),
            "pullback": float(found.pullback[j]),
            "pullback_se": float(found.pullback_se[j]),
            "share": float(found.pullback[j]) / total if total > 0 else 0.0,
            "rate": None if found.rate is None else float(found.rate[j]),
        }
        for j in order
    ]
    return {
        "model": vae.name,
        "adapter": vae.adapter,
        "metric": metric.spec(),
        "beta": found.beta,
        "samples": found.samples,
        "latents": latents,
        "mean_cosine": _mean_off_diagonal(found),
        "hadamard_gap": found.hadamard_gap,
        "encoder": vae.encode is not None,
        "missing": MISSING,
    }


def _mean_off_diagonal(found: Spectrum) -> float | None:
    n = len(found.pullback)
    if found.cosine is None or n < 2:
        return None
    return float(found.cosine.sum() - found.cosine.trace()) / (n * (n - 1))


def _text(document: dict[str, Any]) -> str:
    from isoprobe.theory.formulas import bits

    beta = document["beta"]
    known = "beta unknown" if beta is None else f"beta {beta:.4g}"
    said = (
        f"read by {document['adapter']}; decoder alone, metric {document['metric']}, {known}; "
        f"{document['samples']:,} samples of the prior"
    )
    cells = [["latent", "importance", f"share{' ' * (_BAR + 1)}", *(["bits"] if beta else [])]]
    cells += [_row(row) for row in document["latents"]]
    lines = [
        drawn(document["model"], "bold"),
        paragraph(said, width(), "  ", "  "),
        "",
        *table(cells, width(), left=()),
        "",
    ]
    if beta is not None:
        total = bits(sum(row["rate"] for row in document["latents"]))
        lines.append(f"rate {total:.4g} bits for an encoder that fills the prior")
    if document["mean_cosine"] is not None:
        gap = document["hadamard_gap"]
        lines.append(
            f"columns: mean |cosine| {document['mean_cosine']:.3f}"
            + ("" if gap is None else f", Hadamard gap {gap:.3f} (0 when orthogonal)")
        )
    of = "beta/2 + E[g_jj]" if beta is not None else "E[g_jj]; beta/2 more for each used latent"
    lines += [
        paragraph(f"importance is {of}, with sigma at its optimum", width(), "", "  "),
        paragraph(f"not to be had: {MISSING}", width(), "", "  "),
    ]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> list[str]:
    from isoprobe.theory.formulas import bits

    filled = round(_BAR * row["share"])
    bar = "#" * filled + "." * (_BAR - filled)
    coded = [] if row["rate"] is None else [f"{bits(row['rate']):.2f}"]
    return [str(row["index"]), f"{row['importance']:.4g}", f"{row['share']:.1%} {bar}", *coded]


@hookimpl
def isoprobe_commands() -> Iterable[click.Command]:
    """``isoprobe spectrum``."""
    return [spectrum]
