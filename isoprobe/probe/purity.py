"""Find, on a few rows before a run, a model whose answers are not a function of each row.

The theory takes mu, sigma and the decoder as functions. A model that draws at each call, or whose
answer for a row depends on the rows beside it, gives numbers that look like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from isoprobe.derivatives.watched import watchable
from isoprobe.errors import CheckpointError, MetricError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isoprobe.contracts import VAE, Metric

#: rows that the trial is made on
ROWS = 8
#: fewest rows of a batch: norms of a single row are none
FEW = 2
#: a matrix product may round differently with the number of rows: parts of the largest value
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.2}

Run = Callable[["Tensor"], "tuple[Tensor, ...]"]

_GO_ON = "--allow-random goes on all the same"


def require_pure(vae: VAE, x: Tensor) -> None:
    """Refuse a model that answers the same row differently.

    Args:
        vae: the model.
        x: a few inputs, ``(B, *input_shape)``.

    Raises:
        CheckpointError: naming the part, and the layer where there is one to blame.
    """
    with torch.no_grad():
        z = _check(vae, "encode", _encoder, x) if vae.encode is not None else None
        if z is None:
            drawn = torch.randn(len(x), vae.latent_size, generator=torch.Generator().manual_seed(0))
            z = drawn.to(x.device, x.dtype)
        _check(vae, "decode", lambda model: lambda latent: (model.decode(latent),), z)


def off_graph(vae: VAE, z: Tensor) -> bool:
    """Say whether the decoder's output carries no gradient to its latents, ``z (B, n)``."""
    with torch.enable_grad():
        output = vae.decode(z.detach().clone().requires_grad_())
    return not output.requires_grad


def require_domain(vae: VAE, metric: Metric, z: Tensor) -> None:
    """Refuse logits and the like where a metric takes probabilities, which it would clamp.

    Args:
        vae: the model.
        metric: the distortion; only one with a form for logits has such a domain.
        z: latents, ``(B, n)``.

    Raises:
        MetricError: with what was found and how to say what it is.
    """
    if metric.input_range is None or metric.logits_distortion is None:
        return
    with torch.no_grad():
        output = vae.decode(z)
    low, high = metric.input_range
    lowest, highest = float(output.min()), float(output.max())
    slack = _ROUNDING.get(output.dtype, 1e-4)
    if lowest < low - slack or highest > high + slack:
        raise MetricError(
            f"{vae.name}: decode gives values from {lowest:.3g} to {highest:.3g}, and metric "
            f"'{metric.name}' takes {low:g} to {high:g}: if they are logits say so (--option "
            "output=logits, isoprobe.wrap(model, output='logits')), else use --metric sse"
        )


def _encoder(vae: VAE) -> Run:
    def run(x: Tensor) -> tuple[Tensor, ...]:
        if vae.encode is None:
            raise CheckpointError(f"{vae.name} has no encoder")
        posterior = vae.encode(x)
        return posterior.mean, posterior.std

    return run


def _check(vae: VAE, part: str, of: Callable[[VAE], Run], rows: Tensor) -> Tensor:
    """Call twice, then alone and in company; returns the first answer."""
    run, few = of(vae), of(vae.rows(slice(FEW)))
    first, layers = _watched(vae.module, run, rows)
    again, layers_again = _watched(vae.module, run, rows)
    if not _alike(first, again, exact=rows.device.type == "cpu"):
        raise CheckpointError(
            f"{vae.name}: {part} gives another answer each time it is called on the same rows"
            f"{_blame(layers, layers_again)}. A draw from the posterior, noise or dropout has to "
            f"be off in eval mode and {part} has to return what it draws from; {_GO_ON}"
        )
    if len(rows) > FEW:
        alone = few(rows[:FEW])
        company = tuple(part[:FEW] for part in first)
        back = torch.arange(len(rows), device=rows.device).flip(0)
        turned = tuple(part.flip(0) for part in of(vae.rows(back))(rows[back]))
        if not (_alike(company, alone) and _alike(first, turned)):
            raise CheckpointError(
                f"{vae.name}: what {part} gives for a row depends on the other rows of its batch"
                f"{_blame_company(vae.module, run, few, rows)}. Statistics of the batch have to be "
                f"replaced by running ones in eval mode; {_GO_ON}"
            )
    return first[0]


def _watched(
    module: nn.Module | None, run: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor
) -> tuple[tuple[Tensor, ...], list[tuple[str, list[Tensor], list[Tensor]]]]:
    """Run and keep what each layer took and gave, in order of the calls."""
    calls: list[tuple[str, list[Tensor], list[Tensor]]] = []
    hooks = []
    for name, layer in watchable(module).items():
        hooks.append(
            layer.register_forward_hook(
                lambda _, taken, given, n=name: calls.append((n, _tensors(taken), _tensors(given)))
            )
        )
    try:
        answer = run(rows)
    finally:
        for hook in hooks:
            hook.remove()
    return answer, calls


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, torch.Tensor):
        return [value.detach().clone()]
    if isinstance(value, tuple | list):
        return [t for item in value for t in _tensors(item)]
    return []


def _blame(
    first: Sequence[tuple[str, list[Tensor], list[Tensor]]],
    again: Sequence[tuple[str, list[Tensor], list[Tensor]]],
) -> str:
    """Name the innermost layer that was given the same and answered differently."""
    for (name, taken, given), (_, taken_again, given_again) in zip(first, again, strict=False):
        if not _alike(taken, taken_again, exact=True):
            return f": what goes into layer '{name}' differs already" if name else ""
        if not _alike(given, given_again, exact=True):
            return f": layer '{name}' is the first that differs" if name else ""
    return ": it differs after the last layer" if first else ""


def _blame_company(module: nn.Module | None, run: Run, few: Run, rows: Tensor) -> str:
    _, many = _watched(module, run, rows)
    _, one = _watched(module, few, rows[:FEW])
    for (name, taken, given), (_, taken_alone, given_alone) in zip(many, one, strict=False):
        before = [t[:FEW] for t in taken], taken_alone
        after = [t[:FEW] for t in given], given_alone
        if not _alike(*before):
            return f": what goes into layer '{name}' does already" if name else ""
        if not _alike(*after):
            return f": layer '{name}' is the first that does" if name else ""
    return ""


def _alike(first: Sequence[Tensor], second: Sequence[Tensor], *, exact: bool = False) -> bool:
    """Compare tensors one by one: all bits, or up to the rounding of their type."""
    if len(first) != len(second):
        return False
    return all(_equal(a, b, exact=exact) for a, b in zip(first, second, strict=True))


def _equal(a: Tensor, b: Tensor, *, exact: bool) -> bool:
    if a.shape != b.shape or not torch.equal(a.isnan(), b.isnan()):
        return False
    a, b = torch.nan_to_num(a), torch.nan_to_num(b)
    if exact or not a.is_floating_point() or not a.numel():
        return torch.equal(a, b)
    slack = _ROUNDING.get(a.dtype, 1e-4) * a.abs().max()
    return bool((a - b).abs().max() <= slack)
