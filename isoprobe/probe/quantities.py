"""One pass over the data: every quantity the analyses need, each computed once a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from isoprobe.contracts import Batch
from isoprobe.derivatives.exact import METHODS, Pullback, exact_pullback, finite_difference_pullback
from isoprobe.derivatives.memory import Plan, plan
from isoprobe.derivatives.metric_tensor import OutputMetric, output_metric, require_tensor
from isoprobe.derivatives.routes import Route, choose_route, named_route
from isoprobe.derivatives.sampled import COLUMN_LIMIT, COLUMNS, random_pullback
from isoprobe.errors import CheckpointError, MetricError, OptionError, PluginError
from isoprobe.probe.finite import first_bad_layer, require_finite
from isoprobe.statistics.draws import normal, signs
from isoprobe.theory import formulas

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric

#: What an analysis may ask for. Shapes are per batch; distortions in units of the metric.
QUANTITIES: dict[str, str] = {
    "mean": "mu(x), (B, n)",
    "std": "sigma(x), (B, n)",
    "kl": "KL_j in nats, (B, n) (Eq. 2)",
    "x_check": "Dec(mu), (B, *input_shape)",
    "distortion_self": "D(x, x), (B,): zero except for BCE and its like",
    "distortion_transform": "D(x, x_check), (B,) (Lemma 1)",
    "distortion": "E_z D(x, x_hat) by the points mu + sigma and mu - sigma, (B,) (A.6)",
    "distortion_checked": "E_z D(x_check, x_hat) by the same two points, (B,) (Section 5.3)",
    "distortion_map": "parts of distortion by input, (B, *input_shape), where it is their sum",
    "distortion_checked_map": "parts of distortion_checked by input, likewise",
    "distortion_transform_map": "parts of distortion_transform by input, likewise",
    "distortion_coding": "D(x_check, x_hat) - D(x_check, x_check), two points, (B,) (Lemma 1)",
    "distortion_signs": "D(x, Dec(mu +- s sigma)), random signs s, antithetic means, (B, signs)",
    "distortion_draws": "D(x, Dec(z)) at random z of the posterior, (B, 2 pairs)",
    "stationarity": "E_eps[sigma_j eps_j dD/dz_j], (B, n): beta (1 - sigma_j^2) at an optimum",
    "pullback": "g_jj = J_j' G J_j at mu, (B, n) (Eq. 23)",
    "pullback_spread": "estimates of sum_{k != j} (sigma_j sigma_k g_jk)^2, (B, n), by --pullback "
    "probe alone; zero where nothing was drawn for it, and scaled up elsewhere",
    "pullback_drawn": "where an exact column lies behind the estimate, (B, n) bool, by --pullback "
    f"probe and at most {COLUMN_LIMIT} latents alone",
    "gram": "J' G J, (B, n, n) (Lemma 4)",
    "euclidean_gram": "J' J of the decoded mean, (B, n, n)",
}
_SAMPLED = frozenset({"pullback_spread", "pullback_drawn"})
_TENSOR = _SAMPLED | {"pullback", "gram", "euclidean_gram"}
_CHECKED = frozenset({"distortion_checked", "distortion_checked_map", "distortion_coding"})
_TWO_POINT = _CHECKED | {"distortion", "distortion_map"}
#: what needs no decoding of the posterior mean
_AWAY = frozenset({"mean", "std", "kl", "distortion_self", "distortion", "distortion_map"})
_DRAWS = frozenset({"stationarity", "distortion_draws"})
#: parts by input may miss their sum by this share of their size, in float32
_ROUNDING = 1e-4
_LEFT_OUT = "norms are means with standard errors, and cosines and volumes are left out"
_NOTE_COLUMNS = (
    f"the pullback was estimated from {COLUMNS} random columns a sample, with a fit on the"
    f" posterior: {_LEFT_OUT}"
)
_NOTE_SIGNS = (
    f"the pullback was estimated by random signs, since there are more than {COLUMN_LIMIT} latents:"
    f" {_LEFT_OUT}, and one sample's value is noise"
)


@dataclass(frozen=True)
class ProbeOptions:
    """How the probe works.

    Attributes:
        pullback: ``exact``, ``probe`` (random signs) or ``finite-difference``.
        pairs: antithetic pairs of draws a sample, for stationarity.
        signs: antithetic pairs of random corners mu +- sigma a sample.
        seed: of those draws.
        memory: bytes that tangents may take.
        batch_size: samples at once; planned from memory when None.
        route: name of the way to the decoder's derivatives; found by trying when None.
        checked: refuse a batch with a number that is not finite.
    """

    pullback: str = "exact"
    pairs: int = 2
    signs: int = 4
    seed: int = 0
    memory: int = 1 << 30
    batch_size: int | None = None
    route: str | None = None
    checked: bool = True


class Probe:
    """Computes the union of what analyses need, batch by batch.

    Args:
        vae: the model.
        metric: the distortion.
        needs: names from :data:`QUANTITIES`.
        options: how.

    Raises:
        PluginError: for a quantity that does not exist.
        MetricError: when a pullback is asked of a metric without a tensor.
        OptionError: for an unknown pullback method, or one that cannot give what is asked.
        CheckpointError: when the model has no encoder.
    """

    def __init__(
        self, vae: VAE, metric: Metric, needs: Iterable[str], options: ProbeOptions | None = None
    ) -> None:
        self.needs = frozenset(needs)
        self.options = options or ProbeOptions()
        self._check(vae, metric)
        if vae.encode is None:
            raise CheckpointError(
                f"{vae.name} has no encoder with a variance; rates, norms, beta, importance, "
                "density and scores all need its posterior: give a model whose encoder returns "
                "mean and scale. What the decoder alone tells: 'isoprobe spectrum'."
            )
        self.encode = vae.encode
        self.vae = vae
        self.view: OutputMetric = output_metric(metric, vae)
        self.plan: Plan = plan(
            vae,
            self.view.decode,
            self.options.memory,
            self.options.batch_size,
            gram=bool(self.needs & {"gram", "euclidean_gram"}),
        )
        self.route = self._route()

    def _route(self) -> Route | None:
        """How the decoder is differentiated; None where only its values are used."""
        if not self.needs & _TENSOR or self.options.pullback == "finite-difference":
            return None
        if self.options.route is not None:
            return named_route(self.options.route)
        drawn = torch.randn(2, self.vae.latent_size, generator=torch.Generator().manual_seed(0))
        trial = drawn.to(self.vae.device, self.vae.dtype)
        try:
            return choose_route(self.view.decode, trial)
        except CheckpointError as error:
            layer = first_bad_layer(self.vae.module, self.view.decode, trial)
            more = f" At samples of the prior, {layer}." if layer else ""
            raise CheckpointError(f"{self.vae.name}: {error}{more}") from error

    @property
    def notes(self) -> list[str]:
        """What the reader of a result should know of how it was computed."""
        notes = [self.route.note] if self.route is not None and self.route.note else []
        if self.options.pullback == "probe" and self.needs & _TENSOR:
            notes.append(_NOTE_COLUMNS if self.vae.latent_size <= COLUMN_LIMIT else _NOTE_SIGNS)
        return notes

    def _check(self, vae: VAE, metric: Metric) -> None:
        unknown = sorted(self.needs - QUANTITIES.keys())
        if unknown:
            raise PluginError(
                f"no such quantity {unknown[0]!r}; the probe has {', '.join(QUANTITIES)}."
            )
        method = self.options.pullback
        if method not in METHODS:
            raise OptionError(f"--pullback takes {' or '.join(METHODS)}; found {method!r}.")
        if self.needs & _TENSOR:
            require_tensor(metric)
        if method != "exact" and self.needs & {"gram", "euclidean_gram"}:
            raise OptionError(
                f"--pullback {method} gives the diagonal only; orthogonality and volumes need "
                "--pullback exact."
            )
        sampled = sorted(self.needs & _SAMPLED)
        if method != "probe" and sampled:
            raise OptionError(f"--pullback {method} gives no {sampled[0]}; --pullback probe does.")

    def __call__(self, index: np.ndarray, x: Tensor, labels: np.ndarray | None = None) -> Batch:
        """Probe one batch.

        Args:
            index: positions in the run, ``(B,)``.
            x: inputs, ``(B, *input_shape)``.
            labels: labels of the rows.

        Returns:
            The batch with every needed quantity.

        Raises:
            CheckpointError: when the model gives something that is not finite.
        """
        quantities = self._posterior(index, x)
        output = self._pull_back(index, quantities)
        first = {**quantities, **({} if output is None else {"output": output})}
        self._require_finite(first, index, quantities["mean"])
        if self.needs - quantities.keys():
            self._distortions(x, output, quantities)
        if self.needs & _DRAWS:
            self._draw(index, x, quantities)
        if "distortion_signs" in self.needs:
            self._corners(index, x, quantities)
        later = {name: values for name, values in quantities.items() if name not in first}
        self._require_finite(later, index, quantities["mean"])
        return Batch(index, x, quantities, labels)

    def _require_finite(
        self, quantities: Mapping[str, Tensor], index: np.ndarray, z: Tensor
    ) -> None:
        if self.options.checked:
            require_finite(quantities, index, self.vae, self.view.decode, z)

    def _posterior(self, index: np.ndarray, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            posterior = self.encode(x)
        mean, std = posterior.mean, posterior.std
        for name, values, good in (
            ("mean", mean, mean.isfinite()),
            ("standard deviation", std, std.isfinite() & (std > 0)),
        ):
            if self.options.checked and not bool(good.all()):
                row, latent = (int(i) for i in (~good).nonzero()[0])
                raise CheckpointError(
                    f"{self.vae.name}: the posterior {name} of latent {latent} at sample "
                    f"{int(index[row])} is {values[row, latent]:g}; expected a finite"
                    f"{'' if name == 'mean' else ', positive'} number. "
                    "The scale head may be read in the wrong form."
                )
        return {"mean": mean, "std": std, "kl": formulas.kl_divergence(mean, std)}

    def _pull_back(self, index: np.ndarray, quantities: dict[str, Tensor]) -> Tensor | None:
        """Decoder output at mu; the pullback comes with it where it is needed."""
        z = quantities["mean"]
        if self.needs <= _AWAY:
            return None
        if not self.needs & _TENSOR:
            with torch.no_grad():
                return self.view.decode(z)
        if self.options.pullback == "probe":
            return self._sample_pullback(index, quantities)
        if self.options.pullback == "finite-difference":
            pulled: Pullback = finite_difference_pullback(self.view, z)
        else:
            pulled = exact_pullback(
                self.view,
                z,
                gram="gram" in self.needs,
                euclidean="euclidean_gram" in self.needs,
                chunk=self.plan.chunk,
                block=self.plan.block,
                route=self.route,
            )
        quantities["pullback"] = pulled.diagonal
        if pulled.gram is not None:
            quantities["gram"] = pulled.gram
        if pulled.euclidean is not None:
            quantities["euclidean_gram"] = pulled.euclidean
        return pulled.output

    def _sample_pullback(self, index: np.ndarray, quantities: dict[str, Tensor]) -> Tensor:
        """The same from a few products a sample."""
        z = quantities["mean"]
        pulled = random_pullback(
            self.view,
            z,
            quantities["std"],
            index,
            seed=self.options.seed,
            route=self.route or choose_route(self.view.decode, z[:2]),
            rows=self.plan.block * self.plan.chunk,
        )
        quantities["pullback"] = pulled.diagonal
        quantities["pullback_spread"] = pulled.spread
        if pulled.drawn is not None:
            quantities["pullback_drawn"] = pulled.drawn
        return pulled.output

    def _distortions(self, x: Tensor, output: Tensor | None, quantities: dict[str, Tensor]) -> None:
        view, needs = self.view, self.needs
        with torch.no_grad():
            if output is not None:
                quantities["x_check"] = view.mean(output)
                self._measure("distortion_transform", x, (output,), quantities)
            if "distortion_self" in needs:
                quantities["distortion_self"] = view.metric.distortion(x, x)
            if not needs & _TWO_POINT:
                return
            mean, std = quantities["mean"], quantities["std"]
            points = (view.decode(mean + std), view.decode(mean - std))
            self._measure("distortion", x, points, quantities)
            if output is not None and needs & _CHECKED:
                x_check = quantities["x_check"]
                self._measure("distortion_checked", x_check, points, quantities)
                own = view.distortion(x_check, output)
                coding = formulas.excess(quantities["distortion_checked"], own)
                quantities["distortion_coding"] = coding

    def _measure(
        self, name: str, x: Tensor, outputs: Sequence[Tensor], quantities: dict[str, Tensor]
    ) -> None:
        """Mean distortion from ``x``, and its parts by input where these are needed."""
        quantities[name] = self._mean_distortion(x, outputs)
        if f"{name}_map" in self.needs:
            maps = [distortion_by_input(self.view.distortion, x, output) for output in outputs]
            quantities[f"{name}_map"] = maps[0] if len(maps) == 1 else formulas.two_points(*maps)

    def _mean_distortion(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        measured = [self.view.distortion(x, output) for output in outputs]
        return measured[0] if len(measured) == 1 else formulas.two_points(*measured)

    def _draw(self, index: np.ndarray, x: Tensor, quantities: dict[str, Tensor]) -> None:
        mean, std = quantities["mean"], quantities["std"]
        n, pairs = mean.shape[1], self.options.pairs
        draws = normal(self.options.seed, "posterior", index, pairs * n)
        noise = torch.as_tensor(draws, dtype=mean.dtype, device=mean.device)
        # With the decomposed objective sigma acts on D(x_check, x_hat), so that is differentiated.
        reference = quantities["x_check"] if self.vae.facts.decomposed else x
        total = torch.zeros_like(mean)
        distortions = []
        for epsilon in noise.reshape(-1, pairs, n).unbind(1):
            for signed in (epsilon, -epsilon):
                shift = std * signed
                z = (mean + shift).requires_grad_()
                with torch.enable_grad():
                    value = self.view.distortion(reference, self.view.decode(z))
                    (gradient,) = torch.autograd.grad(value.sum(), z)
                total += shift * gradient
                distortions.append(value.detach())
        quantities["stationarity"] = total / (2 * pairs)
        quantities["distortion_draws"] = torch.stack(distortions, dim=1)

    def _corners(self, index: np.ndarray, x: Tensor, quantities: dict[str, Tensor]) -> None:
        mean, std = quantities["mean"], quantities["std"]
        n, count = mean.shape[1], self.options.signs
        drawn = signs(self.options.seed, "corners", index, count * n)
        corners = torch.as_tensor(drawn, dtype=mean.dtype, device=mean.device)
        values = []
        with torch.no_grad():
            for corner in corners.reshape(-1, count, n).unbind(1):
                shift = std * corner
                points = (self.view.decode(mean + shift), self.view.decode(mean - shift))
                values.append(self._mean_distortion(x, points))
        quantities["distortion_signs"] = torch.stack(values, dim=1)


def distortion_by_input(
    measure: Callable[[Tensor, Tensor], Tensor], x: Tensor, output: Tensor
) -> Tensor:
    """Parts of a distortion that is a sum over inputs, each input taken as a sample of its own.

    Args:
        measure: the distortion, ``(B, *shape), (B, *shape) -> (B,)``.
        x: inputs, ``(B, *shape)``.
        output: what stands for the reconstructions, ``(B, *shape)``.

    Returns:
        ``(B, *shape)``, summing to the distortion of each sample.

    Raises:
        MetricError: when the parts do not sum to it, as for a mean, a norm or SSIM.
    """
    refusal = "this metric is no sum over inputs, so its distortion has no parts by input."
    try:
        pieces = measure(x.reshape(-1, 1), output.reshape(-1, 1)).reshape(x.shape)
    except MetricError as error:
        raise MetricError(refusal) from error
    whole = measure(x, output)
    size = pieces.abs().flatten(1).sum(1)
    if bool(((pieces.flatten(1).sum(1) - whole).abs() > _ROUNDING * size).any()):
        raise MetricError(refusal)
    return pieces
