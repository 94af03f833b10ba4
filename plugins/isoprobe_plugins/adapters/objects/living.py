"""Read a live model: which output is what, the form of the scale, logits told from values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from isoprobe.contracts import VAE, Facts, FirstRows, Live, Posterior
from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe.errors import OptionError
from isoprobe.probe.selfcheck import mean_input_distortion
from isoprobe.registry.lookup import installed
from isoprobe.registry.specs import construct
from isoprobe.theory.covariance import correlated
from isoprobe.theory.prior import prior_of
from isoprobe_plugins.adapters.objects import finding, forms
from isoprobe_plugins.adapters.objects.calling import said
from isoprobe_plugins.adapters.objects.options import read_range
from isoprobe_plugins.adapters.objects.posteriors import FULL_FORM
from isoprobe_plugins.heads import HEADS, check_head

if TYPE_CHECKING:
    from isoprobe.contracts import Metric, Prior
    from isoprobe_plugins.adapters.objects.finding import Ways
    from isoprobe_plugins.adapters.objects.forms import PosteriorForm
    from isoprobe_plugins.adapters.objects.leaves import Leaf


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """What a caller may say about a live model.

    Attributes:
        head: form of the scale.
        layout: order within one output of 2n values.
        mean: name or place of the output that is the mean.
        scale: name or place of the output that is the scale.
        output: what the decoder gives: ``values``, or ``logits``.
        input_range: such as ``0,1``.
        beta: KL weight in units of the metric.
    """

    head: str | None = None
    layout: Literal["halves", "swapped", "interleaved"] | None = None
    mean: str | None = None
    scale: str | None = None
    output: Literal["values", "linear", "sigmoid", "logits"] | None = None
    input_range: str | None = None
    beta: float | None = None


class Functions:
    """An encode and a decode given as functions.

    Args:
        encode: ``x -> (mean, scale)``.
        decode: ``z -> x_hat``.
    """

    def __init__(self, encode: Callable[..., Any], decode: Callable[..., Any]) -> None:
        self.encode, self.decode = encode, decode


def read_live(live: Live, rows: FirstRows) -> VAE:
    """Read a live model.

    Args:
        live: the model and what is said about it.
        rows: a few inputs as the data holds them, and the metric asked for.

    Returns:
        The model in the form the contract asks for.

    Raises:
        OptionError: where it cannot be told how, with lines to paste.
    """
    given = dict(live.options)
    encode, decode = given.pop("encode", None), given.pop("decode", None)
    prior = given.pop("prior", None)
    texts = {name: str(value) for name, value in given.items() if value is not None}
    options = construct(LiveOptions, texts, "a live model")
    if options.head is not None:
        check_head(options.head)
    name = live.name or type(live.model).__name__
    try:
        model, notes = finding.bare(live.model)
        if encode is not None or decode is not None:
            model = Functions(encode or model.encode, decode or model.decode)
        first = next(_tensors(live.model), torch.zeros(()))
        ways = finding.find(model, rows.x.to(first.device, first.dtype))
        output, outputs = _logits(ways, options, rows.metric)
        reading = _reading(ways, options, output, rows.metric)
    except OptionError as error:
        raise OptionError(f"{name}: {error}; say how it is called:\n{_PASTE}") from error
    vae = _as_vae(live, ways, reading, options, [*live.notes, *notes, *outputs])
    if prior is not None:
        vae.prior = _prior(prior, vae.latent_size)
    return vae


def _prior(given: Any, latents: int) -> Prior:
    """The prior that the caller gives, tried on a latent."""
    prior = prior_of(given)
    try:
        found = prior.log_parts(torch.zeros(1, latents))
    except RuntimeError as error:
        raise OptionError(f"prior does not fit {latents} latents: {said(error)}") from error
    if found.shape != (1, latents):
        raise OptionError(f"prior is of {found.shape[-1]} latents, and the encoder has {latents}")
    return prior


def _tensors(model: Any) -> Any:
    if not isinstance(model, nn.Module):
        return iter(())
    every = [*model.parameters(), *model.buffers()]
    return (t for t in every if t.is_floating_point())


#: lines to paste where nothing else helps
_PASTE = """\
    vae = isoprobe.wrap(model, head='logvar',
        encode=lambda x: (mean_of(x), logvar_of(x)),  # each (B, n), from your layers
        decode=lambda z: image_of(z))
    result = isoprobe.analyze(vae, x, metric='bce')"""


# --------------------------------------------------------------------------- logits


def _at_mean(ways: Ways) -> Tensor | None:
    """A latent that the decoder takes, to see what it gives."""
    if ways.draw is not None:
        return ways.draw.mean
    for leaf in ways.first:
        for z in finding._halved(leaf.tensor):
            try:
                with torch.no_grad():
                    ways.decode(z)
            except Exception:  # noqa: S112 - not every output is a latent
                continue
            return z
    return None


def _logits(ways: Ways, options: LiveOptions, metric: Metric | None) -> tuple[bool, list[str]]:
    """Say whether the decoder gives logits, and why."""
    if options.output is not None:
        return options.output == "logits", []
    if metric is None or metric.input_range is None or metric.logits_distortion is None:
        return False, []
    z = _at_mean(ways)
    if z is None:
        return False, []
    with torch.no_grad():
        out = ways.decode(z)
        low, high = metric.input_range
        if low - 1e-4 <= float(out.min()) and float(out.max()) <= high + 1e-4:
            return False, []
        found = f"decode gives {float(out.min()):.3g} to {float(out.max()):.3g}"
        as_logits = float(metric.logits_distortion(ways.x, out).double().mean())
    blind = mean_input_distortion(metric, ways.x)
    if blind is not None and not as_logits < blind:
        raise OptionError(
            f"{found}, metric '{metric.name}' takes {low:g} to {high:g}, and read as logits the "
            f"reconstruction is no better than the mean input ({as_logits:.3g}, {blind:.3g}): "
            "use --metric sse, or say output='logits'"
        )
    return True, [
        f"{found}: read as logits, distortion {as_logits:.3g} at mu; output='values' says else"
    ]


# --------------------------------------------------------------------------- the posterior


def _reading(
    ways: Ways, options: LiveOptions, logits: bool, metric: Metric | None
) -> PosteriorForm:
    """Tell mean, scale and form."""
    usable = _usable(ways)
    full = [leaf for leaf in usable if leaf.form == FULL_FORM]
    if len(full) >= 2 and full[1].tensor.ndim == 3:
        why = "a MultivariateNormal says so"
        return forms.PosteriorForm(full[0].name, full[1].name, FULL_FORM, why=why)
    single = [
        leaf for leaf in usable if sum(o.tensor.shape == leaf.tensor.shape for o in usable) == 1
    ]
    pairs = [leaf for leaf in usable if leaf not in single]
    if len(pairs) < 2 or options.layout is not None:
        return _split_reading(ways, options, single or usable, logits, metric)
    mean = _mean_of(ways, options, pairs)
    scales = [leaf for leaf in pairs if leaf is not mean and leaf.tensor.shape == mean.tensor.shape]
    scales = [s for s in scales if not torch.equal(s.tensor, mean.tensor)] or scales
    return _scale_of(ways, options, mean, scales, logits, metric)


def _usable(ways: Ways) -> list[Leaf]:
    found = [
        leaf for leaf in ways.first
        if leaf.name in ways.constant and leaf.tensor.ndim > 1
        and leaf.tensor.is_floating_point() and len(leaf.tensor) == len(ways.x)
    ]  # fmt: skip
    if not found:
        raise OptionError("encode gives nothing with a row for each input")
    return found


def _mean_of(ways: Ways, options: LiveOptions, pairs: list[Leaf]) -> Leaf:
    if options.mean is not None:
        return _called(pairs, options.mean, "mean")
    if ways.draw is not None:
        told = [leaf for leaf in pairs if forms.close(leaf.tensor, ways.draw.mean, 1e-5)]
        named = [leaf for leaf in told if not forms.is_latent_name(leaf.name)]
        if told:
            return (named or told)[0]
    named = [
        leaf for leaf in pairs
        if forms.is_mean_name(leaf.name) or forms.is_mean_name(ways.hints.get(leaf.name, ""))
    ]  # fmt: skip
    return (named or pairs)[0]


def _called(found: list[Leaf], name: str, what: str) -> Leaf:
    for leaf in found:
        if leaf.name == name:
            return leaf
    names = ", ".join(leaf.name for leaf in found)
    raise OptionError(f"{what}='{name}' is no output; there are {names}")


def _scale_of(
    ways: Ways, options: LiveOptions, mean: Leaf, scales: list[Leaf], logits: bool,
    metric: Metric | None,
) -> PosteriorForm:  # fmt: skip
    if options.scale is not None:
        scales = [_called(scales, options.scale, "scale")]
    if options.head is not None and len(scales) == 1:
        return forms.PosteriorForm(mean.name, scales[0].name, options.head, why="as said")
    told = next((s for s in scales if s.form), None)
    if told is not None and told.form is not None:
        return forms.PosteriorForm(mean.name, told.name, told.form, why="a Normal says so")
    std = None if ways.draw is None else ways.draw.std
    if std is not None:
        for leaf in scales:
            exact = forms.forms_of(std, leaf.tensor)
            if exact:
                why = "forward draws its latents with it"
                return forms.PosteriorForm(mean.name, leaf.name, exact[0], why=why)
    if len(scales) > 1:
        spoken = [s for s in scales if _spoken(ways, s)]
        scales = spoken if len(spoken) == 1 else scales
    if len(scales) != 1:
        names = ", ".join(s.name for s in scales)
        raise OptionError(f"outputs {names} may each be the scale: say isoprobe.wrap(scale=...)")
    scale = scales[0]
    expected = options.head or _spoken(ways, scale) or "logvar"
    usual = [expected, *(form for form in forms.USUAL if form != expected)]
    usual = [options.head] if options.head else usual
    candidates = [forms.PosteriorForm(mean.name, scale.name, form) for form in usual]
    if ways.draw is None and not _mean_is_certain(ways, mean):
        swapped = [forms.PosteriorForm(scale.name, mean.name, form) for form in usual[:2]]
        candidates += swapped
    return _least(ways, candidates, logits, metric, spoken=_spoken(ways, scale) is not None)


def _mean_is_certain(ways: Ways, mean: Leaf) -> bool:
    return forms.is_mean_name(mean.name) or forms.is_mean_name(ways.hints.get(mean.name, ""))


def _spoken(ways: Ways, leaf: Leaf) -> str | None:
    return forms.named_form(leaf.name) or forms.named_form(ways.hints.get(leaf.name, ""))


def _split_reading(
    ways: Ways, options: LiveOptions, found: list[Leaf], logits: bool, metric: Metric | None
) -> PosteriorForm:
    """Read one output that holds mean and scale."""
    even = [leaf for leaf in found if leaf.tensor.shape[1] % 2 == 0]
    if not even:
        raise OptionError(
            f"encode gives {finding._listed(ways.first)}: no mean and scale of one shape, so there "
            "is no posterior to analyse"
        )
    leaf = even[0]
    layouts = [options.layout] if options.layout else list(forms.LAYOUTS)
    usual = [options.head] if options.head else list(forms.USUAL)
    candidates = [
        forms.PosteriorForm(leaf.name, "", form, layout) for layout in layouts for form in usual
    ]
    if ways.draw is not None:
        split = {r.layout: r.apply({leaf.name: leaf.tensor})[0] for r in candidates}
        told = [name for name, mean in split.items() if forms.close(mean, ways.draw.mean, 1e-5)]
        candidates = [r for r in candidates if r.layout in told] or candidates
        if ways.draw.std is not None:
            for reading in candidates:
                if forms.close(reading.apply({leaf.name: leaf.tensor})[1], ways.draw.std):
                    return replace(reading, why="forward draws its latents with it")
    if len(candidates) == 1:
        return replace(candidates[0], why="as said")
    return _least(ways, candidates, logits, metric, spoken=False)


def _least(
    ways: Ways,
    candidates: list[PosteriorForm],
    logits: bool,
    metric: Metric | None,
    *,
    spoken: bool,
) -> PosteriorForm:
    """Choose by stationarity; a name that speaks decides where nothing fits."""
    if metric is None:
        metric = installed().metric("sse")
    found = {leaf.name: leaf.tensor for leaf in ways.first}
    trial = _blank(ways, logits)
    view = output_metric(metric, trial)

    def measure(reading: PosteriorForm) -> float | None:
        if reading.form in forms.POSITIVE and not bool((reading.raw(found) > 0).all()):
            return None
        mean, std = reading.apply(found)
        shape = mean.shape[1:]
        decode = lambda z: ways.decode(z.reshape(len(z), *shape))  # noqa: E731
        return forms.misfit(replace(view, decode=decode), ways.x, mean.flatten(1), std.flatten(1))

    chosen, said = forms.best(candidates, measure)
    if chosen is not None:
        off = said.get(forms.words(chosen))
        rivals = [v for k, v in said.items() if k != forms.words(chosen)]
        other = f", the next {min(rivals):.2g}" if rivals else ""
        return replace(chosen, why=f"its stationarity is off by {off:.2g}{other}")
    if spoken:
        why = "by its name; the gradients of the metric do not settle it"
        return replace(candidates[0], why=why)
    tried = ", ".join(f"{name} {off:.2g}" for name, off in list(said.items())[:4]) or "none"
    raise OptionError(
        f"the form of the scale cannot be told (stationarity is off by: {tried}); say "
        f"isoprobe.wrap(model, head=...), one of {', '.join(HEADS)}"
    )


def _blank(ways: Ways, logits: bool) -> VAE:
    def values(z: Tensor) -> Tensor:
        return torch.sigmoid(ways.decode(z)) if logits else ways.decode(z)

    return VAE(
        decode=values,
        encode=None,
        input_shape=tuple(ways.x.shape[1:]),
        latent_shape=(),
        decode_logits=ways.decode if logits else None,
    )


def _as_vae(
    live: Live, ways: Ways, reading: PosteriorForm, options: LiveOptions, notes: list[str]
) -> VAE:
    found = {leaf.name: leaf.tensor for leaf in ways.first}
    full = reading.form == FULL_FORM
    latent = tuple(found[reading.mean].shape[1:] if full else reading.apply(found)[0].shape[1:])

    def encode(x: Tensor) -> Posterior:
        if full:
            answer = ways.encode(x)
            return correlated(answer[reading.mean], answer[reading.scale])
        mean, std = reading.apply(ways.encode(x))
        return Posterior(mean.flatten(1), std.flatten(1))

    def decode(z: Tensor) -> Tensor:
        return ways.decode(z.reshape(*z.shape[:-1], *latent) if len(latent) > 1 else z)

    logits = options.output == "logits" or any("read as logits" in note for note in notes)
    where = f"output {reading.scale}" if reading.scale else "one output"
    order = f"{reading.layout}, " if reading.layout else ""
    facts = _facts(options, reading)
    told = (
        f"mean is output {reading.mean or '0'}, {where} the scale: {order}"
        f"{'L of a full covariance' if full else HEADS[reading.form][0]} ({reading.why})"
    )
    facts = replace(facts, assumptions=(*notes, *ways.notes, told))
    return VAE(
        decode=(lambda z: torch.sigmoid(decode(z))) if logits else decode,
        encode=encode,
        input_shape=tuple(ways.x.shape[1:]),
        latent_shape=latent,
        decode_logits=decode if logits else None,
        module=live.model if isinstance(live.model, nn.Module) else None,
        correlated=full,
        facts=facts,
        name=live.name or type(live.model).__name__,
        adapter=live.adapter,
        sha256=live.sha256,
    )


def _facts(options: LiveOptions, reading: PosteriorForm) -> Any:
    return Facts(
        input_range=read_range(options.input_range),
        beta=options.beta,
        beta_source=None if options.beta is None else "said by the caller",
        scale_head=reading.form,
    )
