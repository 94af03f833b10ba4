"""Run ``isoprobe convert``: any loadable checkpoint as one native, self-describing file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import options as shared
from isoprobe.hookspecs import hookimpl
from isoprobe.run.settings import CodeSettings

if TYPE_CHECKING:
    from isoprobe.checkpoints.native import Manifest
    from isoprobe.contracts import VAE
    from isoprobe_plugins.commands.used_latents import Trimmed


@dataclass(frozen=True)
class Converted:
    """A native checkpoint that was written.

    Attributes:
        path: the file.
        latents: how many it has.
        says: what it is, and what was left out, in words.
    """

    path: Path
    latents: int
    says: str


def converted(
    model: str | Path,
    out: str | Path,
    *,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    metric: str | None = None,
    beta: float | None = None,
    latents: str = "all",
    data: str | None = None,
    resize: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write a checkpoint as one safetensors file that describes itself.

    Args:
        model: the checkpoint.
        out: the file.
        adapter: the one that matches when None.
        options: of the adapter.
        metric: training loss; the checkpoint's own when None.
        beta: KL weight in its units; the checkpoint's own when None.
        latents: ``all``, or ``used`` to drop those of a native checkpoint that are idle on the
            data; ``data``, ``resize`` and ``scale`` are for this alone.
        data: rows that tell which latents are used; the checkpoint's own when None.
        resize: images to this height and width.
        scale: data values that stand for the ends of the model's input range.
        overwrite: replace an existing file.

    Returns:
        What was written.

    Raises:
        CheckpointError: when its networks are code rather than a known architecture.
        OptionError: for options that do not go together, or a file that cannot be written.
    """
    from isoprobe import api
    from isoprobe.checkpoints.native import write_checkpoint
    from isoprobe.errors import OptionError

    out = Path(out)
    if latents == "used":
        if beta is not None or adapter is not None or options:
            raise OptionError("latents 'used' takes a native checkpoint as it is.")
        return _trim(Path(model), out, data, metric, resize, scale, overwrite=overwrite)
    if latents != "all":
        raise OptionError(f"latents is 'all' or 'used'; found {latents!r}.")
    vae = api.load(model, adapter=adapter, options=options)
    changes = {"metric": metric, "beta": beta}
    vae = vae.with_facts(**{k: v for k, v in changes.items() if v is not None})
    manifest = describe(vae)
    parts: Any = vae.module
    write_checkpoint(out, parts["encoder"], parts["decoder"], manifest, overwrite=overwrite)
    says = f"architecture {manifest.architecture}, {vae.latent_size} latents"
    return Converted(out, vae.latent_size, says)


@shared.command(
    "Write a checkpoint in the native, self-describing form.",
    "isoprobe convert VAE_mnist/ vae_mnist.safetensors",
    "isoprobe convert vae.pth vae.safetensors --option declaration=vae.toml",
    "isoprobe convert model.keras model.safetensors --metric bce --beta 1.05",
    "isoprobe convert model.safetensors small.safetensors --latents used --data images.npy",
    cls=shared.WithFunction,
    function=converted,
)
@shared.model
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@shared.adapter
@shared.adapter_options
@click.option("--metric", metavar="SPEC", help="Training loss. [default: the checkpoint's own]")
@click.option("--beta", type=float, help="KL weight in its units. [default: the checkpoint's own]")
@shared.choice(
    "--latents",
    among=("all", "used"),
    default="all",
    help="used drops those of a native checkpoint that are idle on --data, and says what it costs.",
)
@click.option("--data", metavar="SPEC", help="Rows for --latents used. [default: the checkpoint's]")
@shared.from_settings(CodeSettings, "resize", "scale")
@shared.overwriting()
def convert(
    *,
    model: Path,
    out: Path,
    latents: str,
    data: str | None,
    resize: tuple[int, int] | None,
    scale: tuple[float, float] | None,
    adapter: str | None,
    options: tuple[str, ...],
    metric: str | None,
    beta: float | None,
    overwrite: bool,
) -> None:
    """Write a checkpoint as one safetensors file that describes itself.

    The analysis gives the same numbers afterwards, with no adapter, option or code needed.

    Raises:
        UsageError: for rows that only --latents used would read.
    """
    if latents == "used" and (beta is not None or adapter is not None or options):
        raise click.UsageError("--latents used takes a native checkpoint as it is.")
    if latents == "all" and not (data is None and resize is None and scale is None):
        raise click.UsageError("--data, --resize and --scale go with --latents used.")
    from isoprobe.registry.specs import options_paths, parse_options
    from isoprobe.results.whole import check_place

    check_place(out, overwrite=overwrite, inputs=(model, *options_paths(options)))
    written = converted(
        model, out, adapter=adapter, options=parse_options(options, of="--option"), metric=metric,
        beta=beta, latents=latents, data=data, resize=resize, scale=scale, overwrite=overwrite,
    )  # fmt: skip
    click.echo(f"{out}: {written.says}")


def _trim(
    model: Path,
    out: Path,
    data: str | None,
    metric: str | None,
    resize: tuple[int, int] | None,
    scale: tuple[float, float] | None,
    *,
    overwrite: bool,
) -> Converted:
    from isoprobe.checkpoints.native import write_checkpoint
    from isoprobe_plugins.commands.used_latents import trimmed

    found = trimmed(model, data, metric=metric, resize=resize, scale=scale)
    parts = found.networks
    write_checkpoint(out, parts.encoder, parts.decoder, found.manifest, overwrite=overwrite)
    says = f"{len(found.kept)} of {_count(found)} latents; {found.describe()}"
    return Converted(out, len(found.kept), says)


def _count(found: Trimmed) -> int:
    return len(found.kept) + len(found.dropped)


def describe(vae: VAE) -> Manifest:
    """Express a loaded model as a manifest.

    Args:
        vae: model whose networks are chains of layers.

    Returns:
        Its manifest.

    Raises:
        CheckpointError: when its networks are code rather than a known architecture.
    """
    from torch import nn

    from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective
    from isoprobe.errors import CheckpointError
    from isoprobe_plugins.architectures.chain import ChainEncoder
    from isoprobe_plugins.architectures.layers import Layers, plain_config

    parts = vae.module
    encoder = parts["encoder"] if isinstance(parts, nn.ModuleDict) and "encoder" in parts else None
    if not isinstance(encoder, ChainEncoder) or encoder.config is None:
        what = "is native already" if vae.adapter == "native" else "is built by code"
        raise CheckpointError(
            f"{vae.name}, read by adapter '{vae.adapter}', {what}: only models read as chains of "
            "layers (declared, presets, disentangling-vae, keras, pythae) can be converted"
        )
    facts = vae.facts
    objective = None
    if facts.metric is not None:
        objective = Objective(
            facts.metric, facts.beta, capacity=facts.capacity, free_bits=facts.free_bits
        )
    origin = {
        "converted_from": vae.name,
        "adapter": vae.adapter,
        "sha256": vae.sha256,
        "assumptions": list(facts.assumptions),
        **({"condition": vae.condition} if vae.condition else {}),
        **({"beta_source": facts.beta_source} if facts.beta_source else {}),
    }
    return Manifest(
        FORMAT_VERSION,
        Layers.name,
        plain_config(encoder.config),
        vae.latent_size,
        objective,
        facts.dataset,
        facts.input_range,
        {},
        {**facts.training, **origin},
    )


@hookimpl
def isoprobe_commands() -> list[click.Command]:
    """Return the commands of this module."""
    return [convert]
