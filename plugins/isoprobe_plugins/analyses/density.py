"""Give log densities of each sample, in the metric's and in input space (Prop. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.statistics.moments import Moments
from isoprobe.theory import formulas
from isoprobe.theory.stated import cite
from isoprobe.theory.weighted import LARGEST_SHAPE, bound_gap, effective_draws, tail_shape
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.rows import checked_rows
from isoprobe_plugins.analyses.variables import sample, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Analysis, Batch, Context, Setup, Variable

#: beyond this many latents the determinants of the volume correction are left out
GRAM_LIMIT = 256
#: fewer draws have no tail to judge them by
LEAST_DRAWS = 25


_VOLUMES: dict[str, Callable[..., Any]] = {
    "scale": formulas.log_volume_of_scale,
    "determinant": formulas.log_volume_of_diagonal,
    "general": formulas.log_volume_of_surface,
}


class Density(WithFigures):
    """log p(x) by two estimators, relative to the metric's volume and to the input's.

    ``metric`` densities are p(y) of the isometric coordinates: from L_x (Eq. 57) and from the
    prior times sigmas (Eq. 52 with its exponent put right). ``input`` densities add the volume
    correction: Eq. 21 for G = a_x I, Eq. 20 for m = n, and beyond the paper
    (1/2) log det(J'GJ) - (1/2) log det(J'J) over active dimensions, which reduces to both.

    Args:
        volume: ``auto`` takes Eq. 21 or 20 where they apply and the general correction elsewhere;
            ``general`` always takes the general one; ``none`` leaves input densities out.
        draws: draws a row for the importance-weighted bound, 25 at least; 0 leaves it out.
        rows: rows that it is taken on, spread over the data.
    """

    name = "density"
    independent = "its second estimate is a product of sigmas"
    summary = "log density of each sample, metric and input space (Eq. 19-21 and beyond)"
    needs = frozenset({"mean", "std", "distortion_pairs", "distortion_self", "kl"})

    def __init__(self, volume: str = "auto", draws: int = 50, rows: int = 256) -> None:
        super().__init__()
        if volume not in {"auto", "general", "none"}:
            raise OptionError(f"density's volume is auto, general or none; found {volume!r}.")
        if draws and draws < LEAST_DRAWS:
            raise OptionError(
                f"density's draws is 0 or at least {LEAST_DRAWS}, or weights have no tail; "
                f"found {draws}."
            )
        self.volume = volume
        self.draws = draws
        self.rows = checked_rows(rows, self.name)

    def start(self, setup: Setup) -> None:
        """Choose the volume correction; ask for determinants where it needs them."""
        super().start(setup)
        self.noise = Moments()
        self.accumulators = {"noise": self.noise}
        self.route = self._route(setup)
        if self.route == "general":
            self.needs = self.needs | {"gram", "euclidean_gram"}
        elif setup.metric.smooth and self._fits(setup):
            self.needs = self.needs | {"gram"}  # which makes E_z D of a row quiet

    def _route(self, setup: Setup) -> str:
        metric = setup.metric
        if self.volume == "none" or not metric.smooth or metric.likelihood:
            return "none"
        if self.volume == "auto" and metric.scale is not None:
            return "scale"
        if self.volume == "auto" and metric.diagonal is not None and self._full(setup):
            return "determinant"
        return "general" if self._fits(setup) else "none"

    @staticmethod
    def _fits(setup: Setup) -> bool:
        return setup.vae.latent_size <= GRAM_LIMIT and setup.pullback == "exact"

    @staticmethod
    def _full(setup: Setup) -> bool:
        return int(setup.active.sum()) == setup.vae.input_size

    def update(self, batch: Batch) -> Mapping[str, Variable]:
        """Store the volume correction; take in how well the mean over draws is known."""
        pairs = batch.array("distortion_pairs")
        if pairs.shape[1] > 1:
            self.noise.update(pairs.var(axis=1, ddof=1) / pairs.shape[1])
        columns: dict[str, Variable] = {}
        volume = self._log_volume(batch)
        if volume is not None:
            columns["log_volume"] = sample(
                volume,
                f"log of metric volume over input volume ({self.route})",
                units="nat",
                **cite(_VOLUMES[self.route]),
            )
        return columns

    def _log_volume(self, batch: Batch) -> np.ndarray | None:
        import torch

        metric, active = self.setup.metric, torch.as_tensor(self.setup.active)
        if self.route == "scale" and metric.scale is not None:
            a_x = metric.scale(batch.x).double()
            volume = formulas.log_volume_of_scale(a_x, int(active.sum()))
        elif self.route == "determinant" and metric.diagonal is not None:
            volume = formulas.log_volume_of_diagonal(metric.diagonal(batch.x).double().flatten(1))
        elif self.route == "general":
            active = active.to(batch.x.device)
            gram = formulas.active_subset(batch["gram"].double(), active)
            euclidean = formulas.active_subset(batch["euclidean_gram"].double(), active)
            volume = formulas.log_volume_of_surface(gram, euclidean)
        else:
            return None
        array: np.ndarray = volume.cpu().numpy()
        return array

    def finish_samples(
        self, chunk: Mapping[str, np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Log densities of stored samples, once beta is known."""
        beta, active = context.beta.value, context.setup.active
        mean, std = chunk["mean"][:, active].astype(float), chunk["std"][:, active].astype(float)
        whole, rate = chunk["distortion"].astype(float), chunk["kl"].astype(float)
        # D(x, x) is no distance: the expansion behind Eq. 19 is about what D adds to it.
        excess = formulas.excess(whole, chunk["distortion_self"].astype(float))
        by_loss = formulas.log_density_by_loss(excess, rate, beta, int(active.sum()))
        own = self._log_prior(chunk["mean"])
        by_sigmas = formulas.log_density_by_sigmas(mean, std, beta, own)
        columns = {
            "log_density_prior": sample(
                formulas.log_prior(mean) if own is None else own,
                "log p(mu), the prior alone",
                units="nat",
                **cite(formulas.log_prior),
            ),
            "log_density_metric": sample(
                by_loss,
                "log p(y) from -L_x / beta",
                units="nat",
                **cite(formulas.log_density_by_loss),
            ),
            "log_density_metric_sigmas": sample(
                by_sigmas,
                "log p(mu) prod sigma_j, the prior at the mean times sigmas; no bound of log p(y)",
                units="nat",
                **cite(formulas.log_density_by_sigmas),
            ),
        }
        if "log_volume" in chunk:
            volume, source = chunk["log_volume"].astype(float), cite(formulas.input_log_density)
            columns["log_density_input"] = sample(
                formulas.input_log_density(by_loss, volume),
                "log p(x) from -L_x / beta",
                units="nat",
                **source,
            )
            columns["log_density_input_sigmas"] = sample(
                formulas.input_log_density(by_sigmas, volume),
                "the same with the volume; no bound of log p(x)",
                units="nat",
                **source,
            )
        normaliser = self._normaliser(context)
        if normaliser is not None:
            columns["log_density_absolute"] = sample(
                formulas.absolute_log_density(whole, rate, beta, normaliser),
                "absolute log p(x)" + (", a lower bound in expectation" if self._bounds else ""),
                units="nat",
                **cite(formulas.absolute_log_density),
            )
        return columns

    def _log_prior(self, mean: np.ndarray) -> np.ndarray | None:
        """Log p(mu) of used latents ``(B, n) -> (B,)``, where the prior is not N(0, I)."""
        import torch

        prior = self.setup.vae.prior
        if prior is None:
            return None
        used = torch.as_tensor(self.setup.active)
        found: np.ndarray = prior.log_density(torch.as_tensor(mean).double(), used).numpy()
        return found

    def _draw_error(self) -> float:
        """Root mean square error of a row's mean over draws; a few pairs a row tell no more."""
        return float(self.noise.mean) ** 0.5 if self.noise.count else float("inf")

    @property
    def _bounds(self) -> bool:
        """Whether the mean over draws has a bound as its expectation; two points have not."""
        return self.setup.expectation == "gaussian"

    def _normaliser(self, context: Context) -> float | None:
        """Return the log normaliser of the decoder's density; None where there is no density.

        D(x, x) must be one constant: with grey inputs BCE's varies, and nothing is normalised.
        """
        own = context.statistics.distortion_self
        if float(own.sd) > 1e-5 * max(abs(float(own.mean)), 1.0):
            return None
        return self.setup.metric.log_normaliser(context.beta.value, self.setup.vae.input_size)

    def result(self, context: Context) -> Mapping[str, Variable]:
        """What the densities are relative to."""
        normaliser = self._normaliser(context)
        reference = {
            "none": "metric space only",
            "scale": "input space by (n/2) log a_x (Eq. 21)",
            "determinant": "input space by (1/2) log det G (Eq. 20)",
            "general": "input space by (1/2) log det(J'GJ) / det(J'J) over active dimensions",
        }[self.route]
        absolute = (
            "absolute values exist: a lower bound of log p(x) in expectation over draws"
            if normaliser is not None and self._bounds
            else "absolute values exist, and are no bound: E D is taken at two points"
            if normaliser is not None
            else "relative only: exp(-D/beta) is not a normalised density here"
        )
        return {
            "volume": scalar(
                reference,
                "volume the input density refers to",
                **cite(formulas.input_log_density),
            ),
            "distortion_draw_se": scalar(
                self._draw_error(),
                "standard error of a row's E_z D over its draws, pooled over rows",
                units="metric",
                **cite(formulas.expected_distortion),
            ),
            "log_density_metric_se": scalar(
                self._draw_error() / context.beta.value,
                "standard error of a row's log density over its draws, pooled over rows",
                units="nat",
                **cite(formulas.log_density_by_loss),
            ),
            "absolute": scalar(
                absolute, "whether absolute values exist", **cite(formulas.absolute_log_density)
            ),
        }

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """How far the two estimators agree, and how certain each is."""
        import numpy as np

        one, two = columns("log_density_metric"), columns("log_density_metric_sigmas")
        both = np.isfinite(one) & np.isfinite(two)
        one, two = one[both], two[both]
        gap, apart = formulas.disagreement(one, two), cite(formulas.disagreement)
        known = len(one) > 0
        return {
            "mean_log_density_metric": scalar(
                one.mean() if known else np.nan,
                "mean log p(y)",
                units="nat",
                **cite(formulas.log_density_by_loss),
            ),
            "estimator_correlation": scalar(
                formulas.correlation(one, two),
                "correlation of the two log densities",
                show="tile",
                label="agreement of densities",
                form=".3f",
                **cite(formulas.correlation),
            ),
            "estimator_difference_mean": scalar(
                gap.mean() if known else np.nan,
                "mean of log p(y) by L_x minus by sigmas",
                units="nat",
                **apart,
            ),
            "estimator_difference_sd": scalar(
                gap.std() if known else np.nan,
                "standard deviation of that difference",
                units="nat",
                **apart,
            ),
            **self._weighted(context),
        }

    def _weighted(self, context: Context) -> dict[str, Variable]:
        """The importance-weighted bound against the ELBO, and whether it tells anything."""
        import numpy as np

        from isoprobe.probe.weighted import weighted_draws

        beta = context.beta.value
        if not self.draws or not beta > 0:
            return {}
        setup = self.setup
        vae, x = setup.bound(self.rows)
        weights = weighted_draws(vae, setup.metric, x, beta, self.draws, setup.seed)
        gap, shape = bound_gap(weights), tail_shape(weights)
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.inf
        heavy = float((shape > LARGEST_SHAPE).mean())
        claim = (
            f"near log p(x): Pareto k is at most {LARGEST_SHAPE} in {1 - heavy:.0%} of rows"
            if np.median(shape) <= LARGEST_SHAPE
            else f"no claim on log p(x): Pareto k is above {LARGEST_SHAPE} in {heavy:.0%} of rows"
        )
        return {
            "iwae_gap": scalar(
                gap.mean(),
                f"importance-weighted bound of {self.draws} draws less ELBO, {len(gap)} rows",
                units="nat",
                show="tile",
                label="IWAE - ELBO",
                **cite(bound_gap),
            ),
            "iwae_gap_se": scalar(
                error, "standard error of iwae_gap over rows", units="nat", **cite(bound_gap)
            ),
            "effective_draws": scalar(
                effective_draws(weights).mean(),
                f"equal draws that {self.draws} weighted ones are worth, mean over rows",
                **cite(effective_draws),
            ),
            "pareto_k": scalar(
                np.median(shape),
                f"shape of the weights' tail, median over rows; {claim}",
                show="tile",
                label="Pareto k",
                form=".2f",
                **cite(tail_shape),
            ),
            "pareto_k_heavy": scalar(
                heavy, f"share of rows with Pareto k above {LARGEST_SHAPE}", **cite(tail_shape)
            ),
            "iwae_claim": scalar(
                claim, "what the importance-weighted bound tells", **cite(tail_shape)
            ),
        }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Density."""
    return [Density]
