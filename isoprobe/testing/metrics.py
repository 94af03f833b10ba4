"""Laws of a metric: a distortion, and a metric tensor that is half its Hessian (Eq. 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from isoprobe.specs import construct, parse_spec
from isoprobe.tensors import hessian_action
from isoprobe.testing.compare import require_close
from isoprobe.testing.laws import Law, Laws, law, require

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Metric

    Action = Callable[[Tensor, Tensor], Tensor]

BATCH = 4
#: step of the second difference, where rounding and the fourth-order term are both small
STEP = 1e-4


def check_metric(
    metric: Metric, shapes: Sequence[tuple[int, ...]] = ((6,), (2, 3, 3)), *, seed: int = 0
) -> list[Law]:
    """List the laws of a metric.

    Args:
        metric: an instance, options set.
        shapes: shapes of one sample to try; keep them small, the Hessian is made whole.
        seed: of the generated cases.

    Returns:
        The laws that apply; the logits forms are held to theirs only where they are defined.
    """
    return MetricLaws(metric, shapes, seed).collect()


def _smooth(laws: MetricLaws) -> bool:
    return laws.metric.smooth


def _has_logits(laws: MetricLaws) -> bool:
    return laws.metric.logits_distortion is not None


def _has_logits_tensor(laws: MetricLaws) -> bool:
    return _has_logits(laws) and laws.metric.logits_diagonal is not None


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
        for x, matrices in self._dense_tensors():
            for name, matrix in matrices.items():
                require_close(
                    matrix.mT, matrix, 1e-8, f"the transpose of G by {name} at {len(x)} x"
                )

    @law("tensor is positive semidefinite", when=_smooth)
    def _positive(self) -> None:
        for _, matrices in self._dense_tensors():
            for name, matrix in matrices.items():
                values = torch.linalg.eigvalsh(0.5 * (matrix + matrix.mT))
                require(
                    (values >= -1e-8 * values.abs().max()).all(),
                    f"G by {name} has eigenvalue {float(values.min()):.3g}",
                )

    @law("tensor is half the Hessian", when=_smooth)
    def _half_hessian(self) -> None:
        for x, matrices in self._dense_tensors():
            expected = 0.5 * _hessians(self.metric.distortion, x, x)
            for name, matrix in matrices.items():
                require_close(matrix, expected, 1e-6, f"G by {name}")

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
            if form is None or diagonal is None:
                continue
            expected = 0.5 * _hessians(form, torch.sigmoid(logits), logits)
            found = torch.diag_embed(diagonal(logits).flatten(1))
            require_close(found, expected, 1e-6, "G in logit space")

    # ------------------------------------------------------------------ generated cases

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs and reconstructions within the metric's range, float64."""
        generator = torch.Generator().manual_seed(self.seed)
        low, high = self.metric.input_range or (-1.5, 1.5)
        pairs = []
        for shape in self.shapes:
            draws = torch.rand(2, BATCH, *shape, generator=generator, dtype=torch.float64)
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

    def _dense_tensors(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """G of each case as ``(B, m, m)``, by every way the metric gives it."""
        cases = []
        for x, _ in self._pairs():
            basis = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
            matrices = {
                name: torch.stack(
                    [action(x, e.expand_as(x).clone()).flatten(1) for e in basis], dim=2
                )
                for name, action in self._actions().items()
            }
            cases.append((x, matrices))
        return cases


def _hessians(form: Callable[[Tensor, Tensor], Tensor], x: Tensor, at: Tensor) -> Tensor:
    """Whole Hessian of ``form(x, .)`` at each sample by reverse mode alone, ``(B, m, m)``."""
    rows = []
    for sample, place in zip(x, at, strict=True):

        def scalar(flat: Tensor, sample: Tensor = sample) -> Tensor:
            return form(sample[None], flat.reshape(sample.shape)[None])[0]

        matrix = torch.autograd.functional.hessian(  # type: ignore[no-untyped-call]  # it has none
            scalar, place.flatten()
        )
        rows.append(matrix)
    return torch.stack(rows)
