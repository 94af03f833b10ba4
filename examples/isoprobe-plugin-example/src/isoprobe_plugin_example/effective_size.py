"""An analysis: how many latents the information is spread over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from isoprobe.contracts import Batch, Context, Setup


class EffectiveSize(Analysis):
    """exp(H(p)) with p_j the share of E[KL_j]: n when all latents carry alike, 1 when one does."""

    name = "effective-size"
    summary = "number of latents the information is spread over"
    needs = frozenset({"kl"})

    def start(self, setup: Setup) -> None:
        """Prepare the running mean; what stands in ``accumulators`` is saved and merged."""
        from isoprobe.statistics.moments import Moments

        super().start(setup)
        self.rate = Moments((setup.vae.latent_size,))
        self.accumulators = {"rate": self.rate}

    def update(self, batch: Batch) -> None:
        """Take in a batch."""
        self.rate.update(batch.array("kl"))

    def result(self, context: Context) -> Mapping[str, Variable]:
        """The effective size, and each latent's share of the rate."""
        import numpy as np

        total = self.rate.mean.sum()
        share = self.rate.mean / total if total > 0 else np.zeros_like(self.rate.mean)
        used = share[share > 0]
        size = np.exp(-(used * np.log(used)).sum()) if used.size else 0.0
        return {
            "effective_size": Variable(
                (),
                np.asarray(size),
                "exp of the entropy of the shares of E[KL_j]",
                units="1",
                equation="Hill 1973",
            ),
            "share": Variable(("latent",), share, "share of E[KL_j]", units="1"),
        }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Return the analyses of this module."""
    return [EffectiveSize]
