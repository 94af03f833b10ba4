"""Print what geomstats finds for the distances of pairs of points on a saddle, as JSON.

Run by itself (:mod:`tests.theory.test_geodesics` does), since geomstats sets PyTorch's default
dtype for the whole process.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import torch
from torch import Tensor

os.environ["GEOMSTATS_BACKEND"] = "pytorch"
if not hasattr(np, "trapz"):  # geomstats 2.8 imports a name that NumPy 2.4 took away
    np.trapz = np.trapezoid  # type: ignore[attr-defined]

from geomstats.geometry.base import ImmersedSet
from geomstats.geometry.euclidean import Euclidean
from geomstats.numerics.geodesic import ExpODESolver, LogShootingSolver
from geomstats.numerics.ivp import GSIVPIntegrator

from tests.theory.test_geodesics import saddle


class Saddle(ImmersedSet):  # type: ignore[misc]
    """The saddle with the metric that its immersion pulls back."""

    def __init__(self) -> None:
        super().__init__(dim=2)

    def immersion(self, point: Tensor) -> Tensor:
        return saddle(point)

    def _define_embedding_space(self) -> Euclidean:
        return Euclidean(3)


if __name__ == "__main__":
    space = Saddle()
    integrator = GSIVPIntegrator(n_steps=40, step_type="rk4")
    space.metric.exp_solver = ExpODESolver(space, integrator=integrator)
    space.metric.log_solver = LogShootingSolver(space)
    pairs = torch.tensor(json.load(sys.stdin), dtype=torch.float64)
    json.dump([float(space.metric.dist(a, b)) for a, b in pairs], sys.stdout)
