"""Rate, distortion, and what another beta would do (Section 6, Appendix B)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup

#: other betas for which active dimensions are predicted: powers of two around the one in force
OCTAVES = 8


class RateDistortion(Analysis):
    """Losses against their theoretical values, water-filling, and a convergence certificate.

    At an optimum whose encoder and decoder can rescale each latent, E[mu_j^2 + sigma_j^2] = 1,
    so E[KL_j] = -E[log sigma_j]: the ELBO is a sum of entropies. How far each side is from the
    other says how far training is from done.
    """

    name = "rate-distortion"
    summary = (
        "coding and transform loss, mutual information, water-filling, certificate (Eq. 8, 92)"
    )
    needs = frozenset(
        {
            "mean",
            "std",
            "kl",
            "distortion",
            "distortion_coding",
            "distortion_transform",
            "distortion_self",
        }
    )

    def start(self, setup: Setup) -> None:
        """Prepare accumulators."""
        from isoprobe.statistics.moments import Moments
        from isoprobe.theory.isometric import ScaleTable

        super().start(setup)
        n = setup.vae.latent_size
        self.table = ScaleTable(n)
        self.latents = {name: Moments((n,)) for name in ("kl", "second_moment", "entropy_rate")}
        self.losses = {name: Moments() for name in ("distortion", "coding", "transform")}
        self.accumulators = {"table": self.table, **self.latents, **self.losses}

    def update(self, batch: Batch) -> None:
        """Take in a batch; D(x, x) is subtracted from every loss, as coding theory has no such."""
        import numpy as np

        mean, std = batch.array("mean"), batch.array("std")
        self.table.update(mean, std)
        self.latents["kl"].update(batch.array("kl"))
        self.latents["second_moment"].update(mean**2 + std**2)
        self.latents["entropy_rate"].update(-np.log(std))
        own = batch.array("distortion_self")
        self.losses["distortion"].update(batch.array("distortion") - own)
        self.losses["transform"].update(batch.array("distortion_transform") - own)
        self.losses["coding"].update(batch.array("distortion_coding"))

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Losses, rates, mutual information, predictions at other betas, certificate."""
        import numpy as np

        beta, active = context.beta.value, context.setup.active
        spectrum = np.array([self.table.curve(j).variance(beta) for j in range(len(active))])
        return {
            **self._losses(beta, active),
            **self._rates(beta, active),
            **self._certificate(beta, active),
            **_predictions(beta, np.where(active, spectrum, 0.0)),
        }

    def _losses(self, beta: float, active: np.ndarray) -> dict[str, Variable]:
        coding, transform = self.losses["coding"], self.losses["transform"]
        expected = active.sum() * beta / 2
        return {
            "coding_loss": scalar(
                coding.mean,
                "E D(x_check, x_hat)",
                units="metric",
                equation="54",
                show="tile",
                label="coding loss",
            ),
            "coding_loss_se": scalar(
                coding.se, "standard error of the coding loss", units="metric"
            ),
            "coding_loss_expected": scalar(
                expected, "n_active beta / 2", units="metric", equation="54, 62"
            ),
            "transform_loss": scalar(
                transform.mean,
                "E D(x, x_check)",
                units="metric",
                equation="9",
                show="tile",
                label="transform loss",
            ),
            "transform_loss_se": scalar(transform.se, "standard error of it", units="metric"),
            "loss_ratio": scalar(
                _ratio(transform.mean, coding.mean),
                "transform loss over coding loss",
                units="1",
                equation="12",
            ),
            "distortion": scalar(
                self.losses["distortion"].mean,
                "E_z D(x, x_hat) - D(x, x)",
                units="metric",
                equation="3",
            ),
        }

    def _rates(self, beta: float, active: np.ndarray) -> dict[str, Variable]:
        from isoprobe.theory.formulas import NATS_TO_BITS

        rate = self.latents["kl"]
        # Eq. 8 with H(Y) under the aggregate posterior and p(y) = p(z) dz/dy: this is E KL.
        information = rate.mean[active].sum()
        return {
            "rate": scalar(rate.mean.sum(), "E KL", units="nat", equation="2"),
            "rate_bits": scalar(rate.mean.sum() * NATS_TO_BITS, "E KL", units="bit", equation="2"),
            "mutual_information": scalar(
                information,
                "I(X; X_hat), aggregate posterior taken as the prior",
                units="nat",
                equation="8",
            ),
            "elbo": scalar(
                -self.losses["distortion"].mean / beta - rate.mean.sum(),
                "-(E D - D(x, x)) / beta - E KL",
                units="nat",
                equation="B.1",
            ),
        }

    def _certificate(self, beta: float, active: np.ndarray) -> dict[str, Variable]:
        entropy, second = self.latents["entropy_rate"].mean, self.latents["second_moment"].mean
        rate = self.latents["kl"].mean
        gap = (rate - entropy)[active].sum()
        return {
            "second_moment": latent(
                second, "E[mu^2 + sigma^2], 1 at an optimum", equation="theory 6"
            ),
            "rate_entropy": latent(
                entropy, "-E[log sigma_j], E[KL_j] at an optimum", equation="theory 6"
            ),
            "certificate_gap": scalar(
                gap,
                "E KL minus its entropy form over active dimensions",
                units="nat",
                equation="theory 6",
            ),
            "elbo_entropy": scalar(
                -self.losses["distortion"].mean / beta - entropy[active].sum(),
                "the ELBO with the rate in its entropy form",
                units="nat",
                equation="theory 6",
            ),
        }


def _ratio(transform: np.ndarray, coding: np.ndarray) -> float:
    """Transform loss over coding loss; NaN for a model that codes nothing."""
    return float(transform / coding) if coding else float("nan")


def _predictions(beta: float, spectrum: np.ndarray) -> dict[str, Variable]:
    """Reverse water-filling of the spectrum (Eq. 92) at beta and at powers of two around it."""
    import numpy as np

    betas = beta * 2.0 ** np.arange(-OCTAVES, OCTAVES + 1)
    stays = spectrum > betas[:, None] / 2
    ratio = np.where(stays, spectrum, betas[:, None] / 2) / (betas[:, None] / 2)
    rates = 0.5 * np.log(ratio)
    here = OCTAVES
    return {
        "spectrum": latent(
            spectrum, "Var(y_j), 0 where collapsed", equation="16, 67", units="metric"
        ),
        "water_filling_rate": latent(
            rates[here], "log(Var(y_j) / (beta/2)) / 2", equation="92", units="nat"
        ),
        "water_filling_distortion": scalar(
            np.minimum(spectrum, beta / 2).sum(),
            "sum of min(beta/2, Var(y_j))",
            units="metric",
            equation="92",
        ),
        "other_beta": Variable(("other_beta",), betas, "beta asked about", units="metric"),
        "predicted_active": Variable(
            ("other_beta",),
            stays.sum(axis=1),
            "dimensions with Var(y_j) > beta/2",
            units="1",
            equation="92",
        ),
        "predicted_rate": Variable(
            ("other_beta",), rates.sum(axis=1), "rate by water-filling", units="nat", equation="92"
        ),
        "predicted_distortion": Variable(
            ("other_beta",),
            np.minimum(spectrum, betas[:, None] / 2).sum(axis=1),
            "distortion of the active dimensions by water-filling",
            units="metric",
            equation="92",
        ),
        "collapse_beta": latent(
            2 * spectrum,
            "beta above which the dimension is predicted to collapse",
            equation="92",
            units="metric",
        ),
    }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Rate and distortion."""
    return [RateDistortion]
