"""Find variables where files of another format version keep them.

Format 1 repeated numbers under several names; format 2 has each once. A reader of either may ask
by the names of either.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from isoprobe.results import netcdf

if TYPE_CHECKING:
    import h5py

    from isoprobe.contracts import Variable
    from isoprobe.files.hdf5 import Hdf5File

#: of results and shards; a newer one is refused
FORMAT_VERSION = 2
#: names of format 1, and where format 2 keeps the same number
MOVED = {
    "isometry/variance_mean": "overview/variance_mean",
    "importance/rate": "overview/kl_mean",
    "coordinates/variance": "importance/exact",
    "rate-distortion/rate": "overview/rate_mean",
    "rate-distortion/coding_loss": "overview/distortion_coding_mean",
    "rate-distortion/coding_loss_se": "overview/distortion_coding_se",
    "rate-distortion/second_moment": "overview/second_moment_mean",
}
_EARLIER = {new: old for old, new in MOVED.items()}


def elsewhere(opened: Hdf5File, group: h5py.Group, name: str) -> Variable | None:
    """Read a variable that a group lacks from where another version keeps it.

    Args:
        opened: the file.
        group: that was asked.
        name: that it has not got.

    Returns:
        The variable; None when there is none.
    """
    asked = f"{group.name.strip('/')}/{name}"
    place = MOVED.get(asked) or _EARLIER.get(asked)
    if place is None:
        return None
    other, _, key = place.partition("/")
    found = netcdf.find_group(opened, other)
    if found is None or key not in netcdf.variable_names(opened, found):
        return None
    if asked in MOVED:
        warnings.warn(f"'{asked}' is now '{place}'", DeprecationWarning, stacklevel=3)
    return netcdf.read_variable(opened, found, key)
