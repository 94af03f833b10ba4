"""Tell which outputs are mean and scale, and how the scale is written, by what the model does.

A wrong form loads without an error. Two things tell: the model's own draw, z = mu + eps sigma,
with eps set to 0 and 1; and, where it never draws, the stationarity of its loss, which holds for
the right form alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from isoprobe.errors import IsoprobeError
from isoprobe.probe.trials import fitted_beta
from isoprobe.statistics.draws import normal
from isoprobe_plugins.heads import HEADS, split_head, to_std

if TYPE_CHECKING:
    from isoprobe.derivatives.metric_tensor import OutputMetric

#: a drawn z gives sigma to this relative error
EXACT = 2e-3
#: a reading whose stationarity is off by less may be the right one
FITS = 0.3
#: misfits below this are those of a few hundred rows and draws
NOISE = 0.05
#: a gap between two misfits that is no chance
CLEAR = 0.03
#: forms that a model without a draw is tried for, the most usual first
USUAL = ("logvar", "logstd", "softplus-std", "std", "variance", "softplus-variance")
#: orders within one output of 2n, the most usual first
LAYOUTS = ("halves", "swapped", "interleaved")

_NAMED = (
    (r"log_?(sigma|std|scale|sd|dev)\w*", "logstd"),
    (r"(log_?var\w*|logv|lv|log_sigma2|log_?variance)", "logvar"),
    (r"(std|sigma|scale|stddev|deviation)", "std"),
    (r"(variance)", "variance"),
)
_MEAN = re.compile(r"(^|[._])(z_?)?(mu|mean|loc|means|z_mean|q_mu)($|[._\d])", re.IGNORECASE)
_LATENT = re.compile(r"(^|[._])(z|latent|latents|sample|samples|embedding)$", re.IGNORECASE)


@dataclass(frozen=True)
class Draw:
    """What a model draws its latents from, seen at eps = 0 and eps = 1.

    Attributes:
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``; None where the model does not draw.
    """

    mean: Tensor
    std: Tensor | None


@dataclass(frozen=True)
class PosteriorForm:
    """How a posterior is read from an answer.

    Attributes:
        mean: name of the leaf of mu.
        scale: name of the leaf of the scale, that of the mean where one output holds both.
        form: a key of :data:`isoprobe_plugins.heads.HEADS`.
        layout: order within one output of both, or None.
        why: how it was told, in words.
    """

    mean: str
    scale: str
    form: str
    layout: str | None = None
    why: str = ""

    def apply(self, found: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return mu and sigma, each ``(B, n, ...)``, from the leaves of an answer."""
        mean, raw = self._parts(found)
        return mean, to_std(self.form, raw)

    def raw(self, found: dict[str, Tensor]) -> Tensor:
        """Return the scale as the network gives it."""
        return self._parts(found)[1]

    def _parts(self, found: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if self.layout is not None:
            return split_head(self.layout, found[self.mean])
        return found[self.mean], found[self.scale]


def named_form(name: str) -> str | None:
    """Return the form that a name such as ``fc_logvar`` speaks of, None for one that is silent."""
    for part in reversed(re.split(r"[.]", name)):
        for pattern, form in _NAMED:
            if re.search(rf"(^|_|\d|[a-z]){pattern}($|_|\d)", part, re.IGNORECASE):
                return form
    return None


def is_mean_name(name: str) -> bool:
    """Say whether a name speaks of a mean."""
    return bool(_MEAN.search(name))


def is_latent_name(name: str) -> bool:
    """Say whether a name speaks of a drawn latent."""
    return bool(_LATENT.search(name))


def close(a: Tensor, b: Tensor, tolerance: float = EXACT) -> bool:
    """Say whether two tensors of as many numbers agree, relative to their size."""
    if a.numel() != b.numel():
        return False
    a, b = a.flatten().double(), b.flatten().double()
    return bool(((a - b).abs() <= tolerance * b.abs() + 1e-6).all())


#: forms whose network gives a positive number itself
POSITIVE = frozenset({"std", "variance"})


def forms_of(std: Tensor, raw: Tensor) -> list[str]:
    """Return the forms under which a raw scale is the deviation that the model draws with."""
    return [form for form in HEADS if close(to_std(form, raw), std)]


def misfit(view: OutputMetric, x: Tensor, mean: Tensor, std: Tensor, seed: int = 0) -> float | None:
    """How far a reading is from the stationarity of a trained model, relative.

    At an optimum E[sigma_j eps_j dD/dz_j] = beta (1 - E sigma_j^2) for every latent, with one beta
    (summed with the stationarity of mu): the mean relative departure over
    the latents in use, with the beta that fits them together.

    Args:
        view: metric and decoder.
        x: inputs, ``(B, *input_shape)``.
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.
        seed: of the draws.

    Returns:
        The misfit, None where the reading gives no numbers or no positive beta.
    """
    if not bool((mean.isfinite() & std.isfinite() & (std > 0)).all()):
        return None
    total = torch.zeros_like(mean)
    pairs = 16
    for pair in range(pairs):
        noise = normal(seed + pair, "reading", np.arange(len(x)), mean.shape[1])
        epsilon = torch.as_tensor(noise, dtype=mean.dtype, device=mean.device)
        for shift in (std * epsilon, -std * epsilon):
            try:
                with torch.enable_grad():
                    z = (mean + shift).detach().requires_grad_()
                    value = view.distortion(x, view.decode(z)).sum()
                    (gradient,) = torch.autograd.grad(value, z)
            except (IsoprobeError, RuntimeError):
                return None
            total += 0.5 / pairs * shift * gradient
    each, wanted = total.double(), 1 - std.double().square()
    answer, variance = each.mean(0), 1 - wanted.mean(0)
    used = mean.double().var(0) > 0.05
    room = 1 - variance
    fitted = fitted_beta(answer, room, used)
    if fitted is None:
        return None
    beta, off = fitted
    # the network sets sigma at each x: what is left is no function of sigma either
    shade = std.double().log()
    shade = (shade - shade.mean(0)) / shade.std(0).clamp_min(1e-6)
    tilt = ((each / beta - wanted) * shade).mean(0)[used]
    off += float(tilt.abs().sum() / room[used].abs().sum())
    # mu has a prior of its own: E[mu^2 + sigma^2] = 1 at an optimum of the encoder's scale
    moment = mean.double().square().mean(0)[used] + variance[used]
    return off + 0.5 * float((moment - 1).abs().mean())


def best(
    candidates: Sequence[PosteriorForm], measure: Callable[[PosteriorForm], float | None]
) -> tuple[PosteriorForm | None, dict[str, float]]:
    """Return the reading with the least misfit where no other comes near, else None.

    Which outputs are mean and scale is told first; among the forms of those the usual one, which is
    listed first, wins where it fits as well as any.

    Args:
        candidates: readings to try, the expected one first: it wins where it fits as well.
        measure: gives a misfit.

    Returns:
        The reading, and every misfit by words.
    """
    tried = [(measure(candidate), candidate) for candidate in candidates]
    known = [(off, candidate) for off, candidate in tried if off is not None]
    said = {words(c): off for off, c in known}
    if not known:
        return None, said
    least, winner = min(known, key=lambda pair: pair[0])
    places = (winner.mean, winner.layout)
    group = [(off, c) for off, c in known if (c.mean, c.layout) == places]
    elsewhere = [off for off, c in known if (c.mean, c.layout) != places]
    if places != (candidates[0].mean, candidates[0].layout) and not _clear(least, elsewhere):
        return None, said
    usual = next(c for c in candidates if (c.mean, c.layout) == places)
    first = next((off for off, c in group if c is usual), float("inf"))
    if first <= FITS and (first <= 1.5 * least or first <= NOISE):
        return usual, said
    if _clear(least, [off for off, c in group if c is not winner]):
        return winner, said
    return None, said


def _clear(least: float, rivals: Sequence[float]) -> bool:
    return least <= FITS and min(rivals, default=1.0) >= max(1.75 * least, least + CLEAR)


def words(reading: PosteriorForm) -> str:
    """Say what a reading is, in short."""
    order = "" if reading.layout is None else f"{reading.layout} "
    return f"{order}{reading.form} of {reading.scale or 'the output'}"
