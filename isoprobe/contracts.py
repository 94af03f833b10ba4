"""Say what the parts promise each other: models, metrics, data, analyses and their results.

Nothing here imports torch, so that a plugin can be listed without loading it.
"""

from __future__ import annotations

import abc
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from isoprobe.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from isoprobe.checkpoints.source import Source
    from isoprobe.probe.shared import PassStatistics
    from isoprobe.results.reader import Result
    from isoprobe.statistics.moments import Accumulator


#: mean KL above which a dimension counts as active (Prop. 3 with a margin for sampling), nats
ACTIVE_NATS = 0.01
#: adapters of models that are the caller's own, and so are frozen for a run only
BORROWED = ("memory", "live")
#: run when nothing else is asked for
DEFAULT_ANALYSES = ("isometry", "importance", "diagnosis")

# --------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Posterior:
    """The encoder's answer q(z|x) = N(mean, diag std^2), or N(mean, root root').

    Attributes:
        mean: mu(x), ``(B, n)``.
        std: sigma(x), ``(B, n)``, positive. Where latents are correlated, what is left of each
            when the others are known, (Sigma^-1)_jj^(-1/2), which stands in its place in every
            formula of one latent; :func:`isoprobe.theory.covariance.correlated` computes it.
        root: L(x) of the covariance L L', ``(B, n, n)``, lower triangular with a positive
            diagonal; None where latents are independent.
    """

    mean: Tensor
    std: Tensor
    root: Tensor | None = None


@dataclass(frozen=True)
class Facts:
    """What a checkpoint, or its adapter, declares; ``None`` is unknown.

    Attributes:
        input_range: lowest and highest input value the model was trained on.
        output_range: range of the decoder's output.
        metric: metric spec of the training loss, such as ``"bce"`` or ``"gaussian:sigma2=0.1"``.
        beta: KL weight in the units of that metric: L_x = E D + beta sum_j KL_j (Eq. 3).
        beta_source: where beta comes from, in words.
        decomposed: True when trained on D(x, x_check) + D(x_check, x_hat) (Section 5.3).
        transform_weight: weight of D(x, x_check) relative to D(x_check, x_hat), if decomposed.
        transform_metric: metric spec of D(x, x_check), where it differs from ``metric``.
        dataset: data spec of the training data.
        capacity: C in nats of a loss ``E D + gamma |E KL - C|``, under which beta is what balances
            there, and not gamma.
        free_bits: nats up to which the mean KL of each latent costs nothing; what is held there has
            a weight of its own, below beta.
        inputs: names of the inputs in their order, where they have some.
        scale_head: how the scale head is read: ``logvar``, ``logstd``, ``softplus`` ...
        assumptions: what the adapter assumed without being told, a sentence each.
        training: free-form record of the training.
    """

    input_range: tuple[float, float] | None = None
    output_range: tuple[float, float] | None = None
    metric: str | None = None
    beta: float | None = None
    beta_source: str | None = None
    decomposed: bool | None = None
    transform_weight: float | None = None
    transform_metric: str | None = None
    dataset: str | None = None
    capacity: float | None = None
    free_bits: float | None = None
    inputs: tuple[str, ...] = ()
    scale_head: str | None = None
    assumptions: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a beta that is no KL weight, whoever declares it."""
        if self.beta is not None and not 0 < self.beta < math.inf:
            raise CheckpointError(
                f"the checkpoint is said to be trained with beta {self.beta:g} in units of its "
                "metric; expected a positive number: leave it out to have it recovered"
            )


@dataclass(frozen=True)
class Conditional:
    """What a model is told of each sample beside x, and its networks that take it.

    Attributes:
        decode: ``(z (B, n), c (B or 1, k)) -> x_hat (B, *input_shape)``.
        encode: ``(x, c) -> Posterior``; None for a decoder alone.
        classes: of each column of c, how many classes it numbers; 0 where it is a real number.
        words: what c is, such as ``class`` or ``library size``.
        infer: ``x -> c (B, k)`` where the model finds it by itself; None where data has to say.
        also: ``x -> (B, 1)``, the last column where data has to say the others alone.
        names: of the classes of each column, where they have some.
        decode_logits: ``(z, c) -> l`` as in :class:`VAE`.
        decode_parameters: ``(z, c) -> theta`` likewise.
    """

    decode: Callable[[Tensor, Tensor], Tensor]
    encode: Callable[[Tensor, Tensor], Posterior] | None
    classes: tuple[int, ...]
    words: str
    infer: Callable[[Tensor], Tensor] | None = None
    decode_logits: Callable[[Tensor, Tensor], Tensor] | None = None
    decode_parameters: Callable[[Tensor, Tensor], Tensor] | None = None
    also: Callable[[Tensor], Tensor] | None = None
    names: tuple[tuple[str, ...], ...] = ()

    @property
    def asked(self) -> int:
        """How many columns data has to say."""
        return len(self.classes) - (self.also is not None)

    @property
    def wanted(self) -> str:
        """What a condition is, in words for an error."""
        columns = [f"a class 0 to {k - 1}" if k else "a number" for k in self.classes[: self.asked]]
        return f"{self.words} ({', '.join(columns)})"

    def checked(self, c: Tensor, rows: np.ndarray | None = None) -> Tensor:
        """Return conditions ``(B, k)`` that the networks take.

        Args:
            c: as found, ``(B,)`` or ``(B, k)``.
            rows: their numbers in the data, for an error.

        Returns:
            ``(B, k)``, classes as whole numbers in the type of c.

        Raises:
            DataError: for a class that there is not, or another number of columns.
        """
        c = c.reshape(len(c), -1)
        if c.shape[1] not in {self.asked, len(self.classes)}:
            raise DataError(
                f"the model is told {self.wanted} of each sample; found {c.shape[1]} columns"
            )
        for column, count in enumerate(self.classes[: c.shape[1]]):
            values = c[:, column]
            good = values.isfinite()
            if count:
                good &= (values == values.round()) & (values >= 0) & (values < count)
            if not bool(good.all()):
                row = int((~good).nonzero()[0])
                number = row if rows is None else int(rows[row])
                raise DataError(
                    f"the model is told {self.wanted} of each sample; row {number} has "
                    f"{float(values[row]):g}"
                )
        return c


class Prior(abc.ABC):
    """A prior p(z) other than N(0, I), by its density.

    Attributes:
        words: what it is, such as ``mixture of 5 Gaussians``.
    """

    words: str = "a prior of its own"

    @abc.abstractmethod
    def log_parts(self, z: Tensor) -> Tensor:
        """Log p(z_j | z_1 .. z_(j-1)), ``(B, n) -> (B, n)``; their sum is log p(z)."""

    @abc.abstractmethod
    def draw(self, noise: Tensor, choice: Tensor) -> Tensor:
        """Turn noise of N(0, I), ``(B, n)``, and numbers of [0, 1), ``(B,)``, into draws of it."""

    def log_density(self, z: Tensor, used: Tensor | None = None) -> Tensor:
        """Log p(z), ``(B, n) -> (B,)``; of the latents ``used (n,)`` alone where that is given."""
        parts = self.log_parts(z)
        kept = parts if used is None else parts[:, used]
        density: Tensor = kept.sum(1)
        return density

    def curvature(self, z: Tensor) -> Tensor:
        """Guess the second derivatives of -log p(z), ``(B, n)``; it steadies means over draws."""
        return z.new_ones(z.shape)


@dataclass
class VAE:
    """A pretrained model, as every analysis sees it.

    Attributes:
        decode: ``z (B, n) -> x_hat (B, *input_shape)``, pure, in eval mode.
        encode: ``x (B, *input_shape) -> Posterior``; None for a decoder alone.
        input_shape: shape of one input.
        latent_shape: shape of one latent before flattening; n is its product.
        decode_logits: ``z -> l`` with ``decode(z) == sigmoid(l)``, where logits can be had.
        module: holds every parameter; moved and cast by :meth:`to`. A run borrows it: it is in
            eval mode and needs no gradients meanwhile, and is given back as it was.
        facts: what is declared, each possibly unknown.
        name: short name for summaries.
        adapter: adapter that loaded it.
        sha256: of the checkpoint's bytes, empty for a model in memory.
        path: where the checkpoint lies, empty for a model in memory.
        condition: fixed condition in words (class label, discrete code), if any.
        conditional: set where the model is told something of each sample; ``encode`` and
            ``decode`` then work on the rows that :meth:`on` or :meth:`held` bound.
        decode_parameters: ``z -> theta (B, P, *input_shape)``, parameters of a likelihood of which
            ``decode`` gives the mean, where the decoder gives some.
        likelihood: name of that likelihood, a metric.
        reading: how weights that nothing describes were read, as the adapter that chose it says
            it; empty where the checkpoint says it itself.
        pad: height and width that images were padded to with zeros, where the checkpoint says so.
        given: conditions of the rows in hand, ``(B, k)``, of a model bound by :meth:`on`.
        prior: p(z) where it is not N(0, I).
        correlated: its posteriors have a full covariance, each with its ``root``.
    """

    decode: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Posterior] | None
    input_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    decode_logits: Callable[[Tensor], Tensor] | None = None
    module: nn.Module | None = None
    facts: Facts = field(default_factory=Facts)
    name: str = "vae"
    adapter: str = "memory"
    sha256: str = ""
    path: str = ""
    condition: str = ""
    conditional: Conditional | None = None
    given: Tensor | None = None
    decode_parameters: Callable[[Tensor], Tensor] | None = None
    likelihood: str = ""
    prior: Prior | None = None
    reading: str = ""
    pad: tuple[int, int] | None = None
    correlated: bool = False

    def __post_init__(self) -> None:
        if self.given is None and self.module is not None and self.adapter not in BORROWED:
            self.module.eval().requires_grad_(requires_grad=False)

    @property
    def latent_size(self) -> int:
        """Number of latents n."""
        return _product(self.latent_shape)

    @property
    def input_size(self) -> int:
        """Number of input dimensions m."""
        return _product(self.input_shape)

    @property
    def device(self) -> torch.device:
        """Device of the parameters; the CPU when there are none."""
        import torch

        parameter = self._first_parameter()
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters; float32 when there are none."""
        import torch

        parameter = self._first_parameter()
        return torch.float32 if parameter is None else parameter.dtype

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None = None) -> VAE:
        """Move and cast the parameters in place; return self."""
        if self.module is not None:
            self.module.to(device=device, dtype=dtype)
        return self

    @classmethod
    def told(cls, conditional: Conditional, **fields: Any) -> VAE:
        """Make a model that is told something of each sample.

        Args:
            conditional: what, and the networks that take it.
            **fields: further fields, such as ``input_shape`` and ``latent_shape``.

        Returns:
            The model, bound to no rows yet.
        """
        name = fields.get("name", "vae")

        def unbound(_: Tensor) -> Any:
            raise CheckpointError(
                f"{name} is told {conditional.wanted} of each sample, and none is at hand here: "
                "--condition VALUE holds one for all"
            )

        infer, encode = conditional.infer, conditional.encode
        own = unbound if infer is None or encode is None else lambda x: encode(x, infer(x))
        return cls(
            decode=unbound,
            encode=None if encode is None else own,
            decode_logits=None if conditional.decode_logits is None else unbound,
            decode_parameters=None if conditional.decode_parameters is None else unbound,
            conditional=conditional,
            **fields,
        )

    def on(self, x: Tensor, c: Tensor | None = None) -> VAE:
        """Bind the model to rows: encode and decode then take as many, each with its condition.

        Args:
            x: the rows, ``(B, *input_shape)``.
            c: their conditions, ``(B, k)``; what the model itself finds when None.

        Returns:
            The bound model; this one where there are no conditions, or it is bound already.
        """
        if self.conditional is None or (self.given is not None and c is None):
            return self
        import torch

        if c is None and self.conditional.infer is not None:
            with torch.no_grad():
                c = self.conditional.infer(x)
        if c is not None and self.conditional.also is not None:
            c = c[:, : self.conditional.asked].to(x)
            c = torch.cat([c, self.conditional.also(x)], dim=1)
        return self if c is None else self._bound(c, self.conditional)

    def rows(self, where: slice | Tensor) -> VAE:
        """Return the model bound to some of its rows; this one where it is bound to none."""
        if self.given is None or self.conditional is None:
            return self
        return self._bound(self.given[where], self.conditional)

    def held(self, c: Tensor) -> VAE:
        """Return a model whose condition ``c (k,)`` is one for all rows, and so none any more."""
        if self.conditional is None:
            return self
        values = ", ".join(f"{float(v):g}" for v in c)
        if self.conditional.also is not None and len(c) == self.conditional.asked:
            return self._held_in_part(c, f"{self.conditional.words} {values}")
        bound = self._bound(c.reshape(1, -1).to(self.device, self.dtype), self.conditional)
        words = f"{self.conditional.words} {values}"
        return replace(bound, conditional=None, given=None, condition=words)

    def _held_in_part(self, c: Tensor, words: str) -> VAE:
        """Hold what data would say; the rest is found in each row."""
        import torch

        told = self.conditional
        if told is None or told.also is None or told.encode is None:
            return self
        also, encode = told.also, told.encode

        def infer(x: Tensor) -> Tensor:
            return torch.cat([c.to(x).expand(len(x), -1), also(x)], dim=1)

        known = replace(told, infer=infer, also=None)
        return replace(
            self, conditional=known, encode=lambda x: encode(x, infer(x)), condition=words
        )

    def anywhere(self) -> VAE:
        """Return a model of which only shapes and costs are asked: any condition will do."""
        if self.conditional is None or self.given is not None:
            return self
        import torch

        return self.held(torch.tensor([0.0 if k else 1.0 for k in self.conditional.classes]))

    def _bound(self, c: Tensor, told: Conditional) -> VAE:
        encode, logits, theta = told.encode, told.decode_logits, told.decode_parameters

        def fit(rows: Tensor) -> Tensor:
            if len(c) not in {1, len(rows)}:
                raise CheckpointError(
                    f"{self.name}: {len(rows)} rows and {len(c)} conditions; each row has its own"
                )
            return c.to(device=rows.device, dtype=rows.dtype).expand(len(rows), -1)

        return replace(
            self,
            encode=None if encode is None else lambda x: encode(x, fit(x)),
            decode=lambda z: told.decode(z, fit(z)),
            decode_logits=None if logits is None else lambda z: logits(z, fit(z)),
            decode_parameters=None if theta is None else lambda z: theta(z, fit(z)),
            given=c,
        )

    def with_facts(self, **changes: Any) -> VAE:
        """Return the same model with some declared facts replaced."""
        return replace(self, facts=replace(self.facts, **changes))

    def _first_parameter(self) -> Tensor | None:
        if self.module is None:
            return None
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        return next((t for t in tensors if t.is_floating_point()), None)


def _product(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


@dataclass(frozen=True)
class Live:
    """A model of the caller's in memory, and what is said about it.

    Attributes:
        model: the object itself, such as an ``nn.Module``.
        options: of the adapter that reads it.
        name: short name for summaries; that of the class where empty.
        sha256: of the file that its weights were read from, where there is one.
        notes: what was found on the way to it, a sentence each.
        adapter: that built it.
    """

    model: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()
    adapter: str = "live"


@dataclass(frozen=True)
class FirstRows:
    """What a live model is tried on before it is read.

    Attributes:
        x: a few inputs as the data holds them, bytes and scale mapped, ``(B, *stored shape)``.
        metric: the distortion asked for; None where none is.
        typed: options that name these rows on a command line, as ``--data digits.npy``.
        labels: of the rows, ``(B,)``, where the data has one number each.
    """

    x: Tensor
    metric: Metric | None
    typed: str = "--data SPEC"
    labels: Tensor | None = None


class Adapter(abc.ABC):
    """Turns a checkpoint, or an object in memory, into a :class:`VAE`.

    ``matches`` looks at content, never at the name alone, and runs no code of the file.

    Attributes:
        last_resort: it reads what no other adapter does; asked for nothing that one of them reads.
        rows: how many first rows of the data it wants to read an object by.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    last_resort: ClassVar[bool] = False
    rows: ClassVar[int] = 256

    @abc.abstractmethod
    def matches(self, source: Source) -> bool:
        """Return True when this adapter can read the source."""

    @abc.abstractmethod
    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Load the model; raise CheckpointError for damage, OptionError for a wrong option."""

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return what ``inspect`` shows beyond the file's kind; runs nothing, loads no weights."""
        return {}

    def tensors(self, source: Source) -> Mapping[str, tuple[int, ...]]:
        """Return shapes by name, of a format whose tensors isoprobe itself does not list."""
        return {}

    def takes(self, model: object) -> bool:
        """Return True when this adapter reads that object in memory with :meth:`read`."""
        return False

    def build(self, source: Source, options: Mapping[str, str]) -> Live | None:
        """Return a checkpoint's model as an object that is read on the first rows of the data.

        None, as for most adapters, leaves it to :meth:`load`.
        """
        return None

    def read(self, live: Live, rows: FirstRows) -> VAE:
        """Read an object that it takes; raise OptionError where it cannot be told how."""
        raise NotImplementedError


class Architecture(abc.ABC):
    """A named network of self-describing checkpoints."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abc.abstractmethod
    def build(self, config: Mapping[str, Any]) -> Networks:
        """Build the untrained networks.

        Args:
            config: fields of the architecture's own configuration.

        Returns:
            Encoder ``(B, *input_shape) -> (mean, std)`` and decoder ``(B, n) -> x_hat``.

        Raises:
            CheckpointError: for a wrong configuration, naming the field.
        """


@dataclass(frozen=True)
class Networks:
    """What an architecture builds.

    Attributes:
        encoder: module ``x -> (mean, std)``, each ``(B, n)``; or ``x -> (mean, L)``, L
            ``(B, n, n)``, where ``correlated``.
        decoder: module ``z -> x_hat``; has a method ``logits(z)`` where its output is a sigmoid.
        input_shape: shape of one input.
        latent_shape: shape of one latent.
        classes: where both are told something of each sample, ``c (B, k)`` after x and z: how many
            classes each column numbers, 0 for a real number.
        words: what c is.
        infer: ``x -> c``, where the networks find it themselves.
        also: ``x -> (B, 1)``, the last column of c, where they find that one themselves.
        prior: logs of shares ``(K,)``, means and deviations ``(K, n)`` of the Gaussians that the
            prior is a mixture of, where it is not N(0, I).
        prior_words: what it is.
        correlated: posteriors are N(mean, L L').
        prior_by: column of the condition whose class chooses the prior's Gaussian, where each
            class has one of its own.
    """

    encoder: nn.Module
    decoder: nn.Module
    input_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    classes: tuple[int, ...] = ()
    words: str = "condition"
    infer: Callable[[Tensor], Tensor] | None = None
    also: Callable[[Tensor], Tensor] | None = None
    prior: Callable[[], tuple[Tensor, Tensor, Tensor]] | None = None
    prior_words: str = ""
    correlated: bool = False
    prior_by: int | None = None


# --------------------------------------------------------------------------- the metric


class Metric(abc.ABC):
    """A distortion D(x, x_hat) and, where there is a shorter way, its metric tensor G.

    Only :meth:`distortion` is required; G is otherwise half the Hessian of D(x, .) at x.
    The constructor's annotated keyword arguments are the options of ``--metric NAME:k=v``.

    Attributes:
        smooth: D(x, .) has a second derivative at x; without one there is no metric tensor.
        input_range: values D accepts, or None for any.
        reference: equation or paper of the formula.
        likelihood: D is -log p(x | theta) of parameters that the decoder gives, see
            :class:`isoprobe.theory.likelihood.Likelihood`.
        whole_numbers: D takes classes or counts, so that bytes are those and no shades of grey.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    smooth: ClassVar[bool] = True
    likelihood: ClassVar[bool] = False
    whole_numbers: ClassVar[bool] = False
    input_range: ClassVar[tuple[float, float] | None] = None
    reference: ClassVar[str] = ""

    @abc.abstractmethod
    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample: ``(B, *shape), (B, *shape) -> (B,)``."""

    def own_distortion(self, x: Tensor) -> Tensor:
        """D(x, x) of each sample, ``(B,)``: what is subtracted where D is to be a distance."""
        return self.distortion(x, x)

    # What follows is optional: ``None`` means "derive it".

    #: ``(x, v) -> G_x v``, all ``(B, *shape)``; linear in v.
    tensor_action: Callable[[Tensor, Tensor], Tensor] | None = None
    #: ``x -> diagonal of G_x``, ``(B, *shape)``, when G is diagonal.
    diagonal: Callable[[Tensor], Tensor] | None = None
    #: ``x -> a_x (B,)`` when G_x = a_x I.
    scale: Callable[[Tensor], Tensor] | None = None
    #: ``(x, logits) -> D (B,)``: the distortion from the decoder's logits.
    logits_distortion: Callable[[Tensor, Tensor], Tensor] | None = None
    #: ``logits -> diagonal of G in logit space``, ``(B, *shape)``.
    logits_diagonal: Callable[[Tensor], Tensor] | None = None

    #: ``x -> coordinates``, ``(B, *shape)``, in which the metric is Euclidean: G is the square of
    #: their derivative, so that arcs have a closed form.
    flattened: Callable[[Tensor], Tensor] | None = None
    #: ``logits -> coordinates``: the same from the decoder's logits.
    logits_flattened: Callable[[Tensor], Tensor] | None = None

    #: metrics of one family differ by a factor and a constant only, see :meth:`family_units`
    family: ClassVar[str] = ""

    def family_units(self, input_size: int) -> float:
        """Return the factor that turns D into its family's common unit (m for a mean of squares).

        A beta declared for one metric of a family is converted to another by these.
        """
        return 1.0

    def log_normaliser(self, beta: float, input_size: int) -> float | None:
        """Return the log of the integral of exp(-D(x, x_hat) / beta) over x, or None.

        With it -L_x / beta minus this is an absolute log density (an ELBO).
        """
        return None

    def options(self) -> dict[str, Any]:
        """Options in force, recorded in the result: every public attribute set on the instance."""
        return {k: v for k, v in vars(self).items() if not k.startswith("_")}

    def spec(self) -> str:
        """The metric as one would type it, ``name:k=v,k=v``."""
        options = ",".join(f"{k}={v}" for k, v in self.options().items())
        return f"{self.name}:{options}" if options else self.name


# --------------------------------------------------------------------------- the data


class Dataset(abc.ABC):
    """Opened data: rows by index, nothing held that need not be.

    Attributes:
        name: as shown in summaries.
        shape: shape of one sample as stored.
        dtype: numpy name of the stored type; ``uint8`` marks image bytes.
        notes: what a reader should know about how it was read, a sentence each.
        columns: names of the values of a row, where a table names them.
        factors: names of the labels of a row, where it has several.
        carried: names of columns that go along with the rows and not into the model, such as ids.
        folded: for each of ``columns`` the table's own column it was made from, where it was made,
            as the values of a category are.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abc.abstractmethod
    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at ascending indices, ``(len(indices), *shape)``."""

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Labels of the rows, ``(len(indices),)``, or ``(len(indices), factors)``, if any."""
        return None

    def carry(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Columns named in ``carried``, each ``(len(indices),)``, text or numbers."""
        return {}

    def resized(self, size: tuple[int, int] | None) -> bool:
        """Take on height and width for every row, whatever its own; with None give them up.

        Returns:
            Whether rows are resized one by one from here on; False where all are of one size.
        """
        return False

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Short text that changes when the data does."""

    def close(self) -> None:
        """Release files."""
        return


class DataSource(abc.ABC):
    """Opens data by name or format."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abc.abstractmethod
    def matches(self, spec: str) -> bool:
        """Return True when this source opens that spec; looks at names and first bytes only."""

    @abc.abstractmethod
    def open(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Open it; raise DataError with what was expected, found, and to do."""


# --------------------------------------------------------------------------- analyses


#: ways a variable may be shown: one cell for each latent, one number at the top, not at all
SHOWN = ("column", "tile", "none")
#: what ``form`` of a variable may be
FORMS = re.compile(r"|[+]?d|[+]?(\.\d)?[efg%]|[\w -]+(\|[\w -]+)+")


@dataclass(frozen=True)
class Variable:
    """A named array of a result, and what summary, ``--json``, report and compare show of it.

    Attributes:
        dims: name of each axis: ``sample``, ``latent``, or the analysis' own.
        values: the array.
        long_name: what it is, in words.
        units: ``1`` when dimensionless.
        equation: equation number or source, ``Eq. 23`` for the paper's.
        formula: dotted name of the function that gives the values.
        theory: heading of the page on theory that explains it.
        show: ``column`` (a value for each latent), ``tile`` (a single value) or ``none``; empty
            for what its shape allows: a column, a tile for a number, else none.
        label: what stands over the column or beside the tile; empty for the variable's name with
            spaces.
        form: Python format of its numbers, such as ``.3f`` or ``+.1%``, or words for the codes
            0, 1, 2, such as ``low|middle|high``; empty for three digits.
    """

    dims: tuple[str, ...]
    values: np.ndarray
    long_name: str
    units: str = "1"
    equation: str = ""
    formula: str = field(default="", kw_only=True)
    theory: str = field(default="", kw_only=True)
    show: str = field(default="", kw_only=True)
    label: str = field(default="", kw_only=True)
    form: str = field(default="", kw_only=True)

    @property
    def shown(self) -> str:
        """How it is shown, one of :data:`SHOWN`: as it says, else as its shape allows."""
        if self.show:
            return self.show
        if tuple(self.dims) == ("latent",):
            return "column"
        import numpy as np

        number = np.asarray(self.values).dtype.kind in "fiub"
        return "tile" if number and not self.dims else "none"


@dataclass(frozen=True)
class Figure:
    """A figure that an analysis offers of its results, for the report and ``report --figures``.

    Attributes:
        name: as users ask for it, and its file's name: letters, digits, ``-`` and ``_``.
        draw: takes a :class:`~isoprobe.results.reader.Result` and matplotlib Axes, returns nothing.
        title: over the figure.
        caption: how to read it, plain text.
        needs: variable without finite values of which there is nothing to draw, ``group/name``;
            per-sample columns are in the group ``samples``.
        size: width and height in inches.
        rows: it reads per-sample columns, which a result made with ``--no-rows`` has not.
    """

    name: str
    draw: Callable[[Result, Axes], None]
    title: str
    caption: str
    needs: str
    size: tuple[float, float] = (5.0, 3.0)
    rows: bool = False


@dataclass(frozen=True)
class Beta:
    """The KL weight in force, and what is known about it, in units of the metric.

    Attributes:
        value: used by every formula.
        source: ``user``, ``declared``, ``recovered``, or ``unknown`` (value is then NaN).
        declared: by the checkpoint or the user; None when unknown.
        comparable: the declared one is in units of the metric in use.
        recovered: by stationarity, pooled over active dimensions.
        ci95: its 95 % confidence interval.
        recovered_pullback: by the pullback, None where not computed.
        ci95_pullback: its 95 % confidence interval.
    """

    value: float
    source: str
    declared: float | None = None
    comparable: bool = True
    recovered: float | None = None
    ci95: tuple[float, float] | None = None
    recovered_pullback: float | None = None
    ci95_pullback: tuple[float, float] | None = None


@dataclass(frozen=True)
class Setup:
    """What an analysis may know before the first batch.

    Attributes:
        vae: the model.
        metric: the distortion.
        samples: how many will come.
        seed: of everything random.
        active: dimensions that do something in a pilot of the data: means vary, or the decoder
            answers,
            ``(n,)`` bool (Prop. 3); fixed before the pass so that determinants over active
            dimensions can be taken sample by sample.
        sample: inputs spread evenly over the data, ``count -> (count, *input_shape)``.
        pullback: how the pullback is taken; ``exact`` alone gives more than its diagonal.
        labelled: the data has labels.
        own_draws: the data are the model's own samples.
        expectation: how E_z D is taken: ``gaussian`` draws or ``two-point`` (A.6).
        training_share: share of the rows that the checkpoint was trained on; None if not known.
        factors: their names, where a row has several.
        carried: names of columns that go along with the rows.
        rows: inputs at positions of the run, ``(B,) -> (B, *input_shape)``; None where inputs may
            not be kept, or cannot be had again.
        told: what :meth:`bound` asks, where a model is told something of each sample.
        at_one: what :attr:`fixed` asks, likewise.
    """

    vae: VAE
    metric: Metric
    samples: int
    seed: int
    active: np.ndarray
    sample: Callable[[int], Tensor]
    pullback: str = "exact"
    labelled: bool = False
    own_draws: bool = False
    expectation: str = "gaussian"
    training_share: float | None = None
    factors: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    rows: Callable[[np.ndarray], Tensor] | None = None
    told: Callable[[int], tuple[VAE, Tensor]] | None = None
    at_one: Callable[[], VAE] | None = None

    def bound(self, count: int) -> tuple[VAE, Tensor]:
        """Take inputs spread evenly over the data, and the model for them.

        Args:
            count: how many.

        Returns:
            The model, bound to these rows where it is told something of each sample, and the
            inputs, ``(count, *input_shape)``.
        """
        if self.told is not None:
            return self.told(count)
        x = self.sample(count)
        return self.vae.on(x), x

    @property
    def fixed(self) -> VAE:
        """The model for what is decoded of no row: at one condition, where it takes some."""
        return self.vae if self.at_one is None else self.at_one()


@dataclass(frozen=True)
class Batch:
    """Quantities of one batch, computed once for all analyses.

    Attributes:
        index: position of each sample in the run, ``(B,)`` int64; independent of batch size.
        x: inputs as the model sees them, ``(B, *input_shape)``.
        quantities: named tensors, first axis B; see :mod:`isoprobe.probe.quantities`.
        labels: labels of the rows, ``(B,)``, or ``(B, factors)`` where a row has several, or None.
        carried: columns that go along with the rows, ``(B,)`` each, text or numbers.
        condition: what the model was told of the rows, ``(B, k)``, or None.
    """

    index: np.ndarray
    x: Tensor
    quantities: Mapping[str, Tensor]
    labels: np.ndarray | None = None
    carried: Mapping[str, np.ndarray] = field(default_factory=dict)
    condition: np.ndarray | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self.quantities[name]

    def array(self, name: str) -> np.ndarray:
        """The quantity as a float64 array."""
        array: np.ndarray = self.quantities[name].detach().cpu().double().numpy()
        return array


@dataclass(frozen=True)
class Context:
    """What is known once every batch has been seen.

    Attributes:
        setup: as at the start.
        beta: the KL weight in force.
        statistics: means and deviations over all samples, which no analysis need keep again.
        results: finished analyses by name, in the order they ran.
    """

    setup: Setup
    beta: Beta
    statistics: PassStatistics
    results: Mapping[str, Mapping[str, Variable]] = field(default_factory=dict)


class Analysis(abc.ABC):
    """Named quantities in, running statistics inside, named arrays out.

    The engine calls ``start`` once, ``update`` for each batch, ``result`` once, and then
    ``finish_samples`` over chunks of the stored per-sample columns, so that whatever needs beta
    or the whole sample's statistics needs no second pass over the data.
    Accumulators in ``self.accumulators`` are saved, restored and merged without further code.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    #: quantities of the probe, see :data:`isoprobe.probe.quantities.QUANTITIES`; ``start`` may
    #: replace it
    needs: frozenset[str]
    #: analyses whose results this one reads; they are run too
    after: ClassVar[tuple[str, ...]] = ()
    #: variables of the result that show single rows of the data: pictures of them, their codes or
    #: their numbers. ``--no-rows`` leaves these out
    of_rows: ClassVar[frozenset[str]] = frozenset()
    #: samples that ``--samples auto`` begins with, for what is said of single rows
    least_samples: int = 0
    #: why nothing is said under a prior other than N(0, I); empty where something is
    standard_prior: ClassVar[str] = ""
    #: why nothing is said where latents are correlated in a posterior; empty where something is
    independent: ClassVar[str] = ""

    @classmethod
    def figures(cls) -> Sequence[Figure]:
        """Figures of what this analysis stores; import what draws them here, not above."""
        return ()

    def __init__(self) -> None:
        self.accumulators: dict[str, Accumulator] = {}

    def start(self, setup: Setup) -> None:
        """Prepare accumulators; raise MetricError where the metric lacks what is needed."""
        self.setup = setup

    @abc.abstractmethod
    def update(self, batch: Batch) -> Mapping[str, Variable] | None:
        """Take in a batch; return per-sample columns to store (first dim ``sample``), if any."""

    def update_encoded(self, batch: Batch) -> None:
        """Take in rows beyond the run's samples, of which ``mean``, ``std`` and ``kl`` are known.

        ``--samples auto`` takes few samples through the decoder and more through the encoder alone.
        An analysis whose arrays rest on the encoder alone may see them, in :attr:`accumulators`.
        """
        return

    @abc.abstractmethod
    def result(self, context: Context) -> Mapping[str, Variable]:
        """Named arrays of the analysis."""

    def finish_samples(
        self, chunk: Mapping[str, np.ndarray], context: Context
    ) -> Mapping[str, Variable] | None:
        """Per-sample columns derived from stored ones, for one chunk of samples, if any."""
        return None

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable] | None:
        """More named arrays, from whole stored columns by name, once those are finished, if any."""
        return None

    def state(self) -> dict[str, np.ndarray]:
        """Everything accumulated, as flat named arrays."""
        return {
            f"{name}/{key}": value
            for name, accumulator in self.accumulators.items()
            for key, value in accumulator.state().items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a saved state."""
        for name, accumulator in self.accumulators.items():
            prefix = f"{name}/"
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            accumulator.restore(own)

    def merge(self, other: Analysis) -> None:
        """Take in what the same analysis accumulated over other samples.

        An analysis with a :meth:`state` of its own needs a ``merge`` of its own too.
        """
        for name, accumulator in self.accumulators.items():
            accumulator.merge(other.accumulators[name])

    @classmethod
    def mergeable(cls) -> bool:
        """Whether the samples may be split over several processes."""
        return cls.state is Analysis.state or cls.merge is not Analysis.merge
