"""Tables in HDF5: flat groups of numbers, strings and arrays, and the names that they may have.

Local.
"""

import h5py
import numpy as np

from nedhpc.errors import UsageError


def bad_name(name: object) -> str:
    """The reason why HDF5 cannot store something under a name; "" if it can.

    The names of terms, coefficients, outputs and metrics become names of datasets.
    """
    if not isinstance(name, str) or not name:
        return "it is empty or not a text"
    if "/" in name or name == ".":
        return "'/' and '.' stand for groups in an HDF5 file"
    if "\0" in name or name.encode("utf-8", "ignore").decode() != name:
        return "it is not UTF-8 without null characters"
    return ""


def write_table(group: h5py.Group, table: dict) -> None:
    """Write a flat dict of numbers, strings and arrays as datasets of a group.

    Raises:
        UsageError: HDF5 cannot store something under one of the names.
    """
    for name, entry in table.items():
        if reason := bad_name(name):
            raise UsageError(f"nothing can be stored under the name {name!r}: {reason}")
        group[name] = clean(entry) if isinstance(entry, str) else entry


def clean(string: str) -> str:
    """The string as UTF-8; undecodable bytes, e.g. of file names, become escape sequences."""
    return string.encode("utf-8", "backslashreplace").decode()


def read_table(group: h5py.Group) -> dict:
    """The dict that `write_table` wrote."""
    return {name: value(group, name) for name in group}


def value(group: h5py.Group, name: str):
    """The number, array, string or array of strings under a name."""
    item = dataset(group, name)
    if h5py.check_string_dtype(item.dtype):
        return item.asstr()[()]
    if not is_plain(item.dtype):
        raise ValueError(f"{item.name} has type {item.dtype}")
    return item[()]


def text(group: h5py.Group, name: str) -> str:
    """The string under a name."""
    return dataset(group, name).asstr()[()]


def is_plain(dtype: np.dtype) -> bool:
    """True for numbers and strings; False for references, compounds and other types."""
    return dtype.kind in "biuf" or h5py.check_string_dtype(dtype) is not None


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset of this file under a name.

    Before memory is used, two kinds are refused: a dataset that claims more bytes than its file
    has, and one that lies in another file, whose bytes the seal does not cover.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is not part of the file")
    item = group[name]
    if item.shape is None:
        raise ValueError(f"{item.name} holds nothing")
    claimed = np.prod(item.shape, dtype=float) * item.dtype.itemsize
    present = item.file.id.get_filesize()
    if claimed > present:
        raise ValueError(f"{item.name} claims {claimed:g} bytes, the file has {present}")
    if item.external or item.is_virtual:
        raise ValueError(f"{item.name} lies in another file")
    return item
