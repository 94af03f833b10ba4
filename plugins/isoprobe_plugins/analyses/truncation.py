"""Keep only the k most important latents: what it costs, beside what importance predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.theory.mixtures import standard_error
from isoprobe.theory.stated import cite
from isoprobe.theory.truncation import curve, data_costs, latents_for, truncation_costs
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.rows import checked_rows
from isoprobe_plugins.analyses.variables import headed, input_axes, scalar, sourced

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Batch, Context

#: shares of the distortion which all latents together remove
SHARES = (0.90, 0.95, 0.99)
_BLOCK = 100


class Truncation(WithFigures):
    """D(x, x_k) and D(x_check, x_k), x_k decoded from the k most important latents.

    Args:
        rows: rows decoded at every k, evenly spaced.
        drop: ``mean`` holds the other latents at their mean over the data, ``zero`` at 0.
        pictures: rows whose reconstructions are kept at k = 0, 1, 2, 4, 8 ...
    """

    name = "truncation"
    summary = "distortion with only the k most important latents kept, measured and predicted"
    of_rows = frozenset({"images", "originals", "pictured", "picture"})
    needs = frozenset({"mean"})
    after = ("importance",)

    def __init__(self, rows: int = 1000, drop: str = "mean", pictures: int = 8) -> None:
        super().__init__()
        if drop not in {"mean", "zero"} or pictures < 0:
            raise OptionError(
                "truncation's drop is 'mean' or 'zero' and pictures at least 0; "
                f"found {drop!r} and {pictures}."
            )
        self.rows, self.drop, self.pictures = checked_rows(rows, self.name), drop, pictures

    def update(self, batch: Batch) -> None:
        """Nothing: rows are decoded once their order of importance is known."""

    def result(self, context: Context) -> Mapping[str, Variable]:
        """The curve, what importance predicts, and the k that keep most."""
        import numpy as np
        import torch

        order = context.results["importance"]["order"].values
        used = int(context.setup.active.sum())
        counts = _counts(len(order), used)
        vae, x = context.setup.bound(min(self.rows, context.setup.samples))
        with torch.no_grad():
            parts = []
            for start in range(0, len(x), _BLOCK):
                where = slice(start, start + _BLOCK)
                told = vae.rows(where)
                parts.append(self._measured(told, x[where], counts, order, context))
        data, check = (np.concatenate([p[i] for p in parts]) for i in (0, 1))

        variables = {
            "kept": Variable(("kept",), counts, "k, latents kept in order of importance"),
            "order": Variable(("rank",), order, "latents in order of importance"),
            **_curve("distortion", data, "D(x, x_k)"),
            **_curve("from_check", check, "D(x_check, x_k) less D(x_check, x_check)"),
            **self._predicted(counts, order, data.mean(axis=0)[-1], context),
            **sourced(_enough(counts, data.mean(axis=0)), latents_for),
            **self._pictures(vae, x, counts, order, context),
            "rows": scalar(len(data), "rows decoded"),
        }
        return headed(variables, "Truncation (beyond)")

    def _measured(
        self, vae: VAE, x: Tensor, counts: np.ndarray, order: np.ndarray, context: Context
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both distortions of a block at every k, each ``(B, len(counts))``."""
        import numpy as np

        from isoprobe.derivatives.metric_tensor import output_metric
        from isoprobe.probe.told import encoded

        view = output_metric(self.setup.metric, vae)
        mean = encoded(vae, x).mean
        check = view.decode(mean)
        own = view.apart(check, check)
        columns = []
        for k in counts:
            kept = view.decode(self._truncated(mean, order[:k], context))
            columns.append((view.distortion(x, kept), view.apart(check, kept) - own))
        return tuple(  # type: ignore[return-value]
            np.stack([pair[i].double().cpu().numpy() for pair in columns], axis=1) for i in (0, 1)
        )

    def _truncated(self, mean: Tensor, kept: np.ndarray, context: Context) -> Tensor:
        """Mu with all but some latents at their mean, or at 0."""
        import torch

        held = torch.zeros_like(mean)
        if self.drop == "mean":
            average = context.results["overview"]["posterior_mean_mean"].values
            held += torch.as_tensor(average).to(mean)
        chosen = torch.as_tensor(kept.astype(int), device=mean.device)
        held[:, chosen] = mean[:, chosen]
        return held

    def _predicted(
        self, counts: np.ndarray, order: np.ndarray, whole: float, context: Context
    ) -> dict[str, Variable]:
        import numpy as np

        beta = context.beta.value
        importance = context.results["importance"]["exact"].values[order]
        # an idle latent is not dropped: it was never used
        importance = np.where(context.setup.active[order], importance, 0.0)
        return {
            "distortion_predicted": Variable(
                ("kept",),
                curve(data_costs(importance, beta), whole)[counts],
                "D(x, x_k) by importance: lambda_j - (beta/2)^2 / lambda_j for each latent dropped",
                "metric",
                **cite(data_costs),
            ),
            "from_check_predicted": Variable(
                ("kept",),
                curve(truncation_costs(importance, beta))[counts],
                "D(x_check, x_k) by importance: (lambda_j - beta/2)^2 / lambda_j for each",
                "metric",
                **cite(truncation_costs),
            ),
        }

    def _pictures(
        self, vae: VAE, x: Tensor, counts: np.ndarray, order: np.ndarray, context: Context
    ) -> dict[str, Variable]:
        import numpy as np
        import torch

        from isoprobe.probe.told import encoded

        count = min(self.pictures, len(x))
        if not count:
            return {}
        shown = np.array([k for k in counts if k == 0 or k & (k - 1) == 0 or k == counts[-1]])
        places = torch.arange(count, device=x.device) * len(x) // count
        rows, told = x[places], vae.rows(places)
        with torch.no_grad():
            mean = encoded(told, rows).mean
            images = [told.decode(self._truncated(mean, order[:k], context)) for k in shown]
        axes = input_axes(self.setup.vae.input_shape)
        return {
            "pictured": Variable(("pictured",), shown, "k of each row of pictures"),
            "images": Variable(
                ("pictured", "picture", *axes),
                torch.stack(images).float().cpu().numpy(),
                "the same rows decoded from k latents",
            ),
            "originals": Variable(("picture", *axes), rows.float().cpu().numpy(), "those rows"),
        }


def _counts(size: int, used: int) -> np.ndarray:
    """K to try: all to 16, then in steps of about a tenth, the used ones and all."""
    import numpy as np

    steps = np.unique(np.geomspace(16, max(size, 16), 40).round().astype(int))
    tried = {*range(min(size, 16) + 1), *steps[steps <= size].tolist(), used, size}
    return np.array(sorted(tried))


def _curve(name: str, values: np.ndarray, text: str) -> dict[str, Variable]:

    return {
        name: Variable(("kept",), values.mean(axis=0), f"mean {text}", "metric"),
        f"{name}_se": Variable(
            ("kept",), standard_error(values), f"standard error of the mean {text}", "metric"
        ),
    }


def _enough(counts: np.ndarray, distortion: np.ndarray) -> dict[str, Variable]:

    return {
        f"latents_{round(100 * share)}": scalar(
            int(counts[min(latents_for(distortion, share), len(counts) - 1)]),
            f"latents that remove {share:.0%} of the distortion which all of them remove",
            show="tile",
        )
        for share in SHARES
    }


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Truncation."""
    return [Truncation]
