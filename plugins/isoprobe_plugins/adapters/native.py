"""Load the native checkpoint, which knows its architecture, metric, beta and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.native import (
    METADATA_KEY,
    facts_of,
    load_weights,
    manifest_from_header,
    vae_from_networks,
    weights,
)
from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.contracts import VAE, Adapter
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.lookup import installed
from isoprobe.registry.specs import NoOptions, construct
from isoprobe_plugins.adapters.weights.named import built_without_memory

if TYPE_CHECKING:
    from isoprobe.checkpoints.native import Manifest
    from isoprobe.contracts import Networks


class Native(Adapter):
    """Reads what :func:`isoprobe.checkpoints.native.write_checkpoint` writes."""

    name = "native"
    summary = "self-describing safetensors files written by isoprobe"

    def matches(self, source: Source) -> bool:
        """Return True for a safetensors file with isoprobe's description.

        A damaged header counts as ours only when the key can still be seen, so that the error
        names the damage rather than the kind of file.
        """
        if source.kind is not FileKind.SAFETENSORS:
            return False
        try:
            return METADATA_KEY in source.header.get("__metadata__", {})
        except CheckpointError:
            return f'"{METADATA_KEY}"'.encode() in source.head(1 << 16)

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Build the architecture the file names and put its weights in."""
        construct(NoOptions, options, f"adapter '{self.name}'")
        manifest = manifest_from_header(source.header, str(source.path))
        networks = load_native(source, manifest)
        head = str(manifest.config.get("head", "as the architecture gives it"))
        facts = replace(facts_of(manifest), scale_head=head)
        if hasattr(networks.decoder, "logits"):
            facts = replace(facts, output_range=(0.0, 1.0))
        return vae_from_networks(
            networks, facts, name=source.path.stem, adapter=self.name, sha256=source.sha256()
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return the manifest."""
        import msgspec

        manifest = manifest_from_header(source.header, str(source.path))
        description: dict[str, Any] = msgspec.to_builtins(manifest)
        return description


def load_native(source: Source, manifest: Manifest) -> Networks:
    """Build and fill the networks of a native checkpoint.

    The networks are built without memory, compared with the file's tensors, and only then
    filled, so that a forged configuration costs nothing.

    Args:
        source: the file.
        manifest: its description.

    Returns:
        The networks with their weights.

    Raises:
        CheckpointError: when configuration, weights and description do not fit each other.
    """
    import torch

    architecture = installed().architecture(manifest.architecture)
    try:
        networks = built_without_memory(
            lambda: architecture.build(manifest.config), "its configuration"
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from error
    latent_size = torch.Size(networks.latent_shape).numel()
    if latent_size != manifest.latent_size:
        raise CheckpointError(
            f"{source.path}: its configuration gives {latent_size} latents, "
            f"its description {manifest.latent_size}"
        )
    load_weights(networks, weights(source.path), str(source.path))
    _refuse_unfilled(networks, manifest.architecture)
    return networks


def _refuse_unfilled(networks: Networks, name: str) -> None:
    for module in (networks.encoder, networks.decoder):
        for buffer, tensor in module.named_buffers():
            if tensor.is_meta:
                raise CheckpointError(
                    f"architecture '{name}' keeps {buffer!r} out of its state; "
                    "register it as persistent"
                )


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Native]
