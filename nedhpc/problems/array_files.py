"""Files of arrays: NPZ, NPY, HDF5 and Parquet. Local."""

import logging
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from nedhpc.errors import UsageError
from nedhpc.names import unknown
from nedhpc.problems.cells import Table, real, short
from nedhpc.problems.text_table import import_pandas

SMALL_BYTES = 2**26
"""Arrays of at most this size are read, however small their file is."""
MAX_COMPRESSION = 100
"""Largest factor by which compression shrinks measured numbers."""

log = logging.getLogger("nedhpc")


def read_arrays(path: Path, inputs: Sequence[str], targets: Sequence[str] | int) -> Table:
    """Columns of an NPY, NPZ or HDF5 file.

    Args:
        path: the file.
        inputs: names of arrays, or nothing.
        targets: names of arrays, or a number of columns.

    Returns:
        The columns of the arrays that are named; else of x, then y; else of the only array.

    Raises:
        UsageError: an array is missing, has a wrong shape, or does not hold real numbers.
    """
    if path.suffix.lower() == ".npy":
        # Mapped, a header that claims more than the file holds is refused before memory is used.
        return _columns({"": np.load(path, mmap_mode="r", allow_pickle=False)})
    with _arrays(path) as (names, load):
        return _choose(names, load, inputs, targets)


def array_names(path: Path) -> list[str]:
    """Names of the arrays in an NPZ or HDF5 file."""
    with _arrays(path) as (names, _):
        return list(names)


def read_grid(
    path: Path, inputs: Sequence[str], targets: Sequence[str]
) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Axes and values (n_1, ..., n_D, M) of a grid; None if the arrays have a row for each point.

    Args:
        path: an NPZ or HDF5 file.
        inputs: names of the axes, arrays (n_d,).
        targets: names of the values, arrays (n_1, ..., n_D) or (n_1, ..., n_D, M).

    Raises:
        UsageError: there is no such file or array, an axis does not increase, or a number is not
            finite.
    """
    if not path.is_file():
        raise UsageError("there is no such file")
    if path.suffix.lower() == ".npy" or len(inputs) < 2:
        return None
    with _arrays(path) as (names, load):
        for name in (*inputs, *targets):
            if name not in names:
                raise UsageError(unknown(f"array {name!r}", "name", name, names))
        axes, values = ([load(name) for name in group] for group in (inputs, targets))
    shape = tuple(len(axis) if axis.ndim == 1 else -1 for axis in axes)
    if not all(array.shape[: len(shape)] == shape for array in values):
        return None
    axes = [real(axis, f"array {short(name)}") for axis, name in zip(axes, inputs, strict=True)]
    parts = [real(array, f"array {short(n)}") for array, n in zip(values, targets, strict=True)]
    grid = np.concatenate([part.reshape(*shape, -1) for part in parts], -1)
    for name, array in (*zip(inputs, axes, strict=True), (", ".join(targets), grid)):
        if not np.isfinite(array).all():
            raise UsageError(f"array {short(name)} holds numbers that are not finite")
        if array is not grid and (len(array) < 2 or not (np.diff(array) > 0).all()):
            raise UsageError(f"axis {short(name)} must have at least two numbers that increase")
    return axes, grid


@contextmanager
def _arrays(path: Path) -> Iterator[tuple[Sequence[str], Callable[[str], np.ndarray]]]:
    """Context manager that gives the names of the arrays in a file, and their reader."""
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            check_claim(sum(entry.file_size for entry in archive.infolist()), path)
        with np.load(path, allow_pickle=False) as file:
            yield file.files, file.__getitem__
        return
    with h5py.File(path, "r") as file:
        names: list[str] = []
        # This visits no link to another file.
        file.visititems(lambda name, item: names.append(name) if is_dataset(item) else None)
        links = [name for name in file if not _is_own(file, name)]
        yield [*names, *links], lambda name: _own_array(file, name)


def is_dataset(item) -> bool:
    """True if an object of an HDF5 file is a dataset."""
    return isinstance(item, h5py.Dataset)


def _is_own(file: h5py.File, name: str) -> bool:
    return isinstance(file.get(name, getlink=True), h5py.HardLink)


def _own_array(file: h5py.File, name: str) -> np.ndarray:
    """An array whose values lie in this file."""
    item = file[name] if _is_own(file, name) else None
    if item is None or item.external or item.is_virtual:
        raise UsageError(f"array {short(name)} is a link or lies in another file; copy it in")
    if item.dtype.kind == "O" or item.shape is None:
        raise UsageError(f"array {short(name)} holds text or objects; needed are real numbers")
    check_claim(math.prod(item.shape) * item.dtype.itemsize, Path(file.filename))
    return item[()]


def check_claim(num_bytes: int, path: Path) -> None:
    """Refuse arrays that claim far more bytes than compression explains, before memory is used."""
    present = path.stat().st_size
    if num_bytes > max(SMALL_BYTES, MAX_COMPRESSION * present):
        raise UsageError(
            f"its arrays claim {num_bytes:g} bytes, the file has {present}; it is incomplete or "
            "made to fill the memory"
        )


def _choose(
    names: Sequence[str],
    load: Callable[[str], np.ndarray],
    inputs: Sequence[str],
    targets: Sequence[str] | int,
) -> Table:
    """The columns of the arrays that the user names, or of those that the file is made of."""
    wanted = [*inputs, *([] if isinstance(targets, int) else targets)]
    if wanted:
        for name in wanted:
            if name not in names:
                raise UsageError(unknown(f"array {name!r}", "name", name, names))
        # All other arrays are inputs if only the targets are named.
        return _columns({n: load(n) for n in (wanted if inputs else names)})
    if "x" in names and "y" in names:
        arrays = {"x": load("x"), "y": load("y")}
        table = _columns(arrays)
        table.num_targets = arrays["y"].shape[1] if arrays["y"].ndim == 2 else 1
        return table
    if len(names) == 1:
        return _columns({"": load(names[0])})
    found = short(", ".join(names), 200) or "nothing"
    raise UsageError(
        f"it holds {found}; needed are arrays x (N, D) and y (N, M), one array of columns, or the "
        "names of arrays in `inputs` and `targets`"
    )


def _columns(arrays: dict[str, np.ndarray]) -> Table:
    """The columns of arrays (N,) or (N, K). Those of one array have the same name."""
    shapes = ", ".join(f"{name} {array.shape}".strip() for name, array in arrays.items())
    heights = {array.shape[:1] for array in arrays.values()}
    if len(heights) > 1 or any(
        array.ndim not in (1, 2) or 0 in array.shape[1:] for array in arrays.values()
    ):
        raise UsageError(f"shapes are {short(shapes, 200)}; needed are (N, D) and (N, M)")
    names, columns = [], []
    for name, array in arrays.items():
        values = real(array, f"array {short(name)}".strip())
        values = values[:, None] if values.ndim == 1 else values
        names += [name] * values.shape[1]
        columns += list(values.T)
    return Table(names if all(names) else [], columns, list(range(1, len(columns) + 1)))


def read_parquet(path: Path) -> Table:
    """Columns of a Parquet file. An index with a name is a column.

    Raises:
        UsageError: the file cannot be read, or pandas or pyarrow is not installed.
    """
    pandas = import_pandas()
    try:
        frame = pandas.read_parquet(path)
    except ImportError:
        raise UsageError(
            "reading Parquet needs pyarrow, which is not installed: pip install 'nedhpc[data]'"
        ) from None
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    elif not isinstance(frame.index, pandas.RangeIndex):
        log.info("%s: the index has no name and is left out", path.name)
    columns = [frame.iloc[:, position].to_numpy() for position in range(frame.shape[1])]
    return Table([str(name) for name in frame], columns, list(range(1, len(columns) + 1)))
