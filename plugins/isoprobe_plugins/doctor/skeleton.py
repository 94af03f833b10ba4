"""Chains of layers that fit the weights' shapes, with the activations left open."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isoprobe.errors import CheckpointError
from isoprobe_plugins.doctor.parts import Part, Split, parts_of, splits

if TYPE_CHECKING:
    from torch import Tensor

#: stand for the activation of the encoder's and the decoder's hidden layers
ENCODER, DECODER = "@encoder", "@decoder"

#: kernel -> plausible (stride, padding), the customary first
_DOWN = {1: [(1, 0)], 2: [(2, 0)], 3: [(2, 1), (1, 1)], 4: [(2, 1), (2, 0)], 5: [(2, 2), (1, 2)]}
#: kernel -> plausible (stride, padding, output padding) of transposed ones
_UP = {
    1: [(1, 0, 0)],
    2: [(2, 0, 0)],
    3: [(2, 1, 1), (1, 1, 0)],
    4: [(2, 1, 0), (2, 0, 0)],
    5: [(2, 2, 1), (1, 2, 0)],
}

Shape = tuple[int, ...]


def skeletons(tensors: Mapping[str, Tensor], input_shape: Shape) -> list[dict[str, Any]]:
    """Write down every architecture the shapes allow.

    Args:
        tensors: of the file, by name.
        input_shape: shape of one input.

    Returns:
        Declarations without head layout and activations; hidden layers end in :data:`ENCODER` or
        :data:`DECODER`.

    Raises:
        CheckpointError: when none fits.
    """
    cuts = splits(parts_of(tensors))
    if not cuts:
        raise CheckpointError(
            "no two layers look like mean and scale, and none like both in one: this may be no "
            "VAE; declare the layers by hand, see docs/adapters.md"
        )
    found = [s for split in cuts for s in _skeletons(split, tensors, input_shape)]
    if not found:
        raise CheckpointError(
            f"no chain of these layers takes inputs of shape {input_shape} to "
            f"{cuts[0].latent_size} latents and back; is the data of the right shape (--resize)?"
        )
    return found


def _skeletons(
    split: Split, tensors: Mapping[str, Tensor], input_shape: Shape
) -> Iterator[dict[str, Any]]:
    features = split.heads[0].shape[1]
    encoder = next(_encoders(split.encoder, input_shape, features), None)
    decoder = next(_decoders(split.decoder, split.latent_size, tensors, input_shape), None)
    if encoder is not None and decoder is not None:
        yield {
            "input_shape": list(input_shape),
            "latent_size": split.latent_size,
            "encoder": encoder,
            "heads": [part.place for part in split.heads],
            "decoder": decoder,
        }


def _geometries(
    parts: Sequence[Part], table: Mapping[int, list[Any]]
) -> Iterator[dict[int, tuple[int, ...]]]:
    """Every choice of one geometry for each size of kernel."""
    kernels = sorted({part.shape[-1] for part in parts if part.kind == "conv"})
    options = [table.get(k, []) for k in kernels]
    for choice in itertools.product(*options):
        yield dict(zip(kernels, choice, strict=True))


def _encoders(parts: Sequence[Part], shape: Shape, features: int) -> Iterator[list[Any]]:
    for geometry in _geometries(parts, _DOWN):
        chain = _encoder(parts, shape, features, geometry)
        if chain is not None:
            yield chain


def _encoder(
    parts: Sequence[Part], shape: Shape, features: int, geometry: Mapping[int, tuple[int, ...]]
) -> list[Any] | None:
    steps: list[Any] = []
    for part, is_last in _with_norms(parts):
        if part.kind == "conv":
            stride, padding = geometry[part.shape[-1]]
            if len(shape) != len(part.shape) - 1 or shape[0] != part.shape[1]:
                return None
            shape = (part.shape[0], *_down(shape[1:], part.shape[-1], stride, padding))
            steps.append({"conv": part.place, "stride": stride, "padding": padding})
        elif part.kind == "linear":
            if len(shape) > 1:
                steps.append("flatten")
                shape = (math.prod(shape),)
            if shape[0] != part.shape[1]:
                return None
            shape = (part.shape[0],)
            steps.append({"linear": part.place})
        else:
            steps.append({part.kind: part.place})
        if is_last:
            steps.append(ENCODER)
        if min(shape) < 1:
            return None
    if len(shape) > 1:
        steps.append("flatten")
    return steps if math.prod(shape) == features else None


def _decoders(
    parts: Sequence[Part], latent: int, tensors: Mapping[str, Tensor], output: Shape
) -> Iterator[list[Any]]:
    for geometry in _geometries(parts, _UP):
        chain = _decoder(parts, latent, tensors, output, geometry)
        if chain is not None:
            yield chain


def _decoder(
    parts: Sequence[Part],
    latent: int,
    tensors: Mapping[str, Tensor],
    output: Shape,
    geometry: Mapping[int, tuple[int, ...]],
) -> list[Any] | None:
    steps: list[Any] = []
    shape: Shape = (latent,)
    for part, is_last in _with_norms(parts):
        if part.kind == "linear":
            if shape != (part.shape[1],):
                return None
            shape = (part.shape[0],)
            steps.append({"linear": part.place})
        elif part.kind == "conv":
            if len(shape) == 1:
                side = round((shape[0] / part.shape[0]) ** (1 / (len(part.shape) - 2)))
                folded = (part.shape[0], *(side,) * (len(part.shape) - 2))
                if math.prod(folded) != shape[0]:
                    return None
                steps.append({"reshape": list(folded)})
                shape = folded
            if shape[0] != part.shape[0]:
                return None
            shape, step = _up(part, shape, geometry[part.shape[-1]])
            steps.append(step)
        else:
            steps.append({part.kind: part.place})
        if is_last:
            steps.append(DECODER)
    if steps and steps[-1] == DECODER:
        steps.pop()  # the output has a squeezing of its own, or none
    if math.prod(shape) != math.prod(output):
        return None
    return steps if shape == output else [*steps, {"reshape": list(output)}]


def _with_norms(parts: Sequence[Part]) -> Iterator[tuple[Part, bool]]:
    """Each part, and whether its activation follows: not before a norm."""
    for index, part in enumerate(parts):
        after = parts[index + 1] if index + 1 < len(parts) else None
        yield part, after is None or not after.is_norm


def _down(sides: Shape, kernel: int, stride: int, padding: int) -> Shape:
    return tuple((side + 2 * padding - kernel) // stride + 1 for side in sides)


def _up(part: Part, shape: Shape, geometry: tuple[int, ...]) -> tuple[Shape, dict[str, Any]]:
    stride, padding, extra = geometry
    kernel = part.shape[-1]
    sides = [(side - 1) * stride - 2 * padding + kernel + extra for side in shape[1:]]
    step = {
        "conv_transpose": part.place,
        "stride": stride,
        "padding": padding,
        "output_padding": extra,
    }
    return (part.shape[1], *sides), step
