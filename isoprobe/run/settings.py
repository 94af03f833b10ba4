"""Say once what a run may be asked: default, help, form on the command line, place in the record.

The options of ``analyze``, ``score`` and ``merge``, the signatures of the Python calls, what a
result records of how it was asked for, and what a shard remembers are made from these fields, or
compared with them by a test. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from isoprobe.contracts import DEFAULT_ANALYSES, Analysis, Metric
from isoprobe.errors import OptionError, ResultError, nearest
from isoprobe.files.meter import bytes_of

#: key of a field's :class:`Form`
FORM = "form"


@dataclass(frozen=True)
class Form:
    """What is to be known of a setting beside its type and default.

    Attributes:
        help: a sentence or two for the command line.
        metavar: what stands for its value there.
        parse: name of the function of :mod:`isoprobe.cli.types` that reads it.
        choices: the words it may be.
        least: the least integer it may be.
        typed: its default as one would type it.
        remembered: a shard remembers it. What says which code runs, or where, no file may say.
        recorded: it is an attribute of the result, as it is.
        plain: its type in a file, where that is narrower.
    """

    help: str
    metavar: str | None = None
    parse: str | None = None
    choices: tuple[str, ...] = ()
    least: int | None = None
    typed: str | None = None
    remembered: bool = True
    recorded: bool = False
    plain: Any = None


def setting(default: Any, help_: str, **more: Any) -> Any:
    """Return a field with its form."""
    return field(default=default, metadata={FORM: Form(help_, **more)})


def form(of: Field[Any]) -> Form:
    """Return the form of a field made by :func:`setting`."""
    found: Form = of.metadata[FORM]
    return found


def _fitting(name: str, given: Any, said: Form, kind: Any) -> Any:
    """Return a value as its setting keeps it.

    Raises:
        OptionError: naming what was expected and what was found.
    """
    if getattr(given, "shape", None) == ():  # a number of numpy's or torch's
        given = given.item()
    if said.parse == "size_in_bytes" and isinstance(given, str):
        size = bytes_of(given)
        if size is None:
            raise OptionError(f"{name} must be bytes, or a size such as '2GiB'; found '{given}'")
        given = size
    if isinstance(given, str) and get_origin(kind) is Sequence:
        raise OptionError(f"{name} must be a list; found '{given}' (write ['{given}'])")
    plain = _parts(kind) <= {int, float, bool, tuple, Literal, NoneType}
    try:
        kept = msgspec.convert(given, kind) if plain else given
    except msgspec.ValidationError:
        raise OptionError(_refused(name, given, said, kind)) from None
    low = said.least is not None and isinstance(kept, int) and kept < said.least
    if low or (said.choices and kept is not None and kept not in said.choices):
        raise OptionError(_refused(name, given, said, kind))
    return kept


def _parts(kind: Any) -> set[Any]:
    """What a type is made of, without their own arguments."""
    kinds = get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)
    return {get_origin(each) or each for each in kinds}


def _refused(name: str, given: Any, said: Form, kind: Any) -> str:
    spoken = {int: "an integer", float: "a number", bool: "True or False", tuple: "a pair"}
    words = [spoken[part] for part in spoken if part in _parts(kind)]
    words += [
        f"'{word}'"
        for each in get_args(kind)
        if get_origin(each) is Literal
        for word in get_args(each)
    ]
    words += [f"'{choice}'" for choice in said.choices]
    least = "" if said.least is None else f" of at least {said.least}"
    hint = nearest(str(given), list(said.choices)).rstrip("?") if said.choices else ""
    return f"{name} must be {' or '.join(words)}{least}; found {given!r}{hint}"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How model and data are opened and batched.

    Raises:
        OptionError: for a value that no setting of its name may have.
    """

    def __post_init__(self) -> None:
        """Check what the command line checks of what is typed there."""
        hints = get_type_hints(type(self))
        for each in fields(self):
            given = getattr(self, each.name)
            fitting = _fitting(each.name, given, form(each), hints[each.name])
            object.__setattr__(self, each.name, fitting)

    adapter: str | None = setting(
        None,
        "Adapter. [default: the one that matches]",
        metavar="NAME",
        remembered=False,
    )
    options: Mapping[str, str] | None = setting(
        None,
        "Option of the adapter; repeatable.",
        metavar="KEY=VALUE",
        remembered=False,
    )
    trust: bool = setting(
        False,
        "Let code inside the checkpoint run, as you, where only that can build the model.",
        remembered=False,
    )
    allow_random: bool = setting(
        False,
        "Go on with a model that answers the same row differently, by chance or by its batch.",
    )
    samples: int | Literal["auto"] | None = setting(None, "")
    batch_size: int | None = setting(
        None,
        "Samples at once; auto keeps to --memory.",
        metavar="auto|N",
        parse="auto_or_count",
        least=1,
        typed="auto",
    )
    resize: int | tuple[int, int] | None = setting(
        None, "Resize images, as in 32 or 28x32.", metavar="PIXELS", parse="height_and_width"
    )
    pad: int | tuple[int, int] | None = setting(
        None,
        "Pad images with zeros to a size, as in 32. [default: as the checkpoint says]",
        metavar="PIXELS",
        parse="height_and_width",
    )
    scale: tuple[float, float] | None = setting(
        None,
        "Data values that stand for the ends of the model's input range, as in 0:255.",
        metavar="LOW:HIGH",
        parse="low_and_high",
    )
    condition: Any = setting(  # noqa: RUF009  (a default of None)
        None,
        "What a conditional model is told: a SPEC of as many rows, or one VALUE for all, such as "
        "3. [default: the data's labels, or what the model finds itself]",
        metavar="SPEC|VALUE",
        plain=str | None,
    )
    device: str = setting(
        "auto",
        "cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one.",
        typed="auto",
        remembered=False,
    )
    dtype: str | None = setting(
        None,
        "Floating type of the run. [default: the checkpoint's own]",
        choices=("float32", "float64"),
    )
    memory: int = setting(
        1 << 30,
        "Limit of what layers and derivatives may take at once.",
        metavar="SIZE",
        parse="size_in_bytes",
        least=1,
        typed="1GiB",
    )
    threads: int | None = setting(
        None,
        "Processor threads, which change the last digits. [default: as many as PyTorch takes]",
        metavar="N",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class RunSettings(Opening):
    """What the numbers of a run depend on beside model and data; see :func:`isoprobe.analyze`."""

    metric: str | Metric | None = setting(  # noqa: RUF009  (a default of None)
        None,
        "Distortion. [default: the checkpoint's own]",
        metavar="NAME[:k=v,...]",
        plain=str | None,
    )
    beta: float | Literal["auto"] | None = setting(
        None,
        "KL weight in units of the metric; auto recovers it. [default: the checkpoint's, or auto]",
        metavar="auto|FLOAT",
        parse="auto_or_positive",
    )
    analyses: Sequence[str | Analysis] = setting(
        DEFAULT_ANALYSES,
        "Analysis to run; repeatable; +NAME runs it beside the default ones. [default: "
        f"{', '.join(DEFAULT_ANALYSES)}; with --report also {{reported}}]",
        metavar="[+]NAME[:k=v,...]",
        plain=tuple[str, ...],
    )
    samples: int | Literal["auto"] | None = setting(
        "auto",
        "Samples to use, spread evenly over the data; auto takes as many as --tolerance needs, and "
        "encodes more.",
        metavar="all|auto|N",
        parse="all_auto_or_count",
        least=1,
        typed="auto",
    )
    against: str | None = setting(
        None,
        "A second set, as for --data: how its rate, distortion and ELBO differ, with errors.",
        metavar="SPEC",
    )
    tolerance: float | None = setting(
        None,
        "Relative standard error that is enough for --samples auto: of beta, distortion, KL and "
        "norm of each used latent. [default: 0.02, and 10,000 samples at most]",
        metavar="T",
    )
    pullback: str = setting(
        "exact",
        "How the decoder is differentiated; probe costs the same for any number of latents.",
        choices=("exact", "probe", "finite-difference"),
        typed="exact",
        recorded=True,
    )
    pairs: int = setting(
        2, "Antithetic pairs of posterior draws a sample.", least=1, typed="2", recorded=True
    )
    expectation: str = setting(
        "gaussian",
        "How E_z D is taken: at draws, or at mu + sigma and mu - sigma alone (A.6).",
        choices=("gaussian", "two-point"),
        typed="gaussian",
        recorded=True,
    )
    seed: int = setting(0, "Of all random draws.", least=0, typed="0", recorded=True)
    no_rows: bool = setting(
        False,
        "Leave single rows out of result and report: no columns of samples, no pictures of rows or "
        "their ids; no folders and no command line either.",
    )


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(Opening):
    """What scores depend on beside model, rows and reference; see :func:`isoprobe.score`."""

    alpha: float = setting(
        0.05, "False alarms accepted: flag conformal p-values up to this.", typed="0.05"
    )
    score: str = setting(
        "loss",
        "What is taken as the score; iwae needs a reference made with anomaly:iwae=true.",
        choices=("loss", "iwae", "mahalanobis", "reconstruction", "kl"),
        typed="loss",
    )
    fdr: float | None = setting(
        None,
        "Flag rows too so that at most this share of those flagged is expected to be normal "
        "(Benjamini and Hochberg); alpha alone flags that share of all normal rows.",
        metavar="SHARE",
    )
    by: str | None = setting(
        None,
        "Compare each row with reference rows of its own group, told by a column that goes along, "
        "as --data FILE.csv:keep=COLUMN; the reference needs --analysis anomaly:by=COLUMN.",
        metavar="COLUMN",
    )
    trim: float = setting(
        0.0,
        "Share of the reference that may be anomalies itself: its highest scores are left out, "
        "which assumes that these are the anomalies.",
        metavar="SHARE",
        typed="0",
    )
    contamination: float | None = setting(
        None,
        "Share of the reference's rows that are anomalies. [default: as in the reference]",
        metavar="SHARE",
    )
    by_latent: bool = setting(False, "Give the rate of each latent too.")
    by_input: bool = setting(False, "Give the distortion by input too; needs --out F.h5.")
    metric: str | Metric | None = setting(  # noqa: RUF009  (a default of None)
        None,
        "Has to be the reference's. [default: that one]",
        metavar="NAME[:k=v,...]",
        plain=str | None,
    )
    samples: int | None = setting(
        None,
        "Rows to score, spread evenly over the data.",
        metavar="all|N",
        parse="all_or_count",
        least=1,
        typed="all",
    )
    dtype: str | None = setting(
        None,
        "Floating type of the run. [default: the reference's]",
        choices=("float32", "float64"),
    )


@dataclass(frozen=True, kw_only=True)
class CodeSettings(Opening):
    """What codes and paths depend on beside model and rows; see :func:`isoprobe.encode`."""

    beta: float | None = setting(
        None,
        "KL weight in units of the metric, for y. [default: the checkpoint's own]",
        metavar="FLOAT",
    )
    samples: int | None = setting(
        None,
        "Rows to take, spread evenly over the data.",
        metavar="all|N",
        parse="all_or_count",
        least=1,
        typed="all",
    )


def with_defaults(
    asked: Sequence[str | Analysis], default: Sequence[str | Analysis] = DEFAULT_ANALYSES
) -> tuple[str | Analysis, ...]:
    """Return analyses as asked for: a name with ``+`` before it comes beside the default ones.

    Args:
        asked: names, specs or instances, such as ``+coordinates`` or ``density:draws=20``.
        default: what is run when nothing else is asked for.

    Returns:
        The analyses; the default ones first where any name has a ``+``.
    """
    names = [item.removeprefix("+") if isinstance(item, str) else item for item in asked]
    beside = any(isinstance(item, str) and item.startswith("+") for item in asked)
    return (*default, *names) if beside else tuple(names)


def recorded(settings: RunSettings) -> dict[str, Any]:
    """Return the settings that are attributes of the result."""
    return {f.name: getattr(settings, f.name) for f in fields(settings) if form(f).recorded}


# --------------------------------------------------------------------------- what a shard remembers


def _remembered() -> list[tuple[str, Any]]:
    hints = get_type_hints(RunSettings)
    kept = [f for f in fields(RunSettings) if form(f).remembered]
    return [(f.name, form(f).plain or hints[f.name]) for f in kept]


#: model, data, and the settings that a file may say, as a shard keeps them
Request = msgspec.defstruct(
    "Request",
    [("model", str), ("data", str | None), ("adapted", bool), *_remembered()],
    frozen=True,
    forbid_unknown_fields=True,
)


def remember(model: object, data: object, settings: RunSettings) -> dict[str, Any] | None:
    """Return how a run was asked for, so that a merge need not be told again.

    Args:
        model: path of a checkpoint.
        data: spec of the data.
        settings: as asked.

    Returns:
        Plain values; None where model, data or plugins are in memory.
    """
    names = [name for name, _ in _remembered()]
    given = {name: getattr(settings, name) for name in names}
    adapted = bool(settings.adapter or settings.options)
    texts = {"model": _text(model), "data": _text(data), "adapted": adapted}
    try:
        request = msgspec.convert({**given, **texts}, Request)
    except msgspec.ValidationError:
        return None
    plain: dict[str, Any] = msgspec.to_builtins(request)
    return plain


def remembered(kept: object, path: object) -> tuple[dict[str, Any], RunSettings]:
    """Read what a shard remembers.

    Args:
        kept: from its record.
        path: the shard, to be named.

    Returns:
        ``model``, ``data`` and ``adapted``, and the settings, all but those that say what code
        runs, and where.

    Raises:
        ResultError: if it remembers nothing, or is damaged.
    """
    if kept is None:
        raise ResultError(
            f"{path} was made in Python from a model, data or plugins in memory; merge "
            "it there, with isoprobe.run.merging.merge"
        )
    try:
        asked = msgspec.structs.asdict(msgspec.convert(kept, Request))
    except msgspec.ValidationError as error:
        raise ResultError(f"{path} is damaged: request: {error}") from error
    texts = {name: asked.pop(name) for name in ("model", "data", "adapted")}
    return texts, RunSettings(**asked)


def _text(given: object) -> object:
    from pathlib import Path

    return str(given) if isinstance(given, Path) else given
