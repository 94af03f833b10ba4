"""Detect anomalies in scikit-learn's style: trained, calibrated and asked in three calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.errors import IsoprobeError, OptionError
from isoprobe.probe.objective import Objective, parts
from isoprobe.registry.lookup import installed
from isoprobe.run.decisions import StepUp
from isoprobe.theory.detection import conformal_p_values
from isoprobe_plugins.architectures.skip import Skip
from isoprobe_trainers.table.train import METRIC, as_vae, fit, write

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise IsoprobeError(
        "isoprobe.Detector is a scikit-learn estimator, and scikit-learn 1.6 or later is not "
        "installed: pip install 'isoprobe[sklearn]'"
    ) from error

if TYPE_CHECKING:
    from pathlib import Path


#: rows scored at once, always as many, so that a row's company does not move its last digits
_BLOCK = 256


class Detector(BaseEstimator):  # type: ignore[misc]
    """Anomaly scores L_x of a VAE that is trained on normal rows.

    Rows are numbers, or a data frame whose text columns are taken as categories. A share of them is
    left out of the training, and new rows are compared with these.

    Args:
        alpha: rows of a conformal p-value up to this are anomalies to :meth:`predict`.
        fdr: where given, :meth:`predict` bounds the share of false ones among its anomalies
            instead.
        reference: share of the rows that are left out of the training.
        seed: of everything random.

    Attributes:
        recipe_: how columns become inputs.
        beta_: KL weight.
        latents_: number of latents.
        said_: what was chosen and why, a sentence each.
        reference_: scores of the rows left out, ascending.
        n_features_in_: number of columns.
    """

    def __init__(
        self, alpha: float = 0.05, fdr: float | None = None, reference: float = 0.2, seed: int = 0
    ) -> None:
        self.alpha = alpha
        self.fdr = fdr
        self.reference = reference
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Detector:
        """Train on normal rows.

        Args:
            X: ``(N, columns)``.
            y: not used.

        Returns:
            Itself.

        Raises:
            OptionError: for a share outside (0, 1).
        """
        for name in ("alpha", "fdr", "reference"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise OptionError(f"{name} lies between 0 and 1; found {share}")
        cells = self._cells(X, reset=True)
        count = len(next(iter(cells.values())))
        order = np.random.default_rng(self.seed).permutation(count)
        out = max(1, round(self.reference * count))
        trained = fit({name: values[order[out:]] for name, values in cells.items()}, self.seed, "X")
        self.recipe_, self.beta_, self.said_ = trained.recipe, trained.beta, trained.said
        self.latents_ = int(trained.config["latent_size"])
        self._config, self._record = trained.config, trained.record
        self._state = {
            part: {k: v.numpy() for k, v in getattr(trained.networks, part).state_dict().items()}
            for part in ("encoder", "decoder")
        }
        left = {name: values[order[:out]] for name, values in cells.items()}
        self.reference_ = np.sort(self._scored(left)[0])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Score rows, ``(N, columns)`` to ``(N,)``: L_x, the higher the odder."""
        return self._scored(self._cells(X))[0]

    def p_value(self, X: Any) -> np.ndarray:
        """Conformal p-values of rows, ``(N, columns)`` to ``(N,)``, against the rows left out."""
        score, tolerance = self._scored(self._cells(X))
        return conformal_p_values(score, self.reference_, tolerance)

    def predict(self, X: Any) -> np.ndarray:
        """Decide, ``(N, columns)`` to ``(N,)``: 1 for an anomaly, 0 for a normal row."""
        p_values = self.p_value(X)
        if self.fdr is None:
            return (p_values <= self.alpha).astype(int)
        step = StepUp()
        step.count(p_values)
        return (step.adjusted(p_values) <= self.fdr).astype(int)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model as a native checkpoint, for ``isoprobe analyze`` and ``score``."""
        check_is_fitted(self)
        write(path, self._networks(), self._config, self.beta_, self._record, overwrite=overwrite)

    def _networks(self) -> Any:
        networks = Skip().build(self._config)
        for part, state in self._state.items():
            getattr(networks, part).load_state_dict(
                {name: torch.from_numpy(values.copy()) for name, values in state.items()}
            )
        return networks

    def _scored(self, cells: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Scores, and within what they are tied."""
        x = self.recipe_.inputs(cells, "X")
        vae = as_vae(self._networks(), self.beta_, self._record).to("cpu", torch.float64)
        objective = Objective(vae, installed().metric(METRIC))
        scores, tolerances = [], []
        for start in range(0, len(x), _BLOCK):
            block = torch.from_numpy(x[start : start + _BLOCK])
            filled = torch.cat([block, block[-1:].expand(_BLOCK - len(block), -1)])
            found = parts(objective(filled), self.beta_)
            scores.append(found.score[: len(block)])
            tolerances.append(found.tolerance[: len(block)])
        return np.concatenate(scores), np.concatenate(tolerances)

    def _cells(self, X: Any, *, reset: bool = False) -> dict[str, np.ndarray]:
        """Columns of rows, by name."""
        if not reset:
            check_is_fitted(self)
        if hasattr(X, "dtypes") and any(kind.kind not in "fiub" for kind in X.dtypes):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return {str(name): X[name].to_numpy() for name in X.columns}
        least = 2 if reset else 1
        checked = validate_data(self, X, dtype=np.float64, reset=reset, ensure_min_samples=least)
        names = getattr(self, "feature_names_in_", np.arange(checked.shape[1]))
        return {str(name): checked[:, place] for place, name in enumerate(names)}
