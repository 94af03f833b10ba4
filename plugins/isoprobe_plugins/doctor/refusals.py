"""Say what a file shows to be no VAE that can be analysed as it is, by its shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe_plugins.doctor.parts import Part, parts_of
from isoprobe_plugins.doctor.paths import Split, head_candidates, role, says_mean, says_scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isoprobe_plugins.doctor.parts import Shaped

_WAY_ON = "A part of it that is a VAE can be built with --adapter factory --option target=FILE.py:F"


def why_no_vae(tensors: Mapping[str, Shaped]) -> str | None:
    """Say what kind of model a set of tensors is, where that is no VAE with one Gaussian posterior.

    Args:
        tensors: by name.

    Returns:
        The reason and the way on; None where there is a head.
    """
    parts = parts_of(tensors)
    heads = head_candidates([p for p in parts if p.kind != "free"])
    pairs = [h for _, h in heads if len(h) == 2]
    if _is_ladder(pairs):
        first, second = _levels(pairs)
        return (
            f"a ladder of latents ({first[0].place} and {second[0].place} each give a posterior, "
            "one above the other): its prior of the lower level is learnt from the upper one, "
            "which one N(0, I) cannot stand for. The top level alone is a VAE of its features. "
            f"{_WAY_ON}"
        )
    book = _codebook(tensors, parts)
    named = any(says_mean(p[0]) and says_scale(p[1]) for p in pairs)
    if book is not None and not named:
        return (
            f"a vector-quantised autoencoder: {book} is a codebook, and there are no two layers "
            f"that give a mean and a scale, so there is no Gaussian posterior. {_WAY_ON}"
        )
    if not heads:
        again = recurrent(tensors)
        return _no_head(parts) if again is None else again
    return None


def recurrent(tensors: Mapping[str, Shaped]) -> str | None:
    """Say how a recurrent decoder is fed, as far as its width tells.

    Args:
        tensors: by name.

    Returns:
        What it is and how to declare it; None where no decoder is recurrent.
    """
    parts = parts_of(tensors)
    heads = head_candidates([p for p in parts if p.kind != "free"])
    again = [p for p in parts if p.is_recurrent and role(p) != "e"]
    sizes = [h[0].gives // (3 - len(h)) for _, h in heads]
    return _recurrent(again[0], sizes[0] if sizes else None) if again else None


def _recurrent(part: Part, latents: int | None) -> str:
    width = part.shape[1]
    if width == latents:
        return (
            f"a recurrent decoder that z feeds at every step ({part.place} takes {width} values): "
            f'declare it with {{ {part.kind} = "{part.place}", feed = "repeat", steps = N }} in a '
            "TOML file beside it"
        )
    return (
        f"an autoregressive decoder: {part.place} takes {width} values at each step that are not "
        "its latents alone, be they its own outputs, zeros, or the true sequence, which decode(z) "
        f"does not have. Where it is not the true one, declare it: {{ {part.kind} = "
        f'"{part.place}", feed = "state" (or "beside", "own"), steps = N }}'
    )


def _levels(pairs: Sequence[tuple[Part, ...]]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Two pairs of heads of different sizes."""
    named = [p for p in pairs if says_mean(p[0]) and says_scale(p[1])]
    first = named[0]
    return first, next(p for p in named if p[0].gives != first[0].gives)


def _is_ladder(pairs: Sequence[tuple[Part, ...]]) -> bool:
    """Say whether two pairs of heads give posteriors of different sizes below the decoder."""
    named = [p for p in pairs if says_mean(p[0]) and says_scale(p[1])]
    sizes = {p[0].gives for p in named}
    return len(sizes) > 1


def _codebook(tensors: Mapping[str, Shaped], parts: Sequence[Part]) -> str | None:
    """A table of entries as wide as what the encoder gives, and no layer of the network."""
    layers = [p for p in parts if p.kind in {"linear", "conv"}]
    for part in parts:
        shape = part.shape
        if len(shape) != 2 or part.kind not in {"free", "linear"}:
            continue
        if part.kind == "linear" and any(n.endswith("bias") for n in part.names):
            continue
        entries, width = shape
        others = [p for p in layers if p is not part]
        gives = any(p.gives == width for p in others if p.kind == "conv") or any(
            p.gives == width for p in others
        )
        takes = any(width in p.shape[:2] for p in others)
        chained = any(p.takes == entries for p in others) and any(p.gives == width for p in others)
        if entries >= width and gives and takes and not (part.kind == "linear" and chained):
            return f"{part.names[0]} of {entries} x {width}"
    return None


def without_scale(tensors: Mapping[str, Shaped]) -> str | None:
    """Say that no two layers can be a head, whatever one of them might be.

    Args:
        tensors: by name.

    Returns:
        What it is and the way on; None where two can.
    """
    parts = parts_of(tensors)
    heads = head_candidates([p for p in parts if p.kind != "free"])
    return None if any(len(h) == 2 for _, h in heads) else _no_head(parts)


def _no_head(parts: Sequence[Part]) -> str | None:
    """Say that an autoencoder has no scale, where its layers lead through a bottleneck."""
    layers = [p for p in parts if p.kind in {"linear", "conv"}]
    if len(layers) < 2:
        return None
    least = min(layers, key=lambda p: p.gives)
    return (
        f"an autoencoder without a posterior: no two of its layers give a mean and a scale, and "
        f"none gives twice what the next one takes; {least.place} gives {least.gives} values and "
        "no scale, so there is no sigma to analyse. Its decoder alone can be looked at: "
        "isoprobe spectrum"
    )


def other_prior(split: Split, tensors: Mapping[str, Shaped]) -> str | None:
    """Say which prior other than N(0, I) the tensors on no way show.

    Args:
        split: the way through the network.
        tensors: by name.

    Returns:
        The prior in words with its tensors; None where there is none.
    """
    n = split.latent_size
    free = {p.place: tuple(p.shape) for p in split.rest if p.kind == "free"}
    maps = [p for p in split.rest if p.kind == "linear"]
    groups: dict[str, list[Part]] = {}
    for part in maps:
        groups.setdefault(part.place.partition(".")[0], []).append(part)
    for group, members in groups.items():
        back = [p for p in members if p.gives in {n, 2 * n}]
        into = [p for p in members if p.takes in {n, *range(1, n)} or p.takes == n]
        if len(back) > 1 and len(into) > 1:
            return (
                f"a flow on its latents ({group}.*: {len(back)} layers that give {n} values back, "
                "couplings of the latents with themselves), the prior or a part of the posterior"
            )
    tables = [name for name, s in free.items() if len(s) == 2 and s[1] == n and s[0] > 1]
    if len(tables) >= 2:
        return f"a mixture of {free[tables[0]][0]} Gaussians as its prior ({', '.join(tables)})"
    first = split.encoder[0].first if split.encoder else split.heads[0]
    pseudo = [
        name for name, s in free.items() if len(s) >= 2 and s[1:] and _size(s[1:]) == first.takes
    ]
    if pseudo and first.kind == "linear":
        return f"a VampPrior of {free[pseudo[0]][0]} pseudo-inputs ({pseudo[0]})"
    vectors = [name for name, s in free.items() if s and s[-1] == n and _size(s) == n]
    if len(vectors) >= 2:
        return f"a prior that was learnt ({', '.join(vectors[:2])})"
    return None


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
