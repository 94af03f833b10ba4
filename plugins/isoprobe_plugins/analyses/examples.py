"""Show rows beside their reconstructions, the worst, the likely and the odd, and own samples.

A wrong preprocessing, a decoder that blurs, a prior that is not filled: a person sees each at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.probe.prior import from_prior
from isoprobe.theory.formulas import objective, weighted_rate
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.variables import headed, input_axes

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import Batch, Context

#: bytes of inputs that a result holds of each kind at most, so that large images stay few
_BYTES = 4 << 20
#: kinds of rows that stand beside what the decoder makes of their means, and kinds by objective
DECODED, RANKED = ("spread", "worst"), ("likely", "unlikely")


class Examples(WithFigures):
    """Rows of four kinds with their reconstructions, and samples of the prior.

    The kinds are ``spread`` evenly over the run, ``worst`` by E_z D, ``likely`` and ``unlikely`` by
    the objective E_z D + beta KL.

    Args:
        rows: of each kind; fewer where inputs are large.
    """

    name = "examples"
    summary = "rows beside reconstructions, the worst, most and least likely ones; prior samples"
    of_rows = frozenset(
        f"{rows}{what}"
        for rows in ("spread", "worst", "likely", "unlikely")
        for what in ("", "_input", "_decoded", "_distortion", "_objective")
    )
    needs = frozenset({"distortion", "kl"})

    def __init__(self, rows: int = 8) -> None:
        super().__init__()
        if rows < 1:
            raise OptionError(f"examples needs rows >= 1; found {rows}.")
        self.rows = rows

    def update(self, batch: Batch) -> None:
        """Take in nothing: rows are chosen when all are known."""

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Decoded samples of the prior, ``(draw, *input axes)``."""
        import numpy as np
        import torch

        vae, count = context.setup.fixed, 2 * self._count(context)
        z = from_prior(vae, context.setup.seed, "examples", np.arange(count))
        with torch.no_grad():
            drawn = vae.decode(z)
        axes = input_axes(vae.input_shape)
        return headed(
            {"prior": Variable(("draw", *axes), _array(drawn), "decoded samples of the prior")},
            "Setting",
        )

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Rows of each kind with their position in the run, and what they are chosen by."""
        if context.setup.rows is None:
            return {}
        found: dict[str, Variable] = {}
        for kind, positions in self._chosen(columns, context).items():
            found |= self._kind(kind, positions, columns, context)
        return headed(found, "Setting")

    def _count(self, context: Context) -> int:
        return max(2, min(self.rows, _BYTES // (4 * context.setup.vae.input_size)))

    def _chosen(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> dict[str, np.ndarray]:
        """Positions by kind; likely ones only where beta is known."""
        import numpy as np

        distortion = columns("distortion").astype(float)
        length = len(distortion)
        count = min(self._count(context), length)
        loss = _loss(columns, context)
        chosen = {"spread": np.arange(count) * length // count}
        chosen |= _ends(distortion, count, ("", "worst"))
        chosen |= _ends(loss, count, ("likely", "unlikely"))
        return {kind: positions for kind, positions in chosen.items() if kind and len(positions)}

    def _kind(
        self,
        kind: str,
        positions: np.ndarray,
        columns: Callable[[str], np.ndarray],
        context: Context,
    ) -> dict[str, Variable]:
        import torch

        from isoprobe.probe.told import encoded

        vae, axes = context.setup.vae, input_axes(context.setup.vae.input_shape)
        assert context.setup.rows is not None  # noqa: S101 (seen before)
        x = context.setup.rows(positions)
        found = {
            kind: Variable((kind,), positions, f"positions in the run, {kind}"),
            f"{kind}_input": Variable((kind, *axes), _array(x), "those rows"),
        }
        if kind in RANKED:
            loss, said = _loss(columns, context)[positions], "objective of those rows"
            ranked = Variable((kind,), loss, said, "metric", **cite(objective))
            return found | {f"{kind}_objective": ranked}
        told = None
        if vae.conditional is not None:
            told = torch.as_tensor(columns("told")[positions]).to(x)
        vae = vae.on(x, told)
        with torch.no_grad():
            decoded = _array(vae.decode(encoded(vae, x).mean))
        distortion = columns("distortion")[positions]
        return found | {
            f"{kind}_decoded": Variable((kind, *axes), decoded, "Dec(mu) of those rows"),
            f"{kind}_distortion": Variable(
                (kind,),
                distortion,
                "mean of D(x, x_hat) over posterior draws, of those rows",
                "metric",
            ),
        }


def _loss(columns: Callable[[str], np.ndarray], context: Context) -> np.ndarray:
    """The objective of every row; NaN where beta is not known."""
    rates = weighted_rate(columns("kl").astype(float), context.beta.value)
    loss: np.ndarray = objective(columns("distortion").astype(float), rates[:, None])
    return loss


def _ends(values: np.ndarray, count: int, names: tuple[str, str]) -> dict[str, np.ndarray]:
    """Positions of the lowest and of the highest values, the extreme ones first."""
    import numpy as np

    finite = np.flatnonzero(np.isfinite(values))
    order = finite[np.argsort(values[finite], kind="stable")]
    return {names[0]: order[:count], names[1]: order[::-1][:count].copy()}


def _array(x: Tensor) -> np.ndarray:
    array: np.ndarray = x.detach().float().cpu().numpy()
    return array


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Examples."""
    return [Examples]
