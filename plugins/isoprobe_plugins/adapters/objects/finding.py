"""Find how a live model is called: an encoder, a decoder, and the rows in the shape that it takes.

Three ways, the most certain first: methods encode and decode; a forward pass whose outputs are
mean, scale and reconstruction, with the latent put in at the submodule that takes it; parts named
as people name them, held against the forward pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isoprobe.errors import OptionError
from isoprobe_plugins.adapters.objects.calling import said
from isoprobe_plugins.adapters.objects.forms import Draw, close, is_latent_name
from isoprobe_plugins.adapters.objects.leaves import Leaf, leaves
from isoprobe_plugins.adapters.objects.tracing import Call, replaced, run, watched

Shape = tuple[int, ...]

_HEADS_MEAN = re.compile(
    r"^(fc|lin|linear|enc|encoder|to|conv|layer|hidden2|h2|q|z)?_?(mu|mean|mus|means|z_mean|loc)"
    r"(_?(layer|head|net|fc|lin|linear))?$", re.IGNORECASE,
)  # fmt: skip
_HEADS_SCALE = re.compile(
    r"^(fc|lin|linear|enc|encoder|to|conv|layer|hidden2|h2|q|z)?_?"
    r"(log_?var|var|log_?sigma2?|sigma|log_?std|std|lv|logv|log_?variance|z_log_?var|scale"
    r"|log_?scale|variance)(_?(layer|head|net|fc|lin|linear))?$", re.IGNORECASE,
)  # fmt: skip
_ENCODERS = re.compile(r"^(encoder|enc|encode|encoder_net|inference_net|recognition)$", re.I)
_DECODERS = re.compile(r"^(decoder|dec|decode|decoder_net|generative_net|generator)$", re.I)
_RECONSTRUCTION = re.compile(
    r"(recon|x_?hat|output|decoded|generated|sample|x_?tilde|x_?rec|logits)", re.IGNORECASE
)


@dataclass
class Ways:
    """How a model is called.

    Attributes:
        encode: ``x -> leaves by name``; scales and means are among them.
        decode: ``z (B, *latent) -> whatever the model gives``, a tensor of the output at ``pick``.
        x: the rows in the shape that it takes.
        draw: what it draws latents from, where it shows.
        notes: what was found, a sentence each.
        hints: for a leaf, the name of the submodule that gave it.
        constant: leaves that are the same at each call.
    """

    encode: Callable[[Tensor], dict[str, Tensor]]
    decode: Callable[[Tensor], Tensor]
    x: Tensor
    first: list[Leaf]
    draw: Draw | None = None
    notes: list[str] = field(default_factory=list)
    hints: dict[str, str] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)


def shapes_of(x: Tensor) -> Iterator[tuple[Tensor, str]]:
    """Yield rows in the shapes that a model may take: as held, flat, with a channel, moved.

    Args:
        x: rows as the data holds them, ``(B, *shape)``.
    """
    yield x, ""
    if x.ndim > 2:
        yield x.flatten(1), "flat"
    if x.ndim == 3:
        yield x[:, None], "with a channel"
    if x.ndim == 4:
        yield x.movedim(-1, 1).contiguous(), "channels first"
        yield x.movedim(1, -1).contiguous(), "channels last"
    if x.ndim == 2:
        side = math.isqrt(x.shape[1])
        if side * side == x.shape[1] and side > 1:
            yield x.reshape(len(x), 1, side, side), "row by row as square images with a channel"
        yield x[:, None], "with a channel"


def bare(model: Any) -> tuple[Any, list[str]]:
    """Take wrappers off: DataParallel, compile, averaged models, a module that holds the VAE.

    Returns:
        The model that can be called, and what was taken off, a sentence each.

    Raises:
        OptionError: where several submodules could be the VAE.
    """
    notes: list[str] = []
    while True:
        name = type(model).__name__
        inner = getattr(model, "_orig_mod", None)
        if inner is None and re.match(r".*(Parallel|AveragedModel|EMA\w*|ModelEma\w*)$", name):
            inner = getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            break
        notes.append(f"the model inside {name} is read")
        model = inner
    if not callable_pair(model) and isinstance(model, nn.Module):
        held = [(n, m) for n, m in model.named_modules() if n and callable_pair(m)]
        tops = [(n, m) for n, m in held if not any(n.startswith(f"{o}.") for o, _ in held)]
        if len(tops) == 1:
            name, inner = tops[0]
            inner, more = bare(inner)
            return inner, [*notes, f"its submodule '{name}', which has encode and decode", *more]
        if len(tops) > 1:
            names = ", ".join(f"model.{n}" for n, _ in tops)
            raise OptionError(f"{len(tops)} submodules have encode and decode ({names}): give one")
    return model, notes


def callable_pair(model: Any) -> bool:
    """Say whether an object has methods ``encode`` and ``decode``."""
    return all(callable(getattr(model, name, None)) for name in ("encode", "decode"))


def find(model: Any, x: Tensor) -> Ways:
    """Find how a model is called, trying it on rows in each shape that it may take.

    Args:
        model: the bare model.
        x: rows as the data holds them.

    Returns:
        The ways, for the first shape that goes through and comes back.

    Raises:
        OptionError: with what each try ended in.
    """
    told: list[str] = []
    tries: list[Callable[[Any, Tensor], Ways]] = []
    if callable_pair(model):
        tries = [_by_methods]
    elif isinstance(model, nn.Module):
        tries = [_by_forward, _by_parts]
    if not tries:
        raise OptionError(f"a {type(model).__name__} has no encode and decode, and is no nn.Module")
    for attempt in tries:
        for rows, how in shapes_of(x):
            try:
                ways = attempt(model, rows)
            except OptionError as error:
                if getattr(error, "final", False):
                    raise
                told.append(str(error))
            except Exception as error:  # a user's model may fail in any way
                told.append(f"on rows of shape {tuple(rows.shape[1:])} {said(error)}")
            else:
                if how:
                    ways.notes.append(f"rows go in {how}: {tuple(rows.shape[1:])}")
                return ways
    raise OptionError("; ".join(dict.fromkeys(told)))


# --------------------------------------------------------------------------- by methods


def _by_methods(model: Any, x: Tensor) -> Ways:
    with torch.no_grad():
        try:
            first, again = leaves(model.encode(x)), leaves(model.encode(x))
        except OptionError as error:
            raise _final(f"encode: {error}") from error
    if not first:
        raise OptionError("encode returns no tensor")
    constant = _constant(first, again)
    _refuse_all_random(first, constant)

    def encode(rows: Tensor) -> dict[str, Tensor]:
        return {leaf.name: leaf.tensor for leaf in leaves(model.encode(rows))}

    def decode(z: Tensor) -> Tensor:
        return _output(model.decode(z), x.shape[1:])

    ways = Ways(encode, decode, x, first, constant=constant)
    ways.notes.append("encode and decode are called")
    _draw_of_forward(model, ways)
    _name_sources(model, lambda: model.encode(x), ways)
    _require_way_back(ways)
    return ways


def _require_way_back(ways: Ways) -> None:
    """Refuse rows in a shape whose latents the decoder does not turn back into rows."""
    faults = []
    for leaf in ways.first:
        if leaf.name not in ways.constant or leaf.tensor.ndim < 2:
            continue
        for z in _halved(leaf.tensor):
            try:
                with torch.no_grad():
                    out = ways.decode(z)
                if out.shape[0] == len(z):
                    return
            except Exception as error:  # a user's model may fail in any way
                faults.append(said(error))
    raise OptionError(f"decode takes no output of encode: {faults[0] if faults else 'none fits'}")


def _halved(both: Tensor) -> list[Tensor]:
    return [both] if both.shape[1] % 2 else [both, both.chunk(2, 1)[0]]


def _constant(first: list[Leaf], again: list[Leaf]) -> set[str]:
    return {
        a.name
        for a, b in zip(first, again, strict=False)
        if a.tensor.shape == b.tensor.shape and torch.equal(a.tensor, b.tensor)
    }


def _refuse_all_random(first: list[Leaf], constant: set[str]) -> None:
    usable = [leaf for leaf in first if leaf.tensor.ndim > 1]
    random = [leaf.name or "its output" for leaf in usable if leaf.name not in constant]
    groups = [leaf.tensor.shape for leaf in usable if leaf.name in constant]
    pairs = any(groups.count(shape) > 1 for shape in groups)
    if random and not pairs:
        raise _final(
            f"encode is random: output {', '.join(random)} differs each time it is called on the "
            "same rows (a draw where the mean belongs, or dropout left on); it has to return the "
            "mean, in eval mode without noise"
        )


def _final(message: str) -> OptionError:
    error = OptionError(message)
    error.final = True  # type: ignore[attr-defined]
    return error


def _draw_of_forward(model: Any, ways: Ways) -> None:
    """Let the model's own forward pass show what it draws latents from."""
    if not callable(model) or not isinstance(model, nn.Module):
        return
    means = [leaf.tensor for leaf in ways.first if leaf.name in ways.constant]
    for drawing in (False, True):
        try:
            _, at_zero, _ = run(model, ways.x, 0.0, drawing=drawing)
            _, at_one, _ = run(model, ways.x, 1.0, drawing=drawing)
        except Exception:  # noqa: S112 - forward may need more than x; then it shows nothing
            continue
        found = _drawn(at_zero, at_one, means)
        if found is not None:
            ways.draw = found
            if found.std is not None:
                return


def _drawn(at_zero: list[Call], at_one: list[Call], means: list[Tensor]) -> Draw | None:
    """Find the first call that takes one of the means at eps = 0; what it adds at 1 is sigma."""
    for zero, one in zip(at_zero, at_one, strict=False):
        if zero.taken.shape != one.taken.shape or zero.taken.ndim < 2:
            continue
        for mean in means:
            # one output of 2n holds the mean in one of three orders
            for part in _splits(mean):
                if close(zero.taken, part, 1e-5):
                    std = (one.taken - zero.taken).abs()
                    return Draw(part, std.reshape(part.shape) if bool((std > 0).all()) else None)
    return None


def _splits(mean: Tensor) -> list[Tensor]:
    if mean.shape[1] % 2:
        return [mean]
    first, second = mean.chunk(2, 1)
    return [mean, first, second, mean[:, 0::2]]


def _name_sources(model: Any, call: Callable[[], Any], ways: Ways) -> None:
    """Note which submodule gave each output, since its name may say what it is."""
    if not isinstance(model, nn.Module):
        return
    calls: list[Call] = []
    with torch.no_grad(), watched(model, calls):
        call()
    for leaf in ways.first:
        for made in calls:
            given = made.given
            if (
                given is not None
                and given.shape == leaf.tensor.shape
                and torch.equal(given, leaf.tensor)
            ):
                ways.hints[leaf.name] = made.name


# --------------------------------------------------------------------------- by forward


def _by_forward(model: nn.Module, x: Tensor) -> Ways:
    with torch.no_grad():
        first, again = leaves(model(x)), leaves(model(x))
    constant = _constant(first, again)
    recon = _reconstruction(first, x)
    rest = [
        leaf
        for leaf in first
        if leaf is not recon and leaf.tensor.ndim > 1 and len(leaf.tensor) == len(x)
        and not close(leaf.tensor, x, 0.0) and leaf.tensor.is_floating_point()
    ]  # fmt: skip
    shapes = [leaf.tensor.shape for leaf in rest]
    rest = [leaf for leaf in rest if shapes.count(leaf.tensor.shape) > 1 or leaf.form]
    if len([leaf for leaf in rest if leaf.name in constant]) < 2:
        raise OptionError(
            f"forward gives {_listed(first)}: no mean and scale of one shape are among them"
        )
    means = [leaf.tensor for leaf in rest if leaf.name in constant]
    for drawing in (False, True):
        answer, at_zero, _ = run(model, x, 0.0, drawing=drawing)
        _, at_one, _ = run(model, x, 1.0, drawing=drawing)
        draw = _drawn(at_zero, at_one, means)
        if draw is not None and (draw.std is not None or drawing):
            break
    if draw is None:
        raise OptionError(
            "no submodule takes one of the latents that forward returns, so the decoder cannot be "
            "called alone"
        )
    answer, at_zero, _ = run(model, x, 0.0)
    takers = [c for c in at_zero if c.module is not None and close(c.taken, draw.mean, 1e-5)]
    decode = _decoder(model, x, takers, recon.name, leaves(answer), draw.mean)

    def encode(rows: Tensor) -> dict[str, Tensor]:
        return {leaf.name: leaf.tensor for leaf in leaves(model(rows))}

    ways = Ways(encode, decode, x, rest, draw, constant=constant)
    ways.notes.append(
        f"forward gives {_listed(first)}; output {recon.name or '0'} is the reconstruction, and "
        f"latents go in at '{takers[0].name}'"
    )
    _name_sources(model, lambda: model(x), ways)
    return ways


def _listed(found: list[Leaf]) -> str:
    return ", ".join(f"{leaf.name or 'a tensor'} {tuple(leaf.tensor.shape[1:])}" for leaf in found)


def _reconstruction(found: list[Leaf], x: Tensor) -> Leaf:
    size = x[0].numel()
    alike = [
        leaf for leaf in found
        if leaf.tensor.ndim > 1 and len(leaf.tensor) == len(x) and leaf.tensor[0].numel() == size
        and not close(leaf.tensor, x, 0.0) and not is_latent_name(leaf.name.replace("sample", ""))
    ]  # fmt: skip
    named = [leaf for leaf in alike if _RECONSTRUCTION.search(leaf.name)]
    chosen = named or alike
    if not chosen:
        raise OptionError(f"forward gives {_listed(found)}: none has the {size} values of a row")
    return chosen[0]


def _decoder(
    model: nn.Module, x: Tensor, takers: list[Call], name: str, at_mean: list[Leaf], mean: Tensor
) -> Callable[[Tensor], Tensor]:
    """The part of forward behind the latent, checked to depend on it alone."""
    shape = x.shape[1:]
    right = next(leaf.tensor for leaf in at_mean if leaf.name == name)
    modules = list(dict.fromkeys(call.module for call in takers if call.module is not None))
    whole = takers[0]
    if whole.given is not None and close(whole.given, right, 0.0) and whole.module is not None:
        alone = whole.module
        return lambda z: _output(alone(z.reshape(len(z), *whole.taken.shape[1:])), shape)
    dummy = x[:1].clone()

    def decode(z: Tensor, rows: Tensor = dummy) -> Tensor:
        latents = z.reshape(len(z), *whole.taken.shape[1:])
        with replaced(modules, latents):
            answer = model(rows if len(rows) == len(z) else rows.expand(len(z), *rows.shape[1:]))
        return _output(next(leaf.tensor for leaf in leaves(answer) if leaf.name == name), shape)

    with torch.no_grad():
        again, other = decode(mean, x), decode(mean)
        flat = right.reshape(len(x), -1)
        if not close(again.flatten(1), flat, 1e-4):
            raise OptionError("the latent put into forward does not give its reconstruction again")
        if not close(other.flatten(1), flat, 1e-4):
            raise _final(
                "the reconstruction depends on the input beside the latent (skip connections, or "
                "a decoder that reads the input): there is no decode(z)"
            )
    return decode


def _output(answer: Any, shape: Any) -> Tensor:
    """Return the reconstruction in what a decoder gives, in the shape of a row."""
    answer = getattr(answer, "sample", answer) if not callable(
        getattr(answer, "sample", None)
    ) else answer  # fmt: skip
    size = math.prod(shape)
    found = leaves(answer)
    fitting = [f for f in found if f.tensor.ndim > 1 and f.tensor[0].numel() == size]
    if not fitting:
        raise OptionError(f"decode gives {_listed(found)}; rows have {size} values")
    if len(fitting) > 1 and not fitting[1].form:
        named = [f for f in fitting if _RECONSTRUCTION.search(f.name) or "mean" in f.name]
        if len(named) != 1:
            raise OptionError(
                f"decode gives {_listed(found)}, {len(fitting)} outputs of the size of a row: "
                "give the reconstruction alone"
            )
        fitting = named
    out = fitting[0].tensor
    shape = tuple(shape)
    if tuple(out.shape[1:]) == shape:
        return out
    if out.ndim == 4 and len(shape) == 3 and (out.shape[3], *out.shape[1:3]) == shape:
        return out.movedim(-1, 1)
    return out.reshape(out.shape[0], *shape)


# --------------------------------------------------------------------------- by parts


def _by_parts(model: nn.Module, x: Tensor) -> Ways:
    children = dict(model.named_children())
    encoder = _one(children, _ENCODERS, "encoder")
    decoder = _one(children, _DECODERS, "decoder")
    heads = [_named(children, _HEADS_MEAN), _named(children, _HEADS_SCALE)]
    if heads[0] is None and heads[1] is None:
        body = children[encoder]

        def parts(rows: Tensor) -> list[Leaf]:
            return leaves(body(rows))
    elif heads[0] is None or heads[1] is None:
        raise OptionError(f"submodules {', '.join(children)}: one head of the posterior is missing")
    else:
        body, mean, scale = children[encoder], children[heads[0]], children[heads[1]]

        def parts(rows: Tensor) -> list[Leaf]:
            h = body(rows)
            h = h.flatten(1) if h.ndim > 2 and isinstance(mean, nn.Linear) else h
            return [Leaf(str(heads[0]), mean(h)), Leaf(str(heads[1]), scale(h))]

    with torch.no_grad():
        first, again = parts(x), parts(x)
    last = children[decoder]

    def encode(rows: Tensor) -> dict[str, Tensor]:
        return {leaf.name: leaf.tensor for leaf in parts(rows)}

    ways = Ways(
        encode, lambda z: _output(last(z), x.shape[1:]), x, first, constant=_constant(first, again)
    )
    ways.hints = {leaf.name: leaf.name for leaf in first}
    used = ", ".join(f"'{n}'" for n in (encoder, *heads, decoder) if n)
    ways.notes.append(f"submodules {used} are called in this order")
    _require_way_back(ways)
    _hold_against_forward(model, ways)
    _draw_of_forward(model, ways)
    return ways


def _hold_against_forward(model: nn.Module, ways: Ways) -> None:
    """Refuse parts that do not make up what forward gives."""
    try:
        answer, _, _ = run(model, ways.x, 0.0)
        recon = _reconstruction(leaves(answer), ways.x).tensor
    except Exception:  # forward may need more than x
        ways.notes.append("forward could not be run to check it")
        return
    with torch.no_grad():
        for leaf in ways.first:
            for z in _splits(leaf.tensor):
                try:
                    made = ways.decode(z)
                except Exception:  # noqa: S112 - an output of 2n is no latent
                    continue
                if close(made.flatten(1), recon.flatten(1), 1e-4):
                    return
    raise OptionError(
        "decoder(mean(encoder(x))) is not what forward gives: more happens between the parts"
    )


def _one(children: dict[str, nn.Module], pattern: re.Pattern[str], what: str) -> str:
    found = _named(children, pattern)
    if found is None:
        raise OptionError(f"no submodule is called {what} (there are {', '.join(children)})")
    return found


def _named(children: dict[str, nn.Module], pattern: re.Pattern[str]) -> str | None:
    found = [name for name in children if pattern.match(name)]
    return found[0] if len(found) == 1 else None
