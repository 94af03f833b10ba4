"""Hold a result for its user: it reads like the file, and speaks for itself.

:class:`Result` adds to :class:`isoprobe.results.reader.Result` what takes words, tables and
figures: verdict, data frames, report, plots, and its face in a notebook.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import OptionError
from isoprobe.results import reader
from isoprobe.results.flat import flatten
from isoprobe.results.netcdf import flags
from isoprobe.show import cell, plots
from isoprobe.show import report as pages
from isoprobe.show.summary import latent_table
from isoprobe.show.voice import Voice, voice

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from isoprobe.contracts import Variable


class Result(reader.Result):
    """A complete result, open for reading; in a notebook it shows its verdict and its latents.

    ``result["isometry"]["norm_mean"].values`` reads one array; :meth:`samples` reads rows. It is
    a context manager; :meth:`close` closes the file, and removes it if it was temporary.
    """

    @property
    def verdict(self) -> Voice:
        """What the judge says: ``level``, ``headline``, ``meaning``, ``findings``, ``doubts``."""
        return voice(self)

    @property
    def latents(self) -> pd.DataFrame:
        """One row a latent, the most important first, collapsed ones last.

        The index is the latent's number; columns are named as in ``--json``.
        """
        return _pandas().DataFrame(latent_table(self)).set_index("latent")

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row a sample: the per-sample columns.

        Returns:
            A data frame; a column with a value for each latent is one column a latent,
            ``mean_0``, ``mean_1`` and so on. Columns with more axes are left out.
        """
        held = {name: values for name, values in self.samples().items() if values.ndim <= 2}
        table = _pandas().DataFrame(flatten(held))
        table.index.name = "sample"
        return table

    def to_xarray(self) -> xr.DataTree:
        """Return the whole result, a node for each group, with units and equations as attributes.

        Returns:
            A tree; ``tree["isometry"]["norm_mean"]`` has the dimension ``latent`` with its
            coordinate. Codes have ``flag_values`` and ``flag_meanings``, as CF says.
        """
        xarray = _xarray()
        sizes = self.sizes
        shared = {dim: np.arange(size) for dim, size in sizes.items()}
        tree = {"/": xarray.Dataset(coords=shared, attrs=dict(self.attrs))}
        for name in self.groups():
            group = self[name]
            arrays = {key: _array(group[key]) for key in group}
            tree[f"/{name}"] = xarray.Dataset(arrays)
        whole: xr.DataTree = xarray.DataTree.from_dict(tree, name=str(self.attrs.get("model")))
        return whole

    def report(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the report as one offline HTML page.

        Args:
            path: the page.
            overwrite: replace an existing one.

        Returns:
            The path.
        """
        page = Path(path)
        pages.write(pages.render(self), page, overwrite=overwrite, inputs=(self.path,))
        return page

    def plot(self, name: str) -> Figure:
        """Draw one figure of the report.

        Args:
            name: one of :attr:`plots`.

        Returns:
            The figure, which a notebook shows and ``savefig`` writes.
        """
        return plots.figure(self, name)

    @property
    def plots(self) -> list[str]:
        """Names of the figures that this result has the numbers for."""
        return plots.available(self)

    def _repr_html_(self) -> str:
        return cell.render(self)


def _array(variable: Variable) -> tuple[tuple[str, ...], np.ndarray, dict[str, Any]]:
    names = ("long_name", "units", "equation", "formula", "theory")
    attrs = {name: getattr(variable, name) for name in names if getattr(variable, name)}
    return tuple(variable.dims), variable.values, attrs | flags(variable.form, variable.values)


def _pandas() -> Any:
    """Return pandas, or name what is missing.

    Raises:
        OptionError: without pandas.
    """
    try:
        import pandas
    except ImportError as error:
        raise OptionError(
            "tables of a result need pandas, which is not installed; pip install "
            "'isoprobe[tables]'. result[group][name].values and result.samples() need nothing more."
        ) from error
    return pandas


def _xarray() -> Any:
    """Return xarray, or name what is missing.

    Raises:
        OptionError: without an xarray that has DataTree.
    """
    try:
        import xarray
    except ImportError as error:
        raise OptionError(
            "to_xarray needs xarray, which is not installed; pip install 'isoprobe[tables]'."
        ) from error
    if not hasattr(xarray, "DataTree"):
        raise OptionError(
            f"to_xarray needs xarray 2024.10 or later, found {xarray.__version__}; pip install -U "
            "'isoprobe[tables]'."
        )
    return xarray
