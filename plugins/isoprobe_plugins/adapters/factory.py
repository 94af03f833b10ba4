"""Any model a user can build, by a function named on the command line.

What the function returns needs ``encode`` and ``decode``.
This is the one adapter that runs code, and only code the user names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from isoprobe.contracts import VAE, Adapter, Facts
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.specs import construct
from isoprobe_plugins.adapters.calling import call_target, resolve
from isoprobe_plugins.heads import check_head

if TYPE_CHECKING:
    from isoprobe.source import Source
    from isoprobe_plugins.adapters.wrapping import Wrapped


@dataclass(frozen=True)
class FactoryOptions:
    """Options of ``factory``; every other one is passed to the function.

    Attributes:
        target: ``module:function`` or ``file.py:function``.
        head: form of the scale, where encode gives (mean, scale).
        layout: order within one head, where encode gives a single tensor of 2n values.
        input_shape: such as ``1x28x28``.
        latent_shape: such as ``20`` or ``4x8x8``.
        input_range: such as ``0,1``.
        metric: metric spec of the training loss.
        beta: KL weight in the units of that metric.
        output: what decode gives: ``linear`` values, ``sigmoid`` values in (0, 1), or
            ``logits``, to which isoprobe then applies the sigmoid.
        dataset: data spec of the training data.
    """

    target: str
    head: str | None = None
    layout: Literal["halves", "swapped", "interleaved"] | None = None
    input_shape: str | None = None
    latent_shape: str | None = None
    input_range: str | None = None
    metric: str | None = None
    beta: float | None = None
    output: Literal["linear", "sigmoid", "logits"] = "linear"
    dataset: str | None = None

    names: ClassVar[tuple[str, ...]]


FactoryOptions.names = tuple(field.name for field in fields(FactoryOptions))


class Factory(Adapter):
    """Calls a function and wraps what it returns."""

    name = "factory"
    summary = "any object with encode and decode: --option target=module:function"

    def matches(self, source: Source) -> bool:
        """Return False: it is only used when named, since it runs code."""
        return False

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Call the function and check that what it returns behaves like a VAE.

        Args:
            source: the checkpoint, whose path the function gets when it has a parameter ``path``.
            options: fields of :class:`FactoryOptions`; others go to the function.

        Returns:
            The wrapped object.

        Raises:
            OptionError: for a wrong option, a function that cannot be had or fails, or an
                object that does not fit.
        """
        from isoprobe_plugins.adapters.wrapping import probe_shapes, wrap

        own = {k: v for k, v in options.items() if k in FactoryOptions.names}
        passed = {k: _value(v) for k, v in options.items() if k not in FactoryOptions.names}
        settings = construct(FactoryOptions, own, f"adapter '{self.name}'")
        if settings.head is not None:
            check_head(settings.head)
        built = call_target(resolve(settings.target), settings.target, source.path, passed)
        wrapped = wrap(built, settings)
        input_shape, latent_shape = probe_shapes(wrapped)
        return VAE(
            decode=wrapped.decode,
            encode=wrapped.encode,
            decode_logits=wrapped.decode_logits,
            input_shape=input_shape,
            latent_shape=latent_shape,
            module=wrapped.module,
            facts=_facts(settings, wrapped),
            name=source.path.stem,
            adapter=self.name,
            sha256=source.sha256(),
        )


def _facts(settings: FactoryOptions, wrapped: Wrapped) -> Facts:
    bounded = settings.output != "linear"
    return Facts(
        input_range=_range(settings.input_range),
        output_range=(0.0, 1.0) if bounded else None,
        metric=settings.metric,
        beta=settings.beta,
        beta_source=None if settings.beta is None else "--option beta",
        dataset=settings.dataset,
        scale_head=wrapped.scale_head,
        assumptions=tuple(wrapped.assumptions),
    )


def _range(text: str | None) -> tuple[float, float] | None:
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


def _value(text: str) -> Any:
    """Read numbers, true, false, null and JSON as what they are, anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Factory]
