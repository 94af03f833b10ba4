"""Measure distances: is |dy| the length of the shortest path, also far from one point?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.statistics.medians import median_interval
from isoprobe.theory.isometric import read_map, straight_in_y
from isoprobe.theory.stated import cite
from isoprobe.theory.tensors import (
    condition_number,
    gram_eigenvalues,
    log_volume,
    relaxed_distortion,
)
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.variables import headed, input_axes, sample, scalar, sourced

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Batch, Context, Setup
    from isoprobe.theory.geodesics import Geodesics, Surface

#: how much time is spent on each path
_EFFORTS = ("quick", "thorough")


class Geometry(WithFigures):
    """Geodesics of M = J'GJ + (beta/2) I between pairs of samples, and M at every sample.

    Args:
        pairs: pairs of samples, drawn by index from the seed.
        pictures: so many of the most distant pairs are decoded along their paths.
        effort: ``quick``, or ``thorough``: eight times as many steps at most for each of both
            starts, twice as many nodes, and both followed to their ends.
    """

    name = "geometry"
    standard_prior = "lengths hold beta / 2 times the curvature of N(0, I)"
    summary = "is y isometric at a distance: geodesics between samples, volume and condition"
    of_rows = frozenset({"pair_rows", "paths", "pictured", "images_straight", "images_geodesic"})
    needs = frozenset({"mean", "std", "gram"})
    after = ("coordinates",)

    def __init__(self, pairs: int = 24, effort: str = "quick", pictures: int = 6) -> None:
        super().__init__()
        if min(pairs, pictures) < 0 or effort not in _EFFORTS:
            raise OptionError(
                "geometry's pairs and pictures are at least 0 and effort 'quick' or 'thorough'; "
                f"found {pairs}, {pictures} and {effort!r}."
            )
        self.pairs, self.effort, self.pictures = pairs, effort, pictures

    def start(self, setup: Setup) -> None:
        """Check that the pullback is exact.

        Raises:
            OptionError: when it is estimated.
        """
        super().start(setup)
        self.vae = setup.vae
        if setup.pullback != "exact":
            raise OptionError(
                "analysis 'geometry' needs all of J'GJ and --pullback "
                f"{setup.pullback} gives its diagonal alone; use --pullback exact."
            )
        told = setup.vae.conditional
        if told is not None and not all(told.classes):
            raise OptionError(
                f"analysis 'geometry' compares rows in one decoder, and {setup.vae.name} is told "
                f"{told.wanted} of each sample: hold it with --condition VALUE."
            )

    def update(self, batch: Batch) -> Mapping[str, Variable]:
        """Store the eigenvalues of J'GJ at each sample."""
        values = gram_eigenvalues(batch["gram"]).cpu().numpy()
        return {
            "pullback_eigenvalues": Variable(
                ("sample", "rank"),
                values,
                "eigenvalues of J'GJ, ascending",
                "metric",
                **cite(gram_eigenvalues),
            )
        }

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Nothing yet."""
        return {}

    def finish_samples(
        self, chunk: Mapping[str, np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Volume, condition and evenness of M at each sample."""
        values = chunk["pullback_eigenvalues"].astype(float) + context.beta.value / 2
        return {
            "log_volume": sample(
                log_volume(values), "log sqrt det M at mu", units="nat", **cite(log_volume)
            ),
            "condition": sample(
                condition_number(values), "condition number of M at mu", **cite(condition_number)
            ),
            "relaxed_distortion": sample(
                relaxed_distortion(values),
                "variance of M's eigenvalues over their squared mean",
                **cite(relaxed_distortion),
            ),
        }

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Distances of the pairs, and how far |dy| is from them."""
        import numpy as np
        import torch

        mean = columns("mean")
        good = np.isfinite(mean).all(axis=1)
        if context.setup.vae.conditional is not None:  # rows of other classes have other decoders
            given = columns("told")
            classes, counts = np.unique(given, axis=0, return_counts=True)
            commonest = classes[counts.argmax()]
            good &= (given == commonest).all(axis=1)
            self.vae = context.setup.vae.held(torch.as_tensor(commonest))
        finite = np.flatnonzero(good)
        pairs = _drawn(finite, self.pairs, context.setup.seed)
        if not len(pairs) or not context.beta.value > 0:
            return {}
        ends = mean[pairs].astype(float)
        labels = columns("label")[pairs] if context.setup.labelled else None
        found = {**_ends(pairs, labels), **self._distances(ends, context)}
        return headed(found, "Distances (beyond)")

    def _distances(self, ends: np.ndarray, context: Context) -> dict[str, Variable]:
        import numpy as np
        import torch

        from isoprobe.theory.geodesics import QUICK, THOROUGH, geodesics, path_length, straight

        seen, block = self._surface(context)
        y = read_map(context.results)
        a, b = torch.from_numpy(ends[:, 0]), torch.from_numpy(ends[:, 1])
        along_z = straight(a, b)
        along_y = torch.from_numpy(straight_in_y(y, ends, along_z.shape[1]))
        effort = QUICK if self.effort == "quick" else THOROUGH
        found = geodesics(seen, [along_z, along_y], effort, block=block)
        line_z, line_y = found.starts.numpy()
        chords = torch.cat(
            [path_length(seen, _chord(part))[0] for part in torch.split(found.points, block)]
        )
        steps = y.to_isometric(ends[:, 0]) - y.to_isometric(ends[:, 1])
        measured = _variables(
            found,
            y=np.linalg.norm(steps, axis=1),
            z=np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1),
            chord=chords.numpy(),
            line_z=line_z,
            line_y=line_y,
        )
        pictures = self._pictures(seen, found, along_z, self.vae)
        return {**sourced(measured, geodesics), **pictures}

    def _pictures(
        self, seen: Surface, found: Geodesics, straight: Tensor, vae: VAE
    ) -> dict[str, Variable]:
        """What the paths of the most distant pairs pass, beside straight lines in z."""
        import torch

        from isoprobe.theory.geodesics import equal_steps

        far = (-found.length).argsort(stable=True)[: self.pictures]
        if not len(far):
            return {}
        axes = input_axes(vae.input_shape)
        pictures = {}
        for name, paths in (("geodesic", found.points), ("straight", straight)):
            z = equal_steps(seen, paths[far], _STEPS)
            with torch.no_grad():
                parts = [vae.decode(row.to(vae.device, vae.dtype)) for row in z]
            pictures[f"images_{name}"] = Variable(
                ("pictured", "step", *axes),
                torch.stack(parts).float().cpu().numpy(),
                f"decoded at equal steps of length, {name} path",
            )
        return {"pictured": Variable(("pictured",), far.numpy(), "pairs decoded"), **pictures}

    def _surface(self, context: Context) -> tuple[Surface, int]:
        """The surface, and how many pairs memory allows at once."""
        from isoprobe.derivatives.memory import decoder_footprint, plan
        from isoprobe.derivatives.metric_tensor import output_metric
        from isoprobe.derivatives.surface import surface

        vae = self.vae
        view = output_metric(context.setup.metric, vae)
        sizes = plan(vae, view.decode, _MEMORY, gram=True)
        # a backward pass keeps all layers of 31 nodes a path, and about as much again in slopes
        row = 2 * 31 * decoder_footprint(vae, view.decode).total * 8
        return surface(view, vae, context.beta.value, sizes), max(1, _MEMORY // row)


_MEMORY = 1 << 30
#: decoded points of a path
_STEPS = 9


def _drawn(rows: np.ndarray, pairs: int, seed: int) -> np.ndarray:
    """Pairs of different rows, no row twice while there are enough: ``(P, 2)``."""
    import numpy as np

    shuffled = np.random.default_rng((seed, 9_1)).permutation(rows)
    count = min(pairs, len(rows) // 2)
    return shuffled[: 2 * count].reshape(count, 2)


def _chord(paths: Tensor) -> Tensor:
    """Only the ends and, since a length needs an even number of segments, an end twice."""
    return paths[:, [0, -1, -1]]


def _ends(pairs: np.ndarray, labels: np.ndarray | None) -> dict[str, Variable]:
    found = {"pair_rows": Variable(("pair", "end"), pairs, "samples at the ends of each pair")}
    if labels is not None:
        axes = ("pair", "end", "factor")[: labels.ndim]
        found["pair_labels"] = Variable(axes, labels, "their labels")
    return found


def _variables(found: Geodesics, **lengths: np.ndarray) -> dict[str, Variable]:
    import numpy as np

    d = found.length.numpy()
    ratio = lengths["y"] / d
    pair = ("pair",)
    words = {
        "distance_y": (lengths["y"], "|y(a) - y(b)|"),
        "chord": (lengths["chord"], "distance of the decoded ends, with the prior's share"),
        "line_z": (lengths["line_z"], "length of the straight line in z"),
        "line_y": (lengths["line_y"], "length of the straight line in y"),
        "geodesic": (d, "length of the shortest path found"),
        "geodesic_error": (found.error.numpy(), "how far off its segments may leave it"),
    }
    low, high = median_interval(ratio)
    scalars = {
        "global_isometry": (
            np.median(ratio),
            "median of |dy| / geodesic length: 1 where y is isometric",
        ),
        "global_isometry_low": (low, "lower end of its 95 % interval"),
        "global_isometry_high": (high, "upper end of its 95 % interval"),
        "excess_y": (np.median(lengths["line_y"] / d) - 1, "excess of straight lines in y"),
        "excess_z": (np.median(lengths["line_z"] / d) - 1, "excess of straight lines in z"),
        **{
            f"correlation_{name}": (
                np.corrcoef(lengths[name], d)[0, 1] if len(d) > 2 else np.nan,
                f"correlation with geodesic length over pairs: {text}",
            )
            for name, text in (("y", "|dy|"), ("z", "|dz|"), ("chord", "chord"))
        },
        "unconverged": ((~found.converged).sum().item(), "paths whose steps ran out"),
    }
    return {
        **{k: Variable(pair, v, text, "sqrt(metric)") for k, (v, text) in words.items()},
        "distance_z": Variable(pair, lengths["z"], "|z(a) - z(b)|"),
        "converged": Variable(
            pair, found.converged.numpy(), "a further step would save less than 1 %"
        ),
        "paths": Variable(
            ("pair", "node", "latent"), found.points.numpy(), "nodes of the shortest paths"
        ),
        **{
            name: scalar(float(value), text, show="tile", form=".3g")
            for name, (value, text) in scalars.items()
        },
    }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Geometry."""
    return [Geometry]
