"""Map what each latent reads from an input and what it writes into the output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.statistics.moments import Moments
from isoprobe.theory.maps import alignment
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.rows import checked_rows
from isoprobe_plugins.analyses.variables import headed, input_axes, scalar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Batch, Context, Setup
    from isoprobe.derivatives.metric_tensor import OutputMetric
    from isoprobe.derivatives.routes import Route

_BLOCK = 50


class Maps(WithFigures):
    """Mean derivatives of mu_j by the input and of the output by z_j, for the leading latents.

    Args:
        latents: how many, in descending importance.
        rows: rows averaged over, spread over the data.
    """

    name = "maps"
    summary = "what each latent reads (d mu_j / dx) and writes (d x_hat / dz_j), as maps"
    needs = frozenset({"mean"})
    after = ("importance",)

    def __init__(self, latents: int = 10, rows: int = 200) -> None:
        super().__init__()
        if latents < 1:
            raise OptionError(f"maps' latents is at least 1; found {latents}.")
        self.latents, self.rows = latents, checked_rows(rows, self.name)

    def start(self, setup: Setup) -> None:
        """Refuse a likelihood.

        Raises:
            OptionError: since counts and classes have no derivative.
        """
        super().start(setup)
        if setup.metric.likelihood:
            raise OptionError(
                f"analysis 'maps' takes derivatives of D by the input, and of '{setup.metric.name}'"
                " it has none; use --metric sse for maps of the decoded mean"
            )

    def update(self, batch: Batch) -> None:
        """Nothing: maps are taken once the order of importance is known."""

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Mean and deviation of both maps, ``(rank, *input axes)``, and how they agree."""
        from isoprobe.derivatives.metric_tensor import output_metric
        from isoprobe.derivatives.routes import choose_route

        setup = self.setup
        order = context.results["importance"]["order"].values[: self.latents].astype(int)
        shape = (len(order), *setup.vae.input_shape)
        self.read, self.write, self.agreed = Moments(shape), Moments(shape), Moments(shape[:1])
        route = None
        vae, rows = setup.bound(min(self.rows, setup.samples))
        moves = (rows - rows.mean(dim=0)).flatten(1).double().cpu().numpy()
        for start in range(0, len(rows), _BLOCK):
            where = slice(start, start + _BLOCK)
            x, told = rows[where], vae.rows(where)
            view = output_metric(setup.metric, told)
            mean, read = self._read(told, x, order)
            route = route or choose_route(view.rows(slice(2)).decode, mean[:2])
            write, asked = _write(view, route, x, mean, order)
            self.write.update(write)
            if read is not None:
                self.read.update(read)
                flat = (*read.shape[:2], -1)
                self.agreed.update(alignment(read.reshape(flat), asked.reshape(flat), moves))
        return headed(self._variables(order), "Read and write maps (beyond)")

    def _read(self, vae: VAE, x: Tensor, order: np.ndarray) -> tuple[Tensor, np.ndarray | None]:
        """Mu ``(B, n)``, and its derivative ``(B, rank, *inputs)`` where the encoder has one."""
        import torch

        from isoprobe.probe.told import encoded

        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            mean = encoded(vae, leaf).mean
            if not mean.requires_grad:
                return mean, None
            rows = [
                torch.autograd.grad(mean[:, j].sum(), leaf, retain_graph=True)[0] for j in order
            ]
        return mean.detach(), torch.stack(rows, dim=1).double().cpu().numpy()

    def _variables(self, order: np.ndarray) -> dict[str, Variable]:
        axes = ("rank", *input_axes(self.setup.vae.input_shape))
        read, write = "d mu_j / dx", "d x_hat / dz_j"
        variables = {
            "latents": Variable(("rank",), order, "latent of each map, by importance"),
            "write": Variable(axes, self.write.mean, f"mean {write}", "input"),
            "write_sd": Variable(
                axes, self.write.sd, f"standard deviation of {write} over rows", "input"
            ),
            "rows": scalar(self.write.count, "rows averaged over"),
        }
        if self.read.count:
            variables |= {
                "read": Variable(axes, self.read.mean, f"mean {read}", "1/input"),
                "read_sd": Variable(
                    axes, self.read.sd, f"standard deviation of {read} over rows", "1/input"
                ),
                "alignment": Variable(
                    ("rank",),
                    self.agreed.mean,
                    "mean cosine of what mu_j reads with what the objective asks it to read",
                    **cite(alignment),
                ),
                "alignment_se": Variable(
                    ("rank",), self.agreed.se, "standard error of the alignment", **cite(alignment)
                ),
            }
        return variables


def _write(
    view: OutputMetric, route: Route, x: Tensor, mean: Tensor, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives d x_hat / dz_j, and -d^2 D / (dx dz_j), each ``(B, rank, *inputs)``."""
    import torch

    directions = torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)[order.tolist()]
    output, tangents = route.push(view.decode, mean, directions[:, None])
    x_hat = view.mean(output)
    # the slope of the logistic function, where the decoder is seen in logits
    slope = x_hat * (1 - x_hat) if view.logits else torch.ones_like(x_hat)
    with torch.enable_grad():
        leaf, at = x.detach().requires_grad_(), output.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(view.distortion(leaf, at).sum(), at, create_graph=True)
        asked = [
            -torch.autograd.grad((gradient * t).sum(), leaf, retain_graph=True)[0] for t in tangents
        ]
    pair = (slope * tangents).transpose(0, 1), torch.stack(asked, dim=1)
    write, mixed = (part.double().cpu().numpy() for part in pair)
    return write, mixed


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Maps."""
    return [Maps]
