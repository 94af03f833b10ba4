"""Compute every quantity that the analyses need, each once a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from isoprobe.contracts import Batch
from isoprobe.derivatives.exact import METHODS, Pullback, exact_pullback, finite_difference_pullback
from isoprobe.derivatives.memory import Plan, plan
from isoprobe.derivatives.metric_tensor import OutputMetric, output_metric, require_tensor
from isoprobe.derivatives.quick_convolutions import quick_for
from isoprobe.derivatives.quicker import quickest_route
from isoprobe.derivatives.routes import Route, choose_route, named_route
from isoprobe.derivatives.sampled import COLUMN_LIMIT, COLUMNS, random_pullback
from isoprobe.errors import CheckpointError, MetricError, OptionError, PluginError
from isoprobe.probe.finite import first_bad_layer, require_finite
from isoprobe.probe.fixed import EXPECTATIONS, GAUSSIAN, fixed_noise
from isoprobe.probe.prior import terms_by_row
from isoprobe.statistics.draws import normal
from isoprobe.theory import covariance, formulas
from isoprobe.theory.likelihood import Likelihood

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric

#: What an analysis may ask for. Shapes are per batch; distortions in units of the metric.
QUANTITIES: dict[str, str] = {
    "mean": "mu(x), (B, n)",
    "std": "sigma(x), (B, n); of each latent given the others, where they are correlated",
    "root": "L, (B, n, n), of a full covariance L L', where latents are correlated",
    "variance": "Sigma_jj, (B, n), likewise",
    "own_answer": "E_eps[(z_j - mu_j) dD/dz_j], (B, n), likewise, with stationarity",
    "kl": "KL_j in nats, (B, n) (Eq. 2); under another prior by draws, and with a full covariance, "
    "each latent given those before it",
    "prior_slope": "E[s_j], s_j = d(-log p(z))/dz_j, (B, n), where the prior is not N(0, I)",
    "prior_answer": "P_j = E[sigma_j eps_j s_j], (B, n), likewise",
    "x_check": "Dec(mu), (B, *input_shape)",
    "distortion_self": "D(x, x), (B,): zero except for BCE and its like",
    "distortion_transform": "D(x, x_check), (B,) (Lemma 1)",
    "distortion": "E_z D(x, x_hat) by antithetic pairs of draws that belong to the sample, with "
    "the Gram as control where it is at hand, (B,); by mu + sigma and mu - sigma (A.6) on request",
    "distortion_pairs": "the same of each pair, (B, pairs); (B, 1) by the two points",
    "distortion_coding": "E_z D(x_check, x_hat) - D(x_check, x_check), likewise, (B,) (Lemma 1)",
    "distortion_fixed": "E_z D(x, x_hat) by one set of draws that is the same for every row, (B,)",
    "distortion_fixed_checked": "E_z D(x_check, x_hat) by that set, (B,) (Section 5.3)",
    "distortion_fixed_draws": "D(x, Dec(z)) at each draw of that set, (B, draws)",
    "distortion_fixed_map": "parts of distortion_fixed by input, (B, *input_shape), where it is "
    "their sum",
    "distortion_fixed_checked_map": "parts of distortion_fixed_checked by input, likewise",
    "distortion_transform_map": "parts of distortion_transform by input, likewise",
    "distortion_draws": "D(x, Dec(z)) at random z of the posterior, (B, 2 pairs)",
    "stationarity": "E_eps[sigma_j eps_j dD/dz_j], with the Gram as control where it is at hand, "
    "(B, n): beta (1 - sigma_j^2) at an optimum; with a full covariance the draw in place of "
    "sigma_j eps_j is sigma_j^2 (Sigma^-1 (z - mu))_j",
    "noise_gradient": "E_eps[(z_k - mu_k) dD/dz_j], (B, n, n), k first, likewise",
    "gradient": "E_eps dD(x, Dec(z))/dz_j, (B, n)",
    "draws": "the draws z of the posterior, (B, 2 pairs, n)",
    "draw_gradients": "dD(x, Dec(z))/dz_j at those draws, (B, 2 pairs, n)",
    "pullback": "g_jj = J_j' G J_j at mu, (B, n) (Eq. 23)",
    "pullback_off_diagonal": "estimates of sum_{k != j} (sigma_j sigma_k g_jk)^2, (B, n), by "
    "--pullback probe alone; zero where nothing was drawn for it, and scaled up elsewhere",
    "pullback_drawn": "where an exact column lies behind the estimate, (B, n) bool, by --pullback "
    f"probe and at most {COLUMN_LIMIT} latents alone",
    "gram": "J' G J, (B, n, n) (Lemma 4)",
    "euclidean_gram": "J' J of the decoded mean, (B, n, n)",
}
_SAMPLED = frozenset({"pullback_off_diagonal", "pullback_drawn"})
_TENSOR = _SAMPLED | {"pullback", "gram", "euclidean_gram"}
_FIXED = frozenset({"distortion_fixed", "distortion_fixed_map", "distortion_fixed_draws"})
_FIXED_CHECKED = frozenset({"distortion_fixed_checked", "distortion_fixed_checked_map"})
#: what needs no decoding of the posterior mean
_AWAY = _FIXED | {"mean", "std", "root", "variance", "kl", "distortion_self"}
_AWAY |= {"prior_slope", "prior_answer"}
_AVERAGES = frozenset({"distortion", "distortion_pairs", "distortion_coding"})
_GRADIENTS = frozenset({"stationarity", "noise_gradient", "draw_gradients", "gradient"})
_DRAWS = _GRADIENTS | {"distortion_draws", "draws"}
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
        expectation: how E_z D is taken: ``gaussian`` draws, or ``two-point``, mu +- sigma (A.6).
        seed: of those draws; the set that is the same for every row has none.
        memory: bytes that tangents may take.
        batch_size: samples at once; planned from memory when None.
        route: name of the way to the decoder's derivatives; found by trying when None.
        checked: refuse a batch with a number that is not finite.
    """

    pullback: str = "exact"
    pairs: int = 2
    expectation: str = GAUSSIAN
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
        self.metric = metric
        self._at_mean: Tensor | None = None
        self.view: OutputMetric = output_metric(metric, vae.anywhere())
        self.route = self._route()
        self.plan: Plan = plan(
            vae,
            self.view.decode,
            self.options.memory,
            self.options.batch_size,
            gram=bool(self.needs & {"gram", "euclidean_gram"}),
            route=self.route,
        )

    def _route(self) -> Route | None:
        """How the decoder is differentiated; None where only its values are used."""
        if not self.needs & _TENSOR or self.options.pullback == "finite-difference":
            return None
        drawn = torch.randn(2, self.vae.latent_size, generator=torch.Generator().manual_seed(0))
        trial = drawn.to(self.vae.device, self.vae.dtype)
        try:
            if self.options.pullback == "exact" and self.vae.conditional is None:
                return quickest_route(self.view, trial, self.options.route)
            if self.options.route is not None:
                return named_route(self.options.route)
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
        if self.options.expectation not in EXPECTATIONS:
            raise OptionError(
                f"--expectation takes {' or '.join(EXPECTATIONS)}; found "
                f"{self.options.expectation!r}."
            )
        method = self.options.pullback
        if method not in METHODS:
            raise OptionError(f"--pullback takes {' or '.join(METHODS)}; found {method!r}.")
        if vae.correlated:
            self._check_correlated(vae)
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

    def __call__(
        self,
        index: np.ndarray,
        x: Tensor,
        labels: np.ndarray | None = None,
        vae: VAE | None = None,
        *,
        encoder_only: bool = False,
    ) -> Batch:
        """Probe one batch.

        Args:
            index: positions in the run, ``(B,)``.
            x: inputs, ``(B, *input_shape)``.
            labels: labels of the rows.
            vae: the model bound to the rows' conditions, where it takes some from the data.
            encoder_only: decode nothing.

        Returns:
            The batch with every needed quantity; of the encoder alone ``mean``, ``std``, ``kl``.

        Raises:
            CheckpointError: when the model gives something that is not finite.
        """
        condition = self._bind(x, vae)
        quantities = self._posterior(index, x)
        if not encoder_only:
            self._decoded(index, x, quantities)
        return Batch(index, x, quantities, labels, condition=condition)

    def _decoded(self, index: np.ndarray, x: Tensor, quantities: dict[str, Tensor]) -> None:
        """Add what the decoder gives at the posteriors."""
        output = self._pull_back(index, quantities)
        first = {**quantities, **({} if output is None else {"output": output})}
        self._require_finite(first, index, quantities["mean"])
        if self.needs - quantities.keys():
            self._distortions(x, output, quantities)
        self._at_mean = output
        drawn = self.options.expectation == GAUSSIAN
        if self.needs & (_DRAWS | _AVERAGES if drawn else _DRAWS):
            self._draw(index, x, quantities)
        if self.needs & _AVERAGES and not drawn:
            self._average_two_points(x, quantities)
        later = {name: values for name, values in quantities.items() if name not in first}
        self._require_finite(later, index, quantities["mean"])

    def _check_correlated(self, vae: VAE) -> None:
        """Refuse what is not known of posteriors with a full covariance."""
        if self.options.expectation != GAUSSIAN:
            raise OptionError(
                f"{vae.name}: latents are correlated in its posteriors, for which the two points "
                "mu +- sigma stand for nothing; leave --expectation at gaussian."
            )
        if vae.prior is not None:
            raise CheckpointError(
                f"{vae.name}: latents are correlated in its posteriors, and its prior is "
                f"{vae.prior.words}; a full covariance is measured to N(0, I) alone."
            )

    def _bind(self, x: Tensor, vae: VAE | None) -> np.ndarray | None:
        """Take the model as it is for these rows; return what it is told of them."""
        if self.vae.conditional is None:
            return None
        bound = (vae or self.vae).on(x)
        if bound.encode is not None:
            self.encode = bound.encode
        self.view = output_metric(self.metric, bound)
        return None if bound.given is None else bound.given.double().cpu().numpy()

    def _require_finite(
        self, quantities: Mapping[str, Tensor], index: np.ndarray, z: Tensor
    ) -> None:
        if self.options.checked:
            require_finite(quantities, index, self.vae, self.view.decode, z)

    def _posterior(self, index: np.ndarray, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            posterior = self.encode(x)
        mean, std, root = posterior.mean, posterior.std, posterior.root
        if (root is not None) != self.vae.correlated:
            given = "no root" if root is None else "a root"
            raise CheckpointError(
                f"{self.vae.name}: encode gives {given} of a covariance, and the model says "
                f"correlated={self.vae.correlated}; say what encode gives."
            )
        diagonal = std if root is None else root.diagonal(0, -2, -1)
        for name, values, good in (
            ("mean", mean, mean.isfinite()),
            ("standard deviation", std, std.isfinite() & (std > 0)),
            ("diagonal L_jj", diagonal, diagonal.isfinite() & (diagonal > 0)),
        ):
            if self.options.checked and not bool(good.all()):
                row, latent = (int(i) for i in (~good).nonzero()[0])
                raise CheckpointError(
                    f"{self.vae.name}: the posterior {name} of latent {latent} at sample "
                    f"{int(index[row])} is {values[row, latent]:g}; expected a finite"
                    f"{'' if name == 'mean' else ', positive'} number. "
                    "The scale head may be read in the wrong form."
                )
        found = {"mean": mean, "std": std}
        if root is not None:
            spread = {"root": root, "variance": covariance.marginal_variance(root)}
            return {**found, **spread, "kl": covariance.correlated_kl(mean, root)}
        if self.vae.prior is None:
            return {**found, "kl": formulas.kl_divergence(mean, std)}
        terms = terms_by_row(self.vae.prior, mean, std, index, self.options.seed)
        asked = {"kl": terms.kl, "prior_slope": terms.slope, "prior_answer": terms.answer}
        return found | asked

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
        quantities["pullback_off_diagonal"] = pulled.off_diagonal
        if pulled.drawn is not None:
            quantities["pullback_drawn"] = pulled.drawn
        return pulled.output

    def _distortions(self, x: Tensor, output: Tensor | None, quantities: dict[str, Tensor]) -> None:
        view, needs = self.view, self.needs
        with torch.no_grad():
            if output is not None:
                quantities["x_check"] = view.mean(output)
                quantities["distortion_transform"] = view.distortion(x, output)
                if "distortion_transform_map" in needs:
                    moved = parts_by_input(view, x, output)
                    quantities["distortion_transform_map"] = moved
                if needs & _AVERAGES:
                    quantities["distortion_least"] = view.apart(output, output)
            if "distortion_self" in needs:
                quantities["distortion_self"] = view.metric.own_distortion(x)
            if needs & (_FIXED | _FIXED_CHECKED):
                self._measure_fixed(x, quantities)

    def _measure_fixed(self, x: Tensor, quantities: dict[str, Tensor]) -> None:
        """Mean distortions over the set of draws that is the same for every row."""
        mean, std = quantities["mean"], quantities["std"]
        noise = fixed_noise(mean.shape[1], self.options.expectation).to(mean)
        root = quantities.get("root")
        wanted = {"distortion_fixed": x} if self.needs & _FIXED else {}
        if self.needs & _FIXED_CHECKED:
            wanted["distortion_fixed_checked"] = quantities["x_check"]
        sums: dict[str, Tensor] = {}
        draws: list[Tensor] = []
        for epsilon in noise:
            shift = std * epsilon if root is None else root @ epsilon
            output = self.view.decode(mean + shift)
            for name, reference in wanted.items():
                found = {name: self.view.distortion(reference, output)}
                if name == "distortion_fixed":
                    draws.append(found[name])
                if f"{name}_map" in self.needs:
                    parts = parts_by_input(self.view, reference, output)
                    found[f"{name}_map"] = parts
                sums |= {k: sums[k] + v if k in sums else v for k, v in found.items()}
        quantities |= {name: total / len(noise) for name, total in sums.items()}
        if "distortion_fixed_draws" in self.needs:
            quantities["distortion_fixed_draws"] = torch.stack(draws, dim=1)

    def _average_two_points(self, x: Tensor, quantities: dict[str, Tensor]) -> None:
        mean, std = quantities["mean"], quantities["std"]
        with torch.no_grad():
            points = (self.view.decode(mean + std), self.view.decode(mean - std))
            whole = formulas.two_points(*(self.view.distortion(x, p) for p in points))
            if self._at_mean is None:
                raise RuntimeError("the decoder was not asked at the mean")
            at = self._at_mean
            coding = formulas.two_points(*(self.view.apart(at, p) for p in points))
        quantities["distortion"], quantities["distortion_pairs"] = whole, whole[:, None]
        quantities["distortion_coding"] = formulas.excess(coding, quantities["distortion_least"])

    def _draw(self, index: np.ndarray, x: Tensor, quantities: dict[str, Tensor]) -> None:
        mean, std = quantities["mean"], quantities["std"]
        n, pairs = mean.shape[1], self.options.pairs
        drawn = normal(self.options.seed, "posterior", index, pairs * n)
        noise = torch.as_tensor(drawn, dtype=mean.dtype, device=mean.device).reshape(-1, pairs, n)
        root = quantities.get("root")
        shifts = std[:, None] * noise if root is None else noise @ root.mT
        draws = torch.stack((mean[:, None] + shifts, mean[:, None] - shifts), dim=2)
        draws = draws.reshape(-1, 2 * pairs, n)
        x_check = quantities["x_check"]
        # With the decomposed objective sigma acts on D(x_check, x_hat), so that is differentiated.
        reference, other = (x_check, x) if self.vae.facts.decomposed else (x, None)
        averaged = bool(self.needs & _AVERAGES) and self.options.expectation == GAUSSIAN
        starts = range(0, len(draws), self.plan.walk)
        blocks = (slice(start, start + self.plan.walk) for start in starts)
        parts = [
            self._walk(at, draws[at], reference[at], other, averaged=averaged) for at in blocks
        ]
        values, others, gradients = (torch.cat(each) for each in zip(*parts, strict=True))
        quantities["distortion_draws"] = values
        if self.needs & _GRADIENTS:
            pulled = shifts if root is None else covariance.pulls(noise, root)
            self._answers(shifts, pulled, gradients, quantities)
        if "draws" in self.needs:
            quantities["draws"] = draws
        if "draw_gradients" in self.needs:
            quantities["draw_gradients"] = gradients
        if averaged:
            whole, coding = (others, values) if self.vae.facts.decomposed else (values, others)
            self._average(whole, coding, shifts, quantities)

    def _walk(
        self,
        at: slice,
        draws: Tensor,
        reference: Tensor,
        other: Tensor | None,
        *,
        averaged: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Distortions of draws from a reference, and from others or Dec(mu); the first's gradients.

        Args:
            at: places of these rows in the batch.
            draws: ``(B, K, n)``.
            reference: of these rows.
            other: of the whole batch; None for Dec(mu).
            averaged: whether the second distortion is needed.

        Returns:
            ``(B, K)``, ``(B, K)`` and ``(B, K, n)``; zeros for what is not needed.
        """
        graded, view = bool(self.needs & _GRADIENTS), self.view.rows(at)
        values, others = [], []
        gradients = torch.zeros_like(draws)
        for k in range(draws.shape[1]):
            with torch.set_grad_enabled(graded), quick_for(self.vae.module):
                z = draws[:, k].clone().requires_grad_(graded)
                output = view.decode(z)
                value = view.distortion(reference, output)
                if graded:
                    (gradients[:, k],) = torch.autograd.grad(value.sum(), z)
            values.append(value.detach())
            with torch.no_grad():
                second = values[-1]
                if averaged and other is not None:
                    second = view.distortion(other[at], output.detach())
                elif averaged and self._at_mean is not None:
                    second = view.apart(self._at_mean[at], output.detach())
            others.append(second)
        return torch.stack(values, dim=1), torch.stack(others, dim=1), gradients

    def _answers(
        self, shifts: Tensor, pulled: Tensor, gradients: Tensor, quantities: dict[str, Tensor]
    ) -> None:
        """Mean products of draws and gradients.

        Args:
            shifts: draws from the posterior less its mean, each taken with both signs,
                ``(B, pairs, n)``.
            pulled: the same for the answer of one latent; ``shifts`` where they are independent.
            gradients: at these, ``(B, 2 pairs, n)``.
            quantities: takes what is needed.
        """
        above, below = gradients[:, 0::2], gradients[:, 1::2]
        turned = 0.5 * (above - below)  # the mean of u dD/dz over a pair is u times this
        std, gram = quantities["std"], self._control("gram", quantities)
        control = self._control("pullback", quantities) if gram is None else gram
        quantities["stationarity"] = (pulled * turned).mean(1)
        if "root" in quantities:
            self._correlated_answers(shifts, pulled, turned, quantities)
        elif control is not None:
            quantities["stationarity"] -= formulas.surplus_of_answers(shifts, std, control)
        if "noise_gradient" in self.needs and "root" not in quantities:
            quantities["noise_gradient"] = shifts.mT @ turned / shifts.shape[1]
            if gram is not None:
                surplus = formulas.surplus_of_products(shifts, std, gram)
                quantities["noise_gradient"] -= surplus
        if "gradient" in self.needs:
            quantities["gradient"] = gradients.mean(1)

    def _correlated_answers(
        self, shifts: Tensor, pulled: Tensor, turned: Tensor, quantities: dict[str, Tensor]
    ) -> None:
        """The same where latents are correlated, so that a draw and its pull are two things."""
        gram, root = self._control("gram", quantities), quantities["root"]
        own = (shifts * turned).mean(1)
        products = None
        if "noise_gradient" in self.needs:
            products = shifts.mT @ turned / shifts.shape[1]
        if gram is not None:
            std = quantities["std"]
            chance = covariance.correlated_surplus_of_answers(shifts, pulled, gram, std)
            quantities["stationarity"] -= chance
            chance = covariance.correlated_surplus_of_products(shifts, gram, root)
            own = own - chance.diagonal(0, -2, -1)
            products = None if products is None else products - chance
        quantities["own_answer"] = own
        if products is not None:
            quantities["noise_gradient"] = products

    def _control(self, name: str, quantities: dict[str, Tensor]) -> Tensor | None:
        """The Gram or its diagonal, where it is known well enough to take noise away."""
        # an estimate of the pullback would bring more noise than it takes away
        return None if self.options.pullback == "probe" else quantities.get(name)

    def _average(
        self, whole: Tensor, coding: Tensor, shifts: Tensor, quantities: dict[str, Tensor]
    ) -> None:
        """Means over antithetic draws ``(B, 2 pairs)`` less what the Gram says of the draws."""
        surplus = self._surplus(shifts, quantities)
        for name, values in (("distortion_pairs", whole), ("coding_pairs", coding)):
            above, below = values[:, 0::2], values[:, 1::2]
            quantities[name] = formulas.expected_distortion(above, below, surplus)
        quantities["distortion"] = quantities["distortion_pairs"].mean(dim=1)
        met = quantities.pop("coding_pairs").mean(dim=1)
        quantities["distortion_coding"] = formulas.excess(met, quantities["distortion_least"])

    def _surplus(self, shifts: Tensor, quantities: dict[str, Tensor]) -> Tensor | float:
        """What draws ``(B, pairs, n)`` add beyond their mean, to second order; 0 where unknown."""
        std, gram = quantities["std"], self._control("gram", quantities)
        if "root" in quantities:
            if gram is None:
                return 0.0
            both: Tensor = covariance.correlated_surplus(shifts, gram, quantities["root"])
            return both
        if gram is not None:
            whole: Tensor = formulas.surplus_of_gram(shifts, std, gram)
            return whole
        diagonal = self._control("pullback", quantities)
        if diagonal is not None:
            part: Tensor = formulas.surplus_of_diagonal(shifts, std, diagonal)
            return part
        return 0.0


def parts_by_input(view: OutputMetric, x: Tensor, output: Tensor) -> Tensor:
    """Parts of the distortion by input, ``(B, *shape)``; see :func:`distortion_by_input`."""
    if isinstance(view.metric, Likelihood):
        return view.metric.by_input(x, output)
    return distortion_by_input(view.distortion, x, output)


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
