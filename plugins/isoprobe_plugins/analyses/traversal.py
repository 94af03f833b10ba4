"""Show what each latent does, in steps of z and in equal steps of y (Figures 6 and 26)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.statistics.moments import Moments
from isoprobe.theory.importance import order_of_importance
from isoprobe.theory.isometric import IsometricMap, map_from_arrays
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.variables import input_axes, latent

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import VAE, Batch, Context, Setup


#: code of a latent that carries nothing
COLLAPSED = 2
#: walks at most, and bytes that one way of walking may take, where their number is not given
_MOST, _BYTES = 64, 64 << 20


class Traversal(WithFigures):
    """Decoded walks along the leading latents, the others held still.

    Args:
        latents: how many, in descending importance; None takes those that are used, at most 64
            and fewer where inputs are large.
        steps: points of each walk.
        low: first value of z_j.
        high: last value of z_j.
        at: ``origin`` holds the others at 0; a number holds them at that sample's mean.
    """

    name = "traversal"
    summary = "decoded walks along the leading latents, steps in z and in y (Fig. 6, 26)"
    needs = frozenset({"mean", "std"})
    after = ("importance", "coordinates")

    def __init__(
        self,
        latents: int | None = None,
        steps: int = 11,
        low: float = -2.0,
        high: float = 2.0,
        at: str = "origin",
    ) -> None:
        super().__init__()
        if (latents is not None and latents < 1) or steps < 2 or not low < high:
            raise OptionError(
                "traversal needs latents >= 1, steps >= 2 and low < high; "
                f"found {latents}, {steps}, {low} and {high}."
            )
        if at != "origin" and not at.isdecimal():
            raise OptionError(f"traversal's at is 'origin' or a sample number; found {at!r}.")
        self.latents, self.steps, self.low, self.high, self.at = latents, steps, low, high, at

    def start(self, setup: Setup) -> None:
        """Check that the sample to hold to is among those that will come.

        Raises:
            OptionError: when it is not.
        """
        super().start(setup)
        if self.at != "origin" and int(self.at) >= setup.samples:
            raise OptionError(
                f"traversal cannot hold to sample {self.at}; the run has {setup.samples}."
            )
        self.held = Moments((setup.vae.latent_size,))
        told = setup.vae.conditional
        self.told = Moments((0 if told is None else len(told.classes),))
        self.accumulators = {"held": self.held, "told": self.told}

    def update(self, batch: Batch) -> None:
        """Keep the mean of the sample to hold to."""
        if self.at == "origin":
            return
        here = batch.index == int(self.at)
        self.held.update(batch.array("mean")[here])
        if batch.condition is not None:
            self.told.update(batch.condition[here])

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Walks ``(rank, step, *input axes)`` with their z and y."""
        import numpy as np

        coordinates = context.results["coordinates"]
        order = self._walked(context)
        maps = map_from_arrays(coordinates["knots"].values, coordinates["slopes"].values)
        z = np.tile(np.linspace(self.low, self.high, self.steps), (len(order), 1))
        y = np.stack(
            [maps.coordinates[j].to_isometric(row) for j, row in zip(order, z, strict=True)]
        )
        equal_y = np.linspace(y[:, 0], y[:, -1], self.steps, axis=1)
        equal_z = np.stack(
            [maps.coordinates[j].from_isometric(row) for j, row in zip(order, equal_y, strict=True)]
        )
        grid, to_y = ("rank", "step"), cite(IsometricMap.to_isometric)
        return {
            "latents": Variable(
                ("rank",),
                order,
                "latent walked along, by importance",
                **cite(order_of_importance),
            ),
            "base": latent(self.held.mean, "z held still", theory="Importance"),
            "z": Variable(grid, z, "z_j, equal steps in z", theory="Importance"),
            "y": Variable(grid, y, "y_j of those", units="sqrt(metric)", **to_y),
            "images": self._decode(order, z, "equal steps in z"),
            "z_equal_y": Variable(
                grid, equal_z, "z_j, equal steps in y", **cite(IsometricMap.from_isometric)
            ),
            "y_equal_y": Variable(grid, equal_y, "y_j of those", units="sqrt(metric)", **to_y),
            "images_equal_y": self._decode(order, equal_z, "equal steps in y"),
        }

    def _walked(self, context: Context) -> np.ndarray:
        """Latents to walk along, by importance; the first one where none is used."""
        importance = context.results["importance"]
        order = importance["order"].values
        if self.latents is not None:
            return order[: self.latents]
        used = order[importance["state"].values[order] != COLLAPSED]
        room = _BYTES // (4 * self.steps * self.setup.vae.input_size)
        return used[: max(1, min(_MOST, room))] if len(used) else order[:1]

    def _vae(self) -> VAE:
        """The model told what the sample is that is held to, or what most samples are."""
        import torch

        if self.setup.vae.conditional is None or not self.told.count:
            return self.setup.fixed
        return self.setup.vae.held(torch.as_tensor(self.told.mean))

    def _decode(self, order: np.ndarray, z: np.ndarray, how: str) -> Variable:
        import numpy as np
        import torch

        vae = self._vae()
        walks = []
        for j, row in zip(order, z, strict=True):
            points = np.tile(self.held.mean, (self.steps, 1))
            points[:, j] = row
            with torch.no_grad():
                decoded = vae.decode(torch.as_tensor(points, dtype=vae.dtype, device=vae.device))
            walks.append(decoded.float().cpu().numpy())
        return Variable(
            ("rank", "step", *input_axes(vae.input_shape)),
            np.stack(walks),
            f"decoded walks, {how}",
            theory="Importance",
        )


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Traversal."""
    return [Traversal]
