"""Find the weights of a class in a file, at any depth and under any wrapper, and load them all.

Nothing is left out in silence: every parameter of the class is filled, of the right shape, and
several sets of weights of the same names are named.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isoprobe.checkpoints.source import WEIGHT_KINDS, FileKind
from isoprobe.errors import CheckpointError, FileError, OptionError
from isoprobe.files.documents import parse_json
from isoprobe_plugins.adapters.objects.calling import call_target, resolve
from isoprobe_plugins.adapters.weights.state import read_state
from isoprobe_plugins.adapters.weights.torch_files import load_torch

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

#: what wrappers put anywhere inside a name
_WRAPPERS = frozenset({"module", "_orig_mod"})
_AVERAGED = re.compile(r"(ema|averag|swa|shadow|teacher)", re.IGNORECASE)
#: keys under which training loops keep constructor arguments
_ARGUMENTS = ("hyper_parameters", "hparams", "config", "args", "kwargs", "model_args")
#: a text among them that is an option, such as ``relu``: it has no separator and no suffix
_WORD = re.compile(r"[\w+-]{1,40}")
#: constructors tried for arguments that the shapes tell
_TRIES = 1500
_LATENT = re.compile(r"(latent|^z_?(dim|size)?$|^nz$|code|bottleneck|embed)", re.IGNORECASE)
_INPUT = re.compile(r"(^in(put)?(_|$)|x_dim|data_dim|n_features|image|^d$)", re.IGNORECASE)


@dataclass(frozen=True)
class Filling:
    """A set of weights that fills a class.

    Attributes:
        place: where it lies in the file: key, prefix.
        tensors: by the class' own names.
        left: names that the class has no place for.
    """

    place: str
    tensors: dict[str, Tensor]
    left: tuple[str, ...]


def filled(
    target: str, source: Source, given: Mapping[str, str], weights: str | None = None
) -> tuple[nn.Module, list[str]]:
    """Build a class and load a file's weights into it.

    Args:
        target: ``FILE.py:CLASS`` or ``module:CLASS``, as typed by the user.
        source: the file.
        given: constructor arguments as typed.
        weights: which set of weights, where there are several.

    Returns:
        The module in eval mode, and what was found on the way, a sentence each.

    Raises:
        OptionError: for a class that does not build.
        CheckpointError: for a file without weights, or whose weights are not of this class.
    """
    sets, saved = weight_sets(source)
    build = resolve(target)
    arguments = {name: _value(text) for name, text in given.items()}
    notes: list[str] = []
    with torch.random.fork_rng(devices=[]):
        module, shapes_fit = _built(build, target, source, arguments, saved, sets, notes)
    fillings = _fillings(module, sets) if shapes_fit else []
    if not fillings:
        raise CheckpointError(_unfilled(module, sets, source, target))
    chosen = _chosen(fillings, weights, source, notes)
    if chosen.left:
        notes.append(
            f"{len(chosen.left)} tensors have no place in the class: {', '.join(chosen.left[:3])}"
        )
    module.load_state_dict(chosen.tensors, strict=True)
    notes.append(f"{target} filled with all {len(chosen.tensors)} tensors {chosen.place}".rstrip())
    return module.eval(), notes


# --------------------------------------------------------------------------- weights


def weight_sets(source: Source) -> tuple[dict[str, dict[str, Tensor]], Any]:
    """Return every mapping of names to tensors in a file by its place, and the file's content.

    Raises:
        CheckpointError: for a file of another kind, or one that is damaged.
    """
    if source.kind not in WEIGHT_KINDS:
        raise CheckpointError(f"{source.path} is {source.description}; expected a state dict")
    whole = source.pickle is not None and source.pickle.foreign
    if source.kind is FileKind.SAFETENSORS or whole:
        return {"": dict(read_state(source, "").tensors)}, {}
    saved = load_torch(source)
    return dict(_mappings(saved, "")), saved


def _mappings(saved: Any, place: str, depth: int = 4) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(saved, Mapping) or depth == 0:
        return
    own = {k: v for k, v in saved.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if own:
        yield place, own
    inner: dict[str, dict[str, Tensor]] = {}
    for key, value in saved.items():
        if isinstance(key, str) and "optim" not in key.lower():
            inside = list(_mappings(value, f"{place}.{key}" if place else key, depth - 1))
            yield from inside
            if inside and inside[0][0].endswith(key):
                inner[key] = inside[0][1]
    if len(inner) > 1:  # encoder and decoder under keys of their own
        joined = {f"{key}.{n}": t for key, ts in inner.items() for n, t in ts.items()}
        yield f"{place} ({', '.join(inner)} together)".strip(), joined


def _plain(name: str) -> str:
    """Take wrappers out of a name."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _fillings(module: nn.Module, sets: Mapping[str, dict[str, Tensor]]) -> list[Filling]:
    """Every set, under every prefix, that has all of a module's tensors in the right shapes."""
    wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    return list(_fitting(wanted, sets))


def _fitting(
    wanted: Mapping[str, tuple[int, ...]], sets: Mapping[str, dict[str, Tensor]]
) -> Iterator[Filling]:
    if not wanted:
        return
    by_plain = {_plain(name): name for name in wanted}
    anchor = max(by_plain, key=len)
    for place, tensors in sets.items():
        here = {_plain(name): name for name in tensors}
        if len(here) != len(tensors):
            continue
        for name in here:
            if name != anchor and not name.endswith(f".{anchor}"):
                continue
            prefix = name[: len(name) - len(anchor)]
            found = {own: here.get(prefix + plain) for plain, own in by_plain.items()}
            if any(n is None or tuple(tensors[n].shape) != wanted[own] for own, n in found.items()):
                continue
            used = {n for n in found.values() if n is not None}
            left = tuple(n for n in tensors if n not in used)
            inside = tuple(n for n in left if _plain(n).startswith(prefix) and tensors[n].ndim)
            if not prefix and inside:
                continue  # strictly: the class has no place for these
            where = " ".join(
                part
                for part in (f"under '{place}'" if place else "", f"'{prefix}*'" if prefix else "")
                if part
            )
            filling = {own: tensors[n] for own, n in found.items() if n is not None}
            yield Filling(where, filling, left)


def _chosen(
    fillings: list[Filling], weights: str | None, source: Source, notes: list[str]
) -> Filling:
    """Choose among sets of weights of the same names, saying which there are."""
    distinct: list[Filling] = []
    for filling in fillings:
        if not any(_same(filling, other) for other in distinct):
            distinct.append(filling)
    if weights is not None:
        named = [f for f in distinct if weights.lower() in f.place.lower()]
        if weights.lower() in {"raw", "plain"}:
            named = [f for f in distinct if not _AVERAGED.search(f.place)]
        if len(named) != 1:
            raise OptionError(
                f"weights={weights} names {len(named)} sets of {source.path.name}; there are "
                + " and ".join(f.place or "the tensors at the top" for f in distinct)
            )
        return named[0]
    if len(distinct) == 1:
        return distinct[0]
    averaged = [f for f in distinct if _AVERAGED.search(f.place)]
    chosen = averaged[0] if len(averaged) == 1 else None
    every = " and ".join(f.place or "the top" for f in distinct)
    if chosen is None:
        raise OptionError(
            f"{source.path} holds {len(distinct)} sets of weights, {every}: choose one with "
            "--option weights=NAME"
        )
    notes.append(
        f"weights {every} are there: the averaged ones are taken, --option weights=raw the others"
    )
    return chosen


def _same(one: Filling, other: Filling) -> bool:
    return all(torch.equal(one.tensors[n], other.tensors[n]) for n in one.tensors)


# --------------------------------------------------------------------------- the constructor


def _built(
    build: Callable[..., Any],
    target: str,
    source: Source,
    given: Mapping[str, Any],
    saved: Any,
    sets: Mapping[str, dict[str, Tensor]],
    notes: list[str],
) -> tuple[nn.Module, bool]:
    """Build the class, with arguments from the file where its own do not fit."""
    parameters = _parameters(build)
    kept = _saved_arguments(saved, parameters)
    last: OptionError | None = None
    module: nn.Module | None = None
    for arguments, note in ((given, ""), ({**kept, **given}, "read from the file")):
        if note and not kept:
            continue
        try:
            if note and not _bearable(build, arguments, kept, sets):
                continue
            module = _module(call_target(build, target, source.path, dict(arguments)), target)
        except OptionError as error:
            last = error
            continue
        if _fillings(module, sets):
            if note:
                notes.append(f"arguments {_shown(kept)} {note}")
            return module, True
    found = _by_shapes(build, parameters, given, sets)
    if found is not None:
        notes.append(f"arguments {_shown(found)} read off the shapes of the weights")
        arguments = {**given, **found}
        return _module(call_target(build, target, source.path, arguments), target), True
    if module is None:
        missing = [n for n, p in parameters.items() if p.default is p.empty and n not in given]
        more = "".join(f" --class-arg {name}=VALUE" for name in missing)
        raise OptionError(f"{last}; give them with{more}" if missing else str(last)) from last
    return module, False


def _shown(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _module(built: Any, target: str) -> nn.Module:
    if not isinstance(built, nn.Module):
        raise OptionError(f"{target} gives a {type(built).__name__}; expected an nn.Module")
    return built


def _parameters(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(build)
    except (TypeError, ValueError):
        return {}
    skipped = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {n: p for n, p in signature.parameters.items() if p.kind not in skipped}


def _saved_arguments(saved: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that a training loop saved beside the weights, by the constructor's names."""
    if not isinstance(saved, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key in _ARGUMENTS:
        kept = saved.get(key)
        for name, value in kept.items() if isinstance(kept, Mapping) else ():
            if name in parameters and _plain_value(value):
                found[name] = value
    return found


def _plain_value(value: Any, depth: int = 3) -> bool:
    """Whether a value is one that a stranger may hand to a constructor: no place of a file."""
    if isinstance(value, list | tuple):
        return depth > 0 and all(_plain_value(inner, depth - 1) for inner in value)
    if isinstance(value, str):
        return bool(_WORD.fullmatch(value))
    return isinstance(value, int | float)


def _bearable(
    build: Callable[..., Any],
    arguments: Mapping[str, Any],
    kept: Mapping[str, Any],
    sets: Mapping[str, dict[str, Tensor]],
) -> bool:
    """Tell whether what a file's arguments build has the shapes of its weights, without memory.

    Returns:
        True where it has; and, for a class that cannot be built without memory, where no argument
        is larger than the longest axis of a weight.
    """
    try:
        with torch.device("meta"), contextlib.redirect_stdout(io.StringIO()):
            module = build(**arguments)
    except Exception:
        longest = max(
            (size for t in sets.values() for w in t.values() for size in w.shape), default=0
        )
        return all(abs(number) <= longest for number in _numbers(list(kept.values())))
    return isinstance(module, nn.Module) and bool(_fillings(module, sets))


def _numbers(values: list[Any] | tuple[Any, ...]) -> Iterator[int]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield value


def _by_shapes(
    build: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    given: Mapping[str, Any],
    sets: Mapping[str, dict[str, Tensor]],
) -> dict[str, int] | None:
    """Whole-number arguments under which the class has the shapes of the file's weights."""
    numbers = [
        name for name, p in parameters.items()
        if name not in given and (
            p.annotation in (int, "int") or p.default is p.empty
            or (isinstance(p.default, int) and not isinstance(p.default, bool))
        )
    ]  # fmt: skip
    if not numbers or not sets:
        return None
    shapes = [tuple(t.shape) for t in max(sets.values(), key=len).values()]
    pools = [_pool(name, parameters[name].default, shapes) for name in numbers]
    order = sorted(
        itertools.islice(itertools.product(*(range(len(pool)) for pool in pools)), 200_000),
        key=sum,
    )
    for places in order[:_TRIES]:
        arguments = {
            name: pool[place] for name, pool, place in zip(numbers, pools, places, strict=True)
        }
        try:
            with torch.device("meta"), contextlib.redirect_stdout(io.StringIO()):
                module = build(**{**given, **arguments})
        except Exception:  # noqa: S112 - arguments that are none
            continue
        if isinstance(module, nn.Module) and _fillings(module, sets):
            return arguments
    return None


def _pool(name: str, default: Any, shapes: list[tuple[int, ...]]) -> list[int]:
    """Values that an argument may have, the likeliest first."""
    matrices = [shape for shape in shapes if len(shape) == 2]
    widths = [size for shape in shapes for size in shape if size > 0]
    first = matrices[0][1] if matrices else (shapes[0][1] if len(shapes[0]) > 1 else shapes[0][0])
    smallest = min((min(shape) for shape in matrices), default=min(widths))
    own = [default] if isinstance(default, int) and not isinstance(default, bool) else []
    likely = [smallest] if _LATENT.search(name) else [first] if _INPUT.search(name) else []
    rest = sorted(set(widths), key=lambda size: -widths.count(size))
    return list(dict.fromkeys([*likely, *own, *rest]))


def _value(text: str) -> Any:
    """Read numbers, true, false, null and JSON as what they are, anything else as text."""
    try:
        return parse_json(text.encode(), "the value")
    except FileError:
        return text


def _unfilled(
    module: nn.Module, sets: Mapping[str, dict[str, Tensor]], source: Source, target: str
) -> str:
    """Say what is missing, left over or of another shape, for the set that comes nearest."""
    wanted = {_plain(n): tuple(t.shape) for n, t in module.state_dict().items()}
    if not sets:
        return f"{source.path} is {source.description}: no tensors by name in it"

    def stripped(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        return {_plain(n): tuple(t.shape) for n, t in tensors.items()}

    nearest = max((stripped(t) for t in sets.values()), key=lambda s: len(s.keys() & wanted.keys()))
    missing = [n for n in wanted if n not in nearest]
    unexpected = [n for n in nearest if n not in wanted]
    other = [n for n in wanted if n in nearest and nearest[n] != wanted[n]]
    parts = []
    if other:
        name = other[0]
        parts.append(f"'{name}' is {nearest[name]} in the file and {wanted[name]} in the class")
    if missing:
        parts.append(f"{len(missing)} are missing from the file, first '{missing[0]}'")
    if unexpected:
        parts.append(f"{len(unexpected)} have no place in the class, first '{unexpected[0]}'")
    return (
        f"the weights of {source.path} are not those of {target}: {'; '.join(parts)}. Say how it "
        "was built with --class-arg NAME=VALUE"
    )
