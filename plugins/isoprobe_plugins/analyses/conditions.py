"""Measure what an optimum demands beyond sigma: gains, shifts, moments, axes, reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe.probe.beta import RESPONSE, ROOM, STATIONARY, weighed
from isoprobe.probe.prior import answer_called_for
from isoprobe.probe.widths import own_answer, variance_of
from isoprobe.statistics.jackknife import jackknife
from isoprobe.statistics.moments import BlockSums, Moments
from isoprobe.statistics.peaks import Peaks
from isoprobe.theory.conditions import (
    gain_error,
    isometry_eigenvalues,
    mixing,
    round_trip,
    sharpness,
    shift_error,
    turning,
)
from isoprobe.theory.covariance import isometric_eigenvalues
from isoprobe.theory.formulas import excess, kl_divergence, objective, residual
from isoprobe.theory.judge import used_latents
from isoprobe.theory.pooling import pooled_ratio, pooled_sums
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup
    from isoprobe.statistics.moments import Estimate

#: beyond this many latents the n x n conditions are left out
PAIRS_LIMIT = 64
#: inputs for what is tried beside the run
TRIED = 512
#: level of the quantile of a row's rate that is kept beside its mean
RARELY = 0.999
_COLUMNS = ("mean", "square", "slope", "answer", "sharp", "curvature")
_LOSSES = ("count", "distortion", "expected", "self", "rate")


class Conditions(Analysis):
    """Decoder gain and shift, second moments, mixing of latents, eigenvalues, own samples.

    Latents of spatial maps are pooled over positions, since a convolution can absorb no more than
    a mixing of channels.

    Args:
        trials: try own samples, and what PCA reaches, beside the run; the judge asks for them.
    """

    name = "conditions"
    summary = "what an optimum demands of decoder, encoder and axes, each with its error"
    needs = frozenset(
        {
            "mean",
            "std",
            "kl",
            "stationarity",
            "gradient",
            "distortion_draws",
            "distortion_transform",
            "distortion_self",
        }
    )

    def __init__(self, trials: bool = True) -> None:
        super().__init__()
        self.trials = trials

    def start(self, setup: Setup) -> None:
        """Prepare block sums; ask for the Gram matrix where it is at hand."""
        from isoprobe.probe.trials import channels

        super().start(setup)
        n = setup.vae.latent_size
        self.channels = channels(setup.vae)
        self.sums = BlockSums((n, len(_COLUMNS)))
        self.losses = BlockSums((len(_LOSSES),))
        self.pairs = BlockSums((2, n, n)) if n <= PAIRS_LIMIT else None
        self.eigenvalues, self.scale = Moments((n,)), Moments((n,))
        self.peaks = Peaks(n)
        self.accumulators = {
            "sums": self.sums,
            "losses": self.losses,
            "eigenvalues": self.eigenvalues,
            "scale": self.scale,
            "peaks": self.peaks,
        }
        if setup.vae.correlated:
            self.accumulators["isometric"] = self.isometric = Moments((n,))
        if self.pairs is not None:
            self.accumulators["pairs"] = self.pairs
            self.needs = self.needs | {"noise_gradient"}
        if setup.metric.smooth:
            self.needs = self.needs | {"pullback"}
            if setup.pullback == "exact" and n <= PAIRS_LIMIT:
                self.needs = self.needs | {"gram"}

    def update(self, batch: Batch) -> None:
        """Take in a batch."""
        import numpy as np

        mean, std = batch.array("mean"), batch.array("std")
        called_for = answer_called_for(batch)
        gradient = batch.array("gradient")
        columns = {
            "mean": mean,
            "square": mean**2,
            "slope": gradient,
            "answer": mean * gradient + own_answer(batch),
            "sharp": (1 - called_for) / std**2,
            "curvature": sharpness(mean, std, called_for, variance_of(batch)),
        }
        self.sums.update(batch.index, np.stack([columns[name] for name in _COLUMNS], axis=2))
        self.scale.update(np.log(std))
        self.peaks.update(batch.array("kl"))
        losses = (
            np.ones(len(mean)),
            batch.array("distortion_transform"),
            batch.array("distortion_draws").mean(axis=1),
            batch.array("distortion_self"),
            batch.array("kl").sum(axis=1),
        )
        self.losses.update(batch.index, np.stack(losses, axis=1))
        if self.pairs is not None:
            moved = batch.array("noise_gradient")
            still = mean[:, :, None] * gradient[:, None, :]
            self.pairs.update(batch.index, np.stack([still + moved, moved], axis=1))
        if "gram" in batch.quantities:
            root = batch.quantities.get("root")
            scale = batch["std"] if root is None else root
            values = isometry_eigenvalues(batch["gram"], scale, 1.0)
            self.eigenvalues.update(values.cpu().numpy())
            if root is not None:
                self.isometric.update(isometric_eigenvalues(root).cpu().numpy())

    # ------------------------------------------------------------------ results

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Every condition by latent, with its standard error."""
        import numpy as np

        sums, rate = context.statistics.beta, context.statistics.kl.mean
        used = weighed(context.setup.active, context.setup.vae.facts, rate)
        pooled, pulled = sums.pooled(STATIONARY, used), sums.pooled(RESPONSE, used)
        beta = float(pooled.value) if pooled is not None and pooled.value > 0 else np.nan
        room, stationary = sums.column(ROOM), sums.column(STATIONARY)
        mean, square = self._column("mean"), self._column("square")
        count = np.broadcast_to(self.sums.counts[:, None].astype(float), mean.shape)
        # beta is estimated on the same samples: what it divides has an error only together with it
        trusted = pooled_sums(stationary[:, used], room[:, used], sums.trust()[used])
        above, below = (part[:, None] for part in trusted)
        if not beta > 0:
            below = below * np.nan
        gain = jackknife(lambda t, c: gain_error(t, c, beta), *self._both("answer", "curvature"))
        shift = jackknife(lambda t, c: gain_error(t, c, beta), *self._both("slope", "sharp"))
        return {
            **_with_error(
                "variance", jackknife(_variance, count, mean, square), used_latents, "Var(mu_j)"
            ),
            **_with_error(
                "answer",
                jackknife(lambda c, s, a, b: s * b / a / c, count, stationary, above, below),
                residual,
                "norm by stationarity, at the recovered beta",
            ),
            **_with_error(
                "residual",
                jackknife(
                    lambda c, s, r, a, b: (s * b / a - r) / c, count, stationary, room, above, below
                ),
                residual,
                "norm by stationarity + sigma_j^2 - 1, at the recovered beta",
            ),
            **_with_error(
                "gain", gain, gain_error, "relative excess of the decoder's response to a latent"
            ),
            **_with_error(
                "shift", shift, shift_error, "shift of the decoder along a latent, in units of z"
            ),
            **_estimate(
                "beta", pooled, "beta by stationarity, pooled over used latents", pooled_ratio
            ),
            **_estimate(
                "beta_pullback",
                pulled,
                "beta by the pullback, pooled over used latents",
                pooled_ratio,
            ),
            **_with_error(
                "beta_each",
                sums.by_latent(STATIONARY),
                pooled_ratio,
                "beta by stationarity, of each latent",
            ),
            "scale_sd": latent(
                self.scale.sd, "standard deviation of log sigma_j over rows", theory="Setting"
            ),
            "kl_max": latent(
                self.peaks.largest,
                "KL_j of the row that uses the latent most",
                units="nat",
                show="none",
                **cite(kl_divergence),
            ),
            "kl_high": latent(
                self.peaks.quantile(RARELY),
                f"{RARELY:.1%} quantile of KL_j over rows, where there are enough",
                units="nat",
                show="none",
                **cite(kl_divergence),
            ),
            **self._loss(beta),
            **self._mixing(context, beta),
            **self._by_rank(context, beta),
            **(self._tried(used) if self.trials else {}),
        }

    def _column(self, name: str) -> np.ndarray:
        """Block sums of one column, ``(BLOCKS, n)``."""
        sums: np.ndarray = self.sums.sums[:, :, _COLUMNS.index(name)]
        return sums

    def _both(self, above: str, below: str) -> tuple[np.ndarray, np.ndarray]:
        """Two columns, pooled over positions where latents are maps."""
        return self._channels(above), self._channels(below)

    def _channels(self, name: str) -> np.ndarray:
        """The column with spatial latents averaged over positions, in every position's place."""
        import numpy as np

        sums = self._column(name)
        if not self.channels:
            return sums
        maps = sums.reshape(len(sums), self.channels, -1)
        return np.broadcast_to(maps.mean(axis=2, keepdims=True), maps.shape).reshape(sums.shape)

    def _loss(self, beta: float) -> dict[str, Variable]:
        """Distortions less D(x, x), and L_x at the recovered beta."""
        count, at_mean, expected, own, rate = self.losses.sums.T[:, :, None]
        decoded = jackknife(lambda c, d, s: excess(d, s) / c, count, at_mean, own)
        loss = jackknife(lambda c, d, s, r: (d - s + beta * r) / c, count, expected, own, rate)
        itself = jackknife(lambda c, s: s / c, count, own)
        return {
            **_estimate("distortion", decoded, "D(x, Dec(mu)) - D(x, x)", excess),
            **_estimate("loss", loss, "L_x - D(x, x) at the recovered beta", objective),
            **_estimate("distortion_self", itself, "D(x, x)", excess),
        }

    def _mixing(self, context: Context, beta: float) -> dict[str, Variable]:
        """Conditions on pairs of latents."""
        import numpy as np

        if self.pairs is None or self.channels:
            return {}
        found = context.statistics
        count = max(int(self.sums.counts.sum()), 1)
        variances = found.variance.mean
        second = self._column("square").sum(axis=0) / count + variances
        sharp = self._column("sharp").sum(axis=0) / count
        outers, noise = self.pairs.sums[:, 0], self.pairs.sums[:, 1]
        counts = np.broadcast_to(self.sums.counts[:, None, None].astype(float), outers.shape)
        outer = jackknife(lambda o, c: o / c, outers, counts)
        turned = jackknife(lambda o, c: turning(o / c, variances, beta), noise, counts)
        errors = np.abs(mixing(outer.se, second, sharp, beta))
        turns = {
            "turn": _pairs(turned.value, "turn of a pair of latents, as a cosine", turning),
            "turn_se": _pairs(turned.se, "standard error of turn", turning),
        }
        vae = self.setup.vae
        if vae.prior is not None or vae.correlated:
            turns = {}  # turning both sides changes what the prior says; a covariance turns along
        return {
            "mixing": _pairs(
                mixing(outer.value, second, sharp, beta),
                "share of latent_2's decoder column that latent holds in excess",
                mixing,
            ),
            "mixing_se": _pairs(errors, "standard error of mixing", mixing),
            **turns,
        }

    def _by_rank(self, context: Context, beta: float) -> dict[str, Variable]:
        """Eigenvalues beside what they are where the embedding is isometric."""
        import numpy as np

        if not self.eigenvalues.count or self.setup.vae.prior is not None:
            return {}  # to second order they mix the prior's curvature in
        expected = np.sort(1 - context.statistics.beta.variance())[::-1]
        text = (
            "eigenvalues of (2/beta) S^(1/2) J'GJ S^(1/2), mean by rank; 1 - sigma^2 if isometric"
        )
        if self.setup.vae.correlated:
            expected = self.isometric.mean
            text = "eigenvalues of (2/beta) L'J'GJL, mean by rank; those of I - L'L at an optimum"
        values = {
            "eigenvalue": (self.eigenvalues.mean / beta, text),
            "eigenvalue_se": (self.eigenvalues.se / beta, "standard error of the mean eigenvalue"),
            "eigenvalue_expected": (expected, self._expected_eigenvalues),
        }
        return {
            name: Variable(("rank",), value, said, **cite(isometry_eigenvalues))
            for name, (value, said) in values.items()
        }

    @property
    def _expected_eigenvalues(self) -> str:
        if self.setup.vae.correlated:
            return "eigenvalues of I - L'L, mean by rank"
        return "1 - E[sigma_j^2], in descending order"

    def _tried(self, used: np.ndarray) -> dict[str, Variable]:
        """What a few rows tell beside the run: own samples, and what PCA reaches."""
        from isoprobe.probe.selfcheck import mean_input_distortion
        from isoprobe.probe.trials import own_samples, pca_distortion

        setup = self.setup
        variables: dict[str, Variable] = {}
        own = own_samples(setup.vae, setup.seed)
        if own is not None:
            text = "slope of mu_k(Dec(z)) on z_j at draws z of the prior"
            variables["round_trip"] = _pairs(own.slopes, text, round_trip)
            variables["round_trip_expected"] = latent(
                own.expected,
                "1 - sigma_j^2 at the model's own samples: that slope at an optimum",
                show="none",
                **cite(round_trip),
            )
        x = setup.sample(TRIED)
        reached = pca_distortion(setup.metric, x, int(used.sum())) if used.any() else None
        mean = mean_input_distortion(setup.metric, x)
        for name, value, text, formula in (
            ("mean_distortion", mean, "D of the mean input", mean_input_distortion),
            (
                "pca_distortion",
                reached,
                "D of a PCA with as many components as used latents",
                pca_distortion,
            ),
        ):
            if value is not None:
                variables[name] = scalar(value, text, units="metric", **cite(formula))
        return variables


def _variance(count: np.ndarray, mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Var(mu_j) from sums."""
    found: np.ndarray = square / count - (mean / count) ** 2
    return found


def _pairs(values: np.ndarray, text: str, formula: Callable[..., object]) -> Variable:
    return Variable(("latent", "latent_2"), values, text, **cite(formula))


def _with_error(
    name: str, estimate: Estimate, formula: Callable[..., object], text: str
) -> dict[str, Variable]:
    source = cite(formula)
    return {
        name: latent(estimate.value, text, show="none", **source),
        f"{name}_se": latent(estimate.se, f"standard error of {name}", show="none", **source),
    }


def _estimate(
    name: str, estimate: Estimate | None, text: str, formula: Callable[..., object]
) -> dict[str, Variable]:
    import numpy as np

    if estimate is None:
        return {}
    parts = {"": estimate.value, "_se": estimate.se, "_low": estimate.low, "_high": estimate.high}
    said = {"": text, "_se": f"standard error of {name}"}
    return {
        name + suffix: scalar(
            float(np.asarray(value).reshape(())),
            said.get(suffix, f"end of the 95 % interval of {name}"),
            units="metric",
            show="none",
            **cite(formula),
        )
        for suffix, value in parts.items()
    }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Conditions."""
    return [Conditions]
