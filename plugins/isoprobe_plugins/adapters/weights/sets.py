"""Find every set of tensors in what somebody saved, and the one of them that is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoprobe.errors import CheckpointError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

#: keys under which training loops keep the state dict, the most specific first
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "vae_state_dict", "net_state_dict", "model",
    "net", "network", "vae", "generator", "weights", "params", "parameters", "state", "module",
)  # fmt: skip
#: what DataParallel, torch.compile, FSDP and checkpointing put anywhere inside a name
INSIDE = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
#: names of sets whose weights are means over training steps
AVERAGED = re.compile(r"(ema|averag|swa|shadow|teacher|smooth)", re.IGNORECASE)
_OPTIMIZER = re.compile(r"(optim|sched|scaler|^opt($|_)|rng_state|amp$)", re.IGNORECASE)
#: counters that wrappers keep beside the weights
COUNTERS = frozenset({
    "n_averaged", "initted", "step", "num_updates", "decay", "num_batches_tracked",
})  # fmt: skip
_DEPTH = 6


@dataclass(frozen=True)
class Found:
    """A set of tensors in a file.

    Attributes:
        place: the keys that lead to it, joined by dots; empty at the top.
        tensors: by name, as they stand there.
    """

    place: str
    tensors: Mapping[str, Tensor]

    @property
    def key(self) -> str:
        """The last of the keys."""
        return self.place.rpartition(".")[2]


def sets_in(saved: Any) -> list[Found]:
    """List every table of tensors that somebody saved, those of optimizers left out.

    Args:
        saved: what the file holds.

    Returns:
        The sets, in the order of the file.
    """
    return list(_sets(saved, "", _DEPTH))


def _sets(saved: Any, place: str, depth: int) -> Iterator[Found]:
    import torch

    if depth == 0:
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(saved, Mapping):
        items = list(saved.items())
        own = {k: v for k, v in items if isinstance(k, str) and isinstance(v, torch.Tensor)}
        if any(t.ndim for t in own.values()):
            yield Found(place, own)
    elif isinstance(saved, list | tuple):
        items = [(str(k), v) for k, v in enumerate(saved[:16])]
    for key, value in items:
        if isinstance(key, str) and not _OPTIMIZER.search(key):
            yield from _sets(value, f"{place}.{key}" if place else key, depth - 1)


def plain(name: str) -> str:
    """Take out of a name what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in INSIDE)


def unwrapped(tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Take wrappers out of all names, and counters out of the set.

    Args:
        tensors: by name.
        notes: takes what was done.

    Returns:
        The same tensors; as they were where two of them would get one name.
    """
    kept = {n: t for n, t in tensors.items() if t.ndim or n.rpartition(".")[2] not in COUNTERS}
    kept |= {n: t for n, t in tensors.items() if n.endswith(".num_batches_tracked")}
    kept = {n: kept[n] for n in tensors if n in kept}
    named = {plain(n): t for n, t in kept.items()}
    if len(named) != len(kept):
        return dict(kept)
    if list(named) != list(kept):
        found = sorted({part for n in kept for part in n.split(".") if part in INSIDE})
        notes.append(f"{' and '.join(map(repr, found))} taken out of names")
    return named


def versions(found: Found) -> list[Found]:
    """Cut a set in which every tensor stands twice, as raw and as averaged, in two.

    Returns:
        The sets; the given one alone where nothing stands twice.
    """
    heads: dict[str, dict[str, Tensor]] = {}
    for name, tensor in found.tensors.items():
        head, _, rest = name.partition(".")
        if rest:
            heads.setdefault(head, {})[rest] = tensor
    for head, inside in heads.items():
        if not AVERAGED.search(head):
            continue
        others = {h: t for h, t in heads.items() if h != head}
        twin = next((h for h, t in others.items() if _alike(t, inside)), None)
        if twin is not None:
            return [Found(_join(found.place, h), heads[h]) for h in (twin, head)]
        apart = {n: t for n, t in found.tensors.items() if not n.startswith(f"{head}.")}
        if _alike(apart, inside):
            return [Found(found.place, apart), Found(_join(found.place, head), inside)]
        short = {n.replace(".", ""): n for n in apart}  # a copy whose names have lost their dots
        renamed = {short[n]: t for n, t in inside.items() if n in short}
        trained = {n: t for n, t in apart.items() if n in renamed}
        if len(renamed) > 3 and _alike(trained, renamed):
            unmoved = {n: t for n, t in apart.items() if n not in renamed}
            both = (trained, renamed)
            places = (found.place, _join(found.place, head))
            return [Found(p, {**unmoved, **t}) for p, t in zip(places, both, strict=True)]
    return [found]


def _join(*places: str) -> str:
    return ".".join(place for place in places if place)


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Say whether two sets have tensors of the same names and shapes, counters aside."""
    shapes = [{plain(n): t.shape for n, t in s.items() if t.ndim} for s in (one, other)]
    return len(shapes[0]) > 3 and shapes[0] == shapes[1]


def meant(found: Sequence[Found], wanted: str | None, where: str, notes: list[str]) -> Found:
    """Choose the set that is the model's.

    Args:
        found: every set of a file.
        wanted: part of the place of the one asked for; ``raw`` for weights that are no means.
        where: how to name the file in an error.
        notes: takes what was found and left.

    Returns:
        The set; several that are parts of one model joined under their keys.

    Raises:
        OptionError: when the set asked for is not there, or several may be meant.
        CheckpointError: when there is none.
    """
    every = [version for one in found for version in versions(one)]
    every = [one for one in every if _is_model(one)]
    if not every:
        raise CheckpointError(f"{where}: no tensors by name in it")
    if wanted is not None:
        return _asked(every, wanted, where)
    main = _main(every)
    twins = [one for one in every if one is not main and _alike(one.tensors, main.tensors)]
    if twins:
        return _of_twins([main, *twins], where, notes)
    others = [one for one in every if one is not main]
    if main.place:
        notes.append(f"weights found under {main.place!r}")
    if others and not _wrapper(main):
        return _joined(every, notes)
    return main


def _is_model(found: Found) -> bool:
    return any(t.ndim > 1 for t in found.tensors.values())


def _main(every: Sequence[Found]) -> Found:
    """The set that is most likely the model: the one under a known key, or the largest."""

    def rank(found: Found) -> tuple[int, int]:
        key = found.key.lower()
        place = WRAPPERS.index(key) if key in WRAPPERS else len(WRAPPERS)
        return place if found.place else -1, -sum(t.numel() for t in found.tensors.values())

    inside = [f for f in every if not AVERAGED.search(f.place)] or list(every)
    return min(inside, key=rank)


def _wrapper(found: Found) -> bool:
    return not found.place or found.key.lower() in WRAPPERS


def _asked(every: Sequence[Found], wanted: str, where: str) -> Found:
    named = [one for one in every if wanted.lower() in one.place.lower()]
    if wanted.lower() in {"raw", "plain"} and not named:
        named = [one for one in every if not AVERAGED.search(one.place)]
    if wanted.lower() in {"ema", "averaged"} and not named:
        named = [one for one in every if AVERAGED.search(one.place)]
    if len(named) != 1:
        raise OptionError(
            f"weights={wanted} names {len(named)} sets of {where}; there are "
            + " and ".join(one.place or "the tensors at the top" for one in every)
        )
    return named[0]


def _of_twins(twins: Sequence[Found], where: str, notes: list[str]) -> Found:
    """Choose among sets of the same names: averaged weights are those that people use."""
    import torch

    first, *rest = twins
    if all(
        torch.equal(first.tensors[n], t) for one in rest for n, t in one.tensors.items()
        if n in first.tensors
    ):  # fmt: skip
        return first
    shown = " and ".join(repr(one.place) if one.place else "the top" for one in twins)
    averaged = [one for one in twins if AVERAGED.search(one.place)]
    if len(averaged) != 1:
        raise OptionError(
            f"{where} holds {len(twins)} sets of weights, under {shown}: choose one with "
            "--option weights=NAME"
        )
    notes.append(
        f"weights under {shown} are there: those under {averaged[0].place!r}, the averaged ones, "
        "are taken; --option weights=raw takes the others"
    )
    return averaged[0]


def _joined(every: Sequence[Found], notes: list[str]) -> Found:
    """Put sets under keys of their own together, as encoder and decoder saved apart."""
    places = [one.place for one in every]
    depth = 0
    while len({p.split(".")[depth] if p.count(".") >= depth else p for p in places}) == 1:
        depth += 1
    tensors: dict[str, Any] = {}
    for one in every:
        key = ".".join(one.place.split(".")[depth:])
        key = re.sub(r"[._]?(model_)?state(_dict)?$", "", key, flags=re.IGNORECASE) or key
        inside = any(name.startswith(f"{key}.") for name in one.tensors)  # says so itself
        prefix = "" if inside else key
        tensors |= {_join(prefix, name): tensor for name, tensor in one.tensors.items()}
    notes[:] = [note for note in notes if not note.startswith("weights found under")]
    notes.append(f"weights under {', '.join(map(repr, places))} put together")
    return Found("", tensors)


def resolved(tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Compute weights that are kept as norms and directions, or beside a spectral norm.

    Args:
        tensors: by name.
        notes: takes what was done.

    Returns:
        Tensors in which such weights stand under their own names.

    Raises:
        CheckpointError: for parts that do not fit each other.
    """
    rest, made, kinds = dict(tensors), {}, set()
    for name in tensors:
        for parts, kind in _PARTS:
            if not name.endswith(parts[0]):
                continue
            stem = name.removesuffix(parts[0])
            names = [stem + part for part in parts]
            if all(n in rest for n in names):
                made[name] = (f"{stem}{_WEIGHT[parts[0]]}", _weight(kind, [rest[n] for n in names]))
                kinds.add(kind)
                for gone in (*names[1:], *(stem + more for more in _BESIDE)):
                    rest.pop(gone, None)
    if not made:
        return rest
    notes.append(f"weights computed from their {' and '.join(sorted(kinds))} norm")
    return {made[n][0] if n in made else n: made[n][1] if n in made else t for n, t in rest.items()}


#: names of the parts of a weight, and the norm they are of
_PARTS = (
    (("weight_g", "weight_v"), "weight"),
    (("parametrizations.weight.original0", "parametrizations.weight.original1"), "weight"),
    (("weight_orig", "weight_u", "weight_v"), "spectral"),
    (
        (
            "parametrizations.weight.original", "parametrizations.weight.0._u",
            "parametrizations.weight.0._v",
        ),
        "spectral",
    ),
)  # fmt: skip
_WEIGHT = {parts[0]: "weight" for parts, _ in _PARTS}
_BESIDE = ("weight_u", "parametrizations.weight.0._u", "parametrizations.weight.0._v")


def _weight(kind: str, parts: Sequence[Tensor]) -> Tensor:
    try:
        if kind == "weight":
            length, direction = (part.double() for part in parts)
            axes = [a for a in range(direction.ndim) if length.ndim == 0 or length.shape[a] == 1]
            norm = direction.norm(dim=axes, keepdim=True)
            found: Tensor = (length * direction / norm).to(parts[1].dtype)
            return found
        weight, u, v = (part.double() for part in parts)
        matrix = weight.flatten(1)
        if matrix.shape != (len(u), len(v)):  # a transposed convolution is normed along axis 1
            matrix = weight.transpose(0, 1).flatten(1)
        found = (weight / (u @ matrix @ v)).to(parts[0].dtype)
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(f"the parts of a {kind} norm do not fit each other") from error
    return found
