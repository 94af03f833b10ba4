"""Tell by shapes, names and rows what a network has beyond one input, a mean and N(0, I)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isoprobe_plugins.doctor.paths import says_mean, says_scale

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe_plugins.doctor.parts import Part
    from isoprobe_plugins.doctor.paths import Split

#: forms of a scale whose name says it
_SPOKEN_FORMS = (
    ("logvar", re.compile(r"log_?v|log_?sigma_?(2|sq)|(^|[._])lv", re.IGNORECASE)),
    ("logstd", re.compile(r"log_?(std|sd|sigma|scale)", re.IGNORECASE)),
)
_PSEUDO = re.compile(r"pseudo|vamp|(^|[._])u($|[._])|prior|idle", re.IGNORECASE)
_SHARES = re.compile(r"(^|[._])(w|pi|pis|weights?|logits?|shares?|mix\w*|alphas?)$", re.IGNORECASE)
_DISPERSION = re.compile(r"px_r|dispersion|log_?theta|(^|[._])theta$|log_?r$", re.IGNORECASE)
_DROPOUT = re.compile(r"dropout|zero|gate|(^|[._])pi($|[._])", re.IGNORECASE)
#: a likelihood whose variance the decoder gives
_OWN_VARIANCE = "gaussian-heteroscedastic"
#: most levels that a value of whole numbers may have
_LEVELS = 256


def spoken_form(name: str) -> str | None:
    """Return the form of a scale that its name says, if it says one."""
    return next((form for form, told in _SPOKEN_FORMS if told.search(name)), None)


@dataclass(frozen=True)
class Rows:
    """What rows and their labels are like.

    Attributes:
        shape: of a stored row.
        whole: the greatest value where all are whole numbers from 0; None elsewhere.
        classes: one more than the greatest label where labels are whole numbers from 0; None
            without labels, or with others.
    """

    shape: tuple[int, ...]
    whole: int | None = None
    classes: int | None = None

    @classmethod
    def of(cls, x: Tensor, labels: Tensor | None) -> Rows:
        """Look at rows ``(B, *shape)`` and labels ``(B,)``."""
        return cls(tuple(x.shape[1:]), _greatest(x), _classes(labels))


def _greatest(values: Tensor) -> int | None:
    whole = bool((values == values.round()).all()) and float(values.min()) >= 0
    return int(values.max()) if whole else None


def _classes(labels: Tensor | None) -> int | None:
    if labels is None or labels.ndim != 1:
        return None
    most = _greatest(labels)
    return None if most is None else most + 1


@dataclass(frozen=True)
class Beyond:
    """What a way through a network has beyond its layers, as fields of a declaration.

    Attributes:
        prior: where it is not N(0, I).
        condition: what is told of each sample.
        told_in: steps that join it to the input.
        told_out: the same to the latents.
        likelihood: metric of a likelihood whose parameters the decoder gives.
        heads: layers that give its parameters in place of the decoder's last one.
        tensors: names of tensors that are parameters as they stand.
        levels: how many logits there are for each value.
        counts: log1p goes before the encoder, and means are shares of a row's sum.
        parts: what all this is made of, besides the layers on the way.
    """

    prior: Mapping[str, Any] = field(default_factory=dict)
    condition: Mapping[str, Any] = field(default_factory=dict)
    told_in: Mapping[str, Any] | None = None
    told_out: Mapping[str, Any] | None = None
    likelihood: str = ""
    heads: tuple[Part, ...] = ()
    tensors: tuple[str, ...] = ()
    levels: int = 0
    counts: bool = False
    parts: tuple[Part, ...] = ()


#: what most networks have beyond their layers
NOTHING = Beyond()


# ------------------------------------------------------------------------------ the prior


def prior_of(split: Split, tensors: Mapping[str, Tensor], size: int) -> Beyond:
    """Find the prior that tensors on no way make.

    Args:
        split: the way through the network.
        tensors: by name.
        size: values of a row.

    Returns:
        A prior of which the form of the scales, or what squeezes pseudo-inputs, is left open;
        nothing where there is none.
    """
    n = split.latent_size
    single = [p for p in split.rest if len(p.names) == 1]
    free = [p for p in single if p.kind == "free"]
    numel = {p.place: math.prod(p.shape) for p in free}
    tables = [p for p in free if p.shape and p.shape[-1] == n and numel[p.place] % n == 0]
    for mean in tables:
        for scale in tables:
            if mean.shape == scale.shape and says_mean(mean) and says_scale(scale):
                return _gaussians(mean, scale, numel[mean.place] // n, single, tensors)
    for part in free:
        count, left = divmod(numel[part.place], size)
        fits = len(part.shape) > 1 and count > 0 and not left and part.shape[0] == count
        if fits and (count > 1 or _PSEUDO.search(part.place)):
            told: dict[str, Any] = {"kind": "vamp", "pseudo_inputs": part.names[0]}
            return _shared(told, (part,), count, single, tensors)
    return NOTHING


def _gaussians(
    mean: Part, scale: Part, count: int, free: Sequence[Part], tensors: Mapping[str, Tensor]
) -> Beyond:
    told: dict[str, Any] = {
        "kind": "gaussian" if count == 1 else "mixture",
        "means": mean.names[0], "scales": scale.names[0],
    }  # fmt: skip
    if count == 1:
        return Beyond(prior=told, parts=(mean, scale))
    return _shared(told, (mean, scale), count, free, tensors)


def _shared(
    told: dict[str, Any],
    parts: tuple[Part, ...],
    count: int,
    free: Sequence[Part],
    tensors: Mapping[str, Tensor],
) -> Beyond:
    """Add the shares of a prior's components, where the file has any."""
    shares = next(
        (p for p in free if p not in parts and math.prod(p.shape) == count
         and _SHARES.search(p.names[0])), None,
    )  # fmt: skip
    if shares is None:
        return Beyond(prior=told, parts=parts)
    values = tensors[shares.names[0]]
    sums = bool((values >= 0).all()) and abs(float(values.sum()) - 1) < 1e-3
    more = {"shares": shares.names[0], "shares_form": "probabilities" if sums else "logits"}
    return Beyond(prior={**told, **more}, parts=(*parts, shares))


def prior_forms(prior: Mapping[str, Any]) -> tuple[str, ...]:
    """List what a prior leaves open, the most usual first.

    Args:
        prior: fields of a declaration's prior.

    Returns:
        What squeezes pseudo-inputs, or forms of the scales.
    """
    if prior["kind"] == "vamp":
        return ("none", "sigmoid", "clamp")
    forms = ("logvar", "logstd", "std", "variance", "softplus-std", "softplus-variance")
    spoken = spoken_form(prior["scales"])
    return tuple(sorted(forms, key=lambda form: form != spoken))


# -------------------------------------------------------------------------- the condition


def conditions_of(split: Split, rows: Rows) -> list[Beyond]:
    """Find what may fill the inputs that first layers have beyond x and z.

    Args:
        split: the way through the network.
        rows: what rows and labels are like.

    Returns:
        Conditions, the most likely first; none where nothing that is at hand fits.
    """
    more_in, more_out = split.added_in, split.added_out
    wide = more_out or more_in
    if more_in not in {0, wide} or more_out not in {0, wide}:
        return []
    found = []
    codes = _codes(split, wide) if not more_in else []
    if codes:
        steps = {"condition": "one_hot", "classes": wide}
        told = {"classes": [wide], "words": "discrete code", "infer": "codes",
                "codes": [p.place for p in codes]}  # fmt: skip
        found.append(Beyond(condition=told, told_out=steps, parts=tuple(codes)))
    if rows.classes is None:
        return found
    for table in split.rest:
        fits = table.kind == "free" and len(table.shape) == 2 and table.shape[1] == wide
        if fits and table.shape[0] >= rows.classes and table.names[0].endswith(".weight"):
            step = {"condition": "embedding", "weights": table.place}
            found.append(_labelled(table.shape[0], step, split, (table,)))
    if wide >= rows.classes:
        found.append(_labelled(wide, {"condition": "one_hot", "classes": wide}, split, ()))
    return found


def _labelled(
    classes: int, step: Mapping[str, Any], split: Split, parts: tuple[Part, ...]
) -> Beyond:
    return Beyond(
        condition={"classes": [classes]},
        told_in=step if split.added_in else None,
        told_out=step if split.added_out else None,
        parts=parts,
    )


def _codes(split: Split, wide: int) -> list[Part]:
    """The layer beside the head that gives as many values as the decoder has beyond z."""
    takes = split.heads[0].takes
    return [p for p in split.rest if p.kind == "linear" and p.shape == (wide, takes)][:1]


# ------------------------------------------------------------------------- the likelihood


def likelihood_of(split: Split, rows: Rows) -> Beyond | None:
    """Find the likelihood whose parameters the decoder gives.

    Args:
        split: the way through the network.
        rows: what rows are like.

    Returns:
        Its metric and where its parameters stand; None where the decoder gives a mean alone.
    """
    last = split.decoder[-1].last
    size = math.prod(rows.shape)
    if last.kind != "linear" or last.gives % size:
        return None
    beside = [p for p in split.rest if p.kind == "linear" and p.shape == last.shape]
    free = next(
        (p for p in split.rest if p.kind == "free" and math.prod(p.shape) == size
         and _DISPERSION.search(p.place)), None,
    )  # fmt: skip
    if last.gives == size and rows.whole is not None and free is not None:
        return _counted(last, beside, free)
    if last.gives == size:
        return _with_variances(last, beside)
    levels = last.gives // size
    if rows.whole is not None and rows.whole < levels <= _LEVELS:
        return Beyond(likelihood="categorical", levels=levels)
    return Beyond(likelihood=_OWN_VARIANCE, levels=2) if levels == 2 else None


def _with_variances(last: Part, beside: Sequence[Part]) -> Beyond | None:
    """A mean and, by the name of a layer beside it, a log variance of each value."""
    for other in beside:
        pair = (last, other) if says_scale(other) else (other, last)
        if says_scale(pair[1]) and not says_scale(pair[0]):
            return Beyond(likelihood=_OWN_VARIANCE, heads=pair, parts=(other,))
    return None


def _counted(last: Part, beside: Sequence[Part], free: Part) -> Beyond:
    """Counts: shares of each row's sum, a dispersion each, and perhaps the odds of none."""
    gates = [p for p in (last, *beside) if _DROPOUT.search(p.place)]
    means = [p for p in (last, *beside) if p not in gates]
    mean = means[0] if means else last
    heads = (mean, *(g for g in gates[:1] if g is not mean))
    return Beyond(
        condition={"classes": [0], "words": "library size", "infer": "sum"},
        likelihood="zinb" if len(heads) > 1 else "nb",
        heads=heads, tensors=(free.names[0],), counts=True, parts=(*heads, free),
    )  # fmt: skip
