"""Isometric coordinates y of every sample: distance in y is distance in the metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.analyses.variables import latent

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context, Setup


class Coordinates(Analysis):
    """y_j = integral of sqrt(beta/2) / sigma_j from 0 to mu_j (Eq. 16, 67), and its inverse.

    ``isoprobe.theory.isometric.read_map(result)`` gives ``to_isometric`` and ``from_isometric`` for
    any latents, from the knots and slopes stored here.
    """

    name = "coordinates"
    summary = "isometric coordinates y of every sample, and the map to and from them (Eq. 16, 67)"
    needs = frozenset({"mean", "std"})

    def start(self, setup: Setup) -> None:
        """Prepare the table of scales."""
        from isoprobe.theory.isometric import ScaleTable

        super().start(setup)
        self.table = ScaleTable(setup.vae.latent_size)
        self.accumulators = {"table": self.table}

    def update(self, batch: Batch) -> None:
        """Take in a batch."""
        self.table.update(batch.array("mean"), batch.array("std"))

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Variances of y, and the map as knots and slopes."""
        import numpy as np

        from isoprobe.theory.isometric import map_to_arrays

        beta = context.beta.value
        self.map = self.table.isometric_map(beta)
        curves = [self.table.curve(j) for j in range(self.table.latents)]
        knots, slopes = map_to_arrays(self.map)
        return {
            "variance": latent(
                np.array([curve.variance(beta) for curve in curves]),
                "Var(y_j) under the aggregate posterior",
                equation="16, 67",
                units="metric",
            ),
            "knots": Variable(("latent", "knot"), knots, "z at the knots of the map, NaN unused"),
            "slopes": Variable(
                ("latent", "knot"),
                slopes,
                "dy/dz at the knots",
                units="sqrt(metric)",
                equation="16",
            ),
        }

    def finish_samples(
        self, chunk: Mapping[str, np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Y of stored samples."""
        mean = chunk["mean"]
        y = self.map.to_isometric(mean).astype(mean.dtype)
        return {
            "y": Variable(
                ("sample", "latent"),
                y,
                "isometric coordinates of mu",
                units="sqrt(metric)",
                equation="16, 67",
            )
        }

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Variance of the coordinates of the means, without the posterior's beta/2."""
        return {
            "variance_of_mean": latent(
                columns("y").astype(float).var(axis=0),
                "variance of y(mu_j)",
                equation="16, 67",
                units="metric",
            )
        }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Coordinates."""
    return [Coordinates]
