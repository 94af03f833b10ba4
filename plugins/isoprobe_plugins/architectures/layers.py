"""Write down any chain of ordinary layers: what declared and converted checkpoints use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from isoprobe.contracts import Architecture, Networks
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.lookup import installed
from isoprobe.theory.likelihood import Likelihood
from isoprobe_plugins.architectures.configuration import Shape, Size, read_config
from isoprobe_plugins.architectures.priors import PriorConfig  # noqa: TC001 - msgspec reads it
from isoprobe_plugins.architectures.steps import ConditionStep, LogShareStep, Steps
from isoprobe_plugins.heads import check_head, root_sizes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isoprobe_plugins.architectures.chain import Chain


#: fields of a step that speak of a foreign file
FOREIGN = frozenset({"weights", "weight", "bias_name", "transposed", "member"})


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where mean and scale stand, and what the scale is.

    Attributes:
        layout: ``separate`` chains ``mean`` and ``scale`` on top of the encoder; or the encoder's
            own 2n outputs: ``halves`` (mean first), ``swapped`` (scale first), ``interleaved``
            (mean at even places).
        form: see :data:`isoprobe_plugins.heads.HEADS`.
        mean: chain of the mean, for ``separate``.
        scale: chain of the scale, for ``separate``.
        covariance: ``full`` where posteriors are N(mean, L L'): the chain of the scale then gives
            the lower triangle of L row by row, or all of a matrix of which that is read, its
            diagonal in ``form``.
        below: chain of what lies below that diagonal, where the scale gives the diagonal alone.
    """

    layout: Literal["separate", "halves", "swapped", "interleaved"] = "separate"
    form: str = "logvar"
    mean: Steps = ()
    scale: Steps = ()
    covariance: Literal["diagonal", "full"] = "diagonal"
    below: Steps = ()


class ConditionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model is told of each sample.

    Attributes:
        classes: how many classes each thing told numbers; 0 for a real number.
        words: what it is, such as ``class`` or ``library size``.
        infer: ``data`` (labels, or ``--condition``), ``codes`` (the likeliest class of each chain
            of ``codes`` on top of the encoder's body), ``sum`` (of the input), or ``data and sum``,
            the sum being the last thing told.
        codes: chains to the logits of discrete latents.
    """

    classes: tuple[Annotated[int, msgspec.Meta(ge=0, le=1 << 16)], ...]
    words: str = "class"
    infer: Literal["data", "codes", "sum", "data and sum"] = "data"
    codes: Annotated[tuple[Steps, ...], msgspec.Meta(max_length=64)] = ()


class LikelihoodConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decoder that gives parameters of a likelihood.

    Attributes:
        metric: its name.
        parameters: chains on top of the decoder to each parameter, in the metric's order; none
            where the decoder gives all, ``(P, *input_shape)``.
    """

    metric: str
    parameters: Annotated[tuple[Steps, ...], msgspec.Meta(max_length=64)] = ()


class LayersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of ``layers``.

    Attributes:
        input_shape: shape of one input.
        latent_size: number of latents n.
        encoder: steps from the input to the head.
        head: how mean and scale are read.
        decoder: steps from the latent vector to the output.
        output: ``sigmoid`` or ``tanh`` squeezes the output; ``linear`` leaves it alone.
        condition: what is told of each sample, which steps ``condition`` join.
        likelihood: where the decoder gives more than a mean.
        prior: where it is not N(0, I).
    """

    input_shape: Shape
    latent_size: Size
    encoder: Steps
    decoder: Steps
    head: Head = Head()
    output: Literal["linear", "sigmoid", "tanh"] = "linear"
    condition: ConditionConfig | None = None
    likelihood: LikelihoodConfig | None = None
    prior: PriorConfig | None = None


class Layers(Architecture):
    """Encoder, head and decoder as chains of steps."""

    name = "layers"
    summary = "chains of dense, convolution, normalisation and activation layers"

    def build(self, config: Mapping[str, Any]) -> Networks:
        """Build the untrained networks from fields of :class:`LayersConfig`."""
        return build_layers(read_config(config, LayersConfig, self.name))


def build_layers(config: LayersConfig) -> Networks:
    """Build the networks of a checked configuration.

    Args:
        config: the configuration.

    Returns:
        Encoder and decoder, untrained.

    Raises:
        CheckpointError: naming the step that does not fit.
    """
    from isoprobe_plugins.architectures.chain import (
        Chain,
        ChainDecoder,
        ChainEncoder,
        ParameterDecoder,
        SigmoidChainDecoder,
    )
    from isoprobe_plugins.architectures.prior_layers import PriorLayers

    check_head(config.head.form)
    n = config.latent_size
    body = Chain(config.encoder, config.input_shape, "encoder")
    heads = None
    if config.head.layout == "separate":
        mean = Chain(config.head.mean, body.shape, "head.mean")
        scale = Chain(config.head.scale, body.shape, "head.scale")
        heads = (mean, scale)
    _expect(heads[0] if heads else body, n if heads else 2 * n)
    if heads and config.head.covariance == "diagonal":
        _expect(heads[1], n)
    below = _below(config, heads, body)
    told = config.condition
    codes = [] if told is None else _codes(told, body)
    _check_told(config)
    encoder = ChainEncoder(body, heads, config.head, codes, below)
    chain = Chain(config.decoder, (n,), "decoder")
    given = config.likelihood
    heads_of = [] if given is None else _parameters(given, chain, config)
    if given is None and chain.shape != config.input_shape:
        raise CheckpointError(
            f"architecture 'layers': the decoder gives shape {chain.shape}, "
            f"the input has {config.input_shape}"
        )
    kind = SigmoidChainDecoder if config.output == "sigmoid" else ChainDecoder
    encoder.config = config
    decoder: nn.Module = kind(chain, config.output)
    if given is not None:
        decoder = ParameterDecoder(chain, heads_of, given.metric)
    if config.prior is not None:
        if told is not None and config.prior.kind == "vamp":
            raise CheckpointError(
                "architecture 'layers': pseudo-inputs of a prior are told nothing, and the encoder "
                "takes a condition"
            )
        _check_prior(config.prior, () if told is None else told.classes)
        prior = PriorLayers(config.prior, n, config.input_shape)
        decoder.prior = prior
    full = config.head.covariance == "full"
    networks = Networks(encoder, decoder, config.input_shape, (n,), correlated=full)
    if config.prior is not None:
        components = partial(prior.components, encoder)
        words, by = config.prior.words, config.prior.by
        networks = replace(networks, prior=components, prior_words=words, prior_by=by)
    if told is None:
        return networks
    infer = {"codes": encoder.likeliest, "sum": _sum}.get(told.infer)
    also = _sum if told.infer == "data and sum" else None
    return replace(networks, classes=told.classes, words=told.words, infer=infer, also=also)


def _check_prior(prior: PriorConfig, classes: tuple[int, ...]) -> None:
    """Refuse a prior by classes that are not told, or not as many."""
    if prior.by is None:
        return
    if prior.kind != "gaussian":
        raise CheckpointError(
            f"architecture 'layers': a prior by class is 'gaussian', not '{prior.kind}'"
        )
    if prior.by >= len(classes) or classes[prior.by] != prior.components:
        raise CheckpointError(
            f"architecture 'layers': the prior has {prior.components} Gaussians by number "
            f"{prior.by} of what is told, and {list(classes)} are told"
        )


def _below(config: LayersConfig, heads: tuple[Chain, Chain] | None, body: Chain) -> Chain | None:
    """The chain to what lies below the diagonal of L, all sizes of a full covariance checked."""
    from isoprobe_plugins.architectures.chain import Chain

    head, n = config.head, config.latent_size
    if head.covariance == "diagonal":
        if head.below:
            raise CheckpointError(
                "architecture 'layers': head.below belongs to head.covariance = full"
            )
        return None
    if heads is None or config.prior is not None:
        raise CheckpointError(
            "architecture 'layers': a full covariance needs head.layout = separate, and N(0, I) "
            "as prior"
        )
    scale = heads[1]
    below = Chain(head.below, body.shape, "head.below") if head.below else None
    if below is not None:
        _expect(scale, n)
    chain, sizes = below or scale, root_sizes(n, below=below is not None)
    if chain.size not in sizes:
        raise CheckpointError(
            f"architecture 'layers': {chain.place} gives {chain.size} values, a full covariance of "
            f"{n} latents takes {sizes[0]} (row by row) or {sizes[1]} (a matrix)"
        )
    return below


def _parameters(given: LikelihoodConfig, body: Chain, config: LayersConfig) -> list[Chain]:
    """Chains to the parameters of a likelihood, as many as it has."""
    from isoprobe_plugins.architectures.chain import Chain

    family = installed().metric(given.metric)
    if not isinstance(family, Likelihood):
        raise CheckpointError(
            f"architecture 'layers': metric '{given.metric}' is no likelihood of parameters"
        )
    if config.output != "linear":
        raise CheckpointError(
            f"architecture 'layers': output {config.output} squeezes no parameters"
        )
    heads = [
        Chain(steps, body.shape, f"likelihood.parameters[{i}]")
        for i, steps in enumerate(given.parameters)
    ]
    shapes = [head.shape for head in heads] if heads else [body.shape[1:]] * body.shape[0]
    wanted = len(family.parameters)
    if any(shape != config.input_shape for shape in shapes) or (wanted and len(shapes) != wanted):
        raise CheckpointError(
            f"architecture 'layers': likelihood '{given.metric}' takes "
            f"{', '.join(family.parameters) or 'a logit a class'}, each of shape "
            f"{config.input_shape}; the decoder gives shapes {shapes[:4]}"
        )
    return heads


def _sum(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1, keepdim=True)


def _codes(told: ConditionConfig, body: Chain) -> list[Chain]:
    """Chains of the discrete latents, one for each thing told where those are the codes."""
    from isoprobe_plugins.architectures.chain import Chain

    if (told.infer == "codes") != bool(told.codes) or len(told.codes) not in {
        0,
        len(told.classes),
    }:
        raise CheckpointError(
            f"architecture 'layers': condition: {len(told.classes)} things are told and "
            f"{len(told.codes)} chains of codes given; infer = codes needs one for each"
        )
    chains = [Chain(c, body.shape, f"condition.codes[{i}]") for i, c in enumerate(told.codes)]
    for chain, count in zip(chains, told.classes, strict=False):
        if chain.size != count:
            raise CheckpointError(
                f"architecture 'layers': {chain.place} gives {chain.size} values for {count} "
                "classes"
            )
    return chains


def _check_told(config: LayersConfig) -> None:
    """Refuse steps that join what is not told, or as another number of classes."""
    told = () if config.condition is None else config.condition.classes
    summed = config.condition is not None and config.condition.infer == "data and sum"
    if summed and (len(told) < 2 or told[-1]):
        raise CheckpointError(
            "architecture 'layers': condition: infer = data and sum needs classes that end in 0"
        )
    head = config.head
    chains = (config.encoder, config.decoder, head.mean, head.scale, head.below)
    joined = [s for chain in chains for s in chain if isinstance(s, ConditionStep)]
    more = () if config.likelihood is None else config.likelihood.parameters
    shared = [s for chain in (*chains, *more) for s in chain if isinstance(s, LogShareStep)]
    for share in shared:
        if share.column >= len(told) or told[share.column]:
            raise CheckpointError(
                f"architecture 'layers': log_share takes number {share.column} of what is told, "
                f"and {list(told)} are told"
            )
    for step in joined:
        if step.column >= len(told) or (step.form != "value" and step.classes != told[step.column]):
            raise CheckpointError(
                f"architecture 'layers': a step joins condition {step.column} with "
                f"{step.classes} classes, and {list(told)} are told"
            )
    if told and not joined and not shared:
        raise CheckpointError("architecture 'layers': a condition is told and no step joins it")


def plain_config(config: LayersConfig) -> dict[str, Any]:
    """Return a configuration for a manifest, without the names weights had in a foreign file."""
    plain: dict[str, Any] = _without_names(msgspec.to_builtins(config))
    return plain


def _without_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_names(v) for k, v in value.items() if k not in FOREIGN}
    if isinstance(value, list | tuple):
        return [_without_names(item) for item in value]
    return value


def _expect(chain: Chain, size: int) -> None:
    if chain.size != size:
        raise CheckpointError(
            f"architecture 'layers': {chain.place} gives {chain.size} values, "
            f"latent_size asks for {size}"
        )


@hookimpl
def isoprobe_architectures() -> list[type[Architecture]]:
    """Return the architectures of this module."""
    return [Layers]
