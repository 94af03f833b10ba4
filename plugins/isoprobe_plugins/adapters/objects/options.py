"""Define the options of every adapter whose checkpoint says nothing about itself.

Annotations are evaluated here, since adapters in other modules inherit these fields.
"""

from dataclasses import dataclass
from typing import Literal

from isoprobe.contracts import Facts
from isoprobe.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a user may say about an encoder and a decoder.

    Attributes:
        head: form of the scale, where the encoder gives (mean, scale).
        layout: order within one head, where the encoder gives a single tensor of 2n values.
        input_shape: such as ``1x28x28``.
        latent_shape: such as ``20`` or ``4x8x8``.
        input_range: such as ``0,1``.
        metric: metric spec of the training loss.
        beta: KL weight in the units of that metric.
        output: what the decoder gives: ``linear`` values, ``sigmoid`` values in (0, 1), or
            ``logits``, to which isoprobe then applies the sigmoid.
        dataset: data spec of the training data.
    """

    head: str | None = None
    layout: Literal["halves", "swapped", "interleaved"] | None = None
    input_shape: str | None = None
    latent_shape: str | None = None
    input_range: str | None = None
    metric: str | None = None
    beta: float | None = None
    output: Literal["linear", "sigmoid", "logits"] = "linear"
    dataset: str | None = None

    def facts(self, scale_head: str | None, assumptions: tuple[str, ...]) -> Facts:
        """Return what is declared, with what was assumed on the way."""
        return Facts(
            input_range=read_range(self.input_range),
            output_range=None if self.output == "linear" else (0.0, 1.0),
            metric=self.metric,
            beta=self.beta,
            beta_source=None if self.beta is None else "--option beta",
            dataset=self.dataset,
            scale_head=scale_head,
            assumptions=assumptions,
        )


def read_range(text: str | None) -> tuple[float, float] | None:
    """Return the range that a text such as ``0,1`` gives; None for None.

    Raises:
        OptionError: when it gives none.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not low < high:
        raise OptionError(f"option 'input_range' is written low,high, such as 0,1; found '{text}'")
    return low, high


def read_shape(text: str, option: str) -> tuple[int, ...]:
    """Return the shape that a text such as ``1x28x28`` or ``1,28,28`` gives.

    Raises:
        OptionError: when it gives none.
    """
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise OptionError(f"option '{option}' is written like 1x28x28; found '{text}'")
    return shape
