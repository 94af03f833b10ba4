"""Configurations of small networks, as a native checkpoint states them."""

from __future__ import annotations

from typing import Any


def mlp(*shape: int, latents: int, width: int = 8, **more: Any) -> dict[str, Any]:
    """One hidden layer on either side."""
    return {
        "input_shape": list(shape),
        "encoder_widths": [width],
        "decoder_widths": [width],
        "latent_size": latents,
        **more,
    }


def gdn(*shape: int, latents: int, channels: int, **more: Any) -> dict[str, Any]:
    """Two convolutions with GDN and a hidden layer on either side."""
    return {"channels": channels, "kernels": [5, 3], **mlp(*shape, latents=latents), **more}
