"""Build the linear VAE, whose optimum is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from isoprobe.checkpoints.native import (
    FORMAT_VERSION,
    Manifest,
    Objective,
    facts_of,
    vae_from_networks,
)
from isoprobe.contracts import VAE, Architecture, Networks
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.architectures.configuration import Shape, Size, read_config

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LinearConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of ``linear``.

    Attributes:
        input_shape: shape of one input.
        latent_size: number of latents n.
    """

    input_shape: Shape
    latent_size: Size


class Linear(Architecture):
    """``mu = A x + b`` with one standard deviation for all x; ``x_hat = W z + c``."""

    name = "linear"
    summary = "affine encoder mean, constant deviations, affine decoder"

    def build(self, config: Mapping[str, Any]) -> Networks:
        """Build the untrained networks from fields of :class:`LinearConfig`."""
        from isoprobe_plugins.architectures.affine import AffineEncoder
        from isoprobe_plugins.architectures.dense import DenseDecoder

        c = read_config(config, LinearConfig, self.name)
        encoder = AffineEncoder(math.prod(c.input_shape), c.latent_size)
        decoder = DenseDecoder(c.latent_size, [], c.input_shape)
        return Networks(encoder, decoder, c.input_shape, (c.latent_size,))


def linear_networks(
    covariance: Tensor,
    beta: float,
    latent_size: int,
    mean: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Networks, Manifest]:
    """Build the linear VAE that is optimal for SSE on data N(mean, covariance).

    With eigenvalues lambda_j > beta / 2 and eigenvectors u_j: sigma_j^2 = (beta / 2) / lambda_j,
    decoder column sqrt(lambda_j - beta / 2) u_j, mu_j = sqrt(lambda_j - beta / 2) / lambda_j
    u_j'(x - mean). The others collapse: mu_j = 0, sigma_j = 1, decoder column 0.

    Args:
        covariance: C, ``(m, m)``, symmetric and positive semi-definite.
        beta: KL weight in units of SSE.
        latent_size: n, at most m; latents stand in descending order of eigenvalue.
        mean: of the data, ``(m,)``; zero when left out.
        dtype: of the parameters; float64 when left out.

    Returns:
        The networks, and the manifest with which
        :func:`isoprobe.checkpoints.native.write_checkpoint` saves them.

    Raises:
        OptionError: when beta is not positive or the sizes do not fit.
    """
    import torch

    m = len(covariance)
    if not 1 <= latent_size <= m:
        raise OptionError(f"latent_size must lie in 1 to {m} for {m} inputs, not {latent_size}")
    if not beta > 0:
        raise OptionError(f"beta must be positive, not {beta}")
    values, vectors = torch.linalg.eigh(covariance.double())
    lam, u = values.flip(0)[:latent_size], vectors.flip(1)[:, :latent_size]
    used = lam > beta / 2
    gain = torch.where(used, lam - beta / 2, 0.0).sqrt()
    std = torch.where(used, (beta / 2 / lam).sqrt(), 1.0)
    center = torch.zeros(m, dtype=torch.float64) if mean is None else mean.double()

    config = {"input_shape": [m], "latent_size": latent_size}
    networks = Linear().build(config)
    encode = torch.where(used, gain / lam, 0.0)[:, None] * u.T
    _assign(networks.encoder, weight=encode, bias=-encode @ center, log_std=std.log())
    _assign(networks.decoder, **{"out.weight": u * gain, "out.bias": center})
    for module in (networks.encoder, networks.decoder):
        module.to(dtype or torch.float64)
    objective = Objective(metric="sse", beta=float(beta))
    manifest = Manifest(FORMAT_VERSION, Linear.name, config, latent_size, objective)
    return networks, manifest


def linear_vae(
    covariance: Tensor,
    beta: float,
    latent_size: int,
    mean: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> VAE:
    """Build the model of :func:`linear_networks`, ready to analyse; same arguments."""
    networks, manifest = linear_networks(covariance, beta, latent_size, mean, dtype)
    return vae_from_networks(networks, facts_of(manifest), name="linear")


def _assign(module: torch.nn.Module, **tensors: Tensor) -> None:
    """Replace every parameter of a module."""
    module.load_state_dict({k: v.contiguous() for k, v in tensors.items()}, assign=True)


@hookimpl
def isoprobe_architectures() -> list[type[Architecture]]:
    """Return the architectures of this module."""
    return [Linear]
