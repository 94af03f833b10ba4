"""Tell code bases that people copy by the names that their tensors have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: what each is called, and patterns of names of which all must be there
_KNOWN = (
    ("VanillaVAE or BetaVAE of PyTorch-VAE",
     (r"encoder\.0\.0\.weight$", r"fc_mu\.weight$", r"fc_var\.weight$", r"decoder_input\.weight$")),
    ("the MNIST VAE of PyTorch's examples",
     (r"fc1\.weight$", r"fc21\.weight$", r"fc22\.weight$", r"fc3\.weight$", r"fc4\.weight$")),
    ("a model of disentangling-vae",
     (r"encoder\.mu_logvar_gen\.weight$", r"decoder\.lin1\.weight$")),
    ("a model of joint-vae", (r"img_to_features\.0\.weight$", r"features_to_img\.0\.weight$")),
    ("a model of pythae", (r"encoder\.embedding\.weight$", r"encoder\.log_var\.weight$")),
    ("an AutoencoderKL of diffusers", (r"encoder\.down_blocks\.0\.", r"quant_conv\.weight$")),
    ("the autoencoder of latent-diffusion", (r"encoder\.down\.0\.", r"quant_conv\.weight$")),
    ("a model of scvi-tools", (r"z_encoder\.encoder\.fc_layers", r"decoder\.px_")),
    ("the sentence VAE of Bowman et al. as published for PyTorch",
     (r"hidden2mean\.weight$", r"hidden2logv\.weight$", r"latent2hidden\.weight$")),
    ("the VQ-VAE of PyTorch-VAE", (r"vq_layer\.embedding\.weight$",)),
)  # fmt: skip


def looks_like(names: Iterable[str]) -> str | None:
    """Name the code base whose layouts have such names.

    Args:
        names: of the tensors, with whatever prefixes.

    Returns:
        The code base; None where none of those known has them.
    """
    every = list(names)
    for base, patterns in _KNOWN:
        if all(any(re.search(p, name) for name in every) for p in patterns):
            return base
    return None
