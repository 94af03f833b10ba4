"""Give isometric coordinates y of every sample: distance in y is distance in the metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe.theory.isometric import IsometricMap, map_to_arrays
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.variables import latent

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Batch, Context


class Coordinates(WithFigures):
    """y_j = integral of sqrt(beta/2) / sigma_j from 0 to mu_j (Eq. 16, 67), and its inverse.

    ``isoprobe.theory.isometric.read_map(result)`` gives ``to_isometric`` and ``from_isometric`` for
    any latents, from the knots and slopes stored here.
    """

    name = "coordinates"
    summary = "isometric coordinates y of every sample, and the map to and from them (Eq. 16, 67)"
    needs = frozenset({"mean", "std"})

    def update(self, batch: Batch) -> None:
        """Take in nothing: the overview keeps the scales that the map is made of."""

    def result(self, context: Context) -> Mapping[str, Variable]:
        """The map as knots and slopes."""
        self.map = context.statistics.scales.isometric_map(context.beta.value)
        knots, slopes = map_to_arrays(self.map)
        source = cite(map_to_arrays)
        return {
            "knots": Variable(
                ("latent", "knot"), knots, "z at the knots of the map, NaN unused", **source
            ),
            "slopes": Variable(
                ("latent", "knot"),
                slopes,
                "dy/dz at the knots",
                units="sqrt(metric)",
                **source,
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
                **cite(IsometricMap.to_isometric),
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
                units="metric",
                **cite(IsometricMap.to_isometric),
            )
        }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Coordinates."""
    return [Coordinates]
