"""Say what a posterior N(mu, L L'), whose latents are correlated, asks of KL, draws and norms.

An optimum over Sigma = L L' has, exactly, (1/beta) E[L' d eps'] + L'L = I with d = dD(x, Dec(z))/dz
at z = mu + L eps; or E[H] = beta (Sigma^-1 - I), H the second derivatives of D, which is the same.
Its diagonal is the statement of one latent: with c_j^2 = 1 / (Sigma^-1)_jj, what is left of latent
j when the others are known, c_j^2 E[H_jj] / beta + c_j^2 = 1, as for independent latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe.contracts import Posterior
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_HEADING = "Full covariance (beyond)"


def correlated(mean: Tensor, root: Tensor) -> Posterior:
    """Make a posterior of a full covariance.

    Args:
        mean: mu, ``(B, n)``.
        root: L of the covariance L L', ``(B, n, n)``, lower triangular, its diagonal positive.

    Returns:
        The posterior, its ``std`` that of each latent given the others.
    """
    return Posterior(mean, conditional_std(root), root)


@stated(_HEADING)
def conditional_std(root: Tensor) -> Tensor:
    """Deviation of each latent given the others, c_j = (Sigma^-1)_jj^(-1/2).

    Args:
        root: L, ``(B, n, n)``.

    Returns:
        ``(B, n)``; sigma_j where L is diagonal.

    Examples:
        >>> import torch
        >>> conditional_std(torch.tensor([[[1.0, 0.0], [0.6, 0.8]]]))  # correlated by 0.6
        tensor([[0.8000, 0.8000]])
    """
    import torch

    unit = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device).expand_as(root)
    inverse = torch.linalg.solve_triangular(root, unit, upper=False)
    found: Tensor = inverse.square().sum(-2).rsqrt()
    return found


@stated(_HEADING)
def marginal_variance(root: Tensor) -> Tensor:
    """Variance of each latent, Sigma_jj, ``(B, n, n) -> (B, n)``."""
    return root.square().sum(-1)


@stated(_HEADING)
def correlated_kl(mean: Tensor, root: Tensor) -> Tensor:
    """KL of q(z_j | z_1 .. z_(j-1)) from N(0, 1), in the mean over those before it.

    Args:
        mean: mu, ``(B, n)``.
        root: L, ``(B, n, n)``.

    Returns:
        (mu_j^2 + Sigma_jj - 1) / 2 - log L_jj, ``(B, n)`` in nats, none negative; their sum is
        (mu'mu + tr Sigma - log det Sigma - n) / 2, whatever the order of the latents.
    """
    spread = 0.5 * (mean**2 + marginal_variance(root) - 1)
    return spread - root.diagonal(0, -2, -1).log()


@stated(_HEADING)
def pulls(noise: Tensor, root: Tensor) -> Tensor:
    """What a draw is multiplied by for the answer of one latent: c_j^2 (Sigma^-1 (z - mu))_j.

    Args:
        noise: eps of z = mu + L eps, ``(B, draws, n)``.
        root: L, ``(B, n, n)``.

    Returns:
        ``(B, draws, n)``; sigma_j eps_j where L is diagonal.
    """
    import torch

    solved = torch.linalg.solve_triangular(root.mT, noise.mT, upper=True).mT
    pulled: Tensor = conditional_std(root).square()[:, None] * solved
    return pulled


@stated(_HEADING)
def correlated_surplus(shifts: Any, gram: Any, root: Any) -> Any:
    """What draws add to D beyond the mean, to second order: u' J'GJ u - tr(J'GJ Sigma).

    Args:
        shifts: u = L eps, ``(B, draws, n)``.
        gram: J'GJ, ``(B, n, n)``.
        root: L, ``(B, n, n)``.

    Returns:
        ``(B, draws)``, of mean 0.
    """
    mean = (gram * (root @ root.mT)).sum((-2, -1))
    return ((shifts @ gram) * shifts).sum(-1) - mean[:, None]


@stated(_HEADING)
def correlated_surplus_of_products(shifts: Any, gram: Any, root: Any) -> Any:
    """The same for u_k dD/dz_j: 2 u_k (J'GJ u)_j less its mean, ``(B, n, n)``, k first."""
    return 2 * (shifts.mT @ (shifts @ gram) / shifts.shape[1] - root @ root.mT @ gram)


@stated(_HEADING)
def correlated_surplus_of_answers(shifts: Any, pulled: Any, gram: Any, std: Any) -> Any:
    """The same for the answer of one latent.

    Args:
        shifts: u = L eps, ``(B, draws, n)``.
        pulled: from :func:`pulls`, ``(B, draws, n)``.
        gram: J'GJ, ``(B, n, n)``.
        std: c, ``(B, n)``.

    Returns:
        Mean over the draws, ``(B, n)``, of mean 0.
    """
    return 2 * ((pulled * (shifts @ gram)).mean(1) - std**2 * gram.diagonal(0, -2, -1))


@stated(_HEADING)
def isometric_eigenvalues(root: Tensor) -> Tensor:
    """What the eigenvalues of (2/beta) L'J'GJL are at an optimum, to second order.

    Args:
        root: L, ``(B, n, n)``.

    Returns:
        Those of I - L'L, ``(B, n)``, descending.
    """
    import torch

    values: Tensor = 1 - torch.linalg.eigvalsh((root.mT @ root).double())
    return values


@stated(_HEADING)
def covariance_answer(products: Tensor, root: Tensor) -> Tensor:
    """E[L' d eps'], the decoder's answer to noise in the directions of L.

    Args:
        products: E[u_k d_j], u = L eps, ``(B, n, n)``, k first.
        root: L, ``(B, n, n)``.

    Returns:
        ``(B, n, n)`` in units of the metric: beta (I - L'L) at an optimum.
    """
    import torch

    turned = root.mT @ products.mT
    answer: Tensor = torch.linalg.solve_triangular(root.mT, turned, upper=True, left=False)
    return answer


@stated(_HEADING)
def covariance_residual(answer: np.ndarray, width: np.ndarray, beta: float) -> np.ndarray:
    """E[L' d eps'] / beta + L'L - I, zero at an optimum over the whole covariance.

    Args:
        answer: E[L' d eps'], ``(..., n, n)``.
        width: E[L'L], ``(..., n, n)``.
        beta: KL weight.

    Returns:
        ``(..., n, n)``, dimensionless.
    """
    import numpy as np

    residual: np.ndarray = answer / beta + width - np.eye(width.shape[-1])
    return residual
