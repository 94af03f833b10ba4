"""Store named arrays as HDF5 data sets that xarray, netCDF4, h5py and MATLAB read alike.

Every axis of every data set has a dimension scale. ``sample`` and ``latent`` lie in the root, where
every group finds them; other dimensions lie in the group that uses them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.contracts import FORMS, SHOWN, Variable
from isoprobe.errors import PluginError, ResultError
from isoprobe.results.columns import Column, stored_dtype
from isoprobe.results.former import Said, former

if TYPE_CHECKING:
    import h5py

    from isoprobe.files.hdf5 import Hdf5File

SHARED = ("sample", "latent")
#: HDF5 keeps an attribute in its object's header, which holds 64 KiB
ATTRIBUTE_BYTES = 60_000
#: an array read whole may be this large; longer ones are read in slices
WHOLE_BYTES = 4 << 30
#: bytes of a chunk at most, but for a longer row
CHUNK_BYTES = 1 << 18
#: netCDF's name for a dimension without coordinate values
_BARE = "This is a netCDF dimension but not a netCDF variable. "
#: names of a data set's axes once more: the scales' own bookkeeping lies on HDF5's global heap
_AXES = "axes"
_JSON = "json_attributes"
#: checksum of a number that lies in no chunk
_SUM = "crc32"
#: what a data set's attributes tell of it
_TOLD = {
    _AXES, "dtype", "long_name", "units", "equation", "formula", "theory", "show", "label", "form"
}  # fmt: skip
LONG = "long_attributes"


# --------------------------------------------------------------------------- writing


def check_group(name: str, variables: Mapping[str, Variable], sizes: Mapping[str, int]) -> None:
    """Check names, dimensions and types before anything depends on them.

    Args:
        name: of the group.
        variables: what it is to hold.
        sizes: lengths of the shared dimensions.

    Raises:
        PluginError: naming the variable at fault.
    """
    lengths = dict(sizes)
    for key, variable in variables.items():
        where = f"variable '{name}/{key}'"
        values = np.asarray(variable.values)
        if not key or "/" in key or key in {".", ".."}:
            raise PluginError(f"{where}: a name is not empty and holds no '/'")
        if any(not dim.isidentifier() for dim in variable.dims):
            raise PluginError(f"{where}: a dimension is a plain word; it has {variable.dims}")
        if values.ndim != len(variable.dims) or len(set(variable.dims)) != values.ndim:
            raise PluginError(
                f"{where} needs one dimension name for each axis, all different; it has dims"
                f" {variable.dims} and shape {values.shape}"
            )
        if values.dtype.kind not in "fiubUOS":
            raise PluginError(f"{where} needs numbers or text; it holds {values.dtype}")
        _check_shown(where, variable)
        if any(dim == key for dim in variable.dims) and values.ndim > 1:
            raise PluginError(f"{where} is named as one of its dimensions, so it needs one axis")
        for dim, length in zip(variable.dims, values.shape, strict=True):
            if lengths.setdefault(dim, length) != length:
                raise PluginError(
                    f"{where} has {length} along '{dim}' where {lengths[dim]} were expected"
                )


def _check_shown(where: str, variable: Variable) -> None:
    """Refuse a variable that cannot be shown as it asks to be.

    Raises:
        PluginError: naming it.
    """
    shown, needs = variable.shown, {"column": ("latent",), "tile": ()}
    if shown not in SHOWN:
        raise PluginError(f"{where}: show is one of {', '.join(SHOWN)}; found '{variable.show}'")
    if shown in needs and tuple(variable.dims) != needs[shown]:
        raise PluginError(
            f"{where} is to be a {shown}, which has dims {needs[shown]}; it has"
            f" {variable.dims}. Set show='none'"
        )
    if not FORMS.fullmatch(variable.form):
        raise PluginError(f"{where}: form is such as '.3g', '.1%' or 'd'; found '{variable.form}'")


def write_scales(file: h5py.Group, sizes: Mapping[str, int]) -> None:
    """Write the shared dimensions with their coordinates 0, 1, 2, ..."""
    for dim, size in sizes.items():
        scale = file.create_dataset(dim, (size,), "<i8", **_storage((size,), 8))
        for start in range(0, size, 1 << 20):
            stop = min(start + (1 << 20), size)
            scale[start:stop] = np.arange(start, stop)
        _set(scale, "long_name", f"index of the {dim}")
        scale.make_scale(dim)


def write_group(file: h5py.Group, name: str, variables: Mapping[str, Variable]) -> None:
    """Write checked variables (see :func:`check_group`) into a new group."""
    group = file.create_group(name)
    # a variable named as its dimension is that dimension's coordinate, so it comes first
    for key in sorted(variables, key=lambda key: key not in variables[key].dims):
        variable = variables[key]
        values = np.asarray(variable.values)
        data = _create(group, key, values)
        _describe(data, variable, boolean=values.dtype.kind == "b")
        if key in variable.dims:
            data.make_scale(key)
        else:
            _attach(file, group, data, variable.dims)


def create_column(
    file: h5py.Group, group: str, name: str, column: Column, rows: int
) -> h5py.Dataset:
    """Return a new, empty per-sample data set of full length, to be filled in slices."""
    parent = file.require_group(group)
    shape = (rows, *column.shape)
    storage = _storage(shape, np.dtype(column.dtype).itemsize)
    data = parent.create_dataset(name, shape, column.dtype, **storage)
    _describe(data, column, boolean=column.boolean)
    _attach(file, parent, data, column.dims)
    return data


def write_attributes(file: h5py.Group, attrs: Mapping[str, Any]) -> None:
    """Write root attributes: text, numbers and lists of numbers as such, all else as JSON.

    The names of those in JSON are listed in the attribute ``json_attributes``. A text too long for
    an HDF5 attribute becomes a data set in the group ``long_attributes``.
    """
    encoded: list[str] = []
    for name, value in attrs.items():
        plain = _plain(value)
        if plain is None:
            encoded.append(name)
            plain = json.dumps(value, default=str)
        if isinstance(plain, str):
            plain = _text(plain)
            if len(plain.encode()) > ATTRIBUTE_BYTES:
                file.require_group(LONG).create_dataset(name, data=plain)
                continue
        _set(file, name, plain)
    if encoded:
        _set(file, _JSON, json.dumps(encoded))


def _create(group: h5py.Group, key: str, values: np.ndarray) -> h5py.Dataset:
    import h5py

    if values.dtype.kind in "UOS":
        text = np.array([_text(v) for v in values.ravel()], dtype=object).reshape(values.shape)
        return group.create_dataset(key, data=text, dtype=h5py.string_dtype("utf-8"))
    dtype = stored_dtype(values.dtype)
    numbers = np.ascontiguousarray(values, dtype=dtype).reshape(values.shape)
    data = group.create_dataset(key, data=numbers, **_storage(values.shape, dtype.itemsize))
    if not data.chunks:  # HDF5 keeps checksums of chunks alone
        data.attrs[_SUM] = np.uint32(zlib.crc32(numbers.tobytes()))
    return data


def _storage(shape: tuple[int, ...], itemsize: int) -> dict[str, Any]:
    """Return chunking and compression; scalars and empty arrays take neither."""
    if not shape or 0 in shape:
        return {}
    row = itemsize * int(np.prod(shape[1:], dtype=np.int64))
    rows = max(1, min(shape[0], CHUNK_BYTES // row))
    # level 1: latents are close to noise, where a higher level costs time and wins nothing
    return {
        "chunks": (rows, *shape[1:]),
        "compression": "gzip",
        "compression_opts": 1,
        "shuffle": True,
        "fletcher32": True,  # a flipped bit is damage, never a number
    }


def _set(item: h5py.HLObject, name: str, value: Any) -> None:
    """Set an attribute; text is kept at fixed length, so that it lies in the object's own header.

    Text of variable length lies on HDF5's global heap, where a flipped bit can make it loop.
    """
    import h5py

    if isinstance(value, str):
        data = value.encode()
        item.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", max(1, len(data))))
    else:
        item.attrs[name] = value


def _describe(data: h5py.Dataset, source: Variable | Column, *, boolean: bool) -> None:
    _set(data, _AXES, " ".join(source.dims))
    for key in ("long_name", "units", "equation", "formula", "theory"):
        value = getattr(source, key)
        if value:
            _set(data, key, _text(value))
    if isinstance(source, Variable):
        shown = {"show": source.shown, "label": source.label, "form": source.form}
        for key, value in shown.items():
            if value:
                _set(data, key, _text(value))
        for key, value in flags(source.form, source.values).items():
            _set(data, key, value)
    if boolean:
        _set(data, "dtype", "bool")  # as xarray writes and reads it


def flags(form: str, values: np.ndarray) -> dict[str, Any]:
    """Return what codes mean as the CF conventions (3.5) have it; nothing for other variables.

    Args:
        form: of a variable, words for its codes 0, 1, 2 with ``|`` between them.
        values: the codes.

    Returns:
        ``flag_values``, of the codes' own type, and ``flag_meanings``.
    """
    codes = np.asarray(values).dtype
    if "|" not in form or codes.kind not in "iu":
        return {}
    words = [word.replace(" ", "_") for word in form.split("|")]
    return {"flag_values": np.arange(len(words), dtype=codes), "flag_meanings": " ".join(words)}


def _attach(file: h5py.Group, group: h5py.Group, data: h5py.Dataset, dims: tuple[str, ...]) -> None:
    for axis, dim in enumerate(dims):
        if dim in group:
            scale = group[dim]
        elif dim in SHARED:
            scale = file[dim]
        else:
            size = data.shape[axis]
            scale = group.create_dataset(dim, (size,), "<f4")
            scale.make_scale(f"{_BARE}{size:>10}")
        data.dims[axis].attach_scale(scale)


def _plain(value: Any) -> Any:
    """Return the value as HDF5 keeps it, None where only JSON can."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (str, float, np.floating)):
        return value
    if isinstance(value, (int, np.integer)):
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, (list, tuple)) and value:
        items = [_plain(item) for item in value]
        if any(all(isinstance(item, kind) for item in items) for kind in (int, float)):
            return items
    return None


def _text(value: object) -> str:
    """Return text that HDF5 can keep: no NUL, no lone surrogate (a file name may hold either)."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


# --------------------------------------------------------------------------- reading


def read_attributes(opened: Hdf5File) -> dict[str, Any]:
    """Return the root attributes as they were given to :func:`write_attributes`.

    Raises:
        ResultError: if one that should be JSON is not.
    """
    file = opened.file
    raw = opened.attributes(file)
    encoded = json.loads(_unset(raw.pop(_JSON, "[]")))
    long = opened.child(file, LONG)
    if long is not None:
        raw |= {name: opened.read(opened.child(long, name)).item() for name in opened.names(long)}
    attrs: dict[str, Any] = {}
    for name, value in raw.items():
        attrs[name] = _unset(value)
        if name in encoded:
            try:
                attrs[name] = json.loads(attrs[name])
            except (ValueError, TypeError) as error:
                raise ResultError(f"attribute '{name}' of {opened.path} is no JSON") from error
    return attrs


def _unset(value: Any) -> Any:
    """Return an attribute's value as Python's own types, text decoded."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def find_group(opened: Hdf5File, name: str) -> h5py.Group | None:
    """Return a group of variables that a file holds itself, None where there is none."""
    import h5py

    node = None if name == LONG else opened.child(opened.file, name)
    return node if isinstance(node, h5py.Group) else None


def variable_names(opened: Hdf5File, group: h5py.Group) -> list[str]:
    """Return the variables of a group: data sets of its own, without bare dimensions.

    Raises:
        ResultError: if one of them does not lie in the file.
    """
    return [name for name in opened.names(group) if _is_variable(opened, group, name)]


def read_variable(
    opened: Hdf5File, group: h5py.Group, name: str, start: int = 0, stop: int | None = None
) -> Variable:
    """Return a variable, or rows ``[start, stop)`` of it.

    Raises:
        ResultError: if it is too long to be read whole.
    """
    data = opened.child(group, name)
    rows = slice(start, stop) if data.shape else None
    length = len(range(*rows.indices(data.shape[0]))) if isinstance(rows, slice) else 1
    row = data.dtype.itemsize * int(np.prod(data.shape[1:], dtype=np.float64))
    if length * row > WHOLE_BYTES:
        raise ResultError(f"'{data.name}' holds {length * row >> 30} GiB; read it in slices")
    values = opened.read(data, rows)
    told_sum = opened.attribute(data, _SUM)
    if told_sum is not None and told_sum != zlib.crc32(np.ascontiguousarray(values).tobytes()):
        raise ResultError(f"{opened.path}: '{data.name}' is damaged; run 'analyze' again")
    told = {key: _unset(opened.attribute(data, key)) for key in _TOLD if key in data.attrs}
    if told.get("dtype") == "bool":
        values = values.astype(bool)
    old = _former(opened, group, name)

    def said(attribute: str, otherwise: str = "") -> str:
        return str(told.get(attribute, otherwise))

    return Variable(
        dims=tuple(str(told[_AXES]).split()),
        values=values,
        long_name=said("long_name", name),
        units=said("units", "1"),
        equation=said("equation"),
        formula=said("formula"),
        theory=said("theory"),
        show=said("show", old.show),
        label=said("label", old.label),
        form=said("form", old.form),
    )


def shown(opened: Hdf5File, group: h5py.Group, name: str) -> str:
    """Return how a variable is shown, without reading its values."""
    how = opened.attribute(opened.child(group, name), "show")
    return _former(opened, group, name).show if how is None else str(_unset(how))


def _former(opened: Hdf5File, group: h5py.Group, name: str) -> Said:
    """How it is shown where the file does not say."""
    if opened.attribute(opened.child(group, name), "show") is not None:
        return Said()
    return former(group.name.strip("/"), name)


def _is_variable(opened: Hdf5File, group: h5py.Group, name: str) -> bool:
    import h5py

    data = opened.child(group, name)
    if not isinstance(data, h5py.Dataset):
        return False
    label = opened.attribute(data, "NAME", b"")
    return not bytes(label).startswith(_BARE.encode()) if isinstance(label, bytes) else True
