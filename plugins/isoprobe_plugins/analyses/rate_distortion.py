"""Tell rate, distortion, and what another beta would do (Section 6, Appendix B)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe.theory import formulas
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context
    from isoprobe.probe.shared import PassStatistics

#: other betas for which active dimensions are predicted: powers of two around the one in force
OCTAVES = 8


class RateDistortion(WithFigures):
    """Losses against their theoretical values, water-filling, and a convergence certificate.

    At an optimum whose encoder and decoder can rescale each latent, E[mu_j^2 + sigma_j^2] = 1,
    so E[KL_j] = -E[log sigma_j]: the ELBO is a sum of entropies. How far each side is from the
    other says how far training is from done.
    """

    name = "rate-distortion"
    summary = (
        "coding and transform loss, mutual information, water-filling, certificate (Eq. 8, 92)"
    )
    needs = frozenset({"distortion", "distortion_coding", "distortion_transform"})
    after = ("importance",)

    def update(self, batch: Batch) -> None:
        """Take in nothing: the overview keeps every mean that is needed."""

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Losses, rates, mutual information, predictions at other betas, certificate."""
        import numpy as np

        beta, active = context.beta.value, context.setup.active
        importance = context.results["importance"]
        exact, known = importance["exact"].values, importance["determined"].values
        prior = context.setup.vae.prior
        certificate = (
            _certificate(context.statistics, beta, active)
            if prior is None
            else {
                "certificate": scalar(
                    f"not judged: E KL = -E log sigma rests on N(0, I), and the prior is "
                    f"{prior.words}",
                    "what the certificate says",
                    **cite(formulas.certificate_gap),
                )
            }
        )
        return {
            **_losses(context.statistics, beta, active),
            **_rates(context.statistics, beta, active),
            **certificate,
            **_predictions(beta, np.where(active & known, exact, 0.0)),
        }


def _losses(found: PassStatistics, beta: float, active: np.ndarray) -> dict[str, Variable]:
    """Losses in excess of D(x, x), as coding theory has no such."""
    source = cite(formulas.excess)
    return {
        "coding_loss_expected": scalar(
            formulas.expected_coding_loss(found.beta.variance(), active, beta),
            "(beta/2) sum of 1 - E[sigma^2] (P_j under another prior) over active dimensions",
            units="metric",
            **cite(formulas.expected_coding_loss),
        ),
        "transform_loss": scalar(
            found.transform.mean,
            "D(x, x_check) - D(x, x), the mean over rows",
            units="metric",
            show="tile",
            label="transform loss",
            **source,
        ),
        "transform_loss_se": scalar(
            found.transform.se, "standard error of the transform loss", units="metric", **source
        ),
        "loss_ratio": scalar(
            formulas.loss_ratio(float(found.transform.mean), float(found.distortion_coding.mean)),
            "transform loss over coding loss",
            **cite(formulas.loss_ratio),
        ),
        "distortion": scalar(
            found.excess.mean,
            "D(x, x_hat) - D(x, x), the mean over rows and posterior draws",
            units="metric",
            **source,
        ),
    }


def _rates(found: PassStatistics, beta: float, active: np.ndarray) -> dict[str, Variable]:
    rates = found.kl.mean
    return {
        "rate_bits": scalar(
            formulas.bits(formulas.rate(rates)), "E KL", units="bit", **cite(formulas.bits)
        ),
        "mutual_information": scalar(
            formulas.mutual_information(rates, active),
            "I(X; X_hat), aggregate posterior taken as the prior",
            units="nat",
            **cite(formulas.mutual_information),
        ),
        "elbo": scalar(
            formulas.elbo(found.excess.mean, formulas.rate(rates), beta),
            "-(E D - D(x, x)) / beta - E KL",
            units="nat",
            **cite(formulas.elbo),
        ),
    }


def _certificate(found: PassStatistics, beta: float, active: np.ndarray) -> dict[str, Variable]:
    entropy = found.entropy.mean
    return {
        "rate_entropy": latent(
            entropy,
            "-E[log sigma_j], E[KL_j] at an optimum",
            units="nat",
            **cite(formulas.entropy_rate),
        ),
        "certificate_gap": scalar(
            formulas.certificate_gap(found.kl.mean, entropy, active),
            "E KL minus its entropy form over active dimensions",
            units="nat",
            **cite(formulas.certificate_gap),
        ),
        "elbo_entropy": scalar(
            formulas.elbo(found.excess.mean, formulas.rate(entropy[active]), beta),
            "the ELBO with the rate in its entropy form",
            units="nat",
            **cite(formulas.elbo),
        ),
    }


def _predictions(beta: float, spectrum: np.ndarray) -> dict[str, Variable]:
    """Reverse water-filling of the spectrum (Eq. 92) at beta and at powers of two around it."""
    import numpy as np

    betas = beta * 2.0 ** np.arange(-OCTAVES, OCTAVES + 1)
    each = betas[:, None]
    over = ("other_beta",)
    return {
        "water_filling_rate": latent(
            formulas.water_filling_rate(spectrum, beta),
            "log(Var(y_j) / (beta/2)) / 2, 0 below the water level",
            units="nat",
            **cite(formulas.water_filling_rate),
        ),
        "other_beta": Variable(
            over, betas, "beta asked about", units="metric", **cite(formulas.water_level)
        ),
        "predicted_active": Variable(
            over,
            formulas.stays_active(spectrum, each).sum(axis=1),
            "dimensions with Var(y_j) > beta/2",
            **cite(formulas.stays_active),
        ),
        "predicted_rate": Variable(
            over,
            formulas.rate(formulas.water_filling_rate(spectrum, each)),
            "rate by water-filling",
            units="nat",
            **cite(formulas.water_filling_rate),
        ),
        "predicted_distortion": Variable(
            over,
            formulas.water_filling_distortion(spectrum, each).sum(axis=1),
            "distortion of the active dimensions by water-filling",
            units="metric",
            **cite(formulas.water_filling_distortion),
        ),
        "collapse_beta": latent(
            formulas.collapse_beta(spectrum),
            "beta above which the dimension is predicted to collapse, 0 where it has",
            units="metric",
            **cite(formulas.collapse_beta),
        ),
    }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Rate and distortion."""
    return [RateDistortion]
