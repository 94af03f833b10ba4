"""Read what a user declares of weights that do not describe themselves: a short TOML file."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from isoprobe.contracts import Facts
from isoprobe.errors import CheckpointError
from isoprobe.files.documents import TOML_LIMIT, parse_toml
from isoprobe_plugins.adapters.declared.shorthand import Brief, expand
from isoprobe_plugins.architectures.layers import LayersConfig
from isoprobe_plugins.architectures.priors import TENSORS

if TYPE_CHECKING:
    from torch import Tensor

#: name of beta in declarations of 0.1
_FORMER_BETA = "kl_weight"


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The training loss as the training code wrote it, from which beta follows.

    L = factor * reduction_over_inputs D + beta * reduction_over_latents KL.

    Attributes:
        metric: metric spec of D.
        beta: as the training code has it; None when no single number weighs the KL.
        factor: what the code multiplies D by, such as 0.5.
        reduction: ``sum`` or ``mean`` over the input dimensions of one sample.
        kl_reduction: ``sum`` or ``mean`` over the latents of one sample.
        capacity: C in nats, where the code has beta |KL - C| in place of beta KL.
        free_bits: nats of each latent's mean KL that cost nothing.
    """

    metric: str
    beta: float | None = None
    factor: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    reduction: Literal["sum", "mean"] = "sum"
    kl_reduction: Literal["sum", "mean"] = "sum"
    capacity: Annotated[float, msgspec.Meta(gt=0)] | None = None
    free_bits: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def summed_beta(self, input_size: int, latent_size: int) -> float | None:
        """Return the KL weight once D and KL are sums; None when unknown."""
        if self.beta is None or self.capacity is not None:
            return None
        scale = self.factor / (input_size if self.reduction == "mean" else 1)
        return self.beta / (latent_size if self.kl_reduction == "mean" else 1) / scale


class HeadDeclaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where mean and scale sit; see :class:`isoprobe_plugins.architectures.layers.Head`.

    ``mean``, ``scale`` and ``below`` are brief chains, or the name of a dense layer.
    """

    form: str = "logvar"
    layout: Literal["separate", "halves", "swapped", "interleaved"] = "separate"
    mean: str | list[Any] = msgspec.field(default_factory=list)
    scale: str | list[Any] = msgspec.field(default_factory=list)
    covariance: Literal["diagonal", "full"] = "diagonal"
    below: str | list[Any] = msgspec.field(default_factory=list)


class ConditionDeclaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model is told of each sample; ``codes`` are brief chains or dense layers' names.

    See :class:`isoprobe_plugins.architectures.layers.ConditionConfig`.
    """

    classes: list[int]
    words: str = "class"
    infer: Literal["data", "codes", "sum", "data and sum"] = "data"
    codes: list[str | list[Any]] = []


class LikelihoodDeclaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters that the decoder gives; brief chains, or names of dense layers.

    See :class:`isoprobe_plugins.architectures.layers.LikelihoodConfig`.
    """

    metric: str
    parameters: list[str | list[Any]] = []


class PriorDeclaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prior other than N(0, I), its values by the names of their tensors.

    See :class:`isoprobe_plugins.architectures.priors.PriorConfig`.
    """

    kind: Literal["gaussian", "mixture", "vamp"]
    means: str | None = None
    scales: str | None = None
    form: str = "logvar"
    pseudo_inputs: str | None = None
    squeeze: Literal["none", "sigmoid", "clamp"] = "none"
    shares: str | None = None
    shares_form: Literal["logits", "probabilities"] = "logits"
    by: int | None = None

    def config(self, tensors: Mapping[str, Tensor], latents: int, where: str) -> dict[str, Any]:
        """Write it out in full, the number of components read off the weights.

        Args:
            tensors: of the file, by name.
            latents: n.
            where: how to name the declaration in an error.

        Returns:
            Fields of the architecture's configuration.

        Raises:
            CheckpointError: for a tensor that is missing, not wanted, or of no fitting size.
        """
        named: dict[str, str] = {}
        for part in ("means", "scales", "pseudo_inputs", "shares"):
            name, needed = getattr(self, part), TENSORS[self.kind].get(part)
            if name is None and needed:
                raise CheckpointError(f"{where}: prior: kind '{self.kind}' needs {part} = a tensor")
            if name is not None and needed is None:
                raise CheckpointError(f"{where}: prior: kind '{self.kind}' has no {part}")
            if name is not None and name not in tensors:
                raise CheckpointError(f"{where}: prior: the file has no tensor {name!r}")
            if name is not None:
                named[part] = name
        count = 1
        if self.kind == "mixture" or self.by is not None:
            if "means" not in named:
                raise CheckpointError(
                    f"{where}: prior: by chooses among 'gaussian', not '{self.kind}'"
                )
            count, left = divmod(tensors[named["means"]].numel(), latents)
            if left or not count:
                raise CheckpointError(
                    f"{where}: prior: means of shape {tuple(tensors[named['means']].shape)} are "
                    f"not of {latents} latents"
                )
        return {
            "kind": self.kind,
            "components": count,
            "form": self.form,
            "shares": self.shares_form if "shares" in named else "equal",
            "squeeze": self.squeeze,
            "weights": named,
            "by": self.by,
        }


#: names under which a prior's weights are found
_PRIOR_NAMES = re.compile(r"(^|[._])(prior|vamp\w*|pseudo\w*|gmm)([._]|\w*$)", re.IGNORECASE)


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A declared checkpoint.

    Attributes:
        input_shape: shape of one input.
        encoder: brief chain from the input to the head.
        head: where mean and scale sit.
        decoder: brief chain from the latents to the output, without its last squeezing.
        output: what squeezes the output: ``sigmoid``, ``tanh``, or nothing (``linear``).
        latent_size: where it cannot be read off the head's last dense layer.
        input_range: lowest and highest input value the model was trained on.
        pad: size, or height and width, that images were padded to with zeros.
        dataset: data spec of the training data.
        loss: the training loss.
        prefix: keep only weights whose names begin so, and take it off.
        ignore: beginnings of names of weights that belong to something else.
        condition: what is told of each sample; or, in words, the one that ``append`` fixes for all.
        likelihood: where the decoder gives parameters of one, not a mean alone.
        prior: where it is not N(0, I); ``standard`` says that it is, whatever tensors are ignored.
        note: anything worth knowing.
        doubtful: what data did not bear out of it; nothing is read by it until this is taken out.
    """

    input_shape: tuple[int, ...]
    encoder: list[Any]
    decoder: list[Any]
    head: HeadDeclaration = HeadDeclaration()
    output: Literal["linear", "sigmoid", "tanh"] = "linear"
    latent_size: int | None = None
    input_range: tuple[float, float] | None = None
    pad: int | tuple[int, int] | None = None
    dataset: str | None = None
    loss: Loss | None = None
    prefix: str | None = None
    ignore: list[str] = []
    condition: str | ConditionDeclaration = ""
    likelihood: LikelihoodDeclaration | None = None
    prior: Literal["standard"] | PriorDeclaration | None = None
    note: str = ""
    doubtful: str = ""

    def config(self, tensors: Mapping[str, Tensor], where: str) -> LayersConfig:
        """Write the architecture out in full, its sizes read off the weights.

        Args:
            tensors: of the file, by name.
            where: how to name the declaration in an error.

        Returns:
            Configuration of the architecture ``layers``.

        Raises:
            CheckpointError: for a step that is not understood.
        """
        steps = [s for s in (*self.encoder, *self.decoder) if isinstance(s, Mapping)]
        if self.condition == "" and any("append" in step for step in steps):
            raise CheckpointError(
                f"{where}: 'append' fixes one code for all rows, whatever each of them is: put "
                '[condition] classes = [K] and the step {condition = "one_hot", classes = K} '
                'in its place, or say in words what is fixed (condition = "class 3")'
            )
        encoder = expand(self.encoder, tensors, f"{where}: encoder")
        mean = expand(_chain(self.head.mean), tensors, f"{where}: head.mean")
        scale = expand(_chain(self.head.scale), tensors, f"{where}: head.scale")
        separate = self.head.layout == "separate"
        latents = self.latent_size or _width(
            mean if separate else encoder, where, separate=separate
        )
        fields: dict[str, Any] = {
            "input_shape": self.input_shape,
            "latent_size": latents,
            "encoder": encoder,
            "decoder": expand(self.decoder, tensors, f"{where}: decoder"),
            "head": {
                "layout": self.head.layout,
                "form": self.head.form,
                "mean": mean,
                "scale": scale,
                "covariance": self.head.covariance,
                "below": expand(_chain(self.head.below), tensors, f"{where}: head.below"),
            },
            "output": self.output,
            "condition": self._told(tensors, where),
            "likelihood": self._parameters(tensors, where),
        }
        if isinstance(self.prior, PriorDeclaration):
            prior = self.prior.config(tensors, latents, where)
            if self.prior.kind == "vamp":
                prior["components"] = self._pseudo_inputs(tensors, where)
            fields["prior"] = prior
        try:
            return msgspec.convert(fields, LayersConfig)
        except msgspec.ValidationError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def _pseudo_inputs(self, tensors: Mapping[str, Tensor], where: str) -> int:
        """How many there are."""
        found = tensors[str(getattr(self.prior, "pseudo_inputs", ""))]
        count, left = divmod(found.numel(), math.prod(self.input_shape))
        if left or not count:
            raise CheckpointError(
                f"{where}: prior: pseudo-inputs of shape {tuple(found.shape)} are not of "
                f"input_shape {list(self.input_shape)}"
            )
        return count

    def refuse_left_out_prior(self, names: Iterable[str], where: str) -> None:
        """Refuse to take N(0, I) for the prior of weights that name another and are ignored.

        Args:
            names: of the tensors left out.
            where: how to name the declaration in an error.

        Raises:
            CheckpointError: naming a tensor.
        """
        left = next((name for name in sorted(names) if _PRIOR_NAMES.search(name)), None)
        if self.prior is None and left is not None:
            raise CheckpointError(
                f"{where}: 'ignore' leaves out {left!r}, by its name a prior's, and the KL would "
                'be measured to N(0, I): declare [prior] kind = "gaussian", "mixture" or "vamp" '
                'with its tensors, or say prior = "standard" if it plays no part in the loss'
            )

    @property
    def _metric(self) -> str | None:
        if self.loss is not None:
            return self.loss.metric
        return None if self.likelihood is None else self.likelihood.metric

    def _told(self, tensors: Mapping[str, Tensor], where: str) -> dict[str, Any] | None:
        told = self.condition
        if isinstance(told, str):
            return None
        codes = [
            expand(_chain(chain), tensors, f"{where}: condition.codes[{i}]")
            for i, chain in enumerate(told.codes)
        ]
        return {"classes": told.classes, "words": told.words, "infer": told.infer, "codes": codes}

    def _parameters(self, tensors: Mapping[str, Tensor], where: str) -> dict[str, Any] | None:
        given = self.likelihood
        if given is None:
            return None
        chains = [
            expand(_chain(chain), tensors, f"{where}: likelihood.parameters[{i}]")
            for i, chain in enumerate(given.parameters)
        ]
        return {"metric": given.metric, "parameters": chains}

    def facts(self, config: LayersConfig, source: str, notes: tuple[str, ...] = ()) -> Facts:
        """Return what is declared, beta in summed units.

        Args:
            config: from :meth:`config`.
            source: how to name the declaration.
            notes: what was assumed on the way.
        """
        size = 1
        for length in self.input_shape:
            size *= length
        beta = None if self.loss is None else self.loss.summed_beta(size, config.latent_size)
        ranges = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
        return Facts(
            input_range=self.input_range,
            output_range=ranges.get(self.output),
            metric=self._metric,
            beta=beta,
            beta_source=None if beta is None else source,
            capacity=None if self.loss is None else self.loss.capacity,
            free_bits=None if self.loss is None else self.loss.free_bits,
            dataset=self.dataset,
            scale_head=self.head.form,
            assumptions=notes,
            training={"note": self.note} if self.note else {},
        )


def _chain(value: str | list[Brief]) -> list[Brief]:
    return [{"linear": value}] if isinstance(value, str) else value


def _width(chain: list[dict[str, Any]], where: str, *, separate: bool) -> int:
    """Read the number of latents off the last dense layer of the head."""
    widths = [step["width"] for step in chain if "width" in step]
    if not widths:
        raise CheckpointError(
            f"{where}: the head has no dense layer to read the number of latents from; declare "
            "latent_size"
        )
    return int(widths[-1]) if separate else int(widths[-1]) // 2


def read_declaration(path: Path, *, typed: bool = False) -> Declaration:
    """Read a declaration.

    Args:
        path: TOML file.
        typed: the user named it, so that it may be a pipe; else it is what a folder holds.

    Returns:
        The declaration, its fields checked.

    Raises:
        CheckpointError: when it is missing, no TOML, or has a field that is unknown or wrong.
    """
    try:
        if not typed and not path.stat().st_size:
            data = b""  # a link of a stranger's folder may lead to a file of the system
        else:
            with path.open("rb") as stream:
                data = stream.read(TOML_LIMIT + 1)
    except OSError as error:
        raise CheckpointError(f"cannot read declaration {path}: {error.strerror}") from error
    return parse_declaration(parse_toml(data, f"declaration {path}"), str(path))


def parse_declaration(fields: Mapping[str, Any], where: str) -> Declaration:
    """Check a declaration's fields.

    Args:
        fields: as TOML gives them.
        where: how to name the declaration in an error.

    Returns:
        The declaration.

    Raises:
        CheckpointError: naming the field.
    """
    try:
        return msgspec.convert(_renamed(fields, where), Declaration)
    except (msgspec.ValidationError, RecursionError) as error:
        raise CheckpointError(f"{where}: {error}{_allowed(str(error))}") from error


def _allowed(message: str) -> str:
    """Name the values that a field takes, where it takes a few words alone."""
    place = re.search(r"Invalid enum value .* at `\$\.([a-z_.]+)`", message)
    kind: Any = Declaration
    for name in place[1].split(".") if place else ():
        inner = next((k for k in (kind, *get_args(kind)) if isinstance(k, type)), None)
        kind = None if inner is None else get_type_hints(inner).get(name)
    words = get_args(kind) if get_origin(kind) is Literal else ()
    return f"; expected {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else ""


def _renamed(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields, with ``loss.beta`` where a declaration of 0.1 has ``loss.kl_weight``."""
    loss = fields.get("loss")
    if not isinstance(loss, Mapping) or _FORMER_BETA not in loss or "beta" in loss:
        return dict(fields)
    # of a kind that Python shows: whoever reads this wrote the file
    warnings.warn(
        f"{where}: {_FORMER_BETA} is beta now; rename it in [loss]", FutureWarning, stacklevel=3
    )
    kept = {name: value for name, value in loss.items() if name != _FORMER_BETA}
    return {**fields, "loss": {**kept, "beta": loss[_FORMER_BETA]}}
