"""Hold a metric to its laws: a distortion, and a tensor that is half its Hessian (Eq. 11)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from isoprobe.derivatives.metric_tensor import hessian_action
from isoprobe.registry.specs import construct, parse_spec
from isoprobe.testing.compare import require_close
from isoprobe.testing.laws import Law, Laws, law, require
from isoprobe.testing.likelihoods import LikelihoodLaws
from isoprobe.theory.likelihood import Likelihood

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Metric

    Action = Callable[[Tensor, Tensor], Tensor]

#: samples at once, fewer where they are large
BATCH, LARGE_BATCH, LARGE = 4, 2, 500
#: step of the second difference, where rounding and the fourth-order term are both small
STEP = 1e-4
#: random directions in which a metric tensor is tried
DIRECTIONS = 4


def check_metric(
    metric: Metric, shapes: Sequence[tuple[int, ...]] = ((6,), (2, 3, 3)), *, seed: int = 0
) -> list[Law]:
    """List the laws of a metric.

    Args:
        metric: an instance, options set.
        shapes: shapes of one sample to try, as small as the metric allows.
        seed: of the generated cases.

    Returns:
        The laws that apply; the logits forms are held to theirs only where they are defined.
    """
    if isinstance(metric, Likelihood):
        return LikelihoodLaws(metric, shapes, seed).collect()
    return MetricLaws(metric, shapes, seed).collect()


def _smooth(laws: MetricLaws) -> bool:
    return laws.metric.smooth


def _has_logits(laws: MetricLaws) -> bool:
    return laws.metric.logits_distortion is not None


def _has_logits_tensor(laws: MetricLaws) -> bool:
    return _has_logits(laws) and laws.metric.logits_diagonal is not None


def _has_flattened(laws: MetricLaws) -> bool:
    return laws.metric.flattened is not None


def _has_flattened_logits(laws: MetricLaws) -> bool:
    return laws.metric.logits_flattened is not None and laws.metric.logits_diagonal is not None


def _finite_range(values: tuple[float, float] | None) -> tuple[float, float]:
    """A finite part of a range of values, which may be open on either side."""
    low, high = values or (-math.inf, math.inf)
    if math.isinf(low) and math.isinf(high):
        return -1.5, 1.5
    if math.isinf(low):
        return high - 5.0, high
    return low, (low + 5.0 if math.isinf(high) else high)


def _accelerators() -> list[str]:
    found = ["cuda"] if torch.cuda.is_available() else []
    return found + (["mps"] if torch.backends.mps.is_available() else [])


class MetricLaws(Laws):
    """A metric under test."""

    def __init__(self, metric: Metric, shapes: Sequence[tuple[int, ...]], seed: int) -> None:
        self.metric, self.shapes, self.seed = metric, shapes, seed

    @law("distortion gives one number a sample")
    def _one_number(self) -> None:
        for x, x_hat in self._pairs():
            found = self.metric.distortion(x, x_hat)
            require(
                found.shape == (len(x),),
                f"distortion of {len(x)} samples has shape {tuple(found.shape)}",
            )
            require(found.dtype == x.dtype, f"distortion of {x.dtype} is {found.dtype}")
            require(found.isfinite().all(), "distortion is not finite")

    @law("distortion is least at x_hat = x")
    def _least(self) -> None:
        for x, x_hat in self._pairs():
            for near in (1.0, 0.1, 0.01):
                other = x + near * (x_hat - x)
                excess = self.metric.distortion(x, other) - self.metric.distortion(x, x)
                require(
                    (excess >= -1e-9).all(),
                    f"D(x, x_hat) - D(x, x) falls to {float(excess.min()):.3g}",
                )

    @law("rows of a batch are independent")
    def _rows(self) -> None:
        for x, x_hat in self._pairs():
            whole = self.metric.distortion(x, x_hat)
            alone = [self.metric.distortion(x[i : i + 1], x_hat[i : i + 1]) for i in range(len(x))]
            require_close(torch.cat(alone), whole, 1e-9, "distortion of a row by itself")

    @law("inputs are left unchanged")
    def _pure(self) -> None:
        for x, x_hat in self._pairs():
            before = x.clone(), x_hat.clone()
            self.metric.distortion(x, x_hat)
            for action in self._actions().values():
                action(x, x_hat)
            require(
                torch.equal(x, before[0]) and torch.equal(x_hat, before[1]),
                "an argument is not what it was",
            )

    @law("the same inputs give the same distortion")
    def _deterministic(self) -> None:
        for x, x_hat in self._pairs():
            first, second = (self.metric.distortion(x, x_hat) for _ in range(2))
            require(torch.equal(first, second), "two calls differ")

    @law("float32 agrees with float64")
    def _precision(self) -> None:
        for x, x_hat in self._pairs():
            single = self.metric.distortion(x.float(), x_hat.float())
            require(single.dtype == torch.float32, f"distortion of float32 is {single.dtype}")
            require_close(
                single.double(), self.metric.distortion(x, x_hat), 1e-4, "distortion in float32"
            )

    @law("every device agrees with the CPU", when=lambda _: bool(_accelerators()))
    def _devices(self) -> None:
        for device in _accelerators():
            for x, x_hat in self._pairs():
                there = self.metric.distortion(x.float().to(device), x_hat.float().to(device))
                here = self.metric.distortion(x.float(), x_hat.float())
                require_close(there.cpu(), here, 1e-4, f"distortion on {device}")

    @law("options survive their spec")
    def _options(self) -> None:
        _, options = parse_spec(self.metric.spec())
        again = construct(type(self.metric), options, f"metric '{self.metric.name}'")
        require(
            again.options() == self.metric.options(),
            f"{self.metric.spec()} gives {again.options()}; expected {self.metric.options()}",
        )

    @law("tensor is symmetric", when=_smooth)
    def _symmetric(self) -> None:
        for case in self._tensor_cases:
            for name, images in case.images.items():
                form = case.products(images)
                require_close(form.mT, form, 1e-8, f"u'Gv against v'Gu by {name}")

    @law("tensor is positive semidefinite", when=_smooth)
    def _positive(self) -> None:
        for case in self._tensor_cases:
            for name, images in case.images.items():
                form = case.products(images)
                values = torch.linalg.eigvalsh(0.5 * (form + form.mT))
                require(
                    (values >= -1e-8 * values.abs().max()).all(),
                    f"d'Gd by {name} falls to {float(values.min()):.3g}",
                )

    @law("tensor is half the Hessian", when=_smooth)
    def _half_hessian(self) -> None:
        for case in self._tensor_cases:
            expected = 0.5 * _hessian_images(
                self.metric.distortion, case.x, case.x, case.directions
            )
            for name, images in case.images.items():
                require_close(images, expected, 1e-6, f"G d by {name}")

    @law("distortion is quadratic in small steps, D(x, x + d) = D(x, x) + d'Gd", when=_smooth)
    def _taylor(self) -> None:
        for x, x_hat in self._pairs():
            d = (
                STEP
                * (x_hat - x)
                / (x_hat - x).flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
            )
            base = self.metric.distortion(x, x)
            above = self.metric.distortion(x, x + d) - base
            below = self.metric.distortion(x, x - d) - base
            for name, action in self._actions().items():
                quadratic = (d * action(x, d)).flatten(1).sum(1)
                require_close(
                    0.5 * (above + below) / STEP**2,
                    quadratic / STEP**2,
                    1e-3,
                    f"the second difference of D against G by {name}",
                )

    @law("flattened coordinates pull back to the tensor", when=_has_flattened)
    def _flattened(self) -> None:
        form = self.metric.flattened
        for case in self._tensor_cases:
            for name, images in case.images.items():
                quadratic = (case.directions * images).flatten(2).sum(2)
                if form is not None:
                    found = _pulled_back(form, case.x, case.directions)
                    require_close(found, quadratic, 1e-6, f"squared steps against d'Gd by {name}")

    @law("logits form equals the mean form", when=_has_logits)
    def _logits(self) -> None:
        form = self.metric.logits_distortion
        for x, logits in self._logit_pairs():
            if form is not None:
                mean = self.metric.distortion(x, torch.sigmoid(logits))
                require_close(form(x, logits), mean, 1e-7, "distortion from logits")

    @law("logits form stays finite where the mean saturates", when=_has_logits)
    def _saturated(self) -> None:
        form = self.metric.logits_distortion
        for x, logits in self._logit_pairs():
            for value in (-200.0, 200.0):
                far = torch.full_like(logits, value).float()
                require(
                    form is not None and form(x.float(), far).isfinite().all(),
                    f"distortion at logits {value:g} is not finite",
                )

    @law("logits tensor is half the Hessian in logit space", when=_has_logits_tensor)
    def _logits_tensor(self) -> None:
        form, diagonal = self.metric.logits_distortion, self.metric.logits_diagonal
        for _, logits in self._logit_pairs():
            if form is not None and diagonal is not None:
                directions = self._directions(logits)
                mean = torch.sigmoid(logits)
                expected = 0.5 * _hessian_images(form, mean, logits, directions)
                require_close(diagonal(logits) * directions, expected, 1e-6, "G d in logit space")

    @law("flattened logits pull back to the tensor in logit space", when=_has_flattened_logits)
    def _flattened_logits(self) -> None:
        form, diagonal = self.metric.logits_flattened, self.metric.logits_diagonal
        for _, logits in self._logit_pairs():
            if form is not None and diagonal is not None:
                directions = self._directions(logits)
                quadratic = (diagonal(logits) * directions**2).flatten(2).sum(2)
                found = _pulled_back(form, logits, directions)
                require_close(found, quadratic, 1e-6, "squared steps against d'Gd")

    # ------------------------------------------------------------------ generated cases

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and reconstructions within the metric's range, float64."""
        generator = torch.Generator().manual_seed(self.seed)
        low, high = _finite_range(self.metric.input_range)
        pairs = []
        for shape in self.shapes:
            batch = BATCH if math.prod(shape) < LARGE else LARGE_BATCH
            draws = torch.rand(2, batch, *shape, generator=generator, dtype=torch.float64)
            # a margin keeps small steps inside the range
            x, x_hat = low + (high - low) * (0.05 + 0.9 * draws)
            pairs.append((x, x_hat))
        return pairs

    def _logit_pairs(self) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed + 1)
        return [
            (x, 2 * torch.randn(x.shape, generator=generator, dtype=x.dtype))
            for x, _ in self._pairs()
        ]

    def _actions(self) -> dict[str, Action]:
        """Every way the metric gives G, and the one derived from D, by name."""
        if not self.metric.smooth:
            return {}
        actions: dict[str, Action] = {"derivation from D": hessian_action(self.metric)}
        scale, diagonal, action = (
            self.metric.scale,
            self.metric.diagonal,
            self.metric.tensor_action,
        )
        if scale is not None:
            actions["scale"] = lambda x, v: scale(x).reshape(-1, *[1] * (x.ndim - 1)) * v
        if diagonal is not None:
            actions["diagonal"] = lambda x, v: diagonal(x) * v
        if action is not None:
            actions["tensor_action"] = action
        return actions

    def _directions(self, x: Tensor) -> Tensor:
        """Random directions at each sample, ``(K, B, *shape)``."""
        generator = torch.Generator().manual_seed(self.seed + 2)
        return torch.randn(DIRECTIONS, *x.shape, generator=generator, dtype=x.dtype)

    @cached_property
    def _tensor_cases(self) -> list[TensorCase]:
        cases = []
        for x, _ in self._pairs():
            directions = self._directions(x)
            images = {
                name: torch.stack([action(x, d) for d in directions])
                for name, action in self._actions().items()
            }
            cases.append(TensorCase(x, directions, images))
        return cases


@dataclass(frozen=True)
class TensorCase:
    """Where G is tried, and what it makes of some directions.

    Attributes:
        x: samples, ``(B, *shape)``.
        directions: d, ``(K, B, *shape)``.
        images: G d by every way the metric gives it, ``(K, B, *shape)`` each.
    """

    x: Tensor
    directions: Tensor
    images: dict[str, Tensor]

    def products(self, images: Tensor) -> Tensor:
        """Return d_i' G d_k at each sample, ``(B, K, K)``."""
        left, right = self.directions.flatten(2).transpose(0, 1), images.flatten(2).transpose(0, 1)
        return left @ right.mT


def _hessian_images(
    form: Callable[[Tensor, Tensor], Tensor], x: Tensor, at: Tensor, directions: Tensor
) -> Tensor:
    """Hessian of ``form(x, .)`` times each direction, by reverse mode twice, sample by sample."""
    rows = []
    for sample, place, along in zip(x, at, directions.unbind(1), strict=True):
        y = place.detach()[None].requires_grad_()
        (gradient,) = torch.autograd.grad(form(sample[None], y).sum(), y, create_graph=True)
        products = [
            torch.autograd.grad((gradient * d).sum(), y, retain_graph=True)[0][0] for d in along
        ]
        rows.append(torch.stack(products))
    return torch.stack(rows, dim=1)


def _pulled_back(form: Callable[[Tensor], Tensor], at: Tensor, directions: Tensor) -> Tensor:
    """Squared length of each direction through the derivative of ``form``, ``(K, B)``."""
    moved = torch.stack([torch.func.jvp(form, (at,), (d,))[1] for d in directions])
    return moved.square().flatten(2).sum(2)
