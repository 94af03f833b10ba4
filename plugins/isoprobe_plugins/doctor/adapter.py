"""Read weights that nothing describes by trying what they could be on the data."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isoprobe.checkpoints.contents import tensor_shapes
from isoprobe.contracts import VAE, Adapter, FirstRows, Live
from isoprobe.data.fitting import plane
from isoprobe.errors import CheckpointError, FileError, OptionError, UnreadError
from isoprobe.files.documents import parse_json
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct
from isoprobe.registry.unread import chain, described, next_for, quoted
from isoprobe_plugins.adapters.declared.adapter import Declared, load_declared
from isoprobe_plugins.adapters.declared.declaration import parse_declaration
from isoprobe_plugins.adapters.weights.arrays import named_arrays
from isoprobe_plugins.adapters.weights.known import looks_like
from isoprobe_plugins.adapters.weights.state import (
    holds_weights,
    is_arrays,
    read_state,
    weights_in,
)
from isoprobe_plugins.doctor.parts import left_out_by
from isoprobe_plugins.doctor.plan import OPTION, SPOKEN
from isoprobe_plugins.doctor.refusals import recurrent, why_no_vae
from isoprobe_plugins.doctor.words import word
from isoprobe_plugins.heads import check_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.weights.state import State


#: what else there is for a model that is pickled whole
_TRUST = (
    "unpickling it whole would run code; if you trust whoever wrote it, --trust lets that code do "
    "whatever you may do on this machine"
)


@dataclass(frozen=True)
class UndeclaredOptions:
    """What a user may say about weights that nothing describes.

    Attributes:
        weights: which set of weights, where a file holds several.
        head: form of the scale.
        layout: order within one head of 2n values.
        output: what squeezes the output: ``sigmoid``, ``tanh`` or ``linear``.
        encoder: the encoder's hidden activation.
        decoder: the decoder's hidden activation.
        first: the activation after the decoder's first layer, where it is another one.
        last: the same after the encoder's last layer.
        order: ``norm`` or ``act``: which follows a layer first.
        blocks: how containers of several layers are wired.
        pool: ``max`` or ``average``.
        upsample: ``nearest`` or ``bilinear``.
        groups: of norms over groups of channels; 0 for a norm over the last axis.
        joined: ``after`` or ``before``: where a condition stands beside x and z.
        levels: ``last`` or ``first``: how the logits of a value stand.
        clamp: bound of a log variance that the decoder gives.
        reading: a reading as a result has recorded it, which is followed without data.
    """

    weights: str | None = None
    head: str | None = None
    layout: str | None = None
    output: str | None = None
    encoder: str | None = None
    decoder: str | None = None
    first: str | None = None
    last: str | None = None
    order: str | None = None
    blocks: str | None = None
    pool: str | None = None
    upsample: str | None = None
    groups: int | None = None
    joined: str | None = None
    levels: str | None = None
    clamp: str | None = None
    reading: str | None = None

    def told(self) -> dict[str, Any]:
        """Return the choices that are made.

        Raises:
            OptionError: for one that is not among those that are tried.
        """
        found: dict[str, Any] = {} if self.groups is None else {"groups": self.groups}
        if self.head is not None:
            found["form"] = check_head(self.head)
        for name, values in SPOKEN.items():
            typed = getattr(self, name)
            if typed is None:
                continue
            known = {word(value): value for value in values}
            if typed not in known:
                raise OptionError(
                    f"option '{name}' of adapter 'weights' is one of {', '.join(known)}; "
                    f"found '{typed}'"
                )
            found["resize" if name == "upsample" else name] = known[typed]
        return found


@dataclass(frozen=True)
class Tensors:
    """A set of weights that is to be read on rows.

    Attributes:
        state: the weights.
        source: where they come from.
        wanted: name of the set, where one was asked for.
    """

    state: State
    source: Source
    wanted: str | None = None


class Undeclared(Adapter):
    """Finds layers, activations and head of plain weights by trying them on the data."""

    name = "weights"
    summary = "weights alone: what their layers are is told by trying them on the data"
    last_resort: ClassVar[bool] = True
    rows: ClassVar[int] = 1024

    def matches(self, source: Source) -> bool:
        """Return True for a file or folder of tensors by name, matrices among them."""
        return holds_weights(source)

    def build(self, source: Source, options: Mapping[str, str]) -> Live | None:
        """Read the weights.

        Args:
            source: the file.
            options: fields of :class:`UndeclaredOptions`; with ``declaration`` or ``reading``, that
                is followed instead.

        Returns:
            The weights, to be read on the first rows of the data; None where that is followed.

        Raises:
            UnreadError: for options of a whole model, which is not unpickled here.
        """
        if "declaration" in options or "reading" in options:
            return None
        if _runs_code(source) and not set(options) <= {f.name for f in fields(UndeclaredOptions)}:
            path = quoted(source.path)
            raise UnreadError(
                f"{source.path} is {source.description}: {_TRUST}",
                f"isoprobe analyze {path} --data SPEC --trust",
            )
        settings = construct(UndeclaredOptions, options, f"adapter '{self.name}'")
        state = read_state(source, wanted=settings.weights)
        tensors = Tensors(state, source, settings.weights)
        name = source.path.stem or source.path.name
        return Live(tensors, settings.told(), name, source.sha256(), adapter=self.name)

    def takes(self, model: object) -> bool:
        """Return True for what :meth:`build` gives."""
        return isinstance(model, Tensors)

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Follow a declaration that is named, or a reading that a result has recorded.

        Returns:
            The model.

        Raises:
            CheckpointError: for what is no VAE.
            UnreadError: without a reading: what the layers are is only told with data.
        """
        if "declaration" in options:
            return Declared().load(source, options)
        if "reading" in options:
            return recorded(source, str(options["reading"]), self.name)
        tensors = read_state(source).tensors
        reason, again = why_no_vae(tensors), recurrent(tensors)
        if reason is not None:
            raise CheckpointError(f"{source.path} holds {reason}")
        holds = "" if again is None else f", holds {again}"
        raise UnreadError(
            f"{described(source)}{holds}; what its layers are is told by data",
            *next_for(source, "--data SPEC"),
        )

    def read(self, live: Live, rows: FirstRows) -> VAE:
        """Try the plausible readings of the weights on rows.

        Args:
            live: the weights.
            rows: a few inputs as the data holds them, and the metric asked for.

        Returns:
            The model as the best reading has it.

        Raises:
            UnreadError: where no reading is borne out, with the reason and the next command.
        """
        from isoprobe_plugins.doctor.verdict import judged  # loads torch

        tensors: Tensors = live.model
        source = tensors.source
        try:
            verdict = judged(tensors.state, rows.x, rows.metric, live.options, rows.labels)
        except CheckpointError as error:
            unread = _no_reading(tensors, rows, str(error))
            raise unread from error
        if not (verdict.doubt or verdict.unsure):
            return model_of(verdict, tensors, self.name)
        what, following = _described(tensors), next_for(source, rows.typed)
        if verdict.doubt:
            raise UnreadError(
                f"{what}; {verdict.doubt}: is this the data it was trained on? The doctor writes "
                "the reading that comes nearest, to start from",
                *following,
            )
        if not verdict.ask:
            raise UnreadError(f"{what}; {verdict.unsure}", *following)
        told = {**live.options, **verdict.ask}
        options = " ".join(f"--option {OPTION.get(k, k)}={word(v)}" for k, v in told.items())
        loss, *others = verdict.losses or ("",)
        metric = f" --metric {loss}" if loss else ""
        usual = f"isoprobe analyze {quoted(source.path)} {rows.typed} {options}{metric}"
        own = [command for command in following if " --class " in command]
        said = (
            "say which its code has, the usual one by the last command"
            if own
            else "the usual one is"
        )
        if others:
            said = f"{said},{metric} (or {', '.join(others)}, as it was trained)"
        raise UnreadError(f"{what}; {verdict.unsure}; {said}", *own, usual)

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return what names and shapes tell; layers are told with data."""
        shapes = self.tensors(source)
        known = looks_like(shapes)
        told: dict[str, Any] = {} if known is None else {"looks_like": known}
        held = {n: np.broadcast_to(0, s) for n, s in shapes.items()}  # shapes without values
        reason, again = why_no_vae(held), recurrent(held)
        told |= {} if again is None else {"decoder": again}
        return told if reason is None else {**told, "not_read": reason}

    def tensors(self, source: Source) -> Mapping[str, tuple[int, ...]]:
        """Return shapes of the tensors of a file, or of the files of a folder."""
        if not source.is_folder:
            if is_arrays(source):
                return {name: tuple(t.shape) for name, t in named_arrays(source).items()}
            return tensor_shapes(source)
        parts = [source.child(name) for name in weights_in(source)]
        return {
            f"{part.path.name}: {name}": shape
            for part in parts for name, shape in tensor_shapes(part).items()
        }  # fmt: skip


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in tensors.state.tensors.items()}


def _described(tensors: Tensors) -> str:
    return described(tensors.source, _shapes(tensors))


def _no_reading(tensors: Tensors, rows: FirstRows, reason: str) -> UnreadError:
    """Say why rows lead nowhere; rows of another size are the commonest reason."""
    source, shapes = tensors.source, _shapes(tensors)
    own = [command for command in next_for(source, rows.typed) if " --class " in command]
    size, widths = math.prod(rows.x.shape[1:]), chain(shapes)
    told = reason.startswith("a conditional VAE")  # what it takes beyond a row is no row
    if told or not widths or widths[0] == size:
        return UnreadError(f"{source.path} holds {reason}", *own)
    shape, side = "x".join(map(str, rows.x.shape[1:])), math.isqrt(widths[0])
    larger = f"isoprobe analyze {quoted(source.path)} {rows.typed} --resize {side}"
    fits = side**2 == widths[0] and plane(tuple(rows.x.shape[1:])) and "--resize" not in rows.typed
    return UnreadError(
        f"{_described(tensors)}; it takes rows of {widths[0]} values, those of the data are "
        f"{shape}",
        *([larger] if fits else own),
    )


def model_of(verdict: Any, tensors: Tensors, adapter: str) -> VAE:
    """Build the model of a verdict's reading.

    Args:
        verdict: what data made of the weights.
        tensors: the weights.
        adapter: name of the adapter at work.

    Returns:
        The model.
    """
    chosen = verdict.chosen
    declared = dict(chosen.fields)
    if verdict.metric is not None:
        declared["loss"] = {"metric": verdict.metric}
    beginnings = left_out_by(chosen.plan.split.rest)
    left_out = sorted(n for n in tensors.state.tensors if n.startswith(beginnings))
    told = {"declaration": declared, "left_out": left_out, "weights": tensors.wanted}
    reading = json.dumps(told, sort_keys=True)
    state = replace(tensors.state, notes=(*tensors.state.notes, *verdict.notes))
    return _followed(told, reading, state, tensors.source, adapter)


def recorded(source: Source, reading: str, adapter: str) -> VAE:
    """Read weights as a result has recorded that they were read.

    Args:
        source: the file.
        reading: the record, as :func:`model_of` writes it.
        adapter: name of the adapter at work.

    Returns:
        The model.

    Raises:
        OptionError: for a text that is no such record.
    """
    try:
        told = parse_json(reading.encode(), "reading")
        wanted, left_out, declared = told["weights"], told["left_out"], told["declaration"]
    except (FileError, KeyError, TypeError):
        told = wanted = left_out = declared = None
    sound = isinstance(left_out, list) and isinstance(declared, dict)
    if not sound or not isinstance(wanted, str | None):
        raise OptionError(
            f"option 'reading' of adapter '{adapter}' is the attribute 'reading' of a result; "
            f"found {reading[:60]!r}"
        )
    state = read_state(source, wanted=wanted)
    note = "layers read as the result that was given has recorded"
    return _followed(told, reading, replace(state, notes=(*state.notes, note)), source, adapter)


def _followed(
    told: Mapping[str, Any], reading: str, state: State, source: Source, adapter: str
) -> VAE:
    left_out = frozenset(map(str, told["left_out"]))
    kept = {n: t for n, t in state.tensors.items() if n not in left_out}
    declaration = parse_declaration(told["declaration"], "weights")
    vae = load_declared(
        declaration, replace(state, tensors=kept), source, adapter=adapter, where="the reading"
    )
    return replace(vae, reading=reading)


def _runs_code(source: Source) -> bool:
    """Whether a file is a pickle that names classes of somebody's own."""
    return not source.is_folder and source.pickle is not None and bool(source.pickle.foreign)


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Undeclared]
