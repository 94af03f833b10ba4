"""Measure by structural similarity, at one scale and at five (Eq. 103-107).

G is half the Hessian of 1 - SSIM, derived by the core; for windows with weights w it is, a window,
``w w' / (2 mean^2 + C1) + (diag w - w w') / (2 variance + C2)``, which the tests compare it with.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING

from isoprobe.contracts import Metric
from isoprobe.errors import MetricError, OptionError
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

#: MS-SSIM halves the image four times before its last window
_LAST_STEP = 16


class _Similarity(Metric):
    """What both have in common: options, images of the right size, channels averaged.

    Args:
        window: side of the Gaussian window, an odd number of pixels.
        sigma: standard deviation of the window, pixels.
        k1: constant of the luminance term; C1 = (k1 data_range)^2.
        k2: constant of the contrast term; C2 = (k2 data_range)^2.
        data_range: highest minus lowest value an image can have.

    Raises:
        OptionError: for an option outside its range.
    """

    def __init__(
        self,
        window: int = 11,
        sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        data_range: float = 1.0,
    ) -> None:
        if window < 3 or window % 2 == 0:
            raise OptionError(
                f"metric '{self.name}' needs an odd window of at least 3 pixels; found {window}."
            )
        positive = {"sigma": sigma, "k1": k1, "k2": k2, "data_range": data_range}
        for option, value in positive.items():
            if not 0 < value < math.inf:
                raise OptionError(f"metric '{self.name}' needs {option} > 0; found {value}.")
        self.window = window
        self.sigma = sigma
        self.k1 = k1
        self.k2 = k2
        self.data_range = data_range

    def _compared(self, index: Callable[..., Tensor], x: Tensor, x_hat: Tensor) -> Tensor:
        """An index of the package, of each sample, at these options."""
        return index(
            x,
            x_hat,
            data_range=self.data_range,
            size_average=False,
            win=self._window_weights(x),
            K=(self.k1, self.k2),
        )

    @property
    @abc.abstractmethod
    def _least(self) -> int:
        """Smallest height and width, pixels."""

    @abc.abstractmethod
    def _similarity(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Similarity of each one-channel image: ``(N, 1, H, W), (N, 1, H, W) -> (N,)``."""

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """1 - similarity of each sample, ``(B,)``, the mean over its channels.

        Args:
            x: images, ``(B, C, H, W)`` or ``(B, H, W)``.
            x_hat: images of the same shape.

        Returns:
            ``(B,)``, between 0 and 2, dimensionless.

        Raises:
            MetricError: when samples are no images, or smaller than the windows need.
        """
        shape = tuple(x_hat.shape[1:])
        self._check(shape)
        # A window filters each channel alone, so channels can stand in line with the samples.
        planes = (math.prod(shape[:-2]) * len(x_hat), 1, *shape[-2:])
        similarity = self._similarity(x.reshape(planes), x_hat.reshape(planes))
        return 1 - similarity.reshape(len(x_hat), -1).mean(1)

    def _window_weights(self, x: Tensor) -> Tensor:
        """One line of the separable Gaussian window, ``(1, 1, 1, window)``, summing to 1."""
        # The library's own is rounded to float32: its sum then misses 1, which gives flat images in
        # double precision a variance they do not have.
        import torch

        offset = torch.arange(self.window, dtype=x.dtype, device=x.device) - self.window // 2
        weights = torch.exp(-offset.square() / (2 * self.sigma**2))
        return (weights / weights.sum()).reshape(1, 1, 1, -1)

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) not in {2, 3}:
            raise MetricError(
                f"metric '{self.name}' needs images (channels, height, width); "
                f"a sample has shape {shape}. Use --metric sse."
            )
        if min(shape[-2:]) < self._least:
            raise MetricError(
                f"metric '{self.name}' with a window of {self.window} needs images of at least "
                f"{self._least} x {self._least} pixels; found {shape[-2]} x {shape[-1]}. "
                f"Choose a smaller window (--metric {self.name}:window=3), or --metric sse."
            )


class Ssim(_Similarity):
    """D = 1 - SSIM (Wang et al. 2004), Gaussian windows inside the image."""

    name = "ssim"
    summary = "1 - SSIM, the mean over channels"
    reference = "Eq. 103-107; Wang et al. 2004"

    @property
    def _least(self) -> int:
        return self.window

    def _similarity(self, x: Tensor, x_hat: Tensor) -> Tensor:
        from pytorch_msssim import ssim

        return self._compared(ssim, x, x_hat)


class MultiScaleSsim(_Similarity):
    """D = 1 - MS-SSIM (Wang, Simoncelli and Bovik 2003), five scales with their weights."""

    name = "ms_ssim"
    summary = "1 - MS-SSIM over five scales, the mean over channels"
    reference = "Wang et al. 2003"

    @property
    def _least(self) -> int:
        return (self.window - 1) * _LAST_STEP + 1

    def _similarity(self, x: Tensor, x_hat: Tensor) -> Tensor:
        # Where a scale's contrast term is negative the product is 0 and its derivative 0 * inf;
        # there the similarity is held at 0, which has derivative 0.
        lost = self._product(x.detach(), x_hat.detach()) <= 0
        kept = x_hat.where(~lost[:, None, None, None], x)
        return self._product(x, kept).masked_fill(lost, 0.0)

    def _product(self, x: Tensor, x_hat: Tensor) -> Tensor:
        from pytorch_msssim import ms_ssim

        return self._compared(ms_ssim, x, x_hat)


@hookimpl
def isoprobe_metrics() -> list[type[Metric]]:
    """Structural similarities."""
    return [Ssim, MultiScaleSsim]
