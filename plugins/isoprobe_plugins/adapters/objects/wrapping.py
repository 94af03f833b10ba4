"""Turn a user's object into encode and decode with known shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isoprobe.contracts import VAE, Conditional, Posterior
from isoprobe.errors import OptionError
from isoprobe_plugins.adapters.objects.calling import said
from isoprobe_plugins.adapters.objects.options import read_shape
from isoprobe_plugins.adapters.objects.posteriors import (
    FULL_FORM,
    in_words,
    read_posterior,
    read_reconstruction,
)

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.objects.options import ModelOptions
    from isoprobe_plugins.adapters.objects.posteriors import ReadPosterior

Shape = tuple[int, ...]


@dataclass
class Wrapped:
    """The object's calls in the form the contract asks for.

    Attributes:
        built: the user's object.
        settings: options in force.
        label: how to name it in an error.
        module: its parameters, where it has some.
        latent_shape: filled in once known.
        assumptions: what was assumed on the way, a sentence each.
        scale_head: how the scale is read.
    """

    built: Any
    settings: ModelOptions
    label: str
    module: nn.Module | None
    latent_shape: Shape = ()
    assumptions: list[str] = field(default_factory=list)
    scale_head: str | None = None

    @property
    def encode(self) -> Callable[[Tensor], Posterior] | None:
        """``x -> Posterior``; None for an object that only decodes."""
        return self._encode if hasattr(self.built, "encode") else None

    @property
    def decode_logits(self) -> Callable[[Tensor], Tensor] | None:
        """``z -> logits`` where they can be had."""
        if self.settings.output == "logits":
            return lambda z: self._decoded(self.built.decode, z)
        logits = getattr(self.built, "decode_logits", None)
        return None if logits is None else lambda z: self._decoded(logits, z)

    def decode(self, z: Tensor) -> Tensor:
        """Decode flat latents ``(B, n)``."""
        x_hat = self._decoded(self.built.decode, z)
        return torch.sigmoid(x_hat) if self.settings.output == "logits" else x_hat

    def read(self, x: Tensor) -> ReadPosterior:
        """Encode, and read whatever comes back."""
        return read_posterior(self.built.encode(x), self.settings.head, self.settings.layout)

    def _encode(self, x: Tensor) -> Posterior:
        reading = self.read(x)
        return Posterior(reading.mean.flatten(1), reading.std.flatten(1), reading.root)

    def _decoded(self, call: Callable[[Tensor], Any], z: Tensor) -> Tensor:
        shape = self.latent_shape
        unflat = z.reshape(*z.shape[:-1], *shape) if len(shape) > 1 else z
        return read_reconstruction(call(unflat))


def vae_from_object(
    built: Any, settings: ModelOptions, label: str, source: Source, *, adapter: str
) -> VAE:
    """Wrap an object with decode and perhaps encode into a model, asking it for its shapes.

    Args:
        built: the object.
        settings: options in force.
        label: how to name it in an error.
        source: the checkpoint it stands for.
        adapter: name of the adapter at work.

    Returns:
        The model.
    """
    wrapped = wrap(built, settings, label)
    input_shape, latent_shape = probe_shapes(wrapped)
    return VAE(
        decode=wrapped.decode,
        encode=wrapped.encode,
        decode_logits=wrapped.decode_logits,
        input_shape=input_shape,
        latent_shape=latent_shape,
        module=wrapped.module,
        correlated=wrapped.scale_head == FULL_FORM,
        facts=settings.facts(wrapped.scale_head, tuple(wrapped.assumptions)),
        name=source.path.stem,
        adapter=adapter,
        sha256=source.sha256(),
    )


def conditional_from_object(
    at: Callable[[Tensor], Any],
    classes: tuple[int, ...],
    words: str,
    settings: ModelOptions,
    label: str,
    source: Source,
    *,
    adapter: str,
) -> VAE:
    """Wrap an object that is told something of each sample.

    Args:
        at: gives the object with decode and perhaps encode at conditions ``c (B or 1, k)``.
        classes: how many classes each column of c numbers; 0 for a real number.
        words: what c is.
        settings: options in force.
        label: how to name it in an error.
        source: the checkpoint it stands for.
        adapter: name of the adapter at work.

    Returns:
        The model, bound to no rows yet.
    """
    wrapped = wrap(at(torch.zeros(1, len(classes))), settings, label)
    input_shape, latent_shape = probe_shapes(wrapped)

    def encode(x: Tensor, c: Tensor) -> Posterior:
        found: Posterior = replace(wrapped, built=at(c))._encode(x)
        return found

    conditional = Conditional(
        decode=lambda z, c: replace(wrapped, built=at(c)).decode(z),
        encode=None if wrapped.encode is None else encode,
        classes=classes,
        words=words,
    )
    return VAE.told(
        conditional,
        input_shape=input_shape,
        latent_shape=latent_shape,
        module=wrapped.module,
        facts=settings.facts(wrapped.scale_head, tuple(wrapped.assumptions)),
        name=source.path.stem,
        adapter=adapter,
        sha256=source.sha256(),
    )


def wrap(built: Any, settings: ModelOptions, label: str) -> Wrapped:
    """Check that an object has what is needed and put its modules in eval mode.

    Args:
        built: object with decode and perhaps encode.
        settings: options in force.
        label: how to name it in an error.

    Returns:
        The wrapped object; its latent shape is not known yet.

    Raises:
        OptionError: when it has no ``decode``, or an ``encode`` that cannot be called.
    """
    for name in ("encode", "decode"):
        absent = name == "encode" and not hasattr(built, name)
        if not absent and not callable(getattr(built, name, None)):
            raise OptionError(
                f"{label} gives {in_words(built)}, which has no method {name}; needed are "
                "encode(x) and decode(z)"
            )
    module = built if isinstance(built, nn.Module) else _modules_of(built)
    if module is not None:
        module.eval()
    wrapped = Wrapped(built, settings, label, module)
    if wrapped.encode is None:
        wrapped.assumptions.append("the object has no encode, so only its decoder is analysed")
    return wrapped


def _modules_of(built: Any) -> nn.Module | None:
    """Gather the modules an object holds as attributes."""
    owned = {k: v for k, v in getattr(built, "__dict__", {}).items() if isinstance(v, nn.Module)}
    return nn.ModuleDict(owned) if owned else None


# --------------------------------------------------------------------------- shapes


def probe_shapes(wrapped: Wrapped) -> tuple[Shape, Shape]:
    """Find input and latent shape by asking the object with one zero sample.

    Args:
        wrapped: the object; its latent shape and its assumptions are filled in.

    Returns:
        Shape of an input and of a latent.

    Raises:
        OptionError: when the shapes are unknown, or encode and decode do not fit each other.
    """
    settings, target = wrapped.settings, wrapped.label
    input_shape = _declared(settings.input_shape, wrapped.built, "input_shape")
    latent_shape = _declared(settings.latent_shape, wrapped.built, "latent_shape")
    if input_shape is not None and wrapped.encode is not None:
        latent_shape = _encoded_shape(wrapped, input_shape, latent_shape)
    if latent_shape is None:
        wanted = "latent_shape=20" if wrapped.encode is None else "input_shape=1x28x28"
        raise OptionError(f"{target}: the shapes are not known; add --option {wanted}")
    wrapped.latent_shape = latent_shape
    decoded = _decoded_shape(wrapped)
    _refuse_fixed_batch(wrapped)
    if input_shape not in {None, decoded}:
        raise OptionError(f"{target}: decode gives shape {decoded}, inputs have {input_shape}")
    if input_shape is None and wrapped.encode is not None:
        _encoded_shape(wrapped, decoded, latent_shape)
    return decoded, latent_shape


def _declared(text: str | None, built: Any, attribute: str) -> Shape | None:
    """Shape from an option, or else from an attribute of the object."""
    if text is not None:
        return read_shape(text, attribute)
    value = getattr(built, attribute, None)
    if value is None and attribute == "latent_shape":
        value = getattr(built, "latent_size", getattr(built, "latent_dim", None))
    if isinstance(value, int):
        return (value,)
    if isinstance(value, tuple | list) and all(isinstance(v, int) for v in value):
        return tuple(value)
    return None


def _encoded_shape(wrapped: Wrapped, input_shape: Shape, declared: Shape | None) -> Shape:
    """Shape of the mean of a zero sample; the scale's form is noted on the way."""
    reading: ReadPosterior = _ask("encode", wrapped.read, _zeros(wrapped, input_shape))
    shape = tuple(reading.mean.shape[1:])
    if reading.mean.ndim < 2 or len(reading.mean) != 1 or reading.mean.shape != reading.std.shape:
        raise OptionError(
            f"encode gives a mean of shape {tuple(reading.mean.shape)} and a scale of shape "
            f"{tuple(reading.std.shape)} for one sample; needed is (1, n) for both"
        )
    if declared is not None and math.prod(declared) != math.prod(shape):
        raise OptionError(f"encode gives latents of shape {shape}, declared is {declared}")
    wrapped.scale_head = reading.form
    if reading.form == "logvar" and wrapped.settings.head is None:
        wrapped.assumptions.append(
            "the second output of encode is read as the log variance; --option head says else"
        )
    return declared or shape


def _decoded_shape(wrapped: Wrapped) -> Shape:
    flat = _zeros(wrapped, (math.prod(wrapped.latent_shape),))
    x_hat: Tensor = _ask("decode", wrapped.decode, flat)
    if x_hat.ndim < 2 or len(x_hat) != 1:
        raise OptionError(
            f"decode gives shape {tuple(x_hat.shape)} for one latent; needed is (1, ...)"
        )
    return tuple(x_hat.shape[1:])


def _refuse_fixed_batch(wrapped: Wrapped) -> None:
    """Raise OptionError for a decoder that only takes one sample at a time."""
    pair = _zeros(wrapped, (math.prod(wrapped.latent_shape),), count=2)
    if len(_ask("decode", wrapped.decode, pair)) != 2:
        raise OptionError(
            f"{wrapped.label}: decode has a fixed batch size; export it with a dynamic one"
        )


def _zeros(wrapped: Wrapped, shape: Shape, count: int = 1) -> Tensor:
    tensors = [] if wrapped.module is None else list(wrapped.module.parameters())
    like = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    return torch.zeros(count, *shape, dtype=like.dtype, device=like.device)


def _ask(name: str, call: Callable[[Tensor], Any], argument: Tensor) -> Any:
    """Call the user's code once, turning whatever it raises into one line."""
    try:
        with torch.no_grad():
            return call(argument)
    except OptionError:
        raise
    except Exception as error:  # a user's object may fail in any way
        raise OptionError(
            f"{name} fails on {_samples(argument)} of shape {tuple(argument.shape)}: {said(error)}"
        ) from error


def _samples(argument: Tensor) -> str:
    return "one sample" if len(argument) == 1 else f"{len(argument)} samples"
